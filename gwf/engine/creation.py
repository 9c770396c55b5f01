"""Create jobs from a flow, one or ten thousand.

Why ``INSERT … SELECT`` copies the flow into a job: the rows never travel, it is portable, and one
statement serves one job or ten thousand. The flow's row is share-locked meanwhile, so an edit of
the flow comes wholly before or wholly after (rule T7).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gwf import directory, queries
from gwf.engine.context import INSERT_CONTEXT, checked_context
from gwf.engine.replay import checked_key, digest_of, find
from gwf.engine.rows import REMEMBER, clock_of, server_clock
from gwf.errors import Conflict, FlowNotFound, Invalid
from gwf.limits import checked_name
from gwf.model import Action, Call, FlowRecord, JobRecord, JobStatus, JobTaskStatus
from gwf.statements import INSERT_ROWS, Statement, Write, execute
from gwf.tables import UtcDateTime, flow_tasks, flows, job_task_logs, job_tasks, jobs, tasks

_n_tasks = (
    sa.select(sa.func.count())
    .where(flow_tasks.c.flow_id == sa.bindparam("flow_id"))
    .scalar_subquery()
)
_first_sequence = (
    sa.select(sa.func.min(flow_tasks.c.sequence))
    .where(flow_tasks.c.flow_id == sa.bindparam("flow_id"))
    .scalar_subquery()
)
_FLOW = Statement(
    sa.select(
        *queries.FLOW_COLUMNS,
        _n_tasks.label("n_tasks"),
        _first_sequence.label("first_sequence"),
        server_clock().label("now"),
        directory.HOLDS_ANYBODY,
    )
    .where(flows.c.id == sa.bindparam("flow_id"))
    .with_for_update(read=True)
)
_JOB_FIELDS = queries.fields_of(JobRecord)
_INSERT_JOB = Statement(jobs.insert().values({name: sa.bindparam(name) for name in _JOB_FIELDS}))
_JOB = Statement(sa.select(*queries.JOB_COLUMNS).where(jobs.c.id == sa.bindparam("job_id")))

_COPIED = {
    "job_id": jobs.c.id,
    "flow_task_id": flow_tasks.c.id,
    "task_id": flow_tasks.c.task_id,
    "sequence": flow_tasks.c.sequence,
    "task_name": tasks.c.name,
    "task_type": tasks.c.task_type,
    "config": tasks.c.config,
    "is_optional": flow_tasks.c.is_optional,
    "allow_rollback": flow_tasks.c.allow_rollback,
    "condition_config": flow_tasks.c.condition_config,
    "join_count": flow_tasks.c.join_count,
    "status": sa.literal(str(JobTaskStatus.PENDING)),
    "attempt": sa.literal(1),
    "is_skipped": sa.literal(False, sa.Boolean),
    "executor": tasks.c.executor,
    "n_retries": sa.literal(0),
    "created_at": sa.bindparam("now", type_=UtcDateTime),
    "updated_at": sa.bindparam("now", type_=UtcDateTime),
}
_COPYABLE = sa.and_(
    jobs.c.id.between(sa.bindparam("first_id"), sa.bindparam("last_id")),
    jobs.c.flow_id == sa.bindparam("flow_id"),
    jobs.c.created_at == sa.bindparam("now", type_=UtcDateTime),
)
_COPY_TASKS = Statement(
    job_tasks.insert().from_select(
        list(_COPIED),
        sa.select(*(column.label(f"c_{name}") for name, column in _COPIED.items()))
        .select_from(
            jobs.join(flow_tasks, flow_tasks.c.flow_id == jobs.c.flow_id).join(
                tasks, tasks.c.id == flow_tasks.c.task_id
            )
        )
        .where(_COPYABLE)
        .order_by(jobs.c.id, flow_tasks.c.sequence, flow_tasks.c.id),
        include_defaults=False,
    )
)
_LOG_CREATION = Statement(
    job_task_logs.insert().from_select(
        ["job_id", "action", "operator_id", "to_status", "created_at"],
        sa.select(
            jobs.c.id,
            sa.literal(str(Action.CREATE)),
            sa.bindparam("operator_id", type_=sa.BigInteger),
            sa.literal(str(JobStatus.PENDING)),
            jobs.c.created_at,
        ).where(_COPYABLE),
        include_defaults=False,
    )
)


@dataclass(frozen=True, slots=True)
class NewJob:
    """Describe a job to be created."""

    name: str
    context: Mapping[str, Any] = field(default_factory=dict)

    def checked(self) -> NewJob:
        """Return the same with its name and context checked."""
        return NewJob(checked_name("job name", self.name), checked_context(self.context))


@dataclass(frozen=True, slots=True)
class _Flow:
    """Hold what creating a job needs to know of its flow."""

    flow: FlowRecord
    n_tasks: int
    first_sequence: int
    now: datetime
    actor: directory.Actor


def create_job(conn: Connection, flow_id: int, call: Call, *, job: NewJob) -> JobRecord:
    """Create a job: a copy of the flow and its tasks, ready to be started.

    ``call.operator`` is who creates it.

    Raises
    ------
    FlowNotFound
        There is no such flow.
    Conflict
        The flow is not active, or has no tasks.
    Invalid
        A name or a context value that cannot be stored.
    """
    return create_jobs(conn, flow_id, call, new_jobs=[job])[0]


def create_jobs(
    conn: Connection, flow_id: int, call: Call, *, new_jobs: Sequence[NewJob]
) -> list[JobRecord]:
    """Create many jobs of one flow in bulk, in the given order.

    Raises
    ------
    FlowNotFound, Conflict, Invalid
        As ``create_job``; nothing is created then.
    """
    wanted = [job.checked() for job in new_jobs]
    if call.idempotency_key is None:
        return _create(conn, flow_id, call, wanted)[0]
    key = checked_key(call.idempotency_key)
    digest = digest_of(call, {"jobs": [[job.name, job.context] for job in wanted]})
    scope = f"flow:{flow_id}"
    stored = find(conn, scope, key, verb="create_job", digest=digest)
    if stored is not None:
        return [_by_id(conn, job_id) for job_id in stored[0]]
    created, source = _create(conn, flow_id, call, wanted)
    REMEMBER.insert(
        conn,
        scope=scope,
        key=key,
        verb="create_job",
        arguments=digest,
        answer=[[record.id for record in created]],
        created_at=source.now,
    )
    return created


def _by_id(conn: Connection, job_id: int) -> JobRecord:
    return JobRecord.from_row(_JOB.fetch(conn, job_id=job_id)[0])


def _create(
    conn: Connection, flow_id: int, call: Call, wanted: Sequence[NewJob]
) -> tuple[list[JobRecord], _Flow]:
    source = _flow_to_copy(conn, flow_id, call)
    created: list[JobRecord] = []
    for start in range(0, len(wanted), INSERT_ROWS):
        chunk = wanted[start : start + INSERT_ROWS]
        records = _insert_jobs(conn, [_record(source, job.name) for job in chunk])
        _copy_flow(conn, source, records)
        _insert_contexts(conn, records, chunk)
        created += records
    return created, source


def _flow_to_copy(conn: Connection, flow_id: int, call: Call) -> _Flow:
    rows = _FLOW.fetch(conn, flow_id=flow_id)
    if not rows:
        raise FlowNotFound(flow_id)
    *fields, n_tasks, first_sequence, server_time, holds_anybody = rows[0]
    flow = FlowRecord.from_row(fields)
    if not flow.is_active:
        raise Conflict(
            f"flow {flow_id} {flow.name!r} is not active", found="inactive", legal=("update_flow",)
        )
    if not n_tasks:
        raise Conflict(
            f"flow {flow_id} {flow.name!r} has no tasks", found="empty", legal=("update_flow",)
        )
    actor = directory.identify(conn, call.operator, open_mode=not holds_anybody)
    directory.expect_active(actor)
    return _Flow(flow, n_tasks, first_sequence, clock_of(conn, server_time), actor)


def _record(source: _Flow, name: str) -> JobRecord:
    flow = source.flow
    return JobRecord(
        id=0,
        job_name=name,
        flow_id=flow.id,
        flow_name=flow.name,
        flow_version=flow.version,
        status=JobStatus.PENDING.value,
        current_task_seq=source.first_sequence,
        n_tasks=source.n_tasks,
        n_done=0,
        n_rollbacks=0,
        max_rollbacks=flow.max_rollbacks,
        created_by=source.actor.operator_id,
        created_at=source.now,
        started_at=None,
        resumed_at=None,
        paused_at=None,
        completed_at=None,
        elapsed_us=0,
        updated_at=source.now,
        next_due_at=None,
    )


def _insert_jobs(conn: Connection, records: Sequence[JobRecord]) -> list[JobRecord]:
    rows = [{name: getattr(record, name) for name in _JOB_FIELDS} for record in records]
    ids = _INSERT_JOB.insert_for_ids(conn, rows)
    return [replace(record, id=job_id) for record, job_id in zip(records, ids, strict=True)]


def _copy_flow(conn: Connection, source: _Flow, records: Sequence[JobRecord]) -> None:
    """Copy the flow's tasks into these jobs, whose ids come from one statement, and log them."""
    values = {
        "first_id": records[0].id,
        "last_id": records[-1].id,
        "flow_id": source.flow.id,
        "now": source.now,
    }
    execute(
        conn,
        [
            Write(_COPY_TASKS, values, rows=source.n_tasks * len(records)),
            Write(_LOG_CREATION, values | {"operator_id": source.actor.operator_id}),
        ],
    )


