"""Open a database and run work in one transaction, with every failure translated.

Why no ``pool_pre_ping`` and no rollback on return: each costs a round trip per verb. A connection
that died in the pool is found by the first statement; the work is then done again on a new one, as
nothing was committed. Every transaction here ends by its own commit or rollback.

Why transactions are begun and ended on the driver itself: SQLAlchemy's own way takes three times as
long as all else that it does for a verb. Clauses that it runs find the transaction open.

Why pysqlite's own transactions are off: it opens them late and never as IMMEDIATE, so two threads
both win a claim, and a failed migration stays half applied.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import random
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

import pymysql
import sqlalchemy as sa
from pymysql.constants import CLIENT
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.pool import StaticPool

from gwf.errors import DatabaseUnavailable, GwfError, Invalid, OutcomeUnknown
from gwf.failures import (
    DRIVER_ERRORS,
    is_contended,
    is_lock_wait,
    is_lost,
    message_of,
    raise_translated,
)

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")
Clock = Callable[[], datetime]

#: What collided with another transaction is tried this often in all (rule T2).
MAX_TRIES = 12
#: What waited for a lock as long as the database lets it is tried this often in all.
MAX_WAITS = 2

EMBEDDED_DEFAULT = "sqlite:///gwf.db"


@dataclass(slots=True)
class Database:
    """Hold an engine and what is known of its server; the repr shows no password."""

    engine: Engine = field(repr=False)
    label: str
    #: Serialises the one connection of a database in memory; free for all others.
    guard: contextlib.AbstractContextManager[Any] = field(
        default_factory=contextlib.nullcontext, repr=False
    )
    process: int = field(default_factory=os.getpid, repr=False)
    in_memory: bool = False
    is_gone: bool = False
    #: Are told what happened in each transaction, once that is committed.
    after_commit: list[Callable[[list[Any]], None]] = field(default_factory=list, repr=False)

    @property
    def is_sqlite(self) -> bool:
        """Say whether this is the embedded database."""
        return self.engine.dialect.name == "sqlite"

    def close(self) -> None:
        """Close every pooled connection; the next use opens new ones.

        A database in memory is gone then.
        """
        self.is_gone = self.in_memory
        self.engine.dispose()


def database_url(environment: Mapping[str, str]) -> sa.URL:
    """Return where the environment says the database is.

    ``GWF_DATABASE_URL``, else the published ``DB_HOST DB_PORT DB_USER DB_PASSWORD DB_NAME
    DB_CHARSET`` when one of them is set, else ``sqlite:///gwf.db``.
    """
    url = environment.get("GWF_DATABASE_URL")
    if url:
        return _parsed(url)
    if not any(name.startswith("DB_") and name in _PUBLISHED for name in environment):
        return _parsed(EMBEDDED_DEFAULT)
    settings = {name: environment.get(name, default) for name, default in _PUBLISHED.items()}
    if not re.fullmatch("[0-9]{1,5}", settings["DB_PORT"]) or not (
        0 < int(settings["DB_PORT"]) < 65_536
    ):
        raise Invalid(
            "DB_PORT", settings["DB_PORT"], expected="the number of a port, from 1 to 65535"
        )
    return sa.URL.create(
        "mysql+pymysql",
        username=settings["DB_USER"],
        password=settings["DB_PASSWORD"] or None,
        host=settings["DB_HOST"],
        port=int(settings["DB_PORT"]),
        database=settings["DB_NAME"],
        query={"charset": settings["DB_CHARSET"]},
    )


_PUBLISHED = {
    "DB_HOST": "localhost",
    "DB_PORT": "3306",
    "DB_USER": "root",
    "DB_PASSWORD": "",
    "DB_NAME": "workflow",
    "DB_CHARSET": "utf8mb4",
}


def open_database(url: str | sa.URL | None = None, *, clock: Clock | None = None) -> Database:
    """Open the database at this URL; nothing is connected before the first use.

    Parameters
    ----------
    url
        ``sqlite:///file.db``, ``sqlite://`` (in memory), ``mysql+pymysql://user:password@host/name``
        or ``mariadb+pymysql://…``; by default what the environment says.
    clock
        A function that returns an aware datetime, in place of the database's clock.

    Raises
    ------
    Invalid
        The URL cannot be read, or its database is none of the three.
    """
    if clock is not None and not callable(clock):
        raise Invalid("clock", clock, expected="a function that returns an aware datetime")
    parsed = _parsed(url) if url is not None else database_url(os.environ)
    kind = parsed.get_backend_name()
    if kind == "sqlite":
        return _open_sqlite(parsed.set(drivername="sqlite"), clock)
    if kind in ("mysql", "mariadb"):
        return _open_server(parsed.set(drivername="mysql+pymysql"), clock)
    raise Invalid("database", kind, expected="sqlite, mysql or mariadb")


def read(db: Database, work: Callable[[Connection], Answer]) -> Answer:
    """Run work that only reads, in a transaction that ends without a commit."""
    return _run(db, work, writing=False)


def write(db: Database, work: Callable[[Connection], Answer]) -> Answer:
    """Run work in one transaction and commit it once.

    The work runs again after a deadlock (at most 12 times in all), after a wait for a lock that
    outlasted the limit of the database (twice in all), and once after a connection that was lost
    before the commit; it must have no effect but on ``conn``.

    Raises
    ------
    OutcomeUnknown
        The connection broke while the commit was under way.
    DatabaseUnavailable
        The database is away, refuses us, or stays busy.
    """
    return _run(db, work, writing=True)


def _run(db: Database, work: Callable[[Connection], Answer], *, writing: bool) -> Answer:
    if db.is_gone:
        raise DatabaseUnavailable(
            db.label, reason="a database in memory is gone once it is closed", advice="connect anew"
        )
    reconnected = False
    waits = 0
    for tries in range(1, MAX_TRIES + 1):
        events: list[Any] = []
        try:
            with db.guard:
                answer = _attempt(db, work, events, writing=writing)
        except DRIVER_ERRORS as error:
            waits += is_lock_wait(error)
            if is_contended(error) and tries < MAX_TRIES and waits < MAX_WAITS:
                pause = random.uniform(0.2, 1.0) * min(0.002 * 2**tries, 0.5)  # noqa: S311 - jitter is no secret
                logger.info("contended, trying again", extra={"tries": tries})
                time.sleep(pause)
            elif is_lost(error) and not reconnected:
                reconnected = True
                db.engine.dispose()
            else:
                raise_translated(error, label=db.label, is_sqlite=db.is_sqlite)
        else:
            for tell in db.after_commit if events else ():
                tell(events)
            return answer
    raise AssertionError("unreachable")  # pragma: no cover - the last try returns or raises


def _attempt(
    db: Database, work: Callable[[Connection], Answer], events: list[Any], *, writing: bool
) -> Answer:
    if db.process != os.getpid():
        db.engine.dispose(close=False)  # the sockets belong to the process that we were forked from
        db.process = os.getpid()
    with db.engine.connect() as conn:
        conn.info["gwf_events"] = events
        try:
            if db.is_sqlite:
                _driver(conn).execute("BEGIN IMMEDIATE" if writing else "BEGIN")
            answer = work(conn)
        except BaseException as error:
            if isinstance(error, GwfError) and error.logged:
                _commit(db, conn)  # the refusal itself is kept, nothing else was written
            else:
                _give_up(conn, error)
            raise
        else:
            if writing:
                _commit(db, conn)
            else:
                _roll_back(conn)
        return answer


def _driver(conn: Connection) -> Any:
    return conn.connection.dbapi_connection


def _commit(db: Database, conn: Connection) -> None:
    try:
        if conn.in_transaction():  # a clause was run by SQLAlchemy, which then keeps count
            conn.commit()
        else:
            _driver(conn).commit()
    except DRIVER_ERRORS as error:
        if is_lost(error):
            conn.invalidate(error)
            db.engine.dispose()
            raise OutcomeUnknown(db.label, reason=message_of(error)) from error
        _give_up(conn, error)
        raise


def _roll_back(conn: Connection) -> None:
    if conn.in_transaction():
        conn.rollback()
    else:
        _driver(conn).rollback()


def _give_up(conn: Connection, error: BaseException) -> None:
    """Undo what was done, or drop the connection where that cannot be done."""
    if is_lost(error):
        conn.invalidate(error)
        return
    try:
        _roll_back(conn)
    except DRIVER_ERRORS as failure:
        conn.invalidate(failure)


def utc_now() -> datetime:
    """Return the time of this process's clock, which is also that of an embedded database."""
    return datetime.now(UTC)


