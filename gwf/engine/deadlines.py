"""Apply the deadlines that have passed (rule W6).

Nobody has to run for a deadline to hold: whoever reads or writes a job finds the first one in its
row and applies what is late before anything else; ``tick`` does the same for all jobs.

What an escalation does: whoever is named in ``escalate_to`` may then fill each required seat that
is still empty, besides those who may already, and the time begins anew. Where no seat is required,
they get a seat of their own beside the others. So it adds people and takes nobody's seat away.
"""

from __future__ import annotations

import dataclasses
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gwf.engine import approvals
from gwf.engine.advance import fail_job
from gwf.engine.locks import lock_job
from gwf.engine.retrying import fail_attempt
from gwf.engine.seating import candidate_of
from gwf.engine.seats import ESCALATION, Approval, add_row, close, load, save_terms
from gwf.engine.state import JobState, first_deadline
from gwf.errors import Conflict
from gwf.model import ENDED, Action, JobStatus, JobTaskRecord, JobTaskStatus, TaskType
from gwf.statements import Statement
from gwf.tables import jobs

#: Who decides when nobody did in time.
TIMEOUT = "timeout"

_LATE = Statement(
    sa.select(jobs.c.id)
    .where(jobs.c.next_due_at < sa.bindparam("now"), jobs.c.paused_at.is_(None))
    .order_by(jobs.c.next_due_at)
    .limit(100)
)


def late_jobs(conn: Connection, now: datetime) -> list[int]:
    """Return the ids of up to 100 jobs with a deadline that has passed, the oldest first."""
    return [row[0] for row in _LATE.fetch(conn, now=now)]


def apply_deadlines(conn: Connection, job_id: int) -> int:
    """Apply every deadline of this job that has passed, and return how many did.

    Raises
    ------
    JobNotFound
    """
    state = lock_job(conn, job_id, is_late=True)
    n_applied = 0
    if state.job.paused_at is None and not _is_over(state):
        late = [task for task in state.load_all() if _is_late(task, state.now)]
        for task in late:
            if not _is_over(state) and _is_late(state.tasks[task.id], state.now):
                _time_out(state, state.tasks[task.id])
                n_applied += 1
    if state.job.paused_at is None:
        tasks = () if _is_over(state) else state.tasks.values()
        state.touch_job(next_due_at=first_deadline(tasks))
    state.save()
    return n_applied


def _is_over(state: JobState) -> bool:
    return state.job.status in ENDED - {JobStatus.FAILED}


def _is_late(task: JobTaskRecord, now: datetime) -> bool:
    is_running = task.status == JobTaskStatus.RUNNING
    return is_running and task.due_at is not None and now > task.due_at


def _time_out(state: JobState, task: JobTaskRecord) -> None:
    assert task.due_at is not None  # noqa: S101 - it is late
    state.log(
        Action.TIMEOUT,
        task,
        before=task.status,
        after=task.status,
        message=f"was due at {task.due_at.isoformat()}",
        by_system=True,
    )
    state.notify("overdue", task)
    approval = _approval(state, task)
    if task.worker is not None:
        message = "it was not done in time"
        fail_attempt(state, task, code=approvals.TIMED_OUT, message=message)
        return
    if approval is None:
        _fail(state, task)
        return
    on_timeout = approval.policy.on_timeout
    if on_timeout == "approve":
        approvals.approve(state, task, approval, by=TIMEOUT)
    elif on_timeout == "reject":
        approvals.reject(state, task, approval, "nobody decided in time", by=TIMEOUT)
    elif on_timeout == "escalate" and _escalated(state, task, approval):
        state.notify("escalated", task)
    else:
        _fail(state, task)
        close(state, approval, approvals.TIMED_OUT)
        state.notify("decided", task, approvals.TIMED_OUT)


def _approval(state: JobState, task: JobTaskRecord) -> Approval | None:
    if task.task_type != TaskType.APPROVAL:
        return None
    try:
        return load(state.conn, task)
    except Conflict:
        return None  # nobody was asked, so nobody's vote is cut off: it fails


def _fail(state: JobState, task: JobTaskRecord) -> None:
    message = "it was not done in time"
    state.change_task(
        task,
        Action.FAIL,
        message=message,
        by_system=True,
        status=JobTaskStatus.FAILED,
        error_code=approvals.TIMED_OUT,
        error_message=message,
        completed_at=state.now,
    )
    if state.job.status == JobStatus.RUNNING:
        fail_job(state, f"{task.label} was not done in time")


def _escalated(state: JobState, task: JobTaskRecord, approval: Approval) -> bool:
    """Ask more people and begin the time anew, unless that was done as often as it may be."""
    rules, record = approval.policy, approval.record
    found = [candidate_of(state, name) for name in rules.escalate_to]
    asked = [one for one in found if one is not None]
    if record.n_escalations >= rules.max_escalations or not asked or rules.timeout is None:
        return False
    filled = approval.outcome().filled
    empty = [seat for seat in approval.seats if seat.is_required and seat.number not in filled]
    next_seat = max((seat.number for seat in approval.seats), default=0) + 1
    open_seats = {row.seat for row in approval.rows if row.is_open}
    for label, candidate in asked:
        for seat in empty:
            add_row(
                state,
                task,
                seat=seat.number,
                label=seat.label,
                candidate=candidate,
                is_required=True,
                is_open=seat.number in open_seats,
                origin=ESCALATION,
            )
        if not empty:
            add_row(
                state,
                task,
                seat=next_seat,
                label=label,
                candidate=candidate,
                is_required=False,
                is_open=True,
                origin=ESCALATION,
            )
            next_seat += 1
    due_at = state.now + timedelta(seconds=rules.timeout)
    state.touch_task(task, due_at=due_at)
    save_terms(state, dataclasses.replace(record, n_escalations=record.n_escalations + 1))
    state.log(
        Action.ADD_SIGNER,
        task,
        before=task.status,
        after=task.status,
        message=f"escalated to {', '.join(label for label, _ in asked)}; due {due_at.isoformat()}",
        by_system=True,
        metadata={"escalation": record.n_escalations + 1},
    )
    return True
