"""Show that a notebook is executed and kept, and that its kernel ends with it."""

from __future__ import annotations

import importlib.util
import json
import sys
import textwrap
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import pytest
from held import Held

import gwf
from gwf.execution import HIDDEN, ExecutionContext
from gwf.executors import named
from gwf.executors.notebook import SCRAP, check, execute

KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}


@dataclass
class Notebooks:
    """Write notebooks into a folder, and execute them there."""

    folder: Path

    @property
    def artefacts(self) -> Path:
        """Return where the executed notebooks are kept."""
        return self.folder / "artefacts"

    def write(self, *cells: str, name: str = "report.ipynb", parameters: str = "") -> str:
        """Write a notebook, and return its path."""
        notebook = nbformat.v4.new_notebook(metadata={"kernelspec": KERNEL})
        tags = {"tags": ["parameters"]}
        if parameters:
            notebook.cells.append(nbformat.v4.new_code_cell(parameters, metadata=tags))
        notebook.cells += [nbformat.v4.new_code_cell(textwrap.dedent(one)) for one in cells]
        path = self.folder / name
        nbformat.write(notebook, path)
        return str(path)

    def run(self, notebook: str, context: ExecutionContext | None = None, **config: Any) -> Any:
        """Execute a notebook, and return the result."""
        told = self.context() if context is None else context
        return execute({"notebook": notebook, **config}, told)

    def failure(
        self, notebook: str, context: ExecutionContext | None = None, **config: Any
    ) -> gwf.ExecutionFailed:
        """Return what the execution failed with."""
        with pytest.raises(gwf.ExecutionFailed) as failed:
            self.run(notebook, context, **config)
        return failed.value

    def context(self, **told: Any) -> ExecutionContext:
        """Return a context whose artefacts are kept in this folder."""
        return ExecutionContext(artefacts=str(self.artefacts), **told)


@pytest.fixture
def notebooks(tmp_path: Path) -> Notebooks:
    return Notebooks(tmp_path)


def test_execute_returns_the_last_value_and_keeps_the_notebook(notebooks: Notebooks) -> None:
    """The executed notebook lies in a folder of the attempt, and one of the same is replaced."""
    path = notebooks.write("print('通过')", "n = 6", "n * 7", "n = 0")
    context = notebooks.context(job={"id": 5}, task={"id": 9, "name": "x", "attempt": 2})
    kept = notebooks.artefacts / "5-9-2" / "report.ipynb"
    kept.parent.mkdir(parents=True)
    kept.write_text("of an earlier run")
    assert notebooks.run(path, context) == {"notebook": str(kept), "scraps": {}, "value": "42"}
    executed = nbformat.read(kept, as_version=4)
    nbformat.validate(executed)
    assert executed.cells[0].outputs[0].text == "通过\n"


AWKWARD = {
    "text": "a\"b\\n'c' {x} 通过 😀 \x7f\u0085\u2028 ${HOME}\n# %%",
    "words": ["yes", "null", "012", "1e3", "1:30", "2025-01-01", "~", "", " x ", "{{ job.id }}"],
    "numbers": [0, -1, 2**63 - 1, 1e20, 1.5e-7, True, None],
    "nested": {"a key": [{"b": []}, {}]},
}


