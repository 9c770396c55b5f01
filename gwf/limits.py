"""Bound every value that comes from outside, with one clear error each.

Why here: Python, the command line and later the server and the widgets share these checks, and the
three databases would each truncate, round or refuse in a way of their own.
The bounds fit the published columns: 16,000 characters of four bytes are a MySQL ``TEXT``.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any

from gwf.errors import Invalid

MAX_NAME = 100
MAX_VERSION = 20
MAX_TEXT = 16_000
MAX_KEY = 255
MAX_JSON_BYTES = 1_000_000
MAX_JSON_DEPTH = 64
MAX_SEQUENCE = 2**31 - 1
MAX_ID = 2**63 - 1


def checked_name(what: str, value: object, *, longest: int = MAX_NAME) -> str:
    """Return a name, stripped of surrounding space.

    Raises
    ------
    Invalid
        Not text, empty, too long, or with control characters.
    """
    if not isinstance(value, str):
        raise Invalid(what, value, expected="it has to be text")
    name = value.strip()
    if not any(character.isprintable() and not character.isspace() for character in name):
        raise Invalid(what, value, expected="it must not be empty")
    if len(name) > longest:
        raise Invalid(what, value, expected=f"at most {longest} characters, this has {len(name)}")
    if any(ord(character) < 32 or ord(character) == 127 for character in name):
        raise Invalid(what, value, expected="control characters are not allowed")
    return _encodable(what, name)


def checked_text(what: str, value: object) -> str | None:
    """Return a text or None.

    Raises
    ------
    Invalid
        Not text, or longer than 16,000 characters.
    """
    if value is None:
        return None
    if not isinstance(value, str):
        raise Invalid(what, value, expected="it has to be text")
    if len(value) > MAX_TEXT:
        raise Invalid(what, value, expected=f"at most {MAX_TEXT} characters, this has {len(value)}")
    return _encodable(what, value)


def checked_reason(value: object, *, verb: str) -> str:
    """Return the reason that a person gives, which must not be empty."""
    reason = checked_text("reason", value)
    if reason is None or not reason.strip():
        raise Invalid("reason", value, expected=f"say why; {verb} records it")
    return reason.strip()


def checked_id(what: str, value: object) -> int:
    """Return a whole number of at least 1 that fits 64 bits.

    Raises
    ------
    Invalid
        Not a whole number, or out of range. True is not a number here.
    """
    return checked_whole(what, value, lowest=1, highest=MAX_ID)


def checked_operator(value: object) -> int | str | None:
    """Return who acts: a number, the name of a user, or None."""
    if value is None:
        return None
    if isinstance(value, str):
        return checked_name("operator", value)
    return checked_whole("operator", value, lowest=0, highest=MAX_ID)


def checked_whole(what: str, value: object, *, lowest: int, highest: int) -> int:
    """Return a whole number within bounds; a numpy integer becomes an int."""
    plain = _plain_scalar(value)
    if isinstance(plain, bool) or not isinstance(plain, int):
        raise Invalid(what, value, expected="it has to be a whole number")
    if not lowest <= plain <= highest:
        raise Invalid(what, value, expected=f"from {lowest} to {highest}")
    return plain


def checked_limit(value: object) -> int | None:
    """Return the largest number of rows wanted, or None for all of them."""
    return None if value is None else checked_whole("limit", value, lowest=0, highest=MAX_ID)


def checked_flag(what: str, value: object) -> bool:
    """Return True or False; numbers and text are refused."""
    if not isinstance(value, bool):
        raise Invalid(what, value, expected="True or False")
    return value


def checked_choice(what: str, value: object, choices: type[Any]) -> str:
    """Return the value of a member of an enumeration."""
    names = [str(member) for member in choices]
    if not isinstance(value, str) or value not in names:
        raise Invalid(what, value, expected=f"one of {', '.join(names)}")
    return str(value)


def checked_instant(what: str, value: object) -> datetime | None:
    """Return an instant in UTC.

    A date, and a text without an offset, are read as UTC; a naive datetime is refused, since
    nobody can tell which zone it means.

    Raises
    ------
    Invalid
        A naive datetime, or something that is no instant.
    """
    if value is None:
        return None
    if isinstance(value, str):
        try:
            parsed = datetime.fromisoformat(value)
        except ValueError:
            raise Invalid(what, value, expected="an ISO 8601 date or instant") from None
        return _in_utc(what, parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC))
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise Invalid(what, value, expected="give the time zone, for example tzinfo=UTC")
        return _in_utc(what, value)
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    raise Invalid(what, value, expected="a datetime with a zone, a date, or ISO 8601 text")


def _in_utc(what: str, value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise Invalid(what, value, expected="an instant in the years 1 to 9999") from None


def checked_seconds(what: str, value: object, *, highest: int, may_be_zero: bool = False) -> float:
    """Return a time in seconds.

    Raises
    ------
    Invalid
        Not a number, NaN, below or at 0, or above ``highest``.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        is_enough = value >= 0 if may_be_zero else value > 0
        if is_enough and value <= highest:
            return float(value)
    least = "from 0" if may_be_zero else "more than 0"
    raise Invalid(what, value, expected=f"seconds, {least} and at most {highest:,}")


