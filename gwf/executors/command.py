"""Run a program, with its output kept and its whole process group ended in time (rule W4).

Why no shell by default: what stands in a config must not become shell syntax. A text is split into
words as a shell would, and nothing else of a shell applies; ``"shell": true`` asks for a real one.

Why one loop over both pipes: whoever waits for the program alone hangs when it has filled a pipe,
and whoever reads to the end hangs when something that it forked holds the pipe open.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shlex
import signal
import subprocess
import time
from collections.abc import Mapping
from typing import IO, Any

from gwf.errors import ExecutionFailed, Invalid
from gwf.execution import ExecutionContext
from gwf.limits import checked_flag, checked_name

#: What a program inherits of the worker's environment, unless ``pass_env`` names more.
PASSED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ")
#: How much of each output is kept, in bytes: half of it from the beginning, half from the end.
MAX_OUTPUT = 65_536
#: How long a program may take to end after SIGTERM, and its pipes after it ended, in seconds.
GRACE_S = 5.0
_LOOK_S = 0.2


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
    environment = _environment(config, context)
    try:
        process = subprocess.Popen(  # noqa: S603 - to run what the config says is its purpose
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=config.get("cwd"),
            env=environment,
            start_new_session=True,  # a group of its own, so that it can be ended as a whole
        )
    except OSError as error:
        raise ExecutionFailed(f"{words[0]!r} did not start: {error}", code="not_started") from error
    with process:
        outputs = _watch(process, context)
    return _outcome(process.returncode, outputs, context)


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
    elif isinstance(command, list | tuple) and all(isinstance(one, str) for one in command):
        words = list(command)
    else:
        raise Invalid("command", command, expected=expected)
    if not words or not words[0] or any("\0" in word for word in words):
        raise Invalid("command", command, expected=expected)
    return words


def _environment(config: Mapping[str, Any], context: ExecutionContext) -> dict[str, str]:
    given = config.get("env") or {}
    if not isinstance(given, Mapping):
        raise Invalid("env", given, expected="a mapping of variables")
    more = config.get("pass_env") or []
    if not isinstance(more, list | tuple):
        raise Invalid("pass_env", more, expected="a list of names of variables")
    names = (*PASSED, *(checked_name("name in pass_env", one, longest=255) for one in more))
    environment = {name: os.environ[name] for name in names if name in os.environ}
    for name, value in given.items():
        key = checked_name("name in env", name, longest=255)
        if "=" in key:
            raise Invalid("name in env", key, expected="a name without =")
        environment[key] = context.revealed(f"env {key}", value)
    return environment


class _Output:
    """Keep the beginning and the end of what a program prints, however much that is."""

    def __init__(self) -> None:
        self.n_bytes = 0
        self._head = bytearray()
        self._tail = bytearray()

    def take(self, data: bytes) -> None:
        self.n_bytes += len(data)
        room = MAX_OUTPUT // 2 - len(self._head)
        self._head += data[:room] if room > 0 else b""
        self._tail += data[max(room, 0) :]
        del self._tail[: -MAX_OUTPUT // 2]

    def text(self) -> str:
        n_left_out = self.n_bytes - len(self._head) - len(self._tail)
        gap = f"\n… {n_left_out:,} bytes left out …\n".encode() if n_left_out else b""
        return bytes(self._head + gap + self._tail).decode(errors="replace")


def _watch(process: subprocess.Popen[bytes], context: ExecutionContext) -> tuple[_Output, _Output]:
    """Read until the program has ended; end it when its time is over or it is given up."""
    outputs = _Output(), _Output()
    began = time.monotonic()
    with selectors.DefaultSelector() as selector:
        for pipe, output in zip((process.stdout, process.stderr), outputs, strict=True):
            assert pipe is not None  # noqa: S101 - both were asked for
            selector.register(pipe, selectors.EVENT_READ, output)
        try:
            while process.poll() is None:
                if context.given_up.is_set():
                    raise ExecutionFailed("the attempt was given up", code="cancelled")
                over = context.timeout_s
                if over is not None and time.monotonic() - began > over:
                    raise ExecutionFailed(f"not done after {over:g} seconds", code="timed_out")
                _read(selector, _LOOK_S)
        finally:
            _end_group(process, selector)
    return outputs


def _read(selector: selectors.BaseSelector, longest_s: float) -> None:
    """Read what there is; wait for it, or for the end of the program, at most so long."""
    if not selector.get_map():
        time.sleep(min(longest_s, 0.01))  # it closed both outputs and goes on
        return
    for key, _ in selector.select(longest_s):
        pipe: IO[bytes] = key.fileobj  # type: ignore[assignment]  # a pipe was registered
        data = os.read(pipe.fileno(), 65_536)
        if data:
            key.data.take(data)
        else:
            selector.unregister(pipe)


def _end_group(process: subprocess.Popen[bytes], selector: selectors.BaseSelector) -> None:
    """End whatever of the group still runs, first gently, and read what it printed last.

    The second signal is sent in any case: something that was forked may ignore the first one.
    """
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        last = time.monotonic() + GRACE_S
        while time.monotonic() < last and (process.poll() is None or selector.get_map()):
            _read(selector, 0.05)
    process.wait()


def _outcome(
    code: int, outputs: tuple[_Output, _Output], context: ExecutionContext
) -> dict[str, Any]:
    stdout, stderr = (context.redacted(output.text()) for output in outputs)
    if code != 0:
        said = (stderr.strip() or stdout.strip())[-2000:]
        how = f"ended with exit code {code}" if code > 0 else f"was ended by signal {-code}"
        raise ExecutionFailed(
            f"the command {how}{': ' if said else ''}{said}",
            code=f"exit_{code}" if code > 0 else f"signal_{-code}",
        )
    return {
        "exit_code": code,
        "stdout": stdout,
        "stderr": stderr,
        "stdout_bytes": outputs[0].n_bytes,
        "stderr_bytes": outputs[1].n_bytes,
    }
