"""Define the words of gwf: its statuses, its transitions as data, and its records.

Why records: data crosses the rooms of gwf as frozen dataclasses whose fields stand in the order of
the columns that ``queries`` selects, so ``from_row`` is one call and a missing column is an error.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from gwf.records import Record


class TaskType(StrEnum):
    """Say who carries a task out."""

    MANUAL = "manual"
    AUTOMATED = "automated"
    APPROVAL = "approval"


class JobStatus(StrEnum):
    """Say where a job stands."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class JobTaskStatus(StrEnum):
    """Say where a task of a job stands."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    SKIPPED = "skipped"
    ROLLED_BACK = "rolled_back"


class Action(StrEnum):
    """Name what a row of the log records."""

    CREATE = "create"
    START = "start"
    COMPLETE = "complete"
    FAIL = "fail"
    SKIP = "skip"
    ROLLBACK = "rollback"
    RETRY = "retry"
    CANCEL = "cancel"
    PAUSE = "pause"
    RESUME = "resume"
    REOPEN = "reopen"
    VOTE = "vote"
    WITHDRAW = "withdraw"
    TRANSFER = "transfer"
    DELEGATE = "delegate"
    ADD_SIGNER = "add_signer"
    REMOVE_SIGNER = "remove_signer"
    TIMEOUT = "timeout"
    CONTEXT = "context"
    REFUSE = "refuse"


#: A task in one of these no longer holds up its group.
FINISHED = frozenset({JobTaskStatus.COMPLETED, JobTaskStatus.SKIPPED})

#: A job in one of these has an end; ``completed_at`` is set.
ENDED = frozenset({JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED})

#: How many send-backs one job takes when its flow does not say (rule R9).
MAX_ROLLBACKS = 20


@dataclass(frozen=True, slots=True)
class Transition:
    """Allow one change of status."""

    action: Action
    from_status: str
    to_status: str
    why: str


_T = JobTaskStatus
_J = JobStatus

#: Every change of status that a task of a job may make; nothing else is ever written.
JOB_TASK_TRANSITIONS: tuple[Transition, ...] = (
    Transition(Action.START, _T.PENDING, _T.RUNNING, "an operator starts it"),
    Transition(Action.COMPLETE, _T.RUNNING, _T.COMPLETED, "it has a result"),
    Transition(Action.FAIL, _T.RUNNING, _T.FAILED, "it has an error"),
    Transition(Action.FAIL, _T.PENDING, _T.FAILED, "its condition is false or an error"),
    Transition(Action.SKIP, _T.PENDING, _T.SKIPPED, "it is optional, or its condition is false"),
    Transition(Action.RETRY, _T.FAILED, _T.PENDING, "the next attempt opens"),
    Transition(Action.CANCEL, _T.RUNNING, _T.FAILED, "its job is cancelled"),
    Transition(Action.CANCEL, _T.RUNNING, _T.SKIPPED, "enough of its group completed"),
    Transition(Action.CANCEL, _T.PENDING, _T.SKIPPED, "enough of its group completed"),
    Transition(Action.CANCEL, _T.FAILED, _T.SKIPPED, "enough of its group completed"),
    *(
        Transition(action, before, _T.PENDING, "it is to be done again")
        for action in (Action.ROLLBACK, Action.REOPEN)
        for before in (_T.COMPLETED, _T.FAILED, _T.SKIPPED, _T.RUNNING)
    ),
    *(
        Transition(Action.ROLLBACK, before, _T.ROLLED_BACK, "it sent the job back")
        for before in (_T.RUNNING, _T.FAILED, _T.COMPLETED)
    ),
    Transition(Action.REOPEN, _T.ROLLED_BACK, _T.PENDING, "it is due again"),
)

#: Every change of status that a job may make.
JOB_TRANSITIONS: tuple[Transition, ...] = (
    Transition(Action.START, _J.PENDING, _J.RUNNING, "it is started"),
    Transition(Action.COMPLETE, _J.RUNNING, _J.COMPLETED, "nothing is left to do"),
    Transition(Action.FAIL, _J.RUNNING, _J.FAILED, "one of its tasks failed"),
    Transition(Action.RETRY, _J.FAILED, _J.RUNNING, "a failed task is tried again"),
    Transition(Action.ROLLBACK, _J.FAILED, _J.RUNNING, "it is sent back"),
    Transition(Action.ROLLBACK, _J.RUNNING, _J.RUNNING, "it is sent back"),
    Transition(Action.PAUSE, _J.RUNNING, _J.RUNNING, "nothing new may start"),
    Transition(Action.RESUME, _J.RUNNING, _J.RUNNING, "starts are allowed again"),
    Transition(Action.REOPEN, _J.COMPLETED, _J.RUNNING, "it is reopened on purpose"),
    *(
        Transition(Action.CANCEL, before, _J.CANCELLED, "it is given up")
        for before in (_J.PENDING, _J.RUNNING, _J.FAILED)
    ),
)

_TASK_EDGES = frozenset((t.action, t.from_status, t.to_status) for t in JOB_TASK_TRANSITIONS)
_JOB_EDGES = frozenset((t.action, t.from_status, t.to_status) for t in JOB_TRANSITIONS)


def is_task_transition(action: Action, before: str, after: str) -> bool:
    """Say whether a task of a job may change in this way."""
    return (action, before, after) in _TASK_EDGES


def is_job_transition(action: Action, before: str, after: str) -> bool:
    """Say whether a job may change in this way."""
    return (action, before, after) in _JOB_EDGES


@dataclass(frozen=True, slots=True)
class TaskRecord(Record):
    """Hold one row of ``tasks``."""

    id: int
    name: str
    task_type: str
    description: str | None
    config: Any
    is_active: bool
    created_at: datetime
    updated_at: datetime
    #: The executor that ``config`` names, if the task is automated.
    executor: str | None = None


@dataclass(frozen=True, slots=True)
class FlowRecord(Record):
    """Hold one row of ``flows``."""

    id: int
    name: str
    version: str
    description: str | None
    is_active: bool
    max_rollbacks: int
    created_by: int | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class JobRecord(Record):
    """Hold one row of ``jobs``; ``elapsed_us`` counts the spans before ``resumed_at``."""

    id: int
    job_name: str
    flow_id: int
    flow_name: str
    flow_version: str
    status: str
    current_task_seq: int | None
    n_tasks: int
    n_done: int
    n_rollbacks: int
    max_rollbacks: int
    created_by: int | None
    created_at: datetime
    started_at: datetime | None
    resumed_at: datetime | None
    paused_at: datetime | None
    completed_at: datetime | None
    elapsed_us: int
    updated_at: datetime
    #: When the first deadline of a running task passes, or an earlier instant; None without one.
    next_due_at: datetime | None

    @property
    def duration_s(self) -> float | None:
        """Return the seconds that the job was under way, over all its spans; None while open.

        A reopened or retried job adds up its spans (rule R10).
        """
        if self.resumed_at is None or self.completed_at is None:
            return None
        return (self.elapsed_us + microseconds(self.resumed_at, self.completed_at)) / 1e6


@dataclass(frozen=True, slots=True)
class JobTaskRecord(Record):
    """Hold one row of ``job_tasks``: the definition as it was copied, and the current attempt."""

    id: int
    job_id: int
    flow_task_id: int
    sequence: int
    task_id: int
    task_name: str
    task_type: str
    config: Any
    is_optional: bool
    allow_rollback: bool
    condition_config: Any
    join_count: int | None
    status: str
    attempt: int
    is_skipped: bool
    operator_id: int | None
    result: Any
    error_code: str | None
    error_message: str | None
    ready_at: datetime | None
    started_at: datetime | None
    completed_at: datetime | None
    due_at: datetime | None
    executor: str | None
    worker: str | None
    #: From when on a worker may take the task: since it is due, or when the lease of the worker
    #: that has it is over. None while no worker may.
    available_at: datetime | None
    #: How often the task was tried again by itself since a person opened it.
    n_retries: int

    @property
    def label(self) -> str:
        """Return how messages name the task."""
        return f"job task {self.id} {self.task_name!r}"

    @property
    def is_finished(self) -> bool:
        """Say whether the task no longer holds up its group."""
        return self.status in FINISHED


@dataclass(frozen=True, slots=True)
class AttemptRecord(Record):
    """Hold one superseded attempt of a job task."""

    job_task_id: int
    attempt: int
    status: str
    operator_id: int | None
    result: Any
    error_code: str | None
    error_message: str | None
    ready_at: datetime | None
    started_at: datetime | None
    completed_at: datetime | None
    due_at: datetime | None
    worker: str | None


@dataclass(frozen=True, slots=True)
class VoteRecord(Record):
    """Hold one vote on an attempt of an approval."""

    id: int
    job_id: int
    job_task_id: int
    attempt: int
    user_id: int
    on_behalf_of: int | None
    decision: str
    seat: int | None
    seat_label: str | None
    comment: str | None
    roles: Any
    is_verified: bool
    created_at: datetime
    withdrawn_at: datetime | None


@dataclass(frozen=True, slots=True)
class ApprovalRecord(Record):
    """Hold what is fixed when an attempt of an approval starts, and how it ended."""

    job_task_id: int
    attempt: int
    needed: int
    electorate: int
    n_escalations: int
    outcome: str | None
    requested_at: datetime
    decided_at: datetime | None


@dataclass(frozen=True, slots=True)
class ScheduleRecord(Record):
    """Hold one row of ``schedules``: when workers create a job of a flow.

    ``next_at`` is None while it is not active; ``n_skipped`` counts missed instants.
    """

    id: int
    flow_id: int
    job_name: str
    cron: str
    tz: str
    catch_up: str
    context: Any
    is_active: bool
    created_by: int | None
    created_at: datetime
    next_at: datetime | None
    last_at: datetime | None
    last_job_id: int | None
    n_created: int
    n_skipped: int


@dataclass(frozen=True, slots=True)
class WorkerRecord(Record):
    """Hold one row of ``workers``: what a worker may run, and its counters since it began.

    ``state`` is ``running``, ``stopping`` or ``stopped``.
    """

    name: str
    host: str
    pid: int
    state: str
    executors: Any
    concurrency: int
    n_running: int
    n_completed: int
    n_failed: int
    n_lost: int
    last_error: str | None
    started_at: datetime
    seen_at: datetime


@dataclass(frozen=True, slots=True)
class Position:
    """Describe one position of a flow as it is stored in ``flow_tasks``."""

    task_id: int
    sequence: int
    is_optional: bool = False
    allow_rollback: bool = True
    condition_config: dict[str, Any] | None = None
    join_count: int | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """Say who calls a verb and how the call is told apart from others.

    ``attempt`` addresses one attempt (rule T5); ``idempotency_key`` makes a repeat safe (rule T3).
    """

    operator: int | str | None = None
    attempt: int | None = None
    idempotency_key: str | None = None


def microseconds(start: datetime, end: datetime) -> int:
    """Return the whole microseconds from start to end."""
    passed = end - start
    return (passed.days * 86_400 + passed.seconds) * 1_000_000 + passed.microseconds


def legal_job_verbs(job: JobRecord) -> tuple[str, ...]:
    """Return the verbs that the status of this job allows."""
    verbs = {t.action for t in JOB_TRANSITIONS if t.from_status == job.status}
    verbs -= {Action.COMPLETE, Action.FAIL, Action.RETRY, Action.ROLLBACK}
    verbs.discard(Action.PAUSE if job.paused_at else Action.RESUME)
    return tuple(f"{verb}_job" for verb in Action if verb in verbs)


def legal_task_verbs(job: JobRecord, task: JobTaskRecord) -> tuple[str, ...]:
    """Return the verbs that the status of this task and of its job allows."""
    if job.status not in (JobStatus.RUNNING, JobStatus.FAILED):
        return ()
    verbs: list[str] = []
    if task.status == JobTaskStatus.PENDING and is_due(job, task):
        verbs.append("start_task")
        if task.is_optional:
            verbs.append("skip_task")
    elif task.status == JobTaskStatus.RUNNING:
        if task.task_type == TaskType.APPROVAL and job.paused_at is None:
            verbs += ["approve", "reject"]
        verbs += ["complete_task", "fail_task"]
    elif task.status == JobTaskStatus.FAILED:
        verbs.append("retry_task")
    is_caller = task.status in (JobTaskStatus.RUNNING, JobTaskStatus.FAILED)
    if task.allow_rollback and is_caller and job.n_rollbacks < job.max_rollbacks:
        verbs.append("rollback_task")
    return tuple(verbs)


def is_due(job: JobRecord, task: JobTaskRecord) -> bool:
    """Say whether the task may start now (rule P1)."""
    return (
        job.status == JobStatus.RUNNING
        and job.paused_at is None
        and task.ready_at is not None
        and task.sequence == job.current_task_seq
    )
