"""Be the client's verbs on one task of a job."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy.engine import Connection

from gwf.client.door import Door, JobLike, JobTaskLike, Operator, attempt_of, id_of
from gwf.client.handles import JobTask
from gwf.engine import job_tasks, lookup, sendback
from gwf.engine.sendback import SendBack
from gwf.limits import checked_reason
from gwf.model import AttemptRecord


class JobTasks(Door):
    """Start, complete, fail, skip, retry and send back the tasks of a job."""

    def job_task(self, which: JobTaskLike) -> JobTask:
        """Return the job task of this id, as it is now.

        Raises
        ------
        JobTaskNotFound
        """
        job_task_id = id_of("job task", which)
        return JobTask(self._client, self._read(lambda conn: lookup.job_task(conn, job_task_id)))

    def task_of_job(self, job: JobLike, which: int | str) -> JobTask:
        """Return the task of a job by its name, or by its sequence; see ``Job.task``."""
        job_id = id_of("job", job)
        return JobTask(
            self._client, self._read(lambda conn: lookup.task_of_job(conn, job_id, which))
        )

    def previous_attempt(self, task: JobTaskLike) -> AttemptRecord | None:
        """Return the attempt before the current one, with its result; None for the first."""
        job_task_id = id_of("job task", task)
        return self._read(lambda conn: lookup.previous_attempt(conn, job_task_id))

    def start_task(
        self,
        task: JobTaskLike,
        *,
        operator: Operator = None,
        attempt: int | None = None,
        idempotency_key: str | None = None,
    ) -> JobTask:
        """Start a task that is due.

        Raises
        ------
        JobTaskNotFound
        NotDue
            Something else has to happen first; ``blockers`` names it.
        Conflict
            Somebody else was first, or the task is over.
        """
        return self._task_verb(job_tasks.start_task, task, operator, attempt, idempotency_key)

    def complete_task(
        self,
        task: JobTaskLike,
        result: Any = None,
        *,
        operator: Operator = None,
        context: Mapping[str, Any] | None = None,
        attempt: int | None = None,
        idempotency_key: str | None = None,
    ) -> JobTask:
        """Complete a running task with a JSON result, and make due what comes next.

        ``context`` holds values for the tasks to come; a send-back supersedes them.

        Raises
        ------
        JobTaskNotFound, Conflict, Invalid
        """
        return self._task_verb(
            job_tasks.complete_task,
            task,
            operator,
            attempt,
            idempotency_key,
            result=result,
            context=context,
        )

    def fail_task(
        self,
        task: JobTaskLike,
        error_message: str,
        *,
        error_code: str | None = None,
        operator: Operator = None,
        attempt: int | None = None,
        idempotency_key: str | None = None,
    ) -> JobTask:
        """Let a running task fail; its job is failed at once.

        Raises
        ------
        JobTaskNotFound, Conflict, Invalid
        """
        return self._task_verb(
            job_tasks.fail_task,
            task,
            operator,
            attempt,
            idempotency_key,
            error_message=error_message,
            error_code=error_code,
        )

    def skip_task(
        self,
        task: JobTaskLike,
        *,
        operator: Operator = None,
        reason: str | None = None,
        force: bool = False,
        attempt: int | None = None,
        idempotency_key: str | None = None,
    ) -> JobTask:
        """Skip a task that is due and optional; ``force`` lets an admin skip any, with a reason.

        Raises
        ------
        JobTaskNotFound, NotAllowed, NotDue, Conflict
        """
        return self._task_verb(
            job_tasks.skip_task,
            task,
            operator,
            attempt,
            idempotency_key,
            reason=reason,
            force=force,
        )

    def retry_task(
        self,
        task: JobTaskLike,
        *,
        operator: Operator = None,
        reason: str | None = None,
        attempt: int | None = None,
        idempotency_key: str | None = None,
    ) -> JobTask:
        """Open the next attempt of a failed task; its job is running again.

        Raises
        ------
        JobTaskNotFound, Conflict
        """
        return self._task_verb(
            job_tasks.retry_task, task, operator, attempt, idempotency_key, reason=reason
        )

    def rollback_task(
        self,
        task: JobTaskLike,
        *,
        to: int | str,
        reason: str,
        operator: Operator = None,
        running: sendback.Running = "refuse",
        resume: sendback.Resume = "through",
        force: bool = False,
        attempt: int | None = None,
        idempotency_key: str | None = None,
    ) -> JobTask:
        """Send the job back from this task to an earlier sequence, or to the task of a name.

        Nothing is erased: the attempts stay in ``attempts()`` as ``rolled_back``.
        ``running="cancel"`` ends running siblings instead of refusing; ``resume="direct"`` comes
        straight back after the target, the results in between stand.

        Raises
        ------
        JobTaskNotFound, Invalid
        SendBackRefused
            ``allowed`` holds the targets that would be accepted.
        NotAllowed
            The caller or a completed task on the way allows no send-back; ``force`` is for admins.
        """
        why = checked_reason(reason, verb="a send-back")
        job_task_id = id_of("job task", task)
        call = self._call(
            operator, attempt=attempt_of(task, attempt), idempotency_key=idempotency_key
        )

        def work(conn: Connection) -> JobTask:
            target = lookup.sequence_for(conn, job_task_id, to)
            request = SendBack(target, why, running, resume, force)
            return JobTask(self._client, sendback.rollback_task(conn, job_task_id, call, request))

        return self._write(work)

    def allowed_targets(
        self,
        task: JobTaskLike,
        *,
        operator: Operator = None,
        running: sendback.Running = "refuse",
        force: bool = False,
    ) -> tuple[int, ...]:
        """Return exactly the sequences that ``rollback_task`` would accept now, lowest first.

        ``force`` counts for an admin alone, once the directory holds anybody.

        Raises
        ------
        JobTaskNotFound, UserNotFound
        """
        job_task_id = id_of("job task", task)
        who = self._call(operator).operator
        return self._read(
            lambda conn: sendback.allowed_targets(
                conn, job_task_id, operator=who, running=running, force=force
            )
        )
