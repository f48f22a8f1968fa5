"""Queries of a version keep the order of their columns: json, as jsonb sorts keys."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.execute("alter table nightshift.model_versions alter column queries type json using queries::json")
