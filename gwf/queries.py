"""Build every SELECT of gwf, as pure functions of their filters.

Two kinds: the records that the engine and the client read one by one (columns in the order of the
record's fields), and the frames (columns in the order of the design's table of frames).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from gwf.model import (
    ApprovalRecord,
    AttemptRecord,
    FlowRecord,
    JobRecord,
    JobTaskRecord,
    ScheduleRecord,
    TaskRecord,
    VoteRecord,
    WorkerRecord,
)
from gwf.tables import (
    approval_seats,
    approvals,
    flow_tasks,
    flows,
    job_context,
    job_task_attempts,
    job_task_logs,
    job_tasks,
    jobs,
    schedules,
    tasks,
    user_roles,
    users,
    votes,
    workers,
)


def columns_of(table: sa.FromClause, record: type[Any]) -> list[sa.ColumnElement[Any]]:
    """Return the columns of the table in the order of the record's fields."""
    return [table.c[field.name] for field in dataclasses.fields(record)]


def fields_of(record: type[Any]) -> tuple[str, ...]:
    """Return the names of the record's fields that an INSERT gives, so without the id."""
    return tuple(field.name for field in dataclasses.fields(record) if field.name != "id")


TASK_COLUMNS = columns_of(tasks, TaskRecord)
FLOW_COLUMNS = columns_of(flows, FlowRecord)
JOB_COLUMNS = columns_of(jobs, JobRecord)
JOB_TASK_COLUMNS = columns_of(job_tasks, JobTaskRecord)
ATTEMPT_COLUMNS = columns_of(job_task_attempts, AttemptRecord)
APPROVAL_COLUMNS = columns_of(approvals, ApprovalRecord)
VOTE_COLUMNS = columns_of(votes, VoteRecord)
SCHEDULE_COLUMNS = columns_of(schedules, ScheduleRecord)
WORKER_COLUMNS = columns_of(workers, WorkerRecord)


@dataclass(frozen=True, slots=True)
class Window:
    """Narrow a frame: whose rows, from when to when (``until`` is not included), how many."""

    job_id: int | None = None
    flow_ids: Sequence[int] | None = None
    status: Sequence[str] | None = None
    since: datetime | None = None
    until: datetime | None = None
    limit: int | None = None


def task_frame(*, is_active: bool | None, limit: int | None) -> sa.Select[Any]:
    """Select the frame ``tasks``, in the order of ids."""
    query = sa.select(
        tasks.c.id.label("task_id"),
        tasks.c.name,
        tasks.c.task_type,
        tasks.c.description,
        tasks.c.config,
        tasks.c.is_active,
        tasks.c.created_at,
        tasks.c.updated_at,
    ).order_by(tasks.c.id)
    if is_active is not None:
        query = query.where(tasks.c.is_active == is_active)
    return query.limit(limit)


def flow_frame(*, is_active: bool | None, limit: int | None) -> sa.Select[Any]:
    """Select the frame ``flows``, in the order of ids."""
    n_tasks = (
        sa.select(sa.func.count())
        .where(flow_tasks.c.flow_id == flows.c.id)
        .scalar_subquery()
        .label("n_tasks")
    )
    query = sa.select(
        flows.c.id.label("flow_id"),
        flows.c.name,
        flows.c.version,
        flows.c.description,
        flows.c.is_active,
        n_tasks,
        flows.c.created_by,
        flows.c.created_at,
        flows.c.updated_at,
        flows.c.max_rollbacks,
    ).order_by(flows.c.id)
    if is_active is not None:
        query = query.where(flows.c.is_active == is_active)
    return query.limit(limit)


def flow_task_frame(*, flow_ids: Sequence[int] | None, limit: int | None) -> sa.Select[Any]:
    """Select the frame ``flow_tasks``, by flow and sequence; the condition stays one column."""
    query = (
        sa.select(
            flow_tasks.c.id.label("flow_task_id"),
            flow_tasks.c.flow_id,
            flows.c.name.label("flow_name"),
            flow_tasks.c.sequence,
            flow_tasks.c.task_id,
            tasks.c.name.label("task_name"),
            tasks.c.task_type,
            flow_tasks.c.is_optional,
            flow_tasks.c.allow_rollback,
            flow_tasks.c.condition_config,
            flow_tasks.c.join_count,
        )
        .join_from(flow_tasks, flows, flows.c.id == flow_tasks.c.flow_id)
        .join(tasks, tasks.c.id == flow_tasks.c.task_id)
        .order_by(flow_tasks.c.flow_id, flow_tasks.c.sequence, flow_tasks.c.id)
    )
    if flow_ids is not None:
        query = query.where(flow_tasks.c.flow_id.in_(flow_ids))
    return query.limit(limit)


