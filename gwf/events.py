"""Name what a hook can be told about, and what wakes the workers of this process."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Event:
    """Say what happened, to whoever asked to be told; ``at`` is the time of the database.

    ``name`` is one of ``EVENTS``, or ``TASK_DUE``, which is for workers alone.
    """

    name: str
    job_id: int
    job_name: str
    job_task_id: int | None
    task_name: str | None
    attempt: int | None
    operator_id: int | None
    message: str | None
    at: datetime


#: An automated task may be taken by a worker.
TASK_DUE = "task_due"

#: What a hook can be told about.
EVENTS = (
    "approval_requested",
    "vote_cast",
    "decided",
    "overdue",
    "escalated",
    "seat_moved",
    "task_failed",
    "sent_back",
    "job_completed",
    "job_failed",
    "job_cancelled",
)
