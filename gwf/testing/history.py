"""Load a sample history into a database, in bulk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import partial
from itertools import chain, islice
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gwf import tables
from gwf.client import Client, Flow
from gwf.database import read, write
from gwf.errors import Conflict, Invalid
from gwf.limits import checked_instant, checked_whole
from gwf.model import JobTaskRecord, JobTaskStatus
from gwf.statements import Statement
from gwf.tables import flow_tasks, job_task_attempts, job_task_logs, job_tasks, jobs, tasks
from gwf.testing.approvals import Row
from gwf.testing.flows import HOTFIX, STANDARD, TASKS, SampleFlow, sample_flows
from gwf.testing.rows import JobRows
from gwf.testing.stories import Plan, tell

#: Jobs of one transaction.
_CHUNK = 400


def _insert(table: sa.Table) -> Statement:
    names = [column.key for column in table.c if column.key != "id"]
    return Statement(table.insert().values({name: sa.bindparam(name) for name in names}))


_INSERT_JOB = _insert(jobs)
_INSERT_TASK = _insert(job_tasks)
_INSERT_ATTEMPT = _insert(job_task_attempts)
_INSERT_LOG = _insert(job_task_logs)
_INSERT_APPROVAL = _insert(tables.approvals)
_INSERT_SEAT = _insert(tables.approval_seats)
_INSERT_VOTE = _insert(tables.votes)
_TASKS_OF_FLOW = Statement(
    sa.select(
        flow_tasks.c.id,
        flow_tasks.c.sequence,
        flow_tasks.c.task_id,
        tasks.c.name,
        tasks.c.task_type,
        tasks.c.config,
        flow_tasks.c.is_optional,
        flow_tasks.c.allow_rollback,
        flow_tasks.c.condition_config,
        flow_tasks.c.join_count,
        tasks.c.executor,
    )
    .join_from(flow_tasks, tasks, tasks.c.id == flow_tasks.c.task_id)
    .where(flow_tasks.c.flow_id == sa.bindparam("flow_id"))
    .order_by(flow_tasks.c.sequence, flow_tasks.c.id)
)


def sample_history(
    wf: Client, *, n_jobs: int, seed: int = 0, now: datetime, weeks: int = 12
) -> list[int]:
    """Add jobs of both sample flows as they would stand at ``now``, and return their ids in order.

    They were created over the weeks before, in office hours in Shanghai; they waited, were worked
    on, sent back, failed and tried again, and the last few are under way. The rows are those that
    the engine would have left, so it can go on with them; the log is in order within each job.
    Equal arguments give an equal history in every database, ids aside.
    Jobs are loaded 400 at a time, each lot in one transaction.

    Parameters
    ----------
    seed
        Which history.
    now
        The aware instant at which the history ends; nothing in it is later.
    weeks
        Over how many weeks the jobs were created.

    Raises
    ------
    Invalid
        A negative number, or a naive datetime.
    Conflict
        A flow of that name exists but is not as published.
    """
    checked_whole("n_jobs", n_jobs, lowest=0, highest=10_000_000)
    checked_whole("weeks", weeks, lowest=1, highest=1_000)
    end = checked_instant("now", now)
    if end is None:
        raise Invalid("now", now, expected="the aware datetime at which the history ends")
    standard, hotfix = sample_flows(wf)
    plans = published_plan(wf, standard, STANDARD), published_plan(wf, hotfix, HOTFIX)
    told = tell(*plans, n_jobs=n_jobs, seed=seed, now=end, weeks=weeks)
    job_ids: list[int] = []
    for chunk in _chunks(told):
        job_ids += write(wf.database, partial(_insert_jobs, chunk=chunk))
    return job_ids


def published_plan(wf: Client, flow: Flow, published: SampleFlow) -> Plan:
    """Return what a job of the flow copies, or refuse a flow whose story nobody knows."""
    rows = read(wf.database, lambda conn: _TASKS_OF_FLOW.fetch(conn, flow_id=flow.id))
    definitions = {task["name"]: task for task in TASKS}
    wanted = [
        (
            sequence,
            name,
            definitions[name]["task_type"],
            definitions[name]["config"],
            name in published.optional,
            name not in published.no_rollback,
            None,
        )
        for sequence, name in enumerate(published.task_names, start=1)
    ]
    if [(row[1], *row[3:9]) for row in rows] != wanted or not flow.is_active:
        raise Conflict(
            f"flow {flow.id} {flow.name!r} is not as published, so no job of it can be made up",
            found="edited",
            legal=("update_flow(name=…)",),
        )
    return Plan(flow.record, tuple(_blank(row) for row in rows))


def _blank(row: Sequence[Any]) -> JobTaskRecord:
    """Return a pending first attempt of what one row of ``_TASKS_OF_FLOW`` defines."""
    *definition, executor = row
    status, attempt, is_skipped = str(JobTaskStatus.PENDING), 1, False
    n_retries = 0
    return JobTaskRecord.from_row(
        (
            0,
            0,
            *definition,
            status,
            attempt,
            is_skipped,
            *[None] * 8,
            executor,
            None,
            None,
            n_retries,
        )
    )


def _chunks(told: Iterator[JobRows]) -> Iterator[list[JobRows]]:
    while chunk := list(islice(told, _CHUNK)):
        yield chunk


def _insert_jobs(conn: Connection, chunk: Sequence[JobRows]) -> list[int]:
    """Insert these jobs with all that belongs to them, and return their ids."""
    job_ids = _INSERT_JOB.insert_for_ids(conn, [rows.job for rows in chunk])
    own_tasks = [rows.tasks_of(job_id) for rows, job_id in zip(chunk, job_ids, strict=True)]
    task_ids = iter(_INSERT_TASK.insert_for_ids(conn, list(chain(*own_tasks))))
    attempts: list[Row] = []
    logs: list[Row] = []
    asked: list[Row] = []
    seats: list[Row] = []
    votes: list[Row] = []
    for rows, job_id, own in zip(chunk, job_ids, own_tasks, strict=True):
        own_ids = list(islice(task_ids, len(own)))
        attempts += rows.attempts_of(job_id, own_ids)
        logs += rows.logs_of(job_id, own_ids)
        for approval in rows.approvals:
            request, places, cast = approval.rows_of(job_id, own_ids[approval.position])
            asked.append(request)
            seats += places
            votes += cast
    _INSERT_APPROVAL.insert_many(conn, asked)
    _INSERT_SEAT.insert_many(conn, seats)
    _INSERT_VOTE.insert_many(conn, sorted(votes, key=lambda row: row["created_at"]))
    _INSERT_ATTEMPT.insert_many(conn, sorted(attempts, key=lambda row: row["superseded_at"]))
    _INSERT_LOG.insert_many(conn, sorted(logs, key=lambda row: row["created_at"]))
    return job_ids
