"""Say what a person may do with a task now, by the same rules that the verbs follow (rule T4)."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy.engine import Connection

from gwf import directory
from gwf.engine import lookup, sendback
from gwf.engine.approvals import may_vote, person_of
from gwf.engine.locks import get_job
from gwf.engine.seating import plan
from gwf.engine.seats import Approval, load
from gwf.engine.signers import authorise, lent_by
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
        back = sendback.plan(state.job, sendback.tasks_of(state.conn, state.job.id), task)
        return None if back.allowed else back.reason or "no earlier sequence may be reopened"
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
    if verb == "start_task" and task.task_type == TaskType.APPROVAL:
        return _said(lambda: plan(state, task))
    return None


def _seat_refusal(
    state: JobState, task: JobTaskRecord, approval: Approval | str, verb: str
) -> str | None:
    if isinstance(approval, str):
        return approval
    if verb in ("add_signer", "remove_signer"):
        return _said(lambda: authorise(state, task, approval, f"changing who signs {task.label}"))
    if verb in ("transfer", "delegate"):
        return _hand_over_refusal(state, approval, verb)
    return _vote_refusal(state, task, approval, verb)


def _vote_refusal(
    state: JobState, task: JobTaskRecord, approval: Approval, verb: str
) -> str | None:
    if state.job.paused_at is not None:
        return "the job is paused"
    own = approval.vote_of(state.actor.operator_id)
    if verb == "withdraw_vote":
        return None if own is not None else "you have no vote on it"
    if own is not None:
        return f"you voted {own.decision} already"
    return _said(lambda: may_vote(state, task, approval))


def _hand_over_refusal(state: JobState, approval: Approval, verb: str) -> str | None:
    """Return why nothing may be handed over: one's own seat, or as an admin that of anybody."""
    actor = state.actor
    if state.open_mode or actor.is_admin or actor.operator_id is None:
        return None
    me = actor.operator_id
    own = approval.vote_of(me)
    if own is not None:
        return f"you voted {own.decision} already"
    if verb == "delegate" and _said(lambda: lent_by(approval, me, "you")) is None:
        return None  # to take it back
    has_seat = any(seat.accepts(person_of(state)) for seat in approval.seats)
    return None if has_seat else "you have no seat"


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