def job_frame(window: Window, *, newest: bool = False) -> sa.Select[Any]:
    """Select the frame ``jobs``; ``resumed_at`` and ``elapsed_us`` follow for the duration.

    With ``newest`` the rows come from the last one backwards.
    """
    query: sa.Select[Any] = sa.select(
        jobs.c.id.label("job_id"),
        jobs.c.job_name,
        jobs.c.flow_id,
        jobs.c.flow_name,
        jobs.c.status,
        jobs.c.current_task_seq,
        jobs.c.n_tasks,
        jobs.c.n_done,
        jobs.c.n_rollbacks,
        jobs.c.created_by,
        jobs.c.created_at,
        jobs.c.started_at,
        jobs.c.completed_at,
        jobs.c.flow_version,
        jobs.c.paused_at,
        jobs.c.resumed_at,
        jobs.c.elapsed_us,
    ).order_by(jobs.c.id.desc() if newest else jobs.c.id)
    query = _within(query, window, jobs.c.created_at)
    if window.status is not None:
        query = query.where(jobs.c.status.in_(window.status))
    return query.limit(window.limit)


def _attempt_half(table: sa.Table, window: Window, definition: sa.FromClause) -> sa.Select[Any]:
    """Select the attempts that one of the two tables holds, the definition from ``job_tasks``."""
    key = table.c.id if table is job_tasks else table.c.job_task_id
    query = sa.select(
        key.label("job_task_id"),
        table.c.job_id,
        jobs.c.job_name,
        jobs.c.flow_id,
        jobs.c.flow_name,
        definition.c.sequence,
        definition.c.task_id,
        definition.c.task_name,
        definition.c.task_type,
        table.c.status,
        table.c.attempt,
        table.c.operator_id.label("operator_id"),
        table.c.result,
        table.c.error_code,
        table.c.error_message,
        table.c.ready_at,
        table.c.started_at,
        table.c.completed_at,
        table.c.due_at,
        definition.c.executor,
        table.c.worker,
    ).join_from(table, jobs, jobs.c.id == table.c.job_id)
    if table is not job_tasks:
        query = query.join(job_tasks, job_tasks.c.id == table.c.job_task_id)
    if window.status is not None:
        query = query.where(table.c.status.in_(window.status))
    return _within(query, window, jobs.c.created_at)


def job_task_frame(window: Window) -> sa.Select[Any]:
    """Select the frame ``job_tasks``: the current attempt of each task, by job and sequence."""
    query = _attempt_half(job_tasks, window, job_tasks)
    return query.order_by(job_tasks.c.job_id, job_tasks.c.sequence, job_tasks.c.id).limit(
        window.limit
    )


def attempt_frame(window: Window) -> sa.Select[Any]:
    """Select the frame ``attempts``: superseded and current ones, by job, sequence and attempt."""
    both = sa.union_all(
        _attempt_half(job_task_attempts, window, job_tasks),
        _attempt_half(job_tasks, window, job_tasks),
    ).subquery("attempts")
    return (
        sa.select(*both.c)
        .order_by(both.c.job_id, both.c.sequence, both.c.job_task_id, both.c.attempt)
        .limit(window.limit)
    )


def log_frame(window: Window, *, action: Sequence[str] | None) -> sa.Select[Any]:
    """Select the frame ``logs``, in the order they were written."""
    logs = job_task_logs
    query: sa.Select[Any] = (
        sa.select(
            logs.c.id.label("log_id"),
            logs.c.job_id,
            logs.c.job_task_id,
            job_tasks.c.task_name,
            logs.c.attempt,
            logs.c.action,
            logs.c.operator_id,
            logs.c.on_behalf_of,
            logs.c.from_status,
            logs.c.to_status,
            logs.c.message,
            logs.c.metadata,
            logs.c.created_at,
        )
        .outerjoin_from(logs, job_tasks, job_tasks.c.id == logs.c.job_task_id)
        .order_by(logs.c.id)
    )
    if window.flow_ids is not None:
        query = query.join(jobs, jobs.c.id == logs.c.job_id)
    if action is not None:
        query = query.where(logs.c.action.in_(action))
    query = _within(query, window, logs.c.created_at, job_column=logs.c.job_id)
    return query.limit(window.limit)


def context_frame(job_id: int, *, superseded: bool) -> sa.Select[Any]:
    """Select the frame ``context``: the value in force of each key, or every value ever written."""
    query = sa.select(
        job_context.c.job_id,
        job_context.c.key.label("key"),
        job_context.c.value.label("value"),
        job_context.c.job_task_id,
        job_context.c.attempt,
        job_context.c.created_at,
        job_context.c.is_deleted,
        job_context.c.superseded_at,
    ).where(job_context.c.job_id == job_id)
    if not superseded:
        newer = job_context.alias("newer")
        query = query.where(
            job_context.c.superseded_at.is_(None),
            ~job_context.c.is_deleted,
            ~sa.exists().where(
                newer.c.job_id == job_context.c.job_id,
                newer.c.key == job_context.c.key,
                newer.c.id > job_context.c.id,
                newer.c.superseded_at.is_(None),
            ),
        )
    return query.order_by(job_context.c.id)


