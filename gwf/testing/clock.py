"""Provide a clock that goes as it is told, and a client that leaves nothing behind."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta

from gwf.client import Client, connect
from gwf.database import Clock
from gwf.errors import Invalid
from gwf.limits import checked_instant


class FixedClock:
    """Be a clock that starts at an instant and goes on by one step at each call.

    Pass it to ``gwf.connect(clock=…)`` or ``scratch_client(clock=…)``, so that a notebook or a
    doctest prints the same every time.

    Parameters
    ----------
    start
        What the first call returns: an aware datetime.
    step
        How much later each next call is; ``timedelta(0)`` stops the clock.

    Examples
    --------
    >>> from datetime import UTC, datetime, timedelta
    >>> clock = FixedClock(datetime(2026, 3, 2, 1, tzinfo=UTC), step=timedelta(minutes=5))
    >>> clock().isoformat(), clock().isoformat()
    ('2026-03-02T01:00:00+00:00', '2026-03-02T01:05:00+00:00')
    >>> clock.advance(timedelta(hours=2))
    >>> clock().isoformat()
    '2026-03-02T03:10:00+00:00'
    """

    def __init__(self, start: datetime, step: timedelta = timedelta(minutes=1)) -> None:
        if not isinstance(start, datetime):
            raise Invalid("start", start, expected="a datetime with a zone")
        checked_instant("start", start)
        self._next = start
        self._step = _forward("step", step)
        self._lock = threading.Lock()

    def __call__(self) -> datetime:
        """Return the time, and go on by one step."""
        with self._lock:
            now = self._next
            self._next = now + self._step
        return now

    def advance(self, by: timedelta) -> None:
        """Let more time pass before the next call."""
        with self._lock:
            self._next += _forward("time to pass", by)

    def __repr__(self) -> str:
        """Return what the next call returns, and the step."""
        return f"FixedClock({self._next.isoformat()}, step={self._step})"


def scratch_client(*, clock: Clock | None = None) -> Client:
    """Return a client of a new database in memory, which is gone when the client is.

    Parameters
    ----------
    clock
        A function that returns aware datetimes, such as a ``FixedClock``; by default the time.

    Examples
    --------
    >>> wf = scratch_client()
    >>> wf.create_task("review")
    Task(1, 'review', manual)
    """
    return connect("sqlite://", clock=clock)


def _forward(what: str, span: timedelta) -> timedelta:
    if not isinstance(span, timedelta) or span < timedelta(0):
        raise Invalid(what, span, expected="a timedelta that is not negative")
    return span
