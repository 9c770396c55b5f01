"""Send a job back 打回, and reopen a completed one.

``plan`` is pure: it says which targets a caller may choose and why another is refused, so
``allowed_targets`` and ``rollback_task`` can never disagree (rule R3).

What is reopened (rule R5): with ``resume="through"`` every task from the target to the caller's
group; with ``"direct"`` the target's group, the caller, and what has no result that could stand (a
failed sibling, or a running one that ``running="cancel"`` ends). Decisions behind the caller that
rest on results which no longer stand (a later task that was skipped or failed without ever
starting) are taken back as well, since their conditions have to be evaluated anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gwf import directory, queries
from gwf.engine.advance import advance, enter_next, resume_clock
from gwf.engine.job_tasks import reopened
from gwf.engine.locks import expect_timely_task, get_job, lock_job, lock_job_of_task
from gwf.engine.replay import once
from gwf.engine.state import JobState
from gwf.errors import Invalid, JobTaskNotFound, NotAllowed, SendBackRefused
from gwf.limits import MAX_SEQUENCE, checked_flag, checked_reason, checked_text, checked_whole
from gwf.model import (
    Action,
    Call,
    JobRecord,
    JobStatus,
    JobTaskRecord,
    JobTaskStatus,
)
from gwf.statements import Statement
from gwf.tables import job_tasks, jobs

_CALLERS = (JobTaskStatus.RUNNING, JobTaskStatus.FAILED, JobTaskStatus.COMPLETED)

Running = Literal["refuse", "cancel"]
Resume = Literal["through", "direct"]

_JOB_OF_TASK = Statement(
    sa.select(*queries.JOB_COLUMNS)
    .join_from(jobs, job_tasks, job_tasks.c.job_id == jobs.c.id)
    .where(job_tasks.c.id == sa.bindparam("job_task_id"))
)
_TASKS = Statement(
    sa.select(*queries.JOB_TASK_COLUMNS)
    .where(job_tasks.c.job_id == sa.bindparam("job_id"))
    .order_by(job_tasks.c.sequence, job_tasks.c.id)
)


def _expect_how(running: object, force: object) -> None:
    if running not in ("refuse", "cancel"):
        raise Invalid("running", running, expected="'refuse' or 'cancel'")
    checked_flag("force", force)


@dataclass(frozen=True, slots=True)
class SendBack:
    """Describe a send-back that is asked for."""

    target: int
    reason: str | None = None
    running: Running = "refuse"
    resume: Resume = "through"
    force: bool = False

    def __post_init__(self) -> None:
        """Check the values, whatever the state of the job."""
        checked_whole("target sequence", self.target, lowest=1, highest=MAX_SEQUENCE)
        _expect_how(self.running, self.force)
        if self.resume not in ("through", "direct"):
            raise Invalid("resume", self.resume, expected="'through' or 'direct'")
        checked_text("reason", self.reason)
        if self.force:
            checked_reason(self.reason, verb="a forced send-back")


@dataclass(frozen=True, slots=True)
class Plan:
    """Hold the targets that are allowed, and why each other one is refused."""

    allowed: tuple[int, ...]
    refusals: dict[int, str]
    #: Set where no target at all is allowed, whatever its sequence.
    reason: str | None = None


def plan(
    job: JobRecord,
    tasks: Sequence[JobTaskRecord],
    caller: JobTaskRecord,
    *,
    running: Running = "refuse",
    force: bool = False,
) -> Plan:
    """Return where this caller may send the job back to (rules R1 to R4, R6)."""
    reason = _caller_refusal(job, tasks, caller, force=force)
    if reason is not None:
        return Plan((), {}, reason)
    allowed: list[int] = []
    refusals: dict[int, str] = {}
    for target in sorted({task.sequence for task in tasks if task.sequence < caller.sequence}):
        crossed = [
            task
            for task in tasks
            if target <= task.sequence <= caller.sequence and task.id != caller.id
        ]
        busy = [task.label for task in crossed if task.status == JobTaskStatus.RUNNING]
        protected = [
            task.label
            for task in crossed
            if task.status == JobTaskStatus.COMPLETED and not task.allow_rollback
        ]
        if busy and running == "refuse":
            refusals[target] = f"{', '.join(busy)} is running; finish it or pass running='cancel'"
        elif protected and not force:
            refusals[target] = f"it would cross {', '.join(protected)}, which allows no send-back"
        else:
            allowed.append(target)
    return Plan(tuple(allowed), refusals)


def allowed_targets(
    conn: Connection,
    job_task_id: int,
    *,
    operator: int | str | None = None,
    running: Running = "refuse",
    force: bool = False,
) -> tuple[int, ...]:
    """Return exactly the sequences that ``rollback_task`` would accept now, lowest first.

    Raises
    ------
    JobTaskNotFound
        There is no such job task.
    """
    _expect_how(running, force)
    if force and directory.holds_anybody(conn):
        force = directory.identify(conn, operator, open_mode=False).is_admin
    rows = _JOB_OF_TASK.fetch(conn, job_task_id=job_task_id)
    if not rows:
        raise JobTaskNotFound(job_task_id)
    job = JobRecord.from_row(rows[0])
    tasks = tasks_of(conn, job.id)
    caller = next(task for task in tasks if task.id == job_task_id)
    return plan(job, tasks, caller, running=running, force=force).allowed


def rollback_task(
    conn: Connection, job_task_id: int, call: Call, request: SendBack
) -> JobTaskRecord:
    """Send the job back from this task to an earlier sequence, and return the caller.

    Nothing is erased: the attempts move to the history as ``rolled_back``.

    Raises
    ------
    SendBackRefused
        The state or the target does not allow it; ``allowed`` holds the targets that it would.
    NotAllowed
        The caller, or a completed task on the way, allows no send-back.
    """
    state, caller = lock_job_of_task(conn, job_task_id)

    def body() -> JobTaskRecord:
        tasks = state.load_all()
        state.expect_attempt(caller, call.attempt)
        _expect_accepted(state, tasks, caller, request)
        send_back(state, tasks, caller, request)
        return state.tasks[job_task_id]

    arguments: dict[str, Any] = {
        "job_task_id": job_task_id,
        "target": request.target,
        "reason": request.reason,
        "running": request.running,
        "resume": request.resume,
        "force": request.force,
    }
    return once(state, "rollback_task", call, arguments, body, record=JobTaskRecord)


def reopen_job(conn: Connection, job_id: int, call: Call, *, target: int, reason: str) -> JobRecord:
    """Open a completed job again from this sequence on, and return it running.

    Reopening is an act of its own, so it needs no ``force``; but once the directory holds people,
    only an admin reopens a completed task that allows no send-back.

    Raises
    ------
    JobNotFound
        There is no such job.
    Conflict
        The job is not completed.
    Invalid
        The job has no such sequence, or no reason is given.
    """
    why = checked_reason(reason, verb="reopening a job")
    first = checked_whole("target sequence", target, lowest=1, highest=MAX_SEQUENCE)
    state = lock_job(conn, job_id)

    def body() -> JobRecord:
        if state.job.status != JobStatus.COMPLETED:
            raise state.conflict("only a completed job can be reopened")
        tasks = state.load_all()
        sequences = sorted({task.sequence for task in tasks})
        if first not in sequences:
            raise Invalid("target sequence", first, expected=f"one of {sequences}")
        later = [task for task in tasks if task.sequence >= first]
        protected = [task for task in later if _is_protected(task)]
        _expect_admin(state, protected)
        state.change_job(
            Action.REOPEN,
            message=why,
            metadata={"target": first},
            status=JobStatus.RUNNING,
            **resume_clock(state),
        )
        for task in later:
            _reopen(state, task, Action.REOPEN, why)
        _go_on_from(state, first)
        return state.job

    arguments = {"job_id": job_id, "target": first, "reason": why}
    return once(state, "reopen_job", call, arguments, body, record=JobRecord)


def tasks_of(conn: Connection, job_id: int) -> list[JobTaskRecord]:
    """Return the tasks of a job by sequence and id, without a lock."""
    rows = _TASKS.fetch(conn, job_id=job_id)
    if not rows:
        get_job(conn, job_id)  # a job that GoWorkFlow made may have no tasks
    tasks = [JobTaskRecord.from_row(row) for row in rows]
    for task in tasks:
        expect_timely_task(conn, task)
    return tasks


def _caller_refusal(
    job: JobRecord, tasks: Sequence[JobTaskRecord], caller: JobTaskRecord, *, force: bool
) -> str | None:
    started = [
        task.label
        for task in tasks
        if task.sequence > caller.sequence and task.started_at is not None
    ]
    refusals = {
        f"job {job.id} is completed; reopen_job is the way to open it again": job.status
        == JobStatus.COMPLETED,
        f"job {job.id} is {job.status}; a send-back needs a running or failed job": job.status
        not in (JobStatus.RUNNING, JobStatus.FAILED),
        f"job {job.id} was sent back {job.n_rollbacks} times, which is the most it may be": (
            job.n_rollbacks >= job.max_rollbacks
        ),
        f"{caller.label} is {caller.status}; it has to be running, failed or completed": (
            caller.status not in _CALLERS
        ),
        f"{', '.join(started)} started after {caller.label}": (
            caller.status == JobTaskStatus.COMPLETED and bool(started)
        ),
        f"{caller.label} allows no send-back": not caller.allow_rollback and not force,
    }
    return next((reason for reason, applies in refusals.items() if applies), None)


def _expect_accepted(
    state: JobState, tasks: Sequence[JobTaskRecord], caller: JobTaskRecord, request: SendBack
) -> None:
    possible = plan(state.job, tasks, caller, running=request.running, force=request.force)
    forced = plan(state.job, tasks, caller, running=request.running, force=True)
    is_forced = request.force and request.target in forced.allowed
    if request.target in possible.allowed:
        plainly = plan(state.job, tasks, caller, running=request.running).allowed
        if is_forced and request.target not in plainly:
            _expect_admin(state, [caller])
        return
    reason = possible.reason or possible.refusals.get(request.target)
    if reason is None:
        reason = f"sequence {request.target} is no earlier sequence of job {state.job.id}"
    if request.target in forced.allowed:
        refusal = NotAllowed(reason, needs="force=True, a reason and the role 'admin'")
        raise state.refused(refusal, caller)
    raise state.refused(
        SendBackRefused(reason, found=caller.status, allowed=possible.allowed), caller
    )


def send_back(
    state: JobState, tasks: Sequence[JobTaskRecord], caller: JobTaskRecord, request: SendBack
) -> None:
    """Reopen what a send-back reopens; whether it is allowed was decided before."""
    state.change_job(
        Action.ROLLBACK,
        message=request.reason,
        metadata={
            "job_task_id": caller.id,
            "from_sequence": caller.sequence,
            "target": request.target,
            "resume": request.resume,
            "force": request.force,
        },
        status=JobStatus.RUNNING,
        n_rollbacks=state.job.n_rollbacks + 1,
        **resume_clock(state),
    )
    for task in tasks:
        if task.id == caller.id:
            state.supersede_context(task)
            reopened(
                state,
                task,
                Action.ROLLBACK,
                kept_as=JobTaskStatus.ROLLED_BACK,
                message=request.reason,
                status=JobTaskStatus.ROLLED_BACK,
            )
        elif _is_in_range(task, caller, request) or _is_hasty(task, caller):
            _reopen(state, task, Action.ROLLBACK, request.reason)
        elif (
            task.sequence > request.target
            and task.status == JobTaskStatus.PENDING
            and task.ready_at is not None
        ):
            state.touch_task(task, ready_at=None)
    _go_on_from(state, request.target)


def _is_in_range(task: JobTaskRecord, caller: JobTaskRecord, request: SendBack) -> bool:
    if request.resume == "direct":
        has_result = task.status not in (JobTaskStatus.RUNNING, JobTaskStatus.FAILED)
        is_between = request.target < task.sequence <= caller.sequence
        return task.sequence == request.target or (is_between and not has_result)
    return request.target <= task.sequence <= caller.sequence


def _is_hasty(task: JobTaskRecord, caller: JobTaskRecord) -> bool:
    """Say whether a later task was decided, never started, on results that no longer stand."""
    is_decided = task.status in (
        JobTaskStatus.PENDING,
        JobTaskStatus.SKIPPED,
        JobTaskStatus.FAILED,
    )
    return task.sequence > caller.sequence and is_decided and task.started_at is None


def _reopen(state: JobState, task: JobTaskRecord, action: Action, why: str | None) -> None:
    """Open the next attempt of a task; one that has none yet only stops being due."""
    if task.status in (JobTaskStatus.PENDING, JobTaskStatus.ROLLED_BACK):
        if task.ready_at is not None:
            state.touch_task(task, ready_at=None)
        return
    state.supersede_context(task)
    reopened(state, task, action, kept_as=JobTaskStatus.ROLLED_BACK, message=why)


def _go_on_from(state: JobState, target: int) -> None:
    current = state.job.current_task_seq
    if current is not None and current < target:
        advance(state)  # after a direct send-back a lower group may still be going on
        return
    state.touch_job(current_task_seq=target - 1)
    enter_next(state)


def _is_protected(task: JobTaskRecord) -> bool:
    return task.status == JobTaskStatus.COMPLETED and not task.allow_rollback


def _expect_admin(state: JobState, protected: Sequence[JobTaskRecord]) -> None:
    if not protected:
        return
    what = f"reopening {', '.join(task.label for task in protected)}"
    try:
        directory.authorise(state.actor, what, open_mode=state.open_mode, needs_admin=True)
    except NotAllowed as refusal:
        raise state.refused(refusal, protected[0]) from None
