"""Turn a SELECT into a DataFrame with declared dtypes.

One schema per frame, applied always, so that an empty frame has the dtypes of a full one.

Why not ``pandas.read_sql``: it loses types on nulls, time zones and empty results.
Nothing is cut silently: a frame that hits its limit warns, says so in ``df.attrs["gwf"]`` and
in its repr.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any

import pandas as pd
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gwf import queries
from gwf.executors import Executor
from gwf.limits import MAX_ID
from gwf.queries import Window
from gwf.schemas import (
    ATTEMPTS,
    CONTEXT,
    EXECUTORS,
    FLOW_TASKS,
    FLOWS,
    INBOX,
    INSTANT,
    JOBS,
    JSON,
    LOGS,
    OUTCOMES,
    SCHEDULES,
    SECONDS,
    TASKS,
    USERS,
    VOTES,
    WORKERS,
    Schema,
)

Columns = dict[str, Sequence[Any]]


@dataclass(frozen=True, slots=True)
class Reading:
    """Say how a frame is read: when, with which filters, and at most how many rows."""

    as_of: datetime
    limit: int | None = None
    filters: Mapping[str, Any] = field(default_factory=dict)
    #: The limit keeps the last rows instead of the first; their order stays.
    newest: bool = False


class CutFrame(pd.DataFrame):
    """Be a DataFrame that says in its repr that rows were left out; what is made of it is plain."""

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        return pd.DataFrame

    def _note(self) -> str:
        return f"cut after {self.attrs['gwf']['limit']:,} rows; pass limit=None for all of them"

    def __repr__(self) -> str:
        """Return the table, then that it is cut."""
        return f"{super().__repr__()}\n[{self._note()}]"

    def _repr_html_(self) -> str | None:
        table = pd.DataFrame(self)._repr_html_()  # type: ignore[operator]  # as above
        return f"{table}<p role='status'>{self._note()}</p>"


def tasks(conn: Connection, reading: Reading, *, is_active: bool | None = None) -> pd.DataFrame:
    """Return one row per task, in the order of ids."""
    query = queries.task_frame(is_active=is_active, limit=_one_more(reading))
    return _frame(conn, query, TASKS, reading)


def flows(conn: Connection, reading: Reading, *, is_active: bool | None = None) -> pd.DataFrame:
    """Return one row per flow, in the order of ids; ``n_tasks`` counts its positions."""
    query = queries.flow_frame(is_active=is_active, limit=_one_more(reading))
    return _frame(conn, query, FLOWS, reading)


def flow_tasks(
    conn: Connection, reading: Reading, *, flow_ids: Sequence[int] | None
) -> pd.DataFrame:
    """Return one row per position, by flow and sequence; ``condition`` is missing without one."""
    query = queries.flow_task_frame(flow_ids=flow_ids, limit=_one_more(reading))
    return _frame(conn, query, FLOW_TASKS, reading, derive=_with_condition)


def jobs(conn: Connection, reading: Reading, window: Window) -> pd.DataFrame:
    """Return one row per job, in the order of ids; ``duration_s`` is missing while it is open."""
    query = queries.job_frame(_limited(window, reading), newest=reading.newest)
    return _frame(conn, query, JOBS, reading, derive=_with_duration)


def job_tasks(conn: Connection, reading: Reading, window: Window) -> pd.DataFrame:
    """Return one row per task of a job, its current attempt, by job and sequence."""
    query = queries.job_task_frame(_limited(window, reading))
    return _frame(conn, query, ATTEMPTS, reading, derive=_with_spans)


def attempts(conn: Connection, reading: Reading, window: Window) -> pd.DataFrame:
    """Return one row per attempt, superseded and current, by job, sequence and attempt."""
    query = queries.attempt_frame(_limited(window, reading))
    return _frame(conn, query, ATTEMPTS, reading, derive=_with_spans)


def logs(
    conn: Connection, reading: Reading, window: Window, *, action: Sequence[str] | None = None
) -> pd.DataFrame:
    """Return one row per entry of the log, in the order they were written."""
    query = queries.log_frame(_limited(window, reading), action=action)
    return _frame(conn, query, LOGS, reading)


def context(
    conn: Connection, reading: Reading, *, job_id: int, superseded: bool = False
) -> pd.DataFrame:
    """Return one row per key in force, or with ``superseded`` one per value ever written."""
    query = queries.context_frame(job_id, superseded=superseded)
    return _frame(conn, query, CONTEXT, reading)


def votes(conn: Connection, reading: Reading, window: Window) -> pd.DataFrame:
    """Return one row per vote, in the order they were cast.

    Withdrawn votes have a ``withdrawn_at``; those of an attempt that is over are ``is_superseded``.
    """
    query = queries.vote_frame(_limited(window, reading))
    return _frame(conn, query, VOTES, reading, derive=_with_voters)


def inbox(
    conn: Connection, reading: Reading, *, user_id: int, candidates: Sequence[str] | None
) -> pd.DataFrame:
    """Return one row per approval that waits for this user, by due time, those without one last."""
    query = queries.inbox_frame(user_id, candidates)
    return _frame(conn, query, INBOX, reading, derive=partial(_one_for_each_task, user_id))


def users(conn: Connection, reading: Reading) -> pd.DataFrame:
    """Return one row per user, in the order of ids; ``roles`` holds lists."""
    return _frame(conn, queries.user_frame(limit=None), USERS, reading, derive=_with_roles)


def schedules(conn: Connection, reading: Reading, *, is_active: bool | None = None) -> pd.DataFrame:
    """Return one row per schedule, in the order of ids."""
    return _frame(conn, queries.schedule_frame(is_active=is_active), SCHEDULES, reading)


def workers(conn: Connection, reading: Reading, *, dead_since: datetime) -> pd.DataFrame:
    """Return one row per worker, the one heard of last at the end.

    ``state`` is ``lost`` for one that was last heard of before ``dead_since`` and never stopped.
    """

    def derive(columns: Columns) -> Columns:
        pairs = zip(columns["state"], columns["seen_at"], strict=True)
        states = [
            "lost" if state != "stopped" and seen < dead_since else state for state, seen in pairs
        ]
        return {**columns, "state": states}

    return _frame(conn, queries.worker_frame(), WORKERS, reading, derive=derive)


def executors(installed: Sequence[Executor], registered: Sequence[Executor]) -> pd.DataFrame:
    """Return one row per executor, by name; those registered in this process are allowed here."""
    rows = sorted(
        [(one.name, one.source, False, one.summary) for one in installed]
        + [(one.name, one.source, True, one.summary) for one in registered]
    )
    columns = list(zip(*rows, strict=True))
    return _typed(dict(zip(EXECUTORS, columns, strict=True)), EXECUTORS)


def outcomes(rows: Sequence[tuple[int, int | None, str, str]]) -> pd.DataFrame:
    """Return one row per call of a batch, in the order given: what came of it, and why."""
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(OUTCOMES)
    return _typed(dict(zip(OUTCOMES, columns, strict=True)), OUTCOMES)


def empty(schema: Schema) -> pd.DataFrame:
    """Return the frame of this schema without rows."""
    return _typed({name: [] for name in schema}, schema)


def _one_more(reading: Reading) -> int | None:
    return None if reading.limit is None else min(reading.limit + 1, MAX_ID)


def _limited(window: Window, reading: Reading) -> Window:
    return replace(window, limit=_one_more(reading))


def _frame(
    conn: Connection,
    query: sa.Select[Any],
    schema: Schema,
    reading: Reading,
    *,
    derive: Callable[[Columns], Columns] | None = None,
) -> pd.DataFrame:
    result = conn.execute(query)
    names = list(result.keys())
    rows = result.fetchall()
    is_cut = reading.limit is not None and len(rows) > reading.limit
    if is_cut:
        rows = rows[: reading.limit]
    if reading.newest:
        rows = rows[::-1]
    found: Columns = dict(zip(names, zip(*rows, strict=True), strict=True)) if rows else {}
    columns = {name: found.get(name, ()) for name in names}
    frame = _typed(derive(columns) if derive else columns, schema)
    frame.attrs["gwf"] = {
        "as_of": reading.as_of.isoformat(),
        "filters": dict(reading.filters),
        "limit": reading.limit,
        "is_cut": is_cut,
    }
    if not is_cut:
        return frame
    cut = CutFrame(frame)
    cut.attrs = frame.attrs
    return cut


def _typed(columns: Columns, schema: Schema) -> pd.DataFrame:
    return pd.DataFrame(
        {name: _series(columns[name], dtype) for name, dtype in schema.items()},
        columns=list(schema),
    )


def _series(values: Any, dtype: Any) -> Any:
    if isinstance(values, pd.Series):
        return values.astype(dtype)
    if dtype == JSON:
        column = pd.Series(index=range(len(values)), dtype=object)
        column[:] = list(values)
        return column
    return pd.Series(list(values), dtype=dtype)


def _seconds(start: Sequence[Any], end: Sequence[Any]) -> Any:
    """Return end − start in seconds, missing where either is."""
    passed = _series(end, INSTANT) - _series(start, INSTANT)
    return passed.dt.total_seconds().astype(SECONDS)


def _with_spans(columns: Columns) -> Columns:
    waits: Any = _seconds(columns["ready_at"], columns["started_at"])
    works: Any = _seconds(columns["started_at"], columns["completed_at"])
    return {**columns, "wait_s": waits, "work_s": works}


def _with_duration(columns: Columns) -> Columns:
    earlier = pd.Series(list(columns["elapsed_us"]), dtype="Int64") / 1e6
    duration: Any = _seconds(columns["resumed_at"], columns["completed_at"]) + earlier
    return {**columns, "duration_s": duration}


def _with_condition(columns: Columns) -> Columns:
    configs = [one if isinstance(one, dict) else {} for one in columns["condition_config"]]
    return {
        **columns,
        "condition": [config.get("condition") for config in configs],
        "skip_if_false": [
            config.get("skip_if_false", True) if config else None for config in configs
        ],
    }


def _with_roles(columns: Columns) -> Columns:
    """Fold the rows of one user, one for each role, into one."""
    folded: dict[int, dict[str, Any]] = {}
    names = [name for name in columns if name != "role"]
    for index, user_id in enumerate(columns["user_id"]):
        user = folded.setdefault(
            user_id, {**{name: columns[name][index] for name in names}, "roles": []}
        )
        if columns["role"][index] is not None:
            user["roles"].append(columns["role"][index])
    return {name: [user[name] for user in folded.values()] for name in (*names, "roles")}


def _with_voters(columns: Columns) -> Columns:
    """Show people by name, or by number where the directory does not know them."""
    ids, others = columns["user_id"], columns["on_behalf_of"]
    voters = [name or str(who) for name, who in zip(columns["voter"], ids, strict=True)]
    principals = [
        None if who is None else name or str(who)
        for name, who in zip(columns["principal"], others, strict=True)
    ]
    superseded = [bool(flag) for flag in columns["is_superseded"]]
    return {**columns, "user": voters, "on_behalf_of": principals, "is_superseded": superseded}


def _one_for_each_task(user_id: int, columns: Columns) -> Columns:
    """Fold the seats of one approval into one row, without what the user may not decide."""
    seats: dict[int, list[str]] = {}
    first: list[int] = []
    for index, job_task_id in enumerate(columns["job_task_id"]):
        config = columns["config"][index] or {}
        is_barred = config.get("self_approval") == "bar_initiator"
        if is_barred and columns["created_by"][index] == user_id:
            continue
        if job_task_id not in seats:
            first.append(index)
        seats.setdefault(job_task_id, []).append(columns["seat"][index])
    kept = {name: [values[index] for index in first] for name, values in columns.items()}
    labels = [", ".join(dict.fromkeys(seats[key])) for key in kept["job_task_id"]]
    return {**kept, "seat": labels}
