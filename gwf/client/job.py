"""Give a job as an object to a notebook; what it says is read from the database when asked."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from gwf.client.handles import JobTask
from gwf.client.objects import table_html
from gwf.engine.context import checked_key
from gwf.engine.explain import Explanation
from gwf.errors import ContextKeyNotFound, Invalid
from gwf.model import JobRecord

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from gwf.client import Client


class JobContext(MutableMapping[str, Any]):
    """Be the values that the tasks of a job share; every read and write goes to the database."""

    def __init__(self, client: Client, job_id: int) -> None:
        self._client = client
        self._job_id = job_id

    def _values(self) -> dict[str, Any]:
        return self._client.context_of(self._job_id)

    def __getitem__(self, key: str) -> Any:
        """Return the value in force of a key."""
        name = checked_key(key)
        values = self._values()
        if name not in values:
            raise ContextKeyNotFound(name, within=f"job {self._job_id}")
        return values[name]

    def __setitem__(self, key: str, value: Any) -> None:
        """Set the value of a key; the old one stays in the history."""
        self._client.set_context(self._job_id, {key: value})

    def __delitem__(self, key: str) -> None:
        """Take a key away; its values stay in the history."""
        self._client.delete_context(self._job_id, key)

    def __iter__(self) -> Iterator[str]:
        """Return the keys in force."""
        return iter(self._values())

    def __len__(self) -> int:
        """Return the number of keys in force."""
        return len(self._values())

    def __contains__(self, key: object) -> bool:
        """Say whether a key is in force."""
        return isinstance(key, str) and key.strip() in self._values()

    def update(self, *values: Any, **more: Any) -> None:
        """Set several values in one transaction."""
        try:
            wanted = dict(*values, **more)
        except (TypeError, ValueError):
            raise Invalid("context", values, expected="a mapping, or keys and values") from None
        if wanted:
            self._client.set_context(self._job_id, wanted)

    def __repr__(self) -> str:
        """Return the values like a dict."""
        return f"JobContext({self._values()!r})"


class Job:
    """Be one run of a flow; what it says is read from the database when it is asked."""

    def __init__(self, client: Client, record: JobRecord) -> None:
        self._client = client
        self.id = record.id
        self.name = record.job_name
        self.flow_id = record.flow_id

    @property
    def record(self) -> JobRecord:
        """Return the row of the job as it is now."""
        return self._client.job_record(self.id)

    @property
    def status(self) -> str:
        """Return the status as it is now."""
        return self.record.status

    @property
    def is_paused(self) -> bool:
        """Say whether nothing new may start."""
        return self.record.paused_at is not None

    @property
    def duration_s(self) -> float | None:
        """Return the seconds that the job was under way; None while it is open."""
        return self.record.duration_s

    @property
    def context(self) -> JobContext:
        """Return the context as a mapping that writes through."""
        return JobContext(self._client, self.id)

    @context.setter
    def context(self, values: object) -> None:
        raise AttributeError(
            "set single values, job.context['key'] = value, or job.context.update()"
        )

    def task(self, which: int | str) -> JobTask:
        """Return the task of this name, or of this sequence when it is alone there.

        Raises
        ------
        JobTaskNotFound
            The job has no such task.
        Invalid
            Several tasks have this name or sequence; the message names their ids.
        """
        return self._client.task_of_job(self.id, which)

    def next_task(self) -> JobTask | None:
        """Return the first task that may start now, or None."""
        return self._client.next_task(self)

    def start(self, *, operator: int | str | None = None, **call: Any) -> Job:
        """Start the job; see ``Client.start_job``."""
        return self._client.start_job(self, operator=operator, **call)

    def cancel(
        self, *, reason: str | None = None, operator: int | str | None = None, **call: Any
    ) -> Job:
        """Give the job up; see ``Client.cancel_job``."""
        return self._client.cancel_job(self, reason=reason, operator=operator, **call)

    def pause(
        self, *, reason: str | None = None, operator: int | str | None = None, **call: Any
    ) -> Job:
        """Let nothing new start; see ``Client.pause_job``."""
        return self._client.pause_job(self, reason=reason, operator=operator, **call)

    def resume(self, *, operator: int | str | None = None, **call: Any) -> Job:
        """Allow starts again; see ``Client.resume_job``."""
        return self._client.resume_job(self, operator=operator, **call)

    def reopen(
        self, *, to: int | str, reason: str, operator: int | str | None = None, **call: Any
    ) -> Job:
        """Open a completed job again; see ``Client.reopen_job``."""
        return self._client.reopen_job(self, to=to, reason=reason, operator=operator, **call)

    def retry(self, which: int | str, **options: Any) -> JobTask:
        """Open the next attempt of a failed task; see ``Client.retry_task``."""
        return self.task(which).retry(**options)

    def skip(self, which: int | str, **options: Any) -> JobTask:
        """Skip a task; see ``Client.skip_task``."""
        return self.task(which).skip(**options)

    def rollback(self, which: int | str, *, to: int | str, reason: str, **options: Any) -> JobTask:
        """Send the job back from this task; see ``Client.rollback_task``."""
        return self.task(which).rollback(to=to, reason=reason, **options)

    def allowed_targets(self, which: int | str, **options: Any) -> tuple[int, ...]:
        """Return the sequences that ``rollback`` of this task would accept now."""
        return self.task(which).allowed_targets(**options)

    def explain(self) -> Explanation:
        """Return why the job waits, on whom, since when, and what is legal next."""
        return self._client.explain(self)

    def tasks(self) -> pd.DataFrame:
        """Return the frame ``job_tasks`` of this job."""
        return self._client.job_tasks(job=self)

    def attempts(self) -> pd.DataFrame:
        """Return the frame ``attempts`` of this job."""
        return self._client.attempts(job=self)

    def logs(self) -> pd.DataFrame:
        """Return the frame ``logs`` of this job."""
        return self._client.logs(job=self)

    def timeline(self, *, tz: str = "UTC") -> go.Figure:
        """Return a figure of every attempt, also of those that were sent back."""
        from gwf.figures import timeline

        frame = self.attempts()
        as_of = datetime.fromisoformat(frame.attrs["gwf"]["as_of"])
        return timeline(frame, now=as_of, tz=tz, title=f"{self.name} (job {self.id})")

    def __repr__(self) -> str:
        """Return id, name, status and progress as they are now."""
        record = self.record
        paused = ", paused" if record.paused_at else ""
        return (
            f"Job({record.id}, {record.job_name!r}, {record.status}{paused}, "
            f"{record.n_done} of {record.n_tasks} tasks done)"
        )

    def _repr_html_(self) -> str:
        record = self.record
        facts = {
            "job": record.id,
            "flow": f"{record.flow_name} {record.flow_version}",
            "status": record.status,
            "paused": record.paused_at,
            "done": f"{record.n_done} of {record.n_tasks} tasks",
            "send-backs": record.n_rollbacks,
            "created": record.created_at,
            "started": record.started_at,
            "ended": record.completed_at,
        }
        return table_html(f"Job {record.job_name}", facts)
