"""Run calls in threads: at once, again in idle ones, and never in the way of an interpreter's end.

Waits have bounds of a minute, which only a test that fails ever reaches.
"""

from __future__ import annotations

import concurrent.futures
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from gwf.threads import DaemonThreads

LONG_S = 60


@pytest.fixture
def pool() -> Iterator[DaemonThreads]:
    """Return threads, which end with the test."""
    threads = DaemonThreads()
    yield threads
    threads.shutdown()


class Thing:
    """Be something that a weak reference can watch."""


def test_submit_returns_what_the_call_returns(pool: DaemonThreads) -> None:
    """Arguments reach the function as they were given, a keyword named ``fn`` too."""

    def call(*args: Any, **kwargs: Any) -> Any:
        return args, kwargs

    assert pool.submit(call, 1, fn=2, self=3).result(LONG_S) == ((1,), {"fn": 2, "self": 3})
    assert pool.submit(call).result(LONG_S) == ((), {})


def test_threads_are_daemons_with_a_name(pool: DaemonThreads) -> None:
    thread = pool.submit(threading.current_thread).result(LONG_S)
    assert (thread.daemon, thread.name) == (True, "gwf task")
    assert thread is not threading.current_thread()


def test_submit_runs_every_call_at_once(pool: DaemonThreads) -> None:
    """A hundred calls that wait for each other all end: none waits for a place."""
    together = threading.Barrier(100)
    futures = [pool.submit(together.wait, LONG_S) for _ in range(100)]
    assert sorted(future.result(LONG_S) for future in futures) == list(range(100))


def test_submit_from_many_threads(pool: DaemonThreads) -> None:
    """Calls that are submitted at the same time are all made, each once."""
    together = threading.Barrier(8)
    made: list[int] = []

    def submit(first: int) -> list[Any]:
        together.wait(LONG_S)
        return [pool.submit(made.append, first + n) for n in range(50)]

    futures = [pool.submit(submit, 50 * n) for n in range(8)]
    for future in futures:
        for one in future.result(LONG_S):
            one.result(LONG_S)
    assert sorted(made) == list(range(400))


def test_submit_within_a_call(pool: DaemonThreads) -> None:
    """A call may wait for one that it submits itself."""
    assert pool.submit(lambda: pool.submit(int, "7").result(LONG_S)).result(LONG_S) == 7


def test_threads_are_used_again(pool: DaemonThreads) -> None:
    """One call after the other takes fewer threads than there are calls.

    A thread says that it is idle only after it gave its result, so there may be more than one.
    """
    threads = {pool.submit(threading.current_thread).result(LONG_S) for _ in range(300)}
    assert len(threads) < 150


def test_hang_takes_the_place_of_no_other(pool: DaemonThreads) -> None:
    """Calls go on beside ten that do not end, and those end later as any other."""
    leave = threading.Event()
    hanging = [pool.submit(leave.wait, LONG_S) for _ in range(10)]
    assert [pool.submit(int, n).result(LONG_S) for n in range(50)] == list(range(50))
    assert not any(one.done() for one in hanging)
    leave.set()
    assert all(one.result(LONG_S) for one in hanging)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x"),
        SystemExit(3),
        KeyboardInterrupt(),
        GeneratorExit(),
        BaseException("x"),
        MemoryError(),
        StopIteration(7),
        concurrent.futures.CancelledError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_raise_reaches_the_future_and_spares_the_thread(
    pool: DaemonThreads, error: BaseException
) -> None:
    """What a call raises is the answer of its future, and the pool goes on."""

    def call() -> None:
        raise error

    future = pool.submit(call)
    assert future.exception(LONG_S) is error
    with pytest.raises(type(error)):
        future.result(LONG_S)
    assert pool.submit(int, "7").result(LONG_S) == 7


def test_exit_ends_neither_thread_nor_interpreter(pool: DaemonThreads) -> None:
    assert isinstance(pool.submit(sys.exit, 3).exception(LONG_S), SystemExit)
    assert pool.submit(int, "7").result(LONG_S) == 7


def test_submit_of_what_cannot_be_called(pool: DaemonThreads) -> None:
    """It is the future that tells, as with every executor."""
    assert isinstance(pool.submit(7).exception(LONG_S), TypeError)  # type: ignore[arg-type]  # meant


def test_cancel_comes_too_late_for_a_call_that_runs(pool: DaemonThreads) -> None:
    began, leave = threading.Event(), threading.Event()

    def call() -> bool:
        began.set()
        return leave.wait(LONG_S)

    future = pool.submit(call)
    assert began.wait(LONG_S)
    assert future.running()
    assert not future.cancel()
    leave.set()
    assert future.result(LONG_S)


