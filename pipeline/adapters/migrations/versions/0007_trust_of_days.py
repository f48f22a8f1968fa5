"""How far each day may be trusted, and why."""

from alembic import op

revision = "0007"
down_revision = "0006"

DAY_STATUS = """
create view nightshift.day_status as
select
    days.*,
    case
        when days.published_run_id is null then 'missing'
        when visible.degraded then 'degraded'
        when alarmed.causes is not null or visible.warnings <> '[]' then 'warned'
        else 'ok'
    end as trust,
    array_cat(
        array_cat(
            array_remove(array[
                case
                    when days.published_run_id is null and days.last_status is null then 'missing: no run yet'
                    when days.published_run_id is null then 'missing: the last run is ' || days.last_status
                        || coalesce(', ' || latest.error_type, '')
                end,
                case when visible.degraded then 'degraded: ' || answered.by end,
                case when not visible.as_of then 'not as of its day: a source is overwritten' end
            ], null),
            coalesce(warned.sentences, '{}')
        ),
        coalesce(alarmed.causes, '{}')
    ) as reasons
from nightshift.day_publishes as days
left join nightshift.pointer on pointer.job = days.job and pointer.day = days.day
left join nightshift.runs as visible on visible.run_no = pointer.run_no
left join nightshift.runs as latest on latest.run_id = days.last_run_id
left join lateral (
    select string_agg(source.value || ' rows by ' || source.key, ', ' order by source.key) as by
    from jsonb_each_text(visible.score_sources) as source
    where source.key <> 'champion'
) as answered on true
left join lateral (
    -- What follows the colon may quote an error: it is for those who run the job.
    select array_agg('warning: ' || split_part(sentence, ':', 1) order by position) as sentences
    from jsonb_array_elements_text(visible.warnings) with ordinality as warning (sentence, position)
) as warned on true
left join lateral (
    select array_agg(state || ' alert ' || kind || ': ' || cause order by alert_no) as causes
    from nightshift.alerts
    where alerts.job = days.job and alerts.kind in ('structure', 'drift', 'concept')
        and alerts.state <> 'resolved'
        and days.day between alerts.day and coalesce(alerts.last_day, alerts.day)
) as alarmed on true
"""

REVOKE = """
do $$ begin
    if exists (select from pg_roles where rolname = 'nightshift_analyst') then
        revoke all on nightshift.day_publishes from nightshift_analyst;
    end if;
end $$
"""

COMMENTS = {
    "job": "Name of the job",
    "day": "Business day that the schedule expects",
    "published_run_id": "Run that readers see, the run_id of its predictions; null where the day is missing",
    "quality": "ok, degraded (some row was answered by a fallback), null where the day is missing",
    "restatements": "How often a published day was published again",
    "last_run_id": "The newest attempt, whether it published or not",
    "last_status": "running, published, failed or superseded",
    "last_attempt_at": "When the newest attempt was planned",
    "missing_since": "The cut-off since which the day is missing; null where it is published",
    "trust": "ok, warned (a warning, or an alert not yet resolved), degraded, or missing",
    "reasons": "Why, a sentence each; also what does not lower the trust, such as a source that is overwritten",
}


def upgrade() -> None:
    op.execute("alter view nightshift.day_status rename to day_publishes")
    # The role is made after the control tables, where it is new.
    op.execute(REVOKE)
    op.execute(DAY_STATUS)
    op.execute("comment on view nightshift.day_publishes is 'What day_status knows of runs and publishes'")
    op.execute(
        "comment on view nightshift.day_status is 'One row per expected (job, day) whose cut-off has passed'"
    )
    for column, sentence in COMMENTS.items():
        op.execute(f"comment on column nightshift.day_status.{column} is '{sentence}'")
