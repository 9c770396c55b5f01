"""Be the client's verbs on automated tasks: executors, workers, schedules."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor as Pool
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy.engine import Connection

from gwf import executors
from gwf.client.door import Door, FlowLike, JobLike, Operator, id_of
from gwf.client.job import Job
from gwf.engine import schedules
from gwf.engine.claims import Lease
from gwf.engine.rows import database_now
from gwf.engine.workers import DEAD_AFTER_S
from gwf.errors import Invalid
from gwf.executors import Executor
from gwf.limits import checked_flag, checked_name, checked_seconds, checked_whole
from gwf.model import JobRecord, JobStatus, ScheduleRecord, WorkerRecord
from gwf.networks import checked_networks
from gwf.sources import AnyJob, GivenJobs, Source
from gwf.worker import Settings, Worker, new_name

if TYPE_CHECKING:
    import pandas as pd

Function = TypeVar("Function", bound=Callable[..., Any])

#: The lease of an attempt, in seconds; its worker extends it three times as often.
LEASE_S = 30.0


class BackgroundWorker:
    """Run a worker in a thread of this process: ``with wf.worker(allow=["command"]): …``.

    Leaving the block claims nothing more and waits for what runs.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="gwf worker", daemon=True)

    def run(self) -> None:
        """Work in this thread until ``stop`` is called; see ``start`` for a thread of its own."""
        self._worker.run()

    def start(self) -> BackgroundWorker:
        """Begin to work in the background."""
        self._thread.start()
        return self

    def stop(self, *, grace_s: float | None = None) -> None:
        """Claim nothing more; give back what does not end within ``grace_s`` seconds."""
        self._worker.stop(grace_s)

    def join(self) -> None:
        """Wait until the worker has ended, and raise what ended it before its time."""
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def health(self) -> WorkerRecord:
        """Return the state of the worker, what it may run, and its counters."""
        return self._worker.health()

    def __enter__(self) -> BackgroundWorker:
        """Begin to work."""
        return self.start()

    def __exit__(self, *failure: object) -> None:
        """Stop, and wait for what runs."""
        self.stop()
        self.join()

    def __repr__(self) -> str:
        """Return the name, the state, and the counters."""
        said = self.health()
        return (
            f"Worker({said.name!r}, {said.state}, {said.n_running} running, "
            f"{said.n_completed} completed, {said.n_failed} failed, {said.n_lost} lost)"
        )

    def _run(self) -> None:
        try:
            self._worker.run()
        except BaseException as failure:
            self._failure = failure


