"""End workers and databases for real: kill -9, SIGTERM, and a server that stops under them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Databases
from held import Held
from servers import running

import gwf
from gwf import migrate
from gwf.database import open_database

SCRIPT = Path(__file__).with_name("worker_process.py")
N_JOBS = 200
LEASE_S = 3.0


class Process:
    """Start a worker process, and read what it says."""

    def __init__(self, url: str, *, lease_s: float = 30.0, concurrency: int = 2) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(SCRIPT), url, str(lease_s), str(concurrency)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def lines(self) -> Iterator[list[str]]:
        """Yield each line that it says, as words, until it has ended."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            yield line.split()

    def wait_until(self, *words: str) -> None:
        """Read until it says a line that begins with these words."""
        for found in self.lines():
            if found[: len(words)] == list(words):
                return
        raise AssertionError(f"it ended without {words}")

    def ask_to_stop(self) -> None:
        """Let it end once what runs has ended."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def finish(self) -> list[str]:
        """Stop it, and return its last line."""
        self.ask_to_stop()
        last: list[str] = []
        for words in self.lines():
            last = words
        assert self._process.wait(60) == 0
        assert self._process.stdout is not None
        self._process.stdout.close()
        return last

    def wait(self) -> int:
        """Return its exit code once it has ended."""
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        return self._process.wait(60)

    def end(self) -> None:
        """Make sure that nothing is left of it."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(60)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None and not pipe.closed:
                pipe.close()


@pytest.fixture
def start() -> Iterator[Callable[..., Process]]:
    """Return what starts a worker process; at the end none is left."""
    started: list[Process] = []

    def start_one(url: str, **options: Any) -> Process:
        started.append(Process(url, **options))
        return started[-1]

    yield start_one
    for process in started:
        process.end()


class Keeper:
    """Keep two workers alive, count how often one was killed, and hear what all of them say."""

    def __init__(self, url: str, start: Callable[..., Process]) -> None:
        self.n_killed = 0
        self.ended: Counter[int] = Counter()
        self._url, self._start = url, start
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self._processes: list[Process] = []

    def run(self, is_done: Callable[[], bool]) -> None:
        """Keep two workers until it is done."""
        keepers = [threading.Thread(target=self._keep_one) for _ in range(2)]
        for keeper in keepers:
            keeper.start()
        while not is_done():
            self._is_over.wait(0.2)
        with self._lock:
            self._is_over.set()
            for process in self._processes:
                process.ask_to_stop()
        for keeper in keepers:
            keeper.join()

    def _keep_one(self) -> None:
        while True:
            with self._lock:
                if self._is_over.is_set():
                    return
                process = self._start(self._url, lease_s=LEASE_S, concurrency=2)
                self._processes.append(process)
            for words in process.lines():
                if words[0] == "ended":
                    with self._lock:
                        self.ended[int(words[1])] += 1
            with self._lock:
                self.n_killed += process.wait() == -signal.SIGKILL


@pytest.mark.parametrize("databases", ["mariadb"], indirect=True)
def test_fifty_kills_lose_nothing(
    databases: Databases, start: Callable[..., Process], tmp_path: Path
) -> None:
    """Each of 50 workers is killed in the middle of a task; every one of 200 jobs is completed.

    Nothing completes twice: each task has one completed attempt, and those that were cut off are
    on record with the lease that expired.
    """
    url = databases.empty()
    with gwf.connect(url) as wf:
        retry = {"max_attempts": 50, "delay": 0}
        config = {"executor": "perish", "marks": str(tmp_path), "retry": retry}
        tasks = [wf.create_task(name, type="automated", config=config) for name in "ab"]
        jobs = wf.create_jobs(wf.create_flow("F", tasks), [str(n) for n in range(N_JOBS)])
        for job in jobs:
            job.start()
        keeper = Keeper(url, start)
        keeper.run(lambda: len(wf.jobs(status="completed")) == N_JOBS)
        attempts = wf.attempts()
        completed = attempts[attempts["status"] == "completed"]
        assert completed["job_task_id"].is_unique
        assert len(completed) == 2 * N_JOBS
        cut_off = attempts[attempts["status"] != "completed"]
        assert set(cut_off["error_code"]) == {"lease_expired"}
        assert keeper.n_killed == N_JOBS // 4
        assert len(cut_off) >= keeper.n_killed
        assert set(keeper.ended) == set(completed["job_task_id"])
        again = {task for task, times in keeper.ended.items() if times > 1}
        assert again <= set(cut_off["job_task_id"])


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """Return a named pipe that functions wait at."""
    path = tmp_path / "gate"
    os.mkfifo(path)
    return path


