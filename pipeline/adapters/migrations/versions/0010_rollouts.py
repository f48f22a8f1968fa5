"""What ran beside the champion: shadows, canaries and A/B tests, and how the arms answered by night."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

KINDS = "kind in ('failed', 'late', 'structure', 'drift', 'concept', 'rollout')"

GUARD = """
create trigger rollouts_append_only before update or delete or truncate on nightshift.rollouts
for each statement execute function nightshift.refuse_change()
"""

# As in 0007, but a challenger's rows are no fallback's.
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


def _column(name: str, kind: sa.types.TypeEngine, comment: str, *, nullable: bool = False) -> sa.Column:
    return sa.Column(name, kind, nullable=nullable, comment=comment)


def upgrade() -> None:
    instant = sa.DateTime(timezone=True)
    op.create_table(
        "rollouts",
        sa.Column(
            "rollout_no",
            sa.BigInteger(),
            sa.Identity(always=True),
            nullable=False,
            comment="Order of recording",
        ),
        _column("job", sa.Text(), "Name of the job"),
        _column("kind", sa.Text(), "shadow, canary, ab or stop"),
        _column(
            "version", sa.Integer(), "Version that runs beside the champion; null for a stop", nullable=True
        ),
        _column("share", sa.Double(), "Its share of the keys; null for a shadow and a stop", nullable=True),
        _column(
            "salt",
            sa.Text(),
            "Decides which keys those are; kept while the version goes on; null for a stop",
            nullable=True,
        ),
        _column("effective_from", instant, "Cut-offs from this instant on are answered so"),
        sa.Column(
            "recorded_at",
            instant,
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
            comment="When it was recorded",
        ),
        _column("actor", sa.Text(), "Who ran the command, or nightshift where a guardrail stopped it"),
        _column(
            "approved_by",
            sa.Text(),
            "Which declared approver agreed; null for a shadow and a stop",
            nullable=True,
        ),
        _column("reason", sa.Text(), "Why"),
        _column("stops", sa.BigInteger(), "Rollout that a stop ends; null for others", nullable=True),
        _column(
            "model_sha256", sa.Text(), "sha256 of the version's model file; null for a stop", nullable=True
        ),
        sa.CheckConstraint("kind in ('shadow', 'canary', 'ab', 'stop')", name="rollouts_kind"),
        sa.CheckConstraint(
            "(kind = 'stop') = (version is null) and (kind = 'stop') = (salt is null) "
            "and (kind = 'stop') = (stops is not null)",
            name="rollouts_stop",
        ),
        sa.CheckConstraint(
            "(kind in ('canary', 'ab')) = (share is not null) and (share is null or share > 0 and share < 1)",
            name="rollouts_share",
        ),
        sa.ForeignKeyConstraint(["stops"], ["nightshift.rollouts.rollout_no"]),
        sa.PrimaryKeyConstraint("rollout_no"),
        schema="nightshift",
        comment="Which version ran beside the champion from when, for which keys; append-only",
    )
    op.execute(GUARD)
    op.add_column(
        "runs",
        sa.Column(
            "rollout_no",
            sa.BigInteger(),
            sa.ForeignKey("nightshift.rollouts.rollout_no"),
            comment="Rollout in which a challenger takes part; null without one",
        ),
        schema="nightshift",
    )
    op.execute(
        "comment on column nightshift.runs.rows_scored is 'Rows answered by the pinned version or its challenger'"
    )
    op.create_table(
        "rollout_nights",
        _column("run_no", sa.BigInteger(), "Number of the run"),
        _column("run_id", sa.Text(), "Name of the run; joins runs and predictions"),
        _column("job", sa.Text(), "Name of the job"),
        _column("day", sa.Date(), "Business day"),
        _column("rollout_no", sa.BigInteger(), "Rollout that the run took part in"),
        _column("slice_column", sa.Text(), "Declared column by which rows are set apart; all for every row"),
        _column("slice_value", sa.Text(), "Value of that column; all for every row"),
        _column(
            "champion_assigned",
            sa.BigInteger(),
            "Rows of the champion's arm; in a shadow, rows of both versions",
        ),
        _column(
            "challenger_assigned",
            sa.BigInteger(),
            "Rows of the challenger's arm; in a shadow, rows of both versions",
        ),
        _column("champion_rows", sa.BigInteger(), "Rows of its arm that the champion answered"),
        _column("challenger_rows", sa.BigInteger(), "Rows of its arm that the challenger answered"),
        _column(
            "failed_rows", sa.BigInteger(), "Rows of the challenger's arm that the champion had to answer"
        ),
        _column("champion_decisions", sa.BigInteger(), "Positive decisions among champion_rows"),
        _column("challenger_decisions", sa.BigInteger(), "Positive decisions among challenger_rows"),
        _column("champion_mean", sa.Double(), "Mean score of champion_rows; null without any", nullable=True),
        _column(
            "challenger_mean", sa.Double(), "Mean score of challenger_rows; null without any", nullable=True
        ),
        _column(
            "champion_std", sa.Double(), "Standard deviation of those scores; null below two", nullable=True
        ),
        _column(
            "challenger_std", sa.Double(), "Standard deviation of those scores; null below two", nullable=True
        ),
        _column(
            "changed",
            sa.BigInteger(),
            "Rows that the challenger would decide otherwise; null but in a shadow",
            nullable=True,
        ),
        sa.ForeignKeyConstraint(["run_no"], ["nightshift.runs.run_no"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_no", "slice_column", "slice_value"),
        schema="nightshift",
        comment="How champion and challenger answered in each run of a rollout, before any label",
    )
    op.create_index("rollout_nights_day", "rollout_nights", ["job", "day"], schema="nightshift")
    op.drop_constraint("alerts_kind", "alerts", schema="nightshift")
    op.create_check_constraint("alerts_kind", "alerts", KINDS, schema="nightshift")
    op.execute(
        "comment on column nightshift.alerts.kind is 'failed, late, structure, drift, concept or rollout'"
    )
    op.create_table_comment(
        "alerts",
        "What was told to the owners: failed and late nights, changes by episode, stopped rollouts",
        schema="nightshift",
    )
    op.execute(DAY_STATUS)
