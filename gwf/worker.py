"""Run automated tasks: claim them, carry them out, report what came of them.

One loop in one thread looks for work, extends leases, watches times and reports; the tasks run
elsewhere, in threads or in any ``concurrent.futures.Executor``, and never inside a transaction
(rule T1). A report claims what it makes due in the same transaction, so a chain of short tasks
costs one commit each.

What it survives. The database is away: results are kept and reported once it is back, and the
attempt is still this worker's unless another one took it. The worker dies: its leases expire. An
attempt is cancelled or taken over: the next heartbeat learns it and gives the executor up. It is
unknown whether a commit arrived: what the database says is read before anything is done again.
"""

from __future__ import annotations

import logging
import os
import queue
import random
import secrets
import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from concurrent.futures import Executor as Pool
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from gwf import database, timely
from gwf.database import Database
from gwf.engine import claims
from gwf.engine.claims import Claim, Lease, Step
from gwf.engine.retrying import GIVEN_BACK
from gwf.engine.workers import note_worker
from gwf.errors import Conflict, DatabaseUnavailable, NotFound, OutcomeUnknown
from gwf.events import TASK_DUE, Event
from gwf.model import JobRecord, JobTaskRecord, WorkerRecord
from gwf.orders import TIMED_OUT, Order, Outcome, carry_out
from gwf.sources import Source
from gwf.threads import DaemonThreads

logger = logging.getLogger(__name__)

#: How long an executor is given to end after it was given up, in seconds.
GIVE_UP_S = 8.0
#: The longest pause between two tries to reach a database that is away, in seconds.
LONGEST_RETRY_S = 5.0

_AWAY = (DatabaseUnavailable, OutcomeUnknown)


@dataclass(frozen=True, slots=True)
class Settings:
    """Say how a worker works; times are seconds."""

    concurrency: int = 8
    grace_s: float = 25.0
    networks: tuple[str, ...] = ()
    artefacts: str = "artefacts"


@dataclass(eq=False, slots=True)
class _Running:
    """Follow one attempt from its claim to its report; instants are of the monotonic clock."""

    claim: Claim
    future: Future[Outcome]
    ends_at: float
    give_up_at: float | None = None
    outcome: Outcome | None = None
    is_lost: bool = False
    is_unsure: bool = False

    def give_up(self) -> None:
        if self.give_up_at is None:
            self.give_up_at = time.monotonic()
            self.claim.context.given_up.set()
            self.future.cancel()


