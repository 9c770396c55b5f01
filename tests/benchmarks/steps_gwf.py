"""Run jobs of ten trivial steps by one worker process, and print steps per second.

``python -m benchmarks.steps_gwf URL N_JOBS`` makes the jobs and runs them all;
``python -m benchmarks.steps_gwf URL N_JOBS shared`` waits for a line on standard input, and runs
what another process made, beside others, until it is closed.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

import gwf

N_STEPS = 10


def step(config: Any, context: Any) -> dict[str, int]:
    """Do next to nothing."""
    return {"warnings": 3}


def make_jobs(wf: gwf.Client, n_jobs: int) -> list[gwf.Job]:
    """Return so many jobs of ten steps."""
    steps = [
        wf.create_task(f"step {number}", type="automated", config={"executor": "step"})
        for number in range(N_STEPS)
    ]
    return wf.create_jobs(wf.create_flow("steps", steps), [f"job {n}" for n in range(n_jobs)])


def run_alone(wf: gwf.Client, n_jobs: int) -> float:
    """Return the steps per second of one process that runs its own jobs; the first is no part."""
    jobs = make_jobs(wf, n_jobs + 1)
    wf.run(jobs[0], progress=False)
    start = time.perf_counter()
    wf.run(jobs[1:], concurrency=1, progress=False)
    return n_jobs * N_STEPS / (time.perf_counter() - start)


def run_shared(wf: gwf.Client) -> None:
    """Work beside other processes, from the first line of standard input to its end."""
    worker = wf.worker(concurrency=1, poll_s=0.01)

    def stop() -> None:
        sys.stdin.read()
        worker.stop()

    print("ready", flush=True)
    sys.stdin.readline()
    threading.Thread(target=stop, daemon=True).start()
    worker.run()


def main(url: str, n_jobs: str, *shared: str) -> None:
    """Run as the arguments say."""
    with gwf.connect(url) as wf:
        wf.executor("step")(step)
        if shared:
            run_shared(wf)
        else:
            print(run_alone(wf, int(n_jobs)))


if __name__ == "__main__":
    main(*sys.argv[1:])
