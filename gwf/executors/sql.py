"""Ask a database: ``{"sql": "SELECT status, COUNT(*) AS n FROM jobs GROUP BY status"}``.

Why read-only twice: ``check`` refuses early what is no query, but it reads text, and a text can
call a function that writes. So the database itself refuses every write as well: SQLite by
``query_only`` and an authorizer, a server by a READ ONLY transaction on a connection of its own
that takes one statement at a time. ``INTO OUTFILE`` is the one thing that only ``check`` refuses,
as a READ ONLY transaction allows it to a user with the right FILE; so ``check`` reads the text as
MySQL does and as SQLite does, and the session gets a ``sql_mode`` in which quotes mean that.

Why the text is no template: values go through ``parameters``, so none can become a part of it.

What becomes of values: whole numbers within 64 bits, finite floats, text and None stay. A decimal
becomes the whole number or the float that prints the same, any other number its text, NaN None.
Dates and times become ISO 8601 text, durations (TIME of a server) seconds. Bytes are refused.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pymysql
import sqlalchemy as sa
from pymysql.constants import ER
from pymysql.cursors import SSCursor
from sqlalchemy.engine import Dialect

from gwf.database import Database, open_database, read
from gwf.errors import DatabaseUnavailable, ExecutionFailed, Invalid
from gwf.execution import HIDDEN, ExecutionContext
from gwf.failures import DRIVER_ERRORS, is_lost, message_of
from gwf.limits import MAX_JSON_BYTES, checked_object, checked_text, checked_whole

logger = logging.getLogger(__name__)

Rows = list[dict[str, Any]]
Work = Callable[[Any], Rows]

DEFAULT_TIMEOUT_S = 60.0
DEFAULT_MAX_ROWS = 1000
MAX_ROWS = 10_000
#: How often a query on a server is looked after, in seconds, and one of SQLite, in its steps.
_LOOK_S = 0.1
_LOOK_STEPS = 10_000
#: Options of a URL that could write, hand over a file, or let several statements through.
_REFUSED_OPTIONS = ("init_command", "local_infile", "client_flag")

_BLOCK = r"/\*(?P<runs>[Mm]?!)?.*?(?:\*/|\Z)"
_AS_MYSQL = re.compile(
    rf"{_BLOCK}|--(?=[\x00-\x20\x7f]|\Z)[^\n]*|\#[^\n]*"
    r"""|'(?:[^'\\]|\\.)*+(?:'|\Z)|"(?:[^"\\]|\\.)*+(?:"|\Z)|`[^`]*(?:`|\Z)""",
    re.DOTALL,
)
_AS_SQLITE = re.compile(
    rf"{_BLOCK}|--[^\n]*|\#[^\n]*"
    r"""|'[^']*(?:'|\Z)|"[^"]*(?:"|\Z)|`[^`]*(?:`|\Z)|\[[^\]]*(?:\]|\Z)""",
    re.DOTALL,
)
_BEGINNING = re.compile(r"[\s(]*(SELECT|WITH)\b", re.IGNORECASE)
#: A number may touch the word: MySQL reads ``1.5INTO`` as two.
_INTO = re.compile(r"(?<![^\W\d])INTO\b", re.IGNORECASE)

_READING = frozenset(
    (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE)
)


@dataclass(frozen=True, slots=True)
class Query:
    """Hold a query with its values by name."""

    sql: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    max_rows: int = DEFAULT_MAX_ROWS

    def compiled(self, dialect: Dialect) -> tuple[str, list[Any]]:
        """Return the text with the placeholders of a driver, and the values in their order."""
        reading = _AS_SQLITE if dialect.name == "sqlite" else _AS_MYSQL
        compiled: Any = _clause(self.sql, reading).compile(dialect=dialect)
        return str(compiled), [self.parameters[name] for name in compiled.positiontup or ()]


def is_literal(key: str, value: object) -> bool:
    """Say which arguments are no templates: the text of the query, and how much it may return."""
    return key in ("sql", "max_rows")


def check(config: Mapping[str, Any]) -> None:
    """Refuse a config that could never run, or that is more than one query.

    Raises
    ------
    Invalid
    """
    query_of(config)
    given = config.get("database")
    if isinstance(given, str):
        _opened(given)
    elif given is not None and not isinstance(given, Mapping):
        raise Invalid("database", type(given).__name__, expected="a URL or {'secret': 'NAME'}")


