"""Execute a notebook: ``{"notebook": "reports/sales.ipynb", "parameters": {"year": 2025}}``.

Papermill executes it in a process of its own, and the executed notebook is kept, also when a cell
failed. So a parameter is never a secret: a notebook reads those from its environment.

Why a mark in the environment: a kernel leads a session of its own, so whoever ends papermill does
not reach it, and one that computes in C never notices that papermill is gone. It inherits the mark,
and so does all that it starts.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import keyword
import logging
import re
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gwf import resources
from gwf.calling import checked_result, shortened
from gwf.errors import ExecutionFailed, Invalid
from gwf.execution import ExecutionContext
from gwf.executors import command
from gwf.limits import checked_name, checked_object
from gwf.processes import GRACE_S, Finished, expect_success, inherited, run

#: The type of an output that is one value of a notebook by its name.
SCRAP = "application/scrapbook.scrap.json+json"

_MARK = "GWF_NOTEBOOK_RUN"
_JUPYTER = ("JUPYTER_PATH", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
#: How long papermill may take to end its kernel once the attempt is over, in seconds.
_KERNEL_GRACE_S = 1.0
_LOOK_S = 0.2

_log = logging.getLogger(__name__)


def is_literal(key: str, value: object) -> bool:
    """Say which arguments are no templates: what chooses code, and what it is given to see."""
    return key in ("notebook", "kernel", "cwd", "pass_env")


def check(config: Mapping[str, Any]) -> None:
    """Refuse a config that could never run.

    Raises
    ------
    Invalid
    """
    name = checked_name("notebook", config.get("notebook"), longest=4096)
    if not name.endswith(".ipynb"):
        raise Invalid("notebook", name, expected="a file whose name ends in .ipynb")
    for key in ("kernel", "cwd"):
        if config.get(key) is not None:
            checked_name(key, config[key], longest=4096)
    command.check({"command": ["papermill"], "pass_env": config.get("pass_env")})
    _parameters(config)


def execute(config: Mapping[str, Any], context: ExecutionContext) -> dict[str, Any]:
    """Execute ``notebook``, keep it, and return what it came to.

    Parameters
    ----------
    config
        ``notebook``, a file, relative to the working folder of the worker or one of the reports of
        gwf; ``parameters``, values by name; ``kernel``, another one than the notebook names;
        ``cwd``, the working folder of the kernel; ``pass_env``, names of variables to hand on.
    context
        Its ``timeout_s`` and ``given_up`` end the kernel. The executed notebook is put into its
        ``artefacts``, in a folder of the attempt.

    Returns
    -------
    dict
        ``notebook``, the path of the executed one; ``scraps``, the values that it left by name;
        ``value``, that of the last cell which has one, as JSON if it is shown so, else as text.

    Raises
    ------
    ExecutionFailed
        With the code ``not_found``, ``not_installed``, ``cell_failed``, ``result_invalid``,
        ``exit_<n>``, ``signal_<n>``, ``timed_out``, ``cancelled`` or ``not_started``.
    Invalid
        A key of the config makes no sense.
    """
    check(config)
    if importlib.util.find_spec("papermill") is None:
        raise ExecutionFailed(
            "papermill is missing here; pip install 'goworkflow[jupyter]'", code="not_installed"
        )
    source = _found(config["notebook"])
    executed = _kept(source.name, context)
    finished = _executed(config, source, executed, context)
    if finished.code > 0 and executed.exists():
        _expect_no_failed_cell(_cells(executed), context)
    expect_success(finished, source.name, context)
    cells = _cells(executed)
    result = {"notebook": str(executed), "scraps": _scraps(cells), "value": _value(cells)}
    checked: dict[str, Any] = checked_result(f"result of {source.name}", result, context)
    return checked


def _parameters(config: Mapping[str, Any]) -> dict[str, Any]:
    parameters = checked_object("parameters", config.get("parameters"))
    for name, value in parameters.items():
        if not name.isidentifier() or keyword.iskeyword(name):
            raise Invalid("name of a parameter", name, expected="a name of a variable")
        if _holds_secret(value):
            raise Invalid(
                f"parameter {name}",
                value,
                expected="no secret, which the executed notebook would show; "
                "name its variable in pass_env and read os.environ",
            )
    return parameters


def _holds_secret(value: Any) -> bool:
    if isinstance(value, dict):
        return set(value) == {"secret"} or any(map(_holds_secret, value.values()))
    return isinstance(value, list) and any(map(_holds_secret, value))


def _found(name: str) -> Path:
    """Return the notebook of this name, made absolute: of the worker, or one that ships with gwf.

    Raises
    ------
    ExecutionFailed
        With the code ``not_found``.
    """
    path = Path(name)
    places = [path.absolute()]
    if path.parts[0] == "reports":
        places.append(resources.directory("reports").joinpath(*path.parts[1:]))
    for place in places:
        if place.is_file():
            return place
    raise ExecutionFailed(f"there is no notebook {name!r}", code="not_found")


def _kept(name: str, context: ExecutionContext) -> Path:
    """Return where the executed notebook goes; what an earlier run of the attempt left is gone."""
    task = context.task
    parts = (context.job.get("id"), task.get("id", task.get("name")), task.get("attempt"))
    safe = [re.sub(r"[^\w-]+", "_", str(part))[:50] for part in parts if part is not None]
    folder = Path(context.artefacts).absolute() / "-".join(safe)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.unlink(missing_ok=True)
    return path


def _executed(
    config: Mapping[str, Any], source: Path, executed: Path, context: ExecutionContext
) -> Finished:
    """Let papermill execute the notebook, and return how it ended, with nothing left running."""
    import yaml  # type: ignore[import-untyped]  # it ships no types

    mark = uuid.uuid4().hex
    environment = inherited((*_JUPYTER, *(config.get("pass_env") or ()))) | {_MARK: mark}
    with tempfile.TemporaryDirectory(prefix="gwf-") as folder:
        parameters = Path(folder).resolve() / "parameters.yaml"
        parameters.write_text(yaml.safe_dump(_parameters(config), sort_keys=False))
        words = [sys.executable, "-P", "-m", "papermill", "--no-progress-bar"]
        words += [f"--parameters_file={parameters}"]
        if config.get("kernel") is not None:
            words += [f"--kernel={config['kernel']}"]
        words += [_without_fields(source), _without_fields(executed)]
        with _nothing_left(mark, context):
            return run(words, context, cwd=config.get("cwd"), environment=environment)


def _without_fields(path: Path) -> str:
    """Return a path for papermill, which would fill in what stands in braces."""
    return str(path).replace("{", "{{").replace("}", "}}")


@contextlib.contextmanager
def _nothing_left(mark: str, context: ExecutionContext) -> Iterator[None]:
    """End all that carries the mark: soon after the time is over, and in any case at the end."""
    is_done = threading.Event()
    watch = threading.Thread(target=_end_when_over, args=(mark, context, is_done), daemon=True)
    watch.start()
    try:
        yield
    finally:
        is_done.set()
        watch.join()
        _end_marked(mark)


def _end_when_over(mark: str, context: ExecutionContext, is_done: threading.Event) -> None:
    """End what papermill could not end in its grace: ``run`` waits longer, for any program."""
    began = time.monotonic()
    while not is_done.wait(_LOOK_S):
        over = context.timeout_s
        is_over = over is not None and time.monotonic() - began > over
        if (is_over or context.given_up.is_set()) and not is_done.wait(_KERNEL_GRACE_S):
            _end_marked(mark)
            return


def _end_marked(mark: str) -> None:
    import psutil  # type: ignore[import-untyped]  # it ships no types

    def is_marked(process: psutil.Process) -> bool:
        try:
            return bool(process.environ().get(_MARK) == mark)
        except psutil.Error:  # it is gone, or somebody else's
            return False

    last = time.monotonic() + GRACE_S
    while marked := [process for process in psutil.process_iter() if is_marked(process)]:
        if time.monotonic() > last:
            _log.warning("%d processes of a notebook did not end", len(marked))
            return
        for process in marked:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        time.sleep(0.01)


def _cells(path: Path) -> list[dict[str, Any]]:
    cells: list[dict[str, Any]] = json.loads(path.read_bytes())["cells"]
    return cells


def _expect_no_failed_cell(cells: list[dict[str, Any]], context: ExecutionContext) -> None:
    for cell in reversed(cells):
        for output in cell.get("outputs", ()):
            if output["output_type"] == "error":
                said = shortened(context.redacted(f"{output['ename']}: {output['evalue']}"))
                raise ExecutionFailed(
                    f"{said} (cell In [{cell['execution_count']}])", code="cell_failed"
                )


def _scraps(cells: list[dict[str, Any]]) -> dict[str, Any]:
    scraps = {}
    for output in (output for cell in cells for output in cell.get("outputs", ())):
        if SCRAP not in output.get("data", {}):
            continue
        scrap = output["data"][SCRAP]
        is_scrap = isinstance(scrap, dict) and isinstance(scrap.get("name"), str)
        if not is_scrap or "data" not in scrap:
            raise ExecutionFailed("a scrap lacks its name or its data", code="result_invalid")
        scraps[scrap["name"]] = scrap["data"]
    return scraps


def _value(cells: list[dict[str, Any]]) -> Any:
    for cell in reversed(cells):
        for output in reversed(cell.get("outputs", ())):
            if output["output_type"] == "execute_result":
                data = output["data"]
                if "application/json" in data:
                    return data["application/json"]
                text = data.get("text/plain")
                return "".join(text) if isinstance(text, list) else text
    return None
