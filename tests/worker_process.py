"""Be a worker in a process of its own, for tests that end it: ``python worker_process.py URL …``.

Its functions say on standard output what begins and what ends, so that a test waits for that and
never for time.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import gwf

_SAYING = threading.Lock()


def say(*words: object) -> None:
    """Write one line at once."""
    with _SAYING:
        os.write(1, (" ".join(map(str, words)) + "\n").encode())


def perish(config: Any, context: Any) -> dict[str, int]:
    """Kill the own worker in the middle of task a of every fourth job, once for each job."""
    task = context.task
    say("began", task["id"], task["attempt"])
    mark = Path(config["marks"], str(context.job["id"]))
    if context.job["id"] % 4 == 0 and task["name"] == "a" and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    say("ended", task["id"], task["attempt"])
    return {"attempt": task["attempt"]}


def wait_for_gate(config: Any, context: Any) -> str:
    """End when the test opens the gate, which is a named pipe."""
    say("began", context.task["id"], context.task["attempt"])
    Path(config["gate"]).read_text()
    say("ended", context.task["id"], context.task["attempt"])
    return str(config["gate"])


def main(url: str, lease_s: str, concurrency: str) -> None:
    """Work until standard input is closed."""
    wf = gwf.connect(url)
    for function in (perish, wait_for_gate):
        wf.executor(function.__name__)(function)
    worker = wf.worker(
        concurrency=int(concurrency), lease_s=float(lease_s), poll_s=0.05, grace_s=60.0
    )

    def stop_at_end() -> None:
        sys.stdin.read()
        worker.stop()

    threading.Thread(target=stop_at_end, daemon=True).start()
    say("ready")
    worker.run()
    said = worker.health()
    say("stopped", said.n_completed, said.n_failed, said.n_lost)


if __name__ == "__main__":
    main(*sys.argv[1:])