def _insert_contexts(
    conn: Connection, created: Sequence[JobRecord], wanted: Sequence[NewJob]
) -> None:
    rows = [
        {
            "job_id": record.id,
            "key": key,
            "value": value,
            "is_deleted": False,
            "job_task_id": None,
            "attempt": None,
            "superseded_at": None,
            "created_at": record.created_at,
        }
        for record, job in zip(created, wanted, strict=True)
        for key, value in job.context.items()
    ]
    INSERT_CONTEXT.insert_many(conn, rows)


def paired(names: Sequence[str], contexts: Sequence[Mapping[str, Any]] | None) -> list[NewJob]:
    """Pair names of new jobs with their contexts, one context each or none at all.

    Raises
    ------
    Invalid
        There are not as many contexts as names.
    """
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise Invalid("job names", names, expected="a list of names")
    listed = list(names)
    if contexts is None:
        return [NewJob(name) for name in listed]
    if not isinstance(contexts, Sequence) or isinstance(contexts, str):
        raise Invalid("contexts", contexts, expected="a list of mappings, one for each name")
    if len(contexts) != len(listed):
        raise Invalid(
            "contexts", f"{len(contexts)} of them", expected=f"one for each of {len(listed)} names"
        )
    return [NewJob(name, context) for name, context in zip(listed, contexts, strict=True)]
