"""Upgrade a database that knew no workers: what is due may be taken, by the executor it names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

import gwf
from gwf import migrate
from gwf.database import Database, open_database

CONFIGS = {
    "command": '{"command": "true", "coverage_threshold": 80}',
    "webhook": '{"webhook_url": "http://h/x"}',
    "lint": '{"executor": "lint", "command": "x"}',
    None: '{"environment": "staging"}',
}


@pytest.fixture
def old(databases: Any) -> Iterator[Database]:
    """Return a database of revision 0003, with a running job of automated tasks that are due."""
    db = open_database(databases.new())
    migrate.upgrade(db, "0003")
    now = "2026-03-02 01:00:00.000000"
    with db.engine.begin() as conn:
        for statement in (
            f"INSERT INTO flows VALUES (1, 'F', NULL, '1.0.0', 1, 20, NULL, '{now}', '{now}')",
            "INSERT INTO jobs (id, flow_id, flow_name, flow_version, job_name, status, "
            "current_task_seq, n_tasks, n_done, n_rollbacks, max_rollbacks, created_at, "
            "elapsed_us, updated_at) VALUES "
            f"(1, 1, 'F', '1.0.0', 'J', 'running', 1, 4, 0, 0, 20, '{now}', 0, '{now}')",
        ):
            conn.exec_driver_sql(statement)
        for number, config in enumerate(CONFIGS.values(), start=1):
            values = {"id": number, "config": config, "now": now}
            conn.execute(
                sa.text(
                    "INSERT INTO tasks (id, name, task_type, config, is_active, created_at, "
                    "updated_at) VALUES (:id, 't', 'automated', :config, 1, :now, :now)"
                ),
                values,
            )
            conn.execute(
                sa.text(
                    "INSERT INTO job_tasks (id, job_id, flow_task_id, task_id, sequence, "
                    "task_name, task_type, config, is_optional, allow_rollback, status, "
                    "attempt, is_skipped, ready_at, created_at, updated_at) "
                    "VALUES (:id, 1, :id, :id, 1, 't', 'automated', :config, 0, 1, 'pending', "
                    "1, 0, :now, :now, :now)"
                ),
                values,
            )
    yield db
    assert db.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    db.close()


def executors_of(db: Database, table: str) -> list[str | None]:
    with db.engine.connect() as conn:
        return [row[0] for row in conn.exec_driver_sql(f"SELECT executor FROM {table} ORDER BY id")]


def test_upgrade_names_the_executors(old: Database) -> None:
    """Of the definitions and of open tasks; what is due is there for workers to take."""
    migrate.upgrade(old)
    for table in ("tasks", "job_tasks"):
        assert executors_of(old, table) == list(CONFIGS)
    with old.engine.connect() as conn:
        query = "SELECT available_at IS NOT NULL, n_retries FROM job_tasks ORDER BY id"
        rows = [tuple(map(int, row)) for row in conn.exec_driver_sql(query)]
    assert rows == [(1, 0), (1, 0), (1, 0), (0, 0)]
    with gwf.connect(old.engine.url) as wf:
        job = wf.run(1, allow=["command"], progress=False)
        assert "command" in str(wf.job_tasks(job=job)["executor"].tolist())
        assert wf.job_task(1).record.worker is not None


def test_downgrade_and_upgrade_again(old: Database) -> None:
    migrate.upgrade(old)
    migrate.downgrade(old, "0003")
    migrate.upgrade(old)
    assert migrate.check(old) == []
    assert executors_of(old, "tasks") == list(CONFIGS)
