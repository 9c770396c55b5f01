"""Give an approval to a notebook: who sits where, what is missing, until when; and a vote."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.engine import Connection

from gwf import directory
from gwf.ballots import PersonId, Seat
from gwf.client.objects import table_html
from gwf.engine import lookup, seats
from gwf.engine.rows import database_now
from gwf.errors import Conflict
from gwf.model import JobTaskStatus, TaskType, VoteRecord
from gwf.records import Record


@dataclass(frozen=True, slots=True)
class Vote(Record):
    """Be one vote, and say where the approval stands after it.

    ``status`` is ``open``, ``approved`` or ``rejected``; ``missing`` says what is still needed.
    """

    vote_id: int
    job_id: int
    job_task_id: int
    attempt: int
    user: str
    decision: str
    seat: str | None
    comment: str | None
    created_at: datetime
    withdrawn_at: datetime | None
    status: str
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SeatView:
    """Be one seat: for whom it is, who else may sit there, and whose approval fills it."""

    label: str
    is_required: bool
    filled_by: str | None
    stand_ins: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Approval:
    """Be one attempt of an approval, as it was read; ``due_in_s`` is in seconds, negative if late.

    ``status`` is ``open`` while votes are taken, else ``approved``, ``rejected``, ``timed_out``,
    ``overridden`` or the status that the task ended with.
    """

    job_task_id: int
    task_name: str
    attempt: int
    status: str
    n_approved: int
    n_rejected: int
    needed: int
    seats: tuple[SeatView, ...]
    missing: tuple[str, ...]
    votes: tuple[tuple[str, str, str | None], ...]
    requested_at: datetime
    due_at: datetime | None
    due_in_s: float | None

    def __repr__(self) -> str:
        """Return the state in sentences: this is read in a cell or a terminal."""
        lines = [f"Approval of {self.task_name!r} (attempt {self.attempt}): {self._state()}"]
        for seat in self.seats:
            who = seat.filled_by or "nobody yet"
            besides = f", or {', '.join(seat.stand_ins)}" if seat.stand_ins else ""
            kind = "" if seat.is_required else " (may vote)"
            lines.append(f"  {seat.label}{besides}{kind}: {who}")
        for user, decision, comment in self.votes:
            lines.append(f"  {user} voted {decision}" + (f": {comment}" if comment else ""))
        return "\n".join(lines)

    def _state(self) -> str:
        counted = f"{self.n_approved} of {self.needed} approved"
        if self.status != "open":
            return f"{self.status}, {counted}"
        needs = f"needs {', '.join(self.missing)}" if self.missing else "decided"
        return f"open, {counted}; {needs}{self._due()}"

    def _due(self) -> str:
        if self.due_in_s is None:
            return ""
        minutes = self.due_in_s / 60
        return f"; due in {minutes:,.0f} min" if minutes >= 1 else f"; due in {self.due_in_s:.0f} s"

    def _repr_html_(self) -> str:
        facts: dict[str, object] = {
            "attempt": self.attempt,
            "state": self._state(),
            "due": self.due_at,
        }
        for number, seat in enumerate(self.seats, start=1):
            besides = f", or {', '.join(seat.stand_ins)}" if seat.stand_ins else ""
            facts[f"seat {number}: {seat.label}{besides}"] = seat.filled_by or "nobody yet"
        for user, decision, comment in self.votes:
            facts[user] = f"{decision}: {comment}" if comment else decision
        return table_html(f"Approval {self.task_name}", facts)


def read_approval(conn: Connection, job_task_id: int) -> Approval:
    """Return the current attempt of an approval.

    Raises
    ------
    JobTaskNotFound
    Conflict
        The task is no approval, or nobody was asked yet.
    """
    task = lookup.job_task(conn, job_task_id)
    if task.task_type != TaskType.APPROVAL:
        raise Conflict(
            f"{task.label} is a {task.task_type} task, it has no approvers", found=task.task_type
        )
    found = seats.load(conn, task)
    result, record = found.outcome(), found.record
    names = directory.names_of(conn)
    is_open = task.status == JobTaskStatus.RUNNING
    due_at = task.due_at if is_open else None
    return Approval(
        job_task_id=task.id,
        task_name=task.task_name,
        attempt=task.attempt,
        status=record.outcome or ("open" if is_open else task.status),
        n_approved=result.n_approved,
        n_rejected=result.n_rejected,
        needed=result.needed,
        seats=tuple(_view(seat, result.filled, names) for seat in found.seats),
        missing=result.missing if is_open else (),
        votes=tuple(
            (_shown(vote.user_id, names), vote.decision, vote.comment) for vote in found.votes
        ),
        requested_at=record.requested_at,
        due_at=due_at,
        due_in_s=None if due_at is None else (due_at - database_now(conn)).total_seconds(),
    )


def vote_of(conn: Connection, record: VoteRecord) -> Vote:
    """Return a vote, with where its approval stands now, in the transaction that cast it."""
    task = lookup.job_task(conn, record.job_task_id, is_locked=True)
    found = seats.load(conn, dataclasses.replace(task, attempt=record.attempt))
    is_open = found.record.outcome is None and task.attempt == record.attempt
    return Vote(
        vote_id=record.id,
        job_id=record.job_id,
        job_task_id=record.job_task_id,
        attempt=record.attempt,
        user=_shown(record.user_id, directory.names_of(conn)),
        decision=record.decision,
        seat=record.seat_label,
        comment=record.comment,
        created_at=record.created_at,
        withdrawn_at=record.withdrawn_at,
        status=found.record.outcome or ("open" if is_open else "over"),
        missing=found.outcome().missing if is_open else (),
    )


def _view(seat: Seat, filled: Mapping[int, PersonId], names: Mapping[int, str]) -> SeatView:
    person = filled.get(seat.number)
    others = (*sorted(seat.also), *(_shown(one, names) for one in sorted(seat.stand_ins, key=str)))
    return SeatView(
        seat.label,
        seat.is_required,
        None if person is None else _shown(person, names),
        others,
    )


def _shown(who: PersonId, names: Mapping[int, str]) -> str:
    return names.get(who, str(who)) if isinstance(who, int) else who
