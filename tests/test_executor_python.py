"""Show that a function is called in a process of its own, and cannot hurt the worker."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import textwrap
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from held import Held

import gwf
from gwf import execution
from gwf.execution import HIDDEN, ExecutionContext
from gwf.executors import named
from gwf.executors.python import check, execute


@dataclass
class Steps:
    """Write a module ``steps`` into a folder, and call its function ``run``."""

    folder: Path

    def call(self, code: str, context: ExecutionContext | None = None, **config: Any) -> Any:
        """Return what the function returns."""
        (self.folder / "steps.py").write_text(textwrap.dedent(code), encoding="utf-8")
        asked = {"python": "steps:run", "cwd": str(self.folder), **config}
        return execute(asked, ExecutionContext() if context is None else context)

    def failure(
        self, code: str, context: ExecutionContext | None = None, **config: Any
    ) -> gwf.ExecutionFailed:
        """Return what the call failed with."""
        with pytest.raises(gwf.ExecutionFailed) as failed:
            self.call(code, context, **config)
        return failed.value


@pytest.fixture
def steps(tmp_path: Path) -> Steps:
    return Steps(tmp_path)


def test_execute_returns_what_the_function_returns(steps: Steps) -> None:
    """It is called with the other arguments alone, and with the context as a mapping."""
    code = """
        def run(config, context):
            print("printed, and no part of the result")
            return {"config": config, "env": context["env"], "通过": (1, 2.5, None, True)}
    """
    context = ExecutionContext(context={"env": "staging"})
    found = steps.call(code, context, size=3, pass_env=["CI"], env={"MODE": "fast"})
    assert found == {"config": {"size": 3}, "env": "staging", "通过": [1, 2.5, None, True]}


def test_execute_tells_the_function_what_executors_are_told(
    steps: Steps, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All but the database; the folder for artefacts means the same in another folder."""
    monkeypatch.chdir(steps.folder)
    (steps.folder / "elsewhere").mkdir()
    code = """
        def run(config, context):
            names = ["job", "task", "results", "previous_task_result", "timeout_s", "artefacts"]
            told = {name: getattr(context, name) for name in names}
            assert context.networks == ("127.0.0.0/8",)
            assert not context.given_up.is_set()
            return told | {"database": context.database}
    """
    (steps.folder / "elsewhere" / "steps.py").write_text(textwrap.dedent(code))
    database = gwf.connect(sqlite_url).database
    told = {
        "job": {"id": 7, "name": "夜间"},
        "task": {"id": 8, "attempt": 2},
        "results": {"lint": {"n": 0}},
        "previous_task_result": {"n": 0},
        "timeout_s": 60.0,
    }
    context = ExecutionContext(networks=("127.0.0.0/8",), database=database, **told)
    found = execute({"python": "steps:run", "cwd": "elsewhere"}, context)
    database.close()
    assert found == told | {"artefacts": str(steps.folder / "artefacts"), "database": None}


def test_execute_in_the_given_folder(steps: Steps) -> None:
    """It is the working folder and the first on the path; its files hide no module of gwf's."""
    for name in ("gwf", "json", "queries"):
        (steps.folder / f"{name}.py").write_text("raise RuntimeError('hidden')")
    code = """
        import os, sys
        def run(config, context):
            return [os.getcwd(), sys.path[0]]
    """
    assert steps.call(code) == [str(steps.folder)] * 2


def test_execute_a_function_of_a_class_and_one_that_waits(steps: Steps) -> None:
    """A dotted name is followed, and a coroutine is run to its end."""
    code = """
        import asyncio
        class Steps:
            @staticmethod
            async def clean(config, context):
                await asyncio.sleep(0)
                return config["n"] + 1
    """
    assert steps.call(code, python="steps:Steps.clean", n=4) == 5


