"""Declare every table and column: the only truth about them.

Why these types: instants are ``DATETIME(6)`` in UTC on a server and fixed-width text on SQLite, so
both sort and compare alike; names that have to be told apart to the letter (context keys, roles,
idempotency keys) use a binary collation, since the usual ones take ``Env`` for ``env`` and one
emoji for another.

Why no foreign key from ``job_tasks`` to ``flow_tasks``: a job keeps a copy of its flow (rule T7),
so a position may leave the flow while jobs that used it stay.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator, TypeEngine

from gwf.errors import Invalid


class UtcDateTime(TypeDecorator[datetime]):
    """Store an aware datetime as UTC with microseconds, and give it back aware."""

    impl = sa.DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Ask MySQL and MariaDB for the microseconds that their DATETIME leaves out by default."""
        if dialect.name in ("mysql", "mariadb"):
            return dialect.type_descriptor(mysql.DATETIME(fsp=6))
        return dialect.type_descriptor(sa.DateTime())

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Turn an aware datetime into naive UTC."""
        return None if value is None else as_naive_utc(value)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Turn naive UTC into an aware datetime."""
        return None if value is None else value.replace(tzinfo=UTC)


def as_naive_utc(value: datetime) -> datetime:
    """Turn an aware datetime into naive UTC, as the drivers want it."""
    if value.tzinfo is None:
        raise Invalid("instant", value, expected="give the time zone, for example tzinfo=UTC")
    return value.astimezone(UTC).replace(tzinfo=None)


def _exact(length: int) -> sa.types.TypeEngine[str]:
    """Return a text type whose values are equal only when every character is."""
    exact = mysql.VARCHAR(length, collation="utf8mb4_bin")
    return sa.String(length).with_variant(exact, "mysql", "mariadb")


Id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
Json = sa.JSON(none_as_null=True)

metadata = sa.MetaData(naming_convention={"fk": "fk_%(table_name)s_%(column_0_N_name)s"})

_OPTIONS: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_unicode_ci",
    "sqlite_autoincrement": True,  # an id is never given twice, as on a server
}
_COMPOSITE = {**_OPTIONS, "sqlite_autoincrement": False}


def _id() -> sa.Column[int]:
    return sa.Column("id", Id, primary_key=True, autoincrement=True)


def _instant(name: str, *, required: bool = False) -> sa.Column[datetime]:
    return sa.Column(name, UtcDateTime, nullable=not required)


tasks = sa.Table(
    "tasks",
    metadata,
    _id(),
    sa.Column("name", sa.String(100), nullable=False),
    sa.Column("description", sa.Text),
    sa.Column("task_type", sa.String(50), nullable=False),
    sa.Column("config", Json),
    sa.Column("is_active", sa.Boolean, nullable=False),
    _instant("created_at", required=True),
    _instant("updated_at", required=True),
    sa.Column("executor", _exact(100)),
    sa.Index("idx_tasks_name", "name"),
    sa.Index("idx_tasks_task_type", "task_type"),
    **_OPTIONS,
)

flows = sa.Table(
    "flows",
    metadata,
    _id(),
    sa.Column("name", sa.String(100), nullable=False),
    sa.Column("description", sa.Text),
    sa.Column("version", sa.String(20), nullable=False),
    sa.Column("is_active", sa.Boolean, nullable=False),
    sa.Column("max_rollbacks", sa.Integer, nullable=False),
    sa.Column("created_by", sa.BigInteger),
    _instant("created_at", required=True),
    _instant("updated_at", required=True),
    sa.Index("idx_flows_name", "name"),
    sa.Index("idx_flows_version", "version"),
    **_OPTIONS,
)

