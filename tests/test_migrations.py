"""From the published schema to ours and back, with data, interrupted, and two at once."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import re
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from multiprocessing.synchronize import Barrier
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.script import ScriptDirectory

import gwf
from gwf import migrate, resources
from gwf.database import Database, open_database, read
from gwf.tables import metadata

#: What GoWorkFlow published, written by hand from the table in the design. The names of its foreign
#: keys (``job_tasks_ibfk_1`` …) are the server's own.
PUBLISHED = """
CREATE TABLE tasks (
  id BIGINT AUTO_INCREMENT PRIMARY KEY,
  name VARCHAR(100) NOT NULL, description TEXT, task_type VARCHAR(50) NOT NULL, config JSON,
  is_active TINYINT(1) DEFAULT 1,
  {stamps},
  INDEX idx_name (name), INDEX idx_task_type (task_type)
){options};
CREATE TABLE flows (
  id BIGINT AUTO_INCREMENT PRIMARY KEY,
  name VARCHAR(100) NOT NULL, description TEXT, version VARCHAR(20) DEFAULT '1.0.0',
  is_active TINYINT(1) DEFAULT 1, created_by BIGINT,
  {stamps},
  INDEX idx_name (name), INDEX idx_version (version)
){options};
CREATE TABLE flow_tasks (
  id BIGINT AUTO_INCREMENT PRIMARY KEY,
  flow_id BIGINT NOT NULL, task_id BIGINT NOT NULL, sequence INT NOT NULL,
  is_optional TINYINT(1) DEFAULT 0, allow_rollback TINYINT(1) DEFAULT 1, condition_config JSON,
  {stamps},
  FOREIGN KEY (flow_id) REFERENCES flows(id) ON DELETE CASCADE,
  FOREIGN KEY (task_id) REFERENCES tasks(id) ON DELETE CASCADE,
  UNIQUE KEY uk_flow_task_seq (flow_id, sequence),
  INDEX idx_flow_id (flow_id), INDEX idx_task_id (task_id)
){options};
CREATE TABLE jobs (
  id BIGINT AUTO_INCREMENT PRIMARY KEY,
  flow_id BIGINT NOT NULL, job_name VARCHAR(100) NOT NULL,
  status VARCHAR(20) NOT NULL DEFAULT 'pending', current_task_seq INT,
  started_at TIMESTAMP NULL, completed_at TIMESTAMP NULL, created_by BIGINT,
  {stamps},
  FOREIGN KEY (flow_id) REFERENCES flows(id),
  INDEX idx_flow_id (flow_id), INDEX idx_status (status), INDEX idx_created_at (created_at)
){options};
CREATE TABLE job_tasks (
  id BIGINT AUTO_INCREMENT PRIMARY KEY,
  job_id BIGINT NOT NULL, flow_task_id BIGINT NOT NULL, task_id BIGINT NOT NULL,
  sequence INT NOT NULL, status VARCHAR(20) NOT NULL DEFAULT 'pending',
  is_skipped TINYINT(1) DEFAULT 0, executor_id BIGINT, result JSON, error_message TEXT,
  started_at TIMESTAMP NULL, completed_at TIMESTAMP NULL,
  {stamps},
  FOREIGN KEY (job_id) REFERENCES jobs(id) ON DELETE CASCADE,
  FOREIGN KEY (flow_task_id) REFERENCES flow_tasks(id),
  FOREIGN KEY (task_id) REFERENCES tasks(id),
  INDEX idx_job_id (job_id), INDEX idx_status (status), INDEX idx_sequence (job_id, sequence)
){options};
CREATE TABLE job_task_logs (
  id BIGINT AUTO_INCREMENT PRIMARY KEY,
  job_task_id BIGINT NOT NULL, action VARCHAR(50) NOT NULL, operator_id BIGINT, message TEXT,
  metadata JSON, created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
  FOREIGN KEY (job_task_id) REFERENCES job_tasks(id) ON DELETE CASCADE,
  INDEX idx_job_task_id (job_task_id), INDEX idx_action (action),
  INDEX idx_created_at (created_at)
){options};
CREATE TABLE job_context (
  id BIGINT AUTO_INCREMENT PRIMARY KEY,
  job_id BIGINT NOT NULL, context_key VARCHAR(255) NOT NULL, context_value TEXT,
  {stamps},
  FOREIGN KEY (job_id) REFERENCES jobs(id) ON DELETE CASCADE,
  UNIQUE KEY unique_job_context (job_id, context_key), INDEX idx_job_id (job_id)
){options};
"""
STAMPS = (
    "created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP, updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP"
)
OPTIONS = " ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci"
NOTE = "He said \"好\",\n\t\\ 100% 😀 \x01 'x' </b>"
BEGIN = datetime(2025, 3, 1, 1, 30, tzinfo=UTC)


def at(hours: float) -> datetime:
    """Return an instant of the story that GoWorkFlow wrote."""
    return BEGIN + timedelta(hours=hours)


def published_rows() -> dict[str, list[dict[str, Any]]]:
    """Return rows as GoWorkFlow left them, with all its gaps; each has an id, by position."""
    approved = {"condition": "previous_task_result.status == 'approved'", "skip_if_false": True}
    stamps = {"created_at": at(0), "updated_at": at(1)}
    tasks = [("需求评审", "approval", {"approvers": ["PM"]}), ("代码开发", "manual", {})]
    tasks += [("部署", "automated", None)]
    jobs = [  # name, status, current_task_seq, started, completed, created_by
        ("for ever", "running", 4, at(1), None, 1),
        ("goes on", "running", 2, at(1), None, None),
        ("failed", "failed", 1, at(1), None, 1),
        ("waits", "pending", None, None, None, None),
        ("done", "completed", 4, at(1), at(5), 1),
    ]
    statuses = [
        ["completed", "completed", "skipped"],
        ["completed", "running", "pending"],
        ["failed", "pending", "pending"],
        ["pending"] * 3,
        ["completed"] * 3,
    ]
    job_tasks = []
    for job_id, of_job in enumerate(statuses, 1):
        for sequence, status in enumerate(of_job, 1):
            is_begun = status in ("completed", "running", "failed")
            row = {"job_id": job_id, "flow_task_id": sequence, "task_id": sequence}
            row |= {"sequence": sequence, "status": status, "is_skipped": status == "skipped"}
            row |= {"executor_id": 100 if status == "running" else None, "error_message": None}
            row |= {"result": {"status": "ok", "中": [1]} if status == "completed" else None}
            row |= {"started_at": at(1.5) if is_begun else None}
            row |= {"completed_at": at(2) if status == "completed" else None}
            job_tasks.append(row | {"created_at": at(0), "updated_at": at(sequence)})
    actions = [(4, "start", 100), (4, "complete", None), (5, "start", 100), (7, "fail", None)]
    context = {"env": "prod", "note": NOTE, "empty": "", "null": None, "n": "42", "o": '{"a": 1}'}
    return {
        "tasks": [
            {"name": name, "task_type": kind, "config": config, "is_active": None} | stamps
            for name, kind, config in tasks
        ],
        "flows": [{"name": "功能开发流程", "description": None, "created_by": None} | stamps],
        "flow_tasks": [
            {"flow_id": 1, "task_id": n, "sequence": n, "is_optional": n == 2}
            | {"allow_rollback": n != 3, "condition_config": approved if n == 3 else None}
            | stamps
            for n in (1, 2, 3)
        ],
        "jobs": [
            {"flow_id": 1, "job_name": name, "status": status, "current_task_seq": current}
            | {"started_at": begun, "completed_at": ended, "created_by": creator}
            | {"created_at": at(0), "updated_at": at(6)}
            for name, status, current, begun, ended, creator in jobs
        ],
        "job_tasks": job_tasks,
        "job_task_logs": [
            {"job_task_id": task, "action": action, "operator_id": operator, "message": "好"}
            | {"metadata": {"n": 1} if operator else None, "created_at": at(task)}
            for task, action, operator in actions
        ],
        "job_context": [
            {"job_id": 2, "context_key": key, "context_value": value} | stamps
            for key, value in context.items()
        ],
    }


def goworkflow(url: str, *, without: str = "", rows: bool = True) -> Database:
    """Make the database that GoWorkFlow made, through a session in the time zone of Beijing."""
    db = open_database(url)
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as conn:
        if not db.is_sqlite:
            conn.exec_driver_sql("SET time_zone = '+08:00'")
        for statement in published_ddl(db.is_sqlite):
            if not without or f"TABLE {without} " not in statement:
                conn.exec_driver_sql(statement)
        zone = 0 if db.is_sqlite else 8
        for table, written in published_rows().items() if rows else ():
            for row in written if table != without else ():
                values = {name: as_written(value, zone) for name, value in row.items()}
                marks = ", ".join(f":{name}" for name in values)
                conn.execute(
                    sa.text(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({marks})"), values
                )
    return db


def published_ddl(is_sqlite: bool) -> list[str]:
    """Return the statements, for SQLite without what it cannot say."""
    updated = f"{STAMPS} ON UPDATE CURRENT_TIMESTAMP"
    if not is_sqlite:
        return PUBLISHED.format(stamps=updated, options=OPTIONS).split(";")[:-1]
    ddl = PUBLISHED.format(stamps=STAMPS, options="")
    ddl = ddl.replace("BIGINT AUTO_INCREMENT PRIMARY", "INTEGER NOT NULL PRIMARY")
    ddl = ddl.replace(" PRIMARY KEY", " PRIMARY KEY AUTOINCREMENT").replace(
        "_id BIGINT NOT", "_id INTEGER NOT"
    )
    ddl = re.sub(r"UNIQUE KEY (\w+) ", r"CONSTRAINT \1 UNIQUE ", ddl)
    ddl = re.sub(r"\bINT\b", "INTEGER", ddl).replace("TINYINT(1)", "BOOLEAN")
    return re.sub(r",\s*INDEX \w+ \([\w, ]+\)", "", ddl).split(";")[:-1]


def as_written(value: Any, zone_hours: int) -> Any:
    """Return what the program sent: local time without a zone, JSON as text."""
    if isinstance(value, datetime):
        return f"{value + timedelta(hours=zone_hours):%Y-%m-%d %H:%M:%S}"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else value


def content(db: Database) -> dict[str, list[dict[str, Any]]]:
    """Return every row of every table, but of those that a migration is still building."""

    def work(conn: sa.Connection) -> dict[str, list[dict[str, Any]]]:
        found = {}
        for table in sorted(sa.inspect(conn).get_table_names()):
            if table != "alembic_version" and not table.startswith("new_"):
                rows = conn.exec_driver_sql(f"SELECT * FROM {table} ORDER BY 1")
                found[table] = [dict(row._mapping) for row in rows]
        return found

    return read(db, work)


def schema_of(db: Database) -> dict[str, set[str]]:
    """Return each table as the lines of its DDL, in whatever order."""

    def work(conn: sa.Connection) -> dict[str, set[str]]:
        if db.is_sqlite:
            rows = conn.exec_driver_sql("SELECT tbl_name, sql FROM sqlite_master WHERE sql <> ''")
            found = [(name, re.sub(r"[ \n\t\"]+", " ", sql)) for name, sql in rows]
            lines = [
                (name, re.split(r", |\( | \)$", sql.replace("(", "( "))) for name, sql in found
            ]
        else:
            names = sa.inspect(conn).get_table_names()
            create = [(n, conn.exec_driver_sql(f"SHOW CREATE TABLE {n}").one()[1]) for n in names]
            lines = [(n, re.sub(r" AUTO_INCREMENT=\d+", "", s).split("\n")) for n, s in create]
        tables: dict[str, set[str]] = {}
        for name, parts in lines:
            tables.setdefault(name, set()).update(filter(None, (p.strip(" ,)") for p in parts)))
        return {n: t for n, t in tables.items() if n not in ("alembic_version", "sqlite_sequence")}

    return read(db, work)


@pytest.fixture
def bare(databases: Any) -> Iterator[Database]:
    """Return an open database without tables; at the end no connection is checked out."""
    db = open_database(databases.new())
    yield db
    assert db.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    db.close()


@pytest.fixture
def old(databases: Any) -> Iterator[Database]:
    """Return the database that GoWorkFlow made, with its rows."""
    db = goworkflow(databases.new())
    yield db
    assert db.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    db.close()


def test_head_is_the_newest_script() -> None:
    """``prepare`` compares with a constant, to spare loading Alembic; it is the scripts' head."""
    scripts = ScriptDirectory(str(resources.directory("migrations")))
    assert scripts.get_heads() == [migrate.HEAD]
    assert [script.revision for script in scripts.walk_revisions()][-1] == migrate.PUBLISHED