def execute(config: Mapping[str, Any], context: ExecutionContext) -> dict[str, Any]:
    """Run one query that only reads, and return its rows.

    Parameters
    ----------
    config
        ``sql``, one statement that begins with SELECT or WITH; ``parameters``, its values by name,
        each written ``:name`` in the text, where a colon in quotes is a colon; ``max_rows``, by
        default 1000, at most 10,000; ``database``, a URL or ``{"secret": "NAME"}``, by default
        the database of the job.
    context
        Its ``timeout_s`` (60 seconds if None) and ``given_up`` end the query.

    Returns
    -------
    dict
        ``rows``, each a mapping of columns to values, and ``n_rows``.

    Raises
    ------
    ExecutionFailed
        With the code ``no_database``, ``unreachable``, ``sql_error``, ``too_many_rows``,
        ``result_invalid`` (two columns of one name, bytes, more than 1,000,000 bytes in all),
        ``timed_out`` or ``cancelled``.
    Invalid
        A key of the config makes no sense.
    """
    rows = rows_of(query_of(config), _database(config, context), context)
    return {"rows": rows, "n_rows": len(rows)}


def query_of(config: Mapping[str, Any]) -> Query:
    """Return the query that a config asks for.

    Raises
    ------
    Invalid
        It is not one statement that reads, or its parameters are not those of the text.
    """
    sql = checked_text("sql", config.get("sql"))
    if sql is None or "\0" in sql:
        raise Invalid("sql", sql, expected="the text of a query")
    parameters = checked_object("parameters", config.get("parameters"))
    for name, value in parameters.items():
        if isinstance(value, dict | list):
            raise Invalid(f"parameter {name}", value, expected="text, a number, True, False, None")
    for reading in (_AS_MYSQL, _AS_SQLITE):
        _expect_one_query(sql, reading)
        named = sorted(_clause(sql, reading).compile().params)
        if named != sorted(parameters):
            expected = f"those of the sql, outside of quotes: {', '.join(named) or 'none'}"
            raise Invalid("parameters", sorted(parameters), expected=expected)
    max_rows = config.get("max_rows", DEFAULT_MAX_ROWS)
    return Query(sql, parameters, checked_whole("max_rows", max_rows, lowest=1, highest=MAX_ROWS))


def rows_of(query: Query, database: Database, context: ExecutionContext) -> Rows:
    """Run a query that nobody has checked; the database itself refuses what writes.

    Raises
    ------
    ExecutionFailed
    """
    watch = _Watch(context)
    watch.expect_time_left()

    collect = partial(_collected, query=query, dialect=database.engine.dialect, context=context)
    try:
        if database.is_sqlite:
            rows = read(
                database, lambda conn: _in_sqlite(conn.connection.dbapi_connection, collect, watch)
            )
        else:
            rows = _on_server(database, collect, watch)
    except (DatabaseUnavailable, *DRIVER_ERRORS, sqlite3.Warning) as error:
        watch.expect_time_left()
        raise _failure(error, database.engine.url, context) from error
    watch.expect_time_left()
    return rows


def as_json(column: str, value: object) -> Any:
    """Return a value of a driver as JSON; the module says what becomes of which.

    Raises
    ------
    ExecutionFailed
        It is of a kind that JSON cannot say, such as bytes.
    """
    if isinstance(value, Decimal) and value == int(value):
        value = int(value)
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**63 else str(value)
    if isinstance(value, Decimal):
        return float(value) if Decimal(repr(float(value))) == value else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None if math.isnan(value) else str(value)
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, date):
        return value.isoformat()
    raise ExecutionFailed(
        f"column {column!r} holds {type(value).__name__}, which JSON cannot say; "
        "select HEX(…) or a CAST of it",
        code="result_invalid",
    )


