"""Keep the seats and votes of an approval: who may sit where, and what was said.

A seat has one row for each *candidate*: a role, a user, or anybody. A transfer or a delegation adds
a row that lets somebody else sit there in place of a *principal*; an escalation adds one that takes
nothing from anybody. Rows are never deleted: one that no longer counts has a ``removed_at``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gwf import ballots, directory, policy, queries
from gwf.ballots import Ballot, Outcome, Person, PersonId, Seat, Terms
from gwf.engine.state import JobState
from gwf.errors import Conflict
from gwf.model import ApprovalRecord, JobTaskRecord, JobTaskStatus, VoteRecord
from gwf.policy import Policy
from gwf.statements import Statement, Write
from gwf.tables import approval_seats, approvals, votes

_MINE: tuple[Any, Any] = (sa.bindparam("job_task_id"), sa.bindparam("attempt"))
_APPROVAL = Statement(
    sa.select(*queries.APPROVAL_COLUMNS).where(
        approvals.c.job_task_id == _MINE[0], approvals.c.attempt == _MINE[1]
    )
)
_SEATS = Statement(
    sa.select(
        approval_seats.c.id,
        approval_seats.c.seat,
        approval_seats.c.label,
        approval_seats.c.candidate,
        approval_seats.c.is_required,
        approval_seats.c.origin,
        approval_seats.c.principal_id,
        approval_seats.c.is_open,
    )
    .where(
        approval_seats.c.job_task_id == _MINE[0],
        approval_seats.c.attempt == _MINE[1],
        approval_seats.c.removed_at.is_(None),
    )
    .order_by(approval_seats.c.id)
)
_VOTES = Statement(
    sa.select(*queries.VOTE_COLUMNS)
    .where(
        votes.c.job_task_id == _MINE[0],
        votes.c.attempt == _MINE[1],
        votes.c.withdrawn_at.is_(None),
    )
    .order_by(votes.c.id)
)
_INSERT_APPROVAL = Statement(
    approvals.insert().values(
        {column.key: sa.bindparam(column.key) for column in approvals.c if column.key != "id"}
    )
)
_INSERT_SEAT = Statement(
    approval_seats.insert().values(
        {column.key: sa.bindparam(column.key) for column in approval_seats.c if column.key != "id"}
    )
)
_SET_TERMS = Statement(
    approvals.update()
    .where(
        approvals.c.job_task_id == sa.bindparam("b_job_task_id"),
        approvals.c.attempt == sa.bindparam("b_attempt"),
    )
    .values(
        needed=sa.bindparam("needed"),
        electorate=sa.bindparam("electorate"),
        n_escalations=sa.bindparam("n_escalations"),
        outcome=sa.bindparam("outcome"),
        decided_at=sa.bindparam("decided_at"),
    )
)
_OVERRIDE = Statement(
    approvals.update()
    .where(
        approvals.c.job_task_id == sa.bindparam("b_job_task_id"),
        approvals.c.attempt == sa.bindparam("b_attempt"),
    )
    .values(outcome="overridden", decided_at=sa.bindparam("decided_at"))
)
_SET_OPEN = Statement(
    approval_seats.update()
    .where(approval_seats.c.id == sa.bindparam("b_id"))
    .values(is_open=sa.bindparam("is_open"))
)
_REMOVE = Statement(
    approval_seats.update()
    .where(approval_seats.c.id == sa.bindparam("b_id"))
    .values(is_open=sa.false(), removed_at=sa.bindparam("removed_at"))
)

POLICY, SIGNER, ESCALATION = "policy", "signer", "escalation"
TRANSFER, DELEGATE = "transfer", "delegate"
ANYBODY = "any"


@dataclass(frozen=True, slots=True)
class SeatRow:
    """Hold one row of ``approval_seats`` that counts."""

    id: int
    seat: int
    label: str
    candidate: str
    is_required: bool
    origin: str
    principal_id: int | None
    is_open: bool

    @property
    def user_id(self) -> int | None:
        """Return the user that the candidate is, or None for a role or anybody."""
        kind, _, key = self.candidate.partition(":")
        return int(key) if kind == "user" else None


@dataclass(frozen=True, slots=True)
class Approval:
    """Hold all that is known of one attempt of an approval."""

    policy: Policy
    record: ApprovalRecord
    rows: tuple[SeatRow, ...]
    votes: tuple[VoteRecord, ...]

    @property
    def terms(self) -> Terms:
        """Return the numbers that are fixed."""
        record, rules = self.record, self.policy
        return Terms(record.needed, record.electorate, rules.reject_policy, rules.order)

    @property
    def seats(self) -> list[Seat]:
        """Return the seats, with whoever may sit there now."""
        return seats_from(self.rows)

    @property
    def ballots(self) -> list[Ballot]:
        """Return the votes that stand, each with the roles that its voter held then."""
        return [
            Ballot(
                Person(vote.user_id, frozenset(vote.roles or ()), vote.is_verified),
                "approve" if vote.decision == "approve" else "reject",
                vote.seat,
            )
            for vote in self.votes
        ]

    def principal_of(self, seat: int, user_id: int) -> int | None:
        """Return for whom this user votes there, where the seat was lent by a delegation."""
        lent = [
            row.principal_id
            for row in self.rows
            if row.seat == seat and row.origin == DELEGATE and row.user_id == user_id
        ]
        return lent[-1] if lent else None

    def vote_of(self, user_id: int | None) -> VoteRecord | None:
        """Return the vote of this person that stands, or None."""
        return next((vote for vote in self.votes if vote.user_id == user_id), None)

    def outcome(self, people: Iterable[Person] | None = None) -> Outcome:
        """Count the votes."""
        return ballots.outcome(self.terms, self.seats, self.ballots, people)


def seats_from(rows: Iterable[SeatRow]) -> list[Seat]:
    """Build the seats from their rows, in the order in which those were written."""
    seats: dict[int, Seat] = {}
    for row in rows:
        seat = seats.get(row.seat)
        kind, _, key = row.candidate.partition(":")
        if seat is None:
            is_user = kind == "user"
            seats[row.seat] = Seat(
                row.seat,
                row.label,
                "user" if is_user else "any" if kind == ANYBODY else "role",
                int(key) if is_user else None,
                row.is_required,
            )
        elif kind == "role":
            seats[row.seat] = dataclasses.replace(seat, also=seat.also | {key})
        else:
            who = int(key)
            gone = set() if row.principal_id is None else {row.principal_id}
            seats[row.seat] = dataclasses.replace(
                seat,
                stand_ins=(seat.stand_ins - gone) | {who},
                away=(seat.away | gone) - {who},
            )
    return list(seats.values())


def load(conn: Connection, task: JobTaskRecord) -> Approval:
    """Read the seats and votes of the current attempt of an approval.

    Raises
    ------
    Conflict
        The attempt was not started by gwf, so nobody was asked.
    """
    key = {"job_task_id": task.id, "attempt": task.attempt}
    found = _APPROVAL.fetch(conn, **key)
    if not found:
        raise Conflict(
            f"nobody was asked about {task.label}; "
            + (
                "complete_task ends it, since another program started it"
                if task.status == JobTaskStatus.RUNNING
                else "start_task asks its approvers"
            ),
            found=task.status,
        )
    return Approval(
        policy.parse(task.config),
        ApprovalRecord.from_row(found[0]),
        tuple(SeatRow(*row) for row in _SEATS.fetch(conn, **key)),
        tuple(VoteRecord.from_row(row) for row in _VOTES.fetch(conn, **key)),
    )


def add_row(
    state: JobState,
    task: JobTaskRecord,
    *,
    seat: int,
    label: str,
    candidate: str,
    is_required: bool,
    is_open: bool,
    origin: str = POLICY,
    principal_id: int | None = None,
) -> None:
    """Add a candidate for a seat."""
    state.also(
        Write(
            _INSERT_SEAT,
            {
                "job_task_id": task.id,
                "job_id": state.job.id,
                "attempt": task.attempt,
                "seat": seat,
                "label": label,
                "candidate": candidate,
                "is_required": is_required,
                "origin": origin,
                "principal_id": principal_id,
                "is_open": is_open,
                "created_at": state.now,
                "removed_at": None,
            },
        )
    )


def remove_rows(state: JobState, rows: Iterable[SeatRow]) -> None:
    """Let these rows count no more; they stay on record."""
    for row in rows:
        state.also(Write(_REMOVE, {"b_id": row.id, "removed_at": state.now}, rows=1))


def open_turn(state: JobState, approval: Approval) -> None:
    """Where the order counts, ask the one whose turn it is, and nobody else."""
    asked = {seat.number for seat in ballots.turn(approval.terms, approval.seats, approval.ballots)}
    for row in approval.rows:
        if row.is_open != (row.seat in asked):
            state.also(Write(_SET_OPEN, {"b_id": row.id, "is_open": not row.is_open}, rows=1))


def save_terms(state: JobState, record: ApprovalRecord) -> None:
    """Save the numbers and the outcome of an approval."""
    values: dict[str, Any] = {
        name: getattr(record, name)
        for name in ("needed", "electorate", "n_escalations", "outcome", "decided_at")
    }
    key = {"b_job_task_id": record.job_task_id, "b_attempt": record.attempt}
    state.also(Write(_SET_TERMS, values | key, rows=1))


def close(state: JobState, approval: Approval, outcome: str) -> None:
    """Record how the approval ended."""
    record = dataclasses.replace(approval.record, outcome=outcome, decided_at=state.now)
    save_terms(state, record)


def close_overridden(state: JobState, task: JobTaskRecord) -> None:
    """Record that an attempt ended without its votes; one that gwf never started has no record."""
    values = {"b_job_task_id": task.id, "b_attempt": task.attempt, "decided_at": state.now}
    state.also(Write(_OVERRIDE, values))


def insert_approval(state: JobState, task: JobTaskRecord, terms: Terms) -> None:
    """Save what is fixed when an attempt starts."""
    state.also(
        Write(
            _INSERT_APPROVAL,
            {
                "job_task_id": task.id,
                "job_id": state.job.id,
                "attempt": task.attempt,
                "needed": terms.needed,
                "electorate": terms.electorate,
                "n_escalations": 0,
                "outcome": None,
                "requested_at": state.now,
                "decided_at": None,
            },
        )
    )


def candidate(kind: str, label: str, user_id: PersonId | None) -> str:
    """Return how a candidate is written in a row."""
    if kind == ANYBODY:
        return ANYBODY
    return f"user:{user_id}" if kind == "user" else f"role:{label}"


def candidates_of(conn: Connection, who: int | str) -> tuple[int, list[str] | None]:
    """Return the id of a user and the candidates that mean them; None while nobody can tell.

    Raises
    ------
    UserNotFound, Invalid
    """
    open_mode = not directory.holds_anybody(conn)
    actor = directory.identify(conn, who, open_mode=open_mode)
    assert actor.operator_id is not None  # noqa: S101 - somebody is asked for
    if open_mode:
        return actor.operator_id, None
    roles = [candidate("role", role, None) for role in actor.roles]
    own = candidate("user", "", actor.operator_id)
    return actor.operator_id, [ANYBODY, own, *roles] if actor.is_active else []
