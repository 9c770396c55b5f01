"""Open, log in, refuse, retry: what a database may do to us, on SQLite, MariaDB and MySQL."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import sqlite3
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
import sqlalchemy as sa
from pymysql.constants import ER
from servers import running

import gwf
from gwf import database, migrate
from gwf.database import Database, database_url, open_database, read, write
from gwf.statements import Statement
from gwf.tables import UtcDateTime, users

TAIL = "/:%#密码"
SECRET = f"s3cr3t@{TAIL}"
NOBODY = 65_534
servers_only = pytest.mark.parametrize("databases", ["mariadb", "mysql"], indirect=True)
ADD_USER = Statement(
    users.insert().values(
        name=sa.bindparam("name"),
        is_active=True,
        created_at=sa.bindparam("at"),
        updated_at=sa.bindparam("at"),
    )
)
NAMES = Statement(sa.select(users.c.name, users.c.created_at).order_by(users.c.created_at))


def add_user(name: str, at: datetime | None = None) -> Callable[[sa.Connection], int]:
    """Return work that inserts one row."""
    return lambda conn: ADD_USER.insert(conn, name=name, at=at or datetime.now(UTC))


def value_of(db: Database, query: str) -> Any:
    """Return the one value of a query."""
    return read(db, lambda conn: conn.exec_driver_sql(query).scalar())


def names(db: Database) -> list[str]:
    """Return the names that were inserted."""
    return [row[0] for row in read(db, NAMES.fetch)]


@pytest.fixture
def login(databases: Any) -> Iterator[Callable[..., sa.URL]]:
    """Return a maker of users of a database of their own; it returns the URL of the database."""
    made: list[str] = []
    admin = sa.create_engine(databases.server.url, isolation_level="AUTOCOMMIT")

    def make(password: str, rights: str = "ALL PRIVILEGES") -> sa.URL:
        url = sa.make_url(databases.new())
        made.append(f"gwf_{secrets.token_hex(6)}")
        with admin.connect() as conn:
            conn.exec_driver_sql("CREATE USER %s IDENTIFIED BY %s", (made[-1], password))
            if rights:
                name = str(url.database).replace("_", r"\_")  # the name is a pattern here
                conn.exec_driver_sql(f"GRANT {rights} ON `{name}`.* TO '{made[-1]}'")
        return url.set(username=made[-1], password=password)

    yield make
    with admin.connect() as conn:
        for name in made:
            conn.exec_driver_sql(f"DROP USER '{name}'")
    admin.dispose()


def refusal(url: str | sa.URL) -> gwf.GwfError:
    """Return the error of the tree that connecting and writing gives; the password is not in it."""
    with pytest.raises(gwf.GwfError) as refused, gwf.connect(url) as wf:
        wf.create_task("a")
    error: BaseException | None = refused.value
    shown = "".join(traceback.format_exception(refused.value))
    while error is not None:
        shown += f"{error} {error!r} {error.args!r} {vars(error)!r}"
        error = error.__cause__ or error.__context__
    for secret in (SECRET, TAIL, "s3cr3t", "密码"):
        assert secret not in shown
        assert quote(secret, safe="") not in shown
        assert quote_plus(secret) not in shown
    return refused.value


# Where the environment says it is


def test_database_url_is_the_embedded_default() -> None:
    assert str(database_url({})) == "sqlite:///gwf.db"
    assert str(database_url({"HOME": "here", "DB_OTHER": "x", "GWF_DATABASE_URL": ""})) == (
        "sqlite:///gwf.db"
    )


def test_database_url_comes_first_and_whole() -> None:
    url = database_url({"GWF_DATABASE_URL": "mysql+pymysql://u:p%40@h:3307/n", "DB_HOST": "other"})
    assert (url.host, url.port, url.username, url.password, url.database) == (
        "h",
        3307,
        "u",
        "p@",
        "n",
    )


@pytest.mark.parametrize("name", ["HOST", "PORT", "USER", "PASSWORD", "NAME", "CHARSET"])
def test_database_url_takes_the_published_parts(name: str) -> None:
    """One of them is enough, the others have the published defaults; any character is kept."""
    value = "3307" if name == "PORT" else "a@/:%# 中文"
    url = database_url({f"DB_{name}": value})
    found = {
        "HOST": url.host,
        "PORT": str(url.port),
        "USER": url.username,
        "PASSWORD": url.password or "",
        "NAME": url.database,
        "CHARSET": url.query["charset"],
    }
    defaults = ("localhost", "3306", "root", "", "workflow", "utf8mb4")
    assert found == {**dict(zip(found, defaults, strict=True)), name: value}


@pytest.mark.parametrize("port", ["", "x", "33 06", "-1", "0", "²", "65536"])
def test_database_url_is_refused_with_a_bad_port(port: str) -> None:
    with pytest.raises(gwf.Invalid, match="DB_PORT"):
        database_url({"DB_PORT": port})


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "like sqlite:///gwf.db or mysql"),
        ("gwf.db", "like sqlite:///gwf.db"),
        ("postgresql://u@h/n", "sqlite, mysql or mariadb"),
        (f"mysql+pymysql://u:{SECRET}@h/n", "write @ / : % # of a password as %40"),
        ("mysql+pymysql://u:x@密码@h/n", "write @ / : % # of a password as %40"),
        ("mysql+pymysql://u:x@y:密码@h/n", "write @ / : % # of a password as %40"),
        (f"mysql://u:{quote(SECRET, safe='')}@h", "name the database"),
        (f"mysql://u:{quote(SECRET, safe='')}@h:port/n", "like sqlite"),
        (f"mysql://u:{quote(SECRET, safe='')}@127.0.0.1:65536/n", "port"),
    ],
)
def test_open_is_refused_with_a_bad_url_and_hides_its_password(url: str, reason: str) -> None:
    """A password that was not escaped is the likely cause, so the message says how to do that."""
    assert reason in str(refusal(url))


def test_open_reads_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """``gwf.connect()`` alone makes a file in the working directory, or where it is told."""
    for name in [name for name in os.environ if name.startswith(("DB_", "GWF_DATABASE"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    gwf.connect().close()
    assert (tmp_path / "gwf.db").exists()
    monkeypatch.setenv("GWF_DATABASE_URL", f"sqlite:///{tmp_path}/other.db")
    gwf.connect().close()
    assert (tmp_path / "other.db").exists()


# Logging in


@servers_only
@pytest.mark.parametrize(
    "password",
    [
        "p@ss",
        "a/b",
        "a:b",
        "100%",
        "#hash?",
        "sp ace",
        "quo'te\"`",
        "back\\slash",
        "密码",
        "🔑é",
        SECRET,
    ],
)
def test_password_of_any_character_logs_in(login: Callable[..., sa.URL], password: str) -> None:
    """As a URL object, as an escaped text, and in parts; no repr shows it."""
    url = login(password)
    escaped = url.render_as_string(hide_password=False)
    parts = {"HOST": url.host, "PORT": str(url.port), "USER": url.username, "PASSWORD": password}
    parts["NAME"] = url.database
    in_parts = database_url({f"DB_{name}": value for name, value in parts.items()})  # type: ignore[misc]  # all are text
    for way in (url, escaped, in_parts, escaped.replace("mysql+pymysql", "mysql")):
        db = open_database(way)
        assert value_of(db, "SELECT 1") == 1
        assert password not in repr(db) + db.label
        assert quote_plus(password) not in repr(db) + db.label
        db.close()


@servers_only
def test_mariadb_address_means_either_server_or_is_refused(databases: Any) -> None:
    """SQLAlchemy lets ``mariadb://`` reach no MySQL; whatever we say to that is of the tree."""
    url = databases.new().replace("mysql+pymysql", "mariadb")
    with contextlib.suppress(gwf.GwfError):
        gwf.connect(url).close()
    assert open_database(url).is_sqlite is False


