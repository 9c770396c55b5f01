"""Print one line for each piece of work: gwf, the other, the ratio, the target, the versions.

Each figure is the median of interleaved rounds, since these machines are noisy; read the ratios.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from servers import running

import gwf
from benchmarks import by_hand, steps

ROUNDS = 9
N_JOBS = 10_000


@dataclass(frozen=True)
class Line:
    """Hold one line of the table; rates are per second, larger is better.

    ``target`` is the ratio that is wanted, or None where the other only shows what is possible.
    """

    work: str
    gwf: float
    other: float
    target: float | None
    unit: str
    against: str


def _rate(work: Callable[[], int]) -> float:
    start = time.perf_counter()
    done = work()
    return done / (time.perf_counter() - start)


def _interleaved(ours: Callable[[], int], theirs: Callable[[], int]) -> tuple[float, float]:
    rates = [(_rate(ours), _rate(theirs)) for _ in range(ROUNDS + 1)][1:]
    ratio = statistics.median(a / b for a, b in rates)
    other = statistics.median(b for _, b in rates)
    return ratio * other, other


def _ten_tasks(wf: gwf.Client) -> gwf.Flow:
    return wf.create_flow("bench", [wf.create_task(f"task {i}") for i in range(10)])


def _transitions(wf: gwf.Client, hand: by_hand.Hand, against: str, target: float | None) -> Line:
    flow = _ten_tasks(wf)

    def ids_of_new_job() -> tuple[int, list[int]]:
        job = wf.create_job(flow, "bench").start()
        return job.id, [int(one) for one in job.tasks()["job_task_id"]]

    def ours() -> int:
        for job_task_id in ready[0][1]:
            wf.start_task(job_task_id, operator=1)
            wf.complete_task(job_task_id, {"ok": True})
        return 20

    def theirs() -> int:
        return hand.transitions(*ready[1])

    ready = [ids_of_new_job(), ids_of_new_job()]
    rates = []
    for _ in range(ROUNDS * 4 + 1):
        ready = [ids_of_new_job(), ids_of_new_job()]
        rates.append((_rate(ours), _rate(theirs)))
    ratio = statistics.median(a / b for a, b in rates[1:])
    other = statistics.median(b for _, b in rates[1:])
    name = wf.database.engine.dialect.name
    return Line(f"start and complete, {name}", ratio * other, other, target, "/s", against)


def _creation(wf: gwf.Client, hand: by_hand.Hand) -> Line:
    flow = _ten_tasks(wf)
    names = [f"job {i}" for i in range(N_JOBS)]

    def ours() -> int:
        wf.create_jobs(flow, names)
        return N_JOBS * 10

    def theirs() -> int:
        return hand.create_jobs(flow.id, names)

    global ROUNDS  # noqa: PLW0603 - ten thousand jobs a round: fewer rounds
    ROUNDS, rounds = 3, ROUNDS
    mine, other = _interleaved(ours, theirs)
    ROUNDS = rounds
    return Line("create 10,000 jobs of 10 tasks", mine, other, 0.8, "tasks/s", "executemany")


def _imports() -> Line:
    def once(module: str) -> Callable[[], int]:
        def run() -> int:
            subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
            return 1

        return run

    bare = once("sys")
    mine, other = _interleaved(once("gwf"), once("sqlalchemy"))
    empty = statistics.median(_rate(bare) for _ in range(ROUNDS))
    ours_ms, theirs_ms = 1000 / mine - 1000 / empty, 1000 / other - 1000 / empty
    print(f"# import gwf {ours_ms:.0f} ms, import sqlalchemy {theirs_ms:.0f} ms above bare Python")
    return Line("import gwf (whole process)", mine, other, 1 / 1.3, "/s", "import sqlalchemy")


def _steps(folder: Path) -> list[Line]:
    rounds = range(steps.ROUNDS)
    work = "ten steps by one worker, sqlite FULL"
    ours, dbos = steps.median_of_ratios(
        [(steps.gwf_rate(folder, n), steps.dbos_rate(folder, n)) for n in rounds]
    )
    also_ours, prefect = steps.median_of_ratios(
        [(steps.gwf_rate(folder, 100 + n), steps.prefect_rate(folder, n)) for n in range(2)]
    )
    return [
        Line(work, ours, dbos, 2.0, "steps/s", "DBOS Transact, SQLite"),
        Line(work, also_ours, prefect, 100.0, "steps/s", "Prefect, SQLite"),
    ]


def _two_workers(url: str) -> Line:
    pairs = [(steps.workers_rate(url, 2), steps.workers_rate(url, 1)) for _ in range(steps.ROUNDS)]
    two, one = steps.median_of_ratios(pairs)
    return Line("two workers, mariadb", two, one, 1.6, "steps/s", "one worker")


def main() -> None:
    """Measure everything and print the table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lines = [_imports(), *_steps(folder)]
        with gwf.connect(f"sqlite:///{folder}/gwf.db") as wf:
            hand = by_hand.SqliteByHand(folder / "hand.db", folder / "gwf.db")
            lines.append(_transitions(wf, hand, "sqlite3 FULL", 0.4))
        with running.mariadb_server(folder / "mariadb", durable=True) as server:
            url = running.create_database(server, "gwf_bench")
            with gwf.connect(url) as wf:
                hand = by_hand.ServerByHand(url)
                lines.append(_transitions(wf, hand, "PyMySQL", 0.7))
                reading = by_hand.ReadingByHand(url)
                lines.append(_transitions(wf, reading, "PyMySQL that reads first", None))
                lines.append(_creation(wf, hand))
            # the jobs by hand above are never ended, so workers get a database of their own
            lines.append(_two_workers(running.create_database(server, "gwf_bench_workers")))
            running.drop_database(server, "gwf_bench_workers")
            running.drop_database(server, "gwf_bench")
    print(f"{'work':36}{'gwf':>10}{'other':>10}{'ratio':>8}{'target':>8}  unit     against")
    for line in lines:
        target = "" if line.target is None else f"{line.target:.2f}"
        print(
            f"{line.work:36}{line.gwf:10.0f}{line.other:10.0f}{line.gwf / line.other:8.2f}"
            f"{target:>8}  {line.unit:8} {line.against}"
        )
    names = ("goworkflow", "sqlalchemy", "pymysql", "pandas")
    print("# Python", sys.version.split()[0], *(f"{one} {version(one)}" for one in names))


main()
