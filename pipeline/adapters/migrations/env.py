"""Alembic's entry: runs on the connection that `pipeline.adapters.migrate` hands over."""

from alembic import context

from pipeline.adapters.tables import SCHEMA, metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    include_schemas=True,
    version_table_schema=SCHEMA,
)
with context.begin_transaction():
    context.run_migrations()
