"""Take the database away: stopped servers, killed connections, broken commits, held locks.

The servers of these tests are their own, since they are stopped on the way.
"""

from __future__ import annotations

import io
import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pymysql
import pytest
import sqlalchemy as sa
from pymysql.constants import COMMAND
from servers import running

import gwf
from gwf import database, migrate
from gwf.database import open_database, read, write
from gwf.engine.job_tasks import start_task
from gwf.model import Call
from gwf.tables import jobs, tasks

N_CONNECTIONS = 3


@pytest.fixture(scope="module", params=["mariadb", "mysql"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[running.Server]:
    """Return a server that a test may stop, as long as it starts it again."""
    start = running.start_mariadb if request.param == "mariadb" else running.start_mysql
    with start(tmp_path_factory.mktemp(f"{request.param}-outages")) as own:
        yield own


@pytest.fixture(scope="module")
def server_url(server: running.Server) -> str:
    """Return the URL of a migrated database on that server."""
    url = running.create_database(server, "gwf_outages")
    db = open_database(url)
    migrate.upgrade(db)
    db.close()
    return url


@pytest.fixture
def client(server_url: str) -> Iterator[gwf.Client]:
    """Return a client of that server; at the end no connection is checked out."""
    with gwf.connect(server_url) as wf:
        yield wf
        assert wf.database.engine.pool.checkedout() == 0  # type: ignore[attr-defined]


@pytest.fixture
def admin(server_url: str) -> Iterator[sa.Connection]:
    """Return a connection of somebody else."""
    engine = sa.create_engine(server_url, poolclass=sa.NullPool)
    with engine.connect() as conn:
        yield conn
        conn.rollback()


def _due(wf: gwf.Client, number: int = 1) -> list[gwf.JobTask]:
    """Return due tasks, each alone in a job of its own."""
    flow = wf.create_flow("outage", [wf.create_task("A")])
    made = wf.create_jobs(flow, [f"job {index}" for index in range(number)])
    return [job.start().task("A") for job in made]


def _actions(wf: gwf.Client, task: gwf.JobTask) -> list[tuple[str, bool]]:
    """Return the log of the job behind its creation: actions, and whether of the task."""
    logs = wf.logs(job=task.job_id)
    return list(zip(logs["action"].astype(str), logs["job_task_id"].notna(), strict=True))[2:]


STARTED = [("start", True)]
COMPLETED = [*STARTED, ("complete", True), ("complete", False)]


def _at_once(wf: gwf.Client, calls: list[Callable[[], Any]]) -> list[Any]:
    """Make the calls in threads, each of which holds a pooled connection when all begin."""
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], Any]) -> Any:
        barrier.wait(timeout=60)
        return call()

    with ThreadPoolExecutor(len(calls)) as threads:
        return list(threads.map(run, calls))


def _fill_the_pool(wf: gwf.Client) -> None:
    """Let the pool hold three connections."""
    held = threading.Barrier(N_CONNECTIONS)
    _at_once(wf, [lambda: read(wf.database, lambda conn: held.wait(timeout=60))] * N_CONNECTIONS)
    assert wf.database.engine.pool.checkedin() == N_CONNECTIONS  # type: ignore[attr-defined]


def _expect_work(wf: gwf.Client, due: list[gwf.JobTask]) -> None:
    """Let three threads start a task each, at once."""
    started = _at_once(wf, [lambda one=one: wf.start_task(one) for one in due])
    assert [one.status for one in started] == ["running"] * len(due)
    assert [_actions(wf, one) for one in due] == [STARTED] * len(due)


def test_verbs_while_the_server_is_stopped(server: running.Server, client: gwf.Client) -> None:
    """Expect DatabaseUnavailable that says what to check, and work again after the start."""
    due = _due(client, N_CONNECTIONS)
    _fill_the_pool(client)
    running.stop_process(server)
    try:
        for call in (lambda: client.start_task(due[0]), lambda: client.start_task(due[0])):
            with pytest.raises(gwf.DatabaseUnavailable, match="check host and port"):
                call()
        with pytest.raises(gwf.DatabaseUnavailable, match="check host and port"):
            client.jobs()
    finally:
        running.start_process(server)
    _expect_work(client, due)


@pytest.mark.parametrize("end", [running.stop_process, running.kill])
def test_verbs_after_a_restart_they_did_not_see(
    server: running.Server, client: gwf.Client, end: Callable[[running.Server], None]
) -> None:
    """Expect three threads with stale connections not to notice a shutdown or a crash."""
    due = _due(client, N_CONNECTIONS)
    _fill_the_pool(client)
    end(server)
    running.start_process(server)
    _expect_work(client, due)
    assert client.jobs().shape[0] >= N_CONNECTIONS