def test_upgrade_gives_exactly_the_tables_of_the_metadata(bare: Database, databases: Any) -> None:
    """``alembic check`` is clean, and what it ignores is equal too: defaults, collations, keys."""
    migrate.upgrade(bare)
    assert migrate.current(bare) == migrate.HEAD
    assert migrate.check(bare) == []
    other = open_database(databases.new())
    metadata.create_all(other.engine)
    assert schema_of(bare) == schema_of(other)
    other.close()


def test_upgrade_twice_changes_nothing(bare: Database) -> None:
    migrate.upgrade(bare)
    before = schema_of(bare)
    migrate.upgrade(bare)
    assert (migrate.current(bare), schema_of(bare)) == (migrate.HEAD, before)


def test_check_names_what_differs(bare: Database) -> None:
    migrate.upgrade(bare)
    with bare.engine.begin() as conn:
        conn.exec_driver_sql("DROP TABLE user_roles")
        conn.exec_driver_sql("ALTER TABLE jobs ADD COLUMN extra INTEGER")
    found = " ".join(migrate.check(bare))
    assert "user_roles" in found
    assert "extra" in found


def test_first_revision_is_what_goworkflow_published(bare: Database, databases: Any) -> None:
    """Columns, nullability, defaults, keys, indexes, engine and collation equal the design's."""
    migrate.upgrade(bare, migrate.PUBLISHED)
    theirs = goworkflow(databases.new(), rows=False)
    if bare.is_sqlite:  # where GoWorkFlow never was, and where names of indexes carry the table
        assert columns_in_sqlite(bare) == columns_in_sqlite(theirs)
    else:
        assert schema_of(bare) == schema_of(theirs)
    theirs.close()


