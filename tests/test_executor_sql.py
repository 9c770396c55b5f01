"""Show that a query reads and never writes, ends in time, and says what is wrong: W1, W4 and W8."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
import traceback
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from pymysql.constants import CLIENT

import gwf
from gwf.database import Database, open_database, read
from gwf.execution import HIDDEN, ExecutionContext
from gwf.executors.sql import Query, as_json, check, execute, is_literal, rows_of
from gwf.testing import sample_flows, scratch_client

COUNTS = "SELECT status, COUNT(*) AS n FROM jobs GROUP BY status ORDER BY status"
#: Would go through 6.5e11 combinations; a server stops the recursion itself at 1000.
ENDLESS = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 900) "
    "SELECT SUM(a.i * b.i + c.i * d.i) AS endless FROM n a, n b, n c, n d"
)


@pytest.fixture
def filled(wf: gwf.Client) -> gwf.Client:
    """Return a client of a database with two pending jobs and one that runs."""
    return _filled(wf)


def _filled(wf: gwf.Client) -> gwf.Client:
    flow = sample_flows(wf)[0]
    for name in ("第一", "second", "third"):
        job = wf.create_job(flow, name)
    wf.start_job(job)
    return wf


def is_server(wf: gwf.Client) -> bool:
    return not wf.database.is_sqlite


def sessions(wf: gwf.Client) -> set[int]:
    """Return the ids of the connections to the server, but for the one that asks."""
    if not is_server(wf):
        return set()
    engine = sa.create_engine(wf.database.engine.url, poolclass=sa.NullPool)
    with engine.connect() as conn:
        own = conn.exec_driver_sql("SELECT CONNECTION_ID()").scalar_one()
        return {row.Id for row in conn.exec_driver_sql("SHOW PROCESSLIST")} - {own}


def expect_ended(wf: gwf.Client, before: set[int]) -> None:
    """Wait until no session is left that was not there before; give up after ten seconds."""
    last = time.monotonic() + 10
    while left := sessions(wf) - before:
        assert time.monotonic() < last, left


def answer(wf: gwf.Client, sql: str, **config: Any) -> Any:
    config = {"sql": sql, **config}
    check(config)
    return execute(config, ExecutionContext(database=wf.database))


def failure(
    config: dict[str, Any], database: Database | None, **context: Any
) -> gwf.ExecutionFailed:
    with pytest.raises(gwf.ExecutionFailed) as failed:
        execute(config, ExecutionContext(database=database, **context))
    return failed.value


def unchecked(wf: gwf.Client, sql: str, **parameters: Any) -> gwf.ExecutionFailed:
    """Return how the database refuses what ``check`` would not have let through."""
    with pytest.raises(gwf.ExecutionFailed) as failed:
        rows_of(Query(sql, parameters), wf.database, ExecutionContext(database=wf.database))
    return failed.value


def test_execute_counts_jobs(filled: gwf.Client) -> None:
    """The rows as mappings, and how many they are."""
    assert answer(filled, COUNTS) == {
        "rows": [{"status": "pending", "n": 2}, {"status": "running", "n": 1}],
        "n_rows": 2,
    }


def test_execute_counts_jobs_in_memory() -> None:
    """A database in memory has one connection, and it writes again afterwards."""
    with scratch_client() as wf:
        _filled(wf)
        assert answer(wf, COUNTS)["n_rows"] == 2
        assert unchecked(wf, "DELETE FROM jobs").code == "sql_error"
        wf.create_task("after")
        assert len(wf.jobs()) == 3


def test_execute_returns_no_rows(wf: gwf.Client) -> None:
    assert answer(wf, "SELECT id FROM jobs") == {"rows": [], "n_rows": 0}


@pytest.mark.parametrize(
    "value",
    ['it\'s "quoted" \\ `x` -- /* ; :v %s %% ? 中文 🙂', "", "\\", "'; DELETE FROM jobs; --"],
)
def test_execute_binds_its_parameters(filled: gwf.Client, value: str) -> None:
    """A value comes back as it went in, twice, and never becomes a part of the text."""
    sql = "SELECT :v AS a, CONCAT(:v, '%') AS b" if is_server(filled) else "SELECT :v a, :v||'%' b"
    assert answer(filled, sql, parameters={"v": value})["rows"] == [{"a": value, "b": f"{value}%"}]
    assert answer(filled, "SELECT COUNT(*) AS n FROM jobs")["rows"] == [{"n": 3}]


def test_execute_finds_by_a_parameter(filled: gwf.Client) -> None:
    """Text, and a number of a limit."""
    sql = (
        "SELECT job_name AS name FROM jobs WHERE job_name = :name OR job_name LIKE '%ir%' LIMIT :n"
    )
    found = answer(filled, sql, parameters={"name": "第一", "n": 5})["rows"]
    assert [row["name"] for row in found] == ["第一", "third"]


def test_execute_leaves_quoted_colons_alone(wf: gwf.Client) -> None:
    """What is quoted or a comment holds no parameter, so no value gets out of its quotes."""
    sql = "SELECT ':v' AS a, '12:30 \\:x' AS \"b:v\", :v /* :w */ AS c -- :u"
    parameters = {"v": ", 2 AS d -- "}
    (row,) = answer(wf, sql, parameters=parameters)["rows"]
    assert row["a"] == ":v"
    assert row["c"] == ", 2 AS d -- "
    assert row["b:v"] == ("12:30 :x" if is_server(wf) else "12:30 \\:x")


@pytest.mark.parametrize(
    "value", [None, 0, -7, 2**63 - 1, -(2**63), 1.5, -0.1, 1e-300, "text", "中文"]
)
def test_execute_returns_a_parameter_as_it_was(wf: gwf.Client, value: object) -> None:
    """Numbers, text and None go there and back."""
    assert answer(wf, "SELECT :v AS v", parameters={"v": value})["rows"] == [{"v": value}]


def test_execute_returns_instants(filled: gwf.Client) -> None:
    """A column of an instant is text in UTC, the same on each database but for the T."""
    (row,) = answer(filled, "SELECT MAX(created_at) AS at, MAX(started_at) AS s FROM jobs")["rows"]
    latest = filled.jobs()["created_at"].max()
    assert datetime.fromisoformat(f"{row['at']}+00:00") == latest


def test_execute_returns_types_of_a_server(wf: gwf.Client) -> None:
    """Decimals, dates and times of a server; SQLite has none of these types."""
    if not is_server(wf):
        (row,) = answer(wf, "SELECT 1.50 AS d, 9e999 AS inf, 7 / 2 AS whole, NULL AS none")["rows"]
        assert row == {"d": 1.5, "inf": "inf", "whole": 3, "none": None}
        return
    sql = (
        "SELECT 1.50 AS d, SUM(2) AS total, 18446744073709551615 AS large, TRUE AS yes, "
        "CAST('2026-03-02' AS DATE) AS day, CAST('-01:00:01.5' AS TIME(1)) AS span, "
        "CAST('2026-03-02 04:05:06' AS DATETIME) AS at, 0.1234567890123456789 AS fine, "
        "@@time_zone AS zone, JSON_ARRAY(1, '中') AS json"
    )
    (row,) = answer(wf, sql)["rows"]
    assert row == {
        "d": 1.5,
        "total": 2,
        "large": "18446744073709551615",
        "yes": 1,
        "day": "2026-03-02",
        "span": -3601.5,
        "at": "2026-03-02T04:05:06",
        "fine": "0.1234567890123456789",
        "zone": "+00:00",
        "json": '[1, "中"]',
    }


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (True, True),
        (2**63, str(2**63)),
        (Decimal("0.10"), 0.1),
        (Decimal("5.00"), 5),
        (Decimal(10) ** 30, "1" + "0" * 30),
        (Decimal("0.12345678901234567890"), "0.12345678901234567890"),
        (float("nan"), None),
        (float("-inf"), "-inf"),
        (date(2026, 3, 2), "2026-03-02"),
        (datetime(2026, 3, 2, 4, 5, 6, 7), "2026-03-02T04:05:06.000007"),  # noqa: DTZ001 - drivers have no zone
        (timedelta(days=-1, seconds=0.5), -86399.5),
    ],
)
def test_as_json_of_a_value(value: object, expected: object) -> None:
    """Each kind has one rule."""
    shown = as_json("x", value)
    assert (type(shown), shown) == (type(expected), expected)


def test_execute_refuses_bytes(wf: gwf.Client) -> None:
    """The message names the column, and what to select instead."""
    sql = "SELECT CAST('a' AS BINARY) AS raw" if is_server(wf) else "SELECT x'ff' AS raw"
    error = failure({"sql": sql}, wf.database)
    assert error.code == "result_invalid"
    assert "column 'raw' holds bytes" in str(error)
    assert "HEX" in str(error)


def test_execute_refuses_two_columns_of_one_name(wf: gwf.Client) -> None:
    error = failure({"sql": "SELECT 1 AS a, 2 AS b, 3 AS a"}, wf.database)
    assert (error.code, "AS" in str(error)) == ("result_invalid", True)
    assert "a, b, a" in str(error)


def test_execute_refuses_too_many_rows(filled: gwf.Client) -> None:
    """As many as are allowed are returned, one more is an error; then all works as before."""
    sql = "SELECT id FROM jobs ORDER BY id"
    assert answer(filled, sql, max_rows=3)["n_rows"] == 3
    error = failure({"sql": sql, "max_rows": 2}, filled.database)
    assert (error.code, "more than 2 rows" in str(error)) == ("too_many_rows", True)
    assert answer(filled, sql)["n_rows"] == 3


def test_execute_reads_no_more_than_it_may(wf: gwf.Client) -> None:
    """Of 7e8 rows only the first ones are fetched."""
    sql = ENDLESS.replace("SUM(a.i * b.i + c.i * d.i) AS endless", "a.i").replace(", n d", "")
    assert failure({"sql": sql}, wf.database).code == "too_many_rows"


def test_execute_refuses_too_large_a_result(wf: gwf.Client) -> None:
    """A few rows may be too large as well."""
    text = "REPEAT('x', 600000)" if is_server(wf) else "printf('%.*c', 600000, 'x')"
    assert answer(wf, f"SELECT {text} AS x")["n_rows"] == 1
    error = failure({"sql": f"SELECT {text} AS x UNION ALL SELECT {text}"}, wf.database)
    assert (error.code, "1,000,000 bytes" in str(error)) == ("result_invalid", True)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1 AS x",
        "select 1 as x;",
        "  \n-- a comment; with 'quotes\n/* and; one more */ (SELECT 1 AS x);  -- done;",
        "# only MySQL runs this; it's a comment\nSELECT 1",
        "WITH a AS (SELECT 1 AS x) SELECT x FROM a",
        "SELECT ';' AS x, \"a;b\" AS y, `c;d` FROM t",
        "SELECT 'INTO' AS x, `into` AS y FROM t WHERE amount_into = ''''",
        "SELECT '/*!' AS x",
    ],
)
def test_check_accepts_a_query(sql: str) -> None:
    """Comments and what is quoted count for nothing."""
    check({"sql": sql})


@pytest.mark.parametrize(
    ("sql", "match"),
    [
        (None, "the text of a query"),
        (5, "text"),
        ("", "begins with SELECT or WITH"),
        ("-- SELECT 1", "begins with"),
        ("SELECT\0 1", "the text of a query"),
        ("x" * 16_001, "16000"),
        ("DELETE FROM jobs", "begins with"),
        ("SELECTED", "begins with"),
        ("/* SELECT */ UPDATE jobs SET id = 1", "begins with"),
        ("(DELETE FROM jobs)", "begins with"),
        ("PRAGMA query_only = OFF", "begins with"),
        ("ATTACH 'x' AS y", "begins with"),
        ("SELECT 1; DELETE FROM jobs", "one statement"),
        ("SELECT 1;; -- x\nSELECT 2", "one statement"),
        ("SELECT 'a\\'; DELETE FROM jobs; -- '", "one statement"),
        ("SELECT 5--1; DELETE FROM jobs", "one statement"),
        ("SELECT [it's]; DELETE FROM jobs -- '", "one statement"),
        ("SELECT 1 /*! INTO @a */", "comment"),
        ("SELECT 1 /*!50000 + 1 */", "comment"),
        ("SELECT 1 /*M! + 1 */", "comment"),
        ("/*!SELECT*/ 1", "comment"),
        ("SELECT 5--/*! INTO @a */", "comment"),
        ("SELECT 1 INTO OUTFILE '/tmp/x'", "INTO"),
        ("SELECT 1 into/**/dumpfile '/tmp/x'", "INTO"),
        ("SELECT 'a\\'' INTO @a, '", "INTO"),
        ("SELECT 1.5INTO @a", "INTO"),
        ("SELECT 'a'INTO @a", "INTO"),
    ],
)
def test_check_refuses_what_is_no_query(sql: object, match: str) -> None:
    """As MySQL reads the text, and as SQLite does."""
    with pytest.raises(gwf.Invalid, match=match):
        check({"sql": sql})


@pytest.mark.parametrize(
    ("config", "match"),
    [
        ({"max_rows": 0}, "max_rows"),
        ({"max_rows": 10_001}, "max_rows"),
        ({"max_rows": "5"}, "max_rows"),
        ({"parameters": ["a"]}, "parameters"),
        ({"parameters": {"v": 1}}, "those of the sql, outside of quotes: none"),
        ({"sql": "SELECT :a, :b", "parameters": {"a": 1}}, "those of the sql.*: a, b"),
        ({"sql": "SELECT ':a'", "parameters": {"a": 1}}, "outside of quotes"),
        ({"sql": "SELECT :a", "parameters": {"a": [1]}}, "parameter a"),
        ({"sql": "SELECT :a", "parameters": {"a": float("nan")}}, "NaN"),
        ({"database": 5}, "database"),
        ({"database": "sqlite://"}, "in memory"),
        ({"database": "postgresql://h/x"}, "sqlite, mysql or mariadb"),
    ],
)
def test_check_refuses_other_keys(config: dict[str, Any], match: str) -> None:
    with pytest.raises(gwf.Invalid, match=match):
        check({"sql": "SELECT 1", **config})


def test_is_literal_text_of_a_query() -> None:
    """Values come by parameters, and only they are rendered."""
    literal = [k for k in ("sql", "parameters", "max_rows", "database") if is_literal(k, "{{ x }}")]
    assert literal == ["sql", "max_rows"]


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM jobs",
        "UPDATE jobs SET status = 'failed'",
        "DROP TABLE votes",
        "CREATE TABLE extra (id INTEGER)",
        "SELECT 1; DELETE FROM jobs",
        "WITH x AS (SELECT 1) DELETE FROM jobs",
    ],
)
def test_database_refuses_to_write(filled: gwf.Client, sql: str) -> None:
    """Past ``check`` the database itself refuses it, and gwf writes as before."""
    assert unchecked(filled, sql).code == "sql_error"
    assert answer(filled, COUNTS)["rows"][0] == {"status": "pending", "n": 2}
    filled.create_task("after")
    assert len(filled.jobs()) == 3


def test_database_refuses_a_function_that_writes(filled: gwf.Client, url: str) -> None:
    """A query that ``check`` has to let through, as it cannot know what a function does."""
    if not is_server(filled):
        for sql in ("SELECT load_extension('x')", "SELECT * FROM pragma_table_info('jobs')"):
            assert failure({"sql": sql}, filled.database).code == "sql_error"
        return
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    body = "RETURNS INT MODIFIES SQL DATA BEGIN DELETE FROM jobs; RETURN 1; END"
    with engine.connect() as conn:
        conn.exec_driver_sql(f"CREATE FUNCTION wipe() {body}")
    try:
        for sql in ("SELECT wipe() AS w", "SELECT id FROM jobs FOR UPDATE"):
            error = failure({"sql": sql}, filled.database)
            assert (error.code, "READ ONLY" in str(error)) == ("sql_error", True)
    finally:
        with engine.connect() as conn:
            conn.exec_driver_sql("DROP FUNCTION wipe")
    assert len(filled.jobs()) == 3


def test_sqlite_refuses_to_attach(tmp_path: Path) -> None:
    """Neither another file nor a pragma, and no file appears."""
    with scratch_client() as wf:
        for sql in (f"ATTACH '{tmp_path}/new.db' AS x", "PRAGMA query_only = OFF", "VACUUM"):
            assert unchecked(wf, sql).code == "sql_error"
        assert list(tmp_path.iterdir()) == []


def test_execute_ends_a_slow_query(wf: gwf.Client) -> None:
    """W4: the code is timed_out, soon after its time, and the database goes on."""
    began = time.monotonic()
    before = sessions(wf)
    error = failure({"sql": ENDLESS}, wf.database, timeout_s=0.3)
    assert (error.code, str(error)) == ("timed_out", "not done after 0.3 seconds")
    assert time.monotonic() - began < 10
    expect_ended(wf, before)
    wf.create_task("after")


def test_execute_ends_a_query_that_sleeps(wf: gwf.Client) -> None:
    """A query that an end makes return early has not succeeded; SQLite cannot sleep."""
    sql = "SELECT SLEEP(600) AS endless" if is_server(wf) else ENDLESS
    before = sessions(wf)
    assert failure({"sql": sql}, wf.database, timeout_s=0.3).code == "timed_out"
    expect_ended(wf, before)


class GivenUp(threading.Event):
    """Be set by another thread, once it was looked at while the query runs."""

    def __init__(self) -> None:
        super().__init__()
        self._n_looks = 0
        self._looked = threading.Event()
        self.thread = threading.Thread(target=self._give_up, daemon=True)
        self.thread.start()

    def is_set(self) -> bool:
        """Count the looks: the first is before the query, each other one while it runs."""
        self._n_looks += 1
        if self._n_looks == 3:
            self._looked.set()
        return super().is_set()

    def _give_up(self) -> None:
        self._looked.wait(30)
        self.set()


def test_execute_stops_when_it_is_given_up(wf: gwf.Client) -> None:
    """W7: whoever cancels the attempt ends the query, on the server as well."""
    before = sessions(wf)
    began = time.monotonic()
    error = failure({"sql": ENDLESS}, wf.database, given_up=GivenUp())
    assert (error.code, str(error)) == ("cancelled", "the attempt was given up")
    assert time.monotonic() - began < 10
    expect_ended(wf, before)
    wf.create_task("after")


def test_sqlite_goes_on_after_a_query_that_was_ended() -> None:
    """Whatever would end the next long statement on this connection is taken back."""
    with scratch_client() as wf:
        assert failure({"sql": ENDLESS}, wf.database, timeout_s=0.1).code == "timed_out"
        sql = ENDLESS.replace("a.i * b.i + c.i * d.i", "1").replace(", n c, n d", "")
        found = read(wf.database, lambda conn: conn.exec_driver_sql(sql).scalar_one())
        assert found == 900**2


def test_execute_does_not_begin_what_is_given_up(wf: gwf.Client) -> None:
    given_up = threading.Event()
    given_up.set()
    assert failure({"sql": "SELECT 1"}, wf.database, given_up=given_up).code == "cancelled"


@pytest.mark.parametrize("sql", ["SELECT x FROM nowhere", "SELECT 1 AS a, 2 AS a", "SELECT 1"])
def test_execute_leaves_no_connection(wf: gwf.Client, sql: str) -> None:
    """Neither success nor failure leaves one behind on the server."""
    before = sessions(wf)
    with contextlib.suppress(gwf.ExecutionFailed):
        answer(wf, sql)
    expect_ended(wf, before)


def test_execute_says_what_is_wrong(wf: gwf.Client) -> None:
    """The words of the driver."""
    error = failure({"sql": "SELECT x FROM nowhere"}, wf.database)
    assert (error.code, "nowhere" in str(error)) == ("sql_error", True)
    assert str(error).startswith("the database refused the query: ")


def test_execute_without_a_database() -> None:
    """The jobs are in memory of another process."""
    error = failure({"sql": "SELECT 1"}, None)
    assert (error.code, "in memory, in another process" in str(error)) == ("no_database", True)


def test_execute_asks_another_database(
    filled: gwf.Client, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its URL, or by a secret that holds one."""
    monkeypatch.setenv("REPORTS_URL", url)
    for address in (url, {"secret": "REPORTS_URL"}):
        context = ExecutionContext()
        found = execute({"sql": COUNTS, "database": address}, context)
        assert [row["n"] for row in found["rows"]] == [2, 1]


