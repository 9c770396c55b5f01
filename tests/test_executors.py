"""Find executors: the files of gwf, real entry points of other packages, and functions."""

from __future__ import annotations

import functools
import importlib
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import gwf
from gwf import executors, retries
from gwf.execution import SHORTHANDS, ExecutionContext, Work, work_of

BUILT_IN = ("command", "http", "notebook", "python", "sql", "webhook")

MODULE = '''"""Greet somebody.

And this is more about it.
"""

from gwf.errors import Invalid


def execute(config, context):
    return f"hello {config['to']}"


def check(config):
    if not isinstance(config.get("to"), str):
        raise Invalid("to", config.get("to"), expected="a text")


def is_literal(key, value):
    return key == "as_it_is"


def shout(config, context):
    """Greet loudly."""
    return "HELLO"


class Polite:
    """Greet politely."""

    def execute(self, config, context):
        return "good day"

    def check(self, config):
        if "to" not in config:
            raise Invalid("to", None, expected="somebody")


polite = Polite()
number = 7
'''

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Return what installs a package with these entry points, for the time of the test."""
    monkeypatch.syspath_prepend(tmp_path)

    def installed(package: str, module: str, **entries: str) -> None:
        (tmp_path / f"{package}.py").write_text(module)
        info = tmp_path / f"{package}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = "".join(f"{name} = {value}\n" for name, value in entries.items())
        (info / "entry_points.txt").write_text(f"[{executors.GROUP}]\n{lines}")
        monkeypatch.delitem(sys.modules, package, raising=False)
        importlib.invalidate_caches()

    return installed


def work(executor: str, **arguments: Any) -> Work:
    return Work(executor, arguments, None, retries.parse(None))


def found(name: str) -> executors.Executor:
    executor = executors.named(name)
    assert executor is not None
    return executor


# Files of gwf


def test_built_in_names_every_file() -> None:
    """By name; every shorthand of a config means one of them."""
    assert executors.built_in() == BUILT_IN
    assert set(SHORTHANDS.values()) == set(BUILT_IN)


@pytest.mark.parametrize("name", BUILT_IN)
def test_find_a_file(name: str) -> None:
    """Each says what it does in one sentence, and checks its config."""
    executor = found(name)
    assert (executor.name, executor.source) == (name, "built in")
    assert executor.summary
    assert "\n" not in executor.summary
    assert callable(executor.execute)
    assert callable(executor.check)


@pytest.mark.parametrize(
    "name", ["nope", "", "__init__", "Command", "command.py", "os", "../orders"]
)
def test_find_nothing(name: str) -> None:
    """A name that is neither a file nor an entry point is unknown, and nothing is imported."""
    assert executors.named(name) is None


def test_available_holds_each_once_and_by_name() -> None:
    """A session of tests has no package with entry points of its own."""
    assert [one.name for one in executors.available()] == list(BUILT_IN)


def test_nothing_is_imported_before_it_is_asked_for() -> None:
    """To name the files does not load them, nor what they need."""
    code = (
        "import sys; from gwf import executors; executors.built_in(); executors.named('nope')\n"
        "print(sorted(one for one in sys.modules if one.startswith('gwf.executors.')))\n"
        "executors.named('command'); print('gwf.executors.http' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout.decode().splitlines() == ["[]", "False"]


# Entry points


def test_entry_point_of_a_module(install: Install) -> None:
    """Its ``execute``, ``check`` and ``is_literal`` are used, and its first line is the summary."""
    install("greeting_a", MODULE, greet="greeting_a")
    executor = found("greet")
    assert executor.source == "entry point greeting_a"
    assert executor.summary == "Greet somebody."
    assert executor.execute({"to": "you"}, ExecutionContext()) == "hello you"
    assert executor.takes_literally("as_it_is", "{{ x }}")
    with pytest.raises(gwf.Invalid, match="a text"):
        executor.rendered({"to": 7}, {})


def test_entry_point_of_a_function(install: Install) -> None:
    """A function alone checks nothing, and renders every argument."""
    install("greeting_b", MODULE, shout="greeting_b:shout")
    executor = found("shout")
    assert (executor.source, executor.summary) == ("entry point greeting_b:shout", "Greet loudly.")
    assert (executor.check, executor.is_literal) == (None, None)
    assert executor.execute({}, ExecutionContext()) == "HELLO"
    assert executor.rendered({"to": "{{ 7 }}"}, {}) == {"to": 7}
    assert not executor.takes_literally("as_it_is", "{{ x }}")


def test_entry_point_of_an_object(install: Install) -> None:
    """What has an ``execute`` is an executor as a module is."""
    install("greeting_c", MODULE, polite="greeting_c:polite")
    executor = found("polite")
    assert executor.summary == "Greet politely."
    assert executor.execute({}, ExecutionContext()) == "good day"
    with pytest.raises(gwf.Invalid, match="somebody"):
        executors.expect_runnable(work("polite"))


def test_entry_point_goes_before_a_file(install: Install) -> None:
    """A package may replace an executor of gwf; it is listed once."""
    install("greeting_d", MODULE, command="greeting_d:shout")
    assert found("command").source == "entry point greeting_d:shout"
    listed = {one.name: one.source for one in executors.available()}
    assert list(listed) == list(BUILT_IN)
    assert listed["command"] == "entry point greeting_d:shout"
    assert listed["http"] == "built in"


def test_available_lists_entry_points(install: Install) -> None:
    install("greeting_e", MODULE, zebra="greeting_e", apple="greeting_e:shout")
    assert [one.name for one in executors.available()] == ["apple", *BUILT_IN, "zebra"]


def test_entry_point_of_another_group_is_none(install: Install, tmp_path: Path) -> None:
    install("greeting_f", MODULE)
    entries = tmp_path / "greeting_f-1.0.dist-info" / "entry_points.txt"
    entries.write_text("[console_scripts]\ngreet = greeting_f:shout\n")
    importlib.invalidate_caches()
    assert executors.named("greet") is None


def test_available_lists_the_others_beside_one_that_cannot_be_loaded(install: Install) -> None:
    """An executor may need packages that are missing; that hides no other."""
    install("greeting_g", "import no_such_package_of_gwf\n", broken="greeting_g")
    assert set(BUILT_IN) <= {one.name for one in executors.available()}


@pytest.mark.parametrize(
    ("module", "value"),
    [
        ("import no_such_package_of_gwf\n", "greeting_h"),
        (MODULE, "greeting_h:nope"),
        (MODULE, "greeting_h:number"),
        ('"""Hold no executor."""\n', "greeting_h"),
    ],
    ids=["missing package", "missing name", "a number", "a module without execute"],
)
def test_expect_runnable_says_what_is_wrong_with_an_entry_point(
    install: Install, module: str, value: str
) -> None:
    """Whoever saves a task learns it from gwf, and by the name of the executor."""
    install("greeting_h", module, broken=value)
    with pytest.raises(gwf.Invalid, match="broken"):
        executors.expect_runnable(work("broken"))


def test_entry_point_runs_in_a_job(install: Install, sqlite_url: str) -> None:
    """Installed is not allowed: a worker has to be told; then it is as any other."""
    install("greeting_i", MODULE, greet="greeting_i")
    wf = gwf.connect(sqlite_url)
    config = {"executor": "greet", "to": "{{ job.name }}", "as_it_is": "{{ literal"}
    flow = wf.create_flow("F", [wf.create_task("a", type="automated", config=config)])
    job = wf.run(wf.create_job(flow, "世界"), allow=["greet"])
    assert job.task("a").result == "hello 世界"
    with pytest.raises(gwf.Invalid, match="a text"):
        wf.create_task("b", type="automated", config={"executor": "greet", "to": 7})
    wf.close()


# Functions


def test_function_is_an_executor() -> None:
    """A lambda says nothing of itself, and a class is called as a function is."""
    executor = executors.of_function("mine", lambda config, context: config["x"])
    assert (executor.name, executor.source, executor.summary) == ("mine", "this process", "")
    assert executor.execute({"x": 3}, ExecutionContext()) == 3


@pytest.mark.parametrize("doc", ["\n    Do it.\n\n    More.\n", "Do it."])
def test_summary_is_the_first_line_of_the_docstring(doc: str) -> None:
    def function(config: Any, context: Any) -> None: ...

    function.__doc__ = doc
    assert executors.of_function("mine", function).summary == "Do it."


@pytest.mark.parametrize("doc", [None, "", " \n\t "])
def test_summary_is_empty_without_a_docstring(doc: str | None) -> None:
    def function(config: Any, context: Any) -> None: ...

    function.__doc__ = doc
    assert executors.of_function("mine", function).summary == ""


def test_summary_of_a_partial_is_not_that_of_partial() -> None:
    """``functools.partial`` has a docstring of its own, which says nothing of this executor."""

    def function(extra: int, config: Any, context: Any) -> int:
        """Do it."""
        return extra

    executor = executors.of_function("mine", functools.partial(function, 3))
    assert executor.execute({}, ExecutionContext()) == 3
    assert executor.summary in ("Do it.", "")


@pytest.mark.parametrize("value", [None, 7, "name", object(), {}])
def test_function_that_cannot_be_called_is_refused(value: Any) -> None:
    with pytest.raises(gwf.Invalid, match="a function of config and context"):
        executors.of_function("mine", value)


# Configs that could never run


def test_expect_runnable_knows_nothing_of_an_unknown_executor() -> None:
    """It may be installed where the worker is, so nothing is said of its arguments."""
    executors.expect_runnable(work("elsewhere", x="{{ unclosed"))


def test_expect_runnable_checks_what_is_known() -> None:
    executors.expect_runnable(work("command", command=["true"]))
    with pytest.raises(gwf.Invalid, match="command"):
        executors.expect_runnable(work("command", command=7))


def test_expect_runnable_waits_for_templates() -> None:
    """What a template becomes is checked before the task runs; what does not parse, at once."""
    executors.expect_runnable(work("http", url="{{ context.url }}"))
    executor = found("http")
    with pytest.raises(gwf.Invalid, match="URL"):
        executor.rendered({"url": "{{ context.url }}"}, {"context": {"url": "ftp://h"}})
    with pytest.raises(gwf.Invalid, match="raw"):
        executors.expect_runnable(work("http", url="{{ context."))


def test_literal_argument_is_no_template() -> None:
    """It is neither parsed nor rendered, and does not put off the check of the others."""
    text = work("command", command="docker ps --format {{.Names}}")
    executors.expect_runnable(text)
    assert found("command").rendered(text.arguments, {}) == text.arguments
    words = work("command", command=["docker", "ps", "--format", "{{.Names}}"])
    with pytest.raises(gwf.Invalid, match=re.escape("{% raw %}")):
        executors.expect_runnable(words)
    with pytest.raises(gwf.Invalid, match="quotes that end"):
        executors.expect_runnable(work("command", command="echo '{{ job.id }}"))


@pytest.mark.parametrize(
    "config",
    [
        {"sql": "SELECT '{{ job.id }}' AS x"},
        {"python": "module:function", "x": "{{ job.id }}"},
        {"notebook": "{{ literal.ipynb", "x": "{{ job.id }}"},
    ],
)
def test_what_chooses_code_is_literal(config: dict[str, Any]) -> None:
    """W1: data of a job never chooses what is run."""
    given = work_of(config)
    assert given is not None
    executors.expect_runnable(given)
    names = {"job": {"id": 7}}
    rendered = found(given.executor).rendered(given.arguments, names)
    expected = {key: 7 if key == "x" else value for key, value in config.items()}
    assert rendered == expected


def test_nested_literals_are_told_by_their_top_level_key() -> None:
    """``is_literal`` sees an argument as a whole, with all that it holds."""
    seen: list[Any] = []

    def is_literal(key: str, value: Any) -> bool:
        seen.append((key, value))
        return key == "keep"

    def function(config: Any, context: Any) -> None: ...

    function.is_literal = is_literal  # type: ignore[attr-defined]  # as a module would have it
    arguments = {"keep": {"x": ["{{ 1 }}"]}, "do": {"keep": ["{{ 1 }}"]}}
    executor = executors.of_function("mine", function)
    assert executor.rendered(arguments, {}) == {"keep": {"x": ["{{ 1 }}"]}, "do": {"keep": [1]}}
    assert seen == list(arguments.items())
