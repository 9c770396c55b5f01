"""Compare how fast trivial durable steps run: gwf, DBOS Transact, Prefect, and two workers.

DBOS and Prefect live in environments of their own, which ``make bench`` makes; each round runs the
two that are compared one after the other, as whole processes.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import gwf
from benchmarks.steps_gwf import N_STEPS, make_jobs

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ROUNDS = 5
N_JOBS = 60
N_SHARED = 150


def _last_number(command: list[str], **environment: str) -> float:
    done = subprocess.run(
        command,
        cwd=HERE.parent,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
    )
    return float(done.stdout.split()[-1])


def gwf_rate(folder: Path, number: int) -> float:
    """Return the steps per second of gwf on a new SQLite file."""
    url = f"sqlite:///{folder}/steps{number}.db"
    return _last_number([sys.executable, "-m", "benchmarks.steps_gwf", url, str(N_JOBS)])


def dbos_rate(folder: Path, number: int) -> float:
    """Return the steps per second of DBOS on a new SQLite file."""
    python = str(ROOT / ".venv-dbos" / "bin" / "python")
    script = str(HERE / "steps_dbos.py")
    return _last_number([python, script, f"{folder}/dbos{number}.sqlite", str(N_JOBS)])


def prefect_rate(folder: Path, number: int) -> float:
    """Return the tasks per second of Prefect in a new home."""
    python = str(ROOT / ".venv-prefect" / "bin" / "python")
    home = str(folder / f"prefect{number}")
    return _last_number(
        [python, str(HERE / "steps_prefect.py"), "3"],
        PREFECT_HOME=home,
        PREFECT_LOGGING_LEVEL="ERROR",
        PREFECT_SERVER_ANALYTICS_ENABLED="false",
    )


def workers_rate(url: str, n_workers: int) -> float:
    """Return the steps per second of so many worker processes that share the jobs of a server."""
    with gwf.connect(url) as wf:
        jobs = make_jobs(wf, N_SHARED)
        for job in jobs:
            job.start()
        command = [sys.executable, "-m", "benchmarks.steps_gwf", url, "0", "shared"]
        workers = [
            subprocess.Popen(
                command, cwd=HERE.parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            for _ in range(n_workers)
        ]
        for worker in workers:
            assert worker.stdout is not None
            worker.stdout.readline()
        start = time.perf_counter()
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
        while len(wf.jobs(status="running")):
            time.sleep(0.02)
        took = time.perf_counter() - start
        for worker in workers:
            worker.communicate()
    return N_SHARED * N_STEPS / took


def median_of_ratios(pairs: list[tuple[float, float]]) -> tuple[float, float]:
    """Return our rate as the median ratio says it, and the median of the others'."""
    other = statistics.median(theirs for _, theirs in pairs)
    return statistics.median(ours / theirs for ours, theirs in pairs) * other, other
