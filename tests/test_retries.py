"""Show when a failed attempt is followed by another one, and after how long: rule W3."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import gwf
from gwf import retries
from gwf.retries import Retry


def test_parse_none() -> None:
    """Retries are opt-in."""
    assert not retries.parse(None).allows(1, "exit_1")
    assert not retries.parse({}).allows(1, None)


def test_parse_all_keys() -> None:
    """Each key of the rule is read."""
    found = retries.parse(
        {
            "max_attempts": 3,
            "backoff": "exponential",
            "delay": 1,
            "max_delay": 60.5,
            "jitter": True,
            "retry_on": ["timed_out", "exit_1"],
        }
    )
    assert found == Retry(3, "exponential", 1.0, 60.5, True, ("timed_out", "exit_1"))


@pytest.mark.parametrize(
    ("value", "match"),
    [
        ([3], "a mapping"),
        ("3", "a mapping"),
        ({"max_atempts": 3}, "did you mean 'max_attempts'"),
        ({"zzz": 3}, "one of max_attempts, backoff"),
        ({"max_attempts": 0}, "max_attempts"),
        ({"max_attempts": 101}, "max_attempts"),
        ({"max_attempts": 2.5}, "max_attempts"),
        ({"max_attempts": True}, "max_attempts"),
        ({"backoff": "random"}, "fixed, linear, exponential"),
        ({"delay": -1}, "seconds"),
        ({"delay": float("nan")}, "seconds"),
        ({"delay": float("inf")}, "seconds"),
        ({"delay": True}, "seconds"),
        ({"max_delay": "1m"}, "seconds"),
        ({"jitter": "yes"}, "jitter"),
        ({"retry_on": "timed_out"}, "a list"),
        ({"retry_on": []}, "a list"),
        ({"retry_on": [5]}, "error code"),
        ({"retry_on": ["rejected"]}, "never tried again"),
        ({"retry_on": ["exit_1", "condition_error"]}, "never tried again"),
    ],
)
def test_parse_what_makes_no_sense(value: Any, match: str) -> None:
    """One clear error each, which says what is expected."""
    with pytest.raises(gwf.Invalid, match=match):
        retries.parse(value)


def test_allows_up_to_the_last_attempt() -> None:
    """``max_attempts`` counts the first one."""
    retry = Retry(max_attempts=3)
    assert [retry.allows(attempt, "exit_1") for attempt in (1, 2, 3, 4)] == [
        True,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize("code", sorted(retries.NEVER_AGAIN))
def test_allows_nothing_that_was_decided(code: str) -> None:
    """A rejection, a cancellation and a condition are answers, no failures."""
    assert not Retry(max_attempts=9).allows(1, code)


def test_allows_only_what_retry_on_names() -> None:
    """Another code, or none, is not tried again."""
    retry = Retry(max_attempts=9, retry_on=("timed_out",))
    assert [retry.allows(1, code) for code in ("timed_out", "exit_1", None)] == [True, False, False]


@pytest.mark.parametrize(
    ("backoff", "pauses"),
    [("fixed", [2, 2, 2, 2]), ("linear", [2, 4, 6, 7]), ("exponential", [2, 4, 7, 7])],
)
def test_pause_grows_up_to_the_longest(backoff: str, pauses: list[float]) -> None:
    """The three ways to wait, none beyond ``max_delay``."""
    retry = Retry(max_attempts=9, backoff=backoff, delay=2, max_delay=7)
    assert [retry.pause_s(attempt, 0.3) for attempt in (1, 2, 3, 4)] == pauses


@given(
    backoff=st.sampled_from(retries.BACKOFFS),
    delay=st.floats(0, retries.MAX_DELAY_S),
    longest=st.floats(0, retries.MAX_DELAY_S),
    attempt=st.integers(1, 10_000),
    chance=st.floats(0, 1),
)
def test_pause_is_bounded(
    backoff: str, delay: float, longest: float, attempt: int, chance: float
) -> None:
    """Never negative, never above ``max_delay``; jitter takes at most half of it away."""
    plain = Retry(9, backoff, delay, longest)
    jittered = Retry(9, backoff, delay, longest, jitter=True)
    whole = plain.pause_s(attempt, chance)
    assert 0 <= whole <= longest
    assert whole / 2 <= jittered.pause_s(attempt, chance) <= whole
    assert plain.pause_s(attempt + 1, chance) >= whole