def _parsed(url: str | sa.URL) -> sa.URL:
    with contextlib.suppress(sa.exc.ArgumentError, ValueError):
        return sa.make_url(url)
    raise _unreadable()  # outside the handler: SQLAlchemy's own error would carry the password


def _unreadable() -> Invalid:
    return Invalid(
        "database URL",
        "(not shown, it may hold a password)",
        expected="like sqlite:///gwf.db or mysql+pymysql://user:password@host:3306/name; "
        "write @ / : % # of a password as %40 %2F %3A %25 %23, or use DB_PASSWORD",
    )


def _open_sqlite(url: sa.URL, clock: Clock | None) -> Database:
    in_memory = url.database in (None, "", ":memory:")
    options: dict[str, Any] = {"connect_args": {"timeout": 30, "check_same_thread": False}}
    if in_memory:
        options["poolclass"] = StaticPool
    engine = sa.create_engine(url, pool_reset_on_return=None, **_json(), **options)

    @sa.event.listens_for(engine, "connect")
    def prepare(connection: Any, record: Any) -> None:
        connection.isolation_level = None
        record.info["gwf_clock"] = clock or utc_now
        for pragma in ("busy_timeout = 30000", "foreign_keys = ON", "synchronous = FULL"):
            connection.execute(f"PRAGMA {pragma}")
        if not in_memory:
            connection.execute("PRAGMA journal_mode = WAL")

    label = url.render_as_string(hide_password=True)
    guard = threading.RLock() if in_memory else contextlib.nullcontext()
    return Database(engine, label, guard, in_memory=in_memory)


