"""A run remembers among how many shards its rows are scored, and may be started by another job's day."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    column = sa.Column("parts", sa.Integer(), comment="Shards among which the rows are scored")
    op.add_column("runs", column, schema="nightshift")
    op.execute("comment on column nightshift.runs.trigger is 'manual, scheduled, asset or backfill'")
