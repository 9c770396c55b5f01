"""Count what a verb costs: round trips and commits on a server, transactions on SQLite.

The numbers are exact, so that a change which costs more shows; the promised bounds stand beside
them. They must not depend on the length of the job.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pymysql
import pytest
import sqlalchemy as sa
from pymysql.constants import COMMAND

import gwf

#: Round trips of each verb on a server, and the bound that the design promises for some of them.
TRIPS = {
    "create_job": 4,
    "create_job with context": 5,
    "start_job": 4,
    "start_task": 3,
    "complete_task": 4,
    "complete_task with context": 4,
    "complete_task with a key": 5,
    "complete_task before a condition": 6,
    "complete_task before three conditions": 6,
    "skip_task": 4,
    "fail_task": 3,
    "retry_task": 4,
    "set_context": 4,
    "pause_job": 3,
    "resume_job": 4,
    "rollback_task over 8 tasks": 4,
    "cancel_job": 4,
}
BOUNDS = {
    "create_job": 6,
    "start_task": 5,
    "complete_task": 6,
    "complete_task before a condition": 6,
    "complete_task before three conditions": 6,
    "skip_task": 6,
    "fail_task": 6,
    "rollback_task over 8 tasks": 12,
}


@dataclass
class Meter:
    """Note what the drivers send while a call runs."""

    wf: gwf.Client
    sent: list[str] = field(default_factory=list)
    costs: dict[str, list[str]] = field(default_factory=dict)

    def note(self, sql: Any) -> None:
        """Note one round trip of PyMySQL, or one statement of SQLite."""
        text = sql.decode(errors="replace") if isinstance(sql, bytes) else str(sql)
        self.sent.append(text)

    def __call__(self, what: str, call: Callable[[], Any]) -> Any:
        """Make the call and keep what it sent under this name."""
        self.sent.clear()
        answer = call()
        self.costs[what] = list(self.sent)
        return answer


@pytest.fixture
def meter(wf: gwf.Client, monkeypatch: pytest.MonkeyPatch) -> Iterator[Meter]:
    """Return a meter on a client whose connection is open already."""
    found = Meter(wf)
    if wf.database.is_sqlite:
        wf.close()
        sa.event.listen(
            wf.database.engine,
            "connect",
            lambda connection, record: connection.set_trace_callback(found.note),
        )
    else:
        send = pymysql.connections.Connection._execute_command

        def counting(connection: Any, command: int, sql: Any) -> Any:
            found.note(sql if command == COMMAND.COM_QUERY else f"command {command}")
            return send(connection, command, sql)

        monkeypatch.setattr(pymysql.connections.Connection, "_execute_command", counting)
    assert wf.jobs().empty
    yield found
    wf.close()


def _check(meter: Meter) -> None:
    """Expect one commit of each call, and its round trips or its one transaction."""
    if meter.wf.database.is_sqlite:
        for what, sent in meter.costs.items():
            ends = [one for one in sent if one.startswith(("BEGIN", "COMMIT", "ROLLBACK"))]
            assert ends == ["BEGIN IMMEDIATE", "COMMIT"], what
        return
    assert {what: sent.count("COMMIT") for what, sent in meter.costs.items()} == dict.fromkeys(
        meter.costs, 1
    )
    trips = {what: len(sent) for what, sent in meter.costs.items()}
    assert trips == {what: TRIPS[what] for what in trips}
    assert all(trips[what] <= BOUNDS.get(what, 6) for what in trips)


def _go(wf: gwf.Client, job_task_id: int) -> None:
    wf.start_task(job_task_id)
    wf.complete_task(job_task_id)


def _job(wf: gwf.Client, *steps: Any) -> tuple[gwf.Job, list[int]]:
    job = wf.create_job(wf.create_flow("long", list(steps)), "long").start()
    return job, [int(one) for one in job.tasks()["job_task_id"]]


@pytest.mark.parametrize("n_tasks", [10, 500])
def test_verbs_cost_the_same_whatever_the_length_of_the_job(meter: Meter, n_tasks: int) -> None:
    """Expect 3 round trips for a start and 4 for a complete, one commit each."""
    wf = meter.wf
    task = wf.create_task("A")
    steps = [task, gwf.Step(task, optional=True), *[task] * (n_tasks - 2)]
    flow = wf.create_flow("long", steps)
    job = meter("create_job", lambda: wf.create_job(flow, "long"))
    meter("create_job with context", lambda: wf.create_job(flow, "other", context={"a": 1}))
    ids = [int(one) for one in job.tasks()["job_task_id"]]
    assert len(ids) == n_tasks
    meter("start_job", lambda: wf.start_job(job))
    meter("start_task", lambda: wf.start_task(ids[0], operator=1))
    meter("complete_task", lambda: wf.complete_task(ids[0], {"ok": True}))
    meter("skip_task", lambda: wf.skip_task(ids[1]))
    wf.start_task(ids[2])
    meter("fail_task", lambda: wf.fail_task(ids[2], "broken"))
    meter("retry_task", lambda: wf.retry_task(ids[2]))
    meter("pause_job", lambda: wf.pause_job(job))
    meter("resume_job", lambda: wf.resume_job(job))
    meter("set_context", lambda: wf.set_context(job, {"a": 1, "b": 2}))
    wf.start_task(ids[2])
    meter("complete_task with context", lambda: wf.complete_task(ids[2], context={"a": 1, "b": 2}))
    wf.start_task(ids[3])
    meter("complete_task with a key", lambda: wf.complete_task(ids[3], idempotency_key="key"))
    for job_task_id in ids[4:8]:
        _go(wf, job_task_id)
    wf.start_task(ids[8])
    meter("rollback_task over 8 tasks", lambda: wf.rollback_task(ids[8], to=1, reason="again"))
    wf.start_task(ids[0])
    meter("cancel_job", lambda: wf.cancel_job(job))
    _check(meter)


@pytest.mark.parametrize("n_tasks", [10, 500])
def test_conditions_of_the_next_group_cost_two_trips_more(meter: Meter, n_tasks: int) -> None:
    """Expect the results and the context to be read once, however many conditions there are."""
    wf = meter.wf
    task = wf.create_task("A")
    yes = gwf.Step(task, condition="size(results) > 0 && context.a == 1")
    _, ids = _job(wf, task, yes, [yes, yes, yes], *[task] * (n_tasks - 5))
    wf.start_task(ids[0])
    meter("complete_task before a condition", lambda: wf.complete_task(ids[0], context={"a": 1}))
    wf.start_task(ids[1])
    meter("complete_task before three conditions", lambda: wf.complete_task(ids[1]))
    assert [wf.job_task(one).ready_at is not None for one in ids[:6]] == [True] * 5 + [False]
    _check(meter)


def test_create_jobs_costs_a_few_trips_for_each_chunk(meter: Meter) -> None:
    """Expect 1,000 jobs of ten tasks in 3 chunks to take one commit and 11 round trips."""
    wf = meter.wf
    flow = wf.create_flow("long", [wf.create_task("A")] * 10)
    made = meter("create_jobs", lambda: wf.create_jobs(flow, [f"job {i}" for i in range(1_000)]))
    assert len(made) == 1_000
    if not wf.database.is_sqlite:
        assert len(meter.costs["create_jobs"]) == 11  # the flow, 3 × 3, the commit
        assert meter.costs["create_jobs"].count("COMMIT") == 1


def test_refusals_are_undone_or_logged_in_one_transaction(meter: Meter) -> None:
    """Expect a plain refusal to write nothing, and one that is logged to commit its row."""
    wf = meter.wf
    task = wf.create_task("A")
    job, ids = _job(wf, task, task)

    def refused(call: Callable[[], Any], error: type[gwf.GwfError]) -> None:
        with pytest.raises(error):
            call()

    meter("not due", lambda: refused(lambda: wf.start_task(ids[1]), gwf.NotDue))
    meter("not optional", lambda: refused(lambda: wf.skip_task(ids[0]), gwf.NotAllowed))
    ends = {
        what: [one for one in sent if one in ("COMMIT", "ROLLBACK")]
        for what, sent in meter.costs.items()
    }
    assert ends == {"not due": ["ROLLBACK"], "not optional": ["COMMIT"]}
    assert [str(one) for one in job.logs()["action"]] == ["create", "start", "refuse"]
