"""Read the policy of an approval and say what it asks for. Pure data in, data out; no database.

The keys are those of semantics.md; ``ballots`` counts the votes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from gwf.ballots import (
    Ballot,
    Decision,
    Outcome,
    Person,
    PersonId,
    Seat,
    Terms,
    outcome,
    turn,
)
from gwf.errors import Invalid
from gwf.limits import (
    MAX_ID,
    checked_flag,
    checked_name,
    checked_seconds,
    checked_whole,
    expect_known_keys,
)

#: The longest timeout, in seconds: ten years.
MAX_TIMEOUT_S = 10 * 366 * 86_400
MAX_PEOPLE = 1000


@dataclass(frozen=True, slots=True)
class Policy:
    """Hold the policy of an approval task, checked; the fields are the keys of its config."""

    approvers: tuple[PersonId, ...] = ()
    min_approvers: int | str | None = None
    required_reviewers: tuple[PersonId, ...] = ()
    reject_policy: str = "veto"
    order: str = "parallel"
    self_approval: str = "allow"
    timeout: float | None = None
    on_timeout: str = "fail"
    escalate_to: tuple[PersonId, ...] = ()
    max_escalations: int = 1
    on_reject: str = "fail"
    comment_required: bool = False

    @property
    def names(self) -> tuple[PersonId, ...]:
        """Return every user or role that the policy names."""
        return (*self.approvers, *self.required_reviewers, *self.escalate_to)


def parse(config: object) -> Policy:
    """Read the policy of an approval task.

    Raises
    ------
    Invalid
        An unknown key (the message says which is meant), or a value that no policy can have.
    """
    if config is None:
        return Policy()
    if not isinstance(config, Mapping):
        raise Invalid("config of an approval", config, expected="a mapping")
    expect_known_keys("policy key", config, [one.name for one in fields(Policy)])
    given = {key: value for key, value in config.items() if value is not None}
    values = {key: _READERS[key](key, value) for key, value in given.items()}
    policy = Policy(**values)
    _expect_consistent(policy)
    return policy


def terms(policy: Policy, seats: Sequence[Seat], n_eligible: int | None) -> Terms:
    """Fix the numbers of an attempt (rule A3).

    ``n_eligible`` counts the people who may vote; it is None while the directory is empty, and
    each name of ``approvers`` then stands for one person.
    """
    n_required = sum(seat.is_required for seat in seats)
    named = len(policy.approvers) + sum(
        name not in policy.approvers for name in policy.required_reviewers
    )
    if n_eligible is not None:
        named = n_eligible
    wanted = policy.min_approvers
    if wanted is None:
        needed = max(n_required, 1)
        electorate = needed
    elif isinstance(wanted, int):
        needed = wanted
        electorate = named if policy.approvers else max(wanted, n_required)
    else:
        electorate = named
        share = 100.0 if wanted == "all" else float(wanted[:-1])
        needed = max(1, math.ceil(round(share * electorate / 100, 9)))
    return Terms(needed, electorate, policy.reject_policy, policy.order)


def seats_of(policy: Policy, kinds: Mapping[PersonId, tuple[str, PersonId | None]]) -> list[Seat]:
    """Return the seats that a policy asks for (rule A1).

    ``kinds`` says of each name whether it is a ``role`` or a ``user``, and which.
    """
    seats: list[Seat] = []

    def add(name: PersonId, *, is_required: bool) -> None:
        kind, user_id = kinds[name]
        seats.append(Seat(len(seats) + 1, str(name), kind, user_id, is_required))  # type: ignore[arg-type]  # kinds holds both literals

    for name in policy.approvers:
        add(name, is_required=policy.min_approvers is None)
    taken: set[int] = set()
    for name in policy.required_reviewers:
        same = [seat for seat in seats if seat.label == str(name) and seat.number not in taken]
        if same:  # an approver who is a required reviewer too has one seat, and it is required
            taken.add(same[0].number)
            seats[same[0].number - 1] = replace(same[0], is_required=True)
        else:
            add(name, is_required=True)
            taken.add(len(seats))
    if not policy.approvers and (policy.min_approvers is not None or not seats):
        seats.append(Seat(len(seats) + 1, "anybody", "any", is_required=False))
    return seats


def simulate(
    config: object, votes: Iterable[Any], *, people: Mapping[str, Iterable[str]] | None = None
) -> Outcome:
    """Say what would happen with these votes; no database is asked.

    Parameters
    ----------
    config
        The policy, as in the config of an approval task.
    votes
        Pairs of a person and ``"approve"`` or ``"reject"``, in the order in which they are cast.
        What comes after the decision is not counted.
    people
        Roles by person. Without it each name of the policy is a person of that name, and a voter
        whom the policy does not name fills any seat.

    Returns
    -------
    Outcome
        ``status`` is ``open``, ``approved`` or ``rejected``.

    Raises
    ------
    Invalid
        The policy or a vote cannot be read, or somebody votes twice or without a seat.
    """
    policy = parse(config)
    cast = [_vote(vote) for vote in votes]
    known = None if people is None else _known(people)
    if known is None and isinstance(policy.min_approvers, str) and not policy.approvers:
        raise Invalid("people", None, expected=f"whom to count {policy.min_approvers!r} of")
    kinds: dict[PersonId, tuple[str, PersonId | None]] = {
        name: ("user", name if known is None else str(name))
        if known is None or str(name) in known
        else ("role", None)
        for name in policy.names
    }
    if known is None and any(who not in policy.names for who, _ in cast):
        kinds = dict.fromkeys(policy.names, ("role", None))
    seats = seats_of(policy, kinds)
    eligible = [
        person for person in (known or {}).values() if any(seat.accepts(person) for seat in seats)
    ]
    rules = terms(policy, seats, None if known is None else len(eligible))
    everybody: list[Person] | None = eligible if known is not None else None
    if known is None and all(seat.kind == "user" for seat in seats):
        everybody = [Person(name, is_verified=False) for name in policy.names]
    ballots: list[Ballot] = []
    for who, decision in cast:
        if outcome(rules, seats, ballots, everybody).status != "open":
            break
        person = Person(who, is_verified=False) if known is None else known.get(str(who))
        if person is None:
            raise Invalid("vote", who, expected="somebody of these people")
        if any(ballot.person.id == person.id for ballot in ballots):
            raise Invalid("vote", who, expected="one vote of each person")
        asked = [seat for seat in turn(rules, seats, ballots) if seat.accepts(person)]
        if not asked:
            raise Invalid("vote", who, expected="a person who has a seat, and whose turn it is")
        ballots.append(Ballot(person, decision, asked[0].number))
    return outcome(rules, seats, ballots, everybody)


def _vote(vote: Any) -> tuple[PersonId, Decision]:
    pair = (vote.get("user"), vote.get("decision")) if isinstance(vote, Mapping) else vote
    if not isinstance(pair, Sequence) or isinstance(pair, str) or len(pair) != 2:
        raise Invalid("vote", vote, expected="a pair of a person and 'approve' or 'reject'")
    who, decision = pair
    if decision not in ("approve", "reject"):
        raise Invalid("decision", decision, expected="'approve' or 'reject'")
    return _name("vote", who), decision


def _known(people: Mapping[str, Iterable[str]]) -> dict[str, Person]:
    for who, roles in people.items():
        if isinstance(roles, str) or not isinstance(roles, Iterable):
            raise Invalid(f"roles of {who!r}", roles, expected="a list of roles")
    known = {str(who): Person(str(who), frozenset(roles)) for who, roles in people.items()}
    both = set(known) & set().union(*(person.roles for person in known.values()))
    if both:
        raise Invalid("people", min(both), expected="a name is a person or a role, not both")
    return known


def _name(what: str, value: Any) -> PersonId:
    if isinstance(value, str):
        return checked_name(what, value)
    return checked_whole(what, value, lowest=1, highest=MAX_ID)


def _names(key: str, value: Any) -> tuple[PersonId, ...]:
    if not isinstance(value, list | tuple) or len(value) > MAX_PEOPLE:
        raise Invalid(key, value, expected=f"a list of at most {MAX_PEOPLE} users or roles")
    return tuple(_name(f"name in {key}", one) for one in value)


def _one_or_more(key: str, value: Any) -> tuple[PersonId, ...]:
    return _names(key, [value] if isinstance(value, str | int) else value)


def _minimum(key: str, value: Any) -> int | str:
    if value == "all":
        return "all"
    if isinstance(value, str) and re.fullmatch(r"\d{1,3}(\.\d{1,6})?%", value, re.ASCII):
        if 0 < float(value[:-1]) <= 100:
            return value
    elif isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_PEOPLE:
        return value
    raise Invalid(
        key, value, expected=f"a number from 1 to {MAX_PEOPLE}, 'all', or a share like '60%'"
    )


def _count(key: str, value: Any) -> int:
    return checked_whole(key, value, lowest=1, highest=100)


def _seconds(key: str, value: Any) -> float:
    return checked_seconds(key, value, highest=MAX_TIMEOUT_S)


def _one_of(*words: str, numbered: str | None = None) -> Callable[[str, Any], str]:
    """Return the reader of a word, or of one with a number behind it, such as ``count:2``."""

    def read(key: str, value: Any) -> str:
        if isinstance(value, str):
            prefix, _, number = value.partition(":")
            is_numbered = prefix == numbered and re.fullmatch("[1-9][0-9]{0,8}", number)
            if value in words or is_numbered:
                return value
        more = () if numbered is None else (f"{numbered}:<number>",)
        raise Invalid(key, value, expected=f"one of {', '.join((*words, *more))}")

    return read


_READERS: dict[str, Callable[[str, Any], Any]] = {
    "approvers": _names,
    "min_approvers": _minimum,
    "required_reviewers": _names,
    "reject_policy": _one_of("veto", "majority", numbered="count"),
    "order": _one_of("parallel", "sequential"),
    "self_approval": _one_of("allow", "bar_initiator"),
    "timeout": _seconds,
    "on_timeout": _one_of("fail", "approve", "reject", "escalate"),
    "escalate_to": _one_or_more,
    "max_escalations": _count,
    "on_reject": _one_of("fail", "cancel", "send_back:previous", numbered="send_back"),
    "comment_required": checked_flag,
}


def _expect_consistent(policy: Policy) -> None:
    if policy.order == "sequential" and not policy.approvers:
        raise Invalid("order", policy.order, expected="a list of approvers, in the order wanted")
    if policy.on_timeout != "fail" and policy.timeout is None:
        raise Invalid("on_timeout", policy.on_timeout, expected="a timeout, in seconds")
    if policy.on_timeout == "escalate" and not policy.escalate_to:
        raise Invalid("on_timeout", "escalate", expected="escalate_to, the users or roles to ask")
    if policy.escalate_to and policy.on_timeout != "escalate":
        raise Invalid("escalate_to", list(policy.escalate_to), expected="on_timeout 'escalate'")
