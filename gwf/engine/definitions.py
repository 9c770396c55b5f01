"""Create, edit and delete the definitions: tasks and flows.

Jobs copy what they need when they are created, so an edit here never touches a job (rule T7).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gwf import conditions, executors, policy, queries
from gwf.engine.rows import database_now
from gwf.errors import Conflict, FlowNotFound, InUse, Invalid, TaskNotFound
from gwf.execution import work_of
from gwf.limits import (
    MAX_SEQUENCE,
    MAX_VERSION,
    checked_choice,
    checked_flag,
    checked_id,
    checked_name,
    checked_object,
    checked_text,
    checked_whole,
)
from gwf.model import MAX_ROLLBACKS, FlowRecord, Position, TaskRecord, TaskType
from gwf.statements import Statement
from gwf.tables import flow_tasks, flows, job_tasks, jobs, schedules, tasks

#: How many users an InUse error names before it only counts.
_NAMED = 5

_task_by_id = sa.select(*queries.TASK_COLUMNS).where(tasks.c.id == sa.bindparam("task_id"))
_TASK_BY_ID = {
    "none": Statement(_task_by_id),
    "share": Statement(_task_by_id.with_for_update(read=True)),
    "update": Statement(_task_by_id.with_for_update()),
}
_FLOW_BY_ID = Statement(
    sa.select(*queries.FLOW_COLUMNS).where(flows.c.id == sa.bindparam("flow_id"))
)
_LOCK_FLOW = Statement(
    sa.select(*queries.FLOW_COLUMNS).where(flows.c.id == sa.bindparam("flow_id")).with_for_update()
)
_TASK_FIELDS = queries.fields_of(TaskRecord)
_FLOW_FIELDS = queries.fields_of(FlowRecord)
_POSITION_FIELDS = (
    "flow_id",
    "task_id",
    "sequence",
    "is_optional",
    "allow_rollback",
    "condition_config",
    "join_count",
    "created_at",
    "updated_at",
)


def _binds(names: Sequence[str]) -> dict[str, Any]:
    return {name: sa.bindparam(name) for name in names}


_INSERT_TASK = Statement(tasks.insert().values(_binds(_TASK_FIELDS)))
_INSERT_FLOW = Statement(flows.insert().values(_binds(_FLOW_FIELDS)))
_INSERT_POSITION = Statement(flow_tasks.insert().values(_binds(_POSITION_FIELDS)))


def create_task(conn: Connection, values: Mapping[str, Any]) -> TaskRecord:
    """Create a task from ``name``, ``task_type``, ``description``, ``config``, ``is_active``.

    Raises
    ------
    Invalid
        A value that cannot be stored, or an unknown task type.
    """
    now = database_now(conn)
    fields = {
        "description": None,
        "config": None,
        "is_active": True,
        **_checked_task(values),
        "created_at": now,
        "updated_at": now,
    }
    fields["executor"] = _expect_meaningful(fields)
    return TaskRecord(id=_INSERT_TASK.insert(conn, **fields), **fields)


def update_task(conn: Connection, task_id: int, values: Mapping[str, Any]) -> TaskRecord:
    """Change the given fields of a task; the others keep their values (rule T10).

    Raises
    ------
    TaskNotFound
        There is no such task.
    Invalid
        A value that cannot be stored.
    """
    wanted = _checked_task(values)
    task = replace(get_task(conn, task_id), **wanted, updated_at=database_now(conn))
    if "config" in wanted or "task_type" in wanted:
        wanted["executor"] = _expect_meaningful(
            {"task_type": task.task_type, "config": task.config}
        )
        task = replace(task, executor=wanted["executor"])
    conn.execute(
        tasks.update().where(tasks.c.id == task_id).values(**wanted, updated_at=task.updated_at)
    )
    return task


def delete_task(conn: Connection, task_id: int) -> None:
    """Delete a task that no flow and no job uses.

    Raises
    ------
    TaskNotFound
        There is no such task.
    InUse
        A flow or a job uses it; ``users`` names them.
    """
    task = get_task(conn, task_id, lock="update")
    of_flows = (
        sa.select(flows.c.id, flows.c.name)
        .distinct()
        .join_from(flow_tasks, flows, flows.c.id == flow_tasks.c.flow_id)
        .where(flow_tasks.c.task_id == task_id)
    )
    of_jobs = (
        sa.select(jobs.c.id, jobs.c.job_name)
        .distinct()
        .join_from(job_tasks, jobs, jobs.c.id == job_tasks.c.job_id)
        .where(job_tasks.c.task_id == task_id)
    )
    _expect_unused(conn, f"task {task_id} {task.name!r}", flow=of_flows, job=of_jobs)
    conn.execute(tasks.delete().where(tasks.c.id == task_id))


def create_flow(
    conn: Connection, values: Mapping[str, Any], positions: Sequence[Position]
) -> FlowRecord:
    """Create a flow from ``name``, ``version``, ``description`` and more, with its positions.

    Raises
    ------
    TaskNotFound
        A position names a task that does not exist.
    Invalid, ConditionInvalid
        A value, a sequence or a condition that cannot be stored.
    """
    checked = _checked_positions(conn, positions)
    now = database_now(conn)
    fields = {
        "version": "1.0.0",
        "description": None,
        "is_active": True,
        "max_rollbacks": MAX_ROLLBACKS,
        "created_by": None,
        **_checked_flow(values),
        "created_at": now,
        "updated_at": now,
    }
    flow = FlowRecord(id=_INSERT_FLOW.insert(conn, **fields), **fields)
    _insert_positions(conn, flow.id, checked, now)
    return flow


def update_flow(
    conn: Connection,
    flow_id: int,
    values: Mapping[str, Any],
    positions: Sequence[Position] | None = None,
) -> FlowRecord:
    """Change the given fields of a flow; positions, if given, replace the old ones as a whole.

    Raises
    ------
    FlowNotFound, TaskNotFound
        There is no such flow, or no such task in a position.
    Invalid, ConditionInvalid
        A value that cannot be stored.
    """
    wanted = _checked_flow(values)
    checked = None if positions is None else _checked_positions(conn, positions)
    rows = _LOCK_FLOW.fetch(conn, flow_id=flow_id)
    if not rows:
        raise FlowNotFound(flow_id)
    now = database_now(conn)
    conn.execute(flows.update().where(flows.c.id == flow_id).values(**wanted, updated_at=now))
    if checked is not None:
        conn.execute(flow_tasks.delete().where(flow_tasks.c.flow_id == flow_id))
        _insert_positions(conn, flow_id, checked, now)
    return replace(FlowRecord.from_row(rows[0]), **wanted, updated_at=now)


def delete_flow(conn: Connection, flow_id: int) -> None:
    """Delete a flow that no job was made from, with its positions.

    Raises
    ------
    FlowNotFound
        There is no such flow.
    InUse
        A job was made from it; ``users`` names the jobs.
    """
    rows = _LOCK_FLOW.fetch(conn, flow_id=flow_id)
    if not rows:
        raise FlowNotFound(flow_id)
    flow = FlowRecord.from_row(rows[0])
    of_jobs = sa.select(jobs.c.id, jobs.c.job_name).where(jobs.c.flow_id == flow_id)
    of_schedules = sa.select(schedules.c.id, schedules.c.job_name).where(
        schedules.c.flow_id == flow_id, schedules.c.is_active
    )
    _expect_unused(conn, f"flow {flow_id} {flow.name!r}", job=of_jobs, schedule=of_schedules)
    conn.execute(flow_tasks.delete().where(flow_tasks.c.flow_id == flow_id))
    conn.execute(flows.delete().where(flows.c.id == flow_id))


def get_task(
    conn: Connection, task_id: int, *, lock: Literal["none", "share", "update"] = "none"
) -> TaskRecord:
    """Return a task, or raise TaskNotFound.

    With ``share`` nobody deletes it before the end of the transaction, with ``update`` nobody uses
    it in a flow meanwhile.
    """
    rows = _TASK_BY_ID[lock].fetch(conn, task_id=checked_id("task id", task_id))
    if not rows:
        raise TaskNotFound(task_id)
    return TaskRecord.from_row(rows[0])


def get_flow(conn: Connection, flow_id: int) -> FlowRecord:
    """Return a flow, or raise FlowNotFound."""
    rows = _FLOW_BY_ID.fetch(conn, flow_id=checked_id("flow id", flow_id))
    if not rows:
        raise FlowNotFound(flow_id)
    return FlowRecord.from_row(rows[0])


def find_task(conn: Connection, name: str) -> TaskRecord:
    """Return the newest task of exactly this name, an active one before a retired one."""
    query = sa.select(*queries.TASK_COLUMNS).where(tasks.c.name == name)
    found = [TaskRecord.from_row(row) for row in conn.execute(query)]
    same = [task for task in found if task.name == name]  # a collation takes more for equal
    if not same:
        raise TaskNotFound(name)
    return max(same, key=lambda task: (task.is_active, task.id))


def find_flows(conn: Connection, name: str) -> list[FlowRecord]:
    """Return every flow of exactly this name: active before retired, newest first."""
    query = sa.select(*queries.FLOW_COLUMNS).where(flows.c.name == name)
    found = [FlowRecord.from_row(row) for row in conn.execute(query) if row.name == name]
    if not found:
        raise FlowNotFound(name)
    return sorted(found, key=lambda flow: (flow.is_active, flow.id), reverse=True)


def _checked_task(values: Mapping[str, Any]) -> dict[str, Any]:
    checks: dict[str, Callable[[Any], Any]] = {
        "name": lambda value: checked_name("task name", value),
        "task_type": lambda value: checked_choice("task type", value, TaskType),
        "description": lambda value: checked_text("description", value),
        "config": lambda value: None if value is None else checked_object("config", value),
        "is_active": lambda value: checked_flag("is_active", value),
    }
    return {name: checks[name](value) for name, value in values.items()}


def _checked_flow(values: Mapping[str, Any]) -> dict[str, Any]:
    checks: dict[str, Callable[[Any], Any]] = {
        "name": lambda value: checked_name("flow name", value),
        "version": lambda value: checked_name("version", value, longest=MAX_VERSION),
        "description": lambda value: checked_text("description", value),
        "is_active": lambda value: checked_flag("is_active", value),
        "max_rollbacks": lambda value: checked_whole(
            "max_rollbacks", value, lowest=0, highest=1_000_000
        ),
        "created_by": lambda value: None if value is None else checked_id("created_by", value),
    }
    return {name: checks[name](value) for name, value in values.items()}


def _checked_positions(conn: Connection, positions: Sequence[Position]) -> list[Position]:
    joins: dict[int, int | None] = {}
    sizes: dict[int, int] = {}
    for position in positions:
        checked_whole("sequence", position.sequence, lowest=1, highest=MAX_SEQUENCE)
        checked_flag("is_optional", position.is_optional)
        checked_flag("allow_rollback", position.allow_rollback)
        if position.condition_config is not None:
            _check_condition(position.condition_config)
        if joins.setdefault(position.sequence, position.join_count) != position.join_count:
            raise Invalid(
                "join", position.join_count, expected=f"one for the group {position.sequence}"
            )
        sizes[position.sequence] = sizes.get(position.sequence, 0) + 1
    for sequence, wanted in joins.items():
        if wanted is not None:
            checked_whole("join", wanted, lowest=1, highest=sizes[sequence])
    for task_id in dict.fromkeys(position.task_id for position in positions):
        _expect_active(get_task(conn, task_id, lock="share"))
    return sorted(positions, key=lambda position: position.sequence)


def _expect_meaningful(task: Mapping[str, Any]) -> str | None:
    """Refuse a config that its type of task could not use, and return the executor that it names.

    An approval has a policy, an automated task names work that could run (rule W1).
    """
    if task["task_type"] == TaskType.APPROVAL:
        policy.parse(task["config"])
    if task["task_type"] != TaskType.AUTOMATED:
        return None
    work = work_of(task["config"])
    if work is None:
        return None
    executors.expect_runnable(work)
    return work.executor


def _expect_active(task: TaskRecord) -> None:
    if not task.is_active:
        raise Conflict(
            f"task {task.id} {task.name!r} is retired",
            found="inactive",
            legal=("update_task(is_active=True)",),
        )


def _check_condition(config: Mapping[str, Any]) -> None:
    unknown = set(config) - {"condition", "skip_if_false"}
    if unknown:
        raise Invalid(
            "condition_config", sorted(unknown), expected="the keys condition and skip_if_false"
        )
    conditions.check(config.get("condition"))
    checked_flag("skip_if_false", config.get("skip_if_false", True))


def _insert_positions(
    conn: Connection, flow_id: int, positions: Sequence[Position], now: datetime
) -> None:
    _INSERT_POSITION.insert_many(
        conn,
        [
            {
                "flow_id": flow_id,
                "task_id": position.task_id,
                "sequence": position.sequence,
                "is_optional": position.is_optional,
                "allow_rollback": position.allow_rollback,
                "condition_config": position.condition_config,
                "join_count": position.join_count,
                "created_at": now,
                "updated_at": now,
            }
            for position in positions
        ],
    )


def _expect_unused(conn: Connection, what: str, **queries_by_noun: sa.Select[Any]) -> None:
    users: list[str] = []
    for noun, query in queries_by_noun.items():
        rows = conn.execute(query.limit(_NAMED + 1)).all()
        users += [f"{noun} {row[0]} {row[1]!r}" for row in rows[:_NAMED]]
        if len(rows) > _NAMED:
            users.append(f"more {noun}s")
    if users:
        raise InUse(what, users=users, legal=[f"update_{what.split(maxsplit=1)[0]}"])
