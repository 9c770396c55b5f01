"""Be the client's verbs on whole jobs and on their context."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.engine import Connection

from gwf.client.door import Door, FlowLike, JobLike, JobTaskLike, Operator, attempt_of, id_of
from gwf.client.handles import JobTask
from gwf.client.job import Job
from gwf.engine import context as contexts
from gwf.engine import creation, jobs, lookup, sendback
from gwf.engine.creation import NewJob, paired
from gwf.engine.explain import Explanation, explain
from gwf.engine.locks import get_job
from gwf.model import JobRecord


class Jobs(Door):
    """Create, start, cancel, pause, resume and reopen jobs, and share values between tasks."""

    def create_job(
        self,
        flow: FlowLike,
        name: str,
        *,
        context: Mapping[str, Any] | None = None,
        created_by: Operator = None,
        idempotency_key: str | None = None,
    ) -> Job:
        """Create a job: a copy of the flow as it is now, ready to be started.

        Raises
        ------
        FlowNotFound, Invalid
        Conflict
            The flow is retired or has no tasks.
        """
        call = self._call(created_by, idempotency_key=idempotency_key)
        new = NewJob(name, {} if context is None else context)
        return Job(
            self._client,
            self._write(
                lambda conn: creation.create_job(conn, self._flow_id(conn, flow), call, job=new)
            ),
        )

    def create_jobs(
        self,
        flow: FlowLike,
        names: Sequence[str],
        *,
        contexts: Sequence[Mapping[str, Any]] | None = None,
        created_by: Operator = None,
        idempotency_key: str | None = None,
    ) -> list[Job]:
        """Create many jobs of one flow in one transaction, in bulk, in the order of the names.

        Raises
        ------
        FlowNotFound, Conflict, Invalid
            As ``create_job``; no job is created then.
        """
        call = self._call(created_by, idempotency_key=idempotency_key)
        wanted = paired(names, contexts)
        records = self._write(
            lambda conn: creation.create_jobs(
                conn, self._flow_id(conn, flow), call, new_jobs=wanted
            )
        )
        return [Job(self._client, record) for record in records]

    def job(self, which: JobLike) -> Job:
        """Return the job of this id.

        Raises
        ------
        JobNotFound
        """
        return Job(self._client, self.job_record(id_of("job", which)))

    def job_record(self, job_id: int) -> JobRecord:
        """Return the row of a job as it is now."""
        return self._read(lambda conn: get_job(conn, job_id))[0]

    def start_job(
        self, job: JobLike, *, operator: Operator = None, idempotency_key: str | None = None
    ) -> Job:
        """Start a pending job and make its first group due.

        Raises
        ------
        JobNotFound, Conflict
        """
        return self._job_verb(jobs.start_job, job, operator, idempotency_key)

    def cancel_job(
        self,
        job: JobLike,
        *,
        reason: str | None = None,
        operator: Operator = None,
        idempotency_key: str | None = None,
    ) -> Job:
        """Give a job up; running tasks end as failed with the code ``cancelled``.

        Raises
        ------
        JobNotFound, Conflict
        """
        return self._job_verb(jobs.cancel_job, job, operator, idempotency_key, reason=reason)

    def pause_job(
        self,
        job: JobLike,
        *,
        reason: str | None = None,
        operator: Operator = None,
        idempotency_key: str | None = None,
    ) -> Job:
        """Let nothing new start in a running job; running work goes on.

        Raises
        ------
        JobNotFound, Conflict
        """
        return self._job_verb(jobs.pause_job, job, operator, idempotency_key, reason=reason)

    def resume_job(
        self, job: JobLike, *, operator: Operator = None, idempotency_key: str | None = None
    ) -> Job:
        """Allow starts in a paused job again.

        Raises
        ------
        JobNotFound, Conflict
        """
        return self._job_verb(jobs.resume_job, job, operator, idempotency_key)

    def reopen_job(
        self,
        job: JobLike,
        *,
        to: int | str,
        reason: str,
        operator: Operator = None,
        idempotency_key: str | None = None,
    ) -> Job:
        """Open a completed job again from a sequence (or the task of a name) on.

        Raises
        ------
        JobNotFound, JobTaskNotFound, Conflict, Invalid
        """
        job_id = id_of("job", job)
        call = self._call(operator, idempotency_key=idempotency_key)

        def work(conn: Connection) -> Job:
            target = lookup.sequence_of(conn, job_id, to)
            record = sendback.reopen_job(conn, job_id, call, target=target, reason=reason)
            return Job(self._client, record)

        return self._write(work)

    def next_task(self, job: JobLike) -> JobTask | None:
        """Return the first task of the job that may start now, or None.

        Raises
        ------
        JobNotFound
        """
        job_id = id_of("job", job)
        record = self._read(lambda conn: lookup.next_task(conn, job_id))
        return None if record is None else JobTask(self._client, record)

    def explain(self, job: JobLike) -> Explanation:
        """Return why the job waits, on whom, since when, and what is legal next.

        Raises
        ------
        JobNotFound
        """
        job_id = id_of("job", job)
        return self._read(lambda conn: explain(conn, job_id))

    def context_of(self, job: JobLike) -> dict[str, Any]:
        """Return the context in force of a job as a dict.

        Raises
        ------
        JobNotFound
        """
        job_id = id_of("job", job)

        def work(conn: Connection) -> dict[str, Any]:
            get_job(conn, job_id)
            return contexts.context_values(conn, job_id)

        return self._read(work)

    def set_context(
        self,
        job: JobLike,
        values: Mapping[str, Any],
        *,
        task: JobTaskLike | None = None,
        operator: Operator = None,
        idempotency_key: str | None = None,
    ) -> dict[str, Any]:
        """Set values of a job's context and return the context in force.

        With a ``task``, which has to be running, the values belong to its attempt.

        Raises
        ------
        JobNotFound, JobTaskNotFound, Conflict, Invalid
        """
        job_id = id_of("job", job)
        job_task_id = None if task is None else id_of("job task", task)
        call = self._call(
            operator,
            attempt=None if task is None else attempt_of(task, None),
            idempotency_key=idempotency_key,
        )
        return self._write(
            lambda conn: contexts.set_context(
                conn, job_id, call, values=values, job_task_id=job_task_id
            )
        )

    def delete_context(
        self,
        job: JobLike,
        key: str,
        *,
        operator: Operator = None,
        idempotency_key: str | None = None,
    ) -> dict[str, Any]:
        """Take a key out of a job's context and return the context in force.

        Raises
        ------
        JobNotFound, ContextKeyNotFound, Conflict
        """
        job_id = id_of("job", job)
        call = self._call(operator, idempotency_key=idempotency_key)
        return self._write(lambda conn: contexts.delete_context(conn, job_id, call, key=key))