@servers_only
def test_wrong_password_is_refused(login: Callable[..., sa.URL]) -> None:
    error = refusal(login("right").set(password=SECRET))
    assert isinstance(error, gwf.DatabaseUnavailable)
    assert "refuses this user or password; check both in the URL or in DB_USER" in str(error)
    assert (error.http_status, error.exit_code) == (503, 6)
    assert isinstance(error, ConnectionError)


@servers_only
def test_unknown_database_is_refused(databases: Any) -> None:
    url = sa.make_url(databases.server.url).set(database="gwf_missing")
    assert "no database of this name; create it: CREATE DATABASE" in str(refusal(url))


@servers_only
@pytest.mark.parametrize("rights", ["", "SELECT"])
def test_missing_rights_are_named(login: Callable[..., sa.URL], rights: str) -> None:
    """Without any right on the database, and with too few to make the tables."""
    assert "grant" in str(refusal(login(SECRET, rights)))


@servers_only
def test_unknown_charset_is_refused(databases: Any) -> None:
    url = sa.make_url(databases.new()).update_query_dict({"charset": "utf9"})
    assert "charset" in str(refusal(url))


def test_dead_server_is_refused() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"mysql+pymysql://u:{quote(SECRET, safe='')}@127.0.0.1:{port}/n"
    assert "nothing answers there; check host and port, and that the server runs" in str(
        refusal(url)
    )


