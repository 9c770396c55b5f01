"""Answer "why is it stuck?": what a job waits for, on whom, since when, and what is legal next."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.engine import Connection

from gwf.engine.locks import get_job
from gwf.engine.seats import load
from gwf.engine.sendback import plan, tasks_of
from gwf.engine.workers import alive
from gwf.errors import Conflict
from gwf.executors import built_in
from gwf.model import (
    JobRecord,
    JobStatus,
    JobTaskRecord,
    JobTaskStatus,
    TaskType,
    legal_job_verbs,
    legal_task_verbs,
)
from gwf.records import Record


@dataclass(frozen=True, slots=True)
class Waiting(Record):
    """Say what one open task of the current group waits for."""

    job_task_id: int
    task_name: str
    sequence: int
    status: str
    attempt: int
    on: str
    since: datetime | None
    waited_s: float | None
    legal: tuple[str, ...]
    allowed_targets: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Explanation(Record):
    """Say why a job stands where it stands; ``str`` gives it in sentences."""

    job_id: int
    job_name: str
    status: str
    reason: str
    legal: tuple[str, ...]
    waiting: tuple[Waiting, ...]
    as_of: datetime

    def __str__(self) -> str:
        """Return the reason, then a line for each task that the job waits for."""
        lines = [f"Job {self.job_id} {self.job_name!r} is {self.status}: {self.reason}"]
        for one in self.waiting:
            age = "" if one.waited_s is None else f" for {_age(one.waited_s)}"
            lines.append(
                f"  {one.sequence}. {one.task_name} ({one.status}, attempt {one.attempt}) "
                f"waits{age} {one.on}; legal: {', '.join(one.legal) or 'nothing'}"
            )
            if one.allowed_targets:
                targets = ", ".join(map(str, one.allowed_targets))
                lines.append(f"     can be sent back to sequence {targets}")
        if self.legal:
            lines.append(f"  For the job: {', '.join(self.legal)}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        """Return the sentences: this is read in a cell or a terminal."""
        return str(self)


def explain(conn: Connection, job_id: int) -> Explanation:
    """Return why the job waits.

    Raises
    ------
    JobNotFound
        There is no such job.
    """
    job, now = get_job(conn, job_id)
    tasks = tasks_of(conn, job_id)
    current = [
        task for task in tasks if task.sequence == job.current_task_seq and not task.is_finished
    ]
    is_open = job.status in (JobStatus.RUNNING, JobStatus.FAILED)
    waiting = (
        tuple(_waiting(job, tasks, task, now=now, on=_on(conn, job, task, now)) for task in current)
        if is_open
        else ()
    )
    return Explanation(
        job_id=job.id,
        job_name=job.job_name,
        status=job.status,
        reason=_reason(job, current),
        legal=legal_job_verbs(job),
        waiting=waiting,
        as_of=now,
    )


_REASONS = {
    JobStatus.PENDING: "it was created and not started yet",
    JobStatus.COMPLETED: "every task is completed or skipped",
    JobStatus.CANCELLED: "it was given up",
}


def _reason(job: JobRecord, current: list[JobTaskRecord]) -> str:
    if job.status in _REASONS:
        return _REASONS[JobStatus(job.status)]
    if job.status == JobStatus.FAILED:
        failed = [task for task in current if task.status == JobTaskStatus.FAILED]
        causes = "; ".join(f"{task.task_name!r}: {task.error_message}" for task in failed)
        paused = ", and it is paused" if job.paused_at is not None else ""
        place = f"sequence {job.current_task_seq} ({causes})"
        return f"failed at {place}; retry it or send it back{paused}"
    if job.paused_at is not None:
        return "it is paused, so nothing new starts"
    if not current:
        return "nothing is left to do, yet another program left it running; cancel it"
    names = ", ".join(repr(task.task_name) for task in current)
    return f"it is at sequence {job.current_task_seq}: {names}"


def _votes(conn: Connection, task: JobTaskRecord, now: datetime) -> str | None:
    """Say what a running approval lacks; None for anything else."""
    if task.task_type != TaskType.APPROVAL or task.status != JobTaskStatus.RUNNING:
        return None
    try:
        found = load(conn, task).outcome()
    except Conflict as nobody_asked:
        return f"on a decision: {nobody_asked}"
    needs = f"needs {', '.join(found.missing)}" if found.missing else "decided"
    due = "" if task.due_at is None else f"; due in {_age((task.due_at - now).total_seconds())}"
    return f"on votes: {found.n_approved} of {found.needed} approved; {needs}{due}"


def _waiting(
    job: JobRecord,
    tasks: list[JobTaskRecord],
    task: JobTaskRecord,
    *,
    now: datetime,
    on: str,
) -> Waiting:
    since = {
        JobTaskStatus.PENDING: task.ready_at,
        JobTaskStatus.RUNNING: task.started_at,
        JobTaskStatus.FAILED: task.completed_at,
    }.get(JobTaskStatus(task.status))
    allowed = plan(job, tasks, task).allowed
    legal = [verb for verb in legal_task_verbs(job, task) if verb != "rollback_task" or allowed]
    return Waiting(
        job_task_id=task.id,
        task_name=task.task_name,
        sequence=task.sequence,
        status=task.status,
        attempt=task.attempt,
        on=on,
        since=since,
        waited_s=None if since is None else (now - since).total_seconds(),
        legal=tuple(legal),
        allowed_targets=allowed,
    )


def _on(conn: Connection, job: JobRecord, task: JobTaskRecord, now: datetime) -> str:
    if task.status == JobTaskStatus.RUNNING:
        return _votes(conn, task, now) or _on_whoever_runs(task, now)
    if task.status == JobTaskStatus.FAILED:
        return "on a decision: retry or send back"
    if job.status != JobStatus.RUNNING:
        return f"on the job, which is {job.status}"
    if job.paused_at is not None:
        return "on the job to be resumed"
    if task.task_type == TaskType.AUTOMATED:
        return _on_worker(conn, task, now)
    return "on an operator to start it"


def _on_whoever_runs(task: JobTaskRecord, now: datetime) -> str:
    if task.worker is None:
        who = f"operator {task.operator_id}" if task.operator_id is not None else "whoever runs it"
        return f"on {who} to complete it"
    if task.available_at is None or task.available_at > now:
        return f"on worker {task.worker} to complete it"
    silent = _age((now - task.available_at).total_seconds())
    return f"on a worker to take it over: the lease of {task.worker} ended {silent} ago"


def _on_worker(conn: Connection, task: JobTaskRecord, now: datetime) -> str:
    """Say which worker could take a due task, or how to get one (rule W5)."""
    name = task.executor
    if name is None:
        return "on whoever starts this automated task; its config names no executor"
    if task.available_at is not None and task.available_at > now:
        return f"on its next try in {_age((task.available_at - now).total_seconds())}"
    able = [worker for worker in alive(conn, now) if name in worker.executors]
    if able:
        return f"on one of {len(able)} workers that may run {name!r} to be free"
    if name in built_in():
        how = f"gwf worker --allow {name}, or wf.run(job, allow=[{name!r}])"
    else:
        how = f"one that has it installed, or where it is registered by @wf.executor({name!r})"
    return f"on a worker that may run {name!r}, and none is there; start {how}"


def _age(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
