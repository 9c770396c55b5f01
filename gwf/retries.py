"""Read how often a task may be tried again, and say when. Pure data in, data out (rule W3).

Retries are opt-in: without ``retry`` in the config of an automated task its first failure stands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from gwf.errors import Invalid
from gwf.limits import (
    checked_flag,
    checked_name,
    checked_seconds,
    checked_whole,
    expect_known_keys,
)

#: The longest pause between two attempts, in seconds: thirty days.
MAX_DELAY_S = 30 * 86_400
MAX_ATTEMPTS = 100
BACKOFFS = ("fixed", "linear", "exponential")

#: What a person or a rule decided stays decided.
NEVER_AGAIN = frozenset({"rejected", "cancelled", "condition_false", "condition_error"})


@dataclass(frozen=True, slots=True)
class Retry:
    """Hold the retries of an automated task, checked; the fields are the keys of ``retry``.

    ``delay`` and ``max_delay`` are seconds. ``retry_on`` names the error codes that are worth
    another attempt; without it all are.
    """

    max_attempts: int = 1
    backoff: str = "fixed"
    delay: float = 1.0
    max_delay: float = 3600.0
    jitter: bool = False
    retry_on: tuple[str, ...] = ()

    def allows(self, attempt: int, error_code: str | None) -> bool:
        """Say whether the failure of this attempt, counted from 1, is followed by another."""
        if attempt >= self.max_attempts or error_code in NEVER_AGAIN:
            return False
        return not self.retry_on or error_code in self.retry_on

    def pause_s(self, attempt: int, chance: float) -> float:
        """Return the seconds between the failure of this attempt and the next one.

        Parameters
        ----------
        attempt
            The number of the attempt that failed, counted from 1.
        chance
            A number from 0 to 1, drawn by the caller. With ``jitter`` the pause is between half of
            the whole and the whole, so that many tasks that failed together do not come back so.
        """
        if self.backoff == "exponential":
            whole = self.delay * 2.0 ** min(attempt - 1, 64)
        else:
            whole = self.delay * (attempt if self.backoff == "linear" else 1)
        whole = min(whole, self.max_delay)
        return whole * (0.5 + chance / 2) if self.jitter else whole


def parse(value: object) -> Retry:
    """Read the ``retry`` of a config; None means that nothing is tried again.

    Raises
    ------
    Invalid
        An unknown key (the message says which is meant), or a value that makes no sense.
    """
    if value is None:
        return Retry()
    if not isinstance(value, Mapping):
        raise Invalid("retry", value, expected="a mapping, such as {'max_attempts': 3}")
    expect_known_keys("key of retry", value, [one.name for one in fields(Retry)])
    given = {key: _READERS[key](key, one) for key, one in value.items() if one is not None}
    return Retry(**given)


def _attempts(key: str, value: Any) -> int:
    return checked_whole(key, value, lowest=1, highest=MAX_ATTEMPTS)


def _backoff(key: str, value: Any) -> str:
    if value not in BACKOFFS:
        raise Invalid(key, value, expected=f"one of {', '.join(BACKOFFS)}")
    return str(value)


def _seconds(key: str, value: Any) -> float:
    return checked_seconds(key, value, highest=MAX_DELAY_S, may_be_zero=True)


def _codes(key: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not value:
        raise Invalid(key, value, expected="a list of error codes, such as ['timed_out']")
    codes = tuple(checked_name("error code", one, longest=50) for one in value)
    decided = NEVER_AGAIN.intersection(codes)
    if decided:
        raise Invalid(key, min(decided), expected="what was decided is never tried again")
    return codes


_READERS: dict[str, Any] = {
    "max_attempts": _attempts,
    "backoff": _backoff,
    "delay": _seconds,
    "max_delay": _seconds,
    "jitter": checked_flag,
    "retry_on": _codes,
}
