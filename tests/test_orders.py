"""Show that an outcome comes back whatever an executor does, and that no secret does."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

import gwf
from gwf.database import open_database, read
from gwf.execution import HIDDEN, ExecutionContext
from gwf.executors import named, of_function
from gwf.limits import MAX_JSON_BYTES, MAX_JSON_DEPTH, MAX_TEXT
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


def again(thing: Any) -> Any:
    """Return what another process would be given."""
    return pickle.loads(pickle.dumps(thing))  # noqa: S301 - our own bytes


def knowing(*secrets: str, **parts: Any) -> ExecutionContext:
    """Return the context of an executor that has used these secrets."""
    context = ExecutionContext(**parts)
    with pytest.MonkeyPatch.context() as patch:
        for secret in secrets:
            patch.setenv("GWF_SECRET_OF_TEST", secret)
            context.revealed("token", {"secret": "GWF_SECRET_OF_TEST"})
    return context


def failing(error: BaseException, *secrets: str) -> Outcome:
    return carry_out(Order(of_function("it", raising(error)), {}, knowing(*secrets)))


def returning(value: Any, *secrets: str) -> Outcome:
    executor = of_function("it", lambda config, context: value)
    return carry_out(Order(executor, {}, knowing(*secrets)))


def greet(config: Any, context: ExecutionContext) -> Any:
    """Return what the other process was told."""
    return [config["to"], context["env"], context.database is None, context.given_up.is_set()]


class OddError(Exception):
    """Cannot say what it is."""

    def __str__(self) -> str:
        """Fail."""
        raise ValueError("no words")


def test_order_of_every_part_travels() -> None:
    """All that an executor is told arrives as it was."""
    sent = knowing(
        "s3cret",
        context={"a": [1, {"b": "中"}]},
        job={"id": 7, "name": "J"},
        task={"name": "T", "attempt": 2},
        results={"x": None},
        previous_task_result=[1.5],
        timeout_s=0.5,
        networks=("127.0.0.0/8",),
        artefacts="there",
    )
    order = Order(of_function("greet", greet), {"to": "you"}, sent)
    got = again(order)
    assert got == order
    assert dict(got.context) == dict(sent)
    assert got.context.redacted("a s3cret") == f"a {HIDDEN}"
    assert again(got) == order


def test_order_that_travelled_shares_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Secrets of one process, and what is given up there, do not reach the other."""
    sent = knowing("old")
    got = again(sent)
    sent.given_up.set()
    monkeypatch.setenv("GWF_SECRET_OF_TEST", "new")
    sent.revealed("token", {"secret": "GWF_SECRET_OF_TEST"})
    assert not got.given_up.is_set()
    assert got.redacted("old new") == f"{HIDDEN} new"
    got.given_up.set()
    assert not again(got).given_up.is_set()


def test_database_travels_by_its_url(url: str) -> None:
    """It is opened anew with its password, and can be read at once; a pickle comes back twice."""
    db = open_database(url)
    got = again(again(ExecutionContext(database=db)))
    assert got.database is not db
    assert got.database.engine.url.password == db.engine.url.password
    assert read(got.database, lambda conn: conn.scalar(sa.text("SELECT 7"))) == 7
    assert again(ExecutionContext(database=None)).database is None
    got.database.close()
    db.close()


def test_order_is_carried_out_in_another_process() -> None:
    """A pool that starts its processes anew hands over nothing but the pickle."""
    memory = open_database("sqlite://")
    context = ExecutionContext(context={"env": "中文"}, database=memory)
    context.given_up.set()
    order = Order(of_function("greet", greet), {"to": "{{ context.env }}!"}, context)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        found = pool.submit(carry_out, order).result(60)
    assert found == again(Outcome(["中文!", "中文", True, False]))
    memory.close()


def test_repr_of_an_order_names_executor_task_and_attempt() -> None:
    context = knowing("s3cret", task={"name": "检查", "attempt": 3})
    order = Order(of_function("greet", greet), {"to": "s3cret"}, context)
    assert repr(order) == "Order('greet', task '检查', 3)"
    assert repr(Order(of_function("greet", greet), {}, ExecutionContext())).startswith("Order(")
    assert "s3cret" not in repr(context)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Exception(), "Exception"),
        (GeneratorExit(), "GeneratorExit"),
        (OddError(), "OddError"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x"), "UnicodeDecodeError"),
        (ExceptionGroup("x", [ValueError("y")]), "ExceptionGroup"),
        (type("E" * 99, (Exception,), {})("x"), "E" * 50),
        (gwf.NotAllowed("x", needs="y"), "NotAllowed"),
        (gwf.ExecutionFailed(" \n", code="blank"), "blank"),
        (gwf.ConditionInvalid("x", "y"), "config_invalid"),
    ],
    ids=lambda value: type(value).__name__[:20] if isinstance(value, BaseException) else "",
)
def test_outcome_of_every_kind_of_failure(error: BaseException, code: str) -> None:
    """A code of at most 50 characters and a message that is not blank, whatever is raised."""
    found = outcome(raising(error))
    assert (found.error_code, found.result) == (code, None)
    assert found.error_message.strip()


def test_message_of_an_exception_says_where_it_was_raised() -> None:
    """The file, the line and the function; without a folder, which may name a person."""
    message = outcome(raising(KeyError("x"))).error_message
    assert message.startswith("KeyError: 'x' (test_orders.py, line ")
    assert message.endswith(", in execute)")


