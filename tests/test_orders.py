"""Show that an outcome comes back whatever an executor does, and that no secret does."""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

import gwf
from gwf.database import open_database
from gwf.execution import HIDDEN, ExecutionContext
from gwf.executors import named, of_function
from gwf.limits import MAX_TEXT
from gwf.orders import Order, Outcome, carry_out
from gwf.threads import DaemonThreads


def outcome(function: Callable[[Any, Any], Any], **arguments: Any) -> Outcome:
    return carry_out(Order(of_function("it", function), arguments, ExecutionContext()))


def raising(error: BaseException) -> Callable[[Any, Any], Any]:
    """Return an executor that raises this."""

    def execute(config: Any, context: Any) -> None:
        raise error

    return execute


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError("x"), "ValueError"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (SystemExit(1), "SystemExit"),
        (MemoryError(), "MemoryError"),
        (gwf.ExecutionFailed("x", code="exit_3"), "exit_3"),
        (gwf.Invalid("url", "x", expected="y"), "config_invalid"),
        (gwf.Invalid("result", "x", expected="y"), "result_invalid"),
        (gwf.ExecutionFailed("x", code="c" * 99), "c" * 50),
    ],
)
def test_outcome_has_a_code_and_a_message(error: BaseException, code: str) -> None:
    found = outcome(raising(error))
    assert (found.error_code, found.result) == (code, None)
    assert found.error_message


def test_outcome_of_a_long_message_keeps_both_ends() -> None:
    found = outcome(raising(ValueError("a" * MAX_TEXT + "the end")))
    assert len(found.error_message) <= MAX_TEXT
    assert found.error_message.startswith("ValueError: aaa")
    assert "the end" in found.error_message


def test_outcome_of_half_a_character_can_be_stored() -> None:
    assert outcome(raising(ValueError("\ud800"))).error_message.encode()


def test_outcome_holds_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """In keys, in values however deep, in errors and in refusals."""
    monkeypatch.setenv("GWF_SECRET_OF_TEST", "s3cret")

    def echo(config: Any, context: ExecutionContext) -> Any:
        secret = context.revealed("token", {"secret": "GWF_SECRET_OF_TEST"})
        if config.get("raise"):
            raise ValueError(f"no {secret}")
        if config.get("refuse"):
            raise gwf.Invalid("token", secret, expected="another")
        return {secret: [secret, {"x": f"<{secret}>"}]}

    assert outcome(echo).result == {HIDDEN: [HIDDEN, {"x": f"<{HIDDEN}>"}]}
    for how in ("raise", "refuse"):
        assert "s3cret" not in outcome(echo, **{how: True}).error_message
    assert "s3cret" not in repr(Order(of_function("it", echo), {"t": "s3cret"}, ExecutionContext()))


def test_order_travels_to_another_process(sqlite_url: str) -> None:
    """Of a database its address travels; what was given up stays behind."""
    db, memory = open_database(sqlite_url), open_database("sqlite://")
    context = ExecutionContext(context={"env": "中文"}, job={"id": 7}, database=db, timeout_s=3)
    context.given_up.set()
    command = named("command")
    assert command is not None
    order = pickle.loads(pickle.dumps(Order(command, {"command": ["true"]}, context)))  # noqa: S301 - our own bytes
    assert (order.context["env"], order.context.timeout_s) == ("中文", 3)
    assert order.context.database.engine.url == db.engine.url
    assert not order.context.given_up.is_set()
    away = pickle.loads(pickle.dumps(ExecutionContext(database=memory)))  # noqa: S301 - as above
    assert away.database is None
    for one in (db, memory, order.context.database):
        one.close()


def test_threads_are_used_again_and_are_as_many_as_needed() -> None:
    """A call that hangs takes nobody's place."""
    pool = DaemonThreads()
    leave, together = threading.Event(), threading.Barrier(5)
    hanging = pool.submit(leave.wait, 60)
    at_once = [pool.submit(together.wait, 60) for _ in range(5)]
    assert sorted(one.result(60) for one in at_once) == list(range(5))
    with pytest.raises(SystemExit):
        pool.submit(sys.exit, 3).result(60)
    assert not hanging.done()
    leave.set()
    assert hanging.result(60)
    pool.shutdown()


def test_interpreter_ends_although_a_thread_hangs() -> None:
    code = (
        "import threading; from gwf.threads import DaemonThreads\n"
        "DaemonThreads().submit(threading.Event().wait); print('over')"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True)
    assert done.stdout == b"over\n"
