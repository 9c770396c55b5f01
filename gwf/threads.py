"""Run each call at once in a thread, as a ``concurrent.futures.Executor``.

Why not ``ThreadPoolExecutor``: it waits for its threads when the interpreter ends, so one function
that hangs would keep the whole process from ending; and such a thread would take a place of the
pool for good. Threads here are daemons and as many as are needed; the worker that uses them counts
its places itself.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

_Call = tuple[Future[Any], Callable[..., Any], tuple[Any, ...], dict[str, Any]]


class DaemonThreads(Executor):
    """Give each call to a thread that has nothing to do, or to a new one."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._lock = threading.Lock()
        self._n_threads = 0
        self._is_shut = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Begin the call, and return its future."""
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        with self._lock:
            if self._is_shut:
                raise RuntimeError("cannot submit after shutdown")
            if not self._idle.acquire(blocking=False):
                threading.Thread(target=self._run, name="gwf task", daemon=True).start()
                self._n_threads += 1
            self._calls.put((future, fn, args, kwargs))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let the threads end after their calls; nothing waits for them."""
        with self._lock:
            self._is_shut = True
            for _ in range(self._n_threads):
                self._calls.put(None)
            self._n_threads = 0

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            _carry_out(*call)
            del call  # an idle thread keeps nothing alive
            self._idle.release()


def _carry_out(
    future: Future[Any], fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    try:
        answer = fn(*args, **kwargs)
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(answer)
