"""Each value from outside is bounded in one place, with one error, before a database sees it."""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import StrEnum
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gwf.errors import GwfError, Invalid
from gwf.limits import (
    MAX_ID,
    MAX_JSON_BYTES,
    MAX_JSON_DEPTH,
    MAX_KEY,
    MAX_NAME,
    MAX_TEXT,
    checked_choice,
    checked_id,
    checked_instant,
    checked_json,
    checked_limit,
    checked_name,
    checked_object,
    checked_operator,
    checked_reason,
    checked_text,
    checked_whole,
)

CHINA = timezone(timedelta(hours=8))

TEXTS = st.text(st.characters(codec="utf-8"))
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=20,
)
NOT_TEXT = [None, 5, True, b"bytes", ["a"], 1.5]
NOT_WHOLE = [None, True, False, np.True_, 1.0, "1", math.nan, Decimal(1), [1], object()]


class Colour(StrEnum):
    """Be some choices."""

    RED = "red"
    BLUE = "blue"


def nested(depth: int) -> object:
    """Return a list in a list in a list …, so deep."""
    value: object = 1
    for _ in range(depth):
        value = [value]
    return value


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=MAX_NAME))
def test_name_is_returned_stripped_when_it_fits(text: str) -> None:
    """Every text with something to see and of at most 100 characters is a name."""
    if any(character.isprintable() and not character.isspace() for character in text):
        assert checked_name("task name", text) == text.strip()
    else:
        with pytest.raises(Invalid, match="must not be empty"):
            checked_name("task name", text)


@pytest.mark.parametrize("value", NOT_TEXT)
def test_name_is_refused_when_it_is_not_text(value: object) -> None:
    with pytest.raises(Invalid, match=r"^task name .* is not valid: it has to be text$"):
        checked_name("task name", value)


def test_name_is_counted_in_characters() -> None:
    """A name of 100 characters of four bytes fits, one more does not, and the message counts."""
    assert checked_name("task name", "😀" * 100) == "😀" * 100
    with pytest.raises(Invalid, match="at most 100 characters, this has 101"):
        checked_name("task name", "字" * 101)


def test_name_is_measured_without_the_space_around_it() -> None:
    assert checked_name("task name", f"  {'x' * 100}\t") == "x" * 100


@pytest.mark.parametrize("character", ["\0", "\n", "\t", "\x1b", "\x7f"])
def test_name_is_refused_with_a_control_character(character: str) -> None:
    with pytest.raises(Invalid, match="control characters"):
        checked_name("task name", f"a{character}b")


@pytest.mark.parametrize("check", [checked_name, checked_text, checked_json])
def test_text_is_refused_with_half_a_character(check: object) -> None:
    """A lone surrogate cannot be stored; the message can still be printed."""
    with pytest.raises(Invalid, match="lone surrogate") as refused:
        check("text", "a\ud800b")  # type: ignore[operator]  # one of three functions
    assert str(refused.value).encode()


def test_text_is_bounded_in_characters() -> None:
    """16,000 characters of four bytes each are what a MySQL TEXT holds."""
    assert checked_text("description", None) is None
    assert checked_text("description", "") == ""
    assert checked_text("description", "😀" * MAX_TEXT) == "😀" * MAX_TEXT
    assert len("😀".encode()) * MAX_TEXT <= 65_535
    with pytest.raises(Invalid, match="at most 16000 characters, this has 16001"):
        checked_text("description", "x" * (MAX_TEXT + 1))


@pytest.mark.parametrize("value", [5, True, b"x", {}])
def test_text_is_refused_when_it_is_something_else(value: object) -> None:
    with pytest.raises(Invalid, match="it has to be text"):
        checked_text("description", value)


@pytest.mark.parametrize("value", [None, "", "  \n"])
def test_reason_is_refused_when_it_says_nothing(value: object) -> None:
    """The message names the verb that records the reason."""
    with pytest.raises(Invalid, match="say why; a send-back records it"):
        checked_reason(value, verb="a send-back")


def test_reason_is_returned_stripped() -> None:
    assert checked_reason(" 接口要改 \n", verb="a send-back") == "接口要改"


@given(st.integers())
def test_id_is_accepted_from_one_to_64_bits(number: int) -> None:
    if 1 <= number <= MAX_ID:
        assert checked_id("job id", number) == number
    else:
        with pytest.raises(Invalid, match=f"from 1 to {MAX_ID}"):
            checked_id("job id", number)


@pytest.mark.parametrize("number", [1, MAX_ID])
def test_id_is_accepted_at_both_bounds(number: int) -> None:
    assert checked_id("job id", number) == number


@pytest.mark.parametrize("kind", [np.int8, np.int32, np.int64, np.uint8, np.uint64])
def test_id_becomes_an_int_when_it_comes_from_numpy(kind: type[np.integer]) -> None:
    """Ids read out of a DataFrame are numpy's, and no driver takes those."""
    found = checked_id("job id", kind(7))
    assert (found, type(found)) == (7, int)


