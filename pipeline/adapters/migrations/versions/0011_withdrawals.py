"""Published runs may be taken back, old ones are pruned, and other systems may ask for scores."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0011"
down_revision = "0010"

STATUSES = "status in ('running', 'published', 'failed', 'superseded', 'withdrawn')"

PRUNED_AT = "When retention removed its rows and files; null while they are kept"
SNAPSHOT = "Folder of the run''s immutable files; null once its snapshot is pruned"

GUARD = """
create trigger withdrawals_append_only before update or delete or truncate on nightshift.withdrawals
for each statement execute function nightshift.refuse_change()
"""

# As in 0010, with one more reason: the run that was taken back last, where nothing was published since.
DAY_STATUS = """
create or replace view nightshift.day_status as
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
                'withdrawn: run ' || taken.run_id || ', ' || withdrawals.reason,
                case when visible.degraded then 'degraded: ' || answered.by end,
                case when not visible.as_of then 'not as of its day: a source is overwritten' end
            ], null),
            coalesce(warned.sentences, '{}')
        ),
        coalesce(alarmed.causes, '{}')
    ) as reasons
from nightshift.day_publishes as days
left join nightshift.pointer on pointer.job = days.job and pointer.day = days.day
left join nightshift.withdrawals on withdrawals.job = pointer.job and withdrawals.day = pointer.day
    and withdrawals.token = pointer.token
left join nightshift.runs as taken on taken.run_no = withdrawals.run_no
left join nightshift.runs as visible on visible.run_no = pointer.run_no
left join nightshift.runs as latest on latest.run_id = days.last_run_id
left join lateral (
    select string_agg(source.value || ' rows by ' || source.key, ', ' order by source.key) as by
    from jsonb_each_text(visible.score_sources) as source
    where source.key not in ('champion', 'challenger')
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


def upgrade() -> None:
    op.create_table(
        "withdrawals",
        sa.Column("job", sa.Text(), nullable=False, comment="Name of the job"),
        sa.Column("day", sa.Date(), nullable=False, comment="Business day"),
        sa.Column("token", sa.BigInteger(), nullable=False, comment="Token that the change was made with"),
        sa.Column("run_no", sa.BigInteger(), nullable=False, comment="Run that was taken back"),
        sa.Column(
            "restored_run_no",
            sa.BigInteger(),
            nullable=True,
            comment="Run that readers see instead; null for none",
        ),
        sa.Column(
            "withdrawn_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="When readers ceased to see the run",
        ),
        sa.Column("actor", sa.Text(), nullable=False, comment="Who ran the command"),
        sa.Column(
            "approved_by",
            sa.Text(),
            nullable=True,
            comment="Which declared approver agreed; null where none was named",
        ),
        sa.Column("reason", sa.Text(), nullable=False, comment="Why"),
        sa.ForeignKeyConstraint(["run_no"], ["nightshift.runs.run_no"]),
        sa.PrimaryKeyConstraint("job", "day", "token"),
        schema="nightshift",
        comment="Published runs that were taken back, by whom and why; append-only",
    )
    op.execute(GUARD)
    op.create_table(
        "scoring_requests",
        sa.Column(
            "request_no", sa.BigInteger(), sa.Identity(always=True), nullable=False, comment="Order of asking"
        ),
        sa.Column("job", sa.Text(), nullable=False, comment="Name of the job"),
        sa.Column("key", JSONB(), nullable=False, comment="The job's key columns, as an object"),
        sa.Column(
            "payload",
            JSONB(),
            nullable=True,
            comment="The extract's other columns of that key; null to ask for the published score",
        ),
        sa.Column(
            "requested_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
            comment="When it was asked",
        ),
        sa.Column(
            "requested_by",
            sa.Text(),
            server_default=sa.text("session_user"),
            nullable=False,
            comment="Login that asked",
        ),
        sa.Column(
            "expires_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When the answer is of no use any more; null: as the job declares",
        ),
        sa.Column(
            "status",
            sa.Text(),
            server_default=sa.text("'queued'"),
            nullable=False,
            comment="queued, answered, expired or failed",
        ),
        sa.Column(
            "attempts",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="How often an answer was tried",
        ),
        sa.Column("answered_at", sa.DateTime(timezone=True), nullable=True, comment="When it was answered"),
        sa.Column("day", sa.Date(), nullable=True, comment="Business day whose knowledge the answer has"),
        sa.Column(
            "run_id",
            sa.Text(),
            nullable=True,
            comment="Run whose published row is the answer; null where the payload was scored",
        ),
        sa.Column("score", sa.Double(), nullable=True, comment="Probability or value that the job predicts"),
        sa.Column(
            "decision",
            sa.Boolean(),
            nullable=True,
            comment="Whether the score reaches the declared threshold; null without one",
        ),
        sa.Column("score_source", sa.Text(), nullable=True, comment="Who answered, as in the predictions"),
        sa.Column(
            "model_version",
            sa.Integer(),
            nullable=True,
            comment="Version of the model that gave the score",
        ),
        sa.Column(
            "error", sa.Text(), nullable=True, comment="Why it failed: what must hold and what was got"
        ),
        sa.CheckConstraint(
            "status in ('queued', 'answered', 'expired', 'failed')", name="scoring_requests_status"
        ),
        sa.ForeignKeyConstraint(["job"], ["nightshift.jobs.job"]),
        sa.PrimaryKeyConstraint("request_no"),
        schema="nightshift",
        comment="Scores that other systems ask for, and their answers",
    )
    op.create_index(
        "scoring_requests_queue",
        "scoring_requests",
        ["job", "request_no"],
        schema="nightshift",
        postgresql_where=sa.text("status = 'queued'"),
    )
    op.drop_constraint("runs_status", "runs", schema="nightshift")
    op.create_check_constraint("runs_status", "runs", STATUSES, schema="nightshift")
    told = "running, published, failed, superseded or withdrawn"
    op.execute(f"comment on column nightshift.runs.status is '{told}'")
    for column, kind, comment in (
        ("pruned_at", sa.DateTime(timezone=True), PRUNED_AT),
        ("pruned_bytes", sa.BigInteger(), "Bytes of its removed files; null until all are removed"),
    ):
        op.add_column("runs", sa.Column(column, kind, comment=comment), schema="nightshift")
    op.execute(f"comment on column nightshift.runs.snapshot_uri is '{SNAPSHOT}'")
    op.execute(DAY_STATUS)
    op.execute(f"comment on column nightshift.day_status.last_status is '{told}'")