def test_unknown_host_is_refused() -> None:
    url = f"mysql+pymysql://u:{quote(SECRET, safe='')}@no-such-host.invalid/n"
    assert "check host and port" in str(refusal(url))


# What is found there


@pytest.mark.parametrize(
    ("tables", "reason"),
    [
        (["customers", "orders"], r"tables of something else \(customers, orders\); name another"),
        (["jobs", "tasks"], r"tables of something else \(jobs, tasks\); name another"),
        (["tasks", "flows", "flow_tasks", "jobs", "job_tasks", "job_task_logs"], "gwf adopt"),
    ],
)
def test_foreign_tables_are_refused(databases: Any, tables: list[str], reason: str) -> None:
    """Nothing is added to a database of something else, and GoWorkFlow's is taken on purpose."""
    url = databases.new()
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as conn:
        for table in tables:
            conn.exec_driver_sql(f"CREATE TABLE {table} (id INTEGER PRIMARY KEY)")
    with pytest.raises(gwf.DatabaseMismatch, match=reason):
        gwf.connect(url)
    assert sorted(sa.inspect(engine).get_table_names()) == sorted(tables)


@pytest.mark.parametrize("revision", ["0099", "3f2a"])
def test_newer_revision_is_refused(db: Database, revision: str) -> None:
    statement = f"UPDATE alembic_version SET version_num = '{revision}'"
    write(db, lambda conn: conn.exec_driver_sql(statement))
    try:
        for look in (migrate.prepare, migrate.upgrade):
            with pytest.raises(gwf.DatabaseMismatch, match=f"{revision}, newer than .*install"):
                look(db)
    finally:
        statement = f"UPDATE alembic_version SET version_num = '{migrate.HEAD}'"
        write(db, lambda conn: conn.exec_driver_sql(statement))


def test_older_revision_is_upgraded_on_purpose_on_a_server(databases: Any) -> None:
    """A file is brought up to date by itself, a server is shared and waits for ``gwf upgrade``."""
    url = databases.new()
    db = open_database(url)
    migrate.upgrade(db, migrate.PUBLISHED)
    if not db.is_sqlite:
        with pytest.raises(gwf.DatabaseMismatch, match=r"revision 0001, .*run `gwf upgrade`"):
            gwf.connect(url)
        migrate.upgrade(db)
    gwf.connect(url).close()
    assert migrate.current(db) == migrate.HEAD
    db.close()


def test_missing_folder_is_named(tmp_path: Path) -> None:
    error = refusal(f"sqlite:///{tmp_path}/no/such/folder/gwf.db")
    assert "no/such/folder/gwf.db: the file cannot be opened; check that its folder" in str(error)


def test_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    """It is left as it is."""
    path = tmp_path / "notes.txt"
    path.write_text("no database\n" * 1000)
    assert "no SQLite database; name another file" in str(refusal(f"sqlite:///{path}"))
    assert path.read_text() == "no database\n" * 1000
    assert "cannot be opened" in str(refusal(f"sqlite:///{tmp_path}"))


def test_read_only_address_is_refused_on_writing(sqlite_url: str) -> None:
    """``mode=ro`` is read-only also for root: reading works, a write is refused with advice."""
    gwf.connect(sqlite_url).close()
    path = sa.make_url(sqlite_url).database
    url = f"sqlite:///file:{path}?mode=ro&uri=true"
    with gwf.connect(url) as wf:
        assert wf.tasks().empty
    assert "the file is read-only; make the file and its folder writable" in str(refusal(url))


@contextlib.contextmanager
def ordinary_user() -> Iterator[None]:
    """Be somebody whom permissions stop; root would pass them all."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


@pytest.mark.parametrize(("of_file", "of_folder"), [(0o444, 0o777), (0o444, 0o555), (0o666, 0o555)])
def test_read_only_file_or_folder_is_refused(of_file: int, of_folder: int) -> None:
    """SQLite writes the file and, for its log, into the folder; the advice names both."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "gwf.db"
        with gwf.connect(f"sqlite:///{path}") as wf:
            wf.create_task("kept")
        path.chmod(of_file)
        folder.chmod(of_folder)
        with ordinary_user():
            error = refusal(f"sqlite:///{path}")
        folder.chmod(0o755)
        assert isinstance(error, gwf.DatabaseUnavailable)
        assert "read-only" in str(error) or "cannot be opened" in str(error)
        assert "folder" in error.advice
        with gwf.connect(f"sqlite:///{path}") as wf:
            assert wf.tasks()["name"].tolist() == ["kept"]


