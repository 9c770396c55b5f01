"""Ask for an approval: find out whom its policy means, and whether they could ever grant it.

Why a name of a policy is looked up when the attempt starts: the directory keeps users and roles
apart, so a name means one of them; while it is empty, a name is a role that nobody can check, and
a number is that operator.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from gwf import ballots, directory, policy
from gwf.ballots import Person, PersonId, Seat, Terms
from gwf.engine.seats import Approval, add_row, candidate, insert_approval
from gwf.engine.state import JobState
from gwf.errors import GwfError, UnsatisfiablePolicy
from gwf.model import JobTaskRecord
from gwf.policy import Policy


def request(state: JobState, task: JobTaskRecord) -> datetime | None:
    """Seat the people of an approval that starts, and return when it is due.

    Raises
    ------
    UnsatisfiablePolicy
        The known users could never make it pass (rule A7); the message names the seat.
    Invalid
        The policy cannot be read.
    """
    try:
        rules, seats, terms = plan(state, task)
    except GwfError as refusal:
        raise state.refused(refusal, task) from None
    insert_approval(state, task, terms)
    asked = {seat.number for seat in ballots.turn(terms, seats, ())}
    for seat in seats:
        add_row(
            state,
            task,
            seat=seat.number,
            label=seat.label,
            candidate=candidate(seat.kind, seat.label, seat.user_id),
            is_required=seat.is_required,
            is_open=seat.number in asked,
        )
    state.notify("approval_requested", task)
    return None if rules.timeout is None else state.now + timedelta(seconds=rules.timeout)


def plan(state: JobState, task: JobTaskRecord) -> tuple[Policy, list[Seat], Terms]:
    """Return what an approval asks for if it starts now; nothing is written.

    Raises
    ------
    UnsatisfiablePolicy, Invalid
        As ``request`` says.
    """
    rules = policy.parse(task.config)
    people = None if state.open_mode else directory.members(state.conn)
    kinds = _kinds(task, rules, people)
    seats = policy.seats_of(rules, kinds)
    eligible = None if people is None else eligible_people(state, rules, seats, people)
    terms = policy.terms(rules, seats, None if eligible is None else len(eligible))
    _expect_satisfiable(task, rules, seats, terms=terms, eligible=eligible)
    return rules, seats, terms


def eligible_people(
    state: JobState, rules: Policy, seats: Sequence[Seat], people: Iterable[directory.Member]
) -> list[Person]:
    """Return those of these people who may vote on some seat."""
    barred = state.job.created_by if rules.self_approval == "bar_initiator" else None
    known = [Person(member.id, member.roles) for member in people]
    return [
        person
        for person in known
        if person.id != barred and any(seat.accepts(person) for seat in seats)
    ]


def people_left(state: JobState, approval: Approval) -> list[Person] | None:
    """Return everybody who may vote; None where that cannot be known."""
    seats = approval.seats
    if not state.open_mode:
        members = directory.members(state.conn)
        return eligible_people(state, approval.policy, seats, members)
    if any(seat.kind != "user" or seat.also for seat in seats):
        return None
    named = {user for seat in seats for user in (seat.user_id, *seat.stand_ins) if user is not None}
    return [Person(user, is_verified=False) for user in sorted(named, key=str)]


def expect_possible(state: JobState, task: JobTaskRecord, approval: Approval, *, what: str) -> None:
    """Refuse a change of seats after which the policy could no longer be met (rule A6)."""
    people = people_left(state, approval)
    if people is None:
        return
    if not ballots.can_pass(approval.terms, approval.seats, approval.ballots, people):
        raise state.refused(
            UnsatisfiablePolicy(
                f"{task.label} after {what}",
                missing=_lacking(approval.terms, approval.seats, people),
                advice="nothing was changed",
            ),
            task,
        )


def candidate_of(state: JobState, name: PersonId) -> tuple[str, str] | None:
    """Return label and candidate of a user or a role, or None where nobody is meant by it now."""
    if state.open_mode:
        is_user = isinstance(name, int)
        return str(name), candidate("user" if is_user else "role", str(name), name)
    kind, user_id, label = _lookup(directory.members(state.conn), name)
    return None if kind is None else (label, candidate(kind, label, user_id))


def _lookup(
    people: Sequence[directory.Member], name: PersonId
) -> tuple[str | None, int | None, str]:
    """Return what a name means: ``user`` with its id, ``role``, or None; and how it is shown."""
    for member in people:
        if name in (member.id, member.name):
            return "user", member.id, member.name
    is_role = any(name in member.roles for member in people)
    return ("role" if is_role else None), None, str(name)


def _kinds(
    task: JobTaskRecord,
    rules: Policy,
    people: Sequence[directory.Member] | None,
) -> dict[PersonId, tuple[str, PersonId | None]]:
    """Return what each name of the policy means now."""
    if people is None:
        return {
            name: ("user", name) if isinstance(name, int) else ("role", None)
            for name in rules.names
        }
    kinds: dict[PersonId, tuple[str, PersonId | None]] = {}
    unknown = []
    for name in rules.names:
        kind, user_id, _ = _lookup(people, name)
        if kind is None:
            unknown.append(repr(name))
        else:
            kinds[name] = (kind, user_id)
    if unknown:
        raise UnsatisfiablePolicy(
            task.label,
            missing=unknown,
            advice="no active user has this name or this role; users.add or users.grant helps",
        )
    return kinds


def _expect_satisfiable(
    task: JobTaskRecord,
    rules: Policy,
    seats: Sequence[Seat],
    *,
    terms: Terms,
    eligible: Sequence[Person] | None,
) -> None:
    missing: Sequence[str] = ()
    if eligible is not None:
        if not ballots.can_pass(terms, seats, (), eligible):
            missing = _lacking(terms, seats, eligible)
    elif isinstance(rules.min_approvers, str) and not rules.approvers:
        missing = ["approvers, since the directory holds nobody to count"]
    elif all(seat.kind == "user" for seat in seats) and terms.needed > len(
        {seat.user_id for seat in seats}
    ):
        missing = [f"{terms.needed} people"]
    if missing:
        raise UnsatisfiablePolicy(
            task.label,
            missing=missing,
            advice="users.add or users.grant helps, or another policy",
        )


def _lacking(terms: Terms, seats: Sequence[Seat], people: Sequence[Person]) -> list[str]:
    """Name the seats that stay empty whoever approves, and the people that are too few."""
    required = [seat for seat in seats if seat.is_required]
    filled = ballots.matching(people, required)
    lacking = [
        f"somebody for seat {seat.label!r}" for seat in required if seat.number not in filled
    ]
    n_people = sum(any(seat.accepts(person) for seat in seats) for person in people)
    if n_people < terms.needed:
        lacking.append(f"{terms.needed} people who may vote (there are {n_people})")
    return lacking or ["an order in which another person fills each seat"]
