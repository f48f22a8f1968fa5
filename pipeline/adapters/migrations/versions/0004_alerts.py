"""Alerts of failed and late nights."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "alerts",
        sa.Column(
            "alert_no",
            sa.BigInteger(),
            sa.Identity(always=True),
            nullable=False,
            comment="Order of raising",
        ),
        sa.Column("job", sa.Text(), nullable=False, comment="Name of the job"),
        sa.Column(
            "day", sa.Date(), nullable=True, comment="Business day; null where the alert is of no single day"
        ),
        sa.Column("run_id", sa.Text(), nullable=True, comment="Name of the run; null where none was planned"),
        sa.Column("kind", sa.Text(), nullable=False, comment="failed or late"),
        sa.Column(
            "cause",
            sa.Text(),
            nullable=False,
            comment="What failed or was missed; each cause of a (job, day) is raised once",
        ),
        sa.Column("owner", sa.Text(), nullable=False, comment="Team and on-call address at the time"),
        sa.Column(
            "message",
            sa.Text(),
            nullable=False,
            comment="The whole notice, without secrets and without rows",
        ),
        sa.Column(
            "raised_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
            comment="When the alert was raised",
        ),
        sa.Column(
            "channel",
            sa.Text(),
            nullable=True,
            comment="Name of the channel declared at the time; null for none",
        ),
        sa.Column(
            "delivered_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When the channel took the notice; null while it has not",
        ),
        sa.Column(
            "delivery_error",
            sa.Text(),
            nullable=True,
            comment="Why the last attempt to send failed; null once delivered",
        ),
        sa.CheckConstraint("kind in ('failed', 'late')", name="alerts_kind"),
        sa.PrimaryKeyConstraint("alert_no"),
        sa.UniqueConstraint(
            "job", "day", "kind", "cause", name="alerts_once", postgresql_nulls_not_distinct=True
        ),
        schema="nightshift",
        comment="Failed and late nights that were told to their owners, each cause once",
    )
