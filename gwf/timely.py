"""Run work in a transaction once no deadline of what it looks at has passed (rule W6)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from sqlalchemy.engine import Connection

from gwf import database
from gwf.database import Database
from gwf.engine import deadlines
from gwf.engine.locks import DeadlinePassed
from gwf.engine.rows import database_now

Answer = TypeVar("Answer")


def read(db: Database, work: Callable[[Connection], Answer]) -> Answer:
    """Run work that only reads; see ``database.read``."""
    return _in_time(db, lambda: database.read(db, work))


def write(db: Database, work: Callable[[Connection], Answer]) -> Answer:
    """Run work in one transaction and commit it once; see ``database.write``."""
    return _in_time(db, lambda: database.write(db, work))


def apply_deadlines(db: Database, job_id: int) -> int:
    """Apply the deadlines of a job that have passed, and return how many did."""
    return database.write(db, lambda conn: deadlines.apply_deadlines(conn, job_id))


def apply_all_deadlines(db: Database) -> int:
    """Apply the deadlines of all jobs that have passed, and return how many did."""
    n_applied = 0
    while late := database.read(db, lambda conn: deadlines.late_jobs(conn, database_now(conn))):
        n_applied += sum(apply_deadlines(db, job_id) for job_id in late)
    return n_applied


def _in_time(db: Database, act: Callable[[], Answer]) -> Answer:
    while True:
        try:
            return act()
        except DeadlinePassed as passed:
            apply_deadlines(db, passed.job_id)
