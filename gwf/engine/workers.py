"""Keep the list of workers: who runs automated tasks, where, and when it was last heard of."""

from __future__ import annotations

from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gwf import queries
from gwf.engine.rows import database_now
from gwf.model import WorkerRecord
from gwf.statements import Statement, Write, execute
from gwf.tables import UtcDateTime, workers

#: A worker that was not heard of for so long, in seconds, is taken for dead.
DEAD_AFTER_S = 60.0
#: Workers that are gone are listed for so many days.
KEPT_DAYS = 7

STOPPED = "stopped"

_NAMES = tuple(column.name for column in queries.WORKER_COLUMNS)
_DELETE = Statement(workers.delete().where(workers.c.name == sa.bindparam("b_name")))
_FORGET = Statement(
    workers.delete().where(
        workers.c.seen_at < sa.bindparam("b_seen_at", type_=workers.c.seen_at.type)
    )
)
_INSERT = Statement(workers.insert().values({name: sa.bindparam(name) for name in _NAMES}))
_ALIVE = Statement(
    sa.select(*queries.WORKER_COLUMNS).where(
        workers.c.seen_at >= sa.bindparam("seen_at", type_=UtcDateTime),
        workers.c.state != STOPPED,
    )
)


def note_worker(conn: Connection, worker: WorkerRecord) -> WorkerRecord:
    """Write what a worker says of itself, as of now; those long gone are forgotten."""
    now = database_now(conn)
    seen = worker.replaced(seen_at=now)
    execute(
        conn,
        [
            Write(_FORGET, {"b_seen_at": now - timedelta(days=KEPT_DAYS)}),
            Write(_DELETE, {"b_name": worker.name}),
            Write(_INSERT, {name: getattr(seen, name) for name in _NAMES}),
        ],
    )
    return seen


def alive(conn: Connection, now: datetime) -> list[WorkerRecord]:
    """Return the workers that were heard of in the last minute and have not stopped."""
    rows = _ALIVE.fetch(conn, seen_at=now - timedelta(seconds=DEAD_AFTER_S))
    return [WorkerRecord.from_row(row) for row in rows]