def _kill(admin: sa.Connection, conn: sa.Connection) -> None:
    connection_id = conn.exec_driver_sql("SELECT CONNECTION_ID()").scalar_one()
    admin.exec_driver_sql(f"KILL {connection_id}")


def test_connection_killed_between_verbs(client: gwf.Client, admin: sa.Connection) -> None:
    """Expect the next verb to go through on a new connection, once and unseen."""
    (task,) = _due(client)
    find = "SELECT CONNECTION_ID()"
    pooled = read(client.database, lambda conn: conn.exec_driver_sql(find).scalar_one())
    admin.exec_driver_sql(f"KILL {pooled}")
    assert client.start_task(task).status == "running"
    assert _actions(client, task) == STARTED


@pytest.mark.parametrize("n_losses", [1, 2])
def test_connection_killed_inside_a_verb(
    client: gwf.Client, admin: sa.Connection, n_losses: int
) -> None:
    """Expect the work to be done anew once; a second loss is told, and nothing was written."""
    (task,) = _due(client)
    seen: list[sa.Connection] = []

    def work(conn: sa.Connection) -> Any:
        seen.append(conn)
        started = start_task(conn, task.id, Call())
        if len(seen) <= n_losses:
            _kill(admin, conn)
            conn.exec_driver_sql("SELECT 1")
        return started

    if n_losses == 1:
        assert write(client.database, work).status == "running"
        assert _actions(client, task) == STARTED
    else:
        with pytest.raises(gwf.DatabaseUnavailable, match="the connection was lost"):
            write(client.database, work)
        assert _actions(client, task) == []
    assert len(seen) == 2


