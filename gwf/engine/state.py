"""Hold one job under its lock: what was read, and what a verb changes.

Every verb on a job goes the same way, and this module is that way:

1. ``locks`` locks the job and reads it (one statement);
2. the other tasks that matter are loaded, where some do (one statement);
3. the verb changes records in memory, each change checked against the transition table;
4. ``save`` sends all of it at once: guarded updates, superseded attempts, log rows (one round trip
   on a server); each guarded update must hit exactly one row.

Why the job's row: all writers of a job meet there, so two verbs on siblings wait for each other,
and what is read after the lock is what the last one left.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy.engine import Connection

from gwf import directory
from gwf.engine import rows
from gwf.errors import (
    Conflict,
    GwfError,
    NotAllowed,
    StaleAttempt,
    UserNotFound,
)
from gwf.events import Event
from gwf.model import (
    Action,
    Call,
    JobRecord,
    JobStatus,
    JobTaskRecord,
    JobTaskStatus,
    TaskType,
    is_job_transition,
    is_task_transition,
    legal_job_verbs,
    legal_task_verbs,
)
from gwf.statements import Write, execute


class JobState:
    """Hold a locked job, the tasks read so far, and the changes to be saved."""

    def __init__(self, conn: Connection, job: JobRecord, *, now: datetime, open_mode: bool) -> None:
        self.conn = conn
        self.job = job
        self.now = now
        self.open_mode = open_mode
        self.actor = directory.Actor(None)
        self.tasks: dict[int, JobTaskRecord] = {}
        #: Context values that this verb writes; conditions see them already.
        self.new_context: dict[str, Any] = {}
        #: The context in force without ``superseded``, once a condition has asked for it.
        self.context: dict[str, Any] | None = None
        #: Tasks whose context values this verb supersedes; conditions no longer see them.
        self.superseded: set[int] = set()
        self.is_complete = False
        self._job_as_read = job
        self._tasks_as_read: dict[int, JobTaskRecord] = {}
        self._history: list[Write] = []
        self._logs: list[Write] = []
        self._more: list[Write] = []
        self._events: list[Event] = []

    # What is read

    def identify(self, call: Call) -> None:
        """Find out who calls, as the directory knows the caller now."""
        try:
            self.actor = directory.identify(self.conn, call.operator, open_mode=self.open_mode)
            directory.expect_active(self.actor)
        except (NotAllowed, UserNotFound) as refusal:
            raise self.refused(refusal) from None

    def load_frontier(self) -> None:
        """Load the current group and the next open one: enough to see what becomes due."""
        current = self.job.current_task_seq or 0
        self.take(rows.FRONTIER.fetch(self.conn, job_id=self.job.id, current=current))

    def load_all(self) -> list[JobTaskRecord]:
        """Load every task of the job, keeping the changes made so far."""
        if not self.is_complete:
            self.take(rows.ALL_TASKS.fetch(self.conn, job_id=self.job.id))
            self.is_complete = True
        return self.in_order()

    def in_order(self) -> list[JobTaskRecord]:
        """Return the tasks loaded so far, by sequence and id."""
        return sorted(self.tasks.values(), key=lambda task: (task.sequence, task.id))

    def take(self, found: Iterable[tuple[Any, ...]]) -> None:
        """Take in rows of tasks, keeping the changes made to those that are known already."""
        for row in found:
            task = JobTaskRecord.from_row(row)
            if task.id not in self.tasks:
                self.tasks[task.id] = self._tasks_as_read[task.id] = task

    # What is refused

    def conflict(self, message: str, task: JobTaskRecord | None = None) -> Conflict:
        """Return a Conflict that names the state found and what would be legal."""
        if task is None:
            job = self.job
            return Conflict(
                f"job {job.id} is {job.status}; {message}",
                found=job.status,
                legal=legal_job_verbs(job),
            )
        return Conflict(
            f"{task.label} is {task.status}; {message}",
            found=task.status,
            legal=legal_task_verbs(self.job, task),
        )

    def expect_attempt(self, task: JobTaskRecord, attempt: int | None) -> None:
        """Refuse a call that was meant for another attempt (rule T5), and log it."""
        if attempt is not None and attempt != task.attempt:
            raise self.refused(
                StaleAttempt(task.label, attempt=attempt, current=task.attempt, found=task.status),
                task,
            )

    def refused(self, error: GwfError, task: JobTaskRecord | None = None) -> GwfError:
        """Log a refusal, which is then committed although the error is raised (rule T8)."""
        self._logs.clear()
        status = self._job_as_read.status if task is None else task.status
        self.log(Action.REFUSE, task, before=status, after=status, message=str(error))
        execute(self.conn, self._logs)
        error.logged = True
        return error

    # What is changed

    def change_task(
        self,
        task: JobTaskRecord,
        action: Action,
        *,
        message: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        by_system: bool = False,
        **values: Any,
    ) -> JobTaskRecord:
        """Change a task in memory, log the transition, and count what is done."""
        changed = self.touch_task(task, **values)
        if not is_task_transition(action, task.status, changed.status):
            raise AssertionError(f"{action}: {task.status} → {changed.status} is not in the table")
        self.log(
            action,
            task,
            before=task.status,
            after=changed.status,
            message=message,
            metadata=metadata,
            by_system=by_system,
        )
        if action == Action.FAIL:
            self.notify("task_failed", changed, message)
        return changed

    def touch_task(self, task: JobTaskRecord, **values: Any) -> JobTaskRecord:
        """Change fields of a task without a transition, so without a row in the log."""
        changed = task.replaced(**values)
        if changed.available_at is not None and _is_out_of_reach(changed):
            changed = changed.replaced(available_at=None)
        self.tasks[task.id] = changed
        difference = int(changed.is_finished) - int(task.is_finished)
        if difference:
            self.touch_job(n_done=self.job.n_done + difference)
        return changed

    def keep_attempt(
        self, task: JobTaskRecord, *, status: str, error_code: str | None, ended_at: datetime | None
    ) -> None:
        """Move the attempt that is being superseded into the history, as it was read."""
        self._history.append(
            Write(
                rows.KEEP_ATTEMPT,
                {
                    "b_id": task.id,
                    "status": status,
                    "error_code": error_code,
                    "completed_at": ended_at,
                    "superseded_at": self.now,
                },
                rows=1,
            )
        )

    def supersede_context(self, task: JobTaskRecord) -> None:
        """Let readers of the context see the values from before this task's attempts (rule R7)."""
        self.superseded.add(task.id)
        self.context = None
        values = {
            "b_job_task_id": task.id,
            "b_job_id": self.job.id,
            "superseded_at": self.now,
        }
        self._history.append(Write(rows.SUPERSEDE_CONTEXT, values))

    def change_job(
        self,
        action: Action,
        *,
        message: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        **values: Any,
    ) -> None:
        """Change the job in memory and log the transition."""
        before = self.job.status
        self.touch_job(**values)
        if not is_job_transition(action, before, self.job.status):
            raise AssertionError(f"{action}: {before} → {self.job.status} is not in the table")
        self.log(
            action, None, before=before, after=self.job.status, message=message, metadata=metadata
        )
        if self.job.status in (JobStatus.COMPLETED, JobStatus.CANCELLED):
            self.touch_job(next_due_at=None)
        if action in _JOB_EVENTS:
            self.notify(_JOB_EVENTS[action], message=message)

    def touch_job(self, **values: Any) -> None:
        """Change fields of the job without a transition."""
        self.job = self.job.replaced(**values, updated_at=self.now)

    def log(
        self,
        action: Action,
        task: JobTaskRecord | None,
        *,
        before: str | None,
        after: str | None,
        message: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        by_system: bool = False,
        on_behalf_of: int | None = None,
    ) -> None:
        """Append one row to the log; the roles of a verified actor are stored with it."""
        details = dict(metadata or {})
        actor = directory.Actor(None) if by_system else self.actor
        if actor.is_verified:
            details["roles"] = list(actor.roles)
        self._logs.append(
            Write(
                rows.LOG,
                {
                    "job_id": self.job.id,
                    "job_task_id": None if task is None else task.id,
                    "attempt": None if task is None else task.attempt,
                    "action": str(action),
                    "operator_id": actor.operator_id,
                    "on_behalf_of": on_behalf_of,
                    "from_status": before,
                    "to_status": after,
                    "message": message,
                    "metadata": details or None,
                    "created_at": self.now,
                },
            )
        )

    def note_condition(self, record: dict[str, Any]) -> None:
        """Note a condition that came out true on the row of the verb that evaluated it."""
        values = self._logs[0].values
        details = dict(values["metadata"] or {})
        details["conditions"] = [*details.get("conditions", ()), record]
        values["metadata"] = details

    def also(self, write: Write) -> None:
        """Save this write together with the changes."""
        self._more.append(write)

    def notify(
        self, name: str, task: JobTaskRecord | None = None, message: str | None = None
    ) -> None:
        """Tell the hooks about this once it is committed; ``name`` is one of ``EVENTS``."""
        self._events.append(
            Event(
                name,
                self.job.id,
                self.job.job_name,
                None if task is None else task.id,
                None if task is None else task.task_name,
                None if task is None else task.attempt,
                self.actor.operator_id,
                message,
                self.now,
            )
        )

    def watch_deadline(self, due_at: datetime | None) -> None:
        """Let the job be looked at when this deadline passes."""
        first = self.job.next_due_at
        if due_at is not None and (first is None or due_at < first):
            self.touch_job(next_due_at=due_at)

    def remember(self, values: dict[str, Any]) -> None:
        """Save the answer of this call under its idempotency key."""
        self._more.append(Write(rows.REMEMBER, {**values, "created_at": self.now}))

    def save(self) -> None:
        """Send every change in one batch.

        Raises
        ------
        Conflict
            A guarded update found another state than the one read; nothing is changed then.
        """
        self._settle_deadline()
        writes = [*self._history, *self._task_writes(), *self._logs, *self._more]
        changed = self._job_as_read.differences(self.job)
        if changed:
            values = {name: getattr(self.job, name) for name in changed}
            guard = {"b_id": self.job.id, "b_status": self._job_as_read.status}
            writes.append(Write(rows.save_job(changed), values | guard, rows=1))
        counts = execute(self.conn, writes)
        for write, count in zip(writes, counts, strict=True):
            if write.rows is not None and count != write.rows:
                raise Conflict(
                    f"job {self.job.id} changed in the meantime; read it again", found="changed"
                )
        self.conn.info["gwf_events"].extend(self._events)
        self._begin_anew()

    def _settle_deadline(self) -> None:
        """Look for the next deadline where the task that had the first one has ended."""
        first = self.job.next_due_at
        if first is not None and any(
            before.due_at == first
            and before.status == JobTaskStatus.RUNNING
            and self.tasks[task_id].status != JobTaskStatus.RUNNING
            for task_id, before in self._tasks_as_read.items()
        ):
            self.load_all()
            self.touch_job(next_due_at=first_deadline(self.tasks.values()))

    def _begin_anew(self) -> None:
        """Take what was saved as what was read, so that the same verb may go on."""
        self._job_as_read, self._tasks_as_read = self.job, dict(self.tasks)
        for saved in (self._history, self._logs, self._more, self._events):
            saved.clear()

    def _task_writes(self) -> list[Write]:
        writes = []
        for job_task_id, task in self.tasks.items():
            before = self._tasks_as_read[job_task_id]
            changed = before.differences(task)
            if not changed:
                continue
            values = {name: getattr(task, name) for name in changed}
            guard = {"b_id": task.id, "b_status": before.status, "b_attempt": before.attempt}
            statement = rows.save_task((*changed, "updated_at"))
            writes.append(Write(statement, values | guard | {"updated_at": self.now}, rows=1))
            is_over = before.status == JobTaskStatus.RUNNING and task.status != before.status
            if is_over and task.task_type == TaskType.APPROVAL:
                key = {"b_job_task_id": task.id, "b_attempt": before.attempt}
                writes.append(Write(rows.CLOSE_SEATS, key))
        return writes


_JOB_EVENTS = {
    Action.COMPLETE: "job_completed",
    Action.FAIL: "job_failed",
    Action.CANCEL: "job_cancelled",
    Action.ROLLBACK: "sent_back",
}


def _is_out_of_reach(task: JobTaskRecord) -> bool:
    """Say whether no worker may take the task, whatever it says."""
    if task.status == JobTaskStatus.PENDING:
        return task.ready_at is None
    return task.status != JobTaskStatus.RUNNING


def first_deadline(tasks: Iterable[JobTaskRecord]) -> datetime | None:
    """Return the first instant at which one of these tasks is due, if it runs."""
    running = (task for task in tasks if task.status == JobTaskStatus.RUNNING)
    return min((task.due_at for task in running if task.due_at is not None), default=None)
