"""Append-only guards, and the status of every expected day."""

from alembic import op

revision = "0002"
down_revision = "0001"

REFUSE = """
create function nightshift.refuse_change() returns trigger language plpgsql as $$
begin
    raise exception '% is append-only: add a row instead of changing one', tg_table_name;
end
$$
"""

GUARD = """
create trigger {table}_append_only before update or delete or truncate on nightshift.{table}
for each statement execute function nightshift.refuse_change()
"""

DAY_STATUS = """
create view nightshift.day_status as
with days as (
    select jobs.job, jobs.timezone, series.at::date as day, series.at::date + jobs.cutoff as clock
    from nightshift.jobs
    cross join generate_series(
        jobs.start_day::timestamp,
        coalesce(jobs.end_day, (now() at time zone jobs.timezone)::date)::timestamp,
        interval '1 day'
    ) as series (at)
), instants as (
    -- `at time zone` takes the second instant of a clock time that comes twice; a cut-off is the first.
    select days.*, later.at, later.at + (
        (later.at at time zone timezone) - ((later.at - interval '24 hours') at time zone timezone)
        - interval '24 hours'
    ) as earlier
    from days cross join lateral (select clock at time zone timezone as at) as later
), expected as (
    select job, day, case when earlier at time zone timezone = clock then earlier else at end as cutoff
    from instants
)
select
    expected.job,
    expected.day,
    visible.run_id as published_run_id,
    case when visible.run_id is null then null when visible.degraded then 'degraded' else 'ok' end as quality,
    greatest(shown.publishes - 1, 0)::integer as restatements,
    latest.run_id as last_run_id,
    latest.status as last_status,
    latest.started_at as last_attempt_at,
    case when visible.run_id is null then expected.cutoff end as missing_since
from expected
left join nightshift.pointer on pointer.job = expected.job and pointer.day = expected.day
left join nightshift.runs as visible on visible.run_no = pointer.run_no
left join lateral (
    select count(*) as publishes from nightshift.publications
    where publications.job = expected.job and publications.day = expected.day
) as shown on true
left join lateral (
    select run_id, status, started_at from nightshift.runs
    where runs.job = expected.job and runs.day = expected.day
    order by run_no desc limit 1
) as latest on true
where expected.cutoff <= now()
"""

COMMENTS = {
    "job": "Name of the job",
    "day": "Business day that the schedule expects",
    "published_run_id": "Run that readers see; null where the day is missing",
    "quality": "ok, degraded (some row was answered by a fallback), null where the day is missing",
    "restatements": "How often a published day was published again",
    "last_run_id": "The newest attempt, whether it published or not",
    "last_status": "running, published, failed or superseded",
    "last_attempt_at": "When the newest attempt was planned",
    "missing_since": "The cut-off since which the day is missing; null where it is published",
}


def upgrade() -> None:
    op.execute(REFUSE)
    for table in ("promotions", "model_versions"):
        op.execute(GUARD.format(table=table))
    op.execute(DAY_STATUS)
    op.execute(
        "comment on view nightshift.day_status is 'One row per expected (job, day) whose cut-off has passed'"
    )
    for column, sentence in COMMENTS.items():
        op.execute(f"comment on column nightshift.day_status.{column} is '{sentence}'")
