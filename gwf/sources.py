"""Say where a worker gets its work from: from any job there is, or from some jobs alone.

Why a worker looks rarely: what its own reports make due it claims in the same transaction, and what
others of its process make due wakes it. A look is for what other processes made due.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Protocol

from gwf import database, timely
from gwf.database import Database
from gwf.engine import claims, schedules
from gwf.engine.claims import FoundWork, Lease, Step
from gwf.engine.rows import database_now
from gwf.errors import Conflict, NotFound

logger = logging.getLogger(__name__)

#: The longest pause between two looks of an idle worker, in seconds.
LONGEST_PAUSE_S = 4.0
#: A job that another worker has is looked at again after this time.
LOOK_AGAIN = timedelta(seconds=1)
#: Several workers find the same tasks, so each looks at more than it wants and takes some.
_SPARE = 4


class Source(Protocol):
    """Give work to a worker."""

    def take(self, db: Database, lease: Lease, *, limit: int) -> list[Step]:
        """Claim up to ``limit`` tasks."""

    def note(self, step: Step, *, is_busy: bool) -> None:
        """Learn where a job stands after a report; ``is_busy`` says that some of it runs here."""

    def look_again(self, job_id: int) -> None:
        """Learn that an attempt of this job was lost, so that nobody knows where the job stands."""

    def pause_s(self) -> float:
        """Return the seconds until the next look, as the last one came out."""

    def is_exhausted(self) -> bool:
        """Say whether no work will ever come, once nothing runs any more."""


class AnyJob:
    """Take work from every job, apply deadlines, and create the jobs that schedules make due."""

    def __init__(self, *, pause_s: float = 1.0) -> None:
        self._shortest_s = pause_s
        self._pause_s = pause_s
        self._is_idle = False

    def take(self, db: Database, lease: Lease, *, limit: int) -> list[Step]:
        """Look once, by one query, and do what there is to do."""
        names = sorted(lease.executors)
        wanted = max(limit, 1) * _SPARE
        found = database.read(db, lambda conn: claims.find_work(conn, names, limit=wanted))
        self._keep_time(db, found)
        ids = list(found.job_task_ids)
        if len(ids) > limit:
            ids = random.sample(ids, limit)
        steps = database.write(db, lambda conn: claims.claim(conn, ids, lease)) if ids else []
        is_idle = not (steps or found.schedule_ids)
        longer = min(self._pause_s * 1.5, max(LONGEST_PAUSE_S, self._shortest_s))
        self._pause_s = longer if is_idle else self._shortest_s
        self._is_idle = is_idle
        return steps

    def note(self, step: Step, *, is_busy: bool) -> None:
        """Learn nothing: the next look finds what there is."""

    def look_again(self, job_id: int) -> None:
        """Learn nothing: the next look finds what there is."""

    def pause_s(self) -> float:
        """Return nothing after a find, else a pause that grows, with jitter."""
        return self._pause_s * random.uniform(1.0, 1.25) if self._is_idle else 0.0  # noqa: S311 - jitter is no secret

    def is_exhausted(self) -> bool:
        """Say that there may always be more."""
        return False

    def _keep_time(self, db: Database, found: FoundWork) -> None:
        for job_id in found.late_job_ids:
            timely.apply_deadlines(db, job_id)
        for schedule_id in found.schedule_ids:
            _create_jobs(db, schedule_id)


class GivenJobs:
    """Take work from some jobs alone, until none of them can go on by itself."""

    def __init__(self, job_ids: Iterable[int]) -> None:
        #: When each job that may go on has to be looked at next; None stands for at once.
        self._next_look: dict[int, datetime | None] = dict.fromkeys(job_ids)
        self._busy: set[int] = set()
        self._pause_s = 0.0

    def take(self, db: Database, lease: Lease, *, limit: int) -> list[Step]:
        """Look at the jobs that have nothing running here, as far as there is room."""
        now = database.read(db, database_now)
        steps: list[Step] = []
        for job_id, at in list(self._next_look.items()):
            room = limit - sum(len(step.claims) for step in steps)
            if room <= 0:
                break
            if job_id not in self._busy and (at is None or at <= now):
                steps.append(_claim_in(db, job_id, lease, limit=room))
                self.note(steps[-1], is_busy=bool(steps[-1].claims))
        self._pause_s = self._until_next_look(now)
        return steps

    def note(self, step: Step, *, is_busy: bool) -> None:
        """Learn when to look at the job again, or that it needs a person."""
        job_id = step.job.id
        self._busy.discard(job_id)
        if is_busy:
            self._busy.add(job_id)
            self._next_look[job_id] = None
        elif step.next_at is None:
            self._next_look.pop(job_id, None)
        else:  # another worker may be done with it before its lease ends
            self._next_look[job_id] = min(step.next_at, step.now + LOOK_AGAIN)
            self._pause_s = self._until_next_look(step.now)

    def look_again(self, job_id: int) -> None:
        """Look at the job at once."""
        self._busy.discard(job_id)
        self._next_look[job_id] = None
        self._pause_s = 0.0

    def pause_s(self) -> float:
        """Return the seconds until one of the jobs may go on."""
        return self._pause_s

    def is_exhausted(self) -> bool:
        """Say whether every job has ended or needs a person."""
        return not self._next_look

    def _until_next_look(self, now: datetime) -> float:
        waiting = [at for job_id, at in self._next_look.items() if job_id not in self._busy]
        if any(at is None for at in waiting):
            return 0.0
        instants = [at for at in waiting if at is not None]
        return max(0.0, (min(instants) - now).total_seconds()) if instants else 1.0


def _claim_in(db: Database, job_id: int, lease: Lease, *, limit: int) -> Step:
    return timely.write(db, lambda conn: claims.claim_in_job(conn, job_id, lease, limit=limit))


def _create_jobs(db: Database, schedule_id: int) -> None:
    try:
        created = timely.write(db, lambda conn: schedules.create_due_jobs(conn, schedule_id))
    except (Conflict, NotFound) as error:
        logger.warning("schedule failed: %s", error, extra={"schedule_id": schedule_id})
    else:
        logger.info("jobs created", extra={"schedule_id": schedule_id, "job_ids": created})