@pytest.mark.parametrize("value", NOT_WHOLE, ids=repr)
def test_id_is_refused_when_it_is_no_whole_number(value: object) -> None:
    """True is no number here, and neither is 1.0."""
    with pytest.raises(Invalid, match=r"^job id .*whole number"):
        checked_id("job id", value)


def test_id_is_refused_when_numpy_exceeds_64_bits() -> None:
    with pytest.raises(Invalid, match="from 1 to"):
        checked_id("job id", np.uint64(2**63))


def test_whole_number_is_accepted_at_both_bounds_only() -> None:
    assert [checked_whole("n", n, lowest=2, highest=4) for n in (2, 3, 4)] == [2, 3, 4]
    for outside in (1, 5):
        with pytest.raises(Invalid, match="from 2 to 4"):
            checked_whole("n", outside, lowest=2, highest=4)


def test_operator_is_a_number_a_name_or_nobody() -> None:
    assert checked_operator(None) is None
    assert checked_operator(0) == 0
    assert checked_operator(np.int64(100)) == 100
    assert checked_operator(" 李雷 ") == "李雷"


@pytest.mark.parametrize("value", [True, -1, 1.5, "", " ", "x" * 101, 2**63, ["a"]])
def test_operator_is_refused_when_it_is_neither(value: object) -> None:
    with pytest.raises(Invalid, match=r"^operator "):
        checked_operator(value)


def test_limit_is_a_whole_number_or_none() -> None:
    assert [checked_limit(value) for value in (None, 0, 10, np.int64(3))] == [None, 0, 10, 3]


@pytest.mark.parametrize("value", [-1, True, 2.5, "10", math.inf])
def test_limit_is_refused_when_negative_or_no_whole_number(value: object) -> None:
    with pytest.raises(Invalid, match=r"^limit "):
        checked_limit(value)


def test_choice_is_the_value_of_a_member() -> None:
    assert checked_choice("colour", "red", Colour) == "red"
    assert checked_choice("colour", Colour.BLUE, Colour) == "blue"
    assert type(checked_choice("colour", Colour.BLUE, Colour)) is str


@pytest.mark.parametrize("value", ["RED", "", "green", None, 1, ["red"]])
def test_choice_is_refused_naming_all_of_them(value: object) -> None:
    with pytest.raises(Invalid, match="one of red, blue"):
        checked_choice("colour", value, Colour)


@given(
    st.datetimes(
        datetime(1, 1, 3),  # noqa: DTZ001 - hypothesis wants naive bounds
        datetime(9999, 12, 29),  # noqa: DTZ001 - as above
        timezones=st.timezones(),
    )
)
def test_instant_keeps_the_moment_and_becomes_utc(moment: datetime) -> None:
    found = checked_instant("since", moment)
    assert found == moment.astimezone(UTC)
    assert found.tzinfo is UTC
    assert checked_instant("since", moment.isoformat()) == moment.astimezone(UTC)


def test_instant_is_utc_where_a_date_or_a_text_gives_no_zone() -> None:
    midnight = datetime(2026, 11, 1, tzinfo=UTC)
    assert checked_instant("since", None) is None
    assert checked_instant("since", date(2026, 11, 1)) == midnight
    assert checked_instant("since", "2026-11-01") == midnight
    assert checked_instant("since", "2026-11-01 00:00") == midnight
    assert checked_instant("since", "2026-11-01T08:00:00+08:00") == midnight


def test_instant_is_accepted_from_pandas() -> None:
    found = checked_instant("since", pd.Timestamp("2026-11-01 08:00", tz=CHINA))
    assert found == datetime(2026, 11, 1, tzinfo=UTC)


def test_instant_is_refused_when_naive_and_says_how_to_give_a_zone() -> None:
    with pytest.raises(Invalid, match="give the time zone, for example tzinfo=UTC"):
        checked_instant("since", datetime(2026, 11, 1))  # noqa: DTZ001 - the point of the test


@pytest.mark.parametrize(
    "value", ["", "yesterday", "2026-13-01", 20261101, 1.5, True, pd.NaT, np.datetime64("2026-11")]
)
def test_instant_is_refused_when_it_is_none(value: object) -> None:
    with pytest.raises(Invalid, match=r"^since "):
        checked_instant("since", value)


@pytest.mark.parametrize(
    "value",
    [
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-1))),
        datetime.min.replace(tzinfo=CHINA),
        "0001-01-01T00:00:00+08:00",
        "9999-12-31T23:59:59-01:00",
    ],
)
def test_instant_is_refused_when_utc_cannot_say_it(value: object) -> None:
    """The first and the last hours of the calendar fall out of it in UTC: Invalid, no overflow."""
    with pytest.raises(Invalid, match=r"^since "):
        checked_instant("since", value)


