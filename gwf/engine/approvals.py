"""Vote on an approval, take a vote back, and carry out what the votes decide (rules A1 to A5)."""

from __future__ import annotations

import dataclasses
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gwf import ballots, directory
from gwf.ballots import Decision, Outcome, Person
from gwf.engine import sendback
from gwf.engine.advance import advance, fail_job
from gwf.engine.jobs import give_up
from gwf.engine.locks import lock_job_of_task
from gwf.engine.replay import once
from gwf.engine.seating import people_left
from gwf.engine.seats import Approval, close, load, open_turn
from gwf.engine.state import JobState
from gwf.errors import Conflict, GwfError, Invalid, NotAllowed
from gwf.limits import MAX_TEXT, checked_text
from gwf.model import Action, Call, JobStatus, JobTaskRecord, JobTaskStatus, TaskType, VoteRecord
from gwf.statements import Statement, Write
from gwf.tables import votes

REJECTED, TIMED_OUT = "rejected", "timed_out"

_INSERT_VOTE = Statement(
    votes.insert().values(
        {column.key: sa.bindparam(column.key) for column in votes.c if column.key != "id"}
    )
)
_WITHDRAW = Statement(
    votes.update()
    .where(votes.c.id == sa.bindparam("b_id"))
    .values(withdrawn_at=sa.bindparam("withdrawn_at"))
)
_SET_SEAT = Statement(
    votes.update()
    .where(votes.c.id == sa.bindparam("b_id"))
    .values({key: sa.bindparam(key) for key in ("seat", "seat_label", "on_behalf_of")})
)


def vote(
    conn: Connection,
    job_task_id: int,
    call: Call,
    *,
    decision: Decision,
    comment: str | None = None,
) -> VoteRecord:
    """Vote on the running attempt of an approval, and carry out what that decides.

    The same vote of the same person again changes nothing and returns the first one (rule A4).

    Raises
    ------
    Conflict
        The task is no approval, not running, or its job is paused; the person voted otherwise
        before; or it is the turn of somebody else.
    StaleAttempt
        The vote was meant for an attempt that is over.
    NotAllowed
        The person has no seat, is not active, or may not decide about a job of their own.
    Invalid
        Nobody is named as the voter, or a comment is required.
    """
    text = checked_text("comment", comment)
    state, task = lock_job_of_task(conn, job_task_id)

    def body() -> VoteRecord:
        approval = _expect_open(state, task, call)
        earlier = approval.vote_of(state.actor.operator_id)
        if earlier is not None and earlier.decision == decision:
            return earlier
        try:
            seat = _seat_for(state, task, approval, decision, text)
        except GwfError as refusal:
            raise state.refused(refusal, task) from None
        cast = _cast(state, task, approval, seat, decision=decision, comment=text)
        after = _reseated(state, dataclasses.replace(approval, votes=(*approval.votes, cast)))
        needs_people = decision == "reject" or after.policy.order == "sequential"
        people = people_left(state, after) if needs_people else None
        go_on(state, task, after, after.outcome(people))
        return after.votes[-1]

    arguments = {"job_task_id": job_task_id, "decision": decision, "comment": text}
    return once(state, "vote", call, arguments, body, record=VoteRecord)


def withdraw_vote(
    conn: Connection, job_task_id: int, call: Call, *, reason: str | None = None
) -> VoteRecord:
    """Take one's vote back while the approval is open; the vote stays on record.

    Raises
    ------
    Conflict
        The approval is not open, or the person has no vote that stands.
    StaleAttempt, NotAllowed, Invalid
    """
    why = checked_text("reason", reason)
    state, task = lock_job_of_task(conn, job_task_id)

    def body() -> VoteRecord:
        approval = _expect_open(state, task, call)
        own = approval.vote_of(state.actor.operator_id)
        if own is None:
            raise state.refused(
                state.conflict("you have no vote on it that could be withdrawn", task), task
            )
        state.also(Write(_WITHDRAW, {"b_id": own.id, "withdrawn_at": state.now}, rows=1))
        state.log(
            Action.WITHDRAW,
            task,
            before=task.status,
            after=task.status,
            message=why,
            metadata={"decision": own.decision},
        )
        left = tuple(one for one in approval.votes if one.id != own.id)
        open_turn(state, dataclasses.replace(approval, votes=left))
        return dataclasses.replace(own, withdrawn_at=state.now)

    arguments = {"job_task_id": job_task_id, "reason": why}
    return once(state, "withdraw_vote", call, arguments, body, record=VoteRecord)


