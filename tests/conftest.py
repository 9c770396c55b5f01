"""Run each test on SQLite, MariaDB and MySQL: real servers, started by the test session itself.

A database is migrated once per session and emptied before each test, ids and all.
A missing server fails the run and says how to get it; nothing is skipped.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest
import sqlalchemy as sa
from held import Held
from servers import running

import gwf
from gwf import migrate
from gwf.database import Database, open_database
from gwf.tables import metadata

hypothesis.settings.register_profile(
    "gwf", deadline=None, derandomize=True, print_blob=True, database=None
)
hypothesis.settings.load_profile("gwf")

KINDS = ("sqlite", "mariadb", "mysql")


class Databases:
    """Make databases of one kind, on one server."""

    def __init__(self, kind: str, folder: Path, server: running.Server | None) -> None:
        self.kind = kind
        self.server = server
        self._folder = folder
        self._n_made = 0
        self._migrated: str | None = None

    def new(self) -> str:
        """Return the URL of a new database without tables."""
        self._n_made += 1
        if self.server is None:
            return f"sqlite:///{self._folder}/{self.kind}{self._n_made}.db"
        name = f"gwf_{self._folder.name.replace('-', '_')}_{self._n_made}"
        running.drop_database(self.server, name)
        return running.create_database(self.server, name)

    def empty(self) -> str:
        """Return the URL of a migrated database without rows, whose ids begin at 1."""
        if self._migrated is None:
            self._migrated = self.new()
            db = open_database(self._migrated)
            migrate.upgrade(db)
            db.close()
        if self.server is None:
            template = Path(str(sa.make_url(self._migrated).database))
            copy = self.new()
            shutil.copy(template, str(sa.make_url(copy).database))
            return copy
        _truncate(self._migrated)
        return self._migrated


def _truncate(url: str) -> None:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    names = [table.name for table in metadata.sorted_tables]
    with engine.connect() as conn:
        used = conn.execute(
            sa.select(*(sa.exists(sa.select(sa.text("1")).select_from(sa.table(n))) for n in names))
        ).one()
        conn.exec_driver_sql("SET FOREIGN_KEY_CHECKS = 0")
        for name, is_used in zip(names, used, strict=True):
            if is_used:
                conn.exec_driver_sql(f"TRUNCATE TABLE {name}")
        conn.commit()


@pytest.fixture(scope="session")
def server_of(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[str], running.Server | None]]:
    """Return a function that starts the server of a kind when it is first asked for."""
    started: dict[str, running.Server] = {}

    def get(kind: str) -> running.Server | None:
        if kind == "sqlite":
            return None
        if kind not in started:
            start = running.mariadb_server if kind == "mariadb" else running.mysql_server
            started[kind] = start(tmp_path_factory.mktemp(kind))
        return started[kind]

    yield get
    for server in started.values():
        running.stop(server)


@pytest.fixture(scope="session", params=KINDS)
def databases(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    server_of: Callable[[str], running.Server | None],
) -> Databases:
    """Return the maker of databases of each kind in turn."""
    folder = tmp_path_factory.mktemp(f"{request.param}-db")
    return Databases(request.param, folder, server_of(request.param))


@pytest.fixture
def url(databases: Databases) -> str:
    """Return the URL of a migrated database without rows."""
    return databases.empty()


@pytest.fixture
def db(url: str) -> Iterator[Database]:
    """Return an open database; at the end no connection is checked out."""
    database = open_database(url)
    yield database
    assert database.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    database.close()


@pytest.fixture
def wf(url: str) -> Iterator[gwf.Client]:
    """Return a client of an empty database; at the end no connection is checked out."""
    client = gwf.connect(url)
    yield client
    assert client.database.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    client.close()


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Held]:
    """Yield a named pipe that programs hold open for as long as they run."""
    pipe = Held.at(tmp_path / "held")
    yield pipe
    os.close(pipe.reader)


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """Return the URL of a SQLite file that does not exist yet."""
    return f"sqlite:///{tmp_path}/gwf.db"