class Automation(Door):
    """Run automated tasks here or in workers, and let jobs be created by the calendar."""

    _functions: dict[str, Executor]

    def executor(self, name: str) -> Callable[[Function], Function]:
        """Register a function of this process as an executor: ``@wf.executor("lint")``.

        A task names it in its config, ``{"executor": "lint", …}``. The function is called with
        ``config``, the other keys of that config, and ``context``, an ``ExecutionContext``; what
        it returns, as JSON, is the result. What it raises is the error, its class the code.

        Raises
        ------
        Invalid
            The name is that of an executor that is installed.
        """
        wanted = checked_name("executor", name)
        if executors.named(wanted) is not None:
            raise Invalid("executor", wanted, expected="a name that no installed executor has")

        def register(function: Function) -> Function:
            self._functions[wanted] = executors.of_function(wanted, function)
            return function

        return register

    def executors(self) -> pd.DataFrame:
        """Return one row per executor that is known here, by name; see ``schemas.EXECUTORS``.

        ``is_allowed`` says that a worker of this process runs it without being told to.
        """
        from gwf import frames

        return frames.executors(executors.available(), list(self._functions.values()))

    def run(
        self,
        job: JobLike | Iterable[JobLike],
        *,
        allow: Sequence[str] = (),
        executor: Pool | None = None,
        concurrency: int = 8,
        networks: Sequence[str] = (),
        artefacts: str = "artefacts",
        progress: bool | None = None,
    ) -> Any:
        """Run the automated tasks of a job, or of several, until each ends or needs a person.

        A pending job is started. Functions that are registered here may run; ``allow`` names
        executors that may too (rule W5). What may not run stays pending, and ``job.explain()``
        says so. A retry that has to wait is waited for.

        Parameters
        ----------
        executor
            Where the tasks run: any ``concurrent.futures.Executor``, such as that of a Dask client;
            by default threads.
        concurrency
            How many tasks run at once.
        networks
            Private networks that ``http`` and ``webhook`` may reach, such as ``127.0.0.0/8``.
        artefacts
            The folder for executed notebooks.
        progress
            Show a bar; by default in a notebook or a terminal.

        Returns
        -------
        Job, or a list of them as they were given.

        Raises
        ------
        JobNotFound, Invalid
        """
        is_single = isinstance(job, (Job, int))
        given: Any = [job] if is_single else job
        ids = [id_of("job", one) for one in given]
        records = [self._client.job_record(one) for one in ids]
        settings = _settings(concurrency, networks, artefacts)
        lease = self._lease(allow)
        for record in records:
            if record.status == JobStatus.PENDING:
                self._client.start_job(record.id)
        with _bar(records, progress) as show:
            worker = Worker(
                self.database,
                lease,
                GivenJobs(ids),
                settings=settings,
                pool=executor,
                on_step=show,
            )
            worker.run()
        done = [self._client.job(one) for one in ids]
        return done[0] if is_single else done

    def worker(
        self,
        *,
        allow: Sequence[str] = (),
        concurrency: int = 8,
        executor: Pool | None = None,
        networks: Sequence[str] = (),
        artefacts: str = "artefacts",
        poll_s: float = 1.0,
        lease_s: float | None = None,
        grace_s: float = 25.0,
        name: str | None = None,
    ) -> BackgroundWorker:
        """Return a worker that runs automated tasks of any job: ``with wf.worker(): …``.

        It also applies deadlines and creates the jobs of schedules. Arguments as of ``run``;
        ``poll_s`` is the shortest pause between two looks at an empty queue; ``lease_s`` how long
        after its last sign of life others take over what it has, by default 30; ``grace_s`` the
        time that what runs is given when it stops.

        Raises
        ------
        Invalid
        """
        settings = _settings(concurrency, networks, artefacts, grace_s=grace_s)
        pause_s = checked_seconds("poll_s", poll_s, highest=3600)
        source: Source = AnyJob(pause_s=pause_s)
        lease = self._lease(allow, name=name, lease_s=lease_s)
        return BackgroundWorker(
            Worker(self.database, lease, source, settings=settings, pool=executor)
        )

    def workers(self) -> pd.DataFrame:
        """Return one row per worker of the last week; see ``schemas.WORKERS``.

        ``state`` is ``lost`` for one that was not heard of for a minute and never stopped.
        """

        def work(conn: Connection) -> pd.DataFrame:
            from gwf import frames

            now = database_now(conn)
            dead_since = now - timedelta(seconds=DEAD_AFTER_S)
            return frames.workers(conn, frames.Reading(now), dead_since=dead_since)

        return self._read(work)

    def schedule(
        self,
        flow: FlowLike,
        cron: str,
        *,
        tz: str = "UTC",
        catch_up: schedules.CatchUp = "skip",
        job_name: str | None = None,
        context: Mapping[str, Any] | None = None,
        operator: Operator = None,
    ) -> ScheduleRecord:
        """Let workers create and start a job of a flow at each instant of a cron expression.

        Each due job is created exactly once, however many workers there are. Its name is
        ``job_name``, by default that of the flow, and the local time.

        Parameters
        ----------
        cron
            Five fields: ``"0 7 * * 1-5"`` is at 7:00 from Monday to Friday, in ``tz``.
        catch_up
            What becomes of instants at which no worker was there for 5 minutes: ``skip`` passes
            over them, ``latest`` makes up for the last one, ``all`` for each, 100 at a time.

        Raises
        ------
        FlowNotFound, Conflict, Invalid
        """
        call = self._call(operator)
        return self._write(
            lambda conn: schedules.add_schedule(
                conn,
                self._flow_id(conn, flow),
                call,
                cron=cron,
                tz=tz,
                catch_up=catch_up,
                job_name=job_name,
                context=context,
            )
        )

    def update_schedule(self, schedule: ScheduleRecord | int, *, is_active: bool) -> ScheduleRecord:
        """Stop a schedule, or let it go on; what passed while it stood still is not made up for.

        Raises
        ------
        ScheduleNotFound
        """
        schedule_id = schedule.id if isinstance(schedule, ScheduleRecord) else schedule
        return self._write(
            lambda conn: schedules.set_active(conn, schedule_id, is_active=is_active)
        )

    def schedules(self, *, is_active: bool | None = None) -> pd.DataFrame:
        """Return one row per schedule, by id; see ``schemas.SCHEDULES``."""
        if is_active is not None:
            checked_flag("is_active", is_active)

        def work(conn: Connection) -> pd.DataFrame:
            from gwf import frames

            return frames.schedules(conn, frames.Reading(database_now(conn)), is_active=is_active)

        return self._read(work)

    def _lease(
        self, allow: Sequence[str], *, name: str | None = None, lease_s: float | None = None
    ) -> Lease:
        if isinstance(allow, str):
            raise Invalid("allow", allow, expected="a list of names of executors")
        allowed = dict(self._functions)
        for one in allow:
            found = allowed.get(one) or executors.named(checked_name("executor", one))
            if found is None:
                known = ", ".join([*executors.built_in(), *self._functions])
                raise Invalid("allow", one, expected=f"an executor that is known here: {known}")
            allowed[one] = found
        wanted = new_name() if name is None else checked_name("name of a worker", name)
        seconds = checked_seconds(
            "lease_s", LEASE_S if lease_s is None else lease_s, highest=86_400
        )
        return Lease(wanted, seconds, allowed)


def _settings(
    concurrency: int, networks: Sequence[str], artefacts: str, *, grace_s: float = 25.0
) -> Settings:
    return Settings(
        concurrency=checked_whole("concurrency", concurrency, lowest=1, highest=1000),
        grace_s=checked_seconds("grace_s", grace_s, highest=86_400, may_be_zero=True),
        networks=checked_networks(networks),
        artefacts=checked_name("artefacts", artefacts, longest=1000),
    )


@contextmanager
def _bar(
    records: Sequence[JobRecord], progress: bool | None
) -> Iterator[Callable[[JobRecord], None]]:
    """Show how many tasks are done, in a notebook or a terminal."""
    from tqdm.auto import tqdm

    n_done = {record.id: record.n_done for record in records}
    bar = tqdm(
        total=sum(record.n_tasks for record in records),
        initial=sum(n_done.values()),
        desc=records[0].job_name if len(records) == 1 else f"{len(records)} jobs",
        unit="task",
        disable=None if progress is None else not progress,
    )

    def show(job: JobRecord) -> None:
        n_done[job.id] = job.n_done
        bar.n = sum(n_done.values())
        bar.refresh()

    with bar:
        yield show
