"""Make each call of the client: who calls, on what, in which transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, TypeVar, cast

from sqlalchemy.engine import Connection

from gwf import timely
from gwf.client.handles import JobTask
from gwf.client.job import Job
from gwf.client.objects import Flow, Task
from gwf.client.steps import StepLike, TaskLike
from gwf.database import Database
from gwf.engine import definitions
from gwf.errors import Invalid
from gwf.limits import checked_choice, checked_id, checked_operator, checked_whole
from gwf.model import Call, JobRecord

if TYPE_CHECKING:
    from gwf.client import Client

Answer = TypeVar("Answer")
Operator = int | str | None
Instant = datetime | date | str | None
JobLike = Job | int
JobTaskLike = JobTask | int
FlowLike = Flow | int | str


class Door:
    """Hold the database and the caller; each verb of the client goes through here."""

    database: Database
    user: int | str | None

    @property
    def _client(self) -> Client:
        """Return the whole client, which every door is a part of."""
        return cast("Client", self)

    def _call(self, operator: Operator, **rest: Any) -> Call:
        who = checked_operator(operator)
        return Call(operator=self.user if who is None else who, **rest)

    def _job_verb(
        self,
        verb: Callable[..., JobRecord],
        job: JobLike,
        operator: Operator,
        idempotency_key: str | None,
        **arguments: Any,
    ) -> Job:
        job_id = id_of("job", job)
        call = self._call(operator, idempotency_key=idempotency_key)
        return Job(self._client, self._write(lambda conn: verb(conn, job_id, call, **arguments)))

    def _task_verb(
        self,
        verb: Callable[..., Any],
        task: JobTaskLike,
        operator: Operator,
        attempt: int | None,
        idempotency_key: str | None,
        **arguments: Any,
    ) -> JobTask:
        job_task_id = id_of("job task", task)
        call = self._call(
            operator, attempt=attempt_of(task, attempt), idempotency_key=idempotency_key
        )
        return JobTask(
            self._client, self._write(lambda conn: verb(conn, job_task_id, call, **arguments))
        )

    def _task_id(self, conn: Connection, which: TaskLike) -> int:
        if isinstance(which, Task):
            return which.id
        if isinstance(which, str):
            return definitions.find_task(conn, which).id
        return checked_id("task id", which)

    def _flow_id(self, conn: Connection, which: FlowLike) -> int:
        if isinstance(which, Flow):
            return which.id
        if isinstance(which, str):
            return definitions.find_flows(conn, which)[0].id
        return checked_id("flow id", which)

    def _flow_ids(self, conn: Connection, which: FlowLike) -> list[int]:
        """Return the ids that a filter means: a name stands for all versions."""
        if isinstance(which, str):
            return [flow.id for flow in definitions.find_flows(conn, which)]
        return [definitions.get_flow(conn, self._flow_id(conn, which)).id]

    def _read(self, work: Callable[[Connection], Answer]) -> Answer:
        return timely.read(self.database, work)

    def _write(self, work: Callable[[Connection], Answer]) -> Answer:
        return timely.write(self.database, work)


def id_of(what: str, which: object) -> int:
    """Return the id of an object, or the id itself."""
    wanted = Job if what == "job" else JobTask
    if isinstance(which, wanted):
        return which.id
    if isinstance(which, (Job, JobTask, Flow, Task)):
        raise Invalid(what, which, expected=f"a {what} or its id")
    return checked_id(f"{what} id", which)


def attempt_of(task: JobTaskLike, attempt: int | None) -> int | None:
    """Return the attempt that is addressed: the one given, or the one the object was read with."""
    if attempt is not None:
        return checked_whole("attempt", attempt, lowest=1, highest=2**31 - 1)
    return task.attempt if isinstance(task, JobTask) else None


def known_fields(
    fields: dict[str, Any], known: Sequence[str], column_names: dict[str, str]
) -> dict[str, Any]:
    """Return the fields under the names of their columns, refusing unknown ones."""
    for name in fields:
        if name not in known:
            raise Invalid("field", name, expected=f"one of {', '.join(known)}")
    return {column_names.get(name, name): value for name, value in fields.items()}


def choices(what: str, value: str | Sequence[str] | None, allowed: type[Any]) -> list[str] | None:
    """Return a filter as a list of allowed values."""
    if value is None:
        return None
    values = list(value) if isinstance(value, Iterable) and not isinstance(value, str) else [value]
    return [checked_choice(what, one, allowed) for one in values]


def listed(steps: Iterable[StepLike]) -> Any:
    """Return steps as a list, which can be read twice; what is none is left to be refused."""
    is_list = isinstance(steps, Iterable) and not isinstance(steps, (str, bytes, Task))
    return list(steps) if is_list else steps
