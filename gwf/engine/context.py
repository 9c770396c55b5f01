"""Read and write the values that the tasks of a job share.

Every write appends a row with the attempt that wrote it, so a send-back can supersede the values of
an attempt and readers see the earlier ones again (rule R7). A deletion is a row of its own.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gwf.engine.locks import lock_job, lock_job_of_task
from gwf.engine.replay import once
from gwf.engine.state import JobState
from gwf.errors import ContextKeyNotFound, Invalid
from gwf.limits import MAX_KEY, checked_json, checked_name
from gwf.model import Action, Call, JobStatus, JobTaskRecord, JobTaskStatus
from gwf.statements import Statement, Write
from gwf.tables import job_context

_IN_FORCE = Statement(
    sa.select(
        job_context.c.key,
        job_context.c.value,
        job_context.c.is_deleted,
        job_context.c.job_task_id,
    )
    .where(job_context.c.job_id == sa.bindparam("job_id"), job_context.c.superseded_at.is_(None))
    .order_by(job_context.c.id)
)
INSERT_CONTEXT = Statement(
    job_context.insert().values(
        {
            name: sa.bindparam(name)
            for name in (
                "job_id",
                "key",
                "value",
                "is_deleted",
                "job_task_id",
                "attempt",
                "superseded_at",
                "created_at",
            )
        }
    )
)


def context_values(
    conn: Connection, job_id: int, *, without: Container[int] = ()
) -> dict[str, Any]:
    """Return the context in force: of each key the last value that is not superseded.

    ``without`` names tasks whose values are being superseded by the verb that asks.
    """
    values: dict[str, Any] = {}
    for key, value, is_deleted, job_task_id in _IN_FORCE.fetch(conn, job_id=job_id):
        if job_task_id in without:
            continue
        if is_deleted:
            values.pop(key, None)
        else:
            values[key] = value
    return values


def checked_context(values: object) -> dict[str, Any]:
    """Return context values as plain JSON, their keys bounded.

    Raises
    ------
    Invalid
        Not a mapping, a key that is empty or longer than 255 characters, a value that is no JSON.
    """
    if values is not None and not isinstance(values, Mapping):
        raise Invalid("context", values, expected="a mapping with text keys")
    plain: dict[str, Any] = {}
    for key, value in (values or {}).items():
        name = checked_key(key)
        if name in plain:
            raise Invalid("context key", key, expected="each key once, but for the space around it")
        plain[name] = checked_json("context value", value)
    return plain


def checked_key(key: object) -> str:
    """Return a key as it is stored: text without surrounding space, at most 255 characters."""
    if not isinstance(key, str):
        raise Invalid("key of context", key, expected="JSON keys are text")
    return checked_name("context key", key, longest=MAX_KEY)


def write_context(
    state: JobState, values: Mapping[str, Any], *, task: JobTaskRecord | None
) -> None:
    """Append these values, as written by the current attempt of the task, if one is given."""
    for key, value in values.items():
        state.also(Write(INSERT_CONTEXT, _row(state, key, value, task=task)))
    state.new_context.update(values)


def set_context(
    conn: Connection,
    job_id: int,
    call: Call,
    *,
    values: Mapping[str, Any],
    job_task_id: int | None = None,
) -> dict[str, Any]:
    """Set values of the context and return the context in force.

    With a ``job_task_id`` the values belong to its attempt, and a send-back supersedes them.

    Raises
    ------
    JobNotFound, JobTaskNotFound
        There is no such job or task.
    Invalid
        A key or a value that cannot be stored.
    Conflict
        The job is cancelled, or the task is not running.
    """
    wanted = checked_context(values)
    task: JobTaskRecord | None = None
    if job_task_id is None:
        state = lock_job(conn, job_id)
    else:
        state, task = lock_job_of_task(conn, job_task_id)
        if task.job_id != job_id:
            raise Invalid("task", job_task_id, expected=f"a task of job {job_id}")
    arguments = {"values": wanted, "job_task_id": job_task_id}

    def body() -> dict[str, Any]:
        _expect_writable(state, task, call)
        write_context(state, wanted, task=task)
        _log(state, wanted, task, "set")
        return context_values(conn, state.job.id) | wanted

    return once(state, "set_context", call, arguments, body)


def delete_context(conn: Connection, job_id: int, call: Call, *, key: str) -> dict[str, Any]:
    """Delete a key of the context and return the context in force.

    Raises
    ------
    ContextKeyNotFound
        The context has no such key.
    Conflict
        The job is cancelled.
    """
    key = checked_key(key)
    state = lock_job(conn, job_id)

    def body() -> dict[str, Any]:
        _expect_writable(state, None, call)
        values = context_values(conn, job_id)
        if key not in values:
            raise ContextKeyNotFound(key, within=f"job {job_id}")
        state.also(Write(INSERT_CONTEXT, _row(state, key, None, task=None, is_deleted=True)))
        _log(state, (key,), None, "deleted")
        del values[key]
        return values

    return once(state, "delete_context", call, {"key": key}, body)


def _expect_writable(state: JobState, task: JobTaskRecord | None, call: Call) -> None:
    if state.job.status == JobStatus.CANCELLED:
        raise state.conflict("the context of a cancelled job stays as it is")
    if task is None:
        return
    state.expect_attempt(task, call.attempt)
    if task.status != JobTaskStatus.RUNNING:
        raise state.conflict("only a running task writes to the context", task)


def _log(state: JobState, keys: Iterable[str], task: JobTaskRecord | None, what: str) -> None:
    """Log which keys changed; values may be secret and stay out of the log (rule W8)."""
    status = state.job.status if task is None else task.status
    names = sorted(keys)
    state.log(
        Action.CONTEXT,
        task,
        before=status,
        after=status,
        message=f"{what} {len(names)} value(s)",
        metadata={"keys": names},
    )


def _row(
    state: JobState,
    key: str,
    value: Any,
    *,
    task: JobTaskRecord | None,
    is_deleted: bool = False,
) -> dict[str, Any]:
    return {
        "job_id": state.job.id,
        "key": key,
        "value": checked_json("context value", value),
        "is_deleted": is_deleted,
        "job_task_id": None if task is None else task.id,
        "attempt": None if task is None else task.attempt,
        "superseded_at": None,
        "created_at": state.now,
    }
