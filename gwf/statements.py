"""Run statements that were built once, straight on the driver, several in one round trip.

Why: a transition is a handful of small statements, and three things cost more than the database
itself: building and compiling them anew, a trip over the network for each, and PyMySQL's reading of
the description of every column of every answer (about as long as the trip itself for 20 columns).
A ``Statement`` compiles its SQLAlchemy clause once per dialect and keeps the converters of its
types; on a server a SELECT packs its columns into one JSON array; ``execute`` sends a list of
statements to MySQL or MariaDB as one multi-statement query.
Values always travel through the driver's own escaping, never through string formatting of ours.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Dialect

from gwf.tables import UtcDateTime, as_naive_utc

Converter = Callable[[Any], Any]

#: One query stays well under the smallest ``max_allowed_packet`` in use, 16 MiB.
_BATCH_CHARACTERS = 2_000_000
_BATCH_CALLS = 500


@dataclass(frozen=True, slots=True)
class _Plan:
    """Hold one statement as one dialect wants it; encoders and decoders go by position."""

    sql: str
    pick: Callable[[dict[str, Any]], tuple[Any, ...]]
    constants: dict[str, Any]
    encoders: tuple[tuple[int, Converter], ...]
    decoders: tuple[tuple[int, Converter], ...]
    is_packed: bool

    def arguments(self, values: dict[str, Any]) -> list[Any]:
        """Put the values into the order of the placeholders, as the driver wants them."""
        arguments = list(self.pick(self.constants | values if self.constants else values))
        for index, encode in self.encoders:
            value = arguments[index]
            if value is not None:
                arguments[index] = encode(value)
        return arguments

    def decoded(self, rows: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
        """Turn the driver's values into Python's."""
        decoded = []
        for row in rows:
            values = json.loads(row[0]) if self.is_packed else list(row)
            for index, decode in self.decoders:
                value = values[index]
                if value is not None:
                    values[index] = decode(value)
            decoded.append(tuple(values))
        return decoded


#: Rows of one INSERT whose ids are needed: PyMySQL would cut a longer statement in two, and the
#: ids with it.
INSERT_ROWS = 400


class Statement:
    """Keep a SQLAlchemy clause ready to run; every value is a named ``bindparam``, none a list."""

    def __init__(self, clause: sa.Select[Any] | sa.UpdateBase) -> None:
        self._clause = clause
        self._plans: dict[tuple[str, bool], _Plan] = {}

    def fetch(self, conn: Connection, **values: Any) -> list[tuple[Any, ...]]:
        """Return all rows, in one round trip."""
        plan = self.plan(conn.dialect)
        cursor = conn.connection.cursor()
        try:
            cursor.execute(plan.sql, plan.arguments(values))
            return plan.decoded(cursor.fetchall())
        finally:
            cursor.close()

    def insert(self, conn: Connection, **values: Any) -> int:
        """Run an INSERT of one row and return its new id."""
        plan = self.plan(conn.dialect)
        cursor = conn.connection.cursor()
        try:
            cursor.execute(plan.sql, plan.arguments(values))
            return int(cursor.lastrowid or 0)
        finally:
            cursor.close()

    def insert_many(self, conn: Connection, rows: Sequence[dict[str, Any]]) -> int:
        """Insert rows of equal keys in bulk, and return the id of the first (0 for no rows).

        PyMySQL turns them into multi-row VALUES.
        """
        if not rows:
            return 0
        plan = self.plan(conn.dialect)
        cursor = conn.connection.cursor()
        try:
            cursor.executemany(plan.sql, [plan.arguments(row) for row in rows])
            last = int(cursor.lastrowid or 0)
            if conn.dialect.name != "sqlite":
                return last  # MySQL counts from the first row of the statement
            if not last:
                last = int(cursor.execute("SELECT last_insert_rowid()").fetchone()[0])
            return last - len(rows) + 1
        finally:
            cursor.close()

    def insert_for_ids(self, conn: Connection, rows: Sequence[dict[str, Any]]) -> list[int]:
        """Insert rows of equal keys in bulk, and return their ids.

        A plain multi-row INSERT gets consecutive ids, on InnoDB in every lock mode (in steps of
        ``auto_increment_increment``) and on SQLite under its write lock.
        """
        if len(rows) == 1:
            return [self.insert(conn, **rows[0])]
        step = 1 if conn.dialect.name == "sqlite" else int(_INCREMENT.fetch(conn)[0][0])
        ids: list[int] = []
        for start in range(0, len(rows), INSERT_ROWS):
            lot = rows[start : start + INSERT_ROWS]
            first = self.insert_many(conn, lot)
            ids += range(first, first + len(lot) * step, step)
        return ids

    def plan(self, dialect: Dialect) -> _Plan:
        """Return the statement compiled for this dialect, compiling it once."""
        kind = (dialect.name, getattr(dialect, "is_mariadb", False))  # their locks read otherwise
        plan = self._plans.get(kind)
        if plan is None:
            plan = self._plans[kind] = _compiled(self._clause, dialect)
        return plan


_INCREMENT = Statement(sa.select(sa.literal_column("@@auto_increment_increment")))


@dataclass(frozen=True, slots=True)
class Write:
    """Pair a statement with its values; ``rows`` is how many rows it has to hit, if known."""

    statement: Statement
    values: dict[str, Any]
    rows: int | None = None


def execute(conn: Connection, writes: Sequence[Write]) -> list[int]:
    """Run the writes in order and return how many rows each one hit.

    One round trip on MySQL and MariaDB (more only beyond 500 writes or 2,000,000 characters).
    """
    if conn.dialect.name == "sqlite":
        return _run_each(conn, writes)
    counts: list[int] = []
    for sql, arguments, expected in _batches(conn.dialect, writes):
        counts += _run_batch(conn, sql, arguments, expected)
    return counts


def _run_each(conn: Connection, writes: Sequence[Write]) -> list[int]:
    counts = []
    cursor = conn.connection.cursor()
    try:
        for write in writes:
            plan = write.statement.plan(conn.dialect)
            cursor.execute(plan.sql, plan.arguments(write.values))
            counts.append(int(cursor.rowcount))
    finally:
        cursor.close()
    return counts


def _run_batch(conn: Connection, sql: str, arguments: list[Any], expected: int) -> list[int]:
    cursor = conn.connection.cursor()
    try:
        cursor.execute(sql, arguments)
        counts = [int(cursor.rowcount)]
        while cursor.nextset():
            counts.append(int(cursor.rowcount))
    finally:
        cursor.close()
    assert len(counts) == expected, "a statement of the batch gave no answer"  # noqa: S101 - a fault of ours
    return counts


def _batches(dialect: Dialect, writes: Sequence[Write]) -> Iterator[tuple[str, list[Any], int]]:
    statements: list[str] = []
    arguments: list[Any] = []
    size = 0
    for write in writes:
        plan = write.statement.plan(dialect)
        own = plan.arguments(write.values)
        own_size = len(plan.sql) + sum(len(value) for value in own if isinstance(value, str))
        if statements and (len(statements) >= _BATCH_CALLS or size + own_size > _BATCH_CHARACTERS):
            yield ";\n".join(statements), arguments, len(statements)
            statements, arguments, size = [], [], 0
        statements.append(plan.sql)
        arguments += own
        size += own_size
    if statements:
        yield ";\n".join(statements), arguments, len(statements)


def _compiled(clause: sa.Select[Any] | sa.UpdateBase, dialect: Dialect) -> _Plan:
    selected = list(clause.selected_columns) if isinstance(clause, sa.Select) else []
    is_packed = isinstance(clause, sa.Select) and dialect.name != "sqlite"
    compiled: Any = (_packed(clause) if is_packed else clause).compile(dialect=dialect)
    names = tuple(compiled.positiontup or ())
    binds = {name: compiled.binds[name] for name in names}
    return _Plan(
        sql=str(compiled),
        pick=_picker(names),
        constants={name: compiled.params[name] for name in names if not binds[name].required},
        encoders=_by_position([_encoder(binds[name].type, dialect) for name in names]),
        decoders=_by_position(
            [_unpacker(one.type) if is_packed else _decoder(one.type, dialect) for one in selected]
        ),
        is_packed=is_packed,
    )


def _by_position(found: Sequence[Converter | None]) -> tuple[tuple[int, Converter], ...]:
    return tuple((index, one) for index, one in enumerate(found) if one is not None)


def _picker(names: tuple[str, ...]) -> Callable[[dict[str, Any]], tuple[Any, ...]]:
    """Return what takes these values out of a dictionary, in this order."""
    if len(names) > 1:
        return operator.itemgetter(*names)
    return lambda values: tuple(values[name] for name in names)


def _encoder(kind: sa.types.TypeEngine[Any], dialect: Dialect) -> Converter | None:
    if isinstance(kind, UtcDateTime):
        return _as_text if dialect.name == "sqlite" else as_naive_utc
    return kind.dialect_impl(dialect).bind_processor(dialect)


def _decoder(kind: sa.types.TypeEngine[Any], dialect: Dialect) -> Converter | None:
    """Return the converter of a column of an embedded database."""
    if isinstance(kind, UtcDateTime):
        return _instant
    return kind.dialect_impl(dialect).result_processor(dialect, None)


def _packed(clause: Any) -> Any:
    """Return the SELECT with all its columns in one JSON array; JSON columns travel as text."""
    columns = [
        sa.cast(column, sa.CHAR) if isinstance(column.type, sa.JSON) else column
        for column in clause.selected_columns
    ]
    packed = sa.func.json_array(*columns, type_=sa.Text).label("packed")
    return clause.with_only_columns(packed, maintain_column_froms=True)


def _unpacker(kind: sa.types.TypeEngine[Any]) -> Converter | None:
    if isinstance(kind, UtcDateTime):
        return _instant
    if isinstance(kind, sa.JSON):
        return json.loads
    return _flag if isinstance(kind, sa.Boolean) else None


def _as_text(value: datetime) -> str:
    return as_naive_utc(value).isoformat(" ", "microseconds")


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(f"{text}+00:00")


def _flag(value: bool | int | str) -> bool:
    return bool(int(value))  # MariaDB packs an EXISTS as text at times
