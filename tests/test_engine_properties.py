"""Walk the engine and the reference model side by side, at random but always alike.

Each walk makes a flow and a job of its own and applies verbs to them, legal ones and others. After
each step the database has to say what the model says, the log has to explain every change, and
nothing that is over may have changed.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
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
from reference import CONDITIONS, SCRIPTS, Job, Position, Refused, Task

import gwf
from gwf.model import JOB_TASK_TRANSITIONS, JOB_TRANSITIONS, JobRecord, JobTaskRecord
from gwf.queries import JOB_COLUMNS, JOB_TASK_COLUMNS
from gwf.tables import job_task_attempts, job_task_logs, job_tasks, jobs

N_WALKS = 500
N_WALKS_WITH_DIRECTORY = 120

TASK_EDGES = {(t.action, t.from_status, t.to_status) for t in JOB_TASK_TRANSITIONS}
JOB_EDGES = {(t.action, t.from_status, t.to_status) for t in JOB_TRANSITIONS}

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

#: How often a suitable verb is chosen, in relation to the others.
WEIGHTS = {
    **dict.fromkeys(("start", "rollback"), 12),
    **dict.fromkeys(("complete", "reopen_job", "fail"), 6),
    **dict.fromkeys(("start_job", "resume_job", "retry"), 4),
    **dict.fromkeys(("skip", "set_context"), 2),
    **dict.fromkeys(("pause_job", "cancel_job"), 1),
}


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


def up_to(highest: int) -> st.SearchStrategy[int]:
    """Draw a number from 0 on, each as likely as the others (``integers`` prefers the ends)."""
    return st.sampled_from(range(highest + 1))


NUMBERS = st.sampled_from((1, 2, 3, 1, 2, 0, -1))
#: Conditions that mostly hold; one that is always an error is the exception.
MOSTLY_WITHOUT = (*[None] * 12, *list(CONDITIONS)[:-1] * 2, list(CONDITIONS)[-1])
OPTIONS = st.builds(
    Options,
    which=up_to(14),
    result=NUMBERS,
    context=st.dictionaries(st.sampled_from(("x", "y")), NUMBERS, max_size=2),
    attempt=st.sampled_from((*[None] * 9, *[0] * 9, -1, 1)),
    target=up_to(5),
    running=st.sampled_from(("refuse", "cancel")),
    resume=st.sampled_from(("through", "direct")),
    force=st.booleans(),
    is_admin=st.sampled_from((True, True, False)),
)


@st.composite
def flows(draw: st.DrawFn) -> tuple[list[Position], int]:
    """Draw a flow of 1 to 5 groups of 1 to 3 tasks, and how often its jobs may be sent back."""
    positions: list[Position] = []
    sequence = 0
    condition = st.sampled_from(draw(st.sampled_from(((None,), MOSTLY_WITHOUT))))
    for _ in range(draw(st.sampled_from((3, 4, 5, 4, 2, 1)))):
        sequence += draw(st.sampled_from((1, 1, 2, 7)))
        size = draw(st.sampled_from((1, 2, 1, 3)))
        join = draw(st.none() | st.integers(1, size))
        for _ in range(size):
            position = Position(
                name=f"t{len(positions)}",
                sequence=sequence,
                is_optional=draw(st.booleans()),
                allow_rollback=draw(st.sampled_from((True, True, True, False))),
                condition=draw(condition),
                skip_if_false=draw(st.sampled_from((True, True, True, False))),
                join=join,
            )
            positions.append(position)
    return positions, draw(st.sampled_from((20, 1, 2)))


def steps_of(positions: list[Position], tasks: list[gwf.Task]) -> list[gwf.Group]:
    """Return the positions as the client takes them."""
    groups: dict[int, list[gwf.Step]] = {}
    for position, task in zip(positions, tasks, strict=False):
        step = gwf.Step(
            task,
            optional=position.is_optional,
            allow_rollback=position.allow_rollback,
            condition=position.condition,
            skip_if_false=position.skip_if_false,
            sequence=position.sequence,
        )
        groups.setdefault(position.sequence, []).append(step)
    joins = {position.sequence: position.join or "all" for position in positions}
    return [gwf.Group(*steps, join=joins[sequence]) for sequence, steps in groups.items()]


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


class Walk(RuleBasedStateMachine):
    """Apply the same verbs to a job of the engine and to a job of the model."""

    bench: Bench

    @initialize(flow=flows(), n_done=st.sampled_from((None, 0, 1, 2, 4, 6)), options=OPTIONS)
    def create(
        self, flow: tuple[list[Position], int], n_done: int | None, options: Options
    ) -> None:
        """Make the flow and the job, and go some way with it."""
        positions, max_rollbacks = flow
        self.wf = self.bench.wf
        self.bench.n_walks += 1
        steps = steps_of(positions, self.bench.tasks)
        self.flow = self.wf.create_flow("walk", steps, max_rollbacks=max_rollbacks)
        self.positions = positions
        self._begin()
        for _ in range(0 if n_done is None else 2 * n_done + 1):
            if self.job.status in ("pending", "running"):
                self.go_on(1, options)

    def _begin(self) -> None:
        """Make a new job of the flow, on both sides."""
        self.handle = self.wf.create_job(self.flow, "walk", context={"x": 1})
        self.job = Job(
            self.positions,
            max_rollbacks=self.flow.record.max_rollbacks,
            has_directory=self.bench.has_directory,
        )
        self.job.write_first({"x": 1})
        self.ids = [row.id for row in self._read(_TASKS)]
        self.past: list[Any] = []
        self.last_log = self.running_s = self.n_keys = 0
        self.log_status: dict[int | None, str | None] = dict.fromkeys(self.ids, "pending")
        self.log_status[None] = None
        self.outcome: str | None = None
        self.answered: tuple[Callable[[], Any], Any] | None = None

    # The steps

    @rule(share=up_to(99), choice=up_to(999), options=OPTIONS)
    def step(self, share: int, choice: int, options: Options) -> None:
        """Do one thing; one rule with shares, since hypothesis leaves out rules at random."""
        if share < 60:
            self.do_what_suits(choice, options)
        elif share < 75:
            self.do_anything(list(WEIGHTS)[choice % len(WEIGHTS)], options)
        elif share < 90 or self.answered is None:
            self.go_on(options.which % 4 + 1, options)
        else:
            self.replay()

    def do_what_suits(self, choice: int, options: Options) -> None:
        """Choose among the verbs that suit the state of the job."""
        suits = self._suitable(options)
        verbs = [verb for verb in suits if suits[verb] for _ in range(WEIGHTS[verb])]
        if verbs:
            verb = verbs[choice % len(verbs)]
            self.apply(verb, suits[verb][options.which % len(suits[verb])], options)
        else:
            self._begin()  # the job was given up, or its first condition fails for good

    def do_anything(self, verb: str, options: Options) -> None:
        """Apply any verb to any task, but give the job up only where that changes nothing."""
        if verb != "cancel_job" or self.job.status in ("completed", "cancelled"):
            early = [t for t in self.job.tasks if t.status == "pending" and not self.job.is_due(t)]
            among = early if verb == "start" and early else self.job.tasks
            self.apply(verb, among[options.which % len(among)], options)

    def go_on(self, n: int, options: Options) -> None:
        """Do what the job needs next, several times, so that walks come far."""
        for _ in range(n):
            suits = self._suitable(options)
            needed = ("start_job", "resume_job", "complete", "start", "retry", "rollback")
            verb = next((verb for verb in (*needed, "reopen_job") if suits[verb]), None)
            if verb is None:
                self._begin()
            else:
                self.apply(verb, suits[verb][-1], replace(options, attempt=None))
            self.check()

    def replay(self) -> None:
        """Repeat the last call that had a key: the same answer, and no effect (rule T3)."""
        if self.answered is not None:
            call, answer = self.answered
            assert call().record == answer.record

    # What has to hold

    @invariant()
    def check(self) -> None:
        """Compare the database with the model and with what it said before."""
        job = JobRecord.from_row(self._read(_JOB)[0])
        tasks = [JobTaskRecord.from_row(row) for row in self._read(_TASKS)]
        self._check_job(job)
        self._check_tasks(job, tasks)
        self._check_past()
        self._check_logs({task.id: task.status for task in tasks} | {None: job.status})
        self.bench.clock[0] += timedelta(seconds=1)
        self.running_s += job.status == "running"
        self.outcome = None

    def _check_job(self, job: JobRecord) -> None:
        model = self.job
        found = (job.status, job.current_task_seq, job.n_done, job.n_rollbacks)
        assert found == (model.status, model.current, model.n_done, model.n_rollbacks)
        assert (job.paused_at is not None) == model.is_paused
        assert (job.completed_at is not None) == (model.status not in ("pending", "running"))
        if job.completed_at is not None and job.started_at is not None:
            assert job.duration_s == self.running_s  # rule R10: the spans add up

    def _check_tasks(self, job: JobRecord, tasks: list[JobTaskRecord]) -> None:
        found = [
            (t.status, t.attempt, t.ready_at is not None, t.result, t.error_code, t.is_skipped)
            for t in tasks
        ]
        assert found == [
            (m.status, m.attempt, m.is_ready, m.result, m.code, m.status == "skipped")
            for m in self.job.tasks
        ]
        lowest = min((t.sequence for t in tasks if not t.is_finished), default=None)
        assert {t.sequence for t in tasks if t.status == "running"} <= {lowest}  # rule P1
        assert (job.status == "completed") == (lowest is None)  # rule P3

    def _check_past(self) -> None:
        past = self._read(_PAST)
        assert past[: len(self.past)] == self.past  # nothing that is over changes (rule R5)
        self.past = past
        for job_task_id, task in zip(self.ids, self.job.tasks, strict=True):
            kept = [
                (row.attempt, row.status, row.result, row.error_code)
                for row in past
                if row.job_task_id == job_task_id
            ]
            assert kept == [(p.attempt, p.status, p.result, p.code) for p in task.history]

    def _check_logs(self, statuses: dict[int | None, str]) -> None:
        """Follow the log from the statuses seen before to those seen now (rule T8)."""
        rows = self._read(_LOGS, after=self.last_log)
        for row in rows:
            self.last_log = row.id
            assert row.from_status == self.log_status[row.job_task_id]
            self.log_status[row.job_task_id] = row.to_status
            if row.action in ("refuse", "context"):
                assert row.from_status == row.to_status
            elif row.action != "create":
                edges = JOB_EDGES if row.job_task_id is None else TASK_EDGES
                assert (row.action, row.from_status, row.to_status) in edges
        assert self.log_status == statuses
        if self.outcome == "NotAllowed":
            assert [row.action for row in rows] == ["refuse"]

    # How a step is made

    def _read(self, query: sa.Select[Any], **more: Any) -> list[Any]:
        return list(self.bench.conn.execute(query, {"job_id": self.handle.id, **more}))

    def _suitable(self, options: Options) -> dict[str, list[Task | None]]:
        """Return the tasks that each verb suits; the job's own verbs have None.

        A skip or a send-back among these may still be refused.
        """
        job = self.job
        due = [task for task in job.tasks if job.is_due(task)]
        busy = [task for task in job.tasks if task.status == "running"]
        is_open = job.status in ("running", "failed")
        again = [task for task in job.tasks if is_open and task.status == "failed"]
        hopeful = [task for task in again if task.code == "E1" or options.which % 4 == 0]
        first, any_way = job.tasks[0].sequence, {"running": "cancel", "force": True}
        later = [task for task in job.tasks if is_open and task.sequence > first]
        if options.which % 5 > 0:
            later = [task for task in later if job.allowed_targets(task, **any_way)]
        return {
            "start": due,
            "skip": due,
            "complete": busy,
            "fail": busy,
            "set_context": busy,
            "retry": hopeful,  # a condition mostly fails once more
            "rollback": [t for t in later if t.status in ("running", "failed", "completed")],
            "start_job": [None] * (job.status == "pending"),
            "pause_job": [None] * (job.status == "running" and not job.is_paused),
            "resume_job": [None] * (job.status == "running" and job.is_paused),
            "reopen_job": [None] * (job.status == "completed"),
            "cancel_job": [None] * (is_open and options.which == 0),
        }

    def apply(self, verb: str, task: Task | None, options: Options) -> None:
        """Apply a verb to the model and to the engine, with its part of the options."""
        name = verb if verb.endswith("_job") or verb == "set_context" else f"{verb}_task"
        call: Callable[..., Any] = getattr(self.wf, name)
        who: dict[str, Any] = {"operator": 7}
        if self.bench.has_directory:
            who["operator"] = "u-admin" if options.is_admin else "u-dev"
        if verb == "reopen_job":
            given = {"target": self._target(options), "is_admin": options.is_admin}
            call = partial(call, self.handle, to=given["target"], reason="a fault was found")
            self._both(verb, partial(call, **who), **given)
        elif verb.endswith("_job"):
            self._both(verb, partial(call, self.handle, **who))
        elif verb == "set_context":
            values = options.context
            call = partial(call, self.handle, values, task=self._id(task), **who)
            answer = self._both(verb, call, task, values=values)
            assert self.outcome is not None or answer == self.job.context
        else:
            self._apply_to_task(verb, task, call, options, who)

    def _apply_to_task(
        self, verb: str, task: Task, call: Callable[..., Any], options: Options, who: dict[str, Any]
    ) -> None:
        given: dict[str, Any] = {}
        call = partial(call, self._id(task), **who)
        if verb == "complete":
            given = {"result": options.result, "context": options.context}
            call = partial(call, **given)
        elif verb == "fail":
            given = {"code": "E1"}
            call = partial(call, error_message="broken", error_code="E1")
        elif verb == "skip":
            given = {"force": options.force, "is_admin": options.is_admin}
            call = partial(call, force=options.force, reason="not needed")
        elif verb == "rollback":
            how = {"running": options.running, "force": options.force}
            allowed = self.job.allowed_targets(task, **how, is_admin=options.is_admin)
            assert self.wf.allowed_targets(self._id(task), **how, **who) == allowed  # rule R3
            target, how["resume"] = self._target(options, allowed), options.resume
            given = {"target": target, **how, "is_admin": options.is_admin}
            call = partial(call, to=target, reason="not good enough", **how)
        if options.attempt is not None and task.attempt + options.attempt >= 1:
            call = partial(call, attempt=task.attempt + options.attempt)
            if options.attempt != 0:
                self._compare(verb, "StaleAttempt", call)  # rule T5
                return
        self.n_keys += 1
        if self.n_keys % 3 == 0:
            call = partial(call, idempotency_key=f"key {self.n_keys}")
        answer = self._both(verb, call, task, **given)
        if self.outcome is None:
            assert answer.status == task.status
            self.answered = (call, answer) if self.n_keys % 3 == 0 else self.answered

    def _id(self, task: Task) -> int:
        return self.ids[self.job.tasks.index(task)]

    def _target(self, options: Options, allowed: tuple[int, ...] = ()) -> int:
        every = (*sorted({task.sequence for task in self.job.tasks}), 1_000)
        among = allowed if allowed and options.which % 4 else every
        return among[options.target % len(among)]

    def _both(
        self, verb: str, engine: Callable[[], Any], task: Task | None = None, **arguments: Any
    ) -> Any:
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


def _be_quick(connection: Any, record: Any) -> None:
    """Spare the walks the wait for the disk at each commit."""
    connection.execute("PRAGMA synchronous = OFF")


@contextlib.contextmanager
def shared_bench(url: str, *, has_directory: bool = False) -> Iterator[Bench]:
    """Open what the walks of one test share; their clock goes on by a second at each step."""
    clock = [datetime(2031, 1, 1, tzinfo=UTC)]
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with gwf.connect(url, clock=lambda: clock[0]) as wf, engine.connect() as conn:
        if wf.database.is_sqlite:
            wf.close()
            sa.event.listen(wf.database.engine, "connect", _be_quick)
        if has_directory:
            wf.users.add("u-admin", roles=["admin"])
            wf.users.add("u-dev", roles=["Senior Developer"])
        tasks = [wf.create_task(f"t{number}") for number in range(15)]
        yield Bench(wf, conn, tasks, clock, has_directory)
    engine.dispose()


def walk(url: str, n_walks: int, *, has_directory: bool) -> Bench:
    """Make this many walks on a database, and return what they saw."""
    settings = hypothesis.settings(
        max_examples=n_walks, stateful_step_count=24, suppress_health_check=list(HealthCheck)
    )
    with shared_bench(url, has_directory=has_directory) as bench:
        run_state_machine_as_test(type("Walk", (Walk,), {"bench": bench}), settings=settings)
    return bench


def test_walks_agree_with_the_model(databases: Databases) -> None:
    """Expect the engine to do what the rules say, step by step, on 500 random walks."""
    bench = walk(databases.empty(), N_WALKS, has_directory=False)
    assert bench.n_walks >= N_WALKS
    expected = [
        *((verb, None) for verb in WEIGHTS),
        ("start", "NotDue"),
        ("start", "StaleAttempt"),
        ("complete", "Conflict"),
        ("skip", "NotAllowed"),
        ("rollback", "NotAllowed"),
        ("rollback", "SendBackRefused"),
        ("reopen_job", "Invalid"),
    ]
    assert {pair: bench.seen[pair] for pair in expected if bench.seen[pair] < 10} == {}


def test_walks_agree_with_the_model_when_roles_count(databases: Databases) -> None:
    """Expect the same once the directory holds people, where ``force`` takes an admin."""
    bench = walk(databases.empty(), N_WALKS_WITH_DIRECTORY, has_directory=True)
    assert bench.seen["rollback", "NotAllowed"] >= 5
    assert bench.seen["skip", "NotAllowed"] >= 5


@pytest.mark.parametrize("name", SCRIPTS)
def test_rare_walks_agree_with_the_model(url: str, name: str) -> None:
    """Expect the same of walks that chance seldom takes, each step of which is accepted."""
    sequences, script = SCRIPTS[name]
    positions = [
        Position(
            name=f"t{index}",
            sequence=sequence,
            condition="context.x > 0" if "condition" in name and sequence == 2 else None,
            join=1 if "join" in name and sequence == 1 else None,
        )
        for index, sequence in enumerate(sequences)
    ]
    plain = Options(1, 1, {}, None, 0, "refuse", "through", force=False, is_admin=True)
    with shared_bench(url) as bench:
        machine = type("Walk", (Walk,), {"bench": bench})()
        machine.create((positions, 20), 0, plain)
        for step in script.split(", "):
            word, which, *target = step.split()
            options = replace(plain, context={"x": -1} if word == "set_context" else {})
            if target:
                resume = "direct" if word == "direct" else "through"
                index = sorted(set(sequences)).index(int(target[0]))
                options = replace(options, target=index, resume=resume)
            verb = "rollback" if word == "direct" else word
            machine.apply(verb, machine.job.tasks[int(which)], options)
            assert machine.outcome is None, step
            machine.check()