def _open_server(url: sa.URL, clock: Clock | None) -> Database:
    if not url.host or "@" in f"{url.host}{url.database}":
        raise _unreadable()
    if not url.database:
        raise Invalid("database URL", url.render_as_string(), expected="name the database: …/name")
    if "charset" not in url.query:
        url = url.update_query_dict({"charset": "utf8mb4"})
    charset = str(url.query["charset"])
    if pymysql.charset.charset_by_name(charset) is None:
        raise Invalid("charset", charset, expected="utf8mb4, or another one that MySQL knows")
    engine = sa.create_engine(
        url,
        isolation_level="READ COMMITTED",
        paramstyle="format",  # by position, so that several statements fit into one query
        pool_reset_on_return=None,
        pool_recycle=1800,
        connect_args={"connect_timeout": 10},
        **_json(),
    )

    @sa.event.listens_for(engine, "do_connect")
    def connect(dialect: Any, record: Any, arguments: Any, options: dict[str, Any]) -> Any:
        options["client_flag"] = options.get("client_flag", 0) | CLIENT.MULTI_STATEMENTS
        if isinstance(options.get("password"), str):
            options["password"] = options["password"].encode()  # PyMySQL alone knows only Latin-1
        try:
            return dialect.connect(*arguments, **options)
        except (TypeError, OSError) as error:
            shown = url.render_as_string(hide_password=True)
            raise Invalid("options of the database URL", shown, expected=str(error)) from error

    @sa.event.listens_for(engine, "connect")
    def prepare(connection: Any, record: Any) -> None:
        record.info["gwf_clock"] = clock
        with connection.cursor() as cursor:
            cursor.execute(
                # a sort holds 15 rows at least, and a result may have 1,000,000 bytes
                "SET time_zone = '+00:00', innodb_lock_wait_timeout = 20, "
                "sort_buffer_size = 33554432, "
                "sql_mode = CONCAT(@@sql_mode, ',STRICT_TRANS_TABLES')"
            )

    return Database(engine, url.render_as_string(hide_password=True))


def _json() -> dict[str, Any]:
    encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return {"json_serializer": encoder.encode, "json_deserializer": json.loads}
