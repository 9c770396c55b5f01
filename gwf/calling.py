"""Call one function, and leave what it returns in a file: ``python -m gwf.calling FOLDER``.

The executor ``python`` starts this program. The folder holds the request; the answer is put beside
it, and is either ``{"result": …}`` or ``{"error_code": …, "error_message": …}``.

Why files: the standard output belongs to the function, which may print whatever it likes.

Why only ``Exception`` is caught: a function that ends the interpreter ends this process as it would
end any other, and the executor sees how.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from functools import reduce
from pathlib import Path
from typing import Any

from gwf.errors import ExecutionFailed, Invalid
from gwf.execution import ExecutionContext
from gwf.limits import checked_json

REQUEST = "request.json"
ANSWER = "answer.json"
#: Characters of an error code, and of the text of an exception.
MAX_CODE = 50
MAX_MESSAGE = 2_000

_OURS = (f"{Path(__file__).parent}{os.sep}", str(importlib.__file__), "<frozen importlib")


def main(folder: Path) -> None:
    """Answer the request in this folder.

    The working folder goes first on ``sys.path`` only now, so that no file in it hides a module
    that gwf itself needs.
    """
    request = json.loads((folder / REQUEST).read_bytes())
    told = request["context"]
    context = ExecutionContext(**told | {"networks": tuple(told["networks"])})
    for name in request["secrets"]:
        context.revealed(f"env {name}", {"secret": name})
    sys.path.insert(0, str(Path.cwd()))
    answer = answer_to(request["function"], request["config"], context)
    unfinished = folder / f"{ANSWER}.unfinished"
    unfinished.write_text(json.dumps(answer), encoding="ascii")
    unfinished.replace(folder / ANSWER)


def answer_to(name: str, config: Mapping[str, Any], context: ExecutionContext) -> dict[str, Any]:
    """Call the function of this name, and return its result, or the code and text of its error."""
    try:
        result = function_named(name)(config, context)
        if inspect.iscoroutine(result):
            result = asyncio.run(result)
        return {"result": checked_result("result", result, context)}
    except ExecutionFailed as error:
        code, message = str(error.code), shortened(context.redacted(str(error)))
    except Exception as error:
        said = shortened(context.redacted(str(error)))
        code, message = type(error).__name__, f"{type(error).__name__}: {said}{_place(error)}"
    return {"error_code": code[:MAX_CODE], "error_message": message}


def function_named(name: str) -> Callable[..., Any]:
    """Return the function that ``package.module:function`` names.

    Raises
    ------
    ExecutionFailed
        With the code ``not_found``. A module that is there and misses another one raises
        ``ModuleNotFoundError``, as it would anywhere.
    """
    module_name, _, path = name.partition(":")
    try:
        module: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise ExecutionFailed(
            f"there is no module {error.name!r}; install it, or name its folder as cwd",
            code="not_found",
        ) from error
    found = reduce(lambda owner, part: getattr(owner, part, None), path.split("."), module)
    if not callable(found):
        raise ExecutionFailed(f"{module_name} has no function {path!r}", code="not_found")
    function: Callable[..., Any] = found
    return function


def checked_result(what: str, value: object, context: ExecutionContext) -> Any:
    """Return a result as plain JSON, without the secrets that were used (rule W8).

    Raises
    ------
    ExecutionFailed
        With the code ``result_invalid``: not JSON, NaN, or too large.
    """
    try:
        return _redacted(checked_json(what, value), context)
    except Invalid as error:
        shown = error.value if isinstance(error.value, str) else repr(error.value)
        hidden = context.redacted(shown)  # before it is cut, which could leave half a secret
        told = error if hidden == shown else Invalid(error.what, hidden, expected=error.expected)
        raise ExecutionFailed(str(told), code="result_invalid") from error


def shortened(text: str) -> str:
    """Return the beginning of a text for a message, and how much is left out."""
    clean = text.encode(errors="replace").decode()
    n_left_out = len(clean) - MAX_MESSAGE
    return clean if n_left_out <= 0 else f"{clean[:MAX_MESSAGE]}… ({n_left_out:,} characters more)"


def _place(error: Exception) -> str:
    """Return where the error was raised: the innermost frame that is not gwf's."""
    frames = traceback.extract_tb(error.__traceback__)
    outside = [frame for frame in frames if not frame.filename.startswith(_OURS)]
    if not outside:
        return ""
    frame = outside[-1]
    return f" ({Path(frame.filename).name}, line {frame.lineno}, in {frame.name})"


def _redacted(value: Any, context: ExecutionContext) -> Any:
    if isinstance(value, str):
        return context.redacted(value)
    if isinstance(value, dict):
        return {context.redacted(key): _redacted(one, context) for key, one in value.items()}
    if isinstance(value, list):
        return [_redacted(one, context) for one in value]
    return value


if __name__ == "__main__":
    main(Path(sys.argv[1]))