def test_worker_whose_database_stops_under_it(
    tmp_path_factory: pytest.TempPathFactory, start: Callable[..., Process], gate: Path
) -> None:
    """Four workers end eight tasks while the server is away; it comes back, and all is reported.

    There is no retry, so a result that was lost would leave its job failed or running.
    """
    with running.start_mariadb(tmp_path_factory.mktemp("mariadb-restarts")) as server:
        url = running.create_database(server, "gwf_restarts")
        db = open_database(url)
        migrate.upgrade(db)
        db.close()
        with gwf.connect(url) as wf:
            config = {"executor": "wait_for_gate", "gate": str(gate)}
            task = wf.create_task("a", type="automated", config=config)
            after = wf.create_task("b", type="automated", config={**config, "gate": os.devnull})
            jobs = wf.create_jobs(wf.create_flow("F", [task, after]), list("12345678"))
            workers = [start(url, concurrency=2) for _ in range(4)]
            for worker in workers:
                worker.wait_until("ready")
            for job in jobs:
                job.start()
            for worker in workers:
                worker.wait_until("began")
                worker.wait_until("began")
            running.stop_process(server)
            for _ in range(8):
                gate.write_text("go")
            for worker in workers:
                worker.wait_until("ended")
                worker.wait_until("ended")
            running.start_process(server)
            said = [_wait_for_more(worker) for worker in workers]
            assert sum(said) == 8
            counts = [worker.finish() for worker in workers]
            assert [int(words[2]) for words in counts] == [0] * 4
            assert sum(int(words[1]) for words in counts) == 16
            assert set(wf.jobs()["status"]) == {"completed"}
            assert wf.attempts()["attempt"].max() == 1


def _wait_for_more(worker: Process) -> int:
    """Wait until this worker has carried out two more tasks."""
    worker.wait_until("ended")
    worker.wait_until("ended")
    return 2


def command_worker(url: str, *options: str) -> subprocess.Popen[str]:
    """Start ``gwf worker`` for commands."""
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "gwf",
            "--database",
            url,
            "worker",
            "--allow",
            "command",
            *options,
        ],
        stderr=subprocess.PIPE,
        text=True,
    )


def job_that_holds(wf: gwf.Client, held: Held, program: str) -> gwf.Job:
    """Return a started job whose command opens the pipe and goes on with this program."""
    code = f"import os, signal, sys; f = open({str(held.path)!r}, 'w'); {program}"
    task = wf.create_task("a", type="automated", config={"command": [sys.executable, "-c", code]})
    return wf.create_job(wf.create_flow("F", [task]), "J").start()


@pytest.mark.parametrize("databases", ["sqlite", "mysql"], indirect=True)
def test_sigterm_lets_a_command_end(wf: gwf.Client, url: str, held: Held, tmp_path: Path) -> None:
    """The worker claims nothing more, waits for what runs, and ends with 0."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    job = job_that_holds(wf, held, f"f.write('x'); f.flush(); print(open({str(gate)!r}).read())")
    worker = command_worker(url)
    assert held.first_text() == "x"
    worker.send_signal(signal.SIGTERM)
    gate.write_text("the end")
    _, said = worker.communicate(timeout=60)
    assert worker.returncode == 0, said
    assert "1 completed" in said
    assert job.task("a").result["stdout"] == "the end\n"
    assert held.is_free()


@pytest.mark.parametrize("databases", ["sqlite", "mysql"], indirect=True)
def test_sigterm_without_grace_gives_back(wf: gwf.Client, url: str, held: Held) -> None:
    """What does not end in time is ended, and another worker may take it at once."""
    job = job_that_holds(wf, held, "f.write('x'); f.flush(); signal.pause()")
    worker = command_worker(url, "--grace", "0")
    assert held.first_text() == "x"
    worker.send_signal(signal.SIGTERM)
    _, said = worker.communicate(timeout=60)
    assert worker.returncode == 0, said
    assert held.is_free()
    assert job.attempts()["error_code"].tolist()[0] == "given_back"
    assert job.task("a").status == "pending"
    assert "start gwf worker --allow command" in str(job.explain())


@pytest.mark.parametrize("databases", ["sqlite"], indirect=True)
def test_second_sigterm_kills(wf: gwf.Client, url: str, held: Held) -> None:
    """A program that ignores signals is killed with its worker; its lease expires later."""
    ignoring = "signal.signal(signal.SIGTERM, signal.SIG_IGN); f.write('x'); f.flush()"
    job = job_that_holds(wf, held, f"{ignoring}; [signal.pause() for _ in iter(int, 1)]")
    worker = command_worker(url)
    assert held.first_text() == "x"
    worker.send_signal(signal.SIGTERM)
    assert worker.stderr is not None
    for line in worker.stderr:
        if "stopping" in line:
            break
    worker.send_signal(signal.SIGTERM)
    worker.communicate(timeout=60)
    assert worker.returncode == 128 + signal.SIGTERM
    assert held.is_free()
    assert job.task("a").status == "running"
