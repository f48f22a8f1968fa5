"""A training has a name: whichever of its attempts comes first registers its version, and no other does."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    told = "Names the training, whatever its attempts; null where none was named"
    column = sa.Column("training_key", sa.Text(), nullable=True, comment=told)
    op.add_column("model_versions", column, schema="nightshift")
    op.create_unique_constraint(
        "model_versions_training", "model_versions", ["job", "training_key"], schema="nightshift"
    )