# How it is set up


def test_sqlite_is_set_up(sqlite_url: str) -> None:
    db = open_database(sqlite_url)
    wanted = {"journal_mode": "wal", "foreign_keys": 1, "synchronous": 2, "busy_timeout": 30_000}
    assert {name: value_of(db, f"PRAGMA {name}") for name in wanted} == wanted
    db.close()


def test_sqlite_locks_when_a_write_begins(sqlite_url: str) -> None:
    """BEGIN IMMEDIATE: who writes is alone from the start, who reads keeps nobody out."""
    db = open_database(sqlite_url)
    migrate.upgrade(db)
    other = sqlite3.connect(str(sa.make_url(sqlite_url).database), timeout=0, isolation_level=None)

    def lock(conn: sa.Connection) -> None:
        other.execute("BEGIN IMMEDIATE")
        other.execute("ROLLBACK")

    read(db, lock)
    with pytest.raises(gwf.DatabaseUnavailable, match="another process holds the database"):
        write(db, lock)
    other.close()
    db.close()


@servers_only
def test_session_of_a_server_is_set_up(databases: Any, db: Database) -> None:
    isolation = "tx_isolation" if databases.kind == "mariadb" else "transaction_isolation"
    assert value_of(db, f"SELECT @@{isolation}") == "READ-COMMITTED"
    assert value_of(db, "SELECT @@time_zone") == "+00:00"
    assert value_of(db, "SELECT @@character_set_connection") == "utf8mb4"
    assert "STRICT_TRANS_TABLES" in value_of(db, "SELECT @@sql_mode")


def test_one_process_uses_both_servers(server_of: Callable[[str], Any]) -> None:
    """MySQL and MariaDB are one dialect to SQLAlchemy, but a statement is compiled for each."""
    statement = Statement(sa.select(users.c.id).with_for_update(read=True))
    for kind in ("mysql", "mariadb", "mysql"):
        server, name = server_of(kind), "gwf_one_of_both"
        running.drop_database(server, name)
        with gwf.connect(running.create_database(server, name)) as wf:
            assert read(wf.database, statement.fetch) == []
        running.drop_database(server, name)


INSTANTS = [
    datetime(1970, 1, 1, tzinfo=UTC),
    datetime(2025, 6, 1, 12, 0, 0, 1, tzinfo=UTC),
    datetime(2026, 11, 1, 23, 59, 59, 999_999, tzinfo=timezone(timedelta(hours=-8))),
    datetime(2040, 1, 1, 5, 30, tzinfo=timezone(timedelta(hours=5, minutes=30))),
    datetime(9999, 12, 31, tzinfo=UTC),
]


def test_instants_are_kept_to_the_microsecond(db: Database) -> None:
    """They come back aware, in UTC, equal, and sorted by the database as they pass in time."""
    for at in reversed(INSTANTS):
        write(db, add_user(at.isoformat(), at))
    by_sqlalchemy = sa.select(users.c.name, users.c.created_at).order_by(users.c.created_at)
    for found in (read(db, NAMES.fetch), read(db, lambda conn: conn.execute(by_sqlalchemy).all())):
        assert [row[1] for row in found] == INSTANTS
        assert [row[0] for row in found] == [at.isoformat() for at in INSTANTS]
        assert {row[1].tzinfo for row in found} == {UTC}


def test_instants_are_refused_when_naive(db: Database) -> None:
    naive = datetime(2026, 11, 1)  # noqa: DTZ001 - refusing it is the point
    with pytest.raises(gwf.Invalid, match="give the time zone"):
        UtcDateTime().process_bind_param(naive, db.engine.dialect)
    with pytest.raises(gwf.Invalid, match="give the time zone"):
        write(db, add_user("a", naive))
    assert names(db) == []


# What happens under way


def test_write_that_fails_leaves_nothing(db: Database) -> None:
    """An error of the work, of whatever kind, undoes it and frees the connection."""

    def work(conn: sa.Connection) -> None:
        add_user("a")(conn)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write(db, work)
    read(db, add_user("b"))
    assert names(db) == []
    write(db, add_user("c"))
    assert names(db) == ["c"]


def contend(times: int, code: int) -> Callable[[sa.Connection], int]:
    """Return work whose database reports this error so often before it lets it pass."""
    calls = {"n": 0}

    def work(conn: sa.Connection) -> int:
        calls["n"] += 1
        add_user(f"try {calls['n']}")(conn)
        if calls["n"] <= times:
            conn.exec_driver_sql(f"SIGNAL SQLSTATE '40001' SET MYSQL_ERRNO = {code}")
        return calls["n"]

    return work