def columns_in_sqlite(db: Database) -> set[tuple[Any, ...]]:
    """Return columns with type, nullability and default, references and unique keys."""
    parts = {
        "table_info": 'd.name, d.type, d."notnull", d.dflt_value, d.pk',
        "foreign_key_list": 'd."from", d."table", d."to", d.on_delete',
        "index_list": 'd."unique", (SELECT group_concat(name) FROM pragma_index_info(d.name))',
    }

    def work(conn: sa.Connection) -> set[tuple[Any, ...]]:
        found = set()
        for pragma, columns in parts.items():
            where = ' AND d."unique"' if pragma == "index_list" else ""
            tables = "sqlite_master m WHERE m.type = 'table' AND m.name NOT LIKE 'alembic%'"
            found |= set(
                conn.exec_driver_sql(
                    f"SELECT m.name, {columns} FROM pragma_{pragma}(m.name) d, {tables}{where}"
                ).fetchall()
            )
        return {tuple(str(value).strip("'") for value in row) for row in found}

    return read(db, work)


def test_adopt_takes_over_every_row(old: Database) -> None:
    """Times written in Beijing come out as the right instants, gaps read as gaps."""
    migrate.adopt(old)
    assert (migrate.current(old), migrate.check(old)) == (migrate.HEAD, [])
    wf = gwf.Client(old)
    jobs = wf.jobs()
    assert jobs["status"].tolist() == ["running", "running", "failed", "pending", "completed"]
    assert jobs["created_by"].isna().tolist() == [False, True, False, True, False]
    assert jobs["created_at"].tolist() == [at(0)] * 5
    assert jobs["started_at"].isna().tolist() == [False, False, False, True, False]
    assert jobs["completed_at"].tolist()[4] == at(5)
    assert jobs["completed_at"].tolist()[2] == at(6)  # a failed job has an end: its last change
    assert jobs["current_task_seq"].astype(object).fillna(0).tolist() == [0, 2, 1, 1, 0]
    assert jobs["n_done"].tolist() == [3, 1, 0, 0, 3]
    assert jobs["duration_s"].astype(object).fillna(0).tolist() == [0, 0, 5 * 3600, 0, 4 * 3600]
    assert wf.attempts().equals(wf.job_tasks())
    tasks = wf.job_tasks(job=2)
    assert tasks["result"].tolist() == [{"status": "ok", "中": [1]}, None, None]
    assert tasks["operator_id"].astype(object).fillna(0).tolist() == [0, 100, 0]
    assert tasks["work_s"].astype(object).fillna(0).tolist() == [1800, 0, 0]
    assert wf.job_tasks(status="failed")["error_message"].isna().tolist() == [True]
    assert wf.tasks()["config"].tolist() == [{"approvers": ["PM"]}, {}, None]
    assert wf.tasks()["is_active"].all()
    steps = wf.flow_tasks()
    assert steps["condition"].dropna().tolist() == ["previous_task_result.status == 'approved'"]
    assert steps["allow_rollback"].tolist() == [True, True, False]
    assert wf.flow("功能开发流程").version == "1.0.0"