class _Watch:
    """Know when a query has to end, and why."""

    def __init__(self, context: ExecutionContext) -> None:
        self._given_up = context.given_up
        timeout = context.timeout_s
        self._timeout_s = DEFAULT_TIMEOUT_S if timeout is None else timeout
        self._last = time.monotonic() + self._timeout_s

    @property
    def left_s(self) -> float:
        return max(self._last - time.monotonic(), 0.001)

    def is_over(self) -> bool:
        return self._given_up.is_set() or time.monotonic() >= self._last

    def expect_time_left(self) -> None:
        if self._given_up.is_set():
            raise ExecutionFailed("the attempt was given up", code="cancelled")
        if time.monotonic() >= self._last:
            raise ExecutionFailed(f"not done after {self._timeout_s:g} seconds", code="timed_out")


def _clause(sql: str, reading: re.Pattern[str]) -> sa.TextClause:
    """Return the text with its parameters; what is quoted or a comment holds none."""
    return sa.text(reading.sub(lambda token: token[0].replace(":", r"\:"), sql))


def _expect_one_query(sql: str, reading: re.Pattern[str]) -> None:
    if any(token["runs"] for token in reading.finditer(sql)):
        raise Invalid("sql", sql, expected="no comment that a server would run, /*! or /*M!")
    code = reading.sub(" ", sql)
    if not _BEGINNING.match(code):
        raise Invalid("sql", sql, expected="a query, which begins with SELECT or WITH")
    if ";" in code.rstrip("; \t\r\n\f\v"):
        raise Invalid("sql", sql, expected="one statement only")
    if _INTO.search(code):
        raise Invalid("sql", sql, expected="a query that only reads, so without INTO")


def _database(config: Mapping[str, Any], context: ExecutionContext) -> Database:
    given = config.get("database")
    if given is not None:
        return _opened(context.revealed("database", given))
    if context.database is None:
        raise ExecutionFailed(
            "the database of the job is in memory, in another process; run the task in that one, "
            "keep the jobs in a file or on a server, or name another 'database'",
            code="no_database",
        )
    return context.database


def _opened(url: str) -> Database:
    """Return another database than that of the job; a file is neither created nor changed."""
    database = open_database(url)
    if database.in_memory:
        raise Invalid("database", "in memory", expected="the URL of a file or of a server")
    if not database.is_sqlite:
        return database
    address = f"{Path(str(database.engine.url.database)).resolve().as_uri()}?mode=ro"

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(address, uri=True, isolation_level=None)

    engine = sa.create_engine("sqlite://", creator=connect, poolclass=sa.NullPool)
    return Database(engine, database.label)


def _collected(cursor: Any, *, query: Query, dialect: Dialect, context: ExecutionContext) -> Rows:
    """Run a query, and read as many rows as it may return and one more at most."""
    text, arguments = query.compiled(dialect)
    cursor.execute(text, arguments)
    columns = [str(column[0]) for column in cursor.description or ()]
    if len(set(columns)) < len(columns):
        said = f"two of the columns {', '.join(columns)} have one name; name them apart with AS"
        raise ExecutionFailed(said, code="result_invalid")
    rows: Rows = []
    n_bytes = 0
    for values in iter(cursor.fetchone, None):
        if len(rows) == query.max_rows:
            said = f"more than {query.max_rows:,} rows; select fewer, or raise max_rows"
            raise ExecutionFailed(said, code="too_many_rows")
        row = {
            name: as_json(name, context.redacted(one) if isinstance(one, str) else one)
            for name, one in zip(columns, values, strict=True)
        }
        n_bytes += len(json.dumps(row, ensure_ascii=False).encode())
        if n_bytes > MAX_JSON_BYTES:
            said = f"the rows take more than {MAX_JSON_BYTES:,} bytes; select less"
            raise ExecutionFailed(said, code="result_invalid")
        rows.append(row)
    return rows


def _in_sqlite(connection: Any, work: Work, watch: _Watch) -> Rows:
    try:
        connection.execute("PRAGMA query_only = ON")
        connection.set_authorizer(_authorize)
        connection.set_progress_handler(watch.is_over, _LOOK_STEPS)
        with contextlib.closing(connection.cursor()) as cursor:
            return work(cursor)
    finally:
        connection.set_progress_handler(None, 0)
        connection.set_authorizer(None)
        connection.execute("PRAGMA query_only = OFF")