class Worker:
    """Run automated tasks until there are none left, or until it is stopped."""

    def __init__(
        self,
        db: Database,
        lease: Lease,
        source: Source,
        *,
        settings: Settings | None = None,
        pool: Pool | None = None,
        on_step: Callable[[JobRecord], object] | None = None,
    ) -> None:
        self._db = db
        self._lease = lease
        self._source = source
        self._settings = settings or Settings()
        self._threads = DaemonThreads()
        self._pool = pool or self._threads
        self._on_step = on_step
        self._inbox: queue.SimpleQueue[_Running | None] = queue.SimpleQueue()
        self._running: list[_Running] = []
        self._unreported: list[_Running] = []
        self._thread: int | None = None
        self._next_look = self._next_beat = self._next_report = 0.0
        self._n_away = 0
        self._is_unsure = False
        self._stop_by: float | None = None
        now = datetime.now(UTC)
        self._said = WorkerRecord(
            name=lease.worker,
            host=socket.gethostname()[:255],
            pid=os.getpid(),
            state="running",
            executors=sorted(lease.executors),
            concurrency=self._settings.concurrency,
            n_running=0,
            n_completed=0,
            n_failed=0,
            n_lost=0,
            last_error=None,
            started_at=now,
            seen_at=now,
        )

    def run(self) -> None:
        """Work until the source is exhausted or ``stop`` was called and all has ended.

        An interrupt, such as that of a notebook, gives back what runs before it goes on.
        """
        self._thread = threading.get_ident()
        self._db.after_commit.append(self._wake)
        try:
            self._work()
        except KeyboardInterrupt:
            self.stop(0.0)
            self._work()
            raise
        finally:
            self._db.after_commit.remove(self._wake)
            self._threads.shutdown()
            self._say("stopped")

    def stop(self, grace_s: float | None = None) -> None:
        """Claim nothing more; after ``grace_s`` seconds give back what still runs.

        May be called from any thread and from a signal handler; a second call may shorten the time.
        """
        grace = self._settings.grace_s if grace_s is None else grace_s
        by = time.monotonic() + grace
        self._stop_by = by if self._stop_by is None else min(by, self._stop_by)
        self._inbox.put(None)

    def health(self) -> WorkerRecord:
        """Return what the worker says of itself: its state, what it may run, its counters."""
        return replace(self._said, n_running=len(self._running))

    def _work(self) -> None:
        while not self._is_over():
            self._turn()

    def _turn(self) -> None:
        """Wait for something to do, and do all of it."""
        finished = self._wait()
        now = time.monotonic()
        for one in finished:
            self._settle(one)
        for one in self._running:
            self._watch(one, now)
        if self._unreported and now >= self._next_report:
            self._report_all()
        if now >= self._next_beat:
            self._beat()
        if self._stop_by is None and time.monotonic() >= self._next_look and self._n_free() > 0:
            self._look()

    def _is_over(self) -> bool:
        if self._running or self._unreported:
            return False
        return self._stop_by is not None or self._source.is_exhausted()

    def _n_free(self) -> int:
        return self._settings.concurrency - len(self._running) - len(self._unreported)

    # Waiting

    def _wait(self) -> list[_Running]:
        """Wait until something ends, somebody wakes us, or it is time for something."""
        arrived: list[_Running | None] = []
        try:
            arrived.append(self._inbox.get(timeout=max(0.0, self._next_turn() - time.monotonic())))
            while True:
                arrived.append(self._inbox.get_nowait())
        except queue.Empty:
            pass
        if None in arrived and not self._n_away:
            self._next_look = 0.0
        return [one for one in arrived if one is not None]

    def _next_turn(self) -> float:
        instants = [self._next_beat]
        if self._stop_by is None:
            if self._n_free() > 0:
                instants.append(self._next_look)
        elif any(one.give_up_at is None for one in self._running):
            instants.append(self._stop_by)
        if self._unreported:
            instants.append(self._next_report)
        for one in self._running:
            given_up = one.give_up_at
            instants.append(one.ends_at if given_up is None else given_up + GIVE_UP_S)
        return min(instants)

    def _wake(self, events: Sequence[Event]) -> None:
        """Look at once when somebody else of this process made a task due."""
        if threading.get_ident() == self._thread:
            return
        if any(event.name == TASK_DUE for event in events):
            self._inbox.put(None)

    # Claims

    def _look(self) -> None:
        try:
            if self._is_unsure:
                self._give_back_unknown()
            steps = self._source.take(self._db, self._lease, limit=self._n_free())
        except _AWAY as error:
            self._is_unsure = self._is_unsure or isinstance(error, OutcomeUnknown)
            self._next_look = time.monotonic() + self._away(error)
            return
        self._n_away = 0
        for step in steps:
            self._begin(step)
        self._next_look = time.monotonic() + self._source.pause_s()

    def _begin(self, step: Step) -> None:
        for claim in step.claims:
            self._start(claim)
        if self._on_step is not None:
            self._on_step(step.job)

    def _start(self, claim: Claim) -> None:
        context = replace(
            claim.context,
            database=self._db,
            networks=self._settings.networks,
            artefacts=self._settings.artefacts,
        )
        claim = replace(claim, context=context)
        order = Order(self._lease.executors[claim.work.executor], claim.work.arguments, context)
        timeout_s = claim.work.timeout_s
        ends_at = float("inf") if timeout_s is None else time.monotonic() + timeout_s
        try:
            future = self._pool.submit(carry_out, order)
        except Exception as error:  # a pool that was shut down, or a cluster that is gone
            future = Future()
            future.set_exception(error)
        running = _Running(claim, future, ends_at)
        self._running.append(running)
        future.add_done_callback(lambda _: self._inbox.put(running))

    def _give_back_unknown(self) -> None:
        """Give back what was claimed by a transaction whose commit nobody could tell of."""
        held = database.read(self._db, lambda conn: claims.held_by(conn, self._lease))
        known = {one.claim.task.id for one in (*self._running, *self._unreported)}
        for task in held:
            if task.id not in known:
                outcome = Outcome(error_code=GIVEN_BACK, error_message="its claim was not heard of")
                self._write_report(task, outcome)
        self._is_unsure = False

    # Ends

    def _settle(self, running: _Running) -> None:
        """Take in what came of an attempt whose future is done."""
        if running not in self._running:
            return  # it was abandoned, and reported then
        self._close(running, _outcome_of(running.future))

    def _watch(self, running: _Running, now: float) -> None:
        """Give up what ran out of time, and abandon what does not end then."""
        is_stopped = self._stop_by is not None and now >= self._stop_by
        if now >= running.ends_at or is_stopped:
            running.give_up()
        if running.give_up_at is not None and now >= running.give_up_at + GIVE_UP_S:
            logger.error("an executor does not end", extra={"job_task_id": running.claim.task.id})
            self._close(running, Outcome(error_code="abandoned", error_message="it does not end"))

    def _close(self, running: _Running, outcome: Outcome) -> None:
        self._running = [one for one in self._running if one is not running]
        if running.is_lost and outcome.error_code is not None:
            self._lose(running)
            self._next_look = 0.0
            return
        running.outcome = self._judged(running, outcome)
        self._unreported.append(running)
        self._next_report = 0.0

    def _judged(self, running: _Running, outcome: Outcome) -> Outcome:
        """Return what is to be reported: the outcome, unless its time was over."""
        if running.give_up_at is None or running.is_lost:
            return outcome
        if running.give_up_at >= running.ends_at:
            message = f"not done after {running.claim.work.timeout_s:g} seconds"
            is_told = outcome.error_code == TIMED_OUT
            return outcome if is_told else Outcome(error_code=TIMED_OUT, error_message=message)
        if outcome.error_code is None:
            return outcome
        return Outcome(error_code=GIVEN_BACK, error_message="its worker was stopped")

    # Reports

    def _report_all(self) -> None:
        waiting, self._unreported = self._unreported, []
        for number, running in enumerate(waiting):
            try:
                self._report(running)
            except _AWAY as error:
                running.is_unsure = running.is_unsure or isinstance(error, OutcomeUnknown)
                self._unreported = waiting[number:]
                self._next_report = time.monotonic() + self._away(error)
                return
        self._n_away = 0
        self._next_look = min(self._next_look, time.monotonic() + self._source.pause_s())

    def _report(self, running: _Running) -> None:
        task, outcome = running.claim.task, running.outcome
        assert outcome is not None  # noqa: S101 - it was closed
        if running.is_unsure:
            self._is_unsure = True
            if not database.read(self._db, lambda conn: claims.is_open(conn, task)):
                self._count(outcome)
                self._source.look_again(task.job_id)
                return
        try:
            step = self._write_report(task, outcome)
        except (Conflict, NotFound) as refusal:
            logger.warning("late: %s", refusal, extra={"job_task_id": task.id})
            self._lose(running)
            return
        self._count(outcome)
        is_busy = any(one.claim.task.job_id == step.job.id for one in self._running)
        self._source.note(step, is_busy=is_busy or bool(step.claims))
        self._begin(step)

    def _write_report(self, task: JobTaskRecord, outcome: Outcome) -> Step:
        limit = self._n_free() if self._stop_by is None else 0
        code = outcome.error_code
        if code is None:
            return timely.write(
                self._db,
                lambda conn: claims.report_result(
                    conn, task, self._lease, outcome.result, limit=limit
                ),
            )
        message = outcome.error_message
        return timely.write(
            self._db,
            lambda conn: claims.report_failure(
                conn, task, self._lease, code=code, message=message, limit=limit
            ),
        )

    def _lose(self, running: _Running) -> None:
        self._said = replace(self._said, n_lost=self._said.n_lost + 1)
        self._source.look_again(running.claim.task.job_id)

    def _count(self, outcome: Outcome) -> None:
        if outcome.error_code is None:
            self._said = replace(self._said, n_completed=self._said.n_completed + 1)
        elif outcome.error_code != GIVEN_BACK:
            self._said = replace(self._said, n_failed=self._said.n_failed + 1)

    # Leases and health

    def _beat(self) -> None:
        """Extend the leases, learn which attempts are lost, and say how we are."""
        state = "running" if self._stop_by is None else "stopping"
        held = [one for one in (*self._running, *self._unreported) if not one.is_lost]
        tasks = [one.claim.task for one in held]
        try:
            if tasks:
                lost = database.write(
                    self._db, lambda conn: claims.extend(conn, tasks, self._lease)
                )
                for one in held:
                    if one.claim.task.id in lost:
                        one.is_lost = True
                        one.give_up()
        except _AWAY as error:
            self._next_beat = time.monotonic() + self._away(error)
            return
        self._next_beat = time.monotonic() + self._lease.seconds / 3
        self._say(state)

    def _say(self, state: str) -> None:
        self._said = replace(self._said, state=state)
        try:
            database.write(self._db, lambda conn: note_worker(conn, self.health()))
        except _AWAY as error:
            logger.warning("the list of workers was not reached: %s", error)

    def _away(self, error: Exception) -> float:
        """Note that the database is away, and return how long to leave it alone."""
        self._n_away += 1
        self._said = replace(self._said, last_error=str(error)[:2000])
        logger.warning("the database is away: %s", error, extra={"tries": self._n_away})
        longest = min(0.25 * 2.0 ** min(self._n_away, 10), LONGEST_RETRY_S)
        return longest * random.uniform(0.5, 1.0)  # noqa: S311 - jitter is no secret


def new_name() -> str:
    """Return a name that no other worker has: host, process, and six random digits."""
    return f"{socket.gethostname()[:60]}:{os.getpid()}:{secrets.token_hex(3)}"


def _outcome_of(future: Future[Outcome]) -> Outcome:
    try:
        return future.result()
    except CancelledError:
        return Outcome(error_code="not_begun", error_message="it was taken back before it began")
    except Exception as error:  # the pool failed: a process died, or a cluster lost the task
        name = type(error).__name__
        return Outcome(error_code=name[:50], error_message=f"{name}: {error}"[:2000])
