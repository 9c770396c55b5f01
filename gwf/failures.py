"""Tell what a failure of a database driver means, and say it in words of gwf."""

from __future__ import annotations

import sqlite3
from typing import NoReturn

import pymysql
import sqlalchemy as sa
from pymysql.constants import CR, ER

from gwf.errors import DatabaseUnavailable

#: What the drivers raise, wrapped by SQLAlchemy or not.
DRIVER_ERRORS = (sa.exc.DBAPIError, pymysql.err.Error, sqlite3.Error)

_LOST = frozenset(
    {
        CR.CR_SERVER_GONE_ERROR,
        CR.CR_SERVER_LOST,
        CR.CR_CONN_HOST_ERROR,
        ER.SERVER_SHUTDOWN,
        1927,  # MariaDB: the connection was killed
        4031,  # MySQL: disconnected by the server because of inactivity
        0,  # PyMySQL: the connection was closed on our side
    }
)
#: A duplicate key means that another call was first; the check that found no row is made again.
_CONTENDED = frozenset({ER.LOCK_DEADLOCK, ER.LOCK_WAIT_TIMEOUT, ER.DUP_ENTRY})
#: PyMySQL calls these operational, but no operator can mend them: they are faults of a statement.
_OUR_FAULT = frozenset({ER.BAD_FIELD_ERROR, ER.CANT_CREATE_TABLE, ER.OUT_OF_SORTMEMORY})


def is_contended(error: BaseException) -> bool:
    """Say whether another transaction was in the way, so that trying again may work."""
    driver = _driver_error(error)
    if isinstance(driver, pymysql.err.Error):
        return _code(driver) in _CONTENDED
    return isinstance(driver, sqlite3.OperationalError) and _sqlite_code(driver) in (
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
    )


def is_lock_wait(error: BaseException) -> bool:
    """Say whether a lock did not become free in the time that the database waits for one."""
    driver = _driver_error(error)
    if isinstance(driver, pymysql.err.Error):
        return _code(driver) in {ER.LOCK_WAIT_TIMEOUT}
    return _sqlite_code(driver) == sqlite3.SQLITE_BUSY


def is_lost(error: BaseException) -> bool:
    """Say whether the connection to the server is gone."""
    driver = _driver_error(error)
    if isinstance(driver, pymysql.err.InterfaceError):
        return True
    return isinstance(driver, pymysql.err.OperationalError) and _code(driver) in _LOST


def raise_translated(error: BaseException, *, label: str, is_sqlite: bool) -> NoReturn:
    """Raise the error of the tree that says what is wrong with the database and what to do.

    A failure that no user can have caused, such as wrong SQL, is raised as it is.
    """
    driver = _driver_error(error)
    code = _code(driver) if isinstance(driver, pymysql.err.Error) else _sqlite_code(driver)
    known = _SQLITE_ADVICE if is_sqlite else _SERVER_ADVICE
    is_operational = isinstance(driver, (pymysql.err.OperationalError, pymysql.err.InterfaceError))
    if code in known:
        reason, advice = known[code]
    elif is_operational and code not in _OUR_FAULT:
        reason, advice = message_of(error), "see the log of the server"
    else:
        raise error
    raise DatabaseUnavailable(label, reason=reason, advice=advice) from error


def message_of(error: BaseException) -> str:
    """Return the driver's own words."""
    driver = _driver_error(error)
    return str(driver.args[-1] if driver.args else driver)


_SERVER_ADVICE: dict[int | None, tuple[str, str]] = {
    ER.ACCESS_DENIED_ERROR: (
        "the server refuses this user or password",
        "check both in the URL or in DB_USER and DB_PASSWORD",
    ),
    ER.DBACCESS_DENIED_ERROR: (
        "this user has no rights on the database",
        "grant them: GRANT ALL ON <database>.* TO <user>",
    ),
    ER.TABLEACCESS_DENIED_ERROR: (
        "this user may not do that to a table",
        "grant SELECT, INSERT, UPDATE, DELETE; a migration needs CREATE, ALTER, DROP, INDEX too",
    ),
    ER.BAD_DB_ERROR: (
        "the server has no database of this name",
        "create it: CREATE DATABASE <name> CHARACTER SET utf8mb4",
    ),
    CR.CR_CONN_HOST_ERROR: (
        "nothing answers there",
        "check host and port, and that the server runs",
    ),
    CR.CR_SERVER_LOST: ("the connection was lost", "try again when the server is back"),
    CR.CR_SERVER_GONE_ERROR: ("the connection was lost", "try again when the server is back"),
    ER.OPTION_PREVENTS_STATEMENT: ("the server is read-only", "connect to the primary server"),
    ER.LOCK_WAIT_TIMEOUT: ("another transaction holds the lock", "end that one, then try again"),
    ER.LOCK_DEADLOCK: ("transactions keep colliding", "try again"),
}

_SQLITE_ADVICE: dict[int | None, tuple[str, str]] = {
    sqlite3.SQLITE_CANTOPEN: (
        "the file cannot be opened",
        "check that its folder exists and that you may write there",
    ),
    sqlite3.SQLITE_READONLY: (
        "the file is read-only",
        "make the file and its folder writable, or copy it",
    ),
    sqlite3.SQLITE_NOTADB: ("the file is no SQLite database", "name another file"),
    sqlite3.SQLITE_CORRUPT: ("the file is damaged", "restore it from a copy"),
    sqlite3.SQLITE_BUSY: (
        "another process holds the database",
        "end its transaction, then try again",
    ),
    sqlite3.SQLITE_FULL: ("the disk is full", "make room, then try again"),
}


def _driver_error(error: BaseException) -> BaseException:
    if isinstance(error, sa.exc.DBAPIError) and error.orig is not None:
        return error.orig
    return error


def _code(error: BaseException) -> int | None:
    code = error.args[0] if error.args else None
    return code if isinstance(code, int) else None


def _sqlite_code(error: BaseException) -> int | None:
    extended: int | None = getattr(error, "sqlite_errorcode", None)
    return None if extended is None else extended & 0xFF
