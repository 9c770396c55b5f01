"""Keep the statements that read and write the rows of one job, and the clock they share.

Why the clock is ``SYSDATE``: ``NOW`` is the time at which a statement began, so after the wait for
a lock it lies before what the winner wrote; two transitions would seem to run backwards.
"""

from __future__ import annotations

from datetime import datetime
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from gwf import directory, queries
from gwf.model import JobTaskStatus
from gwf.statements import Statement
from gwf.tables import (
    UtcDateTime,
    approval_seats,
    idempotency_keys,
    job_context,
    job_task_attempts,
    job_task_logs,
    job_tasks,
    jobs,
)


class server_clock(FunctionElement[datetime]):
    """Read the server's clock when the row is returned, that is, after the wait for its lock."""

    type = UtcDateTime()
    inherit_cache = True


@compiles(server_clock)
def _sysdate(element: Any, compiler: Any, **options: Any) -> str:
    return "SYSDATE(6)"


class statement_clock(FunctionElement[datetime]):
    """Read the server's clock once for a statement, so that an index can be searched by it."""

    type = UtcDateTime()
    inherit_cache = True


@compiles(statement_clock)
def _now(element: Any, compiler: Any, **options: Any) -> str:
    return "NOW(6)"


@compiles(statement_clock, "sqlite")
@compiles(server_clock, "sqlite")
def _no_clock(element: Any, compiler: Any, **options: Any) -> str:
    return "NULL"  # an embedded database has the clock of its process, see database.utc_now


_NOW = Statement(sa.select(server_clock().label("now")))


#: The columns that every lock of a job reads.
LOCKED = (*queries.JOB_COLUMNS, server_clock().label("now"), directory.HOLDS_ANYBODY)
_own = job_tasks.alias("own")

LOCK_JOB = Statement(
    sa.select(*LOCKED).where(jobs.c.id == sa.bindparam("job_id")).with_for_update()
)
#: The job of a task and the task itself. The subquery takes no lock and cannot go stale, since a
#: task never changes its job; it lets the server find the job first.
LOCK_JOB_OF_TASK = Statement(
    sa.select(*LOCKED, *queries.JOB_TASK_COLUMNS)
    .join_from(jobs, job_tasks, job_tasks.c.job_id == jobs.c.id)
    .where(
        jobs.c.id
        == sa.select(_own.c.job_id)
        .where(_own.c.id == sa.bindparam("job_task_id"))
        .scalar_subquery(),
        job_tasks.c.id == sa.bindparam("job_task_id"),
    )
    .with_for_update()
)
N_LOCKED = len(LOCKED)

ALL_TASKS = Statement(
    sa.select(*queries.JOB_TASK_COLUMNS)
    .where(job_tasks.c.job_id == sa.bindparam("job_id"))
    .order_by(job_tasks.c.sequence, job_tasks.c.id)
)
_later = job_tasks.alias("later")
_next_open = (
    sa.select(_later.c.sequence)
    .where(
        _later.c.job_id == sa.bindparam("job_id"),
        _later.c.sequence > sa.bindparam("current"),
        _later.c.status != JobTaskStatus.COMPLETED.value,
        _later.c.status != JobTaskStatus.SKIPPED.value,
    )
    .order_by(_later.c.sequence)
    .limit(1)
    .scalar_subquery()
)
#: The current group and the next one that is not finished.
FRONTIER = Statement(
    sa.select(*queries.JOB_TASK_COLUMNS)
    .where(
        job_tasks.c.job_id == sa.bindparam("job_id"),
        job_tasks.c.sequence.between(
            sa.bindparam("current"), sa.func.coalesce(_next_open, sa.bindparam("current"))
        ),
    )
    .order_by(job_tasks.c.sequence, job_tasks.c.id)
)


@cache
def save_task(fields: tuple[str, ...]) -> Statement:
    """Return the guarded update of these fields of a task."""
    return Statement(
        job_tasks.update()
        .where(
            job_tasks.c.id == sa.bindparam("b_id"),
            job_tasks.c.status == sa.bindparam("b_status"),
            job_tasks.c.attempt == sa.bindparam("b_attempt"),
        )
        .values({name: sa.bindparam(name) for name in fields})
    )


@cache
def save_job(fields: tuple[str, ...]) -> Statement:
    """Return the guarded update of these fields of a job."""
    return Statement(
        jobs.update()
        .where(jobs.c.id == sa.bindparam("b_id"), jobs.c.status == sa.bindparam("b_status"))
        .values({name: sa.bindparam(name) for name in fields})
    )


_KEPT_FIELDS = ("result", "error_message", "ready_at", "started_at", "due_at")
KEEP_ATTEMPT = Statement(
    job_task_attempts.insert().from_select(
        [
            "job_task_id",
            "job_id",
            "attempt",
            *_KEPT_FIELDS,
            "operator_id",
            "worker",
            "status",
            "error_code",
            "completed_at",
            "superseded_at",
        ],
        sa.select(
            job_tasks.c.id,
            job_tasks.c.job_id,
            job_tasks.c.attempt,
            *(job_tasks.c[name] for name in _KEPT_FIELDS),
            job_tasks.c.operator_id,
            job_tasks.c.worker,
            sa.bindparam("status", type_=sa.String),
            sa.bindparam("error_code", type_=sa.String),
            sa.bindparam("completed_at", type_=UtcDateTime),
            sa.bindparam("superseded_at", type_=UtcDateTime),
        ).where(job_tasks.c.id == sa.bindparam("b_id")),
    )
)
SUPERSEDE_CONTEXT = Statement(
    job_context.update()
    .where(
        job_context.c.job_task_id == sa.bindparam("b_job_task_id"),
        job_context.c.job_id == sa.bindparam("b_job_id"),
        job_context.c.superseded_at.is_(None),
    )
    .values(superseded_at=sa.bindparam("superseded_at"))
)
_LOG_FIELDS = (
    "job_id",
    "job_task_id",
    "attempt",
    "action",
    "operator_id",
    "on_behalf_of",
    "from_status",
    "to_status",
    "message",
    "metadata",
    "created_at",
)
LOG = Statement(job_task_logs.insert().values({name: sa.bindparam(name) for name in _LOG_FIELDS}))
REMEMBER = Statement(
    idempotency_keys.insert().values(
        {
            name: sa.bindparam(name)
            for name in ("scope", "key", "verb", "arguments", "answer", "created_at")
        }
    )
)


def clock_of(conn: Connection, server_time: datetime | None) -> datetime:
    """Return the time of the one clock in use: the one given to ``connect``, or the database's."""
    clock = conn.info.get("gwf_clock")
    now: datetime | None = server_time if clock is None else clock()
    assert now is not None, "neither a clock nor a server"  # noqa: S101 - a fault of ours
    return now


def database_now(conn: Connection) -> datetime:
    """Return the time, for verbs that lock no job; one round trip on a server."""
    if conn.info.get("gwf_clock") is not None:
        return clock_of(conn, None)
    now: datetime = _NOW.fetch(conn)[0][0]
    return now


#: An attempt that is over asks nobody any more.
CLOSE_SEATS = Statement(
    approval_seats.update()
    .where(
        approval_seats.c.job_task_id == sa.bindparam("b_job_task_id"),
        approval_seats.c.attempt == sa.bindparam("b_attempt"),
        approval_seats.c.is_open,
    )
    .values(is_open=sa.false())
)
