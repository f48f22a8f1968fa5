"""What made a version, night by night, and who asked for it; triggers of retraining that fired."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"

GUARD = """
create trigger retrain_triggers_append_only before update or delete or truncate on nightshift.retrain_triggers
for each statement execute function nightshift.refuse_change()
"""


def upgrade() -> None:
    for column in (
        sa.Column(
            "environment_sha256",
            sa.Text(),
            nullable=True,
            comment="sha256 of the project's requirements.lock; null where it has none",
        ),
        sa.Column(
            "parameters",
            postgresql.JSONB(),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
            comment="The model's parameters by name, as text",
        ),
        sa.Column(
            "fingerprints",
            postgresql.JSONB(),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
            comment="Fingerprint of each night's snapshot by its day",
        ),
        sa.Column(
            "refit_of",
            sa.Integer(),
            nullable=True,
            comment="Version that was accepted, which this one was fitted like; null otherwise",
        ),
        sa.Column(
            "challenger_of",
            sa.Integer(),
            nullable=True,
            comment="Champion when the version was trained; null where there was none",
        ),
        sa.Column(
            "trigger",
            sa.Text(),
            server_default=sa.text("'manual'"),
            nullable=False,
            comment="What asked for it: manual, schedule or the kind of a trigger",
        ),
        sa.Column(
            "trigger_evidence",
            sa.Text(),
            nullable=True,
            comment="Why the trigger fired; null where none did",
        ),
    ):
        op.add_column("model_versions", column, schema="nightshift")
    op.create_table(
        "retrain_triggers",
        sa.Column(
            "trigger_no",
            sa.BigInteger(),
            sa.Identity(always=True),
            nullable=False,
            comment="Order of firing",
        ),
        sa.Column("job", sa.Text(), nullable=False, comment="Name of the job"),
        sa.Column(
            "kind",
            sa.Text(),
            nullable=False,
            comment="every_days, on_drift, on_concept, cost_above or new_labels",
        ),
        sa.Column(
            "day", sa.Date(), nullable=False, comment="Business day on which it was looked at, and fired"
        ),
        sa.Column("evidence", sa.Text(), nullable=False, comment="Why, in a sentence"),
        sa.Column("figures", postgresql.JSONB(), nullable=False, comment="Why, in figures"),
        sa.Column(
            "champion_version", sa.Integer(), nullable=False, comment="Champion that is to be challenged"
        ),
        sa.Column(
            "cool_down_until",
            sa.Date(),
            nullable=False,
            comment="Last day on which it, and those that share its cool-down, stay silent",
        ),
        sa.Column(
            "dag_run_id", sa.Text(), nullable=True, comment="DAG run that found it; null where a command did"
        ),
        sa.Column(
            "fired_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
            comment="When it fired",
        ),
        sa.CheckConstraint(
            "kind in ('every_days', 'on_drift', 'on_concept', 'cost_above', 'new_labels')",
            name="retrain_triggers_kind",
        ),
        sa.PrimaryKeyConstraint("trigger_no"),
        schema="nightshift",
        comment="What asked for a new version by itself, and why; append-only",
    )
    op.create_index("retrain_triggers_job", "retrain_triggers", ["job", "trigger_no"], schema="nightshift")
    op.execute(GUARD)
