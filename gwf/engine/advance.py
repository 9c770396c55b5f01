"""Decide what becomes due next, inside the transaction of the verb that made room for it.

A group (the tasks of equal sequence) ends when each member is completed or skipped, or when as many
completed as its ``join_count`` asks for; members that are then still open are cancelled: they end
as ``skipped`` with the code ``cancelled``, so that "every lower task is completed or skipped"
(rule P1) stays literally true and a lost race is no failure of the job.
Then the next group that is not finished becomes due: its conditions are evaluated once (rule C3),
in this same transaction, and a group that is skipped as a whole makes way for the one after it.

Where a condition is logged: a false or failed one on the row that skips or fails its task; a true
one changes no status, so it stands under ``conditions`` on the row of the verb that evaluated it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from gwf import conditions
from gwf.engine.context import context_values
from gwf.engine.inputs import inputs
from gwf.engine.state import JobState
from gwf.events import TASK_DUE
from gwf.model import Action, JobStatus, JobTaskRecord, JobTaskStatus, microseconds

#: Inputs of a condition are logged up to this size; beyond it the log says how large they were.
MAX_LOGGED_INPUTS = 20_000

CANCELLED = "cancelled"
CONDITION_FALSE = "condition_false"
CONDITION_ERROR = "condition_error"
SKIPPED_RESULT = {"status": "skipped"}


def advance(state: JobState) -> None:
    """Go on from the current group, if it has ended and the job is running."""
    if state.job.status != JobStatus.RUNNING:
        return
    state.load_frontier()
    group = [task for task in state.tasks.values() if task.sequence == state.job.current_task_seq]
    if has_ended(group):
        _cancel_open(state, group)
        enter_next(state)
    elif _is_stuck(group):
        names = ", ".join(task.label for task in group if task.status == JobTaskStatus.FAILED)
        fail_job(state, f"still failed: {names}")


def enter_next(state: JobState) -> None:
    """Make the next group due that is not finished, or complete the job."""
    while True:
        members = _next_group(state)
        if not members:
            _complete_job(state)
            return
        state.touch_job(current_task_seq=members[0].sequence)
        if state.job.paused_at is not None:
            return  # nothing is due in a pause, so no condition is decided (rules P1, C3)
        if not _ends_at_once(state, members):
            return


def catch_up(state: JobState) -> None:
    """Make due what a pause held up, now that it is over."""
    state.load_frontier()
    current = [task for task in state.in_order() if task.sequence == state.job.current_task_seq]
    held_up = [
        task
        for task in current
        if task.status in (JobTaskStatus.PENDING, JobTaskStatus.ROLLED_BACK)
        and task.ready_at is None
    ]
    if held_up and _ends_at_once(state, held_up):
        enter_next(state)


def _ends_at_once(state: JobState, members: Sequence[JobTaskRecord]) -> bool:
    """Make these due, and say whether their group is over already."""
    make_due(state, members)
    if any(state.tasks[task.id].status == JobTaskStatus.FAILED for task in members):
        fail_job(state, "a condition could not be met")
        return False
    group = [task for task in state.tasks.values() if task.sequence == members[0].sequence]
    if not has_ended(group):
        return False
    _cancel_open(state, group)
    return True


def make_due(state: JobState, members: Sequence[JobTaskRecord]) -> None:
    """Evaluate the conditions of these tasks and let those pass that may start."""
    for member in members:
        task = member
        if task.status == JobTaskStatus.ROLLED_BACK:
            task = state.change_task(
                task, Action.REOPEN, message="due again", status=JobTaskStatus.PENDING
            )
        if task.status != JobTaskStatus.PENDING:
            continue
        if task.condition_config:
            _decide(state, task)
        else:
            _let_start(state, task)


def _let_start(state: JobState, task: JobTaskRecord) -> None:
    """Let operators start the task, and workers where it names an executor."""
    if task.executor is None:
        state.touch_task(task, ready_at=state.now)
        return
    state.touch_task(task, ready_at=state.now, available_at=state.now)
    state.notify(TASK_DUE, task)


def has_ended(group: Sequence[JobTaskRecord]) -> bool:
    """Say whether the group no longer holds up the job (rule P2)."""
    if all(task.is_finished for task in group):
        return True
    wanted = group[0].join_count
    if wanted is None:
        return False
    return sum(task.status == JobTaskStatus.COMPLETED for task in group) >= wanted


def fail_job(state: JobState, message: str) -> None:
    """Let the job fail and end its span of time."""
    state.change_job(
        Action.FAIL,
        message=message,
        status=JobStatus.FAILED,
        completed_at=state.now,
    )


def resume_clock(state: JobState) -> dict[str, Any]:
    """Return the fields that open a new span of time of an ended job (rule R10)."""
    job = state.job
    if job.completed_at is None:
        return {}
    if job.resumed_at is None:  # GoWorkFlow let tasks of a job run that was never started
        return {"resumed_at": state.now, "completed_at": None}
    passed = microseconds(job.resumed_at, job.completed_at)
    return {
        "elapsed_us": job.elapsed_us + passed,
        "resumed_at": state.now,
        "completed_at": None,
    }


def _is_stuck(group: Sequence[JobTaskRecord]) -> bool:
    statuses = {task.status for task in group}
    return JobTaskStatus.FAILED in statuses and not statuses & {
        JobTaskStatus.PENDING,
        JobTaskStatus.RUNNING,
        JobTaskStatus.ROLLED_BACK,
    }


def _next_group(state: JobState) -> list[JobTaskRecord]:
    """Return all members of the lowest group that has not ended, reading on where needed."""
    current = state.job.current_task_seq or 0
    for _ in range(2):
        later = [task for task in state.in_order() if task.sequence > current]
        unfinished = [task.sequence for task in later if not task.is_finished]
        if unfinished:
            return [task for task in later if task.sequence == unfinished[0]]
        state.load_all()
    return []


def _cancel_open(state: JobState, group: Sequence[JobTaskRecord]) -> None:
    for task in group:
        if not task.is_finished:
            state.change_task(
                task,
                Action.CANCEL,
                message="enough of its group completed",
                status=JobTaskStatus.SKIPPED,
                is_skipped=True,
                result=SKIPPED_RESULT,
                error_code=CANCELLED,
                completed_at=task.completed_at or state.now,
            )


def _complete_job(state: JobState) -> None:
    state.change_job(
        Action.COMPLETE,
        status=JobStatus.COMPLETED,
        current_task_seq=None,
        completed_at=state.now,
        paused_at=None,
    )


def _decide(state: JobState, task: JobTaskRecord) -> None:
    """Evaluate the condition of a task, once, and act on it (rules C3 to C5)."""
    config = task.condition_config if isinstance(task.condition_config, dict) else {}
    expression = config.get("condition")
    names = inputs(state.job, task, state.load_all(), _context(state))
    if isinstance(expression, str):
        verdict = conditions.evaluate(expression, names)
    else:  # written by another program, since it was not checked
        verdict = conditions.Verdict(value=None, error="condition_config holds no condition")
    record = {
        "condition": expression,
        "inputs": _logged(expression, names),
        "value": verdict.value,
    }
    if verdict.error is not None:
        record["error"] = verdict.error
    if verdict.value:
        _let_start(state, task)
        state.note_condition({"job_task_id": task.id, **record})
    elif verdict.error is None and config.get("skip_if_false", True):
        _skip_by_condition(state, task, record)
    else:
        _fail_by_condition(state, task, record)


def _skip_by_condition(state: JobState, task: JobTaskRecord, record: dict[str, Any]) -> None:
    state.change_task(
        task,
        Action.SKIP,
        message="the condition is false",
        metadata=record,
        by_system=True,
        status=JobTaskStatus.SKIPPED,
        is_skipped=True,
        result=SKIPPED_RESULT,
        ready_at=state.now,
        completed_at=state.now,
    )


def _fail_by_condition(state: JobState, task: JobTaskRecord, record: dict[str, Any]) -> None:
    error = record.get("error")
    message = "the condition is false" if error is None else str(error)
    state.change_task(
        task,
        Action.FAIL,
        message=message,
        metadata=record,
        by_system=True,
        status=JobTaskStatus.FAILED,
        error_code=CONDITION_FALSE if error is None else CONDITION_ERROR,
        error_message=message,
        ready_at=state.now,
        completed_at=state.now,
    )


def _context(state: JobState) -> dict[str, Any]:
    """Return the context as this verb leaves it, read once however many conditions ask."""
    if state.context is None:
        state.context = context_values(state.conn, state.job.id, without=state.superseded)
    return state.context | state.new_context


def _logged(expression: object, names: Mapping[str, Any]) -> Any:
    if not isinstance(expression, str):
        return {}
    used = conditions.read_by(expression, names)
    size = len(json.dumps(used, ensure_ascii=False))
    return used if size <= MAX_LOGGED_INPUTS else {"omitted_characters": size}
