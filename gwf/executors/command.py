"""Run a program: ``{"command": ["pytest", "-q"]}``.

Why no shell by default: what stands in a config must not become shell syntax. A text is split into
words as a shell would, and nothing else of a shell applies; ``"shell": true`` asks for a real one.

Why only a list is rendered: each word of a list stays one argument, whatever a value holds; in a
text it could become several, and in a shell a command of its own.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from gwf.errors import Invalid
from gwf.execution import ExecutionContext
from gwf.limits import checked_flag, checked_name
from gwf.processes import expect_success, inherited, run


def is_literal(key: str, value: object) -> bool:
    """Say which arguments are no templates: a command in one text, and what chooses programs."""
    return key in ("shell", "pass_env") or (key == "command" and isinstance(value, str))


def check(config: Mapping[str, Any]) -> None:
    """Refuse a config that could never run.

    Raises
    ------
    Invalid
    """
    words_of(config)
    _names_to_pass(config)
    _variables(config)


def execute(config: Mapping[str, Any], context: ExecutionContext) -> dict[str, Any]:
    """Run ``command``, and return its exit code and what it printed.

    Parameters
    ----------
    config
        ``command``, a list of words or one text; ``shell``, ``cwd``; ``env``, variables to set,
        each a text or ``{"secret": "NAME"}``; ``pass_env``, names of variables to hand on.
    context
        Its ``timeout_s`` and ``given_up`` end the program.

    Returns
    -------
    dict
        ``exit_code`` (0), ``stdout`` and ``stderr`` (text, at most 64 KiB each, secrets hidden),
        ``stdout_bytes`` and ``stderr_bytes`` (all that was printed).

    Raises
    ------
    ExecutionFailed
        With the code ``exit_<n>``, ``signal_<n>``, ``timed_out``, ``cancelled`` or ``not_started``.
    Invalid
        A key of the config makes no sense.
    """
    words = words_of(config)
    environment = inherited(_names_to_pass(config))
    for name, value in _variables(config).items():
        environment[name] = context.revealed(f"env {name}", value)
    finished = run(words, context, cwd=config.get("cwd"), environment=environment)
    expect_success(finished, "the command", context)
    return {
        "exit_code": finished.code,
        "stdout": context.redacted(finished.stdout.text()),
        "stderr": context.redacted(finished.stderr.text()),
        "stdout_bytes": finished.stdout.n_bytes,
        "stderr_bytes": finished.stderr.n_bytes,
    }


def words_of(config: Mapping[str, Any]) -> list[str]:
    """Return the program and its arguments.

    Raises
    ------
    Invalid
        No command, an empty one, or one that holds something else than text.
    """
    command = config.get("command")
    expected = "a list of words, or one text that is split into words"
    is_shell = checked_flag("shell", config.get("shell", False))
    if is_shell:
        if not isinstance(command, str) or not command.strip():
            raise Invalid("command", command, expected="one text, since a shell is asked for")
        return ["/bin/sh", "-c", command]
    if isinstance(command, str):
        try:
            words = shlex.split(command)
        except ValueError as error:
            raise Invalid("command", command, expected=f"quotes that end: {error}") from None
    elif isinstance(command, list | tuple) and all(_is_word(one) for one in command):
        words = [str(one) for one in command]  # a template may be a number
    else:
        raise Invalid("command", command, expected=expected)
    if not words or not words[0] or any("\0" in word for word in words):
        raise Invalid("command", command, expected=expected)
    return words


def _is_word(value: object) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def _names_to_pass(config: Mapping[str, Any]) -> list[str]:
    names = config.get("pass_env") or []
    if not isinstance(names, list | tuple):
        raise Invalid("pass_env", names, expected="a list of names of variables")
    return [checked_name("name in pass_env", one, longest=255) for one in names]


def _variables(config: Mapping[str, Any]) -> dict[str, Any]:
    given = config.get("env") or {}
    if not isinstance(given, Mapping):
        raise Invalid("env", given, expected="a mapping of variables")
    variables = {}
    for name, value in given.items():
        key = checked_name("name in env", name, longest=255)
        if "=" in key:
            raise Invalid("name in env", key, expected="a name without =")
        variables[key] = value
    return variables
