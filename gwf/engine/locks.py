"""Read a job, with its lock or without; its deadlines come before anything else."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gwf import queries
from gwf.engine import rows
from gwf.engine.rows import clock_of, server_clock
from gwf.engine.state import JobState
from gwf.errors import JobNotFound, JobTaskNotFound
from gwf.model import JobRecord, JobTaskRecord, JobTaskStatus
from gwf.statements import Statement
from gwf.tables import job_tasks, jobs

_JOB = Statement(
    sa.select(*queries.JOB_COLUMNS, server_clock().label("now")).where(
        jobs.c.id == sa.bindparam("job_id")
    )
)


class DeadlinePassed(Exception):
    """Ask for the deadlines of a job to be applied before anything else is read or written.

    It never reaches a user: whoever opened the transaction applies them and begins again (rule W6).
    """

    def __init__(self, job_id: int) -> None:
        self.job_id = job_id
        super().__init__(job_id)


def lock_job(conn: Connection, job_id: int, *, is_late: bool = False) -> JobState:
    """Lock the job and read it; ``is_late`` is for whoever applies its deadlines.

    Raises
    ------
    JobNotFound
        No job has this id.
    DeadlinePassed
        A deadline of the job has to be applied first.
    """
    found = rows.LOCK_JOB.fetch(conn, job_id=job_id)
    if not found:
        raise JobNotFound(job_id)
    return _state(conn, found[0], is_late=is_late)


def lock_job_of_task(conn: Connection, job_task_id: int) -> tuple[JobState, JobTaskRecord]:
    """Lock the job of this job task, and read both.

    Raises
    ------
    JobTaskNotFound
        No job task has this id.
    DeadlinePassed
        A deadline of the job has to be applied first.
    """
    found = rows.LOCK_JOB_OF_TASK.fetch(conn, job_task_id=job_task_id)
    if not found:
        raise JobTaskNotFound(job_task_id)
    state = _state(conn, found[0][: rows.N_LOCKED])
    state.take([found[0][rows.N_LOCKED :]])
    return state, state.tasks[job_task_id]


def lock_jobs_of_tasks(conn: Connection, job_task_ids: Sequence[int]) -> list[JobState]:
    """Lock the jobs of these tasks and read both, but for the jobs that somebody else holds.

    A job with a deadline that has to be applied first is left alone too.
    """
    ids = {f"id_{number}": one for number, one in enumerate(job_task_ids)}
    states: dict[int, JobState] = {}
    for row in _lock_free(len(ids)).fetch(conn, **ids) if ids else ():
        try:
            state = _state(conn, row[: rows.N_LOCKED])
        except DeadlinePassed:
            continue
        states.setdefault(state.job.id, state).take([row[rows.N_LOCKED :]])
    return list(states.values())


@cache
def _lock_free(n_tasks: int) -> Statement:
    ids = [sa.bindparam(f"id_{number}", type_=sa.BigInteger) for number in range(n_tasks)]
    return Statement(
        sa.select(*rows.LOCKED, *queries.JOB_TASK_COLUMNS)
        .join_from(job_tasks, jobs, jobs.c.id == job_tasks.c.job_id)
        .where(sa.or_(*(job_tasks.c.id == one for one in ids)))
        .order_by(job_tasks.c.available_at, job_tasks.c.id)
        .with_for_update(skip_locked=True)
    )


def get_job(conn: Connection, job_id: int) -> tuple[JobRecord, datetime]:
    """Return a job without locking it, and the time at which it was read.

    Raises
    ------
    JobNotFound
        No job has this id.
    DeadlinePassed
        A deadline of the job has to be applied first.
    """
    rows = _JOB.fetch(conn, job_id=job_id)
    if not rows:
        raise JobNotFound(job_id)
    *fields, server_time = rows[0]
    job, now = JobRecord.from_row(fields), clock_of(conn, server_time)
    expect_timely(job, now)
    return job, now


def expect_timely_task(conn: Connection, task: JobTaskRecord) -> None:
    """Raise DeadlinePassed when the task runs and a deadline of its job has passed."""
    if task.due_at is not None and task.status == JobTaskStatus.RUNNING:
        get_job(conn, task.job_id)


def expect_timely(job: JobRecord, now: datetime) -> None:
    """Raise DeadlinePassed when one of the job's deadlines has to be applied first (rule W6).

    A paused job has time: nobody can vote in it, and resuming moves its deadlines.
    """
    expect_due_later(job.id, job.next_due_at, job.paused_at, now)


def expect_due_later(
    job_id: int, next_due_at: datetime | None, paused_at: datetime | None, now: datetime
) -> None:
    """Raise DeadlinePassed as ``expect_timely``, from the fields of the job alone."""
    if next_due_at is not None and now > next_due_at and paused_at is None:
        raise DeadlinePassed(job_id)


def _state(conn: Connection, row: tuple[Any, ...], *, is_late: bool = False) -> JobState:
    *fields, server_time, holds_anybody = row
    job = JobRecord.from_row(fields)
    now = clock_of(conn, server_time)
    if not is_late:
        expect_timely(job, now)
    return JobState(conn, job, now=now, open_mode=not holds_anybody)
