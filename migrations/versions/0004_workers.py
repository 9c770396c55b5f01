"""Workers: who may take an automated task, who has it, and when jobs are created by themselves.

The executor that a config names gets a column of its own, so that a worker finds what it may run by
an index. Tasks that are over keep what they say; open ones are read once. MySQL cannot undo a
CREATE TABLE, so each step looks first whether an interrupted run has taken it already.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
INSTANT = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
OPTIONS = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_unicode_ci",
}
AVAILABLE = "idx_job_tasks_available"

#: The key of a config that means an executor, and which.
SHORTHANDS = {
    "command": "command",
    "webhook_url": "webhook",
    "url": "http",
    "sql": "sql",
    "notebook": "notebook",
    "python": "python",
}


def exact(length):
    """Return a text type that tells every character apart."""
    binary = mysql.VARCHAR(length, collation="utf8mb4_bin")
    return sa.String(length).with_variant(binary, "mysql", "mariadb")


def required(name, kind):
    """Return a column that is never null."""
    return sa.Column(name, kind, nullable=False)


def new_columns():
    """Return the columns that are added, by table."""
    return {
        "tasks": [sa.Column("executor", exact(100))],
        "job_tasks": [
            sa.Column("executor", exact(100)),
            sa.Column("worker", sa.String(100)),
            sa.Column("available_at", INSTANT),
            sa.Column("n_retries", sa.Integer, nullable=False, server_default="0"),
        ],
        "job_task_attempts": [sa.Column("worker", sa.String(100))],
    }


def add_workers():
    """Add the table of workers."""
    op.create_table(
        "workers",
        sa.Column("name", exact(100), primary_key=True),
        required("host", sa.String(255)),
        required("pid", sa.Integer),
        required("state", sa.String(20)),
        required("executors", sa.JSON),
        required("concurrency", sa.Integer),
        required("n_running", sa.Integer),
        required("n_completed", sa.BigInteger),
        required("n_failed", sa.BigInteger),
        required("n_lost", sa.BigInteger),
        sa.Column("last_error", sa.Text),
        required("started_at", INSTANT),
        required("seen_at", INSTANT),
        sa.Index("idx_workers_seen", "seen_at"),
        if_not_exists=True,
        **OPTIONS,
    )


def add_schedules():
    """Add the table of schedules."""
    key = sa.ForeignKey("flows.id", name="fk_schedules_flow_id", ondelete="CASCADE")
    op.create_table(
        "schedules",
        sa.Column("id", ID, primary_key=True, autoincrement=True),
        sa.Column("flow_id", ID, key, nullable=False),
        required("job_name", sa.String(100)),
        required("cron", sa.String(100)),
        required("tz", sa.String(100)),
        required("catch_up", sa.String(20)),
        sa.Column("context", sa.JSON),
        required("is_active", sa.Boolean),
        sa.Column("created_by", sa.BigInteger),
        required("created_at", INSTANT),
        sa.Column("next_at", INSTANT),
        sa.Column("last_at", INSTANT),
        sa.Column("last_job_id", ID),
        required("n_created", sa.BigInteger),
        required("n_skipped", sa.BigInteger),
        sa.Index("idx_schedules_next", "next_at"),
        sa.Index("idx_schedules_flow", "flow_id"),
        if_not_exists=True,
        sqlite_autoincrement=True,
        **OPTIONS,
    )


def name_executors(table, condition):
    """Write the executor that the config of an automated task names into its column."""
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    unquoted = "json_extract(config, '$.executor')"
    if not is_sqlite:
        unquoted = f"JSON_UNQUOTE({unquoted})"
    guard = f"task_type = 'automated' AND executor IS NULL AND {condition}"
    if is_sqlite:
        guard += " AND json_valid(config)"
    named = "JSON_EXTRACT(config, '$.executor') IS NOT NULL"
    op.execute(
        f"UPDATE {table} SET executor = {unquoted} WHERE {guard} AND {named} "
        f"AND LENGTH({unquoted}) <= 100 AND {unquoted} <> 'null'"
    )
    for key, executor in SHORTHANDS.items():
        op.execute(
            f"UPDATE {table} SET executor = '{executor}' WHERE {guard} "
            f"AND JSON_EXTRACT(config, '$.{key}') IS NOT NULL"
        )


def upgrade():
    """Add the columns and the tables, and let workers take what is due."""
    inspector = sa.inspect(op.get_bind())
    for table, columns in new_columns().items():
        known = {column["name"] for column in inspector.get_columns(table)}
        for column in columns:
            if column.name not in known:
                op.add_column(table, column)
    name_executors("tasks", "1 = 1")
    name_executors("job_tasks", "status NOT IN ('completed', 'skipped')")
    op.execute(
        "UPDATE job_tasks SET available_at = ready_at WHERE executor IS NOT NULL "
        "AND status = 'pending' AND ready_at IS NOT NULL AND available_at IS NULL "
        "AND job_id IN (SELECT id FROM jobs WHERE status IN ('running', 'failed'))"
    )
    if AVAILABLE not in {index["name"] for index in inspector.get_indexes("job_tasks")}:
        op.create_index(AVAILABLE, "job_tasks", ["executor", "available_at"])
    add_workers()
    add_schedules()


def downgrade():
    """Drop them; schedules are lost, and who ran an attempt."""
    inspector = sa.inspect(op.get_bind())
    for table in ("schedules", "workers"):
        op.drop_table(table, if_exists=True)
    if AVAILABLE in {index["name"] for index in inspector.get_indexes("job_tasks")}:
        op.drop_index(AVAILABLE, "job_tasks")
    for table, columns in new_columns().items():
        known = {column["name"] for column in inspector.get_columns(table)}
        for column in columns:
            if column.name in known:
                op.drop_column(table, column.name)
