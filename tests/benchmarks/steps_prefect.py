"""Run flows of ten trivial tasks by Prefect on its SQLite default; print tasks per second.

Runs in an environment of its own: ``python steps_prefect.py N_JOBS``, with ``PREFECT_HOME`` set.
"""

import sys
import time

from prefect import flow, task

N_STEPS = 10


@task
def step(number: int) -> dict[str, int]:
    """Do next to nothing."""
    return {"warnings": 3}


@flow
def job() -> None:
    """Run ten tasks."""
    for number in range(N_STEPS):
        step(number)


def main(n_jobs: str) -> None:
    """Print the tasks per second; the first flow is no part of them, as it starts the server."""
    job()
    start = time.perf_counter()
    for _ in range(int(n_jobs)):
        job()
    print(int(n_jobs) * N_STEPS / (time.perf_counter() - start))


main(*sys.argv[1:])
