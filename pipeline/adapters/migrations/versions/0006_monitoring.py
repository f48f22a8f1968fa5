"""What each run's data looked like, how good its predictions were, and alerts that last for an episode."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

QUALITY = """
create view nightshift.quality as
select outcomes.*
from nightshift.outcomes
join (
    select run_no, max(evaluated_at) as evaluated_at from nightshift.outcomes group by run_no
) as newest using (run_no, evaluated_at)
"""

KINDS = "kind in ('failed', 'late', 'structure', 'drift', 'concept')"
STATES = "state in ('open', 'acknowledged', 'resolved')"


def upgrade() -> None:
    op.create_table(
        "metrics",
        sa.Column("run_no", sa.BigInteger(), nullable=False, comment="Number of the run"),
        sa.Column("run_id", sa.Text(), nullable=False, comment="Name of the run; joins runs and predictions"),
        sa.Column("job", sa.Text(), nullable=False, comment="Name of the job"),
        sa.Column("day", sa.Date(), nullable=False, comment="Business day"),
        sa.Column(
            "part",
            sa.Text(),
            nullable=False,
            comment="What is measured: rows, input, feature, score or estimate",
        ),
        sa.Column(
            "column_name",
            sa.Text(),
            nullable=False,
            comment="Column measured; the part's own name where it is no column",
        ),
        sa.Column(
            "metric",
            sa.Text(),
            nullable=False,
            comment="Name of the metric; the data dictionary explains each",
        ),
        sa.Column(
            "baseline",
            sa.Text(),
            nullable=False,
            comment="What it is measured against: none, training or rolling",
        ),
        sa.Column("value", sa.Double(), nullable=False, comment="The metric's value"),
        sa.CheckConstraint("baseline in ('none', 'training', 'rolling')", name="metrics_baseline"),
        sa.CheckConstraint("part in ('rows', 'input', 'feature', 'score', 'estimate')", name="metrics_part"),
        sa.ForeignKeyConstraint(["run_no"], ["nightshift.runs.run_no"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_no", "part", "column_name", "metric", "baseline"),
        schema="nightshift",
        comment="What each run's data looked like: quality of inputs, drift, predictions, estimated quality",
    )
    op.create_index("metrics_day", "metrics", ["job", "day"], unique=False, schema="nightshift")
    op.create_table(
        "outcomes",
        sa.Column("run_no", sa.BigInteger(), nullable=False, comment="Run whose predictions are judged"),
        sa.Column("run_id", sa.Text(), nullable=False, comment="Name of the run; joins runs and predictions"),
        sa.Column("job", sa.Text(), nullable=False, comment="Name of the job"),
        sa.Column("day", sa.Date(), nullable=False, comment="Business day of the predictions"),
        sa.Column(
            "hindsight",
            sa.Boolean(),
            nullable=False,
            comment="Whether the run was published after the decision, as a backfill is",
        ),
        sa.Column("model_version", sa.Integer(), nullable=False, comment="Version the run is pinned to"),
        sa.Column("arm", sa.Text(), nullable=False, comment="Arm of an experiment; all for every row"),
        sa.Column(
            "slice_column",
            sa.Text(),
            nullable=False,
            comment="Declared column by which rows are set apart; all for every row",
        ),
        sa.Column(
            "slice_value", sa.Text(), nullable=False, comment="Value of that column; all for every row"
        ),
        sa.Column(
            "metric",
            sa.Text(),
            nullable=False,
            comment="Name of the metric; the data dictionary explains each",
        ),
        sa.Column("value", sa.Double(), nullable=False, comment="The metric's value over the labelled rows"),
        sa.Column("rows", sa.BigInteger(), nullable=False, comment="Predictions of this slice"),
        sa.Column(
            "labelled",
            sa.BigInteger(),
            nullable=False,
            comment="Predictions of this slice whose label was known",
        ),
        sa.Column(
            "labels_as_of",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="Labels known later were left out",
        ),
        sa.Column(
            "evaluated_at", sa.DateTime(timezone=True), nullable=False, comment="When this was computed"
        ),
        sa.ForeignKeyConstraint(["run_no"], ["nightshift.runs.run_no"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_no", "arm", "slice_column", "slice_value", "metric", "evaluated_at"),
        schema="nightshift",
        comment="Realised quality and cost of published predictions, each time they were evaluated; append-only",
    )
    op.create_index("outcomes_day", "outcomes", ["job", "day"], unique=False, schema="nightshift")
    op.add_column(
        "alerts",
        sa.Column(
            "state",
            sa.Text(),
            server_default=sa.text("'open'"),
            nullable=False,
            comment="open, acknowledged or resolved",
        ),
        schema="nightshift",
    )
    op.add_column(
        "alerts",
        sa.Column(
            "last_day",
            sa.Date(),
            nullable=True,
            comment="Last day of the episode on which its cause was seen",
        ),
        schema="nightshift",
    )
    op.add_column(
        "alerts",
        sa.Column(
            "acknowledged_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When somebody took it on; null while nobody has",
        ),
        schema="nightshift",
    )
    op.add_column(
        "alerts",
        sa.Column("acknowledged_by", sa.Text(), nullable=True, comment="Who took it on"),
        schema="nightshift",
    )
    op.add_column(
        "alerts",
        sa.Column(
            "resolved_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When the episode ended; null while it lasts",
        ),
        schema="nightshift",
    )
    op.add_column(
        "alerts",
        sa.Column(
            "resolved_by",
            sa.Text(),
            nullable=True,
            comment="Who ended the episode, or nightshift where it ended by itself",
        ),
        schema="nightshift",
    )
    op.alter_column(
        "alerts",
        "day",
        existing_type=sa.DATE(),
        comment="Business day; null where the alert is of no single day; the first of an episode",
        existing_comment="Business day; null where the alert is of no single day",
        existing_nullable=True,
        schema="nightshift",
    )
    op.alter_column(
        "alerts",
        "kind",
        existing_type=sa.TEXT(),
        comment="failed, late, structure, drift or concept",
        existing_comment="failed or late",
        existing_nullable=False,
        schema="nightshift",
    )
    op.alter_column(
        "alerts",
        "cause",
        existing_type=sa.TEXT(),
        comment="What failed, was missed or changed; each cause of a (job, day) is raised once",
        existing_comment="What failed or was missed; each cause of a (job, day) is raised once",
        existing_nullable=False,
        schema="nightshift",
    )
    op.create_table_comment(
        "alerts",
        "What was told to the owners: failed and late nights, and changes of data or quality by episode",
        existing_comment="Failed and late nights that were told to their owners, each cause once",
        schema="nightshift",
    )
    op.add_column(
        "model_versions",
        sa.Column(
            "profile_uri",
            sa.Text(),
            nullable=True,
            comment="Where the profile of the training rows is; null of older versions",
        ),
        schema="nightshift",
    )
    op.add_column(
        "model_versions",
        sa.Column(
            "profile_sha256",
            sa.Text(),
            nullable=True,
            comment="sha256 that the profile must have to be a baseline",
        ),
        schema="nightshift",
    )
    op.drop_constraint("alerts_kind", "alerts", schema="nightshift")
    op.create_check_constraint("alerts_kind", "alerts", KINDS, schema="nightshift")
    op.create_check_constraint("alerts_state", "alerts", STATES, schema="nightshift")
    op.execute(QUALITY)
    op.execute(
        "comment on view nightshift.quality is 'The newest evaluation of each run: realised quality and cost'"
    )