@servers_only
def test_write_is_tried_again_after_a_deadlock(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each try begins anew, and after the twelfth it says so (rule T2)."""
    pauses: list[float] = []
    monkeypatch.setattr(database.time, "sleep", pauses.append)
    assert write(db, contend(3, ER.LOCK_DEADLOCK)) == 4
    assert names(db) == ["try 4"]
    assert len(pauses) == 3
    pauses.clear()
    with pytest.raises(gwf.DatabaseUnavailable, match="try again"):
        write(db, contend(99, ER.LOCK_DEADLOCK))
    assert len(pauses) == database.MAX_TRIES - 1
    assert names(db) == ["try 4"]


@servers_only
def test_write_waits_twice_for_a_lock(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wait that outlasted the server's limit is made once more, not twelve times."""
    monkeypatch.setattr(database.time, "sleep", lambda pause: None)
    assert write(db, contend(1, ER.LOCK_WAIT_TIMEOUT)) == 2
    work = contend(99, ER.LOCK_WAIT_TIMEOUT)
    with pytest.raises(gwf.DatabaseUnavailable, match="end that one"):
        write(db, work)
    assert names(db) == ["try 2"]


def test_faults_of_statements_are_no_outage(db: Database) -> None:
    """A column that does not exist is no matter for whoever runs the server."""
    with pytest.raises(sa.exc.OperationalError):
        read(db, lambda conn: conn.exec_driver_sql("SELECT no_such_column FROM jobs"))


def test_write_is_tried_again_while_sqlite_is_busy(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The holder lets go in the pause after the first wait."""
    db = open_database(sqlite_url)
    migrate.upgrade(db)
    read(db, lambda conn: conn.exec_driver_sql("PRAGMA busy_timeout = 0"))
    holder = sqlite3.connect(str(sa.make_url(sqlite_url).database), isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        holder.execute("ROLLBACK")

    monkeypatch.setattr(database.time, "sleep", pause)
    write(db, add_user("a"))
    assert (len(pauses), names(db)) == (1, ["a"])
    holder.close()
    db.close()


@servers_only
def test_write_is_done_once_after_a_lost_connection(databases: Any, db: Database) -> None:
    """A connection that died in the pool is replaced, once, and the work done on the new one."""
    admin = sa.create_engine(databases.server.url, isolation_level="AUTOCOMMIT")

    def kill(connection_id: int) -> None:
        with admin.connect() as conn:
            conn.exec_driver_sql(f"KILL {connection_id}")

    first = value_of(db, "SELECT CONNECTION_ID()")
    kill(first)
    write(db, add_user("a"))
    assert names(db) == ["a"]
    assert value_of(db, "SELECT CONNECTION_ID()") != first

    def lose(conn: sa.Connection) -> None:
        add_user("b")(conn)
        kill(conn.exec_driver_sql("SELECT CONNECTION_ID()").scalar_one())

    with pytest.raises(gwf.OutcomeUnknown, match="idempotency key"):
        write(db, lose)
    assert names(db) == ["a"]
    admin.dispose()


def test_memory_is_shared_by_threads() -> None:
    """One database in memory, whatever thread asks, and no two writes at once."""
    with gwf.connect("sqlite://") as wf, ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda n: wf.create_task(f"task {n}").id, range(100)))
        assert sorted(made) == list(range(1, 101))
        assert len(wf.tasks()) == 100
    with gwf.connect("sqlite://") as another:
        assert another.tasks().empty


def test_client_is_shared_by_threads(wf: gwf.Client) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda n: wf.create_task(f"task {n}").name, range(60)))
    assert sorted(wf.tasks()["name"]) == sorted(made)


def test_child_process_opens_connections_of_its_own(db: Database) -> None:
    """After a fork both go on; the child does not speak on its parent's sockets."""
    write(db, add_user("parent"))
    query = "SELECT 0" if db.is_sqlite else "SELECT CONNECTION_ID()"
    mine = value_of(db, query)
    out, into = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads, which it leaves alone
        child = os.fork()
    if child == 0:
        signal.alarm(60)
        try:
            write(db, add_user("child"))
            os.write(into, str(value_of(db, query)).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(into)
    with os.fdopen(out) as answer:
        theirs = int(answer.read())
    assert db.is_sqlite or theirs != mine
    assert value_of(db, query) == mine
    write(db, add_user("parent again"))
    assert sorted(names(db)) == ["child", "parent", "parent again"]
