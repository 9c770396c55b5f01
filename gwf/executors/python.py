"""Call a function: ``{"python": "mypkg.steps:clean"}``.

Why a process of its own: a function that hangs, ends the interpreter, eats memory or forks is ended
with all that it started, and cannot hurt the worker.
"""

from __future__ import annotations

import json
import logging
import os
import site
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gwf.calling import ANSWER, REQUEST
from gwf.errors import ExecutionFailed, Invalid
from gwf.execution import ExecutionContext
from gwf.executors import command
from gwf.limits import checked_name
from gwf.processes import Finished, expect_success, inherited, run

_OWN = ("python", "cwd", "env", "pass_env")
_TOLD = (
    "context",
    "job",
    "task",
    "results",
    "previous_task_result",
    "timeout_s",
    "networks",
)
#: The folder that holds gwf: a checkout, or where packages are installed.
_HOME = str(Path(__file__).resolve().parents[2])

_log = logging.getLogger(__name__)


def is_literal(key: str, value: object) -> bool:
    """Say which arguments are no templates: what chooses code, and what it is given to see."""
    return key in ("python", "cwd", "pass_env")


def check(config: Mapping[str, Any]) -> None:
    """Refuse a config that could never run.

    Raises
    ------
    Invalid
    """
    name = config.get("python")
    parts = name.split(":") if isinstance(name, str) else []
    dotted = [part.split(".") for part in parts]
    if len(parts) != 2 or not all(word.isidentifier() for words in dotted for word in words):
        raise Invalid("python", name, expected="a function as 'package.module:function'")
    if config.get("cwd") is not None:
        checked_name("cwd", config["cwd"], longest=4096)
    own = {key: config[key] for key in ("env", "pass_env") if key in config}
    command.check({"command": [sys.executable], **own})


def execute(config: Mapping[str, Any], context: ExecutionContext) -> Any:
    """Call ``python`` with the other arguments and the context, and return what it returns.

    Parameters
    ----------
    config
        ``python``, a function as ``package.module:function``, which may be ``async``; ``cwd``, its
        working folder, which is looked into first for modules; ``env``, variables to set, each a
        text or ``{"secret": "NAME"}``; ``pass_env``, names of variables to hand on. All other keys
        are the config of the function.
    context
        Its ``timeout_s`` and ``given_up`` end the function, which is told all but the database.

    Raises
    ------
    ExecutionFailed
        With the code that the function raised itself, the class of another exception,
        ``not_found``, ``result_invalid``, ``no_result``, ``exit_<n>``, ``signal_<n>``,
        ``timed_out``, ``cancelled`` or ``not_started``.
    Invalid
        A key of the config makes no sense.
    """
    check(config)
    environment = _environment(config, context)
    with tempfile.TemporaryDirectory(prefix="gwf-") as name:
        folder = Path(name).resolve()
        (folder / REQUEST).write_text(json.dumps(_request(config, context), default=dict))
        words = [sys.executable, "-P", "-u", "-m", "gwf.calling", str(folder)]
        finished = run(words, context, cwd=config.get("cwd"), environment=environment)
        answer = folder / ANSWER
        found = json.loads(answer.read_bytes()) if answer.exists() else None
    return _outcome(config["python"], found, finished, context)


def _outcome(
    name: str, answer: dict[str, Any] | None, finished: Finished, context: ExecutionContext
) -> Any:
    if answer is None:
        expect_success(finished, name, context)
        answer = {"error_code": "no_result", "error_message": f"{name} ended before it returned"}
    printed = finished.stderr.text().strip() or finished.stdout.text().strip()
    said = context.redacted(printed)[-2000:]
    if "result" in answer:
        _log.debug("%s printed last: %s", name, said)
        return answer["result"]
    message = context.redacted(answer["error_message"])
    raise ExecutionFailed(
        f"{message}; it printed last: {said}" if said else message, code=answer["error_code"]
    )


def _request(config: Mapping[str, Any], context: ExecutionContext) -> dict[str, Any]:
    told = {name: getattr(context, name) for name in _TOLD}
    return {
        "function": config["python"],
        "config": {key: value for key, value in config.items() if key not in _OWN},
        "context": told | {"artefacts": str(Path(context.artefacts).absolute())},
        "secrets": [name for name, value in _variables(config) if not isinstance(value, str)],
    }


def _variables(config: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [(name.strip(), value) for name, value in (config.get("env") or {}).items()]


def _environment(config: Mapping[str, Any], context: ExecutionContext) -> dict[str, str]:
    """Return the variables of the child, among them where gwf is, if Python would not find it."""
    environment = inherited(config.get("pass_env") or ())
    for name, value in _variables(config):
        environment[name] = context.revealed(f"env {name}", value)
    if _HOME not in (*site.getsitepackages(), site.getusersitepackages()):
        paths = (_HOME, environment.get("PYTHONPATH"))
        environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    return environment
