"""Run a program to its end, its output kept, its whole process group ended in time (rule W4).

Why one loop over both pipes: whoever waits for the program alone hangs when it has filled a pipe,
and whoever reads to the end hangs when something that it forked holds the pipe open.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from gwf.errors import ExecutionFailed
from gwf.execution import ExecutionContext

#: What a program inherits of the worker's environment, unless more is named.
PASSED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ")
#: How much of each output is kept, in bytes: half of it from the beginning, half from the end.
MAX_OUTPUT = 65_536
#: How long a program may take to end after SIGTERM, and its pipes after it ended, in seconds.
GRACE_S = 5.0
_LOOK_S = 0.2

#: The process groups that run now.
_RUNNING: set[int] = set()


@dataclass(frozen=True, slots=True)
class Finished:
    """Say how a program ended: its exit code, or minus the signal, and what it printed."""

    code: int
    stdout: Output
    stderr: Output


def run(
    words: Sequence[str],
    context: ExecutionContext,
    *,
    cwd: str | Path | None = None,
    environment: Mapping[str, str],
) -> Finished:
    """Run a program in a process group of its own, and return how it ended.

    Raises
    ------
    ExecutionFailed
        With the code ``timed_out``, ``cancelled`` or ``not_started``.
    """
    try:
        process = subprocess.Popen(  # noqa: S603 - to run what the config says is its purpose
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=cwd,
            env=environment,
            start_new_session=True,  # a group of its own, so that it can be ended as a whole
        )
    except OSError as error:
        raise ExecutionFailed(f"{words[0]!r} did not start: {error}", code="not_started") from error
    _RUNNING.add(process.pid)
    try:
        with process:
            stdout, stderr = _watch(process, context)
    finally:
        _RUNNING.discard(process.pid)
    return Finished(process.returncode, stdout, stderr)


def kill_all() -> None:
    """Kill every process group that runs now, for a worker that ends at once."""
    for group in tuple(_RUNNING):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)


def inherited(more: Sequence[str] = ()) -> dict[str, str]:
    """Return what a program inherits of the environment."""
    return {name: os.environ[name] for name in (*PASSED, *more) if name in os.environ}


def expect_success(finished: Finished, what: str, context: ExecutionContext) -> None:
    """Raise ExecutionFailed with the code ``exit_<n>`` or ``signal_<n>`` unless all went well."""
    code = finished.code
    if code == 0:
        return
    stderr, stdout = (
        context.redacted(output.text()).strip() for output in (finished.stderr, finished.stdout)
    )
    said = (stderr or stdout)[-2000:]
    how = f"ended with exit code {code}" if code > 0 else f"was ended by signal {-code}"
    raise ExecutionFailed(
        f"{what} {how}{': ' if said else ''}{said}",
        code=f"exit_{code}" if code > 0 else f"signal_{-code}",
    )


class Output:
    """Keep the beginning and the end of what a program prints, however much that is."""

    def __init__(self) -> None:
        self.n_bytes = 0
        self._head = bytearray()
        self._tail = bytearray()

    def take(self, data: bytes) -> None:
        """Take in what was printed next."""
        self.n_bytes += len(data)
        room = MAX_OUTPUT // 2 - len(self._head)
        self._head += data[:room] if room > 0 else b""
        self._tail += data[max(room, 0) :]
        del self._tail[: -MAX_OUTPUT // 2]

    def text(self) -> str:
        """Return what is kept, with a line that says how much is left out."""
        n_left_out = self.n_bytes - len(self._head) - len(self._tail)
        gap = f"\n… {n_left_out:,} bytes left out …\n".encode() if n_left_out else b""
        return bytes(self._head + gap + self._tail).decode(errors="replace")


def _watch(process: subprocess.Popen[bytes], context: ExecutionContext) -> tuple[Output, Output]:
    """Read until the program has ended; end it when its time is over or it is given up."""
    outputs = Output(), Output()
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
