"""Show that a program runs as asked, and ends in time whatever it does: rules W1, W4 and W8."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from held import Held

import gwf
from gwf import processes
from gwf.execution import HIDDEN, ExecutionContext
from gwf.executors.command import execute
from gwf.processes import MAX_OUTPUT


def python(code: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", code, *arguments]


def failure(config: dict[str, Any], **context: Any) -> gwf.ExecutionFailed:
    with pytest.raises(gwf.ExecutionFailed) as failed:
        execute(config, ExecutionContext(**context))
    return failed.value


def test_execute_returns_what_was_printed() -> None:
    """Both outputs, as text, and how much they were."""
    code = "import sys; print('通过', end=''); print('warn', end='', file=sys.stderr)"
    assert execute({"command": python(code)}, ExecutionContext()) == {
        "exit_code": 0,
        "stdout": "通过",
        "stderr": "warn",
        "stdout_bytes": 6,
        "stderr_bytes": 4,
    }


def test_execute_a_text_is_no_shell(tmp_path: Path) -> None:
    """A text is split into words; nothing else of a shell applies, unless one is asked for."""
    text = "echo 'a b' $HOME; echo c > out"
    plain = execute({"command": text, "cwd": str(tmp_path)}, ExecutionContext())
    assert plain["stdout"] == "a b $HOME; echo c > out\n"
    assert list(tmp_path.iterdir()) == []
    shell = execute({"command": text, "shell": True, "cwd": str(tmp_path)}, ExecutionContext())
    assert shell["stdout"] == f"a b {os.environ['HOME']}\n"
    assert (tmp_path / "out").read_text() == "c\n"


def test_execute_passes_on_what_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program sees a short list of variables, those that are named, and those that are set."""
    monkeypatch.setenv("DATABASE_PASSWORD", "x")
    monkeypatch.setenv("CI", "yes")
    code = "import json, os; print(json.dumps(sorted(os.environ)))"
    config = {"command": python(code), "env": {"MODE": "fast"}, "pass_env": ["CI", "NO_SUCH"]}
    shown = execute(config, ExecutionContext())["stdout"]
    assert {"PATH", "MODE", "CI"} <= set(json.loads(shown))
    assert "DATABASE_PASSWORD" not in shown
    assert "NO_SUCH" not in shown


def test_execute_hides_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """W8: neither in what was printed nor in the message of a failure."""
    monkeypatch.setenv("TOKEN", "s3cret-value")
    env = {"T": {"secret": "TOKEN"}}
    printing = python("import os; print(os.environ['T'])")
    found = execute({"command": printing, "env": env}, ExecutionContext())
    assert found["stdout"] == f"{HIDDEN}\n"
    failing = python("import os, sys; sys.exit(os.environ['T'])")
    error = failure({"command": failing, "env": env})
    assert (error.code, str(error)) == ("exit_1", f"the command ended with exit code 1: {HIDDEN}")


def test_execute_keeps_the_ends_of_a_large_output() -> None:
    """100 MB are read to the end, and the first and the last 32 KiB kept."""
    code = "import sys; w = sys.stdout.write; w('BEGIN'); [w('x' * 10**6) for _ in range(100)]"
    found = execute({"command": python(code + "; w('END')")}, ExecutionContext())
    assert found["stdout_bytes"] == 100_000_008
    assert found["stdout"].startswith("BEGINxxx")
    assert found["stdout"].endswith("xxxEND")
    assert f"… {100_000_008 - MAX_OUTPUT:,} bytes left out …" in found["stdout"]
    assert len(found["stdout"]) < MAX_OUTPUT + 100


def test_execute_keeps_bytes_that_are_no_text() -> None:
    code = r"import sys; sys.stdout.buffer.write(b'a\xff\x00b')"
    found = execute({"command": python(code)}, ExecutionContext())
    assert found["stdout"] == "a\ufffd\x00b"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import sys; sys.exit(3)", "exit_3"),
        ("import os; os.kill(os.getpid(), 9)", "signal_9"),
        ("raise ValueError('no data')", "exit_1"),
    ],
)
def test_execute_what_fails(code: str, expected: str) -> None:
    """The code says how it ended, the message what it printed last."""
    error = failure({"command": python(code)})
    assert error.code == expected
    if "ValueError" in code:
        assert str(error).endswith("ValueError: no data")


