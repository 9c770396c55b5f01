"""Hold one file for each executor, and find them: by file name, or by entry point.

An executor is a module, or what an entry point of the group ``gwf.executors`` names, with

``execute(config, context)``
    returns the result of an attempt as JSON. ``config`` holds the arguments of the task
    (``execution.Work.arguments``) with their templates rendered, ``context`` is an
    ``execution.ExecutionContext``. What goes wrong is an ``ExecutionFailed`` with an error code,
    or any other exception, whose class is the code then.
``check(config)``
    (may be missing) refuses a config that could never run, with ``Invalid``. It is called when the
    task is saved, unless there are templates to be rendered first, and before it runs.
``is_literal(key, value)``
    (may be missing) says of an argument that it is no template.

A function alone is an executor too. Why nothing here is imported before it is asked for: an
executor may need packages that most do not have.
"""

from __future__ import annotations

import importlib
import logging
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from types import FunctionType, ModuleType
from typing import Any

from gwf import templates
from gwf.errors import Invalid
from gwf.execution import ExecutionContext, Work

logger = logging.getLogger(__name__)

Execute = Callable[[Mapping[str, Any], ExecutionContext], Any]
GROUP = "gwf.executors"


@dataclass(frozen=True, slots=True)
class Executor:
    """Hold an executor as it was found; ``source`` says where, ``summary`` what it does."""

    name: str
    execute: Execute
    source: str
    summary: str
    check: Callable[[Mapping[str, Any]], None] | None = None
    is_literal: Callable[[str, Any], bool] | None = None

    def expect_valid(self, arguments: Mapping[str, Any]) -> None:
        """Refuse arguments that could never run, as far as that is known before rendering.

        Raises
        ------
        Invalid
        """
        templates.check(arguments, is_literal=self.takes_literally)
        if self.check is not None and not self._waits_for_values(arguments):
            self.check(arguments)

    def rendered(self, arguments: Mapping[str, Any], names: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments with their templates rendered, and checked.

        Raises
        ------
        Invalid
        """
        rendered = templates.render(arguments, names, is_literal=self.takes_literally)
        if self.check is not None:
            self.check(rendered)
        return rendered

    def takes_literally(self, key: str, value: Any) -> bool:
        """Say whether an argument is no template."""
        return self.is_literal is not None and self.is_literal(key, value)

    def _waits_for_values(self, arguments: Mapping[str, Any]) -> bool:
        return any(
            templates.holds_template(value) and not self.takes_literally(key, value)
            for key, value in arguments.items()
        )


def named(name: str) -> Executor | None:
    """Return the executor of this name, or None; an entry point goes before a file.

    Raises
    ------
    Invalid
        An entry point of this name cannot be loaded, or is no executor.
    """
    for entry in entry_points(group=GROUP, name=name):
        return _loaded(entry)
    if name in built_in():
        return _executor(name, importlib.import_module(f"{__name__}.{name}"), source="built in")
    return None


def available() -> list[Executor]:
    """Return every executor that is installed here, by name."""
    names = {*built_in(), *(entry.name for entry in entry_points(group=GROUP))}
    found = []
    for name in sorted(names):
        try:
            executor = named(name)
        except Invalid as error:
            logger.warning("%s", error)
        else:
            found += [] if executor is None else [executor]
    return found


def built_in() -> tuple[str, ...]:
    """Return the names of the files in this folder."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def of_function(name: str, execute: Execute) -> Executor:
    """Return a function as an executor.

    Raises
    ------
    Invalid
        It cannot be called.
    """
    if not callable(execute):
        raise Invalid("executor", execute, expected="a function of config and context")
    return _executor(name, execute, source="this process")


def expect_runnable(work: Work) -> None:
    """Refuse the config of a task that could never run (rule W1).

    An executor that is not installed here may be elsewhere, so nothing is known of its arguments.

    Raises
    ------
    Invalid
    """
    executor = named(work.executor)
    if executor is not None:
        executor.expect_valid(work.arguments)


def _loaded(entry: EntryPoint) -> Executor:
    source = f"entry point {entry.value}"
    try:
        executor = _executor(entry.name, entry.load(), source=source)
    except Exception as error:  # whatever a package does when it is imported
        reason = f"{source} cannot be loaded: {type(error).__name__}: {error}"
        raise Invalid("executor", entry.name, expected=reason) from error
    if not callable(executor.execute):
        reason = f"{source} is neither a function nor has it one named execute"
        raise Invalid("executor", entry.name, expected=reason)
    return executor


def _executor(name: str, found: Any, *, source: str) -> Executor:
    is_described = isinstance(found, ModuleType | FunctionType) or hasattr(found, "execute")
    said = ((found.__doc__ if is_described else None) or "").strip()
    return Executor(
        name=name,
        execute=found if isinstance(found, FunctionType) else getattr(found, "execute", found),
        source=source,
        summary=said.splitlines()[0] if said else "",
        check=getattr(found, "check", None),
        is_literal=getattr(found, "is_literal", None),
    )
