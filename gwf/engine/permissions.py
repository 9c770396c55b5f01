"""Say what a person may do with a task now, by the same rules that the verbs follow (rule T4)."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy.engine import Connection

from gwf import directory
from gwf.engine import lookup, sendback
from gwf.engine.approvals import may_vote, person_of
from gwf.engine.locks import get_job
from gwf.engine.seats import Approval, load
from gwf.engine.state import JobState
from gwf.errors import GwfError, Invalid
from gwf.model import Call, JobTaskRecord, JobTaskStatus, TaskType, legal_task_verbs

_WORK = ("start_task", "complete_task", "fail_task", "skip_task", "retry_task", "rollback_task")
_VOTES = ("approve", "reject", "withdraw_vote")
VERBS = (*_WORK, *_VOTES, "transfer", "delegate", "add_signer", "remove_signer")


def refusals(conn: Connection, job_task_id: int, call: Call) -> dict[str, str | None]:
    """Return for each verb why the caller may not use it on this task now, or None where they may.

    Raises
    ------
    JobTaskNotFound, UserNotFound, Invalid
    """
    task = lookup.job_task(conn, job_task_id)
    job, now = get_job(conn, task.job_id)
    state = JobState(conn, job, now=now, open_mode=not directory.holds_anybody(conn))
    state.actor = directory.identify(conn, call.operator, open_mode=state.open_mode)
    if not state.actor.is_active:
        return dict.fromkeys(VERBS, f"user {state.actor.operator_id} is not active")
    answers = {verb: _work_refusal(state, task, verb) for verb in _WORK}
    approval = _open_approval(state, task)
    for verb in VERBS[len(_WORK) :]:
        answers[verb] = _seat_refusal(state, task, approval, verb)
    return answers


def expect_verb(verb: str) -> str:
    """Return the full name of a verb: ``start`` is ``start_task``.

    Raises
    ------
    Invalid
        There is no such verb.
    """
    for name in (verb, f"{verb}_task"):
        if name in VERBS:
            return name
    raise Invalid("verb", verb, expected=f"one of {', '.join(VERBS)}")


def _work_refusal(state: JobState, task: JobTaskRecord, verb: str) -> str | None:
    if verb == "rollback_task":
        plan = sendback.plan(state.job, sendback.tasks_of(state.conn, state.job.id), task)
        return None if plan.allowed else plan.reason or "no earlier sequence may be reopened"
    if verb not in legal_task_verbs(state.job, task):
        if verb == "skip_task" and not task.is_optional:
            return "the task is not optional"
        return f"the task is {task.status}, its job is {state.job.status}"
    if verb in ("complete_task", "fail_task") and task.task_type == TaskType.APPROVAL:
        what = "ending an approval without its votes"
        return _said(
            lambda: directory.authorise(
                state.actor, what, open_mode=state.open_mode, needs_admin=True
            )
        )
    return None


def _seat_refusal(
    state: JobState, task: JobTaskRecord, approval: Approval | str, verb: str
) -> str | None:
    if isinstance(approval, str):
        return approval
    own = approval.vote_of(state.actor.operator_id)
    if verb in ("add_signer", "remove_signer"):
        return _may_manage(state, task, approval)
    if state.job.paused_at is not None and verb in _VOTES:
        return "the job is paused"
    if verb == "withdraw_vote":
        return None if own is not None else "you have no vote on it"
    if own is not None:
        return f"you voted {own.decision} already"
    has_vote = verb in _VOTES
    return _may_vote(state, task, approval) if has_vote else _may_hand_over(state, approval)


def _may_vote(state: JobState, task: JobTaskRecord, approval: Approval) -> str | None:
    return _said(lambda: may_vote(state, task, approval))


def _may_hand_over(state: JobState, approval: Approval) -> str | None:
    has_seat = any(seat.accepts(person_of(state)) for seat in approval.seats)
    is_owner = state.actor.is_admin or state.actor.operator_id is None
    return None if has_seat or is_owner else "you have no seat"


def _may_manage(state: JobState, task: JobTaskRecord, approval: Approval) -> str | None:
    is_part = task.operator_id == state.actor.operator_id or any(
        seat.accepts(person_of(state)) for seat in approval.seats
    )
    if state.open_mode or state.actor.is_admin or is_part or state.actor.operator_id is None:
        return None
    return "you have no part in this approval"


def _open_approval(state: JobState, task: JobTaskRecord) -> Approval | str:
    if task.task_type != TaskType.APPROVAL:
        return f"it is a {task.task_type} task"
    if task.status != JobTaskStatus.RUNNING:
        return f"the approval is {task.status}"
    try:
        return load(state.conn, task)
    except GwfError as error:
        return str(error)


def _said(attempt: Callable[[], object]) -> str | None:
    try:
        attempt()
    except GwfError as refusal:
        return str(refusal)
    return None
