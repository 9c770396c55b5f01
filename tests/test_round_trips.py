"""What a verb costs: round trips and commits, counted on the driver, whatever the job's length."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pymysql
import pytest
from conftest import Databases
from pymysql.constants import COMMAND

import gwf

Counter = Callable[[Callable[[], object]], tuple[int, int]]


@pytest.fixture
def server(databases: Databases) -> Iterator[gwf.Client]:
    """Return a client of a server; SQLite has no round trips, so it counts as one of MariaDB's."""
    client = gwf.connect(databases.empty())
    yield client
    client.close()


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter:
    """Return a function that counts the round trips and the commits of a call."""
    queries: list[Any] = []
    send = pymysql.connections.Connection._execute_command

    def counting(self: Any, command: int, sql: Any) -> Any:
        queries.append(sql if command == COMMAND.COM_QUERY else command)
        return send(self, command, sql)

    monkeypatch.setattr(pymysql.connections.Connection, "_execute_command", counting)

    def count(call: Callable[[], object]) -> tuple[int, int]:
        call()  # plans are compiled and connections opened by the caller's earlier verbs
        return len(queries), sum(sql in ("COMMIT", b"COMMIT") for sql in queries)

    return count


def _job(wf: gwf.Client, n_tasks: int, **options: Any) -> tuple[gwf.Job, list[int]]:
    steps: list[Any] = [wf.create_task(f"task {i}") for i in range(n_tasks)]
    if options:
        steps[1] = gwf.Step(steps[1], **options)
    job = wf.create_job(wf.create_flow("long", steps), "long").start()
    return job, [int(one) for one in job.tasks()["job_task_id"]]


@pytest.mark.parametrize("n_tasks", [10, 300])
def test_start_task_costs_three_trips(server: gwf.Client, counted: Counter, n_tasks: int) -> None:
    """A start locks and reads, writes, commits: 3 trips on a server, none on SQLite."""
    _, ids = _job(server, n_tasks)
    is_server = not server.database.is_sqlite
    before, _ = counted(lambda: None)
    after, commits = counted(lambda: server.start_task(ids[0], operator=1))
    assert after - before == (3 if is_server else 0)
    assert commits - counted(lambda: None)[1] == 0


@pytest.mark.parametrize("n_tasks", [10, 300])
def test_complete_task_costs_four_trips(server: gwf.Client, counted: Counter, n_tasks: int) -> None:
    """A complete also reads what becomes due: 4 trips, one of them the commit."""
    _, ids = _job(server, n_tasks)
    server.start_task(ids[0])
    is_server = not server.database.is_sqlite
    before, committed = counted(lambda: None)
    after, commits = counted(lambda: server.complete_task(ids[0], {"ok": True}))
    assert after - before == (4 if is_server else 0)
    assert commits - committed == (1 if is_server else 0)


def test_complete_task_before_a_condition_costs_at_most_six(
    server: gwf.Client, counted: Counter
) -> None:
    """A condition in the next group takes the results and the context: 6 trips."""
    _, ids = _job(server, 10, condition="context == {}")
    server.start_task(ids[0])
    before, _ = counted(lambda: None)
    after, _ = counted(lambda: server.complete_task(ids[0]))
    assert after - before == (0 if server.database.is_sqlite else 6)


def test_create_job_costs_at_most_six(server: gwf.Client, counted: Counter) -> None:
    """A job of ten tasks is copied by the database."""
    job, _ = _job(server, 10)
    before, _ = counted(lambda: None)
    after, _ = counted(lambda: server.create_job(job.flow_id, "next", context={"a": 1}))
    assert after - before <= 6


def test_rollback_task_over_eight_tasks_costs_at_most_twelve(
    server: gwf.Client, counted: Counter
) -> None:
    """All changes of a send-back go in one batch."""
    _, ids = _job(server, 10)
    for job_task_id in ids[:8]:
        server.start_task(job_task_id)
        server.complete_task(job_task_id)
    server.start_task(ids[8])
    before, _ = counted(lambda: None)
    after, _ = counted(lambda: server.rollback_task(ids[8], to=1, reason="again"))
    assert after - before == (0 if server.database.is_sqlite else 4)
