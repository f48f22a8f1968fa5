"""What the gate said of challengers."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"

GUARD = """
create trigger gate_verdicts_append_only before update or delete or truncate on nightshift.gate_verdicts
for each statement execute function nightshift.refuse_change()
"""


def upgrade() -> None:
    op.create_table(
        "gate_verdicts",
        sa.Column(
            "verdict_no",
            sa.BigInteger(),
            sa.Identity(always=True),
            nullable=False,
            comment="Order of judging",
        ),
        sa.Column("job", sa.Text(), nullable=False, comment="Name of the job"),
        sa.Column("challenger", sa.Integer(), nullable=False, comment="Version that was judged"),
        sa.Column("champion", sa.Integer(), nullable=False, comment="Version that it was compared with"),
        sa.Column("first_day", sa.Date(), nullable=False, comment="First of the replayed nights"),
        sa.Column("last_day", sa.Date(), nullable=False, comment="Last of the replayed nights"),
        sa.Column("nights", sa.Integer(), nullable=False, comment="Nights that both versions answered"),
        sa.Column(
            "labels_as_of",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="Labels known later were left out",
        ),
        sa.Column("outcome", sa.Text(), nullable=False, comment="accept, refuse or not_enough_evidence"),
        sa.Column(
            "reasons",
            postgresql.JSONB(),
            nullable=False,
            comment="What each check says: check, outcome and evidence, a sentence",
        ),
        sa.Column(
            "figures",
            postgresql.JSONB(),
            nullable=False,
            comment="What was measured: losses of both by night and slice, tests, CPU and memory",
        ),
        sa.Column("settings", postgresql.JSONB(), nullable=False, comment="The declared gate at the time"),
        sa.Column(
            "judged_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
            comment="When the verdict was recorded",
        ),
        sa.Column("actor", sa.Text(), nullable=False, comment="Who ran the command"),
        sa.Column(
            "challenger_sha256", sa.Text(), nullable=False, comment="sha256 of the challenger's model file"
        ),
        sa.Column(
            "champion_sha256", sa.Text(), nullable=False, comment="sha256 of the champion's model file"
        ),
        sa.CheckConstraint(
            "outcome in ('accept', 'refuse', 'not_enough_evidence')", name="gate_verdicts_outcome"
        ),
        sa.PrimaryKeyConstraint("verdict_no"),
        schema="nightshift",
        comment="What the gate said of a challenger against the champion, on which evidence; append-only",
    )
    op.create_index(
        "gate_verdicts_challenger",
        "gate_verdicts",
        ["job", "challenger", "verdict_no"],
        unique=False,
        schema="nightshift",
    )
    op.execute(GUARD)