def test_adopt_keeps_logs_and_context(old: Database) -> None:
    """Context values were text and stay text; a job without logs has none."""
    migrate.adopt(old)
    wf = gwf.Client(old)
    logs = wf.logs()
    assert logs["action"].tolist() == ["start", "complete", "start", "fail"]
    assert logs["job_id"].tolist() == [2, 2, 2, 3]
    assert logs["created_at"].tolist() == [at(4), at(4), at(5), at(7)]
    assert logs["metadata"].tolist() == [{"n": 1}, None, {"n": 1}, None]
    assert wf.logs(job=1).empty
    assert dict(wf.job(2).context) == {
        "env": "prod",
        "note": NOTE,
        "empty": "",
        "null": None,
        "n": "42",
        "o": '{"a": 1}',
    }
    assert wf.context(2)["created_at"].tolist() == [at(1)] * 6


def test_adopted_jobs_go_on(old: Database) -> None:
    """A running job is completed, a failed one retried, a pending one started."""
    migrate.adopt(old)
    wf = gwf.Client(old)
    job = wf.job(2)
    assert "operator 100" in str(job.explain())
    job.task("代码开发").complete({"status": "approved"})
    assert job.next_task().start(operator=7).complete().status == "completed"  # type: ignore[union-attr]  # it is due
    assert job.status == "completed"
    assert job.duration_s > 0
    wf.job(3).retry("需求评审").start().complete({})
    assert wf.job(3).record.current_task_seq == 2
    assert wf.job(4).start().next_task().name == "需求评审"  # type: ignore[union-attr]  # as above
    wf.job(5).reopen(to=2, reason="again")
    assert wf.job(5).status == "running"