flow_tasks = sa.Table(
    "flow_tasks",
    metadata,
    _id(),
    sa.Column("flow_id", Id, sa.ForeignKey("flows.id", ondelete="CASCADE"), nullable=False),
    sa.Column("task_id", Id, sa.ForeignKey("tasks.id", ondelete="CASCADE"), nullable=False),
    sa.Column("sequence", sa.Integer, nullable=False),
    sa.Column("is_optional", sa.Boolean, nullable=False),
    sa.Column("allow_rollback", sa.Boolean, nullable=False),
    sa.Column("condition_config", Json),
    sa.Column("join_count", sa.Integer),
    _instant("created_at", required=True),
    _instant("updated_at", required=True),
    sa.Index("idx_flow_tasks_sequence", "flow_id", "sequence"),
    sa.Index("idx_flow_tasks_task", "task_id"),
    **_OPTIONS,
)

jobs = sa.Table(
    "jobs",
    metadata,
    _id(),
    sa.Column("flow_id", Id, sa.ForeignKey("flows.id"), nullable=False),
    sa.Column("flow_name", sa.String(100), nullable=False),
    sa.Column("flow_version", sa.String(20), nullable=False),
    sa.Column("job_name", sa.String(100), nullable=False),
    sa.Column("status", sa.String(20), nullable=False),
    sa.Column("current_task_seq", sa.Integer),
    sa.Column("n_tasks", sa.Integer, nullable=False),
    sa.Column("n_done", sa.Integer, nullable=False),
    sa.Column("n_rollbacks", sa.Integer, nullable=False),
    sa.Column("max_rollbacks", sa.Integer, nullable=False),
    sa.Column("created_by", sa.BigInteger),
    _instant("created_at", required=True),
    _instant("started_at"),
    _instant("resumed_at"),
    _instant("paused_at"),
    _instant("completed_at"),
    sa.Column("elapsed_us", sa.BigInteger, nullable=False),
    _instant("updated_at", required=True),
    _instant("next_due_at"),
    sa.Index("idx_jobs_next_due", "next_due_at"),
    sa.Index("idx_jobs_flow_created", "flow_id", "created_at"),
    sa.Index("idx_jobs_status_created", "status", "created_at"),
    sa.Index("idx_jobs_created", "created_at"),
    **_OPTIONS,
)

