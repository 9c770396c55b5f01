"""Count the votes of an approval: seats, people, matching, outcome. Pure; no database.

An approval has *seats*. A required seat has to be filled by a person of its own; the others say who
else may vote. It passes when ``needed`` distinct people approved and a matching of distinct people
onto all required seats exists (rule A2), whatever the order of the votes. It is rejected when the
reject policy says so, or as soon as the people who are left can no longer make it pass (rule A3).

Why the matching is our own: Kuhn's algorithm is fifteen lines for the handful of seats of an
approval; networkx and scipy offer it too, at 0.1 to 0.3 s of import in each process that votes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Decision = Literal["approve", "reject"]
PersonId = int | str


@dataclass(frozen=True, slots=True)
class Person:
    """Be somebody who votes, with the roles held at that moment.

    Roles cannot be checked while the directory is empty; such a person fills any role's seat.
    """

    id: PersonId
    roles: frozenset[str] = frozenset()
    is_verified: bool = True


@dataclass(frozen=True, slots=True)
class Seat:
    """Be one place in an approval: for a role, for one user, or for anybody.

    ``stand_ins`` and holders of the roles in ``also`` may sit there besides; ``away`` holds those
    who gave their place to a stand-in.
    """

    number: int
    label: str
    kind: Literal["role", "user", "any"]
    user_id: PersonId | None = None
    is_required: bool = True
    stand_ins: frozenset[PersonId] = frozenset()
    away: frozenset[PersonId] = frozenset()
    also: frozenset[str] = frozenset()

    def accepts(self, person: Person) -> bool:
        """Say whether this person may sit here."""
        if person.id in self.stand_ins:
            return True
        if person.id in self.away:
            return False
        if self.also and (self.also & person.roles or not person.is_verified):
            return True
        if self.kind == "user":
            return person.id == self.user_id
        return self.kind == "any" or not person.is_verified or self.label in person.roles


@dataclass(frozen=True, slots=True)
class Ballot:
    """Be a vote that stands; ``seat`` is the number it was cast for where the order counts."""

    person: Person
    decision: Decision
    seat: int | None = None


@dataclass(frozen=True, slots=True)
class Terms:
    """Hold what is fixed when the attempt starts: how many are needed, and out of how many."""

    needed: int
    electorate: int
    reject_policy: str = "veto"
    order: str = "parallel"


@dataclass(frozen=True, slots=True)
class Outcome:
    """Say where an approval stands: ``open``, ``approved`` or ``rejected``.

    ``filled`` maps the number of a seat to the person in it, ``missing`` says what is needed.
    """

    status: Literal["open", "approved", "rejected"]
    n_approved: int
    n_rejected: int
    needed: int
    filled: Mapping[int, PersonId] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    reason: str = ""

    def __str__(self) -> str:
        """Return the state in a sentence."""
        counted = f"{self.n_approved} of {self.needed} approved"
        if self.status != "open":
            return f"{self.status}: {self.reason} ({counted}, {self.n_rejected} rejected)"
        return f"open: {counted}; needs {', '.join(self.missing)}"


def matching(people: Sequence[Person], seats: Sequence[Seat]) -> dict[int, PersonId]:
    """Seat as many people as possible, one to a seat: number of the seat to the person.

    The size is the greatest there is, whatever the order of the people (maximum bipartite matching
    by augmenting paths, H. W. Kuhn, 1955).
    """
    taken: dict[int, Person] = {}

    def place(person: Person, tried: set[int]) -> bool:
        mine = [seat.number for seat in seats if seat.accepts(person)]
        free = next((number for number in mine if number not in taken), None)
        if free is not None:
            taken[free] = person
            return True
        for number in mine:
            if number not in tried:
                tried.add(number)
                if place(taken[number], tried):
                    taken[number] = person
                    return True
        return False

    for person in people:
        place(person, set())
    return {number: person.id for number, person in sorted(taken.items())}


def outcome(
    rules: Terms,
    seats: Sequence[Seat],
    ballots: Sequence[Ballot],
    people: Iterable[Person] | None = None,
) -> Outcome:
    """Count the votes.

    ``people`` are those who may still vote besides; None where nobody knows them, which leaves the
    outcome open as long as somebody could come.
    """
    approved = [ballot for ballot in ballots if ballot.decision == "approve"]
    rejected = [ballot for ballot in ballots if ballot.decision == "reject"]
    required = [seat for seat in seats if seat.is_required]
    filled = _filled(rules, required, approved)
    missing = _missing(rules, required, filled, len(approved))

    def state(status: Literal["open", "approved", "rejected"], reason: str = "") -> Outcome:
        return Outcome(status, len(approved), len(rejected), rules.needed, filled, missing, reason)

    if not missing:
        return state("approved", "enough people approved")
    if len(rejected) >= _rejections(rules):
        return state("rejected", f"the reject policy is {rules.reject_policy}")
    # where the order is free, an approval takes nobody's chance away
    is_narrower = bool(rejected if rules.order == "parallel" else ballots)
    if is_narrower and people is not None and not can_pass(rules, seats, ballots, people):
        return state("rejected", "too few people are left who could approve")
    return state("open")


def can_pass(
    rules: Terms, seats: Sequence[Seat], ballots: Sequence[Ballot], people: Iterable[Person]
) -> bool:
    """Say whether it passes if everybody of these people approves who has not voted yet."""
    voted = {ballot.person.id for ballot in ballots}
    rest = [person for person in people if person.id not in voted]
    if rules.order == "sequential":
        return _can_go_on(rules, seats, ballots, rest)
    required = [seat for seat in seats if seat.is_required]
    approving = [ballot.person for ballot in ballots if ballot.decision == "approve"]
    approving += [person for person in rest if any(seat.accepts(person) for seat in seats)]
    return len(approving) >= rules.needed and len(matching(approving, required)) == len(required)


def _can_go_on(
    rules: Terms, seats: Sequence[Seat], ballots: Sequence[Ballot], rest: Sequence[Person]
) -> bool:
    """Say whether the seats not asked yet can be filled in their order, as far as is needed."""
    asked = {ballot.seat for ballot in ballots}
    coming = [seat for seat in seats if seat.number not in asked]
    filled = {ballot.seat for ballot in ballots if ballot.decision == "approve"}
    for length in range(len(coming) + 1):
        done = filled | {seat.number for seat in coming[:length]}
        is_enough = len(done) >= rules.needed and all(
            seat.number in done for seat in seats if seat.is_required
        )
        if is_enough and len(matching(rest, coming[:length])) == length:
            return True
    return False


def seat_of(
    voter: Person,
    mine: Sequence[Seat],
    rules: Terms,
    seats: Sequence[Seat],
    ballots: Sequence[Ballot],
) -> Seat:
    """Return the seat that the approval of this voter fills, of those that are the voter's.

    Where it fills none that is required, it is the first that anybody may share.
    """
    if rules.order == "parallel":
        people = [ballot.person for ballot in ballots if ballot.decision == "approve"]
        required = [seat for seat in seats if seat.is_required]
        filled = matching([*people, voter], required)
        for seat in (*required, *mine):
            if filled.get(seat.number) == voter.id or not seat.is_required:
                return seat
    return mine[0]


def turn(rules: Terms, seats: Sequence[Seat], ballots: Sequence[Ballot]) -> list[Seat]:
    """Return the seats that ask for a vote now: where the order counts, the first without one."""
    if rules.order == "parallel":
        return list(seats)
    voted = {ballot.seat for ballot in ballots}
    return [seat for seat in seats if seat.number not in voted][:1]


def _filled(
    rules: Terms, required: Sequence[Seat], approved: Sequence[Ballot]
) -> dict[int, PersonId]:
    if rules.order == "parallel":
        return matching([ballot.person for ballot in approved], required)
    numbers = {seat.number for seat in required}
    return {b.seat: b.person.id for b in approved if b.seat is not None and b.seat in numbers}


def _missing(
    rules: Terms, required: Sequence[Seat], filled: Mapping[int, PersonId], n_approved: int
) -> tuple[str, ...]:
    missing = [seat.label for seat in required if seat.number not in filled]
    more = rules.needed - n_approved - len(missing)
    if more > 0:
        missing.append("one more person" if more == 1 else f"{more} more people")
    return tuple(missing)


def _rejections(rules: Terms) -> int:
    """Return how many rejections end it."""
    if rules.reject_policy == "majority":
        return rules.electorate // 2 + 1
    if rules.reject_policy == "veto":
        return 1
    return int(rules.reject_policy.removeprefix("count:"))