def test_adopted_rows_that_no_verb_of_ours_writes(old: Database) -> None:
    """A send-back that was cut off, a job that failed without a start, one without tasks."""
    with old.engine.begin() as conn:
        conn.exec_driver_sql(
            "UPDATE job_tasks SET status = 'rolled_back' WHERE job_id = 2 AND sequence = 2"
        )
        conn.exec_driver_sql("UPDATE jobs SET started_at = NULL WHERE id = 3")
        conn.exec_driver_sql("DELETE FROM job_task_logs")
        conn.exec_driver_sql("DELETE FROM job_tasks WHERE job_id = 4")
    migrate.adopt(old)
    wf = gwf.Client(old)
    assert wf.job(2).next_task().start().complete().status == "completed"  # type: ignore[union-attr]  # it is due
    job = wf.job(3)
    job.retry("需求评审").start().complete()
    assert job.record.completed_at is None
    while (task := job.next_task()) is not None:
        task.start().complete({"status": "approved"})
    assert (job.status, job.duration_s is not None) == ("completed", True)
    assert wf.job(4).next_task() is None
    assert "not started yet" in str(wf.job(4).explain())
    with pytest.raises(gwf.JobNotFound):
        wf.next_task(99)


def test_adopted_job_that_ran_for_ever_is_explained_and_ended(old: Database) -> None:
    """Its tasks are all finished, so nothing is due; it says so, and can be given up."""
    migrate.adopt(old)
    job = gwf.Client(old).job(1)
    assert job.next_task() is None
    assert "None" not in str(job.explain())
    assert "cancel_job" in job.explain().legal
    assert job.cancel(reason="finished long ago").status == "cancelled"