def expect_known_keys(what: str, given: Iterable[object], known: Sequence[str]) -> None:
    """Refuse an unknown key of a mapping, and say which one is meant.

    Raises
    ------
    Invalid
    """
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
            meant = f"did you mean {near[0]!r}? " if near else ""
            raise Invalid(what, key, expected=f"{meant}one of {', '.join(known)}")


_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def checked_json(what: str, value: object) -> Any:
    """Return the value as plain JSON: dicts with text keys, lists, text, numbers, booleans, None.

    Numpy scalars become Python's; everything else that JSON cannot say is refused, and so is what
    one of the databases would change: NaN, integers beyond 64 bits, lone surrogates.

    Raises
    ------
    Invalid
        Not JSON, nested deeper than 64, or larger than 1,000,000 bytes.
    """
    plain = _Plain(what).json(value)
    size = len(_ENCODER.encode(plain).encode())
    if size > MAX_JSON_BYTES:
        raise Invalid(
            what,
            f"of {size:,} bytes",
            expected=f"at most {MAX_JSON_BYTES:,} bytes; store it elsewhere and keep its address",
        )
    return plain


def checked_object(what: str, value: object) -> dict[str, Any]:
    """Return the value as a JSON object; None is an empty one."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise Invalid(what, value, expected="a mapping with text keys")
    plain: dict[str, Any] = checked_json(what, value)
    return plain


class _Plain:
    """Turn one value into plain JSON, and stop where it holds more values than may be stored."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._n_left = MAX_JSON_BYTES

    def json(self, value: object, *, depth: int = 0) -> Any:
        self._n_left -= 1
        if depth > MAX_JSON_DEPTH:
            raise Invalid(self._what, "nested", expected=f"at most {MAX_JSON_DEPTH} levels deep")
        if self._n_left < 0:
            raise Invalid(self._what, "a large one", expected=f"at most {MAX_JSON_BYTES:,} bytes")
        if isinstance(value, Mapping):
            return {
                _json_key(self._what, key): self.json(item, depth=depth + 1)
                for key, item in value.items()
            }
        if isinstance(value, (list, tuple)):
            return [self.json(item, depth=depth + 1) for item in value]
        return _plain_leaf(self._what, value)


def _plain_leaf(what: str, value: object) -> Any:
    plain = _plain_scalar(value)
    if plain is None or isinstance(plain, bool):
        return plain
    if isinstance(plain, str):
        return _encodable(what, str(plain))
    if isinstance(plain, int):
        if not -(2**63) <= plain < 2**63:
            raise Invalid(what, value, expected="whole numbers of at most 64 bits; use text")
        return int(plain)
    if isinstance(plain, float):
        if not math.isfinite(plain):
            raise Invalid(what, value, expected="NaN and infinity are not JSON; use None")
        return float(plain)
    raise Invalid(
        what,
        value,
        expected=f"{type(value).__name__} is not JSON; use dicts, lists, text, numbers or None",
    )


def _json_key(what: str, key: object) -> str:
    if not isinstance(key, str):
        raise Invalid(f"key of {what}", key, expected="JSON keys are text")
    return _encodable(what, key)


def _plain_scalar(value: object) -> Any:
    """Turn a numpy scalar into Python's, without importing numpy."""
    if type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0:
        return value.item()  # type: ignore[attr-defined]  # a numpy scalar has it
    return value


def _encodable(what: str, text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Invalid(what, text, expected="it holds half a character (a lone surrogate)") from None
    return text