def test_callback_that_raises_spares_the_thread(
    pool: DaemonThreads, caplog: pytest.LogCaptureFixture
) -> None:
    """A future logs what its callback raises; its thread then ends as any other."""
    began, leave = threading.Event(), threading.Event()

    def call() -> threading.Thread:
        began.set()
        leave.wait(LONG_S)
        return threading.current_thread()

    def tell(future: Any) -> None:
        raise ValueError("in a callback")

    future = pool.submit(call)
    assert began.wait(LONG_S)
    future.add_done_callback(tell)
    leave.set()
    pool.shutdown()
    future.result(LONG_S).join(LONG_S)
    assert "exception calling callback" in caplog.text


def test_map_and_with_work_as_of_every_executor() -> None:
    with DaemonThreads() as pool:
        assert list(pool.map(int, ["1", "2", "3"])) == [1, 2, 3]


def test_idle_thread_keeps_no_argument_alive(pool: DaemonThreads) -> None:
    thing, is_gone = Thing(), threading.Event()
    weakref.finalize(thing, is_gone.set)
    pool.submit(id, thing).result(LONG_S)
    del thing
    assert is_gone.wait(LONG_S)


def test_idle_thread_keeps_no_result_alive(pool: DaemonThreads) -> None:
    """The result of the last call may be large, and the next one a day away."""
    is_gone = threading.Event()
    future = pool.submit(Thing)
    weakref.finalize(future.result(LONG_S), is_gone.set)
    del future
    assert is_gone.wait(10)


def test_shutdown_waits_for_nothing(pool: DaemonThreads) -> None:
    """What runs goes on and gives its result; nothing waits for it."""
    began, leave = threading.Event(), threading.Event()

    def call() -> str:
        began.set()
        leave.wait(LONG_S)
        return "done"

    future = pool.submit(call)
    assert began.wait(LONG_S)
    pool.shutdown(wait=True)
    pool.shutdown(wait=True, cancel_futures=True)
    assert not future.done()
    leave.set()
    assert future.result(LONG_S) == "done"


def test_shutdown_ends_the_threads(pool: DaemonThreads) -> None:
    """Each of them ends: those without work now, the others after their calls."""
    together, leave = threading.Barrier(6), threading.Event()

    def call() -> threading.Thread:
        together.wait(LONG_S)
        return threading.current_thread()

    def busy() -> threading.Thread:
        found = call()
        leave.wait(LONG_S)
        return found

    idle = [pool.submit(call) for _ in range(3)]
    running = [pool.submit(busy) for _ in range(3)]
    threads = [future.result(LONG_S) for future in idle]
    pool.shutdown()
    leave.set()
    threads += [future.result(LONG_S) for future in running]
    for thread in threads:
        thread.join(LONG_S)
    assert not any(thread.is_alive() for thread in threads)


def test_submit_after_shutdown_is_refused(pool: DaemonThreads) -> None:
    """As of every executor; otherwise the call may wait for ever for a thread that has ended."""
    thread = pool.submit(threading.current_thread).result(LONG_S)
    pool.shutdown()
    thread.join(LONG_S)
    with pytest.raises(RuntimeError):
        pool.submit(int, "7")


def test_submit_without_a_thread_to_be_had_is_not_made_later(
    pool: DaemonThreads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no thread can be started ``submit`` raises, and then the call is never made."""
    made: list[str] = []

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="start new thread"):
            pool.submit(made.append, "refused")
    pool.submit(made.append, "taken").result(LONG_S)
    pool.submit(made.append, "taken").result(LONG_S)
    assert made == ["taken", "taken"]


@pytest.mark.parametrize("end", ["", "; pool.shutdown(wait=True)", "; raise SystemExit(3)"])
def test_interpreter_ends_although_a_thread_hangs(end: str) -> None:
    """With idle threads too, with a shutdown and without."""
    code = (
        "import threading; from gwf.threads import DaemonThreads\n"
        "pool, began = DaemonThreads(), threading.Event()\n"
        "def hang():\n"
        "    began.set(); threading.Event().wait()\n"
        "pool.submit(int).result(); pool.submit(hang); began.wait()\n"
        f"print('over'){end}"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=False, timeout=LONG_S
    )
    assert (done.returncode, done.stdout, done.stderr) == (
        3 if "SystemExit" in end else 0,
        b"over\n",
        b"",
    )