@pytest.mark.parametrize("config", ['{"expression": "x == 1"}', "[1]"])
def test_adopted_condition_that_gwf_cannot_read_fails_its_task(old: Database, config: str) -> None:
    """GoWorkFlow never evaluated ``condition_config``, so it may hold anything (rule C5)."""
    with old.engine.begin() as conn:
        statement = sa.text("UPDATE flow_tasks SET condition_config = :config WHERE id = 3")
        conn.execute(statement, {"config": config})
    migrate.adopt(old)
    wf = gwf.Client(old)
    assert len(wf.flow_tasks()) == 3
    wf.job(2).task("代码开发").complete({})
    assert (wf.job(2).task("部署").error_code, wf.job(2).status) == ("condition_error", "failed")


def test_adopt_makes_the_context_table_where_it_is_missing(databases: Any) -> None:
    """It was published by a script of its own, so older installations lack it."""
    db = goworkflow(databases.new(), without="job_context")
    migrate.adopt(db)
    wf = gwf.Client(db)
    assert (migrate.check(db), len(wf.jobs()), dict(wf.job(2).context)) == ([], 5, {})
    db.close()


def test_adopt_twice_changes_nothing(old: Database) -> None:
    migrate.adopt(old)
    before = content(old)
    migrate.adopt(old)
    assert content(old) == before


@pytest.mark.parametrize(
    ("statements", "reason"),
    [
        ((), "it is empty; `gwf init`"),
        (("CREATE TABLE customers (id INTEGER PRIMARY KEY)",), "flow_tasks, .*missing"),
    ],
)
def test_adopt_is_refused_where_goworkflow_never_was(
    bare: Database, statements: tuple[str, ...], reason: str
) -> None:
    """A database of something else is refused, naming what is missing, and left alone."""
    with bare.engine.begin() as conn:
        for statement in statements:
            conn.exec_driver_sql(statement)
    before = schema_of(bare)
    with pytest.raises(gwf.DatabaseMismatch, match=reason):
        migrate.adopt(bare)
    assert (schema_of(bare), migrate.current(bare)) == (before, None)


def test_adopt_is_refused_where_a_column_is_missing(old: Database) -> None:
    with old.engine.begin() as conn:
        conn.exec_driver_sql("ALTER TABLE jobs DROP COLUMN current_task_seq")
    before = schema_of(old)
    with pytest.raises(gwf.DatabaseMismatch, match=r"jobs\.current_task_seq missing"):
        migrate.adopt(old)
    assert (schema_of(old), migrate.current(old)) == (before, None)


def test_downgrade_gives_back_the_published_rows(old: Database) -> None:
    """Up, down, up: what GoWorkFlow wrote is there again, but for the gaps that were closed."""
    before = content(old)
    migrate.adopt(old)
    wf = gwf.Client(old)
    frames = {noun: getattr(wf, noun)() for noun in ("tasks", "flow_tasks", "jobs", "attempts")}
    migrate.downgrade(old, migrate.PUBLISHED)
    assert migrate.current(old) == migrate.PUBLISHED
    for task in before["tasks"]:
        task["is_active"] = 1
    for job, current in zip(before["jobs"], (None, 2, 1, 1, None), strict=True):
        job["current_task_seq"] = current
    before["jobs"][2]["completed_at"] = before["jobs"][2]["updated_at"]
    for row in before["job_context"]:
        row["created_at"] = row["updated_at"]
    assert content(old) == before
    migrate.upgrade(old)
    for noun, frame in frames.items():
        assert getattr(wf, noun)().equals(frame), noun
    assert wf.job(2).context["note"] == NOTE