job_tasks = sa.Table(
    "job_tasks",
    metadata,
    _id(),
    sa.Column("job_id", Id, sa.ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    sa.Column("flow_task_id", Id, nullable=False),
    sa.Column("task_id", Id, sa.ForeignKey("tasks.id"), nullable=False),
    sa.Column("sequence", sa.Integer, nullable=False),
    sa.Column("task_name", sa.String(100), nullable=False),
    sa.Column("task_type", sa.String(50), nullable=False),
    sa.Column("config", Json),
    sa.Column("is_optional", sa.Boolean, nullable=False),
    sa.Column("allow_rollback", sa.Boolean, nullable=False),
    sa.Column("condition_config", Json),
    sa.Column("join_count", sa.Integer),
    sa.Column("status", sa.String(20), nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("is_skipped", sa.Boolean, nullable=False),
    sa.Column("executor_id", sa.BigInteger, key="operator_id"),
    sa.Column("result", Json),
    sa.Column("error_code", sa.String(50)),
    sa.Column("error_message", sa.Text),
    _instant("ready_at"),
    _instant("started_at"),
    _instant("completed_at"),
    _instant("due_at"),
    _instant("created_at", required=True),
    _instant("updated_at", required=True),
    sa.Column("executor", _exact(100)),
    sa.Column("worker", sa.String(100)),
    #: From when on a worker may take the task: it is due, or the lease of the last one is over.
    _instant("available_at"),
    sa.Column("n_retries", sa.Integer, nullable=False, server_default="0"),
    sa.Index("idx_job_tasks_available", "executor", "available_at"),
    sa.Index("idx_job_tasks_sequence", "job_id", "sequence"),
    sa.Index("idx_job_tasks_task", "task_id"),
    sa.Index("idx_job_tasks_ready", "status", "task_type", "ready_at"),
    **_OPTIONS,
)

job_task_attempts = sa.Table(
    "job_task_attempts",
    metadata,
    _id(),
    sa.Column("job_task_id", Id, sa.ForeignKey("job_tasks.id", ondelete="CASCADE"), nullable=False),
    sa.Column("job_id", Id, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("status", sa.String(20), nullable=False),
    sa.Column("operator_id", sa.BigInteger),
    sa.Column("result", Json),
    sa.Column("error_code", sa.String(50)),
    sa.Column("error_message", sa.Text),
    _instant("ready_at"),
    _instant("started_at"),
    _instant("completed_at"),
    _instant("due_at"),
    _instant("superseded_at", required=True),
    sa.Column("worker", sa.String(100)),
    sa.UniqueConstraint("job_task_id", "attempt", name="uk_job_task_attempts_attempt"),
    sa.Index("idx_job_task_attempts_job", "job_id"),
    **_OPTIONS,
)


def _attempt_of_a_task() -> tuple[sa.Column[Any], ...]:
    own = sa.ForeignKey("job_tasks.id", ondelete="CASCADE")
    return (
        sa.Column("job_task_id", Id, own, nullable=False),
        sa.Column("job_id", Id, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
    )


#: One row for each attempt of an approval task that was started.
approvals = sa.Table(
    "approvals",
    metadata,
    _id(),
    *_attempt_of_a_task(),
    sa.Column("needed", sa.Integer, nullable=False),
    sa.Column("electorate", sa.Integer, nullable=False),
    sa.Column("n_escalations", sa.Integer, nullable=False),
    sa.Column("outcome", sa.String(20)),
    _instant("requested_at", required=True),
    _instant("decided_at"),
    sa.UniqueConstraint("job_task_id", "attempt", name="uk_approvals_attempt"),
    sa.Index("idx_approvals_job", "job_id"),
    **_OPTIONS,
)

#: One row for each ``candidate`` of a seat: ``role:PM``, ``user:7`` or ``any``. A row with an
#: ``origin`` of transfer or delegate lets its candidate sit there in place of the principal.
approval_seats = sa.Table(
    "approval_seats",
    metadata,
    _id(),
    *_attempt_of_a_task(),
    sa.Column("seat", sa.Integer, nullable=False),
    sa.Column("label", _exact(100), nullable=False),
    sa.Column("candidate", _exact(120), nullable=False),
    sa.Column("is_required", sa.Boolean, nullable=False),
    sa.Column("origin", sa.String(20), nullable=False),
    sa.Column("principal_id", sa.BigInteger),
    sa.Column("is_open", sa.Boolean, nullable=False),
    _instant("created_at", required=True),
    _instant("removed_at"),
    sa.Index("idx_approval_seats_candidate", "is_open", "candidate", "job_task_id"),
    sa.Index("idx_approval_seats_attempt", "job_task_id", "attempt"),
    **_OPTIONS,
)

votes = sa.Table(
    "votes",
    metadata,
    _id(),
    *_attempt_of_a_task(),
    sa.Column("user_id", sa.BigInteger, nullable=False),
    sa.Column("on_behalf_of", sa.BigInteger),
    sa.Column("decision", sa.String(20), nullable=False),
    sa.Column("seat", sa.Integer),
    sa.Column("seat_label", _exact(100)),
    sa.Column("comment", sa.Text),
    sa.Column("roles", Json),
    sa.Column("is_verified", sa.Boolean, nullable=False),
    _instant("created_at", required=True),
    _instant("withdrawn_at"),
    sa.Index("idx_votes_attempt", "job_task_id", "attempt"),
    sa.Index("idx_votes_job", "job_id"),
    sa.Index("idx_votes_user", "user_id", "created_at"),
    **_OPTIONS,
)

job_task_logs = sa.Table(
    "job_task_logs",
    metadata,
    _id(),
    sa.Column("job_id", Id, sa.ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    sa.Column("job_task_id", Id, sa.ForeignKey("job_tasks.id", ondelete="CASCADE")),
    sa.Column("attempt", sa.Integer),
    sa.Column("action", sa.String(50), nullable=False),
    sa.Column("operator_id", sa.BigInteger),
    sa.Column("on_behalf_of", sa.BigInteger),
    sa.Column("from_status", sa.String(20)),
    sa.Column("to_status", sa.String(20)),
    sa.Column("message", sa.Text),
    sa.Column("metadata", Json),
    _instant("created_at", required=True),
    sa.Index("idx_job_task_logs_job", "job_id"),
    sa.Index("idx_job_task_logs_task", "job_task_id"),
    sa.Index("idx_job_task_logs_action", "action"),
    sa.Index("idx_job_task_logs_created", "created_at"),
    **_OPTIONS,
)

job_context = sa.Table(
    "job_context",
    metadata,
    _id(),
    sa.Column("job_id", Id, sa.ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    sa.Column("context_key", _exact(255), nullable=False, key="key"),
    sa.Column("context_value", Json, key="value"),
    sa.Column("is_deleted", sa.Boolean, nullable=False),
    sa.Column("job_task_id", Id),
    sa.Column("attempt", sa.Integer),
    _instant("superseded_at"),
    _instant("created_at", required=True),
    sa.Index("idx_job_context_key", "job_id", "key"),
    **_OPTIONS,
)

users = sa.Table(
    "users",
    metadata,
    _id(),
    sa.Column("name", _exact(100), nullable=False),
    sa.Column("display_name", sa.String(100)),
    sa.Column("is_active", sa.Boolean, nullable=False),
    _instant("created_at", required=True),
    _instant("updated_at", required=True),
    sa.UniqueConstraint("name", name="uk_users_name"),
    **_OPTIONS,
)

user_roles = sa.Table(
    "user_roles",
    metadata,
    sa.Column("user_id", Id, sa.ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("role", _exact(100), primary_key=True),
    sa.Index("idx_user_roles_role", "role"),
    **_COMPOSITE,
)

#: What runs automated tasks, and when it was last heard of.
workers = sa.Table(
    "workers",
    metadata,
    sa.Column("name", _exact(100), primary_key=True),
    sa.Column("host", sa.String(255), nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("state", sa.String(20), nullable=False),
    sa.Column("executors", Json, nullable=False),
    sa.Column("concurrency", sa.Integer, nullable=False),
    sa.Column("n_running", sa.Integer, nullable=False),
    sa.Column("n_completed", sa.BigInteger, nullable=False),
    sa.Column("n_failed", sa.BigInteger, nullable=False),
    sa.Column("n_lost", sa.BigInteger, nullable=False),
    sa.Column("last_error", sa.Text),
    _instant("started_at", required=True),
    _instant("seen_at", required=True),
    sa.Index("idx_workers_seen", "seen_at"),
    **_COMPOSITE,
)

#: When workers create a job of a flow.
schedules = sa.Table(
    "schedules",
    metadata,
    _id(),
    sa.Column("flow_id", Id, sa.ForeignKey("flows.id", ondelete="CASCADE"), nullable=False),
    sa.Column("job_name", sa.String(100), nullable=False),
    sa.Column("cron", sa.String(100), nullable=False),
    sa.Column("tz", sa.String(100), nullable=False),
    sa.Column("catch_up", sa.String(20), nullable=False),
    sa.Column("context", Json),
    sa.Column("is_active", sa.Boolean, nullable=False),
    sa.Column("created_by", sa.BigInteger),
    _instant("created_at", required=True),
    _instant("next_at"),
    _instant("last_at"),
    sa.Column("last_job_id", Id),
    sa.Column("n_created", sa.BigInteger, nullable=False),
    sa.Column("n_skipped", sa.BigInteger, nullable=False),
    sa.Index("idx_schedules_next", "next_at"),
    sa.Index("idx_schedules_flow", "flow_id"),
    **_OPTIONS,
)

idempotency_keys = sa.Table(
    "idempotency_keys",
    metadata,
    sa.Column("scope", _exact(40), primary_key=True),
    sa.Column("idempotency_key", _exact(255), primary_key=True, key="key"),
    sa.Column("verb", sa.String(50), nullable=False),
    sa.Column("arguments", sa.String(64), nullable=False),
    sa.Column("answer", Json),
    _instant("created_at", required=True),
    **_COMPOSITE,
)
