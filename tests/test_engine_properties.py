"""Walk the engine and the reference model side by side, at random but always alike.

Each walk makes a flow and a job of its own and applies verbs to them, legal ones and others. After
each step the database has to say what the model says, the log has to explain every change, and
nothing that is over may have changed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest
import sqlalchemy as sa
from conftest import Databases
from hypothesis import HealthCheck
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from reference import CONDITIONS, Job, Position, Refused, Task

import gwf
from gwf.model import JOB_TASK_TRANSITIONS, JOB_TRANSITIONS, JobRecord, JobTaskRecord
from gwf.queries import JOB_COLUMNS, JOB_TASK_COLUMNS
from gwf.tables import job_task_attempts, job_task_logs, job_tasks, jobs

N_WALKS = 500
N_WALKS_WITH_DIRECTORY = 120

TASK_EDGES = {(t.action, t.from_status, t.to_status) for t in JOB_TASK_TRANSITIONS}
JOB_EDGES = {(t.action, t.from_status, t.to_status) for t in JOB_TRANSITIONS}
#: These rows of the log change no status.
NOTES = ("refuse", "context")

_MINE = sa.bindparam("job_id")
_JOB = sa.select(*JOB_COLUMNS).where(jobs.c.id == _MINE)
_TASKS = (
    sa.select(*JOB_TASK_COLUMNS)
    .where(job_tasks.c.job_id == _MINE)
    .order_by(job_tasks.c.sequence, job_tasks.c.id)
)
_PAST = (
    sa.select(job_task_attempts)
    .where(job_task_attempts.c.job_id == _MINE)
    .order_by(job_task_attempts.c.id)
)
_LOGS = (
    sa.select(job_task_logs)
    .where(job_task_logs.c.job_id == _MINE, job_task_logs.c.id > sa.bindparam("after"))
    .order_by(job_task_logs.c.id)
)


@dataclass
class Bench:
    """Hold what all walks of one test share."""

    wf: gwf.Client
    conn: sa.Connection
    tasks: list[gwf.Task]
    clock: list[datetime]
    has_directory: bool
    n_walks: int = 0
    seen: Counter[tuple[str, str | None]] = field(default_factory=Counter)


@st.composite
def flows(draw: st.DrawFn) -> tuple[list[Position], int]:
    """Draw a flow of 1 to 5 groups of 1 to 3 tasks, and how often its jobs may be sent back."""
    positions: list[Position] = []
    sequence = 0
    condition = st.none() | st.sampled_from(sorted(CONDITIONS))
    for _ in range(draw(st.sampled_from((3, 2, 4, 1, 5)))):
        sequence += draw(st.sampled_from((1, 1, 2, 7)))
        size = draw(st.sampled_from((1, 2, 1, 3)))
        join = draw(st.none() | st.integers(1, size))
        for _ in range(size):
            position = Position(
                name=f"t{len(positions)}",
                sequence=sequence,
                is_optional=draw(st.booleans()),
                allow_rollback=draw(st.sampled_from((True, True, True, False))),
                condition=draw(st.one_of(st.none(), condition)),
                skip_if_false=draw(st.booleans()),
                join=join,
            )
            positions.append(position)
    return positions, draw(st.sampled_from((20, 2, 3)))


def steps_of(positions: list[Position], tasks: list[gwf.Task]) -> list[gwf.Group]:
    """Return the positions as the client takes them."""
    groups = []
    for sequence in sorted({position.sequence for position in positions}):
        members = [position for position in positions if position.sequence == sequence]
        steps = [
            gwf.Step(
                tasks[positions.index(one)],
                optional=one.is_optional,
                allow_rollback=one.allow_rollback,
                condition=one.condition,
                skip_if_false=one.skip_if_false,
                sequence=sequence,
            )
            for one in members
        ]
        groups.append(gwf.Group(*steps, join=members[0].join or "all"))
    return groups


@dataclass(frozen=True)
class Options:
    """Hold what a step may need; each verb takes its part."""

    which: int
    result: int
    context: dict[str, int]
    attempt: int | None
    target: int
    running: str
    resume: str
    force: bool
    is_admin: bool


NUMBERS = st.integers(-1, 3)
OPTIONS = st.builds(
    Options,
    which=st.integers(0, 14),
    result=NUMBERS,
    context=st.dictionaries(st.sampled_from(("x", "y")), NUMBERS, max_size=2),
    attempt=st.sampled_from((None, None, None, 0, 0, 0, -1, 1)),
    target=st.integers(0, 5),
    running=st.sampled_from(("refuse", "cancel")),
    resume=st.sampled_from(("through", "direct")),
    force=st.booleans(),
    is_admin=st.sampled_from((True, True, False)),
)
#: How often a legal verb is chosen, in relation to the others.
WEIGHTS = {
    "start": 3,
    "complete": 3,
    "rollback": 3,
    "reopen_job": 3,
    "retry": 2,
    "resume_job": 2,
    "start_job": 2,
    "fail": 2,
    "skip": 1,
    "set_context": 1,
    "pause_job": 1,
    "cancel_job": 1,
}
VERBS = tuple(WEIGHTS)


class Walk(RuleBasedStateMachine):
    """Apply the same verbs to a job of the engine and to a job of the model."""

    bench: Bench

    @initialize(flow=flows(), is_started=st.sampled_from((True, True, True, False)))
    def create(self, flow: tuple[list[Position], int], is_started: bool) -> None:
        positions, max_rollbacks = flow
        self.wf = self.bench.wf
        self.bench.n_walks += 1
        made = self.wf.create_flow(
            "walk", steps_of(positions, self.bench.tasks), max_rollbacks=max_rollbacks
        )
        self.handle = self.wf.create_job(made, "walk")
        self.job = Job(
            positions, max_rollbacks=max_rollbacks, has_directory=self.bench.has_directory
        )
        self.past: list[Any] = []
        self.last_log = 0
        self.log_status: dict[int | None, str | None] = {None: None}
        self.running_s = 0
        self.n_keys = 0
        self.answered: tuple[Callable[[], Any], Any] | None = None
        self.outcome: str | None = None
        found = self.bench.conn.execute(_TASKS, {"job_id": self.handle.id}).all()
        self.ids = [row.id for row in found]
        self.log_status |= dict.fromkeys(self.ids, "pending")
        if is_started:
            self._both("start_job", lambda: self.wf.start_job(self.handle))

    # The steps

    @rule(choice=st.integers(0, 999), options=OPTIONS)
    def do_what_is_legal(self, choice: int, options: Options) -> None:
        """Choose among the verbs that the model accepts, so that walks come far."""
        legal = self._legal(options)
        verbs = [verb for verb in VERBS if legal[verb] for _ in range(WEIGHTS[verb])]
        verb = verbs[choice % len(verbs)]
        tasks = legal[verb]
        self._apply(verb, tasks[options.which % len(tasks)], options)

    @rule(choice=st.integers(0, 999), options=OPTIONS)
    def do_another_legal_thing(self, choice: int, options: Options) -> None:
        """Double the share of legal verbs."""
        self.do_what_is_legal(choice, options)

    @rule(verb=st.sampled_from(VERBS), options=OPTIONS)
    def do_anything(self, verb: str, options: Options) -> None:
        """Apply any verb to any task."""
        if verb != "cancel_job" or self.job.status != "running":
            tasks = self.job.tasks
            self._apply(verb, tasks[options.which % len(tasks)], options)

    @rule(n=st.integers(1, 8), options=OPTIONS)
    def go_on(self, n: int, options: Options) -> None:
        """Do what the job needs next, several times."""
        for _ in range(n):
            legal = self._legal(options)
            order = ("start_job", "resume_job", "complete", "start", "retry")
            verb = next((verb for verb in order if legal[verb]), None)
            if verb is None:
                return
            self._apply(verb, legal[verb][-1], replace(options, attempt=None))
            self.check()

    @rule()
    def replay(self) -> None:
        """Repeat the last call that had a key: the same answer, and no effect (rule T3)."""
        if self.answered is not None:
            call, answer = self.answered
            assert call().record == answer.record
            self.outcome = None

    # What has to hold

    @invariant()
    def check(self) -> None:
        """Compare the database with the model and with what it said before."""
        mine = {"job_id": self.handle.id}
        job = JobRecord.from_row(self.bench.conn.execute(_JOB, mine).one())
        tasks = [
            JobTaskRecord.from_row(row) for row in self.bench.conn.execute(_TASKS, mine).all()
        ]
        self._check_job(job)
        self._check_tasks(job, tasks)
        self._check_past(mine)
        self._check_logs(mine, job, tasks)
        self.bench.clock[0] += timedelta(seconds=1)
        self.running_s += job.status == "running"

    def _check_job(self, job: JobRecord) -> None:
        model = self.job
        found = (job.status, job.current_task_seq, job.n_done, job.n_rollbacks)
        assert found == (model.status, model.current, model.n_done, model.n_rollbacks)
        assert (job.paused_at is not None) == model.is_paused
        assert (job.completed_at is not None) == (model.status not in ("pending", "running"))
        if job.completed_at is not None and job.started_at is not None:
            assert job.duration_s == self.running_s  # rule R10: the spans add up

    def _check_tasks(self, job: JobRecord, tasks: list[JobTaskRecord]) -> None:
        assert [
            (t.status, t.attempt, t.ready_at is not None, t.result, t.error_code, t.is_skipped)
            for t in tasks
        ] == [
            (m.status, m.attempt, m.is_ready, m.result, m.code, m.status == "skipped")
            for m in self.job.tasks
        ]
        lowest = min((t.sequence for t in tasks if not t.is_finished), default=None)
        running = {t.sequence for t in tasks if t.status == "running"}
        assert running <= {lowest}  # rule P1
        is_complete = all(t.is_finished for t in tasks)
        assert (job.status == "completed") == is_complete  # rule P3

    def _check_past(self, mine: dict[str, int]) -> None:
        past = list(self.bench.conn.execute(_PAST, mine).all())
        assert past[: len(self.past)] == self.past  # nothing that is over changes (rule R5)
        self.past = past
        for job_task_id, task in zip(self.ids, self.job.tasks, strict=True):
            kept = [
                (row.attempt, row.status, row.result, row.error_code)
                for row in past
                if row.job_task_id == job_task_id
            ]
            assert kept == [(p.attempt, p.status, p.result, p.code) for p in task.history]

    def _check_logs(
        self, mine: dict[str, int], job: JobRecord, tasks: list[JobTaskRecord]
    ) -> None:
        rows = self.bench.conn.execute(_LOGS, {**mine, "after": self.last_log}).all()
        for row in rows:
            self.last_log = row.id
            assert row.from_status == self.log_status[row.job_task_id]
            self.log_status[row.job_task_id] = row.to_status
            edge = (row.action, row.from_status, row.to_status)
            if row.action in NOTES:
                assert row.from_status == row.to_status
            elif row.job_task_id is not None:
                assert edge in TASK_EDGES
            elif row.action != "create":
                assert edge in JOB_EDGES
        is_refusal = self.outcome == "NotAllowed"
        assert not is_refusal or [row.action for row in rows] == ["refuse"]  # rule T8
        now = {task.id: task.status for task in tasks} | {None: job.status}
        assert self.log_status == now

    # How a step is made

    def _legal(self, options: Options) -> dict[str, list[Task | None]]:
        """Return the tasks that each verb would be accepted for; None stands for the job."""
        job = self.job
        due = [task for task in job.tasks if job.is_due(task)]
        busy = [task for task in job.tasks if task.status == "running"]
        is_open = job.status in ("running", "failed")
        how = {"running": options.running, "force": options.force}
        return {
            "start": due,
            "skip": [task for task in due if task.position.is_optional or options.force],
            "complete": busy,
            "fail": busy,
            "set_context": busy,
            "retry": [task for task in job.tasks if is_open and task.status == "failed"],
            "rollback": [t for t in job.tasks if is_open and job.allowed_targets(t, **how)],
            "start_job": [None] * (job.status == "pending"),
            "pause_job": [None] * (job.status == "running" and not job.is_paused),
            "resume_job": [None] * (job.status == "running" and job.is_paused),
            "reopen_job": [None] * (job.status == "completed"),
            "cancel_job": [None] * (job.status == "cancelled" or options.which == 14),
        }

    def _apply(self, verb: str, task: Task | None, options: Options) -> None:
        """Apply a verb to both sides, with its part of the options."""
        wf, given, only_model = self.wf, {}, {}
        self.attempt = options.attempt
        match verb:
            case "start":
                call = wf.start_task
            case "complete":
                call = wf.complete_task
                given = {"result": options.result, "context": options.context}
            case "fail":
                call = partial(wf.fail_task, error_message="broken", error_code="E1")
            case "skip":
                call = partial(wf.skip_task, reason="not needed")
                given = {"force": options.force}
            case "retry":
                call = wf.retry_task
            case "rollback":
                self._roll_back(task, options)
                return
            case "set_context":
                self._set_context(task, options)
                return
            case "reopen_job":
                self._reopen(options)
                return
            case _:
                self._both(verb, partial(getattr(wf, verb), self.handle))
                return
        if verb == "skip":
            only_model = {"is_admin": options.is_admin}
        self._on(verb, task, call, given, options, only_model)
    def _both(
        self, verb: str, engine: Callable[[], Any], task: Task | None = None, **arguments: Any
    ) -> Any:
        """Apply a verb to the model, then to the engine, and compare the outcomes."""
        expected = None
        try:
            getattr(self.job, verb)(*(() if task is None else (task,)), **arguments)
        except Refused as refusal:
            expected = refusal.outcome
        return self._compare(verb, expected, engine)

    def _compare(self, verb: str, expected: str | None, engine: Callable[[], Any]) -> Any:
        self.outcome, answer, message = None, None, ""
        try:
            answer = engine()
        except gwf.GwfError as error:
            self.outcome, message = type(error).__name__, str(error)
        assert self.outcome == expected, f"{verb}: {message}"
        self.bench.seen[verb, expected] += 1
        return answer


def walk(url: str, n_walks: int, *, has_directory: bool) -> Bench:
    """Make this many walks on a database, and return what they saw."""
    clock = [datetime(2031, 1, 1, tzinfo=UTC)]
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with gwf.connect(url, clock=lambda: clock[0]) as wf, engine.connect() as conn:
        if has_directory:
            wf.users.add("root", roles=["admin"])
            wf.users.add("mia", roles=["Senior Developer"])
        tasks = [wf.create_task(f"t{number}") for number in range(15)]
        bench = Bench(wf, conn, tasks, clock, has_directory)
        settings = hypothesis.settings(
            max_examples=n_walks,
            stateful_step_count=16,
            suppress_health_check=list(HealthCheck),
        )
        run_state_machine_as_test(type("Walk", (Walk,), {"bench": bench}), settings=settings)
    engine.dispose()
    return bench


def test_walks_agree_with_the_model(databases: Databases) -> None:
    """Expect the engine to do what the rules say, step by step, on 500 random walks."""
    bench = walk(databases.empty(), N_WALKS, has_directory=False)
    assert bench.n_walks >= N_WALKS
    expected = [
        *((verb, None) for verb in ("start", "complete", "fail", "skip", "retry", "rollback")),
        *((verb, None) for verb in ("pause_job", "resume_job", "cancel_job", "reopen_job")),
        ("start", "NotDue"),
        ("start", "StaleAttempt"),
        ("complete", "Conflict"),
        ("skip", "NotAllowed"),
        ("rollback", "NotAllowed"),
        ("rollback", "SendBackRefused"),
        ("reopen_job", "Invalid"),
        ("set_context", None),
    ]
    assert {pair: bench.seen[pair] for pair in expected if bench.seen[pair] < 20} == {}


def test_walks_agree_with_the_model_when_roles_count(databases: Databases) -> None:
    """Expect the same once the directory holds people, where ``force`` takes an admin."""
    bench = walk(databases.empty(), N_WALKS_WITH_DIRECTORY, has_directory=True)
    assert bench.seen["rollback", "NotAllowed"] >= 10
    assert bench.seen["skip", "NotAllowed"] >= 10