def test_execute_what_does_not_start(tmp_path: Path) -> None:
    assert failure({"command": ["no-such-program"]}).code == "not_started"
    assert failure({"command": ["true"], "cwd": str(tmp_path / "no")}).code == "not_started"


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"command": None},
        {"command": ""},
        {"command": []},
        {"command": [""]},
        {"command": ["a", None]},
        {"command": 5},
        {"command": "echo 'open"},
        {"command": "a\0b"},
        {"command": ["true"], "shell": True},
        {"command": "true", "shell": "yes"},
        {"command": "true", "env": ["A"]},
        {"command": "true", "env": {"A": 5}},
        {"command": "true", "env": {"A=B": "x"}},
        {"command": "true", "env": {"A": {"secret": "NO_SUCH_SECRET"}}},
        {"command": "true", "pass_env": "PATH"},
        {"command": "true", "pass_env": [5]},
    ],
)
def test_execute_what_makes_no_sense(config: dict[str, Any]) -> None:
    """W1: refused before anything runs."""
    with pytest.raises(gwf.Invalid):
        execute(config, ExecutionContext())


FORKS = (
    "import os, subprocess, sys, time; "
    "hold = os.open(sys.argv[1], os.O_WRONLY); "
    "sleeping = [sys.executable, '-c', 'import time; time.sleep(600)']; "
    "child = subprocess.Popen(sleeping, pass_fds=[hold]); "
    "os.write(hold, str(child.pid).encode()); "
)


def test_execute_ends_the_group_when_its_time_is_over(held: Held) -> None:
    """W4: the program and what it forked are gone, and the code is timed_out."""
    error = failure({"command": python(FORKS + "time.sleep(600)", str(held.path))}, timeout_s=5)
    assert (error.code, str(error)) == ("timed_out", "not done after 5 seconds")
    assert held.is_free()
    assert held.text


def test_execute_ends_what_it_left_behind(held: Held) -> None:
    """A program that succeeds and leaves a child behind does not hold up the worker."""
    config = {"command": python(FORKS + "print('done')", str(held.path))}
    assert execute(config, ExecutionContext())["stdout"] == "done\n"
    assert held.is_free()


def test_execute_ends_what_it_left_behind_in_silence(held: Held) -> None:
    """A child that closed its outputs and ignores SIGTERM is killed."""
    deaf = "import os, signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    deaf += "os.close(1); os.close(2); os.write(int(sys.argv[1]), b'deaf'); signal.pause()"
    code = FORKS.replace("'import time; time.sleep(600)'", f"{deaf!r}, str(hold)")
    code = code.replace("os.write(hold, str(child.pid).encode()); ", "child.wait()")
    given_up = threading.Event()

    def give_up() -> None:
        select.select([held.reader], [], [], 30)  # the child listens no more
        given_up.set()

    threading.Thread(target=give_up, daemon=True).start()
    assert failure({"command": python(code, str(held.path))}, given_up=given_up).code == "cancelled"
    assert held.is_free()
    assert held.text == "deaf"


def test_execute_kills_what_does_not_listen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that ignores SIGTERM is killed after the grace."""
    monkeypatch.setattr(processes, "GRACE_S", 0.3)
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    assert failure({"command": python(code)}, timeout_s=1).code == "timed_out"


def test_execute_goes_on_without_whoever_left_the_group(
    monkeypatch: pytest.MonkeyPatch, held: Held
) -> None:
    """A child in a session of its own keeps the pipes open; the result does not wait for it."""
    monkeypatch.setattr(processes, "GRACE_S", 0.3)
    code = FORKS.replace("pass_fds=[hold]", "pass_fds=[hold], start_new_session=True")
    config = {"command": python(code + "print('done')", str(held.path))}
    assert execute(config, ExecutionContext())["stdout"] == "done\n"
    os.kill(int(os.read(held.reader, 1000)), signal.SIGKILL)
    assert held.is_free()


def test_execute_stops_when_it_is_given_up(held: Held) -> None:
    """W7: whoever cancels the attempt ends the program."""
    given_up = threading.Event()

    def give_up() -> None:
        select.select([held.reader], [], [], 30)  # it has begun
        given_up.set()

    threading.Thread(target=give_up, daemon=True).start()
    config = {"command": python(FORKS + "time.sleep(600)", str(held.path))}
    assert failure(config, given_up=given_up).code == "cancelled"
    assert held.is_free()


def test_execute_a_program_that_closes_its_outputs() -> None:
    """It is waited for, although there is nothing more to read."""
    code = "import os, time; os.close(1); os.close(2); time.sleep(0.2); os._exit(4)"
    assert failure({"command": python(code)}).code == "exit_4"
