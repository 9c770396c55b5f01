"""Run workflows of ten trivial steps by DBOS Transact on its SQLite default; print steps a second.

Runs in an environment of its own: ``python steps_dbos.py FILE N_JOBS``.
"""

import sys
import time

from dbos import DBOS, DBOSConfig

N_STEPS = 10


@DBOS.step()
def step(number: int) -> dict[str, int]:
    """Do next to nothing."""
    return {"warnings": 3}


@DBOS.workflow()
def job() -> None:
    """Run ten steps."""
    for number in range(N_STEPS):
        step(number)


def main(file: str, n_jobs: str) -> None:
    """Print the steps per second; the first workflow is no part of them."""
    config: DBOSConfig = {
        "name": "steps",
        "system_database_url": f"sqlite:///{file}",
        "log_level": "ERROR",
    }
    DBOS(config=config)
    DBOS.launch()
    job()
    start = time.perf_counter()
    for _ in range(int(n_jobs)):
        job()
    print(int(n_jobs) * N_STEPS / (time.perf_counter() - start))
    DBOS.destroy()


main(*sys.argv[1:])
