"""Carry out one attempt of an automated task, wherever that is: a thread, a process, a cluster.

An ``Order`` travels to where it is carried out and an ``Outcome`` comes back, both as plain data,
so any ``concurrent.futures.Executor`` will do. Whatever an executor does, an outcome comes back:
a result that may be stored, or an error code and a message, and no secret in either (rule W8).
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from gwf.errors import ExecutionFailed, Invalid
from gwf.execution import ExecutionContext
from gwf.executors import Executor
from gwf.limits import MAX_TEXT, checked_json

logger = logging.getLogger(__name__)

CONFIG_INVALID = "config_invalid"
RESULT_INVALID = "result_invalid"
TIMED_OUT = "timed_out"
_LONGEST_CODE = 50


@dataclass(frozen=True, slots=True)
class Order:
    """Hold what has to be done; the repr shows no argument."""

    executor: Executor
    arguments: Mapping[str, Any]
    context: ExecutionContext

    def __repr__(self) -> str:
        """Return the executor, the task and the attempt."""
        task = self.context.task
        return f"Order({self.executor.name!r}, task {task.get('name')!r}, {task.get('attempt')})"


@dataclass(frozen=True, slots=True)
class Outcome:
    """Hold what came of an attempt: a result, or an error code and a message."""

    result: Any = None
    error_code: str | None = None
    error_message: str = ""


def carry_out(order: Order) -> Outcome:
    """Do what is ordered, and return what came of it; only an interpreter that ends stops it."""
    context = order.context
    try:
        arguments = order.executor.rendered(order.arguments, _names(context))
        result = order.executor.execute(arguments, context)
        hidden = _without_secrets(context, checked_json("result", result))
        return Outcome(checked_json("result", hidden))
    except ExecutionFailed as error:
        return _failure(context, context.redacted(error.code), str(error))
    except Invalid as error:
        is_of_result = error.what == "result" or error.what.startswith(
            ("key of result", "result of")
        )
        code = RESULT_INVALID if is_of_result else CONFIG_INVALID
        return _failure(context, code, _refusal(context, error))
    except BaseException as error:  # whatever it is, a task must not end its worker
        logger.info("an executor raised", extra={"executor": order.executor.name})
        return _failure(context, type(error).__name__, _said(error))


def _names(context: ExecutionContext) -> dict[str, Any]:
    return {
        "context": context.context,
        "results": context.results,
        "previous_task_result": context.previous_task_result,
        "job": context.job,
        "task": context.task,
    }


def _failure(context: ExecutionContext, code: str, message: str) -> Outcome:
    shown = _storable(context.redacted(message).strip() or code)
    if len(shown) > MAX_TEXT:
        half = MAX_TEXT // 2 - 20
        shown = f"{shown[:half]}\n… left out …\n{shown[-half:]}"
    return Outcome(error_code=_storable(code)[:_LONGEST_CODE], error_message=shown)


def _refusal(context: ExecutionContext, error: Invalid) -> str:
    """Return what a refusal says; it may have cut a secret, so that is hidden before."""
    if not isinstance(error.value, str):
        return str(error)
    return str(Invalid(error.what, context.redacted(error.value), expected=error.expected))


def _storable(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()


def _without_secrets(context: ExecutionContext, value: Any) -> Any:
    if isinstance(value, str):
        return context.redacted(value)
    if isinstance(value, list):
        return [_without_secrets(context, one) for one in value]
    if not isinstance(value, dict):
        return value
    hidden = {context.redacted(key): _without_secrets(context, one) for key, one in value.items()}
    if len(hidden) < len(value):
        raise Invalid("result", "with secrets as keys", expected="keys that differ without them")
    return hidden


def _said(error: BaseException) -> str:
    """Return what an exception says, and where it came from."""
    said = "".join(traceback.format_exception_only(error)).strip()
    return f"{said}{_place(error.__traceback__)}"


def _place(trace: TracebackType | None) -> str:
    frames = traceback.extract_tb(trace)
    if not frames:
        return ""
    last = frames[-1]
    return f" ({last.filename.rpartition('/')[2]}, line {last.lineno}, in {last.name})"
