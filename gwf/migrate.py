"""Bring a database to the schema of this version, or say why that cannot be done.

Why a database is prepared on first use: the embedded default is made and kept current by itself, so
a notebook needs no set-up. On a server an empty database is prepared too, there being nothing to
lose; one with tables in it is changed only on purpose, by ``gwf upgrade`` or ``gwf adopt``, since
other programs may be using it.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gwf import resources
from gwf.database import Database, read, write
from gwf.errors import DatabaseMismatch, DatabaseUnavailable
from gwf.failures import DRIVER_ERRORS, raise_translated
from gwf.published import published_schema

if TYPE_CHECKING:
    from alembic.config import Config

logger = logging.getLogger(__name__)

#: The newest revision; a test compares it with the scripts.
HEAD = "0004"
PUBLISHED = "0001"

_OLDEST_SERVERS = {True: ((10, 6), "MariaDB"), False: ((8, 0), "MySQL")}
_LOCK = "gwf_migrate"
#: How long a migration of another process is waited for, in seconds.
_WAIT_S = 60

#: A database with all of these is one of GoWorkFlow's.
_SIGNATURE = frozenset({"job_tasks", "flow_tasks", "job_task_logs"})


def prepare(db: Database) -> None:
    """Make sure that the database has the schema of this version.

    Raises
    ------
    DatabaseMismatch
        A server with an older schema (``gwf upgrade``), with the tables of GoWorkFlow
        (``gwf adopt``), with a newer schema, or with tables of something else.
    DatabaseUnavailable
        The database cannot be reached.
    """
    revision, tables = read(db, _revision_and_tables)
    if revision is None and tables:
        revision, tables = _settled(db)
    if revision == HEAD:
        return
    if revision is None and tables and not _is_interrupted(db, tables):
        raise _not_ours(db, tables)
    if revision is None or (db.is_sqlite and _is_older(revision)):
        upgrade(db)
        return
    raise _wrong_revision(db, revision)


def current(db: Database) -> str | None:
    """Return the revision of the database, or None where gwf has no tables."""
    return read(db, _revision_and_tables)[0]


def upgrade(db: Database, revision: str = HEAD) -> None:
    """Upgrade the database, keeping its data; doing it twice changes nothing.

    Raises
    ------
    DatabaseMismatch
        The tables in it are not those of gwf.
    """
    found, tables = read(db, _revision_and_tables)
    if found is None and tables:
        found, tables = _settled(db)
    if found is None and tables and not _is_interrupted(db, tables):
        raise _not_ours(db, tables)
    if found is not None and not _is_older(found) and found != HEAD:
        raise _wrong_revision(db, found)
    _run(db, "upgrade", revision)


def downgrade(db: Database, revision: str) -> None:
    """Go back to an older revision; what it cannot hold is lost, see the migration."""
    _run(db, "downgrade", revision)


def check(db: Database) -> list[str]:
    """Return how the database differs from the tables of this version; empty when it does not."""
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    from gwf.tables import metadata

    def compare(conn: Connection) -> list[str]:
        context = MigrationContext.configure(conn, opts={"compare_type": is_other_type})
        return [str(difference) for difference in compare_metadata(context, metadata)]

    return read(db, compare)


def adopt(db: Database) -> None:
    """Take over a database that GoWorkFlow made, with its data.

    Raises
    ------
    DatabaseMismatch
        It lacks a table or a column of the published schema; nothing is changed then.
    """
    revision, tables = read(db, _revision_and_tables)
    if revision is None:
        if not tables:
            raise DatabaseMismatch(
                db.label, reason="it is empty", advice="`gwf init` makes new tables"
            )
        missing = read(db, _missing_from_published)
        if missing:
            raise DatabaseMismatch(
                db.label,
                reason=f"it is not what GoWorkFlow published: {', '.join(missing)} missing",
                advice="name the database that GoWorkFlow used",
            )
        write(db, _add_missing_context_table)
        _run(db, "stamp", PUBLISHED)
    upgrade(db)


def _revision_and_tables(conn: Connection) -> tuple[str | None, list[str]]:
    _expect_recent_server(conn)
    tables = sa.inspect(conn).get_table_names()
    if "alembic_version" not in tables:
        return None, tables
    revision = conn.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    is_ours = {"job_tasks", "jobs", "flows", "tasks"} <= set(tables)
    others = [name for name in tables if name != "alembic_version"]
    if revision is None or not is_ours:
        return None, tables
    return revision, others


def _settled(db: Database) -> tuple[str | None, list[str]]:
    """Read again once nobody else is migrating: MySQL shows half of what another one makes."""
    with db.guard, _alone(db) as conn:
        return _revision_and_tables(conn)


def _is_interrupted(db: Database, tables: list[str]) -> bool:
    """Say whether an interrupted first preparation left these: some of our tables, all empty."""
    published = {table.name for table in published_schema("mysql").sorted_tables}
    ours = set(tables) - {"alembic_version"}
    if len(ours) == len(tables) or not ours < published:
        return False  # Alembic makes its own table first

    def are_empty(conn: Connection) -> bool:
        found = (sa.select(sa.literal(1)).select_from(sa.table(name)).limit(1) for name in tables)
        return not any(conn.execute(query).first() for query in found)

    return read(db, are_empty)


def _expect_recent_server(conn: Connection) -> None:
    dialect: Any = conn.dialect
    if dialect.name == "sqlite":
        return
    oldest, name = _OLDEST_SERVERS[bool(dialect.is_mariadb)]
    if dialect.server_version_info[:2] < oldest:
        found = ".".join(map(str, dialect.server_version_info))
        needed = ".".join(map(str, oldest))
        raise DatabaseMismatch(
            name,
            reason=f"the server is {name} {found}",
            advice=f"use {name} {needed} or newer",
        )


def _missing_from_published(conn: Connection) -> list[str]:
    inspector = sa.inspect(conn)
    tables = set(inspector.get_table_names())
    missing: list[str] = []
    for table in published_schema(conn.dialect.name).sorted_tables:
        if table.name == "job_context":
            continue  # its own script made it, so older installations lack it
        if table.name not in tables:
            missing.append(table.name)
            continue
        columns = {column["name"] for column in inspector.get_columns(table.name)}
        missing += [
            f"{table.name}.{name}"
            for name in (column.name for column in table.c)
            if name not in columns
        ]
    return missing


def _add_missing_context_table(conn: Connection) -> None:
    schema = published_schema(conn.dialect.name)
    schema.tables["job_context"].create(conn, checkfirst=True)


def _is_older(revision: str) -> bool:
    return revision.isdigit() and int(revision) < int(HEAD)


def _not_ours(db: Database, tables: list[str]) -> DatabaseMismatch:
    if set(tables) >= _SIGNATURE:
        return DatabaseMismatch(
            db.label,
            reason="it holds the tables of GoWorkFlow",
            advice="make a backup, then `gwf adopt` takes it over with its data",
        )
    shown = ", ".join(sorted(tables)[:5])
    return DatabaseMismatch(
        db.label,
        reason=f"it holds tables of something else ({shown})",
        advice="name another database",
    )


def _wrong_revision(db: Database, revision: str) -> DatabaseMismatch:
    if _is_older(revision):
        return DatabaseMismatch(
            db.label,
            reason=f"its schema is revision {revision}, this version of gwf needs {HEAD}",
            advice="make a backup, then run `gwf upgrade`",
        )
    return DatabaseMismatch(
        db.label,
        reason=f"its schema is revision {revision}, newer than {HEAD}",
        advice="install the version of gwf that the others use",
    )


def _run(db: Database, command_name: str, revision: str) -> None:
    """Run an Alembic command, one process at a time.

    On SQLite it is one transaction. A server cannot undo a CREATE TABLE, so there each revision is
    committed when it is reached, and whatever refuses to be undone is asked before the first step.
    """
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(resources.directory("migrations")))
    try:
        with db.guard, _alone(db) as conn:
            config.attributes["connection"] = conn
            steps = [revision]
            if command_name != "stamp":
                steps = _steps(conn, config, revision, is_upgrade=command_name == "upgrade")
            for step in steps:
                getattr(command, command_name)(config, step)
                if not db.is_sqlite:
                    conn.commit()
    except DRIVER_ERRORS as error:
        raise_translated(error, label=db.label, is_sqlite=db.is_sqlite)
    logger.info("migrated", extra={"command": command_name, "revision": revision})


def _steps(conn: Connection, config: Config, revision: str, *, is_upgrade: bool) -> list[str]:
    """Return the revisions on the way, in their order."""
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory.from_config(config)
    found = MigrationContext.configure(conn).get_current_revision() or "base"
    if is_upgrade:
        return [one.revision for one in scripts.iterate_revisions(revision, found)][::-1]
    undone = list(scripts.iterate_revisions(found, revision))
    for script in undone:
        expect_reversible = getattr(script.module, "expect_reversible", None)
        if expect_reversible is not None:
            expect_reversible(conn)
    return [str(script.down_revision or "base") for script in undone]


@contextlib.contextmanager
def _alone(db: Database) -> Iterator[Connection]:
    with db.engine.connect() as conn:
        if db.is_sqlite:
            raw: Any = conn.connection.driver_connection
            raw.execute("PRAGMA foreign_keys = OFF")  # renaming would carry out the cascades
            try:
                with conn.begin():
                    conn.exec_driver_sql("BEGIN IMMEDIATE")  # the driver itself begins none
                    yield conn
                    broken = conn.exec_driver_sql("PRAGMA foreign_key_check").fetchall()
                    assert not broken, broken  # noqa: S101 - a fault of a migration, undone here
            finally:
                raw.execute("PRAGMA foreign_keys = ON")
            return
        if conn.exec_driver_sql("SELECT GET_LOCK(%s, %s)", (_LOCK, _WAIT_S)).scalar() != 1:
            raise DatabaseUnavailable(
                db.label,
                reason=f"another process has been migrating it for {_WAIT_S} seconds",
                advice="wait until that one ends, then try again",
            )
        try:
            yield conn
            conn.commit()
        finally:
            conn.rollback()
            conn.exec_driver_sql("SELECT RELEASE_LOCK(%s)", (_LOCK,))
            conn.rollback()


def is_other_type(
    _context: Any, _inspected: Any, _column: Any, inspected_type: Any, metadata_type: Any
) -> bool | None:
    """Say whether a column's type differs; None leaves the decision to Alembic."""
    is_json = isinstance(metadata_type, sa.JSON)
    if is_json and type(inspected_type).__name__ == "LONGTEXT":
        return False  # MariaDB stores JSON so, with a check
    return None
