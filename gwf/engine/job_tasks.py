"""Carry out the verbs on one task of a job: start, complete, fail, skip, retry.

Each verb goes the way of ``state``: lock the job, read what matters, check, change, save. None of
them commits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy.engine import Connection

from gwf import directory
from gwf.engine.advance import CANCELLED, SKIPPED_RESULT, advance, fail_job, make_due, resume_clock
from gwf.engine.context import checked_context, write_context
from gwf.engine.locks import lock_job_of_task
from gwf.engine.replay import once
from gwf.engine.seating import request
from gwf.engine.seats import close_overridden
from gwf.engine.state import JobState
from gwf.errors import Invalid, NotAllowed, NotDue
from gwf.limits import checked_flag, checked_json, checked_name, checked_reason, checked_text
from gwf.model import (
    Action,
    Call,
    JobStatus,
    JobTaskRecord,
    JobTaskStatus,
    TaskType,
    is_due,
    legal_task_verbs,
)

TaskChange = Callable[[JobState, JobTaskRecord], JobTaskRecord]


def start_task(conn: Connection, job_task_id: int, call: Call) -> JobTaskRecord:
    """Start a task that is due, and return it running; an approval asks its people.

    Raises
    ------
    UnsatisfiablePolicy
        The known users could never let the approval pass (rule A7).
    NotDue
        Something else has to happen first; ``blockers`` names it.
    Conflict
        The task is not pending: somebody else was first, or it is over.
    """

    def change(state: JobState, task: JobTaskRecord) -> JobTaskRecord:
        _expect_due(state, task, "started")
        due_at = request(state, task) if task.task_type == TaskType.APPROVAL else None
        state.watch_deadline(due_at)
        return state.change_task(
            task,
            Action.START,
            status=JobTaskStatus.RUNNING,
            operator_id=state.actor.operator_id,
            started_at=state.now,
            due_at=due_at,
            available_at=None,
        )

    return _change(conn, job_task_id, call, "start_task", change)


def complete_task(
    conn: Connection,
    job_task_id: int,
    call: Call,
    *,
    result: Any = None,
    context: Mapping[str, Any] | None = None,
) -> JobTaskRecord:
    """Complete a running task with a JSON result, and make due what comes next.

    On an approval this is an override, which takes an admin (rule A9).
    ``context`` holds values for the tasks to come; a send-back supersedes them (rule R7).

    Raises
    ------
    Conflict
        The task is not running; a late result of a cancelled task is logged without effect.
    Invalid
        The result or the context is no JSON, or too large.
    """
    plain = checked_json("result", result)
    values = checked_context(context)

    def change(state: JobState, task: JobTaskRecord) -> JobTaskRecord:
        _expect_running(state, task, "complete")
        override = _overriding(state, task)
        done = state.change_task(
            task,
            Action.COMPLETE,
            metadata=override,
            status=JobTaskStatus.COMPLETED,
            result=plain,
            completed_at=state.now,
            **_by(state, task),
        )
        write_context(state, values, task=task)
        advance(state)
        return done

    arguments = {"result": plain, "context": values}
    return _change(conn, job_task_id, call, "complete_task", change, **arguments)


def fail_task(
    conn: Connection,
    job_task_id: int,
    call: Call,
    *,
    error_message: str,
    error_code: str | None = None,
) -> JobTaskRecord:
    """Let a running task fail; its job is failed at once and nothing new starts (rule P4).

    Raises
    ------
    Conflict
        The task is not running.
    Invalid
        No message, or one of more than 16,000 characters.
    """
    message = (checked_text("error message", error_message) or "").strip()
    if not message:
        raise Invalid("error message", error_message, expected="say what went wrong")
    code = None if error_code is None else checked_name("error code", error_code, longest=50)

    def change(state: JobState, task: JobTaskRecord) -> JobTaskRecord:
        _expect_running(state, task, "fail")
        override = _overriding(state, task)
        failed = state.change_task(
            task,
            Action.FAIL,
            message=message,
            metadata=override,
            status=JobTaskStatus.FAILED,
            error_message=message,
            error_code=code,
            completed_at=state.now,
            **_by(state, task),
        )
        if state.job.status == JobStatus.RUNNING:
            fail_job(state, f"{task.label} failed")
        return failed

    arguments = {"error_message": message, "error_code": code}
    return _change(conn, job_task_id, call, "fail_task", change, **arguments)


def skip_task(
    conn: Connection,
    job_task_id: int,
    call: Call,
    *,
    reason: str | None = None,
    force: bool = False,
) -> JobTaskRecord:
    """Skip a task that is due and optional, and make due what comes next (rules S1, S2).

    ``force`` lets an admin skip any task that is due; it takes a reason.

    Raises
    ------
    NotAllowed
        The task is not optional and ``force`` is not given, or the caller is no admin.
    NotDue, Conflict
        The task is not due, or not pending.
    """
    is_forced = checked_flag("force", force)
    why = checked_text("reason", reason)
    if is_forced:
        why = checked_reason(reason, verb="a forced skip")

    def change(state: JobState, task: JobTaskRecord) -> JobTaskRecord:
        _expect_due(state, task, "skipped")
        if not task.is_optional:
            _expect_force(state, task, force)
        skipped = state.change_task(
            task,
            Action.SKIP,
            message=why,
            metadata={"force": True} if force else None,
            status=JobTaskStatus.SKIPPED,
            is_skipped=True,
            result=SKIPPED_RESULT,
            operator_id=state.actor.operator_id,
            completed_at=state.now,
        )
        advance(state)
        return skipped

    arguments = {"reason": why, "force": force}
    return _change(conn, job_task_id, call, "skip_task", change, **arguments)


def retry_task(
    conn: Connection, job_task_id: int, call: Call, *, reason: str | None = None
) -> JobTaskRecord:
    """Open the next attempt of a failed task; its job is running again (rule P4).

    The failed attempt moves to the history, and a condition is evaluated again (rule C5).

    Raises
    ------
    Conflict
        The task is not failed, or its job is neither failed nor running.
    """
    why = checked_text("reason", reason)

    def change(state: JobState, task: JobTaskRecord) -> JobTaskRecord:
        if task.status != JobTaskStatus.FAILED:
            raise state.conflict("only a failed task can be tried again", task)
        if state.job.status not in (JobStatus.FAILED, JobStatus.RUNNING):
            raise state.conflict(f"{task.label} cannot be tried again")
        again = reopened(state, task, Action.RETRY, kept_as=task.status, message=why)
        if state.job.status == JobStatus.FAILED:
            state.change_job(Action.RETRY, status=JobStatus.RUNNING, **resume_clock(state))
        if state.job.paused_at is None:
            make_due(state, [again])
        tried = state.tasks[task.id]
        if tried.status == JobTaskStatus.FAILED:
            fail_job(state, f"{task.label} failed again")
        advance(state)
        return state.tasks[task.id]

    return _change(conn, job_task_id, call, "retry_task", change, reason=why)


def reopened(
    state: JobState,
    task: JobTaskRecord,
    action: Action,
    *,
    kept_as: str,
    message: str | None,
    status: JobTaskStatus = JobTaskStatus.PENDING,
) -> JobTaskRecord:
    """Move the attempt of this task into the history and open the next one.

    An attempt that was still running ends now, with the code ``cancelled`` unless it is the caller
    that gave itself up by a send-back.
    """
    was_running = task.status == JobTaskStatus.RUNNING
    gave_up = was_running and status == JobTaskStatus.PENDING
    state.keep_attempt(
        task,
        status=kept_as,
        error_code=CANCELLED if gave_up else task.error_code,
        ended_at=state.now if was_running else task.completed_at,
    )
    return state.change_task(
        task,
        action,
        message=message,
        status=status,
        attempt=task.attempt + 1,
        is_skipped=False,
        operator_id=None,
        result=None,
        error_code=None,
        error_message=None,
        ready_at=None,
        started_at=None,
        completed_at=None,
        due_at=None,
        worker=None,
        available_at=None,
        n_retries=0,
    )


def _change(
    conn: Connection,
    job_task_id: int,
    call: Call,
    verb: str,
    change: TaskChange,
    **arguments: Any,
) -> JobTaskRecord:
    state, task = lock_job_of_task(conn, job_task_id)

    def body() -> JobTaskRecord:
        state.expect_attempt(task, call.attempt)
        return change(state, task)

    return once(
        state, verb, call, {"job_task_id": job_task_id, **arguments}, body, record=JobTaskRecord
    )


def _by(state: JobState, task: JobTaskRecord) -> dict[str, Any]:
    """Keep who started the task, unless nobody is known and the caller is."""
    if task.operator_id is None and state.actor.operator_id is not None:
        return {"operator_id": state.actor.operator_id}
    return {}


def _overriding(state: JobState, task: JobTaskRecord) -> dict[str, Any] | None:
    """Let an admin end an approval without its votes (rule A9), and say so for the log."""
    if task.task_type != TaskType.APPROVAL:
        return None
    what = f"ending {task.label} without its votes"
    try:
        directory.authorise(state.actor, what, open_mode=state.open_mode, needs_admin=True)
    except NotAllowed as refusal:
        raise state.refused(refusal, task) from None
    close_overridden(state, task)
    return {"override": True}


def _expect_running(state: JobState, task: JobTaskRecord, verb: str) -> None:
    if task.status == JobTaskStatus.RUNNING:
        return
    error = state.conflict(f"only a running task can {verb}", task)
    is_late = task.error_code == CANCELLED or task.attempt > 1 or state.job.status == "cancelled"
    raise state.refused(error, task) if is_late else error


def _expect_due(state: JobState, task: JobTaskRecord, done: str) -> None:
    """Refuse unless the task is pending and due, naming what blocks it (rule P1)."""
    if task.status not in (JobTaskStatus.PENDING, JobTaskStatus.ROLLED_BACK):
        raise state.conflict(f"only a pending task can be {done}", task)
    if not is_due(state.job, task):
        raise NotDue(
            task.label,
            found=task.status,
            blockers=blockers_of(state, task),
            legal=legal_task_verbs(state.job, task),
        )


def blockers_of(state: JobState, task: JobTaskRecord) -> list[str]:
    """Return what has to happen before this task is due."""
    job = state.job
    if job.status == JobStatus.FAILED:
        failed = [t.label for t in state.load_all() if t.status == JobTaskStatus.FAILED]
        return [f"job {job.id} is failed", *(f"{label} is failed" for label in failed)]
    if job.status != JobStatus.RUNNING:
        return [f"job {job.id} is {job.status}"]
    if job.paused_at is not None:
        return [f"job {job.id} is paused"]
    return [
        f"sequence {other.sequence} {other.task_name!r} is {other.status}"
        for other in state.load_all()
        if other.sequence < task.sequence and not other.is_finished
    ]


def _expect_force(state: JobState, task: JobTaskRecord, force: bool) -> None:
    what = f"skipping {task.label}"
    try:
        if not force:
            raise NotAllowed(f"{task.label} is not optional", needs="force=True and a reason")
        directory.authorise(state.actor, what, open_mode=state.open_mode, needs_admin=True)
    except NotAllowed as refusal:
        raise state.refused(refusal, task) from None