@pytest.mark.parametrize(
    "value",
    [
        {1, 2},
        object(),
        float("nan"),
        2**63,
        {1: 2},
        "\ud800",
        {"\ud800": 1},
        "x" * MAX_JSON_BYTES,
        [0] * MAX_JSON_BYTES,
    ],
    ids=lambda value: type(value).__name__,
)
def test_result_that_cannot_be_stored_is_an_outcome(value: Any) -> None:
    found = returning(value)
    assert (found.error_code, found.result) == ("result_invalid", None)
    assert found.error_message.startswith(("result ", "key of result "))


def test_result_that_is_too_deep_or_holds_itself_is_an_outcome() -> None:
    deep: Any = 1
    for _ in range(MAX_JSON_DEPTH + 1):
        deep = [deep]
    endless: list[Any] = []
    endless.append(endless)
    for value in (deep, endless, {"a": endless}):
        assert returning(value).error_code == "result_invalid"


def test_result_comes_back_as_it_is() -> None:
    for value in (None, True, 0, 1.5, "", [], {}, {"a": [None, "中"]}):
        assert returning(value) == Outcome(value)


def test_template_that_fails_is_a_config_that_is_invalid() -> None:
    """Nothing is executed then."""
    calls: list[Any] = []
    order = Order(
        of_function("it", lambda *given: calls.append(given)), {"x": "{{ no }}"}, ExecutionContext()
    )
    found = carry_out(order)
    assert (found.error_code, calls) == ("config_invalid", [])
    assert found.error_message.startswith("x '{{ no }}' is not valid")


@pytest.mark.parametrize("error", [ValueError("odd"), SystemExit(3), RecursionError("deep")])
def test_check_that_raises_is_an_outcome(error: BaseException) -> None:
    """The ``check`` of an executor is code of others too: it must not end its worker."""

    def function(config: Any, context: Any) -> None: ...

    function.check = lambda config: raising(error)(config, None)  # type: ignore[attr-defined]  # as a module
    found = outcome(function, x=1)
    assert found.error_code in ("config_invalid", type(error).__name__)
    assert found.error_message


def test_template_that_recurses_is_an_outcome() -> None:
    found = outcome(greet, to="{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}")
    assert found.error_code in ("config_invalid", "RecursionError")


@pytest.mark.parametrize("n", [MAX_TEXT - 200, MAX_TEXT, MAX_TEXT + 1, 10 * MAX_TEXT])
@pytest.mark.parametrize("character", ["a", "中", "😀", "\ud800", "•"])
def test_message_fits_and_keeps_both_ends(character: str, n: int) -> None:
    """At most 16,000 characters that a database can hold, half a character as an escape."""
    message = failing(ValueError(f"begin {character * n} end")).error_message
    assert len(message) <= MAX_TEXT
    assert message.encode()
    assert message.startswith("ValueError: begin ")
    assert " end (test_orders.py, line " in message


def test_cut_cuts_no_secret_in_two() -> None:
    """It is hidden before, so no half of it stays at the cut."""
    for shift in range(0, 60, 7):
        said = "x" * (MAX_TEXT // 2 - 20 - shift) + "s3cr3t+token " * 2000
        message = failing(ValueError(said), "s3cr3t+token").error_message
        assert "s3c" not in message
        assert "oken" not in message


def test_code_of_a_failure_can_be_stored_and_holds_no_secret() -> None:
    """The code is written down as the message is."""
    for code in ("\ud800", "s3cret", "x-s3cret"):
        found = failing(gwf.ExecutionFailed("x", code=code), "s3cret").error_code
        assert found is not None
        assert found.encode()
        assert "s3cret" not in found


@pytest.mark.parametrize(
    "secret",
    ["x" * 200, "C:\\keys\\7", "two\nlines", 'it\'s "it"', "\x1b[31m"],
    ids=["long", "backslashes", "lines", "quotes", "escape"],
)
@pytest.mark.parametrize("kind", [KeyError, gwf.Invalid])
def test_message_hides_a_secret_that_is_quoted(kind: Any, secret: str) -> None:
    """Messages quote values with escapes, or cut them; that does not make them public."""
    error = kind("token", secret, expected="another") if kind is gwf.Invalid else kind(secret)
    message = failing(error, secret).error_message
    for shown in (secret, repr(secret)[1:-1], json.dumps(secret)[1:-1], secret[:60]):
        assert shown not in message


def test_result_hides_secrets_in_keys_and_values() -> None:
    """However deep; the longer of two goes first, so none is shown in part."""
    value = {"s3cret": ["s3cret", {"a": "<s3cret-long>", "n": [None, 3]}], "b": "none"}
    assert returning(value, "s3cret", "s3cret-long").result == {
        HIDDEN: [HIDDEN, {"a": f"<{HIDDEN}>", "n": [None, 3]}],
        "b": "none",
    }


def test_result_with_its_secrets_hidden_still_fits() -> None:
    """What hides a secret may be longer than it, so the bound holds after it."""
    found = returning("a" * 900_000, "a")
    assert found.error_code == "result_invalid"


def test_result_loses_nothing_when_two_keys_are_secrets() -> None:
    """Two keys must not become one, which would drop a value without a word."""
    found = returning({"one": 1, "two": 2}, "one", "two")
    assert found.error_code == "result_invalid" or len(found.result) == 2


@given(
    st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1), st.text(), st.text()
)
def test_message_of_anything_holds_no_secret(secret: str, before: str, after: str) -> None:
    """Alone in a message of its own, a secret is never seen, and the message can be stored."""
    error = gwf.ExecutionFailed(f"{before}{secret}{after}", code="failed")
    message = failing(error, secret).error_message
    assert message.encode()
    assert secret in HIDDEN or secret in "failed" or secret not in message
