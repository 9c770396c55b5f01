"""Carry out the verbs on a whole job: start, cancel, pause, resume."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from sqlalchemy.engine import Connection

from gwf.engine.advance import CANCELLED, catch_up, enter_next
from gwf.engine.locks import lock_job
from gwf.engine.replay import once
from gwf.engine.state import JobState, first_deadline
from gwf.limits import checked_text
from gwf.model import Action, Call, JobRecord, JobStatus, JobTaskStatus


def start_job(conn: Connection, job_id: int, call: Call) -> JobRecord:
    """Start a pending job and make its first group due.

    Raises
    ------
    JobNotFound
        There is no such job.
    Conflict
        The job is not pending.
    """

    def change(state: JobState) -> None:
        if state.job.status != JobStatus.PENDING:
            raise state.conflict("only a pending job can be started")
        state.load_all()
        state.change_job(
            Action.START,
            status=JobStatus.RUNNING,
            started_at=state.now,
            resumed_at=state.now,
            current_task_seq=0,
        )
        enter_next(state)

    return _change(conn, job_id, call, "start_job", change)


def cancel_job(
    conn: Connection, job_id: int, call: Call, *, reason: str | None = None
) -> JobRecord:
    """Give a job up: running tasks end as failed with the code ``cancelled`` (rule W7).

    Cancelling a cancelled job changes nothing.

    Raises
    ------
    JobNotFound
        There is no such job.
    Conflict
        The job is completed.
    """
    why = checked_text("reason", reason)

    def change(state: JobState) -> None:
        if state.job.status == JobStatus.CANCELLED:
            return
        if state.job.status == JobStatus.COMPLETED:
            raise state.conflict("a completed job cannot be cancelled")
        give_up(state, why)

    return _change(conn, job_id, call, "cancel_job", change, reason=why)


def give_up(state: JobState, why: str | None) -> None:
    """Cancel the job and end what runs in it."""
    for task in state.load_all():
        if task.status == JobTaskStatus.RUNNING:
            state.change_task(
                task,
                Action.CANCEL,
                message=why,
                status=JobTaskStatus.FAILED,
                error_code=CANCELLED,
                error_message=why or "the job was cancelled",
                completed_at=state.now,
            )
        elif task.available_at is not None:
            state.touch_task(task, available_at=None)
    state.change_job(
        Action.CANCEL,
        message=why,
        status=JobStatus.CANCELLED,
        completed_at=state.job.completed_at or state.now,
        paused_at=None,
    )


def pause_job(conn: Connection, job_id: int, call: Call, *, reason: str | None = None) -> JobRecord:
    """Let nothing new start in a running job; running work goes on (rule W7).

    Raises
    ------
    JobNotFound
        There is no such job.
    Conflict
        The job is not running, or paused already.
    """
    why = checked_text("reason", reason)

    def change(state: JobState) -> None:
        if state.job.status != JobStatus.RUNNING:
            raise state.conflict("only a running job can be paused")
        if state.job.paused_at is not None:
            raise state.conflict("the job is paused already")
        state.change_job(Action.PAUSE, message=why, paused_at=state.now)

    return _change(conn, job_id, call, "pause_job", change, reason=why)


def resume_job(conn: Connection, job_id: int, call: Call) -> JobRecord:
    """Allow starts in a paused job again; what the pause held up becomes due now, deadlines move.

    Raises
    ------
    JobNotFound
        There is no such job.
    Conflict
        The job is not running and paused.
    """

    def change(state: JobState) -> None:
        if state.job.status != JobStatus.RUNNING or state.job.paused_at is None:
            raise state.conflict("only a paused job can be resumed")
        paused_at = state.job.paused_at
        state.change_job(Action.RESUME, paused_at=None)
        catch_up(state)
        _move_deadlines(state, state.now - paused_at)

    return _change(conn, job_id, call, "resume_job", change)


def _move_deadlines(state: JobState, pause: timedelta) -> None:
    """Give each running task the time back in which nobody could act."""
    for task in state.in_order():
        if task.status == JobTaskStatus.RUNNING and task.due_at is not None:
            state.touch_task(task, due_at=task.due_at + pause)
    state.touch_job(next_due_at=first_deadline(state.tasks.values()))


def _change(
    conn: Connection,
    job_id: int,
    call: Call,
    verb: str,
    change: Callable[[JobState], None],
    **arguments: Any,
) -> JobRecord:
    state = lock_job(conn, job_id)

    def body() -> JobRecord:
        change(state)
        return state.job

    return once(state, verb, call, {"job_id": job_id, **arguments}, body, record=JobRecord)