def _authorize(action: int, first: str | None, second: str | None, *_: str | None) -> int:
    is_safe = action in _READING and (action, second) != (sqlite3.SQLITE_FUNCTION, "load_extension")
    return sqlite3.SQLITE_OK if is_safe else sqlite3.SQLITE_DENY


def _on_server(database: Database, work: Work, watch: _Watch) -> Rows:
    connection = _connected(database, watch.left_s)
    try:
        _make_read_only(connection, watch.left_s)
        with _killed_in_time(connection.thread_id(), database, watch):
            return work(connection.cursor(SSCursor))
    finally:
        _drop(connection)


def _connected(database: Database, longest_s: float) -> Any:
    """Return a connection of its own, which takes one statement at a time.

    ``longest_s`` is how long the server has for its answers; ten seconds more, and it is lost.
    """
    _, given = database.engine.dialect.create_connect_args(database.engine.url)
    options = {name: one for name, one in given.items() if name not in _REFUSED_OPTIONS}
    if isinstance(options.get("password"), str):
        options["password"] = options["password"].encode()  # PyMySQL alone knows only Latin-1
    options.update(connect_timeout=10, read_timeout=longest_s + 10)
    label = database.engine.url.set(query={}).render_as_string(hide_password=True)
    try:
        return pymysql.connect(**options)
    except (*DRIVER_ERRORS, OSError, TypeError, ValueError) as error:
        raise DatabaseUnavailable(
            label, reason=message_of(error), advice="check the URL, its user and its password"
        ) from error


def _make_read_only(connection: Any, longest_s: float) -> None:
    limit = f"max_execution_time = {math.ceil(longest_s * 1000)}"
    if "mariadb" in connection.get_server_info().lower():
        limit = f"max_statement_time = {longest_s:.3f}"
    with connection.cursor() as cursor:
        cursor.execute(
            f"SET SESSION {limit}, time_zone = '+00:00', sql_mode = REGEXP_REPLACE(@@sql_mode, "
            "'NO_BACKSLASH_ESCAPES|ANSI_QUOTES|ANSI|MSSQL|DB2|MAXDB|POSTGRESQL|ORACLE', '')"
        )
        cursor.execute("SET SESSION TRANSACTION READ ONLY")
        cursor.execute("START TRANSACTION READ ONLY")


@contextlib.contextmanager
def _killed_in_time(thread_id: int, database: Database, watch: _Watch) -> Iterator[None]:
    """End the connection, by another one, once its time is over.

    KILL QUERY would have no effect if it came before the query has begun.
    """
    is_done = threading.Event()

    def kill_in_time() -> None:
        while not is_done.wait(_LOOK_S):
            if watch.is_over() and _is_killed(thread_id, database):
                return

    killer = threading.Thread(target=kill_in_time, name="gwf-sql-killer", daemon=True)
    killer.start()
    try:
        yield
    finally:
        is_done.set()
        killer.join()


def _is_killed(thread_id: int, database: Database) -> bool:
    try:
        with _connected(database, _LOOK_S) as connection, connection.cursor() as cursor:
            cursor.execute("KILL %s", (thread_id,))
    except (DatabaseUnavailable, *DRIVER_ERRORS):
        logger.warning("a query could not be ended yet", exc_info=True)
        return False
    return True


def _drop(connection: Any) -> None:
    """Close a connection; PyMySQL would first read to its end an answer that nobody wants."""
    if connection._result is not None:
        connection._result.unbuffered_active = False
    connection.close()


def _failure(error: BaseException, url: sa.URL, context: ExecutionContext) -> ExecutionFailed:
    """Say what went wrong, without the secrets that were used and without the password."""
    code, said = "sql_error", f"the database refused the query: {message_of(error)}"
    if isinstance(error, DatabaseUnavailable):
        code, said = "unreachable", str(error)
    elif is_lost(error):
        code, said = "unreachable", f"the connection was lost: {message_of(error)}"
    elif error.args and error.args[0] in (ER.QUERY_TIMEOUT, ER.STATEMENT_TIMEOUT):
        code, said = "timed_out", message_of(error)
    said = context.redacted(said)
    for password in (url.password, url.query.get("password"), url.query.get("passwd")):
        said = said.replace(str(password), HIDDEN) if password else said
    return ExecutionFailed(said, code=code)
