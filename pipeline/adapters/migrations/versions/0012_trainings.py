"""A training has a name: whichever of its attempts comes first registers its version, and no other does.

Data far from the training rows may ask for one.
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"

KINDS = "kind in ('every_days', 'on_drift', 'far_from_training', 'on_concept', 'cost_above', 'new_labels')"


def upgrade() -> None:
    told = "Names the training, whatever its attempts; null where none was named"
    column = sa.Column("training_key", sa.Text(), nullable=True, comment=told)
    op.add_column("model_versions", column, schema="nightshift")
    op.create_unique_constraint(
        "model_versions_training", "model_versions", ["job", "training_key"], schema="nightshift"
    )
    op.drop_constraint("retrain_triggers_kind", "retrain_triggers", schema="nightshift")
    op.create_check_constraint("retrain_triggers_kind", "retrain_triggers", KINDS, schema="nightshift")
    told = "every_days, on_drift, far_from_training, on_concept, cost_above or new_labels"
    op.execute(f"comment on column nightshift.retrain_triggers.kind is '{told}'")