def test_execute_with_parameters(notebooks: Notebooks, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each arrives as it was given, whatever a YAML file or a path would make of it."""
    monkeypatch.chdir(notebooks.folder)
    path = notebooks.write(
        "from IPython.display import JSON",
        "JSON({'values': [text, words, numbers, nested, other]})",
        parameters="text = words = numbers = nested = None\nother = 5",
        name="of {text}.ipynb",
    )
    context = notebooks.context(task={"name": "日报/../x", "attempt": 1})
    found = notebooks.run(Path(path).name, context, parameters=AWKWARD)
    assert found["value"] == {"values": [*AWKWARD.values(), 5]}
    assert found["notebook"] == str(notebooks.artefacts / "日报_x-1" / "of {text}.ipynb")


def test_execute_returns_what_was_glued(notebooks: Notebooks) -> None:
    """Scraps are read from the outputs, the last one of a name."""
    glue = f"""
        from IPython.display import display
        def glue(name, data):
            scrap = {{"name": name, "data": data, "encoder": "json", "version": 1}}
            display({{{SCRAP!r}: scrap}}, raw=True)
        glue("rows", 1)
        glue("rows", [2, None])
        glue("通过", {{"x": "y"}})
    """
    found = notebooks.run(notebooks.write(glue))
    assert (found["scraps"], found["value"]) == ({"rows": [2, None], "通过": {"x": "y"}}, None)
    assert found["notebook"] == str(notebooks.artefacts / "report.ipynb")


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("display({SCRAP: {'data': 5}}, raw=True)", "a scrap lacks its name or its data"),
        ("display({SCRAP: {'name': 'x', 'data': 2**70}}, raw=True)", "at most 64 bits"),
        ("'x' * 1_000_001", "at most 1,000,000 bytes"),
    ],
)
def test_execute_a_result_that_cannot_be_kept(
    notebooks: Notebooks, cell: str, message: str
) -> None:
    """It is refused, never cut; the executed notebook is there all the same."""
    error = notebooks.failure(notebooks.write(f"SCRAP = {SCRAP!r}\n{cell}"))
    assert error.code == "result_invalid"
    assert message in str(error)
    assert (notebooks.artefacts / "report.ipynb").exists()


def test_execute_in_the_given_folder_with_the_named_variables(
    notebooks: Notebooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel sees no other variables of the worker; W8: a known secret is hidden."""
    monkeypatch.setenv("DATABASE_PASSWORD", "x")
    monkeypatch.setenv("CI", "yes")
    monkeypatch.setenv("TOKEN", "s3cret-value")
    (notebooks.folder / "work").mkdir()
    path = notebooks.write(
        """
        import os
        from IPython.display import JSON
        CI, TOKEN, OTHER = map(os.environ.get, ["CI", "TOKEN", "DATABASE_PASSWORD"])
        JSON([os.getcwd(), CI, "it is " + TOKEN, OTHER])
        """
    )
    cwd = notebooks.folder / "work"
    context = notebooks.context()
    context.revealed("token", {"secret": "TOKEN"})
    asked = {"cwd": str(cwd), "kernel": "python3", "pass_env": ["CI", "NO_SUCH", "TOKEN"]}
    found = notebooks.run(path, context, **asked)
    assert found["value"] == [str(cwd), "yes", f"it is {HIDDEN}", None]


def test_execute_a_cell_that_fails(notebooks: Notebooks, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the cell, without secrets; the error is in the kept notebook."""
    monkeypatch.setenv("TOKEN", "s3cret-value")
    path = notebooks.write("1", "import os; raise ValueError('no ' + os.environ['TOKEN'])", "3")
    context = notebooks.context(job={"id": 5})
    context.revealed("token", {"secret": "TOKEN"})
    error = notebooks.failure(path, context, pass_env=["TOKEN"])
    assert (error.code, str(error)) == ("cell_failed", f"ValueError: no {HIDDEN} (cell In [2])")
    executed = nbformat.read(notebooks.artefacts / "5" / "report.ipynb", as_version=4)
    assert "An Exception was encountered at" in executed.cells[0].source
    errors = [
        output.ename
        for cell in executed.cells
        for output in cell.get("outputs", [])
        if output.output_type == "error"
    ]
    assert errors == ["ValueError"]


def test_execute_a_kernel_that_dies(notebooks: Notebooks) -> None:
    """Papermill says so, and that is told."""
    error = notebooks.failure(notebooks.write("import os; os._exit(7)"))
    assert error.code == "exit_138"
    assert "Kernel died" in str(error)


def test_execute_a_kernel_that_is_not_there(notebooks: Notebooks) -> None:
    error = notebooks.failure(notebooks.write("1"), kernel="--no-such")
    assert error.code == "exit_1"
    assert "No such kernel named --no-such" in str(error)


def test_execute_what_is_not_there(notebooks: Notebooks, monkeypatch: pytest.MonkeyPatch) -> None:
    """A notebook, a folder, or papermill itself: each has a code of its own."""
    monkeypatch.chdir(notebooks.folder)
    (notebooks.folder / "folder.ipynb").mkdir()
    for name in ("no.ipynb", "folder.ipynb", "reports/no.ipynb", "/no/reports/x.ipynb"):
        error = notebooks.failure(name)
        assert (error.code, str(error)) == ("not_found", f"there is no notebook {name!r}")
    path = notebooks.write("1")
    assert notebooks.failure(path, cwd="missing").code == "not_started"
    monkeypatch.setitem(sys.modules, "papermill", None)
    assert importlib.util.find_spec("papermill") is None
    error = notebooks.failure(path)
    assert error.code == "not_installed"
    assert "pip install 'goworkflow[jupyter]'" in str(error)


BUSY = {
    "asleep": "import time; time.sleep(600)",
    "busy in C": "sum(range(10**12))",
    "deaf": """
        import signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            try:
                time.sleep(600)
            except BaseException:
                pass
    """,
}


def holding(held: Held) -> str:
    return f"""
        import os, subprocess, sys
        hold = os.open({str(held.path)!r}, os.O_WRONLY)
        sleeping = [sys.executable, "-c", "import time; time.sleep(600)"]
        subprocess.Popen(sleeping, pass_fds=[hold], start_new_session=True)
    """


@pytest.mark.parametrize("cell", BUSY.values(), ids=BUSY)
def test_execute_stops_when_it_is_given_up(notebooks: Notebooks, held: Held, cell: str) -> None:
    """W7: soon, and the kernel is gone with all that it started, whatever it does."""
    context = notebooks.context()
    cancelled_at = []

    def give_up() -> None:
        if held.has_begun():
            cancelled_at.append(time.monotonic())
            context.given_up.set()

    watch = threading.Thread(target=give_up)
    watch.start()
    path = notebooks.write(holding(held), f"os.write(hold, b'begun')\n{textwrap.dedent(cell)}")
    assert notebooks.failure(path, context).code == "cancelled"
    assert held.is_free()
    watch.join()
    assert time.monotonic() - cancelled_at[0] < 5


def test_execute_ends_the_kernel_when_its_time_is_over(notebooks: Notebooks, held: Held) -> None:
    """W4: what was executed until then is kept."""
    path = notebooks.write(holding(held), "'so far'", "os.write(hold, b'x'); sum(range(10**12))")
    error = notebooks.failure(path, notebooks.context(timeout_s=10))
    assert (error.code, str(error)) == ("timed_out", "not done after 10 seconds")
    assert held.is_free()
    kept = json.loads((notebooks.artefacts / "report.ipynb").read_bytes())
    assert kept["cells"][1]["outputs"][0]["data"]["text/plain"] == ["'so far'"]


def test_execute_ends_what_the_notebook_left_behind(notebooks: Notebooks, held: Held) -> None:
    """A program that a notebook started ends with it, also when all went well."""
    path = notebooks.write(holding(held), "'done'")
    assert notebooks.run(path)["value"] == "'done'"
    assert held.is_free()


@pytest.mark.parametrize(
    ("config", "match"),
    [
        ({}, "notebook None"),
        ({"notebook": 5}, "notebook 5"),
        ({"notebook": ""}, "must not be empty"),
        ({"notebook": "report.py"}, "ends in .ipynb"),
        ({"notebook": "x.ipynb", "kernel": 5}, "kernel 5"),
        ({"notebook": "x.ipynb", "cwd": ""}, "cwd"),
        ({"notebook": "x.ipynb", "pass_env": "PATH"}, "pass_env"),
        ({"notebook": "x.ipynb", "parameters": ["a"]}, "parameters"),
        ({"notebook": "x.ipynb", "parameters": {"a": {1, 2}}}, "set is not JSON"),
        ({"notebook": "x.ipynb", "parameters": {"a": float("nan")}}, "NaN"),
        ({"notebook": "x.ipynb", "parameters": {"a=1;b": 5}}, "a name of a variable"),
        ({"notebook": "x.ipynb", "parameters": {"class": 5}}, "a name of a variable"),
        ({"notebook": "x.ipynb", "parameters": {"a": {"secret": "TOKEN"}}}, "pass_env"),
        ({"notebook": "x.ipynb", "parameters": {"a": [{"b": {"secret": "T"}}]}}, "pass_env"),
    ],
)
def test_check_what_makes_no_sense(config: dict[str, Any], match: str) -> None:
    """W1: refused when the task is saved."""
    with pytest.raises(gwf.Invalid, match=match):
        check(config)


def test_what_chooses_code_is_no_template() -> None:
    """What a context holds cannot choose the notebook or the kernel, nor see more variables."""
    executor = named("notebook")
    assert executor is not None
    config = {
        "notebook": "{{ x }}.ipynb",
        "kernel": "{{ x }}",
        "cwd": "{{ x }}",
        "pass_env": ["{{ x }}"],
        "parameters": {"n": "{{ x }}"},
    }
    rendered = executor.rendered(config, {"x": 3})
    assert rendered == config | {"parameters": {"n": 3}}
