"""Change who sits in an approval: transfer 转办, delegate 委派, add 加签 and remove 减签 (rule A6).

A transfer gives a person's place away; a delegation lends it, so that the vote is cast on behalf of
the one who lent it, who may take it back. Both concern each seat that the person may fill.
An added signer is a seat of its own that has to be filled, and one more approval that is needed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from sqlalchemy.engine import Connection

from gwf import ballots, directory
from gwf.ballots import Person, Seat
from gwf.engine import approvals
from gwf.engine.locks import lock_job_of_task
from gwf.engine.replay import once
from gwf.engine.seating import eligible_people, expect_possible
from gwf.engine.seats import (
    DELEGATE,
    POLICY,
    SIGNER,
    TRANSFER,
    Approval,
    SeatRow,
    add_row,
    load,
    remove_rows,
    save_terms,
)
from gwf.engine.state import JobState
from gwf.errors import Conflict, GwfError, NotAllowed, UnsatisfiablePolicy
from gwf.limits import checked_text
from gwf.model import Action, Call, JobTaskRecord, JobTaskStatus, TaskType

Who = int | str


def transfer(
    conn: Connection,
    job_task_id: int,
    call: Call,
    *,
    giver: Who,
    taker: Who,
    reason: str | None = None,
) -> JobTaskRecord:
    """Give a person's place in a running approval to somebody else.

    Raises
    ------
    UserNotFound, StaleAttempt
    Conflict
        The approval is not open, the giver has no seat or voted already, or the taker did.
    NotAllowed
        The caller is neither the giver nor an admin, or the taker is not active.
    UnsatisfiablePolicy
        The policy could no longer be met.
    """

    def change(state: JobState, task: JobTaskRecord, approval: Approval) -> None:
        _hand_over(state, task, approval, people=(giver, taker), origin=TRANSFER, reason=reason)

    why = checked_text("reason", reason)
    return _change(
        conn, job_task_id, call, "transfer", change, giver=giver, taker=taker, reason=why
    )


def delegate(
    conn: Connection,
    job_task_id: int,
    call: Call,
    *,
    giver: Who,
    taker: Who | None,
    reason: str | None = None,
) -> JobTaskRecord:
    """Lend a person's place to somebody else, or take it back with None.

    Raises
    ------
    UserNotFound, StaleAttempt, Conflict, NotAllowed, UnsatisfiablePolicy
        As ``transfer``; to take back what is not lent is a Conflict.
    """

    def change(state: JobState, task: JobTaskRecord, approval: Approval) -> None:
        if taker is None:
            _take_back(state, task, approval, giver, reason)
        else:
            _hand_over(state, task, approval, people=(giver, taker), origin=DELEGATE, reason=reason)

    why = checked_text("reason", reason)
    return _change(
        conn, job_task_id, call, "delegate", change, giver=giver, taker=taker, reason=why
    )


def add_signer(
    conn: Connection, job_task_id: int, call: Call, *, signer: Who, reason: str | None = None
) -> JobTaskRecord:
    """Add a seat that this user has to fill; everybody who was needed still is.

    Raises
    ------
    UserNotFound, StaleAttempt
    Conflict
        The approval is not open, or the user has a seat of their own or voted already.
    NotAllowed
        The caller has no part in the approval and is no admin, or the user is not active.
    """

    def change(state: JobState, task: JobTaskRecord, approval: Approval) -> None:
        person, name = _person(state, signer)
        authorise(state, task, approval, f"adding a signer to {task.label}")
        if any(row.user_id == person.id and row.principal_id is None for row in approval.rows):
            raise Conflict(f"{name} has a seat in {task.label} already", found="seated")
        _expect_no_vote(task, approval, person, name)
        number = max((row.seat for row in approval.rows), default=0) + 1
        row = SeatRow(0, number, name, f"user:{person.id}", True, SIGNER, None, False)
        record = dataclasses.replace(
            approval.record,
            needed=approval.record.needed + 1,
            electorate=approval.record.electorate + 1,
        )
        after = dataclasses.replace(approval, record=record, rows=(*approval.rows, row))
        expect_possible(state, task, after, what=f"adding {name}")
        asked = ballots.turn(after.terms, after.seats, after.ballots)
        add_row(
            state,
            task,
            seat=number,
            label=name,
            candidate=row.candidate,
            is_required=True,
            is_open=any(seat.number == number for seat in asked),
            origin=SIGNER,
        )
        save_terms(state, record)
        _log(state, task, Action.ADD_SIGNER, reason, {"user": name})

    why = checked_text("reason", reason)
    return _change(conn, job_task_id, call, "add_signer", change, signer=signer, reason=why)


def remove_signer(
    conn: Connection, job_task_id: int, call: Call, *, signer: Who, reason: str | None = None
) -> JobTaskRecord:
    """Take the seat of this user away; what is certain without it is decided at once.

    A seat that the policy itself requires stays: without it the policy would be another one.

    Raises
    ------
    UserNotFound, StaleAttempt, NotAllowed
    Conflict
        The approval is not open, the user has no seat by name, or a vote was cast from it.
    UnsatisfiablePolicy
        The policy could no longer be met.
    """

    def change(state: JobState, task: JobTaskRecord, approval: Approval) -> None:
        person, name = _person(state, signer, is_active=False)
        authorise(state, task, approval, f"removing a signer from {task.label}")
        _expect_no_vote(task, approval, person, name)
        own = [
            row for row in approval.rows if row.user_id == person.id and row.principal_id is None
        ]
        if not own:
            raise Conflict(f"{name} has no seat by name in {task.label}", found="no seat")
        if any(row.is_required and row.origin == POLICY for row in own):
            raise UnsatisfiablePolicy(
                f"{task.label} after removing {name}",
                missing=[name],
                advice="the policy requires this seat; transfer or delegate gives it to another",
            )
        gone = _handed_on(approval, own)
        _expect_unused(approval, gone, name)
        n_added = sum(row.origin == SIGNER for row in own)
        record = dataclasses.replace(
            approval.record,
            needed=approval.record.needed - n_added,
            electorate=approval.record.electorate - n_added,
        )
        left = tuple(row for row in approval.rows if row not in gone)
        after = dataclasses.replace(approval, record=record, rows=left)
        expect_possible(state, task, after, what=f"removing {name}")
        remove_rows(state, gone)
        save_terms(state, record)
        _log(state, task, Action.REMOVE_SIGNER, reason, {"user": name})
        approvals.go_on(state, task, after, after.outcome())

    why = checked_text("reason", reason)
    return _change(conn, job_task_id, call, "remove_signer", change, signer=signer, reason=why)


def _hand_over(
    state: JobState,
    task: JobTaskRecord,
    approval: Approval,
    *,
    people: tuple[Who, Who],
    origin: str,
    reason: str | None,
) -> None:
    giver, giver_name = _person(state, people[0], is_active=False)
    taker, taker_name = _person(state, people[1])
    what = f"handing over the seat of {giver_name} in {task.label}"
    authorise(state, task, approval, what, himself=giver)
    if giver.id == taker.id:
        raise Conflict(f"{giver_name} has that seat already", found="seated")
    given = [seat for seat in approval.seats if seat.accepts(giver)]
    if not given:
        raise Conflict(f"{giver_name} has no seat in {task.label}", found="no seat")
    _expect_no_vote(task, approval, giver, giver_name)
    _expect_no_vote(task, approval, taker, taker_name)
    is_barred = approval.policy.self_approval == "bar_initiator"
    if is_barred and taker.id == state.job.created_by:
        raise NotAllowed(f"{taker_name} created this job", needs="somebody else (self_approval)")
    rows = tuple(_moved(approval, seat, giver, taker, origin) for seat in given)
    after = dataclasses.replace(approval, rows=(*approval.rows, *rows))
    expect_possible(state, task, after, what=f"moving the seat of {giver_name} to {taker_name}")
    for row in rows:
        add_row(
            state,
            task,
            seat=row.seat,
            label=row.label,
            candidate=row.candidate,
            is_required=row.is_required,
            is_open=row.is_open,
            origin=origin,
            principal_id=row.principal_id,
        )
    action = Action.TRANSFER if origin == TRANSFER else Action.DELEGATE
    details = {"from": giver_name, "to": taker_name, "seats": [seat.label for seat in given]}
    _log(state, task, action, reason, details)
    state.notify("seat_moved", task, f"{giver_name} → {taker_name}")


def _moved(approval: Approval, seat: Seat, giver: Person, taker: Person, origin: str) -> SeatRow:
    is_open = any(row.is_open for row in approval.rows if row.seat == seat.number)
    return SeatRow(
        id=0,
        seat=seat.number,
        label=seat.label,
        candidate=f"user:{taker.id}",
        is_required=seat.is_required,
        origin=origin,
        principal_id=int(giver.id),
        is_open=is_open,
    )


def _take_back(
    state: JobState, task: JobTaskRecord, approval: Approval, giver: Who, reason: str | None
) -> None:
    person, name = _person(state, giver)
    authorise(state, task, approval, f"taking back the seat of {name}", himself=person)
    gone = lent_by(approval, int(person.id), name)
    remove_rows(state, gone)
    _log(state, task, Action.DELEGATE, reason, {"from": name, "to": None})


def lent_by(approval: Approval, user_id: int, name: str) -> list[SeatRow]:
    """Return what goes if this user takes back what they lent, or raise Conflict."""
    lent = [row for row in approval.rows if row.origin == DELEGATE and row.principal_id == user_id]
    if not lent:
        raise Conflict(f"{name} has lent no seat of it", found="not lent")
    gone = _handed_on(approval, lent)
    _expect_unused(approval, gone, name)
    return gone


def _handed_on(approval: Approval, given: Sequence[SeatRow]) -> list[SeatRow]:
    """Return these rows and those of whoever got the seat from their holders since."""
    gone = list(given)
    holders = {(row.seat, row.user_id) for row in given}
    first = min(row.id for row in given)
    for row in approval.rows:
        if row.id > first and (row.seat, row.principal_id) in holders:
            gone.append(row)
            holders.add((row.seat, row.user_id))
    return list(dict.fromkeys(gone))


def _expect_unused(approval: Approval, gone: Sequence[SeatRow], name: str) -> None:
    """Refuse to take away a seat that somebody voted from in place of ``name``."""
    holders = {(row.seat, row.user_id) for row in gone}
    if any((vote.seat, vote.user_id) in holders for vote in approval.votes):
        raise Conflict(f"the vote on behalf of {name} is cast already", found="voted")


def _change(
    conn: Connection,
    job_task_id: int,
    call: Call,
    verb: str,
    change: Callable[[JobState, JobTaskRecord, Approval], None],
    **arguments: object,
) -> JobTaskRecord:
    state, task = lock_job_of_task(conn, job_task_id)

    def body() -> JobTaskRecord:
        state.expect_attempt(task, call.attempt)
        try:
            change(state, task, _open_approval(state, task))
        except GwfError as refusal:
            raise (refusal if refusal.logged else state.refused(refusal, task)) from None
        return state.tasks[task.id]

    return once(
        state, verb, call, {"job_task_id": job_task_id, **arguments}, body, record=JobTaskRecord
    )


def _open_approval(state: JobState, task: JobTaskRecord) -> Approval:
    if task.task_type != TaskType.APPROVAL or task.status != JobTaskStatus.RUNNING:
        raise state.conflict("only a running approval has seats", task)
    return load(state.conn, task)


def _person(state: JobState, who: Who, *, is_active: bool = True) -> tuple[Person, str]:
    """Return a person as the directory knows them, and the name they are shown by."""
    if state.open_mode:
        actor = directory.identify(state.conn, who, open_mode=True)
        return Person(actor.operator_id or 0, is_verified=False), f"operator {who}"
    user_id, name = directory.find_user(state.conn, who)
    member = next((one for one in directory.members(state.conn) if one.id == user_id), None)
    if member is not None:
        return Person(user_id, member.roles), name
    if is_active:
        raise NotAllowed(f"user {name!r} is not active", needs="an active user")
    return Person(user_id), name


def authorise(
    state: JobState,
    task: JobTaskRecord,
    approval: Approval,
    what: str,
    *,
    himself: Person | None = None,
) -> None:
    """Let an admin do this, the person concerned, or else whoever has a part in the approval."""
    if himself is not None:
        others: set[int | None] = {int(himself.id)}
    else:
        people = [] if state.open_mode else directory.members(state.conn)
        eligible = eligible_people(state, approval.policy, approval.seats, people)
        others = {task.operator_id, *(int(person.id) for person in eligible)}
    directory.authorise(
        state.actor, what, open_mode=state.open_mode, needs_admin=True, or_one_of={None, *others}
    )


def _expect_no_vote(task: JobTaskRecord, approval: Approval, person: Person, name: str) -> None:
    vote = approval.vote_of(int(person.id))
    if vote is not None:
        raise Conflict(
            f"{name} voted {vote.decision} on {task.label} already", found=f"voted {vote.decision}"
        )


def _log(
    state: JobState,
    task: JobTaskRecord,
    action: Action,
    reason: str | None,
    details: Mapping[str, object],
) -> None:
    state.log(
        action,
        task,
        before=task.status,
        after=task.status,
        message=reason,
        metadata=details,
    )
