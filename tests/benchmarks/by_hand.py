"""Do the minimal correct transition and the bulk creation by hand: what gwf is measured against."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import pymysql
import sqlalchemy as sa
from pymysql.constants import CLIENT

STEPS = (("pending", "running", "started_at"), ("running", "completed", "completed_at"))


class Hand(Protocol):
    """Be one way to do the work by hand."""

    def transitions(self, job_id: int, job_task_ids: Sequence[int]) -> int:
        """Start and complete each task and return the number of transitions."""

    def create_jobs(self, flow_id: int, names: Sequence[str]) -> int:
        """Create jobs of ten tasks and return the number of tasks."""


class ServerByHand:
    """Do it with PyMySQL: BEGIN, guarded UPDATE, INSERT log, UPDATE job, COMMIT."""

    def __init__(self, url: str) -> None:
        parsed = sa.make_url(url)
        self.connection = pymysql.connect(
            host=parsed.host,
            port=parsed.port or 3306,
            user=parsed.username,
            password=parsed.password or "",
            database=parsed.database,
            charset="utf8mb4",
            autocommit=True,
        )

    def transitions(self, job_id: int, job_task_ids: Sequence[int]) -> int:
        """Start and complete each task."""
        cursor = self.connection.cursor()
        for job_task_id in job_task_ids:
            for before, after, instant in STEPS:
                cursor.execute("BEGIN")
                changed = cursor.execute(
                    f"UPDATE job_tasks SET status = %s, {instant} = NOW(6), updated_at = NOW(6) "
                    "WHERE id = %s AND status = %s",
                    (after, job_task_id, before),
                )
                assert changed == 1
                cursor.execute(
                    "INSERT INTO job_task_logs (job_id, job_task_id, attempt, action, operator_id, "
                    "from_status, to_status, created_at) VALUES (%s, %s, 1, %s, 1, %s, %s, NOW(6))",
                    (job_id, job_task_id, after, before, after),
                )
                cursor.execute("UPDATE jobs SET updated_at = NOW(6) WHERE id = %s", (job_id,))
                cursor.execute("COMMIT")
        return 2 * len(job_task_ids)

    def create_jobs(self, flow_id: int, names: Sequence[str]) -> int:
        """Create the jobs by executemany, 1,000 of them a commit."""
        cursor = self.connection.cursor()
        cursor.execute(
            "SELECT p.id, p.task_id, p.sequence, t.name, t.task_type, t.config "
            "FROM flow_tasks p JOIN tasks t ON t.id = p.task_id WHERE p.flow_id = %s",
            (flow_id,),
        )
        steps: list[tuple[Any, ...]] = list(cursor.fetchall())
        now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
        for start in range(0, len(names), 1000):
            chunk = names[start : start + 1000]
            cursor.execute("BEGIN")
            cursor.executemany(
                "INSERT INTO jobs (flow_id, flow_name, flow_version, job_name, status, "
                "current_task_seq, n_tasks, n_done, n_rollbacks, max_rollbacks, created_at, "
                f"elapsed_us, updated_at) VALUES ({_places(13)})",
                [
                    (flow_id, "bench", "1.0.0", name, "pending", 1, 10, 0, 0, 20, now, 0, now)
                    for name in chunk
                ],
            )
            first = cursor.lastrowid
            jobs = range(first, first + len(chunk))
            cursor.executemany(
                "INSERT INTO job_tasks (job_id, flow_task_id, task_id, sequence, task_name, "
                "task_type, config, is_optional, allow_rollback, status, attempt, is_skipped, "
                f"created_at, updated_at) VALUES ({_places(14)})",
                [
                    (job_id, *step, 0, 1, "pending", 1, 0, now, now)
                    for job_id in jobs
                    for step in steps
                ],
            )
            cursor.executemany(
                "INSERT INTO job_task_logs (job_id, action, to_status, created_at) "
                f"VALUES ({_places(4)})",
                [(job_id, "create", "pending", now) for job_id in jobs],
            )
            cursor.execute("COMMIT")
        return len(names) * len(steps)


def _places(number: int) -> str:
    """Return placeholders only: PyMySQL makes multi-row VALUES of nothing else."""
    return ", ".join(["%s"] * number)


class ReadingByHand(ServerByHand):
    """Do what any engine has to: lock and read what decides, then write it all in one trip.

    It reads ten columns and knows no rule but the order of the tasks, so it is the least that an
    engine can take which looks before it writes.
    """

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.connection.client_flag |= CLIENT.MULTI_STATEMENTS
        self.connection.autocommit_mode = False
        self.connection.connect()

    def transitions(self, job_id: int, job_task_ids: Sequence[int]) -> int:
        """Start and complete each task, and make the next one due."""
        cursor = self.connection.cursor()
        for job_task_id in job_task_ids:
            for before, after, instant in STEPS:
                cursor.execute(_LOCK, (job_task_id,))
                row: Any = cursor.fetchone()
                sequence, n_done, attempt, status = row[2:6]
                assert status == before
                statements = [
                    f"UPDATE job_tasks SET status = %s, {instant} = NOW(6), updated_at = NOW(6) "
                    "WHERE id = %s AND status = %s AND attempt = %s",
                    "INSERT INTO job_task_logs (job_id, job_task_id, attempt, action, operator_id, "
                    "from_status, to_status, created_at) VALUES (%s, %s, 1, %s, 1, %s, %s, NOW(6))",
                ]
                values = [after, job_task_id, before, attempt]
                values += [job_id, job_task_id, after, before, after]
                if after == "completed":
                    cursor.execute(_NEXT, (job_id, sequence))
                    later: Any = [one for one in cursor.fetchall() if one[1] > sequence]
                    n_done += 1
                    if later:
                        sequence = later[0][1]
                        statements.append(
                            "UPDATE job_tasks SET ready_at = NOW(6), updated_at = NOW(6) "
                            "WHERE id = %s AND status = 'pending'"
                        )
                        values.append(later[0][0])
                statements.append(
                    "UPDATE jobs SET n_done = %s, current_task_seq = %s, updated_at = NOW(6) "
                    "WHERE id = %s"
                )
                cursor.execute(";".join(statements), [*values, n_done, sequence, job_id])
                while cursor.nextset():
                    pass
                self.connection.commit()
        return 2 * len(job_task_ids)


_LOCK = (
    "SELECT j.id, j.status, t.sequence, j.n_done, t.attempt, t.status, t.task_type, j.paused_at, "
    "j.next_due_at, j.current_task_seq FROM job_tasks t JOIN jobs j ON j.id = t.job_id "
    "WHERE t.id = %s FOR UPDATE"
)
_NEXT = (
    "SELECT id, sequence, status, join_count, condition_config, attempt, task_type FROM job_tasks "
    "WHERE job_id = %s AND sequence >= %s ORDER BY sequence, id LIMIT 3"
)


class SqliteByHand:
    """Do it with sqlite3 at synchronous=FULL, on a copy of the same tables."""

    def __init__(self, path: Path, template: Path) -> None:
        self._template = template
        self._path = path
        self._connection: sqlite3.Connection | None = None

    def _open(self) -> sqlite3.Connection:
        """Open a copy of the tables, with rows for the jobs to come."""
        connection = sqlite3.connect(self._path, isolation_level=None)
        source = sqlite3.connect(self._template)
        source.backup(connection)
        source.close()
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        return connection

    def transitions(self, job_id: int, job_task_ids: Sequence[int]) -> int:
        """Start and complete each task."""
        if self._connection is None:
            self._connection = self._open()
        execute = self._connection.execute
        now = "strftime('%Y-%m-%d %H:%M:%f', 'now')"
        for number, _ in enumerate(job_task_ids, start=1):
            for before, after, instant in STEPS:
                execute("BEGIN IMMEDIATE")
                execute(
                    f"UPDATE job_tasks SET status = ?, {instant} = {now} WHERE id = ?",
                    (after, number),
                )
                execute(
                    "INSERT INTO job_task_logs (job_id, job_task_id, attempt, action, operator_id, "
                    f"from_status, to_status, created_at) VALUES (1, ?, 1, ?, 1, ?, ?, {now})",
                    (number, after, before, after),
                )
                execute(f"UPDATE jobs SET updated_at = {now} WHERE id = 1")
                execute("COMMIT")
        return 2 * len(job_task_ids)

    def create_jobs(self, flow_id: int, names: Sequence[str]) -> int:
        """Leave the creation to the server's side of the table."""
        raise AssertionError("the creation of jobs is measured on a server")
