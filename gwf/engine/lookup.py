"""Find one thing: a task of a job by id, name or sequence, the next one, an earlier attempt."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gwf import queries
from gwf.engine.locks import expect_due_later, get_job
from gwf.engine.rows import clock_of, server_clock
from gwf.engine.sendback import tasks_of
from gwf.errors import Invalid, JobTaskNotFound
from gwf.limits import MAX_SEQUENCE, checked_whole
from gwf.model import AttemptRecord, JobTaskRecord, JobTaskStatus, is_due
from gwf.statements import Statement
from gwf.tables import job_task_attempts, job_tasks, jobs

_JOB_TASK = Statement(
    sa.select(
        *queries.JOB_TASK_COLUMNS,
        jobs.c.next_due_at,
        jobs.c.paused_at,
        server_clock().label("now"),
    )
    .join_from(job_tasks, jobs, jobs.c.id == job_tasks.c.job_id)
    .where(job_tasks.c.id == sa.bindparam("job_task_id"))
)
_LAST_ATTEMPT = Statement(
    sa.select(*queries.ATTEMPT_COLUMNS)
    .where(job_task_attempts.c.job_task_id == sa.bindparam("job_task_id"))
    .order_by(job_task_attempts.c.attempt.desc())
    .limit(1)
)


def job_task(conn: Connection, job_task_id: int, *, is_locked: bool = False) -> JobTaskRecord:
    """Return a job task as it is now, or raise JobTaskNotFound.

    Any deadline of its job may change it, so all are looked at; not where this transaction holds
    the job, since what was in time under the lock is not late a moment after.
    """
    rows = _JOB_TASK.fetch(conn, job_task_id=job_task_id)
    if not rows:
        raise JobTaskNotFound(job_task_id)
    *fields, next_due_at, paused_at, server_time = rows[0]
    task = JobTaskRecord.from_row(fields)
    if not is_locked:
        expect_due_later(task.job_id, next_due_at, paused_at, clock_of(conn, server_time))
    return task


def task_of_job(conn: Connection, job_id: int, which: int | str) -> JobTaskRecord:
    """Return the task of a job that has this name, or this sequence.

    Raises
    ------
    JobNotFound, JobTaskNotFound
        There is no such job, or it has no such task.
    Invalid
        Several tasks are meant; the message names their ids.
    """
    if not isinstance(which, str):
        checked_whole("sequence", which, lowest=1, highest=MAX_SEQUENCE)
    found = [task for task in tasks_of(conn, job_id) if which in (task.task_name, task.sequence)]
    if not found:
        raise JobTaskNotFound(which, within=f"job {job_id}")
    if len(found) > 1:
        ids = ", ".join(f"{task.id} (sequence {task.sequence})" for task in found)
        raise Invalid("task", which, expected=f"one task; job tasks {ids} are meant, give an id")
    return found[0]


def sequence_of(conn: Connection, job_id: int, target: int | str) -> int:
    """Return a target sequence: the number itself, or that of the task of this name."""
    if isinstance(target, str):
        return task_of_job(conn, job_id, target).sequence
    return checked_whole("target sequence", target, lowest=1, highest=MAX_SEQUENCE)


def sequence_for(conn: Connection, job_task_id: int, target: int | str) -> int:
    """Return a target sequence in the job of this job task."""
    if isinstance(target, str):
        return sequence_of(conn, job_task(conn, job_task_id).job_id, target)
    return checked_whole("target sequence", target, lowest=1, highest=MAX_SEQUENCE)


def next_task(conn: Connection, job_id: int) -> JobTaskRecord | None:
    """Return the first task that may start now, by sequence and id, or None."""
    job, _ = get_job(conn, job_id)
    for task in tasks_of(conn, job_id):
        if task.status == JobTaskStatus.PENDING and is_due(job, task):
            return task
    return None


def previous_attempt(conn: Connection, job_task_id: int) -> AttemptRecord | None:
    """Return the last superseded attempt of a job task, or None where there is none."""
    job_task(conn, job_task_id)
    rows = _LAST_ATTEMPT.fetch(conn, job_task_id=job_task_id)
    return AttemptRecord.from_row(rows[0]) if rows else None
