"""Keep the schema that GoWorkFlow published, exactly and for ever.

Revision 0001 creates it, ``adopt`` compares a database with it, and the downgrade of 0002 builds it
again. It must not change: databases with these tables exist.

SQLite has one name space for the indexes of all tables, so their names carry the table there.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_FLAG = sa.Boolean().with_variant(mysql.TINYINT(display_width=1), "mysql", "mariadb")


def published_schema(dialect_name: str, *, prefix: str = "") -> sa.MetaData:
    """Return the published tables for this dialect, each name with the prefix in front."""
    schema = _Schema(dialect_name, prefix)
    _definitions(schema)
    _executions(schema)
    return schema.metadata


class _Schema:
    """Collect the tables of one dialect."""

    def __init__(self, dialect_name: str, prefix: str) -> None:
        self.metadata = sa.MetaData()
        self.is_sqlite = dialect_name == "sqlite"
        self.prefix = prefix

    def table(self, name: str, *items: Any) -> None:
        """Add a table with its id and its options."""
        sa.Table(
            f"{self.prefix}{name}",
            self.metadata,
            sa.Column("id", _ID, primary_key=True, autoincrement=True),
            *items,
            mysql_engine="InnoDB",
            mysql_charset="utf8mb4",
            mysql_collate="utf8mb4_unicode_ci",
            sqlite_autoincrement=True,
        )

    def index(self, table: str, name: str, *columns: str) -> sa.Index:
        """Return an index, its name made unique where the dialect needs that."""
        return sa.Index(f"published_{table}_{name}" if self.is_sqlite else name, *columns)

    def reference(self, name: str, target: str, *, cascades: bool) -> sa.Column[int]:
        """Return a required foreign key."""
        key = sa.ForeignKey(f"{self.prefix}{target}.id", ondelete="CASCADE" if cascades else None)
        return sa.Column(name, _ID, key, nullable=False)

    def stamps(self, *, is_updated: bool = True) -> list[sa.Column[Any]]:
        """Return ``created_at``, and ``updated_at`` where the table has it."""
        now = "CURRENT_TIMESTAMP"
        touched = now if self.is_sqlite else f"{now} ON UPDATE {now}"
        stamps = [sa.Column("created_at", sa.TIMESTAMP, server_default=sa.text(now))]
        if is_updated:
            stamps.append(sa.Column("updated_at", sa.TIMESTAMP, server_default=sa.text(touched)))
        return stamps


def _flag(name: str, default: int) -> sa.Column[bool]:
    return sa.Column(name, _FLAG, server_default=sa.text(str(default)))


def _definitions(schema: _Schema) -> None:
    schema.table(
        "tasks",
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("description", sa.Text),
        sa.Column("task_type", sa.String(50), nullable=False),
        sa.Column("config", sa.JSON),
        _flag("is_active", 1),
        *schema.stamps(),
        schema.index("tasks", "idx_name", "name"),
        schema.index("tasks", "idx_task_type", "task_type"),
    )
    schema.table(
        "flows",
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("description", sa.Text),
        sa.Column("version", sa.String(20), server_default="1.0.0"),
        _flag("is_active", 1),
        sa.Column("created_by", sa.BigInteger),
        *schema.stamps(),
        schema.index("flows", "idx_name", "name"),
        schema.index("flows", "idx_version", "version"),
    )
    schema.table(
        "flow_tasks",
        schema.reference("flow_id", "flows", cascades=True),
        schema.reference("task_id", "tasks", cascades=True),
        sa.Column("sequence", sa.Integer, nullable=False),
        _flag("is_optional", 0),
        _flag("allow_rollback", 1),
        sa.Column("condition_config", sa.JSON),
        *schema.stamps(),
        sa.UniqueConstraint("flow_id", "sequence", name="uk_flow_task_seq"),
        schema.index("flow_tasks", "idx_flow_id", "flow_id"),
        schema.index("flow_tasks", "idx_task_id", "task_id"),
    )


def _executions(schema: _Schema) -> None:
    schema.table(
        "jobs",
        schema.reference("flow_id", "flows", cascades=False),
        sa.Column("job_name", sa.String(100), nullable=False),
        sa.Column("status", sa.String(20), nullable=False, server_default="pending"),
        sa.Column("current_task_seq", sa.Integer),
        sa.Column("started_at", sa.TIMESTAMP, nullable=True),
        sa.Column("completed_at", sa.TIMESTAMP, nullable=True),
        sa.Column("created_by", sa.BigInteger),
        *schema.stamps(),
        schema.index("jobs", "idx_flow_id", "flow_id"),
        schema.index("jobs", "idx_status", "status"),
        schema.index("jobs", "idx_created_at", "created_at"),
    )
    schema.table(
        "job_tasks",
        schema.reference("job_id", "jobs", cascades=True),
        schema.reference("flow_task_id", "flow_tasks", cascades=False),
        schema.reference("task_id", "tasks", cascades=False),
        sa.Column("sequence", sa.Integer, nullable=False),
        sa.Column("status", sa.String(20), nullable=False, server_default="pending"),
        _flag("is_skipped", 0),
        sa.Column("executor_id", sa.BigInteger),
        sa.Column("result", sa.JSON),
        sa.Column("error_message", sa.Text),
        sa.Column("started_at", sa.TIMESTAMP, nullable=True),
        sa.Column("completed_at", sa.TIMESTAMP, nullable=True),
        *schema.stamps(),
        schema.index("job_tasks", "idx_job_id", "job_id"),
        schema.index("job_tasks", "idx_status", "status"),
        schema.index("job_tasks", "idx_sequence", "job_id", "sequence"),
    )
    schema.table(
        "job_task_logs",
        schema.reference("job_task_id", "job_tasks", cascades=True),
        sa.Column("action", sa.String(50), nullable=False),
        sa.Column("operator_id", sa.BigInteger),
        sa.Column("message", sa.Text),
        sa.Column("metadata", sa.JSON),
        *schema.stamps(is_updated=False),
        schema.index("job_task_logs", "idx_job_task_id", "job_task_id"),
        schema.index("job_task_logs", "idx_action", "action"),
        schema.index("job_task_logs", "idx_created_at", "created_at"),
    )
    schema.table(
        "job_context",
        schema.reference("job_id", "jobs", cascades=True),
        sa.Column("context_key", sa.String(255), nullable=False),
        sa.Column("context_value", sa.Text),
        *schema.stamps(),
        sa.UniqueConstraint("job_id", "context_key", name="unique_job_context"),
        schema.index("job_context", "idx_job_id", "job_id"),
    )
