"""Keep the rows of one approval of a sample job, as the engine writes them in open mode."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from gwf import ballots, policy
from gwf.ballots import Ballot, Person
from gwf.engine.seats import POLICY, candidate
from gwf.model import JobTaskRecord

Row = dict[str, Any]


class ApprovalRows:
    """Hold the approval, the seats and the votes of one attempt; all who vote approve."""

    def __init__(self, position: int, attempt: int, task: JobTaskRecord, now: datetime) -> None:
        self.position = position
        rules = policy.parse(task.config)
        self._seats = policy.seats_of(rules, dict.fromkeys(rules.names, ("role", None)))
        self._terms = policy.terms(rules, self._seats, None)
        self._ballots: list[Ballot] = []
        self._key: Row = {"attempt": attempt}
        self.due_at = None if rules.timeout is None else now + timedelta(seconds=rules.timeout)
        self._approval: Row = {
            **self._key,
            "needed": self._terms.needed,
            "electorate": self._terms.electorate,
            "n_escalations": 0,
            "outcome": None,
            "requested_at": now,
            "decided_at": None,
        }
        self._seat_rows: list[Row] = [
            {
                **self._key,
                "seat": seat.number,
                "label": seat.label,
                "candidate": candidate(seat.kind, seat.label, seat.user_id),
                "is_required": seat.is_required,
                "origin": POLICY,
                "principal_id": None,
                "is_open": True,
                "created_at": now,
                "removed_at": None,
            }
            for seat in self._seats
        ]
        self._votes: list[Row] = []

    @property
    def is_granted(self) -> bool:
        """Say whether enough people approved."""
        return ballots.outcome(self._terms, self._seats, self._ballots).status == "approved"

    def vote(self, user_id: int, comment: str | None, now: datetime) -> str:
        """Let somebody approve, and return the label of the seat that this fills."""
        voter = Person(user_id, is_verified=False)
        seat = ballots.seat_of(voter, self._seats, self._terms, self._seats, self._ballots)
        self._ballots.append(Ballot(voter, "approve", seat.number))
        self._votes.append(
            {
                **self._key,
                "user_id": user_id,
                "on_behalf_of": None,
                "decision": "approve",
                "seat": seat.number,
                "seat_label": seat.label,
                "comment": comment,
                "roles": [],
                "is_verified": False,
                "created_at": now,
                "withdrawn_at": None,
            }
        )
        return seat.label

    def granted(self, now: datetime) -> Row:
        """Record that it passed, and return the result."""
        self._approval.update(outcome="approved", decided_at=now)
        cast = [
            {
                "user": vote["user_id"],
                "decision": vote["decision"],
                "seat": vote["seat_label"],
                "comment": vote["comment"],
                "at": vote["created_at"].isoformat(),
            }
            for vote in self._votes
        ]
        return {"status": "approved", "approved": True, "votes": cast}

    def close(self) -> None:
        """Ask nobody any more."""
        for row in self._seat_rows:
            row["is_open"] = False

    def rows_of(self, job_id: int, job_task_id: int) -> tuple[Row, list[Row], list[Row]]:
        """Return the rows of ``approvals``, ``approval_seats`` and ``votes``, with their ids."""
        ids = {"job_id": job_id, "job_task_id": job_task_id}
        return (
            {**self._approval, **ids},
            [{**row, **ids} for row in self._seat_rows],
            [{**row, **ids} for row in self._votes],
        )
