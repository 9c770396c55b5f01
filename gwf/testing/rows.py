"""Keep the rows of one job and change them as the verbs of the engine do, without a database.

Why not the verbs themselves: ten thousand jobs are 250,000 transitions, minutes of transactions.
This knows the rules for flows without conditions and parallel groups, which is what the sample
flows are; a test plays a whole history through the engine again and finds the same rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any

from gwf.engine.advance import CANCELLED, SKIPPED_RESULT
from gwf.model import (
    FINISHED,
    Action,
    FlowRecord,
    JobStatus,
    JobTaskRecord,
    JobTaskStatus,
    TaskType,
    microseconds,
)
from gwf.testing.approvals import ApprovalRows, Row

_COPIED = tuple(field.name for field in fields(JobTaskRecord) if field.name not in ("id", "job_id"))
_CLEARED = (
    "operator_id",
    "result",
    "error_code",
    "error_message",
    "ready_at",
    "started_at",
    "completed_at",
    "due_at",
    "worker",
)
_KEPT = ("attempt", *_CLEARED)


@dataclass(frozen=True, slots=True)
class _Log:
    """Hold a row of the log that names tasks by position, since they have no ids yet."""

    position: int | None
    about: int | None
    row: Row


class JobRows:
    """Hold the rows of one job, and change them as the verbs of the engine do.

    A task is given by its position, counted from 0; ``now`` and ``operator`` say when and by whom
    the next verb is carried out.
    """

    def __init__(
        self,
        flow: FlowRecord,
        copied: Sequence[JobTaskRecord],
        *,
        name: str,
        created_by: int,
        created_at: datetime,
    ) -> None:
        self.copied = copied
        self.now = created_at
        self.operator = created_by
        self.job: Row = {
            "flow_id": flow.id,
            "flow_name": flow.name,
            "flow_version": flow.version,
            "job_name": name,
            "status": str(JobStatus.PENDING),
            "current_task_seq": copied[0].sequence,
            "n_tasks": len(copied),
            "n_done": 0,
            "n_rollbacks": 0,
            "max_rollbacks": flow.max_rollbacks,
            "created_by": created_by,
            "created_at": created_at,
            "started_at": None,
            "resumed_at": None,
            "paused_at": None,
            "completed_at": None,
            "elapsed_us": 0,
            "updated_at": created_at,
            "next_due_at": None,
        }
        stamps = {"created_at": created_at, "updated_at": created_at}
        self._tasks: list[Row] = [{**_as_row(task), **stamps} for task in copied]
        self._attempts: list[tuple[int, Row]] = []
        self.approvals: list[ApprovalRows] = []
        self._logs: list[_Log] = []
        self._log(Action.CREATE, None, None, JobStatus.PENDING)

    def tasks_of(self, job_id: int) -> list[Row]:
        """Return the rows of ``job_tasks``, in order, now that the job has an id."""
        return [{**task, "job_id": job_id} for task in self._tasks]

    def attempts_of(self, job_id: int, job_task_ids: Sequence[int]) -> list[Row]:
        """Return the rows of ``job_task_attempts``, now that the tasks have ids too."""
        return [
            {**row, "job_id": job_id, "job_task_id": job_task_ids[position]}
            for position, row in self._attempts
        ]

    def logs_of(self, job_id: int, job_task_ids: Sequence[int]) -> list[Row]:
        """Return the rows of ``job_task_logs`` in the order in which they were written."""
        rows = []
        for log in self._logs:
            own_id = None if log.position is None else job_task_ids[log.position]
            row = {**log.row, "job_id": job_id, "job_task_id": own_id}
            if log.about is not None:
                self._name_task(row, log.about, job_task_ids[log.about])
            rows.append(row)
        return rows

    def _name_task(self, row: Row, position: int, job_task_id: int) -> None:
        """Complete a job-level row that names a task by its id."""
        if row["action"] == Action.FAIL:
            row["message"] = f"{replace(self.copied[position], id=job_task_id).label} failed"
        else:
            row["metadata"] = {"job_task_id": job_task_id, **row["metadata"]}

    @property
    def current(self) -> int | None:
        """Return the position of the current task of a running job."""
        if self.job["status"] != JobStatus.RUNNING:
            return None
        sequences = [task["sequence"] for task in self._tasks]
        return sequences.index(self.job["current_task_seq"])

    def start_job(self) -> None:
        """Start the job and make its first task due."""
        self._change_job(
            Action.START, status=JobStatus.RUNNING, started_at=self.now, resumed_at=self.now
        )
        self._make_due(0)

    def pause_job(self, reason: str) -> None:
        """Let nothing new start."""
        self._change_job(Action.PAUSE, message=reason, paused_at=self.now)

    def resume_job(self) -> None:
        """Allow starts again."""
        self._change_job(Action.RESUME, paused_at=None)

    def cancel_job(self, reason: str) -> None:
        """Give the job up; a running task ends as failed."""
        for position, task in enumerate(self._tasks):
            if task["status"] == JobTaskStatus.RUNNING:
                self._change_task(
                    Action.CANCEL,
                    position,
                    reason,
                    status=JobTaskStatus.FAILED,
                    error_code=CANCELLED,
                    error_message=reason,
                    completed_at=self.now,
                )
            elif task["available_at"] is not None:
                task.update(available_at=None, updated_at=self.now)
        self._change_job(
            Action.CANCEL,
            message=reason,
            status=JobStatus.CANCELLED,
            completed_at=self.job["completed_at"] or self.now,
            paused_at=None,
        )

    def start(self, position: int) -> None:
        """Start a task that is due; an approval asks its people."""
        task = self.copied[position]
        due_at: datetime | None = None
        if task.task_type == TaskType.APPROVAL:
            approval = ApprovalRows(position, self._tasks[position]["attempt"], task, self.now)
            self.approvals.append(approval)
            due_at = approval.due_at
        if due_at is not None:
            self.job.update(next_due_at=due_at, updated_at=self.now)
        self._change_task(
            Action.START,
            position,
            status=JobTaskStatus.RUNNING,
            operator_id=self.operator,
            started_at=self.now,
            due_at=due_at,
        )

    def vote(self, position: int, comment: str | None) -> None:
        """Let the operator approve a running approval, which ends with the last vote needed."""
        approval = self.approvals[-1]
        assert self.operator is not None  # noqa: S101 - somebody votes
        seat = approval.vote(self.operator, comment, self.now)
        running = str(JobTaskStatus.RUNNING)
        details = {"decision": "approve", "seat": seat, "unverified": True}
        self._log(Action.VOTE, position, running, running, message=comment, metadata=details)
        if approval.is_granted:
            self.complete(position, approval.granted(self.now), message="approved")

    def complete(self, position: int, result: Row, message: str | None = None) -> None:
        """Complete a running task."""
        self._change_task(
            Action.COMPLETE,
            position,
            message,
            status=JobTaskStatus.COMPLETED,
            result=result,
            completed_at=self.now,
        )
        self._advance(position)

    def skip(self, position: int, reason: str) -> None:
        """Skip an optional task that is due."""
        self._change_task(
            Action.SKIP,
            position,
            reason,
            status=JobTaskStatus.SKIPPED,
            is_skipped=True,
            result=SKIPPED_RESULT,
            operator_id=self.operator,
            completed_at=self.now,
        )
        self._advance(position)

    def fail(self, position: int, error_code: str, error_message: str) -> None:
        """Let a running task fail, and its job with it."""
        self._change_task(
            Action.FAIL,
            position,
            error_message,
            status=JobTaskStatus.FAILED,
            error_message=error_message,
            error_code=error_code,
            completed_at=self.now,
        )
        self._change_job(
            Action.FAIL, about=position, status=JobStatus.FAILED, completed_at=self.now
        )

    def retry(self, position: int, reason: str) -> None:
        """Open the next attempt of a failed task."""
        self._open_next(Action.RETRY, position, reason, kept_as=JobTaskStatus.FAILED)
        self._change_job(Action.RETRY, status=JobStatus.RUNNING, **self._resumed_clock())
        self._make_due(position)

    def roll_back(self, caller: int, target: int, reason: str) -> None:
        """Send the job back from a running or failed task."""
        self._change_job(
            Action.ROLLBACK,
            message=reason,
            about=caller,
            metadata={
                "from_sequence": self._tasks[caller]["sequence"],
                "target": self._tasks[target]["sequence"],
                "resume": "through",
                "force": False,
            },
            status=JobStatus.RUNNING,
            n_rollbacks=self.job["n_rollbacks"] + 1,
            **self._resumed_clock(),
        )
        for position in range(target, caller + 1):
            is_caller = position == caller
            self._open_next(
                Action.ROLLBACK,
                position,
                reason,
                kept_as=JobTaskStatus.ROLLED_BACK,
                status=JobTaskStatus.ROLLED_BACK if is_caller else JobTaskStatus.PENDING,
            )
        self._make_due(target)

    def _advance(self, position: int) -> None:
        if position + 1 < len(self._tasks):
            self._make_due(position + 1)
            return
        self._change_job(
            Action.COMPLETE,
            status=JobStatus.COMPLETED,
            current_task_seq=None,
            completed_at=self.now,
            paused_at=None,
        )

    def _make_due(self, position: int) -> None:
        task = self._tasks[position]
        self.job.update(current_task_seq=task["sequence"], updated_at=self.now)
        if task["status"] == JobTaskStatus.ROLLED_BACK:
            self._change_task(Action.REOPEN, position, "due again", status=JobTaskStatus.PENDING)
        task.update(ready_at=self.now, updated_at=self.now)
        if task["executor"] is not None:
            task.update(available_at=self.now)

    def _open_next(
        self,
        action: Action,
        position: int,
        reason: str,
        *,
        kept_as: str,
        status: str = JobTaskStatus.PENDING,
    ) -> None:
        task = self._tasks[position]
        kept = {name: task[name] for name in _KEPT}
        if task["status"] == JobTaskStatus.RUNNING:
            kept["completed_at"] = self.now
        kept.update(status=str(kept_as), superseded_at=self.now)
        self._attempts.append((position, kept))
        self._change_task(
            action, position, reason, status=status, is_skipped=False, **dict.fromkeys(_CLEARED)
        )
        task["attempt"] += 1

    def _resumed_clock(self) -> Row:
        job = self.job
        if job["completed_at"] is None:
            return {}
        passed = microseconds(job["resumed_at"], job["completed_at"])
        return {
            "elapsed_us": job["elapsed_us"] + passed,
            "resumed_at": self.now,
            "completed_at": None,
        }

    def _change_task(
        self, action: Action, position: int, message: str | None = None, **values: Any
    ) -> None:
        task = self._tasks[position]
        before = task["status"]
        self._log(action, position, before, values["status"], message=message)
        task.update(values, status=str(values["status"]), updated_at=self.now, available_at=None)
        if before == JobTaskStatus.RUNNING:
            self._close_approval(task)
        difference = (task["status"] in FINISHED) - (before in FINISHED)
        if difference:
            self.job.update(n_done=self.job["n_done"] + difference, updated_at=self.now)

    def _close_approval(self, task: Row) -> None:
        """Ask nobody any more once an approval is over."""
        if task["task_type"] == TaskType.APPROVAL:
            self.approvals[-1].close()
            if self.job["next_due_at"] is not None:
                self.job.update(next_due_at=None, updated_at=self.now)

    def _change_job(
        self,
        action: Action,
        *,
        message: str | None = None,
        metadata: Row | None = None,
        about: int | None = None,
        **values: Any,
    ) -> None:
        before = self.job["status"]
        after = str(values.pop("status", before))
        self.job.update(values, status=after, updated_at=self.now)
        self._log(action, None, before, after, message=message, metadata=metadata, about=about)

    def _log(
        self,
        action: Action,
        position: int | None,
        before: str | None,
        after: str,
        *,
        message: str | None = None,
        metadata: Row | None = None,
        about: int | None = None,
    ) -> None:
        row = {
            "attempt": None if position is None else self._tasks[position]["attempt"],
            "action": str(action),
            "operator_id": self.operator,
            "on_behalf_of": None,
            "from_status": before,
            "to_status": str(after),
            "message": message,
            "metadata": metadata,
            "created_at": self.now,
        }
        self._logs.append(_Log(position, about, row))


def _as_row(task: JobTaskRecord) -> Row:
    return {name: getattr(task, name) for name in _COPIED}
