"""Be the client's plural nouns: every one is a pandas DataFrame."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy.engine import Connection

from gwf import timely
from gwf.client.door import Door, FlowLike, Instant, JobLike, choices, id_of
from gwf.engine.locks import get_job
from gwf.engine.rows import database_now
from gwf.limits import checked_flag, checked_instant, checked_limit
from gwf.model import Action, JobStatus, JobTaskStatus
from gwf.queries import Window

if TYPE_CHECKING:
    import pandas as pd

    from gwf.frames import Reading

#: How many rows a frame has at most unless ``limit`` says otherwise; a cut frame says so.
DEFAULT_LIMIT = 100_000


class Tables(Door):
    """Read the tables as DataFrames, filters pushed into SQL."""

    def tasks(
        self, *, is_active: bool | None = None, limit: int | None = DEFAULT_LIMIT
    ) -> pd.DataFrame:
        """Return one row per task, by id; see ``schemas.TASKS`` for columns and dtypes."""
        return self._frame("tasks", limit, is_active=is_active)

    def flows(
        self, *, is_active: bool | None = None, limit: int | None = DEFAULT_LIMIT
    ) -> pd.DataFrame:
        """Return one row per flow, by id; see ``schemas.FLOWS`` for columns and dtypes."""
        return self._frame("flows", limit, is_active=is_active)

    def flow_tasks(
        self, flow: FlowLike | None = None, *, limit: int | None = DEFAULT_LIMIT
    ) -> pd.DataFrame:
        """Return one row per position, by flow and sequence; see ``schemas.FLOW_TASKS``."""
        return self._frame("flow_tasks", limit, flow=flow)

    def jobs(
        self,
        *,
        status: str | Sequence[str] | None = None,
        flow: FlowLike | None = None,
        since: Instant = None,
        until: Instant = None,
        limit: int | None = DEFAULT_LIMIT,
        newest: bool = False,
    ) -> pd.DataFrame:
        """Return one row per job, by id; see ``schemas.JOBS`` for columns and dtypes.

        ``since`` and ``until`` (not included) are about ``created_at``; text without an offset is
        UTC. ``newest`` lets ``limit`` keep the last rows instead of the first.
        ``duration_s`` is in seconds and missing while the job is open.

        Raises
        ------
        Invalid
            An unknown status, a naive datetime, a negative limit.
        FlowNotFound
        """
        statuses = choices("status", status, JobStatus)
        return self._frame(
            "jobs", limit, newest=newest, flow=flow, status=statuses, since=since, until=until
        )

    def job_tasks(
        self,
        *,
        job: JobLike | None = None,
        status: str | Sequence[str] | None = None,
        flow: FlowLike | None = None,
        since: Instant = None,
        until: Instant = None,
        limit: int | None = DEFAULT_LIMIT,
    ) -> pd.DataFrame:
        """Return one row per task of a job, its current attempt; see ``schemas.ATTEMPTS``.

        Ordered by job, sequence and id. ``since`` and ``until`` are about the job's ``created_at``;
        ``wait_s`` and ``work_s`` are in seconds and missing while they last.
        """
        statuses = choices("status", status, JobTaskStatus)
        return self._frame(
            "job_tasks", limit, job=job, flow=flow, status=statuses, since=since, until=until
        )

    def attempts(
        self,
        *,
        job: JobLike | None = None,
        status: str | Sequence[str] | None = None,
        flow: FlowLike | None = None,
        since: Instant = None,
        until: Instant = None,
        limit: int | None = DEFAULT_LIMIT,
    ) -> pd.DataFrame:
        """Return one row per attempt, those that were sent back or retried included.

        Ordered by job, sequence, job task and attempt; columns as ``job_tasks``.
        """
        statuses = choices("status", status, JobTaskStatus)
        return self._frame(
            "attempts", limit, job=job, flow=flow, status=statuses, since=since, until=until
        )

    def logs(
        self,
        *,
        job: JobLike | None = None,
        action: str | Sequence[str] | None = None,
        flow: FlowLike | None = None,
        since: Instant = None,
        until: Instant = None,
        limit: int | None = DEFAULT_LIMIT,
    ) -> pd.DataFrame:
        """Return one row per entry of the log, in the order written; see ``schemas.LOGS``."""
        actions = choices("action", action, Action)
        return self._frame(
            "logs", limit, job=job, flow=flow, action=actions, since=since, until=until
        )

    def votes(
        self,
        *,
        job: JobLike | None = None,
        flow: FlowLike | None = None,
        since: Instant = None,
        until: Instant = None,
        limit: int | None = DEFAULT_LIMIT,
    ) -> pd.DataFrame:
        """Return one row per vote, in the order cast, withdrawn and superseded ones included.

        See ``schemas.VOTES``; ``since`` and ``until`` are about when the vote was cast.
        """
        return self._frame("votes", limit, job=job, flow=flow, since=since, until=until)

    def context(self, job: JobLike, *, superseded: bool = False) -> pd.DataFrame:
        """Return one row per key in force, or with ``superseded`` per value ever written."""
        return self._frame("context", None, job=job, superseded=superseded)

    def _frame(
        self,
        noun: str,
        limit: object,
        *,
        flow: FlowLike | None = None,
        newest: bool = False,
        **filters: Any,
    ) -> pd.DataFrame:
        """Read one frame; what its filters mean to the database is worked out here."""
        from gwf.frames import Reading

        wanted = checked_limit(limit)
        is_newest = checked_flag("newest", newest)
        if filters.get("is_active") is not None:
            checked_flag("is_active", filters["is_active"])
        shown = {name: str(value) for name, value in filters.items() if value is not None}
        for name in ("since", "until"):
            if name in filters:
                filters[name] = checked_instant(name, filters[name])
        job = filters.pop("job", None)
        job_id = None if job is None else id_of("job", job)

        def work(conn: Connection) -> pd.DataFrame:
            flow_ids = None if flow is None else self._flow_ids(conn, flow)
            if job_id is not None:
                get_job(conn, job_id)
            names = shown if flow_ids is None else shown | {"flow_ids": str(flow_ids)}
            reading = Reading(database_now(conn), wanted, names, newest=is_newest)
            return _read_frame(noun, conn, reading, job_id=job_id, flow_ids=flow_ids, **filters)

        if "since" in filters:
            timely.apply_all_deadlines(
                self.database
            )  # these frames show what becomes of running tasks
        frame = self._read(work)
        if frame.attrs["gwf"]["is_cut"]:
            which = "last" if is_newest else "first"
            warnings.warn(
                f"only the {which} {wanted:,} rows were read; pass limit=None for all of them",
                stacklevel=3,
            )
        return frame


def _read_frame(
    noun: str,
    conn: Connection,
    reading: Reading,
    *,
    job_id: int | None,
    flow_ids: list[int] | None,
    **filters: Any,
) -> pd.DataFrame:
    from gwf import frames

    if noun in ("tasks", "flows"):
        whole: Callable[..., pd.DataFrame] = getattr(frames, noun)
        return whole(conn, reading, **filters)
    if noun == "flow_tasks":
        return frames.flow_tasks(conn, reading, flow_ids=flow_ids)
    if noun == "context":
        assert job_id is not None  # noqa: S101 - context() takes a job
        return frames.context(conn, reading, job_id=job_id, **filters)
    action = filters.pop("action", None)
    window = Window(job_id=job_id, flow_ids=flow_ids, **filters)
    if noun == "logs":
        return frames.logs(conn, reading, window, action=action)
    windowed: Callable[..., pd.DataFrame] = getattr(frames, noun)
    return windowed(conn, reading, window)
