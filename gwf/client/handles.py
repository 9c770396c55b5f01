"""Give the task of a job as an object to a notebook.

A ``JobTask`` is what was read: it keeps the attempt that its reader looked at, and its verbs
address that attempt, so an answer to an attempt that is over is a Conflict and never a decision
about something else (rule T5); ``refresh`` looks again.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from gwf.client.objects import table_html
from gwf.model import AttemptRecord, JobTaskRecord

if TYPE_CHECKING:
    from gwf.client import Approval, Client, Vote


class JobTask:
    """Be the run of one task in a job, as it was when it was read."""

    def __init__(self, client: Client, record: JobTaskRecord) -> None:
        self._client = client
        self.record = record

    @property
    def id(self) -> int:
        """Return the id of the job task."""
        return self.record.id

    @property
    def job_id(self) -> int:
        """Return the id of the job."""
        return self.record.job_id

    @property
    def name(self) -> str:
        """Return the name of the task."""
        return self.record.task_name

    @property
    def type(self) -> str:
        """Return ``manual``, ``automated`` or ``approval``."""
        return self.record.task_type

    @property
    def sequence(self) -> int:
        """Return the sequence of the task in its job."""
        return self.record.sequence

    @property
    def status(self) -> str:
        """Return the status as of when the task was read."""
        return self.record.status

    @property
    def attempt(self) -> int:
        """Return the number of the attempt, counted from 1."""
        return self.record.attempt

    @property
    def operator_id(self) -> int | None:
        """Return who started the attempt, if that is known."""
        return self.record.operator_id

    @property
    def result(self) -> Any:
        """Return the result: JSON, or None."""
        return self.record.result

    @property
    def config(self) -> Any:
        """Return the configuration as it was copied into the job."""
        return self.record.config

    @property
    def error_code(self) -> str | None:
        """Return the code of the failure, if there is one."""
        return self.record.error_code

    @property
    def error_message(self) -> str | None:
        """Return what went wrong, if something did."""
        return self.record.error_message

    @property
    def ready_at(self) -> datetime | None:
        """Return when the task became due."""
        return self.record.ready_at

    @property
    def started_at(self) -> datetime | None:
        """Return when the attempt was started."""
        return self.record.started_at

    @property
    def completed_at(self) -> datetime | None:
        """Return when the attempt ended, in whatever way."""
        return self.record.completed_at

    @property
    def previous_attempt(self) -> AttemptRecord | None:
        """Return the attempt before this one, with its result, so that a form can be prefilled."""
        return self._client.previous_attempt(self)

    def refresh(self) -> JobTask:
        """Read the task again, its current attempt included."""
        self.record = self._client.job_task(self.id).record
        return self

    def start(
        self, *, operator: int | str | None = None, idempotency_key: str | None = None
    ) -> JobTask:
        """Start this attempt; see ``Client.start_task``."""
        return self._take(
            self._client.start_task(self, operator=operator, idempotency_key=idempotency_key)
        )

    def complete(
        self,
        result: Any = None,
        *,
        operator: int | str | None = None,
        context: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> JobTask:
        """Complete this attempt; see ``Client.complete_task``."""
        return self._take(
            self._client.complete_task(
                self, result, operator=operator, context=context, idempotency_key=idempotency_key
            )
        )

    def fail(
        self,
        error_message: str,
        *,
        error_code: str | None = None,
        operator: int | str | None = None,
        idempotency_key: str | None = None,
    ) -> JobTask:
        """Let this attempt fail; see ``Client.fail_task``."""
        return self._take(
            self._client.fail_task(
                self,
                error_message,
                error_code=error_code,
                operator=operator,
                idempotency_key=idempotency_key,
            )
        )

    def skip(
        self,
        *,
        operator: int | str | None = None,
        reason: str | None = None,
        force: bool = False,
        idempotency_key: str | None = None,
    ) -> JobTask:
        """Skip this task; see ``Client.skip_task``."""
        return self._take(
            self._client.skip_task(
                self,
                operator=operator,
                reason=reason,
                force=force,
                idempotency_key=idempotency_key,
            )
        )

    def retry(
        self,
        *,
        operator: int | str | None = None,
        reason: str | None = None,
        idempotency_key: str | None = None,
    ) -> JobTask:
        """Open the next attempt; see ``Client.retry_task``."""
        return self._take(
            self._client.retry_task(
                self, operator=operator, reason=reason, idempotency_key=idempotency_key
            )
        )

    def rollback(self, *, to: int | str, reason: str, **options: Any) -> JobTask:
        """Send the job back from here; see ``Client.rollback_task``."""
        return self._take(self._client.rollback_task(self, to=to, reason=reason, **options))

    def approve(self, *, comment: str | None = None, **options: Any) -> Vote:
        """Approve this attempt; see ``Client.approve``."""
        return self._voted(self._client.approve(self, comment=comment, **options))

    def reject(self, *, comment: str | None = None, **options: Any) -> Vote:
        """Reject this attempt; see ``Client.reject``."""
        return self._voted(self._client.reject(self, comment=comment, **options))

    def withdraw_vote(self, **options: Any) -> Vote:
        """Take one's vote on this attempt back; see ``Client.withdraw_vote``."""
        return self._client.withdraw_vote(self, **options)

    def approval(self) -> Approval:
        """Return the seats, who fills them, what is missing; see ``Client.approval``."""
        return self._client.approval(self)

    def allowed_actions(self, *, user: int | str | None = None) -> tuple[str, ...]:
        """Return the verbs that this user may use on the task now."""
        return self._client.allowed_actions(self, user=user)

    def allowed_targets(self, **options: Any) -> tuple[int, ...]:
        """Return the sequences that ``rollback`` would accept now."""
        return self._client.allowed_targets(self, **options)

    def set_context(self, **values: Any) -> None:
        """Write values to the job's context as this attempt; a send-back supersedes them."""
        self._client.set_context(self.job_id, values, task=self)

    def _voted(self, vote: Any) -> Vote:
        """Show the status that the vote led to, but go on addressing the attempt voted on."""
        found = self._client.job_task(self.id).record
        if found.attempt == self.attempt:
            self.record = found
        return cast("Vote", vote)

    def _take(self, changed: JobTask) -> JobTask:
        self.record = changed.record
        return self

    def __repr__(self) -> str:
        """Return id, name, status and attempt."""
        return f"JobTask({self.id}, {self.name!r}, {self.status}, attempt {self.attempt})"

    def _repr_html_(self) -> str:
        record = self.record
        facts = {
            "job task": record.id,
            "job": record.job_id,
            "sequence": record.sequence,
            "status": record.status,
            "attempt": record.attempt,
            "operator": record.operator_id,
            "due since": record.ready_at,
            "started": record.started_at,
            "ended": record.completed_at,
            "result": record.result,
            "error": record.error_message,
        }
        return table_html(f"{record.task_name}", facts)