@pytest.fixture
def break_commit(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Return a function that lets the next commit break, before or after the server got it."""
    commit = pymysql.connections.Connection.commit

    def arm(arrives: bool) -> None:
        def breaking(connection: Any) -> None:
            monkeypatch.setattr(pymysql.connections.Connection, "commit", commit)
            if arrives:
                connection._execute_command(COMMAND.COM_QUERY, "COMMIT")
                connection._sock.shutdown(socket.SHUT_RDWR)
                connection._rfile = io.BytesIO()  # an answer that was quicker is lost as well
                connection._read_ok_packet()
            else:
                connection._sock.shutdown(socket.SHUT_RDWR)
                commit(connection)

        monkeypatch.setattr(pymysql.connections.Connection, "commit", breaking)

    return arm


@pytest.mark.parametrize("arrives", [True, False])
def test_commit_that_breaks_with_a_key(
    client: gwf.Client, break_commit: Callable[[bool], None], arrives: bool
) -> None:
    """Expect OutcomeUnknown, and the repeat with the same key to be safe either way (rule T2)."""
    (task,) = _due(client)
    task.start()
    break_commit(arrives)
    with pytest.raises(gwf.OutcomeUnknown, match="idempotency key"):
        client.complete_task(task, {"n": 1}, idempotency_key="once")
    repeated = client.complete_task(task, {"n": 1}, idempotency_key="once")
    assert (repeated.status, repeated.result) == ("completed", {"n": 1})
    assert client.job(task.job_id).status == "completed"
    assert _actions(client, task) == COMPLETED


@pytest.mark.parametrize("arrives", [True, False])
def test_commit_that_breaks_without_a_key(
    client: gwf.Client, break_commit: Callable[[bool], None], arrives: bool
) -> None:
    """Expect the repeat to tell: a Conflict with the state found, if the first one arrived."""
    (task,) = _due(client)
    break_commit(arrives)
    with pytest.raises(gwf.OutcomeUnknown):
        client.start_task(task)
    if arrives:
        with pytest.raises(gwf.Conflict) as refusal:
            client.start_task(task)
        assert refusal.value.found == "running"
    else:
        assert client.start_task(task).status == "running"
    assert _actions(client, task) == STARTED


@pytest.mark.parametrize("arrives", [True, False])
def test_commit_of_create_job_that_breaks_with_a_key(
    client: gwf.Client, break_commit: Callable[[bool], None], arrives: bool
) -> None:
    """Expect one job, also where no job was there to be locked."""
    flow = client.create_flow("outage", [client.create_task("A")])
    break_commit(arrives)
    with pytest.raises(gwf.OutcomeUnknown):
        client.create_job(flow, "only", idempotency_key="once")
    job = client.create_job(flow, "only", idempotency_key="once")
    assert list(client.jobs(flow=flow)["job_id"]) == [job.id]
    assert list(job.tasks()["task_name"]) == ["A"]


class _Contended(logging.Handler):
    """Act when the first try met another transaction; the log is how a waiting verb shows it."""

    def __init__(self, act: Callable[[], Any] = lambda: None) -> None:
        super().__init__(logging.INFO)
        self.n_seen = 0
        self._act = act

    def emit(self, record: logging.LogRecord) -> None:
        self.n_seen += 1
        if self.n_seen == 1:
            self._act()

    def __enter__(self) -> _Contended:
        database.logger.addHandler(self)
        database.logger.setLevel(logging.INFO)
        return self

    def __exit__(self, *failure: object) -> None:
        database.logger.removeHandler(self)
        database.logger.setLevel(logging.NOTSET)


def _hold(admin: sa.Connection, job_id: int) -> None:
    admin.execute(sa.select(jobs.c.id).where(jobs.c.id == job_id).with_for_update())


def _wait_briefly(wf: gwf.Client) -> None:
    """Let the one pooled connection wait a second for a lock, the least that MySQL takes."""
    read(wf.database, lambda conn: conn.exec_driver_sql("SET innodb_lock_wait_timeout = 1"))
    assert wf.database.engine.pool.checkedin() == 1  # type: ignore[attr-defined]


def test_lock_wait_is_tried_again(client: gwf.Client, admin: sa.Connection) -> None:
    """Expect a verb to go through once another transaction lets go of the job's row."""
    (task,) = _due(client)
    _wait_briefly(client)
    _hold(admin, task.job_id)
    with _Contended(admin.rollback) as contended:
        assert client.start_task(task).status == "running"
    assert contended.n_seen == 1
    assert _actions(client, task) == STARTED


def test_lock_wait_that_lasts(client: gwf.Client, admin: sa.Connection) -> None:
    """Expect DatabaseUnavailable when the last try met the lock as well, and nothing written."""
    (task,) = _due(client)
    _wait_briefly(client)
    _hold(admin, task.job_id)
    with (
        _Contended() as contended,
        pytest.raises(gwf.DatabaseUnavailable, match="another transaction holds the lock"),
    ):
        client.start_task(task)
    assert contended.n_seen == 1
    admin.rollback()
    assert client.start_task(task).status == "running"
    assert _actions(client, task) == STARTED


def test_deadlock_is_tried_again(client: gwf.Client, admin: sa.Connection) -> None:
    """Expect the loser of a real deadlock to do its two verbs anew, and to win then."""
    first, second = _due(client, 2)
    met = threading.Barrier(2)
    tries: list[int] = []

    def both(conn: sa.Connection) -> None:
        start_task(conn, first.id, Call())
        tries.append(len(tries))
        if len(tries) == 1:
            met.wait(timeout=60)
        start_task(conn, second.id, Call())

    def the_other_way_round() -> None:
        met.wait(timeout=60)
        _hold(admin, first.job_id)
        admin.rollback()

    for number in range(100):  # who changed less is the one to be rolled back
        admin.execute(tasks.update().values(description=f"text {number}"))
    _hold(admin, second.job_id)
    with _Contended() as contended:
        _at_once(client, [lambda: write(client.database, both), the_other_way_round])
    assert (len(tries), contended.n_seen) == (2, 1)
    assert [_actions(client, one) for one in (first, second)] == [STARTED, STARTED]


_HOLDER = """
import sqlite3, sys
conn = sqlite3.connect(sys.argv[1], isolation_level=None)
conn.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
conn.execute("ROLLBACK")
"""


def test_sqlite_that_stays_busy(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Expect DatabaseUnavailable after two waits while another process writes; reads go on."""
    with gwf.connect(sqlite_url) as wf:
        (task,) = _due(wf)
        read(wf.database, lambda conn: conn.exec_driver_sql("PRAGMA busy_timeout = 1"))
        monkeypatch.setattr(database.time, "sleep", lambda pause: None)
        holder = _child(_HOLDER, str(sa.make_url(sqlite_url).database))
        with (
            _Contended() as contended,
            pytest.raises(gwf.DatabaseUnavailable, match="another process holds the database"),
        ):
            wf.start_task(task)
        assert contended.n_seen == database.MAX_WAITS - 1
        assert wf.job_task(task).status == "pending"
        _let_go(holder)
        assert wf.start_task(task).status == "running"
        assert _actions(wf, task) == STARTED


_VERB = """
import os, sys
import gwf
from gwf.database import write
from gwf.engine.job_tasks import start_task
from gwf.model import Call

def work(conn):
    start_task(conn, int(sys.argv[1]), Call())
    print("held", flush=True)
    sys.stdin.read()

write(gwf.connect().database, work)
"""


def test_process_killed_inside_a_verb(wf: gwf.Client, url: str) -> None:
    """Expect nothing of it to stay, and the next caller to win."""
    (task,) = _due(wf)
    child = _child(_VERB, str(task.id), GWF_DATABASE_URL=url)
    child.kill()
    _let_go(child)
    assert wf.start_task(task).status == "running"
    assert _actions(wf, task) == STARTED


def _child(source: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """Start a Python process and wait until it holds what it came for."""
    child = subprocess.Popen(
        [sys.executable, "-c", source, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    return child


def _let_go(child: subprocess.Popen[str]) -> None:
    child.communicate(timeout=60)
