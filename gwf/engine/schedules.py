"""Create jobs by the calendar: schedules, and the jobs that they make due.

The grammar of cron is cronsim's, which passes over summer time as Debian's cron does: an instant
that the clocks skip is moved to the next one, one that they repeat happens once. croniter and
APScheduler were the alternatives; the first reads the same grammar without those rules, the second
is a whole scheduler.

Why exactly once: the schedule's row is locked, and moving ``next_at`` on is in the transaction that
creates the job. Whoever comes second finds ``next_at`` in the future.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, get_args
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from cronsim import CronSim, CronSimError
from sqlalchemy.engine import Connection

from gwf import directory, queries
from gwf.engine.creation import NewJob, create_job
from gwf.engine.definitions import get_flow
from gwf.engine.jobs import start_job
from gwf.engine.rows import clock_of, database_now, server_clock
from gwf.errors import Conflict, Invalid, ScheduleNotFound
from gwf.limits import checked_flag, checked_name
from gwf.model import Call, ScheduleRecord
from gwf.statements import Statement, Write, execute
from gwf.tables import schedules

CatchUp = Literal["skip", "latest", "all"]

#: An instant that passed longer ago than this was missed: no worker was there.
MISSED_AFTER_S = 300.0
#: How many missed instants ``catch_up="all"`` makes up for in one go.
MAX_CAUGHT_UP = 100

_FIELDS = queries.fields_of(ScheduleRecord)
_INSERT = Statement(schedules.insert().values({name: sa.bindparam(name) for name in _FIELDS}))
_LOCK = Statement(
    sa.select(*queries.SCHEDULE_COLUMNS, server_clock().label("now"))
    .where(schedules.c.id == sa.bindparam("schedule_id"))
    .with_for_update()
)
_MOVED = ("next_at", "last_at", "last_job_id", "n_created", "n_skipped", "is_active")
_MOVE = Statement(
    schedules.update()
    .where(schedules.c.id == sa.bindparam("b_id"))
    .values({name: sa.bindparam(name) for name in _MOVED})
)


def add_schedule(
    conn: Connection,
    flow_id: int,
    call: Call,
    *,
    cron: str,
    tz: str,
    catch_up: str,
    job_name: str | None,
    context: Mapping[str, Any] | None,
) -> ScheduleRecord:
    """Let workers create and start a job of this flow at each instant of a cron expression.

    Raises
    ------
    FlowNotFound, Invalid
    Conflict
        The flow is not active.
    """
    flow = get_flow(conn, flow_id)
    if not flow.is_active:
        raise Conflict(f"flow {flow_id} {flow.name!r} is not active", found="inactive")
    if catch_up not in get_args(CatchUp):
        raise Invalid("catch_up", catch_up, expected=f"one of {', '.join(get_args(CatchUp))}")
    now = database_now(conn)
    zone, expression = checked_zone(tz), checked_cron(cron)
    named = NewJob(flow.name[:80] if job_name is None else job_name, context or {}).checked()
    _expect_room_for_instant(named.name)
    actor = directory.identify(conn, call.operator, open_mode=not directory.holds_anybody(conn))
    directory.expect_active(actor)
    fields: dict[str, Any] = {
        "flow_id": flow_id,
        "job_name": named.name,
        "cron": expression,
        "tz": zone.key,
        "catch_up": catch_up,
        "context": dict(named.context) or None,
        "is_active": True,
        "created_by": actor.operator_id,
        "created_at": now,
        "next_at": next_instant(expression, zone, now),
        "last_at": None,
        "last_job_id": None,
        "n_created": 0,
        "n_skipped": 0,
    }
    return ScheduleRecord(id=_INSERT.insert(conn, **fields), **fields)


def set_active(conn: Connection, schedule_id: int, *, is_active: bool) -> ScheduleRecord:
    """Stop a schedule, or let it go on with its next instant; nothing is made up for.

    Raises
    ------
    ScheduleNotFound
    """
    checked_flag("is_active", is_active)
    schedule, now = _locked(conn, schedule_id)
    if schedule.is_active == is_active:
        return schedule
    after = max(now, schedule.last_at or now)
    next_at = next_instant(schedule.cron, ZoneInfo(schedule.tz), after) if is_active else None
    return _moved(conn, schedule.replaced(is_active=is_active, next_at=next_at))


def create_due_jobs(conn: Connection, schedule_id: int) -> list[int]:
    """Create and start the jobs that are due by this schedule, and return their ids.

    Jobs that cannot be created (their flow was retired) stop the schedule.

    Raises
    ------
    ScheduleNotFound
    """
    schedule, now = _locked(conn, schedule_id)
    if not schedule.is_active or schedule.next_at is None or schedule.next_at > now:
        return []
    wanted, n_skipped, next_at = _due_instants(schedule, now)
    is_retired = not get_flow(conn, schedule.flow_id).is_active
    try:
        job_ids = [] if is_retired else [_create(conn, schedule, instant) for instant in wanted]
    except Conflict:  # its flow lost all its tasks
        is_retired = True
    if is_retired:
        _moved(conn, schedule.replaced(is_active=False, next_at=None))
        return []
    _moved(
        conn,
        schedule.replaced(
            next_at=next_at,
            last_at=wanted[-1] if wanted else schedule.last_at,
            last_job_id=job_ids[-1] if job_ids else schedule.last_job_id,
            n_created=schedule.n_created + len(job_ids),
            n_skipped=schedule.n_skipped + n_skipped,
        ),
    )
    return job_ids


def checked_cron(value: object) -> str:
    """Return a cron expression of five fields that has a next instant.

    Raises
    ------
    Invalid
    """
    expression = " ".join(checked_name("cron", value).split())
    if len(expression.split()) != 5:
        raise Invalid("cron", value, expected="five fields: minute hour day month weekday")
    try:
        next(CronSim(expression, datetime(2026, 1, 1)))  # noqa: DTZ001 - any instant will do
    except (CronSimError, StopIteration) as error:
        raise Invalid("cron", value, expected=str(error) or "an instant that exists") from None
    return expression


def checked_zone(value: object) -> ZoneInfo:
    """Return the time zone of a name such as ``Asia/Shanghai``.

    Raises
    ------
    Invalid
    """
    name = checked_name("tz", value)
    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError):
        raise Invalid("tz", value, expected="a name such as Asia/Shanghai or UTC") from None


def next_instant(cron: str, zone: ZoneInfo, after: datetime) -> datetime:
    """Return the first instant of the expression that lies after this one, in UTC."""
    instants = (one.astimezone(UTC) for one in CronSim(cron, after.astimezone(zone)))
    found = next(one for one in instants if one > after)
    return found.astimezone(after.tzinfo)


def _due_instants(
    schedule: ScheduleRecord, now: datetime
) -> tuple[list[datetime], int, datetime | None]:
    """Return the instants to create a job for, how many are skipped, and the next one."""
    zone = ZoneInfo(schedule.tz)
    passed: list[datetime] = []
    instant = schedule.next_at
    assert instant is not None  # noqa: S101 - it is due
    n_skipped = 0
    missed_before = now - timedelta(seconds=MISSED_AFTER_S)
    while instant <= now and len(passed) < MAX_CAUGHT_UP:
        following = next_instant(schedule.cron, zone, instant)
        is_missed = instant < missed_before
        passes = schedule.catch_up == "skip" or (schedule.catch_up == "latest" and following <= now)
        if is_missed and passes:
            n_skipped += 1
        else:
            passed.append(instant)
        instant = following
    return passed, n_skipped, instant


def _create(conn: Connection, schedule: ScheduleRecord, instant: datetime) -> int:
    local = instant.astimezone(ZoneInfo(schedule.tz))
    job = NewJob(f"{schedule.job_name} {local:%Y-%m-%d %H:%M}", schedule.context or {})
    created = create_job(conn, schedule.flow_id, Call(), job=job)
    start_job(conn, created.id, Call())
    return created.id


def _locked(conn: Connection, schedule_id: int) -> tuple[ScheduleRecord, datetime]:
    rows = _LOCK.fetch(conn, schedule_id=schedule_id)
    if not rows:
        raise ScheduleNotFound(schedule_id)
    *fields, server_time = rows[0]
    return ScheduleRecord.from_row(fields), clock_of(conn, server_time)


def _moved(conn: Connection, schedule: ScheduleRecord) -> ScheduleRecord:
    values = {name: getattr(schedule, name) for name in _MOVED} | {"b_id": schedule.id}
    execute(conn, [Write(_MOVE, values, rows=1)])
    return schedule


def _expect_room_for_instant(name: str) -> None:
    longest = 100 - len(" 2026-01-01 00:00")
    if len(name) > longest:
        raise Invalid("job name", name, expected=f"at most {longest} characters, the time follows")
