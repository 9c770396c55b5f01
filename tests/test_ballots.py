"""Show how the votes of an approval are counted, against references that try every possibility."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations, permutations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gwf.ballots import Ballot, Person, Seat, Terms, can_pass, matching, outcome, seat_of, turn

PM, TL, SENIOR = Seat(1, "PM", "role"), Seat(2, "Tech Lead", "role"), Seat(1, "Senior", "role")
ANY = Seat(9, "anybody", "any", is_required=False)
BOTH = Person("both", frozenset({"PM", "Tech Lead"}))
MANAGER, OTHER_MANAGER = Person("pm", frozenset({"PM"})), Person("pm2", frozenset({"PM"}))
LEAD = Person("lead", frozenset({"Tech Lead"}))
FIVE = [Person(number) for number in range(1, 6)]


def said(*votes: tuple[Person, str]) -> list[Ballot]:
    """Return ballots without a seat, as where the order does not count."""
    return [Ballot(person, decision) for person, decision in votes]  # type: ignore[arg-type]  # both words


def approvals(*people: Person) -> list[Ballot]:
    """Return an approval of each of these people."""
    return said(*((person, "approve") for person in people))


def rejections(*people: Person) -> list[Ballot]:
    """Return a rejection of each of these people."""
    return said(*((person, "reject") for person in people))


@pytest.mark.parametrize(
    ("seat", "person", "is_accepted"),
    [
        (PM, MANAGER, True),
        (PM, LEAD, False),
        (PM, Person("x", is_verified=False), True),
        (Seat(1, "x", "user", "x"), Person("x"), True),
        (Seat(1, "x", "user", "x"), Person("y", frozenset({"x"})), False),
        (Seat(1, "x", "user", "x"), Person("y", is_verified=False), False),
        (Seat(1, "7", "user", 7), Person(7), True),
        (Seat(1, "7", "user", 7), Person("7"), False),
        (replace(ANY, away=frozenset({"x"})), Person("x"), False),
        (replace(PM, away=frozenset({"pm"})), MANAGER, False),
        (replace(PM, away=frozenset({"pm"})), OTHER_MANAGER, True),
        (replace(PM, away=frozenset({"x"})), Person("x", is_verified=False), False),
        (replace(PM, stand_ins=frozenset({"lead"})), LEAD, True),
        (replace(PM, stand_ins=frozenset({"pm"}), away=frozenset({"pm"})), MANAGER, True),
        (replace(PM, also=frozenset({"Tech Lead"})), LEAD, True),
        (replace(PM, also=frozenset({"Tech Lead"}), away=frozenset({"lead"})), LEAD, False),
        (Seat(1, "x", "user", "x", also=frozenset({"PM"})), MANAGER, True),
        (Seat(1, "x", "user", "x", also=frozenset({"PM"})), Person(1, is_verified=False), True),
    ],
)
def test_accepts_whoever_may_sit_there(seat: Seat, person: Person, is_accepted: bool) -> None:
    """A role, a user, anybody, stand-ins before those away; roles count where they are known."""
    assert seat.accepts(person) is is_accepted


# References: the rules once more, by trying every possibility.


def fits(person: Person, seat: Seat) -> bool:
    """Say who may sit where, as the union of the ways to a seat."""
    by_role = {seat.label, *seat.also} if seat.kind == "role" else set(seat.also)
    ways = [
        seat.kind == "any",
        seat.kind == "user" and person.id == seat.user_id,
        bool(by_role & person.roles),
        bool(by_role) and not person.is_verified,
    ]
    return person.id in seat.stand_ins or (person.id not in seat.away and any(ways))


def largest(people: Sequence[Person], seats: Sequence[Seat]) -> int:
    """Return the size of the largest matching, by looking at all of them."""
    table = [[fits(person, seat) for seat in seats] for person in people]
    table += [[False] * len(seats)] * len(seats)  # a place that stays empty
    return max(
        sum(row[column] for column, row in enumerate(rows))
        for rows in permutations(table, len(seats))
    )


def passes(rules: Terms, seats: Sequence[Seat], approvers: Sequence[Person]) -> bool:
    """Say whether these approvals are enough: as many people, and each required seat filled."""
    required = [seat for seat in seats if seat.is_required]
    return len(approvers) >= rules.needed and any(
        all(map(fits, chosen, required)) for chosen in permutations(approvers, len(required))
    )


def some_superset_passes(
    rules: Terms, seats: Sequence[Seat], approvers: Sequence[Person], rest: Sequence[Person]
) -> bool:
    """Ask of each subset of the people who are left whether it could make the approval pass."""
    able = [person for person in rest if any(fits(person, seat) for seat in seats)]
    return any(
        passes(rules, seats, [*approvers, *more])
        for size in range(len(able) + 1)
        for more in combinations(able, size)
    )


def expected(
    rules: Terms, seats: Sequence[Seat], ballots: Sequence[Ballot], people: list[Person] | None
) -> tuple[str, str]:
    """Return status and reason; before anybody rejects, rule A7 made sure that it can pass."""
    approvers = [ballot.person for ballot in ballots if ballot.decision == "approve"]
    n_rejected = len(ballots) - len(approvers)
    if passes(rules, seats, approvers):
        return "approved", "enough people approved"
    limits = {"veto": 1, "majority": next(n for n in range(99) if 2 * n > rules.electorate)}
    limits |= {f"count:{n}": n for n in range(1, 7)}
    if n_rejected >= limits[rules.reject_policy]:
        return "rejected", f"the reject policy is {rules.reject_policy}"
    voted = {ballot.person.id for ballot in ballots}
    rest = [person for person in people or () if person.id not in voted]
    if (
        people is not None
        and n_rejected
        and not some_superset_passes(rules, seats, approvers, rest)
    ):
        return "rejected", "too few people are left who could approve"
    return "open", ""


ROLES = ("PM", "TL", "QA")
MOSTLY = st.sampled_from([True, True, True, False])
ROLE_SETS = st.sampled_from([frozenset(one.split()) for one in ("PM", "TL", "QA", "PM TL", "")])
FEW = st.sampled_from([frozenset(chosen) for chosen in [(), (), (), *combinations(range(1, 7), 1)]])


@st.composite
def crowds(draw: st.DrawFn) -> list[Person]:
    """Draw up to six people; the roles of one in four are not known."""
    return [
        Person(number, draw(ROLE_SETS), draw(MOSTLY))
        for number in range(1, draw(st.sampled_from([6, 5, 4, 3, 2, 1])) + 1)
    ]


@st.composite
def seatings(draw: st.DrawFn) -> list[Seat]:
    """Draw up to four seats of every kind."""
    seats = []
    for number in range(1, draw(st.sampled_from([4, 3, 2, 1])) + 1):
        kind: Any = draw(st.sampled_from(["role", "user", "role", "any"]))
        user_id = draw(st.integers(1, 6)) if kind == "user" else None
        seat = Seat(number, draw(st.sampled_from(ROLES)), kind, user_id, draw(MOSTLY))
        also = draw(st.sampled_from([(), (), (), *((role,) for role in ROLES)]))
        away, stand_ins = draw(FEW), draw(FEW)
        seats.append(replace(seat, away=away, stand_ins=stand_ins, also=frozenset(also)))
    return seats


POLICIES = st.sampled_from(["count:3", "count:6", "majority", "count:2", "veto"])
TERMS = st.builds(Terms, st.integers(1, 4), st.integers(1, 6), POLICIES)


@st.composite
def elections(draw: st.DrawFn, *, is_possible: bool = False) -> Any:
    """Draw terms, seats, the votes of some who have a seat, and everybody who may vote.

    ``is_possible`` leaves out what rule A7 refuses when the attempt starts.
    """
    rules, seats, known = draw(TERMS), draw(seatings()), draw(crowds())
    if is_possible and not some_superset_passes(rules, seats, [], known):
        rules, seats = replace(rules, needed=1), [*seats, replace(ANY, number=5)]
        seats = [replace(seat, is_required=False) for seat in seats]
    ballots = []
    for person in known:
        if any(fits(person, seat) for seat in seats):
            decision: Any = draw(st.sampled_from(["reject", "approve", "reject", "approve", None]))
            ballots += [] if decision is None else [Ballot(person, decision)]
    return rules, seats, ballots, known


@settings(max_examples=500)
@given(crowds(), seatings(), st.randoms(use_true_random=False))
def test_matching_is_the_largest_of_all(
    people: list[Person], seats: list[Seat], order: Any
) -> None:
    """A2: nobody sits twice or where they may not, and no other way seats more, in any order."""
    size = largest(people, seats)
    by_id, by_number = {one.id: one for one in people}, {one.number: one for one in seats}
    for _ in range(3):
        filled = matching(people, seats)
        assert len(filled) == size == len(set(filled.values()))
        assert all(fits(by_id[who], by_number[number]) for number, who in filled.items())
        assert list(filled) == sorted(filled)
        order.shuffle(people)
        order.shuffle(seats)


@settings(max_examples=300)
@given(TERMS, seatings(), crowds())
def test_can_pass_says_whether_any_subset_passes(
    rules: Terms, seats: list[Seat], people: list[Person]
) -> None:
    """A7: a policy can be met exactly if some of the people who have a seat can meet it."""
    assert can_pass(rules, seats, (), people) == some_superset_passes(rules, seats, [], people)


@settings(max_examples=1000)
@given(elections(), st.booleans())
def test_outcome_agrees_with_every_possibility(election: Any, is_known: bool) -> None:
    """A3: approved, rejected by policy or by lack of people, or open, as the reference says."""
    rules, seats, ballots, known = election
    people = known if is_known else None
    found = outcome(rules, seats, ballots, people)
    assert (found.status, found.reason) == expected(rules, seats, ballots, people)
    assert found.n_approved + found.n_rejected == len(ballots)
    assert found.needed == rules.needed


@settings(max_examples=500)
@given(elections())
def test_outcome_says_how_many_are_missing(election: Any) -> None:
    """What is missing are the people who would at least have to come, whoever they are."""
    rules, seats, ballots, known = election
    found = outcome(rules, seats, ballots, known)
    approvers = [ballot.person for ballot in ballots if ballot.decision == "approve"]
    required = [seat for seat in seats if seat.is_required]
    unfilled = [seat.label for seat in required if seat.number not in found.filled]
    more = max(rules.needed - len(approvers), len(required) - largest(approvers, required))
    words = {0: [], 1: ["one more person"]}.get(n := more - len(unfilled), [f"{n} more people"])
    assert list(found.missing) == [*unfilled, *words]


@settings(max_examples=200)
@given(elections())
def test_outcome_never_depends_on_the_order_of_the_votes(election: Any) -> None:
    """A2: all orders of the same votes have one status, one reason and as many seats filled."""
    rules, seats, ballots, known = election
    found = {
        (one.status, one.reason, len(one.filled), len(one.missing))
        for order in permutations(ballots)
        for one in [outcome(rules, seats, order, known)]
    }
    assert len(found) == 1


@settings(max_examples=300)
@given(elections(), st.booleans())
def test_outcome_never_suffers_from_another_approval(election: Any, is_known: bool) -> None:
    """Approved stays approved, and what is open does not become rejected by an approval."""
    rules, seats, ballots, known = election
    people = known if is_known else None
    before = outcome(rules, seats, ballots, people).status
    voted = {ballot.person.id for ballot in ballots}
    for person in known:
        if person.id not in voted and any(fits(person, seat) for seat in seats):
            after = outcome(rules, seats, [*ballots, *approvals(person)], people).status
            assert (before, after) not in [
                ("approved", "open"),
                ("approved", "rejected"),
                ("open", "rejected"),
            ]


@settings(max_examples=300)
@given(elections(is_possible=True))
def test_outcome_is_decided_at_the_first_moment_it_is_certain(election: Any) -> None:
    """A3: while it is open both endings can still be reached, and when all voted it is not open."""
    rules, seats, ballots, known = election
    for n_voted in range(len(ballots) + 1):
        cast = ballots[:n_voted]
        if outcome(rules, seats, cast, known).status != "open":
            break
        out = {ballot.person.id for ballot in cast}
        rest = [one for one in known if one.id not in out and any(fits(one, at) for at in seats)]
        assert outcome(rules, seats, [*cast, *approvals(*rest)], known).status == "approved"
        assert outcome(rules, seats, [*cast, *rejections(*rest)], known).status == "rejected"


def test_outcome_counts_people_when_one_holds_both_roles() -> None:
    """Table: who holds PM and Tech Lead is 1 of 2, until another PM comes, in either order."""
    rules = Terms(2, 2)
    alone = outcome(rules, [PM, TL], approvals(BOTH), [BOTH, MANAGER])
    assert (alone.status, alone.n_approved, len(alone.filled)) == ("open", 1, 1)
    for order in permutations([BOTH, MANAGER]):
        found = outcome(rules, [PM, TL], approvals(*order), [BOTH, MANAGER])
        assert found.status == "approved"
        assert found.filled == {1: "pm", 2: "both"}
    lacking = outcome(rules, [PM, TL], approvals(MANAGER, OTHER_MANAGER), [BOTH])
    assert (lacking.status, lacking.missing) == ("open", ("Tech Lead",))


def test_outcome_stays_open_when_the_required_senior_is_missing() -> None:
    """Table: two juniors are enough people, but not the Senior; a third vote of one is."""
    juniors, senior = [Person("j1"), Person("j2")], Person("s", frozenset({"Senior"}))
    found = outcome(Terms(2, 2), [SENIOR, ANY], approvals(*juniors), [*juniors, senior])
    assert str(found) == "open: 2 of 2 approved; needs Senior"
    done = outcome(Terms(2, 2), [SENIOR, ANY], approvals(*juniors, senior), [*juniors, senior])
    assert (done.status, done.filled) == ("approved", {1: "s"})


@pytest.mark.parametrize(
    ("policy", "reason"),
    [("majority", "the reject policy is majority"), ("count:5", "too few people are left")],
)
def test_outcome_is_rejected_at_the_third_of_five(policy: str, reason: str) -> None:
    """Table: with 60 % of 5, two rejections leave it open and the third makes it certain."""
    rules = Terms(3, 5, policy)
    for order in permutations(FIVE, 3):
        assert outcome(rules, [ANY], rejections(*order[:2]), FIVE).status == "open"
        third = outcome(rules, [ANY], rejections(*order), FIVE)
        assert third.status == "rejected"
        assert third.reason.startswith(reason)


def test_outcome_is_rejected_when_the_third_vetoes() -> None:
    """Table: 2 of 3 approved, the third vetoes; without the veto one approval was missing."""
    two = approvals(*FIVE[:2])
    assert outcome(Terms(3, 3), [ANY], two, FIVE[:3]).missing == ("one more person",)
    vetoed = outcome(Terms(3, 3), [ANY], [*two, *rejections(FIVE[2])], FIVE[:3])
    assert str(vetoed) == "rejected: the reject policy is veto (2 of 3 approved, 1 rejected)"


@pytest.mark.parametrize(("electorate", "limit"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (6, 4)])
def test_outcome_needs_more_than_half_to_reject_by_majority(electorate: int, limit: int) -> None:
    """Half of the electorate is no majority."""
    people = [Person(number) for number in range(limit)]
    rules = Terms(1, electorate, "majority")
    assert outcome(rules, [ANY], rejections(*people[:-1])).status == "open"
    assert outcome(rules, [ANY], rejections(*people)).status == "rejected"


def test_outcome_keeps_the_approval_of_one_who_left() -> None:
    """Who approved is counted with the roles held then, though the directory has them no more."""
    rules, gone = Terms(2, 3, "count:9"), MANAGER
    ballots = [*approvals(gone), *rejections(OTHER_MANAGER)]
    assert outcome(rules, [PM, TL], ballots, [OTHER_MANAGER, LEAD]).status == "open"
    assert outcome(rules, [PM, TL], ballots, [OTHER_MANAGER]).status == "rejected"
    assert outcome(rules, [PM, TL], ballots, None).status == "open"


def test_outcome_shows_itself_in_a_sentence() -> None:
    """Each status says how many approved; an open one says what is missing."""
    found = [outcome(Terms(3, 3), [PM], approvals(*some)) for some in ([], [MANAGER], [LEAD])]
    assert [str(one).partition("; ")[2] for one in found] == [
        "needs PM, 2 more people",
        "needs 2 more people",
        "needs PM, one more person",
    ]
    done = outcome(Terms(1, 1), [PM], approvals(MANAGER))
    assert str(done) == "approved: enough people approved (1 of 1 approved, 0 rejected)"


@pytest.mark.parametrize(
    ("earlier", "voter", "number"),
    [([], BOTH, 1), ([BOTH], MANAGER, 1), ([MANAGER], BOTH, 2), ([MANAGER], OTHER_MANAGER, 9)],
)
def test_seat_of_a_voter_is_the_one_that_gets_filled(
    earlier: list[Person], voter: Person, number: int
) -> None:
    """An approval sits where it fills what is required, otherwise where anybody may."""
    mine = [seat for seat in (PM, TL, ANY) if seat.accepts(voter)]
    found = seat_of(voter, mine, Terms(2, 2), [PM, TL, ANY], approvals(*earlier))
    assert found.number == number


def test_turn_asks_every_seat_when_the_order_is_parallel() -> None:
    """Without an order every seat is asked, whoever voted."""
    assert turn(Terms(2, 2), [PM, TL], []) == [PM, TL]
    assert turn(Terms(2, 2), [PM, TL], [Ballot(MANAGER, "approve", 1)]) == [PM, TL]


def test_turn_asks_one_seat_after_another_when_sequential() -> None:
    """The first seat without a vote is asked, after a rejection too; a withdrawn one again."""
    rules, seats = Terms(2, 2, "count:2", "sequential"), [PM, TL, ANY]
    first, second = Ballot(MANAGER, "reject", 1), Ballot(LEAD, "approve", 2)
    assert turn(rules, seats, []) == [PM]
    assert turn(rules, seats, [first]) == [TL]
    assert turn(rules, seats, [second]) == [PM]
    assert turn(rules, seats, [second, first]) == [ANY]
    assert turn(rules, seats, [first, second, Ballot(BOTH, "approve", 9)]) == []


def test_outcome_fills_the_seat_that_was_asked_when_sequential() -> None:
    """Where the order counts, a vote fills the seat it was cast for, and only that."""
    rules, seats = Terms(2, 2, "veto", "sequential"), [PM, TL, replace(ANY, number=3)]
    first = Ballot(BOTH, "approve", 1)
    found = outcome(rules, seats, [first])
    assert (found.status, found.filled, found.missing) == ("open", {1: "both"}, ("Tech Lead",))
    assert outcome(rules, seats, [first, Ballot(LEAD, "approve", 3)]).filled == {1: "both"}
    assert outcome(rules, seats, [first, Ballot(LEAD, "approve", 2)]).status == "approved"
    assert outcome(rules, seats, [first, Ballot(LEAD, "reject", 2)]).status == "rejected"