@given(JSON)
def test_json_is_returned_unchanged(value: object) -> None:
    """Whatever JSON can say comes back equal, of the same types, and can be dumped."""
    found = checked_json("result", value)
    assert found == value
    assert json.dumps(found, allow_nan=False) == json.dumps(value, allow_nan=False)


def test_json_is_a_copy() -> None:
    """A change of the caller's value afterwards is no change of what is stored."""
    mine: dict[str, list[int]] = {"a": [1]}
    found = checked_json("result", mine)
    mine["a"].append(2)
    assert found == {"a": [1]}


def test_json_is_python_where_numpy_and_other_mappings_came_in() -> None:
    found = checked_json(
        "result",
        OrderedDict(n=np.int64(3), x=np.float32(0.5), ok=np.True_, t=(1, 2), s=Colour.RED),
    )
    assert found == {"n": 3, "x": 0.5, "ok": True, "t": [1, 2], "s": "red"}
    assert [type(item) for item in found.values()] == [int, float, bool, list, str]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (math.nan, "NaN and infinity"),
        (-math.inf, "NaN and infinity"),
        (np.float64("nan"), "NaN and infinity"),
        (2**63, "64 bits"),
        (-(2**63) - 1, "64 bits"),
        (np.uint64(2**63), "64 bits"),
        ({1: "a"}, "JSON keys are text"),
        ({None: "a"}, "JSON keys are text"),
        ({"\ud800": 1}, "lone surrogate"),
        ({1, 2}, "set is not JSON"),
        (b"bytes", "bytes is not JSON"),
        (Decimal("1.5"), "Decimal is not JSON"),
        (datetime(2026, 1, 1, tzinfo=UTC), "datetime is not JSON"),
        (np.datetime64("2026-01-01"), "is not JSON"),
        (np.array([1]), "ndarray is not JSON"),
        (pd.DataFrame(), "DataFrame is not JSON"),
        (pd.NA, "is not JSON"),
        (Path("a"), "is not JSON"),
        (print, "is not JSON"),
    ],
    ids=lambda value: repr(value)[:20],
)
@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: {"a": [x]}], ids=["alone", "inside"])
def test_json_is_refused_when_it_is_none(value: object, expected: str, wrap: object) -> None:
    """The value is refused alone and deep inside, and the message says what JSON has instead."""
    with pytest.raises(Invalid, match=f"(?s)result.*{expected}"):
        checked_json("result", wrap(value))  # type: ignore[operator]  # one of two functions


@pytest.mark.parametrize("number", [2**63 - 1, -(2**63)])
def test_json_takes_every_integer_of_64_bits(number: int) -> None:
    assert checked_json("result", [number]) == [number]


def test_json_is_refused_when_nested_too_deeply() -> None:
    """The bound holds before Python's own recursion limit, also for a list that holds itself."""
    assert checked_json("result", nested(MAX_JSON_DEPTH)) == nested(MAX_JSON_DEPTH)
    endless: list[object] = []
    endless.append(endless)
    for value in (nested(MAX_JSON_DEPTH + 1), nested(100_000), endless):
        with pytest.raises(Invalid, match="at most 64 levels deep"):
            checked_json("result", value)


def test_json_is_measured_in_bytes() -> None:
    """A million bytes fit, one more does not; a Chinese character is three of them."""
    fits = "x" * (MAX_JSON_BYTES - 2)
    assert checked_json("result", fits) == fits
    with pytest.raises(Invalid, match=r"at most 1,000,000 bytes.*keep its address"):
        checked_json("result", fits + "x")
    with pytest.raises(Invalid, match="of 1,200,002 bytes"):
        checked_json("result", "字" * 400_000)


def test_object_is_a_mapping_and_empty_by_default() -> None:
    assert checked_object("config", None) == {}
    assert checked_object("config", {"a": [1]}) == {"a": [1]}


@pytest.mark.parametrize("value", [[], "", "{}", 0, False, [("a", 1)]])
def test_object_is_refused_when_it_is_no_mapping(value: object) -> None:
    with pytest.raises(Invalid, match="a mapping with text keys"):
        checked_object("config", value)


def test_message_stays_short_and_the_error_keeps_the_facts() -> None:
    """A refused value of a megabyte does not flood the notebook; the facts stay attributes."""
    with pytest.raises(Invalid) as refused:
        checked_name("task name", "x" * 1_000_000, longest=MAX_KEY)
    error = refused.value
    assert len(str(error)) < 300
    assert (error.what, len(str(error.value)), error.expected) == (
        "task name",
        1_000_000,
        "at most 255 characters, this has 1000000",
    )
    assert isinstance(error, (GwfError, ValueError))
    assert (error.http_status, error.exit_code) == (422, 2)