def test_downgrade_keeps_what_the_published_schema_can_hold(bare: Database) -> None:
    """Rows of ours go down and up: the current attempts stay, history and people are dropped."""
    migrate.upgrade(bare)
    wf = gwf.Client(bare)
    flow = wf.create_flow("流程", [wf.create_task("评审"), wf.create_task("开发")])
    job = wf.create_job(flow, "作业", context={"env": "prod", "n": {"a": [1, None]}})
    job.start().task("评审").start(operator=1).complete({"ok": True})
    job.task("开发").start()
    job.rollback("开发", to=1, reason="again")
    job.task("评审").start(operator=2).complete(["好", 1.5])
    job.context["env"] = "staging"
    del job.context["n"]
    tasks = wf.job_tasks()
    migrate.downgrade(bare, migrate.PUBLISHED)
    migrate.upgrade(bare)
    assert migrate.check(bare) == []
    again = wf.job_tasks()
    kept = ["job_task_id", "job_name", "flow_name", "sequence", "task_name", "status", "result"]
    assert again[kept].equals(tasks[kept])
    assert again["operator_id"].equals(tasks["operator_id"])
    assert again["attempt"].tolist() == [1, 1]
    assert dict(job.context) == {"env": "staging"}
    assert set(wf.logs()["action"]) == {"start", "complete", "rollback", "reopen"}
    assert wf.logs()["job_task_id"].notna().all()
    assert job.next_task().start().complete().status == "completed"  # type: ignore[union-attr]  # it is due


def test_downgrade_to_nothing_and_up_again(bare: Database) -> None:
    migrate.upgrade(bare)
    migrate.downgrade(bare, "base")
    assert (migrate.current(bare), schema_of(bare)) == (None, {})
    migrate.prepare(bare)
    assert (migrate.current(bare), migrate.check(bare)) == (migrate.HEAD, [])


def test_downgrade_is_refused_with_a_parallel_group(bare: Database) -> None:
    """The published key on (flow, sequence) cannot hold it: it says which flow, and stops."""
    migrate.upgrade(bare)
    wf = gwf.Client(bare)
    tasks = [wf.create_task(name) for name in "ab"]
    wf.create_job(wf.create_flow("f", [tasks]), "j")
    before = (schema_of(bare), content(bare))
    with pytest.raises(gwf.Conflict, match="flows 1 have parallel groups"):
        migrate.downgrade(bare, migrate.PUBLISHED)
    assert migrate.current(bare) == migrate.HEAD
    assert (schema_of(bare), content(bare)) == before
    assert wf.job(1).start().status == "running"


def test_downgrade_is_clear_about_keys_that_only_case_tells_apart(bare: Database) -> None:
    """A server's published key takes ``Env`` for ``env``: refused in words, or done; never raw."""
    migrate.upgrade(bare)
    wf = gwf.Client(bare)
    flow = wf.create_flow("f", [wf.create_task("a")])
    job = wf.create_job(flow, "j", context={"Env": 1, "env": 2})
    with contextlib.suppress(RuntimeError):
        migrate.downgrade(bare, migrate.PUBLISHED)
    migrate.upgrade(bare)
    assert len(job.context) == 2


def break_at(db: Database, marker: str, how: str) -> None:
    """Let the first statement with this marker fail, or end the process before it."""
    state = {"is_broken": False}

    @sa.event.listens_for(db.engine, "before_cursor_execute", retval=True)
    def break_it(conn: object, cursor: object, sql: str, *rest: Any) -> tuple[str, object]:
        if marker in sql and not state["is_broken"]:
            state["is_broken"] = True
            if how == "die":
                os._exit(9)
            return "SELECT broken FROM nothing_of_this_name", ()
        return sql, rest[0]


def upgrade_and_die(url: str, marker: str) -> None:
    """Upgrade in a process of its own that ends without a word on the way."""
    db = open_database(url)
    break_at(db, marker, "die")
    migrate.adopt(db)


STAGES = ["CREATE TABLE new_jobs", "INTO new_job_context", "TO old_tasks"]


@pytest.mark.parametrize("marker", STAGES)
def test_upgrade_that_fails_leaves_the_old_data(old: Database, marker: str) -> None:
    """Whatever statement fails before the tables change places, the published rows stay."""
    before = content(old)
    break_at(old, marker, "fail")
    with pytest.raises(sa.exc.DBAPIError):
        migrate.adopt(old)
    assert migrate.current(old) == migrate.PUBLISHED
    assert content(old) == before
    migrate.upgrade(old)
    assert (migrate.check(old), len(gwf.Client(old).jobs())) == ([], 5)


def test_upgrade_that_fails_leaves_the_foreign_keys_on(old: Database) -> None:
    """The connection goes back into the pool, where the next verb relies on them."""
    break_at(old, "INTO new_jobs", "fail")
    with pytest.raises(sa.exc.DBAPIError):
        migrate.adopt(old)
    query = "PRAGMA foreign_keys" if old.is_sqlite else "SELECT @@foreign_key_checks"
    assert read(old, lambda conn: conn.exec_driver_sql(query).scalar()) == 1