def vote_frame(window: Window) -> sa.Select[Any]:
    """Select the frame ``votes``, in the order cast, withdrawn and superseded ones included."""
    voter, principal = users.alias("voter"), users.alias("principal")
    query: sa.Select[Any] = (
        sa.select(
            votes.c.id.label("vote_id"),
            votes.c.job_id,
            votes.c.job_task_id,
            job_tasks.c.task_name,
            votes.c.attempt,
            voter.c.name.label("voter"),
            votes.c.user_id,
            votes.c.decision,
            votes.c.seat_label.label("seat"),
            votes.c.comment,
            votes.c.created_at,
            votes.c.withdrawn_at,
            principal.c.name.label("principal"),
            votes.c.on_behalf_of,
            votes.c.roles,
            votes.c.is_verified,
            (votes.c.attempt < job_tasks.c.attempt).label("is_superseded"),
        )
        .join_from(votes, job_tasks, job_tasks.c.id == votes.c.job_task_id)
        .outerjoin(voter, voter.c.id == votes.c.user_id)
        .outerjoin(principal, principal.c.id == votes.c.on_behalf_of)
        .order_by(votes.c.id)
    )
    if window.flow_ids is not None:
        query = query.join(jobs, jobs.c.id == votes.c.job_id)
    query = _within(query, window, votes.c.created_at, job_column=votes.c.job_id)
    return query.limit(window.limit)


def inbox_frame(user_id: int, candidates: Sequence[str] | None) -> sa.Select[Any]:
    """Select the frame ``inbox``: the seats that wait for this user's vote, by due time.

    ``candidates`` names the user and the roles held; None takes every open seat.
    The index on (is_open, candidate) finds them, however many other approvals are open.
    """
    seats, later = approval_seats, approval_seats.alias("later")
    voted = sa.exists().where(
        votes.c.job_task_id == seats.c.job_task_id,
        votes.c.attempt == seats.c.attempt,
        votes.c.user_id == user_id,
        votes.c.withdrawn_at.is_(None),
    )
    gave_away = sa.exists().where(
        later.c.job_task_id == seats.c.job_task_id,
        later.c.attempt == seats.c.attempt,
        later.c.seat == seats.c.seat,
        later.c.principal_id == user_id,
        later.c.id > seats.c.id,
        later.c.removed_at.is_(None),
    )
    query = (
        sa.select(
            seats.c.job_task_id,
            job_tasks.c.job_id,
            jobs.c.job_name,
            jobs.c.flow_id,
            jobs.c.flow_name,
            job_tasks.c.sequence,
            job_tasks.c.task_id,
            job_tasks.c.task_name,
            job_tasks.c.attempt,
            seats.c.label.label("seat"),
            jobs.c.created_by,
            job_tasks.c.started_at.label("requested_at"),
            job_tasks.c.due_at,
            job_tasks.c.config,
        )
        .join_from(seats, job_tasks, job_tasks.c.id == seats.c.job_task_id)
        .join(jobs, jobs.c.id == job_tasks.c.job_id)
        .where(seats.c.is_open == sa.true(), jobs.c.paused_at.is_(None), ~voted, ~gave_away)
        .order_by(job_tasks.c.due_at.is_(None), job_tasks.c.due_at, seats.c.id)
    )
    return query if candidates is None else query.where(seats.c.candidate.in_(candidates))


def user_frame(*, limit: int | None) -> sa.Select[Any]:
    """Select the users of the directory, one row per user and role (role null without one)."""
    return (
        sa.select(
            users.c.id.label("user_id"),
            users.c.name,
            users.c.display_name,
            users.c.is_active,
            users.c.created_at,
            user_roles.c.role,
        )
        .outerjoin_from(users, user_roles, user_roles.c.user_id == users.c.id)
        .order_by(users.c.id, user_roles.c.role)
        .limit(limit)
    )


def schedule_frame(*, is_active: bool | None) -> sa.Select[Any]:
    """Select the frame ``schedules``, in the order of ids."""
    query = (
        sa.select(
            schedules.c.id.label("schedule_id"),
            schedules.c.flow_id,
            flows.c.name.label("flow_name"),
            *(column for column in SCHEDULE_COLUMNS if column.name not in ("id", "flow_id")),
        )
        .join_from(schedules, flows, flows.c.id == schedules.c.flow_id)
        .order_by(schedules.c.id)
    )
    return query if is_active is None else query.where(schedules.c.is_active == is_active)


def worker_frame() -> sa.Select[Any]:
    """Select the frame ``workers``, the one heard of last at the end."""
    return sa.select(
        workers.c.name.label("worker"),
        *(column for column in WORKER_COLUMNS if column.name != "name"),
    ).order_by(workers.c.seen_at, workers.c.name)


def _within(
    query: sa.Select[Any],
    window: Window,
    instant: sa.ColumnElement[datetime],
    *,
    job_column: sa.ColumnElement[int] | None = None,
) -> sa.Select[Any]:
    if window.job_id is not None:
        query = query.where((jobs.c.id if job_column is None else job_column) == window.job_id)
    if window.flow_ids is not None:
        query = query.where(jobs.c.flow_id.in_(window.flow_ids))
    if window.since is not None:
        query = query.where(instant >= window.since)
    if window.until is not None:
        query = query.where(instant < window.until)
    return query
