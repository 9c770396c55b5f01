"""Give due automated tasks to workers, under a lease, and take in what came of them.

Two steps. ``find_work`` reads what there may be to do, by an index and without a lock, so idle
workers cost next to nothing and never hold up a writer. ``claim`` then locks the jobs of some of it
and skips those that others hold (``SKIP LOCKED``; the immediate transaction on SQLite).

Why the job's row is locked, and not the task's: every verb meets there, in one order, so claims
cannot deadlock with them. Why ``available_at`` is both the instant at which a task may be taken and
the end of its lease: one index answers "what may I run?", what a dead worker left included.

The attempt is the fencing token (rule W2): whoever reports for an older one gets a Conflict.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gwf import queries
from gwf.engine.advance import advance, fail_job
from gwf.engine.context import context_values, write_context
from gwf.engine.inputs import inputs
from gwf.engine.locks import lock_job, lock_job_of_task, lock_jobs_of_tasks
from gwf.engine.retrying import GIVEN_BACK, fail_attempt
from gwf.engine.rows import database_now, statement_clock
from gwf.engine.state import JobState
from gwf.errors import Invalid, StaleAttempt
from gwf.execution import ExecutionContext, Work, work_of
from gwf.executors import Executor
from gwf.limits import checked_json
from gwf.model import Action, JobRecord, JobStatus, JobTaskRecord, JobTaskStatus, is_due
from gwf.statements import Statement, Write, execute
from gwf.tables import UtcDateTime, job_tasks, jobs, schedules

#: How long after its timeout an attempt is given for its worker to say so itself, in seconds.
REPORT_GRACE_S = 30.0

LEASE_EXPIRED = "lease_expired"
CONFIG_INVALID = "config_invalid"


@dataclass(frozen=True, slots=True)
class Lease:
    """Say who claims, for how many seconds, and what it may run (rule W5)."""

    worker: str
    seconds: float
    executors: Mapping[str, Executor]


@dataclass(frozen=True, slots=True)
class Claim:
    """Hold an attempt that was claimed, and what its executor is told."""

    task: JobTaskRecord
    work: Work
    context: ExecutionContext


@dataclass(frozen=True, slots=True)
class Step:
    """Say where a job stands after a claim or a report, and what was claimed of it.

    ``next_at`` is when it is worth looking at the job again: a retry or the end of a lease.
    """

    job: JobRecord
    claims: tuple[Claim, ...]
    next_at: datetime | None
    now: datetime


@dataclass(frozen=True, slots=True)
class FoundWork:
    """Name what there may be to do, by ids, the oldest first."""

    job_task_ids: tuple[int, ...]
    late_job_ids: tuple[int, ...]
    schedule_ids: tuple[int, ...]


def find_work(conn: Connection, executors: Sequence[str], *, limit: int) -> FoundWork:
    """Return tasks that may be claimed, jobs with a passed deadline, and due schedules.

    One statement; up to ``limit`` of each.
    """
    clock = conn.info.get("gwf_clock")
    names = {f"executor_{number}": name for number, name in enumerate(executors)}
    rows = _found(len(executors)).fetch(
        conn, now=None if clock is None else clock(), limit=limit, **names
    )
    by_kind: dict[str, list[int]] = {"task": [], "job": [], "schedule": []}
    for kind, found_id in rows:
        by_kind[kind].append(int(found_id))
    return FoundWork(*(tuple(ids) for ids in by_kind.values()))


def claim(conn: Connection, job_task_ids: Sequence[int], lease: Lease) -> list[Step]:
    """Claim those of these tasks that nobody else holds or has taken; one step for each job.

    What a dead worker left is tried again or fails first, by its own policy.
    """
    limit = len(job_task_ids)
    return [_go_on(state, lease, limit) for state in lock_jobs_of_tasks(conn, job_task_ids)]


def claim_in_job(conn: Connection, job_id: int, lease: Lease, *, limit: int) -> Step:
    """Claim up to ``limit`` tasks of this job.

    Raises
    ------
    JobNotFound
    DeadlinePassed
        A deadline of the job has to be applied first.
    """
    state = lock_job(conn, job_id)
    state.load_frontier()
    return _go_on(state, lease, limit)


def report_result(
    conn: Connection, task: JobTaskRecord, lease: Lease, result: Any, *, limit: int
) -> Step:
    """Complete a claimed attempt, and claim up to ``limit`` tasks of the job that are due now.

    The result goes to the context of the job too, under the name of the task.

    Raises
    ------
    StaleAttempt, Conflict
        The attempt is no longer this worker's: it was cancelled, sent back, or its lease expired.
    Invalid
        The result is no JSON, or too large.
    """
    plain = checked_json("result", result)
    state, found = _lock_own(conn, task, lease)
    state.change_task(
        found,
        Action.COMPLETE,
        metadata={"worker": lease.worker},
        status=JobTaskStatus.COMPLETED,
        result=plain,
        completed_at=state.now,
    )
    if plain is not None:
        write_context(state, {found.task_name: plain}, task=found)
    advance(state)
    return _go_on(state, lease, limit)


def report_failure(
    conn: Connection, task: JobTaskRecord, lease: Lease, *, code: str, message: str, limit: int
) -> Step:
    """Let a claimed attempt fail, by its policy of retries, and claim what is due in the job.

    With the code ``given_back`` the next attempt is open at once, whatever the policy says.

    Raises
    ------
    StaleAttempt, Conflict
        The attempt is no longer this worker's.
    """
    state, found = _lock_own(conn, task, lease)
    fail_attempt(state, found, code=code, message=message, metadata={"worker": lease.worker})
    return _go_on(state, lease, 0 if code == GIVEN_BACK else limit)


def extend(conn: Connection, tasks: Sequence[JobTaskRecord], lease: Lease) -> list[int]:
    """Extend the lease of these attempts, and return the ids of those that are lost."""
    until = database_now(conn) + timedelta(seconds=lease.seconds)
    values = [
        {"b_id": task.id, "b_attempt": task.attempt, "b_worker": lease.worker, "until": until}
        for task in tasks
    ]
    counts = execute(conn, [Write(_EXTEND, own) for own in values])
    return [task.id for task, count in zip(tasks, counts, strict=True) if count == 0]


def _go_on(state: JobState, lease: Lease, limit: int) -> Step:
    started = _take(state, lease, limit=limit)
    state.save()
    return Step(state.job, _told(state, started), _next_at(state, lease), state.now)


def is_open(conn: Connection, task: JobTaskRecord) -> bool:
    """Say whether this attempt still runs, so that a report of it has not arrived."""
    rows = _STATUS.fetch(conn, job_task_id=task.id)
    return bool(rows) and rows[0] == (JobTaskStatus.RUNNING.value, task.attempt)


def held_by(conn: Connection, lease: Lease) -> list[JobTaskRecord]:
    """Return what runs under a lease of this worker, as far as it may run it."""
    found: list[JobTaskRecord] = []
    for executor in lease.executors:
        rows = _HELD.fetch(conn, executor=executor, worker=lease.worker)
        found += [JobTaskRecord.from_row(row) for row in rows]
    return found


def _lock_own(
    conn: Connection, task: JobTaskRecord, lease: Lease
) -> tuple[JobState, JobTaskRecord]:
    """Lock the job of an attempt that this worker still has; the refusal of a late one is kept."""
    state, found = lock_job_of_task(conn, task.id)
    is_own = found.status == JobTaskStatus.RUNNING and found.worker == lease.worker
    if found.attempt != task.attempt:
        error = StaleAttempt(
            found.label, attempt=task.attempt, current=found.attempt, found=found.status
        )
        raise state.refused(error, found)
    if not is_own:
        late = state.conflict(f"worker {lease.worker} no longer has it", found)
        raise state.refused(late, found)
    return state, found


def _take(state: JobState, lease: Lease, *, limit: int) -> list[tuple[JobTaskRecord, Work]]:
    for task in state.in_order():
        if _is_abandoned(task, state.now) and task.executor in lease.executors:
            fail_attempt(
                state,
                task,
                code=LEASE_EXPIRED,
                message=f"worker {task.worker} was not heard of in time",
                metadata={"worker": task.worker},
            )
    started: list[tuple[JobTaskRecord, Work]] = []
    for task in state.in_order():
        if len(started) < limit and _is_free(state, task, lease):
            started += _start(state, task, lease)
    return started


def _is_abandoned(task: JobTaskRecord, now: datetime) -> bool:
    is_leased = task.status == JobTaskStatus.RUNNING and task.available_at is not None
    return is_leased and task.available_at is not None and task.available_at <= now


def _is_free(state: JobState, task: JobTaskRecord, lease: Lease) -> bool:
    return (
        task.status == JobTaskStatus.PENDING
        and task.executor in lease.executors
        and task.available_at is not None
        and task.available_at <= state.now
        and is_due(state.job, task)
    )


def _start(state: JobState, task: JobTaskRecord, lease: Lease) -> list[tuple[JobTaskRecord, Work]]:
    """Start the task for this worker; one whose config makes no sense fails instead (rule W1)."""
    try:
        work = work_of(task.config)
        if work is None:
            raise Invalid("config", task.config, expected="it names no executor")
        lease.executors[work.executor].expect_valid(work.arguments)
    except Invalid as refusal:
        _refuse(state, task, refusal, lease)
        return []
    due_at = None
    if work.timeout_s is not None:
        due_at = state.now + timedelta(seconds=work.timeout_s + REPORT_GRACE_S)
        state.watch_deadline(due_at)
    started = state.change_task(
        task,
        Action.START,
        metadata={"worker": lease.worker, "executor": work.executor},
        status=JobTaskStatus.RUNNING,
        started_at=state.now,
        due_at=due_at,
        worker=lease.worker,
        available_at=state.now + timedelta(seconds=lease.seconds),
    )
    return [(started, work)]


def _refuse(state: JobState, task: JobTaskRecord, refusal: Invalid, lease: Lease) -> None:
    state.change_task(
        task,
        Action.FAIL,
        message=str(refusal),
        metadata={"worker": lease.worker},
        by_system=True,
        status=JobTaskStatus.FAILED,
        error_code=CONFIG_INVALID,
        error_message=str(refusal),
        completed_at=state.now,
    )
    if state.job.status == JobStatus.RUNNING:
        fail_job(state, f"{task.label} has a config that cannot run")


def _told(state: JobState, started: Sequence[tuple[JobTaskRecord, Work]]) -> tuple[Claim, ...]:
    """Read what these tasks are told, as the transaction leaves it."""
    if not started:
        return ()
    ran = [_Ran(*row) for row in _RAN.fetch(state.conn, job_id=state.job.id)]
    context = context_values(state.conn, state.job.id)
    claims = []
    for task, work in started:
        names = inputs(state.job, task, ran, context)
        claims.append(Claim(task, work, ExecutionContext(**names, timeout_s=work.timeout_s)))
    return tuple(claims)


def _next_at(state: JobState, lease: Lease) -> datetime | None:
    """Return when something of the job may be claimed, or taken over from another worker."""
    if state.job.status not in (JobStatus.RUNNING, JobStatus.FAILED):
        return None
    instants = [
        task.available_at
        for task in state.tasks.values()
        if task.available_at is not None
        and (
            task.status == JobTaskStatus.RUNNING
            or (task.executor in lease.executors and is_due(state.job, task))
        )
    ]
    return min(instants, default=None)


_EXTEND = Statement(
    job_tasks.update()
    .where(
        job_tasks.c.id == sa.bindparam("b_id"),
        job_tasks.c.attempt == sa.bindparam("b_attempt"),
        job_tasks.c.worker == sa.bindparam("b_worker"),
        job_tasks.c.status == JobTaskStatus.RUNNING.value,
    )
    .values(available_at=sa.bindparam("until", type_=UtcDateTime))
)


class _Ran(NamedTuple):
    """Hold what others see of a task."""

    sequence: int
    task_name: str
    status: str
    result: Any


_RAN = Statement(
    sa.select(*(job_tasks.c[name] for name in _Ran._fields))
    .where(job_tasks.c.job_id == sa.bindparam("job_id"))
    .order_by(job_tasks.c.sequence, job_tasks.c.id)
)
_STATUS = Statement(
    sa.select(job_tasks.c.status, job_tasks.c.attempt).where(
        job_tasks.c.id == sa.bindparam("job_task_id")
    )
)
_HELD = Statement(
    sa.select(*queries.JOB_TASK_COLUMNS).where(
        job_tasks.c.executor == sa.bindparam("executor"),
        job_tasks.c.available_at.is_not(None),
        job_tasks.c.status == JobTaskStatus.RUNNING.value,
        job_tasks.c.worker == sa.bindparam("worker"),
    )
)


@cache
def _found(n_executors: int) -> Statement:
    """Return the statement that finds work for so many executors.

    Each has a part of its own, so that each is answered by the head of an index.
    """
    now = sa.func.coalesce(sa.bindparam("now", type_=UtcDateTime), statement_clock())
    limit = sa.bindparam("limit", type_=sa.Integer)
    can_go_on = sa.or_(
        job_tasks.c.status == JobTaskStatus.RUNNING.value,
        sa.and_(
            jobs.c.status == JobStatus.RUNNING.value,
            jobs.c.paused_at.is_(None),
            jobs.c.current_task_seq == job_tasks.c.sequence,
        ),
    )
    parts: list[sa.Select[Any]] = [
        sa.select(sa.literal("task").label("kind"), job_tasks.c.id.label("found_id"))
        .join_from(job_tasks, jobs, jobs.c.id == job_tasks.c.job_id)
        .where(
            job_tasks.c.executor == sa.bindparam(f"executor_{number}", type_=sa.String),
            job_tasks.c.available_at <= now,
            can_go_on,
        )
        .order_by(job_tasks.c.available_at)
        .limit(limit)
        for number in range(n_executors)
    ]
    parts.append(
        sa.select(sa.literal("job"), jobs.c.id)
        .where(jobs.c.next_due_at < now, jobs.c.paused_at.is_(None))
        .order_by(jobs.c.next_due_at)
        .limit(limit)
    )
    parts.append(
        sa.select(sa.literal("schedule"), schedules.c.id)
        .where(schedules.c.next_at <= now)
        .order_by(schedules.c.next_at)
        .limit(limit)
    )
    nested = [part.subquery() for part in parts]
    union = sa.union_all(*(sa.select(*one.c) for one in nested)).subquery("found")
    return Statement(sa.select(*union.c))