@pytest.mark.parametrize(
    "marker", [*STAGES[1:], "DROP TABLE IF EXISTS old_jobs", "UPDATE alembic_version"]
)
def test_upgrade_is_repeated_after_its_process_died(old: Database, marker: str) -> None:
    """A process that is killed on the way leaves new or old tables lying; the next one copes."""
    url = old.engine.url.render_as_string(hide_password=False)
    dying = multiprocessing.get_context("spawn").Process(target=upgrade_and_die, args=(url, marker))
    dying.start()
    dying.join(60)
    assert dying.exitcode == 9
    migrate.adopt(old)
    assert (migrate.current(old), migrate.check(old)) == (migrate.HEAD, [])
    wf = gwf.Client(old)
    assert wf.jobs()["n_tasks"].tolist() == [3] * 5
    assert (len(wf.logs()), wf.job(2).context["note"]) == (4, NOTE)
    assert not [name for name in schema_of(old) if name.startswith(("new_", "old_"))]


def test_initialisation_is_repeated_after_its_process_died(bare: Database) -> None:
    """A process that is killed while it makes the first tables leaves some; the next copes."""
    url = bare.engine.url.render_as_string(hide_password=False)
    context = multiprocessing.get_context("spawn")
    dying = context.Process(target=initialise_and_die, args=(url,))
    dying.start()
    dying.join(60)
    assert dying.exitcode == 9
    migrate.prepare(bare)
    assert (migrate.current(bare), migrate.check(bare)) == (migrate.HEAD, [])


def initialise_and_die(url: str) -> None:
    """Prepare a database in a process of its own that ends after the first three tables."""
    db = open_database(url)
    break_at(db, "CREATE TABLE jobs", "die")
    migrate.prepare(db)


def test_prepare_waits_for_another_that_is_half_done(bare: Database) -> None:
    """Who looks while the first tables are being made does not take them for something else."""
    other = open_database(bare.engine.url)
    looked = threading.Event()
    sa.event.listen(other.engine, "rollback", lambda conn: looked.set())
    with ThreadPoolExecutor() as pool:
        second: list[Future[None]] = []

        @sa.event.listens_for(bare.engine, "before_cursor_execute")
        def meanwhile(conn: object, cursor: object, sql: str, *rest: object) -> None:
            if "CREATE TABLE jobs" in sql:
                second.append(pool.submit(migrate.prepare, other))
                assert looked.wait(60)

        migrate.prepare(bare)
        second[0].result(60)
    assert (migrate.current(other), migrate.check(other)) == (migrate.HEAD, [])
    other.close()


@pytest.mark.parametrize("databases", ["mariadb", "mysql"], indirect=True)
def test_upgrade_while_another_process_migrates(
    bare: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A migration that does not end is named as the reason, and nothing is begun beside it."""
    monkeypatch.setattr(migrate, "_WAIT_S", 0)
    other = open_database(bare.engine.url)
    with other.engine.connect() as conn:
        conn.exec_driver_sql("SELECT GET_LOCK('gwf_migrate', 0)")
        with pytest.raises(gwf.DatabaseUnavailable, match="another process has been migrating"):
            migrate.upgrade(bare)
    other.close()
    assert migrate.current(bare) is None


def initialise(urls: list[str], barrier: Barrier) -> None:
    """Prepare one database after the other, each at the same moment as another process."""
    try:
        for url in urls:
            db = open_database(url)
            barrier.wait(60)
            migrate.prepare(db)
            assert migrate.current(db) == migrate.HEAD
            db.close()
    except BaseException:
        barrier.abort()  # so that the other one does not wait in vain
        raise


def test_two_processes_prepare_one_empty_database(databases: Any) -> None:
    """Both succeed, whoever is first, and the tables are made once; four databases in turn."""
    urls = [databases.new() for _ in range(4)]
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    both = [context.Process(target=initialise, args=(urls, barrier)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(120)
    assert [process.exitcode for process in both] == [0, 0]
    for url in urls:
        db = open_database(url)
        assert migrate.check(db) == []
        db.close()
