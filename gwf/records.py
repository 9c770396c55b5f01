"""Give the records of ``model`` their way in from a row, their changes, and their way to JSON.

Why slots are set by hand: a verb builds, changes and compares several records of twenty fields;
this takes half the time of ``dataclasses.replace``, which matters to a transition on SQLite.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any, NamedTuple, Self


class Record:
    """Give a frozen dataclass its way in from a row, its changes, and its way to and from JSON."""

    __slots__ = ()

    @classmethod
    def from_row(cls, row: Sequence[Any]) -> Self:
        """Build the record from a row whose columns stand in the order of the fields."""
        record = object.__new__(cls)
        for put, value in zip(_layout_of(cls).writers, row, strict=True):
            put(record, value)
        return record

    def replaced(self, **values: Any) -> Self:
        """Return the record with these fields changed."""
        layout = _layout_of(type(self))
        row = list(layout.read(self))
        for name, value in values.items():
            row[layout.places[name]] = value
        return self.from_row(row)

    def differences(self, other: Self) -> tuple[str, ...]:
        """Return the names of the fields in which two records differ, in their order."""
        if self is other:
            return ()
        layout = _layout_of(type(self))
        pairs = zip(layout.places, layout.read(self), layout.read(other), strict=True)
        return tuple(name for name, old, new in pairs if old is not new and old != new)

    def as_json(self) -> dict[str, Any]:
        """Return the fields as JSON values; instants become RFC 3339 text in UTC."""
        return {
            field.name: _json_value(getattr(self, field.name))
            for field in dataclasses.fields(self)  # type: ignore[arg-type]  # subclasses are dataclasses
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Build the record from what ``as_json`` returned."""
        fields = dataclasses.fields(cls)  # type: ignore[arg-type]  # subclasses are dataclasses
        return cls(*(_from_json(field.name, values.get(field.name)) for field in fields))


class _Layout(NamedTuple):
    """Hold how to read and to write the fields of a record all at once."""

    places: dict[str, int]
    read: Callable[[Record], tuple[Any, ...]]
    writers: tuple[Callable[[Record, Any], None], ...]


_LAYOUTS: dict[Any, _Layout] = {}


def _layout_of(kind: Any) -> _Layout:
    layout = _LAYOUTS.get(kind)
    if layout is None:
        names = [field.name for field in dataclasses.fields(kind)]
        layout = _LAYOUTS[kind] = _Layout(
            places={name: place for place, name in enumerate(names)},
            read=attrgetter(*names),
            writers=tuple(kind.__dict__[name].__set__ for name in names),
        )
    return layout


def _json_value(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


def _from_json(name: str, value: Any) -> Any:
    is_instant = name.endswith("_at") and isinstance(value, str)
    return datetime.fromisoformat(value) if is_instant else value