def test_execute_in_another_file_changes_nothing(tmp_path: Path) -> None:
    """A file with its own mode stays as it is, and a missing one is not created."""
    path = tmp_path / "a ?#%41.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t AS SELECT 1 AS x")
        connection.commit()
    before = path.read_bytes()
    url = sa.URL.create("sqlite", database=str(path)).render_as_string()
    assert execute({"sql": "SELECT x FROM t", "database": url}, ExecutionContext())["n_rows"] == 1
    path_of_none = f"sqlite:///{tmp_path}/none.db"
    error = failure({"sql": "SELECT 1", "database": path_of_none}, None)
    assert (error.code, "none.db" in str(error)) == ("unreachable", True)
    assert (list(tmp_path.iterdir()), path.read_bytes()) == ([path], before)


def test_execute_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a database " * 100)
    config = {"sql": "SELECT * FROM t", "database": f"sqlite:///{tmp_path}/notes.txt"}
    error = failure(config, None)
    assert (error.code, "no SQLite database" in str(error)) == ("unreachable", True)


def test_execute_never_shows_a_password(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """W8: neither that of a server that refuses it, nor that of one that is not there."""
    nowhere = "mysql+pymysql://gwf@127.0.0.1:1/gwf_x"
    parsed = sa.make_url(nowhere if url.startswith("sqlite") else url).set(password="s3cret/中&")
    address = parsed.update_query_dict({"init_command": "SELECT 's3cret'"}).render_as_string(False)
    monkeypatch.setenv("REPORTS_URL", address)
    for given in (address, {"secret": "REPORTS_URL"}):
        error = failure({"sql": "SELECT 1", "database": given}, None)
        assert error.code == "unreachable"
        assert "127.0.0.1" in str(error)
        assert "s3cret" not in "".join(traceback.format_exception(error))


def test_execute_hides_the_password_in_what_the_driver_says(wf: gwf.Client, url: str) -> None:
    """W8: even where the query names it."""
    name = sa.make_url(url).password or HIDDEN
    error = failure({"sql": f"SELECT x FROM `{name}`"}, wf.database)
    assert (error.code, HIDDEN in str(error)) == ("sql_error", True)
    assert name == HIDDEN or name not in str(error)


def test_execute_hides_a_secret_in_a_row(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """W8: not in a result, nor in the words of the driver."""
    monkeypatch.setenv("REPORTS_URL", url)
    config = {
        "sql": "SELECT :v AS v",
        "parameters": {"v": url},
        "database": {"secret": "REPORTS_URL"},
    }
    assert execute(config, ExecutionContext())["rows"] == [{"v": HIDDEN}]


def test_execute_refuses_options_that_write(filled: gwf.Client, url: str) -> None:
    """What a URL says to do first is not done, and it lets through no second statement."""
    options = {"timeout": "1"}  # SQLite knows no option that writes
    if is_server(filled):
        flag = str(CLIENT.MULTI_STATEMENTS)
        options = {"init_command": "DELETE FROM jobs", "client_flag": flag, "sql_mode": "ANSI"}
    address = sa.make_url(url).update_query_dict(options).render_as_string(hide_password=False)
    sql = 'SELECT "text" AS t, COUNT(*) AS n FROM jobs'  # in the mode ANSI a column
    found = execute({"sql": sql, "database": address}, ExecutionContext())
    assert found["rows"] == [{"t": "text", "n": 3}]
    with pytest.raises(gwf.ExecutionFailed, match="refused"):
        rows_of(Query("SELECT 1; DELETE FROM jobs"), open_database(address), ExecutionContext())
    assert len(filled.jobs()) == 3