def approve(
    state: JobState, task: JobTaskRecord, approval: Approval, *, by: str | None = None
) -> JobTaskRecord:
    """Complete the task as approved, and make due what comes next."""
    done = state.change_task(
        task,
        Action.COMPLETE,
        message="approved" if by is None else f"approved by {by}",
        by_system=by is not None,
        status=JobTaskStatus.COMPLETED,
        result=_result(state, approval, "approved", by),
        completed_at=state.now,
    )
    close(state, approval, "approved")
    state.notify("decided", task, "approved")
    advance(state)
    return done


def reject(
    state: JobState, task: JobTaskRecord, approval: Approval, why: str, *, by: str | None = None
) -> None:
    """End the attempt as rejected, and do what the policy says about that."""
    failed = state.change_task(
        task,
        Action.FAIL,
        message=why,
        by_system=by is not None,
        status=JobTaskStatus.FAILED,
        result=_result(state, approval, REJECTED, by),
        error_code=REJECTED,
        error_message=why,
        completed_at=state.now,
    )
    close(state, approval, REJECTED)
    state.notify("decided", task, why)
    on_reject = approval.policy.on_reject
    if on_reject == "cancel":
        give_up(state, f"{task.label} was rejected")
        return
    if state.job.status == JobStatus.RUNNING:
        fail_job(state, f"{task.label} was rejected")
    if on_reject.startswith("send_back:"):
        _send_back(state, failed, on_reject.removeprefix("send_back:"), why)


def _send_back(state: JobState, task: JobTaskRecord, where: str, why: str) -> None:
    """Send the job back by the rules of every send-back; where they refuse, it stays failed."""
    state.save()
    tasks = state.load_all()
    lower = [other.sequence for other in tasks if other.sequence < task.sequence]
    target = max(lower, default=0) if where == "previous" else int(where)
    possible = sendback.plan(state.job, tasks, task)
    if target in possible.allowed:
        request = sendback.SendBack(target, f"rejected: {why}"[:MAX_TEXT])
        sendback.send_back(state, tasks, task, request)
        return
    reason = possible.reason or possible.refusals.get(target) or f"there is no sequence {target}"
    state.log(
        Action.REFUSE,
        task,
        before=task.status,
        after=task.status,
        message=f"not sent back to sequence {target}: {reason}",
        by_system=True,
    )


def _expect_open(state: JobState, task: JobTaskRecord, call: Call) -> Approval:
    """Return the approval, or refuse: no approval, an old attempt, not running, paused."""
    if task.task_type != TaskType.APPROVAL:
        refusal: GwfError = Conflict(
            f"{task.label} is a {task.task_type} task, nobody votes on it",
            found=task.task_type,
            legal=("complete_task",),
        )
        raise state.refused(refusal, task)
    state.expect_attempt(task, call.attempt)
    if task.status != JobTaskStatus.RUNNING:
        code = f" ({task.error_code})" if task.error_code else ""
        refusal = state.conflict(f"only a running approval takes votes{code}", task)
        raise state.refused(refusal, task)
    if state.job.paused_at is not None:
        refusal = Conflict(
            f"job {state.job.id} is paused; nobody votes until it is resumed",
            found="paused",
            legal=("resume_job",),
        )
        raise state.refused(refusal, task)
    try:
        return load(state.conn, task)
    except Conflict as error:
        raise state.refused(error, task) from None


def _seat_for(
    state: JobState,
    task: JobTaskRecord,
    approval: Approval,
    decision: Decision,
    comment: str | None,
) -> ballots.Seat:
    """Return the seat that the caller votes from.

    Raises
    ------
    Conflict, NotAllowed, Invalid
        As ``vote`` says; the caller logs them.
    """
    earlier = approval.vote_of(state.actor.operator_id)
    if earlier is not None:
        raise Conflict(
            f"you voted {earlier.decision} on {task.label} already; withdraw that vote first",
            found=f"voted {earlier.decision}",
            legal=("withdraw_vote",),
        )
    seat = may_vote(state, task, approval)
    if approval.policy.comment_required and not (comment or "").strip():
        raise Invalid("comment", comment, expected="this policy requires one with each vote")
    return seat