def test_execute_passes_on_what_is_named(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    """The function sees no other variables of the worker."""
    monkeypatch.setenv("DATABASE_PASSWORD", "x")
    monkeypatch.setenv("CI", "yes")
    code = """
        import os
        def run(config, context):
            return [os.environ.get(name) for name in ("CI", "MODE", "DATABASE_PASSWORD")]
    """
    found = steps.call(code, pass_env=["CI", "NO_SUCH"], env={"MODE": "fast"})
    assert found == ["yes", "fast", None]


SECRET = "s3cret-" + "value" * 20


@pytest.mark.parametrize(
    ("ending", "expected"),
    [
        ("return {token: [token]}", None),
        ("raise ValueError(token)", "ValueError"),
        ("raise ExecutionFailed(token, code='refused')", "refused"),
        ("return {'of': {token}}", "result_invalid"),
        ("return 'x' * 20 + token + chr(0xd800)", "result_invalid"),
        ("print(token); raise ValueError", "ValueError"),
        ("sys.exit(token)", "exit_1"),
    ],
)
def test_execute_hides_secrets(
    steps: Steps, monkeypatch: pytest.MonkeyPatch, ending: str, expected: str | None
) -> None:
    """W8: neither in the result, nor in what is said of a failure, not even in part."""
    monkeypatch.setenv("TOKEN", SECRET)
    code = f"""
        import os, sys
        from gwf import ExecutionFailed
        def run(config, context):
            token = os.environ["T"]
            {ending}
    """
    env = {"T": {"secret": "TOKEN"}}
    if expected is None:
        assert steps.call(code, env=env) == {HIDDEN: [HIDDEN]}
        return
    error = steps.failure(code, env=env)
    assert error.code == expected
    assert HIDDEN in str(error)
    assert "s3cret" not in str(error)


def test_execute_hides_what_the_function_reveals(
    steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reference in the config is read by the function, from what it is given to see."""
    monkeypatch.setenv("TOKEN", SECRET)
    code = """
        def run(config, context):
            return "it is " + context.revealed("token", config["token"])
    """
    token = {"secret": "TOKEN"}
    assert steps.call(code, token=token, pass_env=["TOKEN"]) == f"it is {HIDDEN}"
    assert steps.failure(code, token=token).code == "Invalid"


def test_execute_logs_what_was_printed(steps: Steps, caplog: pytest.LogCaptureFixture) -> None:
    """What a function that succeeds prints is there for whoever debugs it."""
    with caplog.at_level(logging.DEBUG, logger="gwf.executors.python"):
        assert steps.call("def run(config, context): print('half way')") is None
    assert caplog.messages == ["steps:run printed last: half way"]


@pytest.mark.parametrize(
    ("python", "message"),
    [
        ("no_such:run", "there is no module 'no_such'; install it, or name its folder as cwd"),
        ("steps.more:run", "there is no module 'steps.more'; install it"),
        ("no_such.steps:run", "there is no module 'no_such'; install it"),
        ("steps:walk", "steps has no function 'walk'"),
        ("steps:walk.far", "steps has no function 'walk.far'"),
        ("steps:size", "steps has no function 'size'"),
    ],
)
def test_execute_what_is_not_there(steps: Steps, python: str, message: str) -> None:
    error = steps.failure("size = 5", python=python)
    assert error.code == "not_found"
    assert message in str(error)


def test_execute_a_module_that_cannot_be_imported(steps: Steps) -> None:
    """The module is there, so it is told what is wrong in it and where."""
    error = steps.failure("import os\nimport no_such_package")
    expected = "No module named 'no_such_package' (steps.py, line 2, in <module>)"
    assert (error.code, str(error)) == ("ModuleNotFoundError", f"ModuleNotFoundError: {expected}")
    error = steps.failure("def run(:")
    assert error.code == "SyntaxError"
    assert str(error).endswith("(steps.py, line 1)")


def test_execute_a_function_that_fails(steps: Steps) -> None:
    """Its own code, else the class; the place is where the flow's own code is, not gwf's."""
    refused = """
        from gwf import ExecutionFailed
        def run(config, context):
            raise ExecutionFailed("too few rows", code="too_few")
    """
    error = steps.failure(refused)
    assert (error.code, str(error)) == ("too_few", "too few rows")
    wrong = """
        from gwf.limits import checked_whole
        def run(config, context):
            print("row 17")
            return clean(config)
        def clean(config):
            checked_whole("size", config["size"], lowest=1, highest=5)
    """
    error = steps.failure(wrong, size=9)
    said = "Invalid: size 9 is not valid: from 1 to 5 (steps.py, line 7, in clean)"
    assert (error.code, str(error)) == ("Invalid", f"{said}; it printed last: row 17")


def test_execute_bounds_what_an_error_says(steps: Steps) -> None:
    """A message is cut, and says so; a code fits its column."""
    code = """
        class TooLong(Exception): pass
        TooLong.__name__ = "L" * 80
        def run(config, context):
            raise TooLong("x" * 1_000_000 + chr(0xd800))
    """
    error = steps.failure(code)
    assert error.code == "L" * 50
    assert f"{'x' * 100}… (998,001 characters more) (steps.py, line 5, in run)" in str(error)
    assert len(str(error)) < 2200


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ("{1, 2}", "set is not JSON"),
        ("float('nan')", "NaN and infinity are not JSON"),
        ("{5: 'x'}", "JSON keys are text"),
        ("'x' * 1_000_001", "at most 1,000,000 bytes"),
        ("[object]", "type is not JSON"),
    ],
)
def test_execute_a_result_that_cannot_be_kept(steps: Steps, result: str, message: str) -> None:
    """It is refused, never cut."""
    error = steps.failure(f"def run(config, context): return {result}")
    assert error.code == "result_invalid"
    assert message in str(error)


@pytest.mark.parametrize(
    ("ending", "expected", "message"),
    [
        ("sys.exit(3)", "exit_3", "steps:run ended with exit code 3: half way"),
        ("sys.exit(0)", "no_result", "steps:run ended before it returned; it printed last: half"),
        ("os._exit(0)", "no_result", "steps:run ended before it returned; it printed last: half"),
        ("os._exit(4)", "exit_4", "steps:run ended with exit code 4: half way"),
        ("os.kill(os.getpid(), 9)", "signal_9", "steps:run was ended by signal 9: half way"),
        ("raise KeyboardInterrupt", "signal_2", "KeyboardInterrupt"),
    ],
)
def test_execute_a_function_that_ends_its_process(
    steps: Steps, ending: str, expected: str, message: str
) -> None:
    """The worker is told how, and what was printed before."""
    error = steps.failure(f"""
        import os, sys
        def run(config, context):
            print("half way")
            {ending}
    """)
    assert error.code == expected
    assert message in str(error)


def test_execute_takes_an_answer_whatever_follows(steps: Steps) -> None:
    """What was returned counts, although the interpreter breaks when it ends."""
    code = """
        import atexit, os
        def run(config, context):
            atexit.register(os.abort)
            return "done"
    """
    assert steps.call(code) == "done"


def test_execute_what_does_not_start(steps: Steps) -> None:
    missing = str(steps.folder / "missing")
    assert steps.failure("", cwd=missing).code == "not_started"


HANGS = """
    import os, subprocess, sys, time
    def run(config, context):
        hold = os.open(config["held"], os.O_WRONLY)
        sleeping = [sys.executable, "-c", "import time; time.sleep(600)"]
        subprocess.Popen(sleeping, pass_fds=[hold])
        os.write(hold, b"begun")
        time.sleep(600)
"""


def test_execute_ends_the_function_when_its_time_is_over(steps: Steps, held: Held) -> None:
    """W4: with all that it started."""
    error = steps.failure(HANGS, ExecutionContext(timeout_s=4), held=str(held.path))
    assert (error.code, str(error)) == ("timed_out", "not done after 4 seconds")
    assert os.read(held.reader, 5) == b"begun"
    assert held.is_free()


def test_execute_stops_when_it_is_given_up(steps: Steps, held: Held) -> None:
    """W7: whoever cancels the attempt ends the function."""
    context = ExecutionContext()
    watch = threading.Thread(target=lambda: held.has_begun() and context.given_up.set())
    watch.start()
    assert steps.failure(HANGS, context, held=str(held.path)).code == "cancelled"
    watch.join()
    assert held.is_free()


def test_execute_with_the_gwf_of_the_worker(steps: Steps) -> None:
    """A worker that runs from a checkout calls functions with the gwf of that checkout."""
    checkout = steps.folder / "checkout"
    package = Path(execution.__file__).parent
    shutil.copytree(package, checkout / "gwf", ignore=shutil.ignore_patterns("__pycache__"))
    (steps.folder / "steps.py").write_text(
        "import gwf, sys\ndef run(config, context): return [gwf.__file__, *sys.path]"
    )
    worker = (
        f"import json, sys; sys.path.insert(0, {str(checkout)!r}); "
        "from gwf.executors.python import execute; from gwf.execution import ExecutionContext; "
        f"config = {{'python': 'steps:run', 'cwd': {str(steps.folder)!r}}}; "
        "print(json.dumps(execute(config, ExecutionContext())))"
    )
    done = subprocess.run(
        [sys.executable, "-c", worker], stdout=subprocess.PIPE, text=True, check=True
    )
    assert json.loads(done.stdout)[:3] == [
        str(checkout / "gwf" / "__init__.py"),
        str(steps.folder),
        str(checkout),
    ]


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"python": None},
        {"python": 5},
        {"python": "steps"},
        {"python": "steps:"},
        {"python": ":run"},
        {"python": "steps:run:more"},
        {"python": "steps:run()"},
        {"python": "steps..more:run"},
        {"python": "../steps:run"},
        {"python": "steps:run\n"},
        {"python": "steps:run", "cwd": 5},
        {"python": "steps:run", "cwd": ""},
        {"python": "steps:run", "cwd": "a\0b"},
        {"python": "steps:run", "pass_env": "PATH"},
        {"python": "steps:run", "env": ["A"]},
        {"python": "steps:run", "env": {"A=B": "x"}},
    ],
)
def test_check_what_makes_no_sense(config: dict[str, Any]) -> None:
    """W1: refused when the task is saved."""
    with pytest.raises(gwf.Invalid):
        check(config)


@pytest.mark.parametrize("env", [{"A": 5}, {"A": {"secret": "NO_SUCH_SECRET"}}])
def test_execute_a_variable_that_has_no_value(steps: Steps, env: dict[str, Any]) -> None:
    with pytest.raises(gwf.Invalid):
        steps.call("", env=env)


def test_what_chooses_code_is_no_template() -> None:
    """What a context holds cannot become the name of a function, nor see more variables."""
    executor = named("python")
    assert executor is not None
    literal = {"python": "{{ x }}", "cwd": "{{ x }}", "pass_env": ["{{ x }}"]}
    with pytest.raises(gwf.Invalid, match=r"\{\{ x \}\}"):
        executor.rendered(literal, {"x": "steps:run"})
    config = {"python": "steps:run", "size": "{{ x }}", "env": {"A": "{{ x }}"}}
    rendered = executor.rendered(config, {"x": "3"})
    assert rendered == {"python": "steps:run", "size": "3", "env": {"A": "3"}}
