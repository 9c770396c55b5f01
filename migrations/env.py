"""Run the migrations on the connection that gwf.migrate hands over."""

from alembic import context

from gwf.migrate import is_other_type
from gwf.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    compare_type=is_other_type,
)
with context.begin_transaction():
    context.run_migrations()