def may_vote(state: JobState, task: JobTaskRecord, approval: Approval) -> ballots.Seat:
    """Return the seat from which the actor may vote now.

    Raises
    ------
    Invalid
        Nobody is named as the voter.
    NotAllowed
        The actor has no seat, or created the job where the policy bars its initiator.
    Conflict
        The order counts, and it is the turn of somebody else.
    """
    if state.actor.operator_id is None:
        raise Invalid(
            "operator", None, expected="who votes: gwf.connect(url, user=…) or operator=…"
        )
    voter = person_of(state)
    barred = approval.policy.self_approval == "bar_initiator"
    if barred and voter.id == state.job.created_by:
        raise NotAllowed(
            f"{task.label} is about a job of your own", needs="somebody else (self_approval)"
        )
    seats = approval.seats
    own = [seat for seat in seats if seat.accepts(voter)]
    if not own:
        if any(voter.id in seat.away for seat in seats):
            raise NotAllowed(
                f"you gave your seat in {task.label} to somebody else",
                needs="delegate(task, you, None) where it was lent",
            )
        labels = " or ".join(dict.fromkeys(seat.label for seat in seats))
        raise NotAllowed(f"you have no seat in {task.label}", needs=labels)
    asked = ballots.turn(approval.terms, seats, approval.ballots)
    mine = [seat for seat in own if seat in asked]
    if not mine:
        turn = ", ".join(seat.label for seat in asked)
        raise Conflict(
            f"it is not your turn in {task.label}: {turn} comes first", found="not your turn"
        )
    return ballots.seat_of(voter, mine, approval.terms, seats, approval.ballots)


def person_of(state: JobState) -> Person:
    """Return the actor as a voter, with the roles held now."""
    actor = state.actor
    return Person(actor.operator_id or 0, frozenset(actor.roles), actor.is_verified)


def _cast(
    state: JobState,
    task: JobTaskRecord,
    approval: Approval,
    seat: ballots.Seat,
    *,
    decision: Decision,
    comment: str | None,
) -> VoteRecord:
    """Write the vote and its row in the log."""
    actor = state.actor
    assert actor.operator_id is not None  # noqa: S101 - _expect_open made sure
    values: dict[str, Any] = {
        "job_id": state.job.id,
        "job_task_id": task.id,
        "attempt": task.attempt,
        "user_id": actor.operator_id,
        "on_behalf_of": approval.principal_of(seat.number, actor.operator_id),
        "decision": decision,
        "seat": seat.number,
        "seat_label": seat.label,
        "comment": comment,
        "roles": list(actor.roles),
        "is_verified": actor.is_verified,
        "created_at": state.now,
        "withdrawn_at": None,
    }
    vote_id = _INSERT_VOTE.insert(state.conn, **values)
    state.log(
        Action.VOTE,
        task,
        before=task.status,
        after=task.status,
        message=comment,
        metadata={
            "decision": decision,
            "seat": seat.label,
            **({} if actor.is_verified else {"unverified": True}),
        },
        on_behalf_of=values["on_behalf_of"],
    )
    state.notify("vote_cast", task, decision)
    return VoteRecord(id=vote_id, **values)


def _reseated(state: JobState, approval: Approval) -> Approval:
    """Return the approval with each approval in the seat that it fills now.

    An earlier vote may have had to move, to make room for the last one.
    """
    if approval.policy.order != "parallel":
        return approval
    labels = {seat.number: seat.label for seat in approval.seats}
    filled = {who: number for number, who in approval.outcome().filled.items()}
    votes = []
    for one in approval.votes:
        number = filled.get(one.user_id, one.seat)
        if one.decision == "approve" and number is not None and number != one.seat:
            values: dict[str, Any] = {
                "seat": number,
                "seat_label": labels[number],
                "on_behalf_of": approval.principal_of(number, one.user_id),
            }
            state.also(Write(_SET_SEAT, {"b_id": one.id, **values}, rows=1))
            votes.append(dataclasses.replace(one, **values))
        else:
            votes.append(one)
    return dataclasses.replace(approval, votes=tuple(votes))


def go_on(state: JobState, task: JobTaskRecord, approval: Approval, result: Outcome) -> None:
    """Decide the approval if its outcome is certain now (rule A3), or ask whose turn it is."""
    if result.status == "approved":
        approve(state, task, approval)
    elif result.status == "rejected":
        said = approval.votes[-1].comment
        reject(state, task, approval, f"{result.reason}: {said}" if said else result.reason)
    else:
        open_turn(state, approval)


def _result(state: JobState, approval: Approval, status: str, by: str | None) -> dict[str, Any]:
    """Return the result of a decided approval (rule A5)."""
    names = {} if state.open_mode else directory.names_of(state.conn)
    cast = [
        {
            "user": names.get(one.user_id, one.user_id),
            "decision": one.decision,
            "seat": one.seat_label,
            "comment": one.comment,
            "at": one.created_at.isoformat(),
            **(
                {}
                if one.on_behalf_of is None
                else {"on_behalf_of": names.get(one.on_behalf_of, one.on_behalf_of)}
            ),
        }
        for one in approval.votes
    ]
    result: dict[str, Any] = {"status": status, "approved": status == "approved", "votes": cast}
    return result if by is None else {**result, "by": by}
