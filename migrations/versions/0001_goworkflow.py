"""Create the schema that GoWorkFlow published."""

from alembic import op

from gwf.published import published_schema

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the seven published tables."""
    connection = op.get_bind()
    published_schema(connection.dialect.name).create_all(connection)


def downgrade() -> None:
    """Drop them, with everything in them."""
    connection = op.get_bind()
    published_schema(connection.dialect.name).drop_all(connection)
