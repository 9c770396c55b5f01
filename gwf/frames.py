"""Turn a SELECT into a DataFrame with declared dtypes.

One schema per frame, applied always, so that an empty frame has the dtypes of a full one:
``int64`` ids (``Int64`` where there may be none), ``datetime64[us, UTC]`` instants, categories with
the full fixed set of values, ``str`` text, ``Float64`` seconds, JSON columns as Python objects.

Why not ``pandas.read_sql``: it loses types on nulls, time zones and empty results.
Nothing is cut silently: a frame that hits its limit warns, says so in ``df.attrs["gwf"]`` and
in its repr.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import pandas as pd
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gwf import queries
from gwf.limits import MAX_ID
from gwf.model import Action, JobStatus, JobTaskStatus, TaskType
from gwf.queries import Window

ID = "int64"
MAYBE_ID = "Int64"
INSTANT = "datetime64[us, UTC]"
TEXT = "str"
FLAG = "bool"
SECONDS = "Float64"
JSON = "object"


def _category(values: Iterable[str]) -> pd.CategoricalDtype:
    return pd.CategoricalDtype([str(value) for value in values])


TASK_TYPE = _category(TaskType)
JOB_STATUS = _category(JobStatus)
TASK_STATUS = _category(JobTaskStatus)
ACTION = _category(Action)
ANY_STATUS = _category(dict.fromkeys([*map(str, JobTaskStatus), *map(str, JobStatus)]))

Schema = Mapping[str, Any]

TASKS: Schema = {
    "task_id": ID,
    "name": TEXT,
    "task_type": TASK_TYPE,
    "description": TEXT,
    "config": JSON,
    "is_active": FLAG,
    "created_at": INSTANT,
    "updated_at": INSTANT,
}
FLOWS: Schema = {
    "flow_id": ID,
    "name": TEXT,
    "version": TEXT,
    "description": TEXT,
    "is_active": FLAG,
    "n_tasks": ID,
    "created_by": MAYBE_ID,
    "created_at": INSTANT,
    "updated_at": INSTANT,
    "max_rollbacks": ID,
}
FLOW_TASKS: Schema = {
    "flow_task_id": ID,
    "flow_id": ID,
    "flow_name": TEXT,
    "sequence": ID,
    "task_id": ID,
    "task_name": TEXT,
    "task_type": TASK_TYPE,
    "is_optional": FLAG,
    "allow_rollback": FLAG,
    "condition": TEXT,
    "skip_if_false": "boolean",
    "join_count": MAYBE_ID,
}
JOBS: Schema = {
    "job_id": ID,
    "job_name": TEXT,
    "flow_id": ID,
    "flow_name": TEXT,
    "status": JOB_STATUS,
    "current_task_seq": MAYBE_ID,
    "n_tasks": ID,
    "n_done": ID,
    "n_rollbacks": ID,
    "created_by": MAYBE_ID,
    "created_at": INSTANT,
    "started_at": INSTANT,
    "completed_at": INSTANT,
    "duration_s": SECONDS,
    "flow_version": TEXT,
    "paused_at": INSTANT,
}
ATTEMPTS: Schema = {
    "job_task_id": ID,
    "job_id": ID,
    "job_name": TEXT,
    "flow_id": ID,
    "flow_name": TEXT,
    "sequence": ID,
    "task_id": ID,
    "task_name": TEXT,
    "task_type": TASK_TYPE,
    "status": TASK_STATUS,
    "attempt": ID,
    "operator_id": MAYBE_ID,
    "result": JSON,
    "error_code": TEXT,
    "error_message": TEXT,
    "ready_at": INSTANT,
    "started_at": INSTANT,
    "completed_at": INSTANT,
    "due_at": INSTANT,
    "wait_s": SECONDS,
    "work_s": SECONDS,
}
LOGS: Schema = {
    "log_id": ID,
    "job_id": ID,
    "job_task_id": MAYBE_ID,
    "task_name": TEXT,
    "attempt": MAYBE_ID,
    "action": ACTION,
    "operator_id": MAYBE_ID,
    "on_behalf_of": MAYBE_ID,
    "from_status": ANY_STATUS,
    "to_status": ANY_STATUS,
    "message": TEXT,
    "metadata": JSON,
    "created_at": INSTANT,
}
CONTEXT: Schema = {
    "job_id": ID,
    "key": TEXT,
    "value": JSON,
    "job_task_id": MAYBE_ID,
    "attempt": MAYBE_ID,
    "created_at": INSTANT,
    "is_deleted": FLAG,
    "superseded_at": INSTANT,
}
USERS: Schema = {
    "user_id": ID,
    "name": TEXT,
    "display_name": TEXT,
    "is_active": FLAG,
    "roles": JSON,
    "created_at": INSTANT,
}

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


def users(conn: Connection, reading: Reading) -> pd.DataFrame:
    """Return one row per user, in the order of ids; ``roles`` holds lists."""
    return _frame(conn, queries.user_frame(limit=None), USERS, reading, derive=_with_roles)


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
