"""Let jobs be created by the calendar: each once, whoever looks and however late.

The clock is given to ``connect`` and stands still until a test moves it, also backwards.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gwf
from gwf import executors, schemas, timely
from gwf.engine import schedules
from gwf.engine.claims import Lease
from gwf.engine.schedules import MAX_CAUGHT_UP, MISSED_AFTER_S, next_instant
from gwf.model import ScheduleRecord
from gwf.sources import AnyJob

#: A Sunday.
BEGIN = datetime(2026, 3, 1, 12, tzinfo=UTC)
EARLY = "0 7 * * 1-5"
LEASE = Lease("w", 30.0, {})
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
N_THREADS, N_INSTANTS = 8, 20


class Clock:
    """Be a clock that shows what it was set to."""

    def __init__(self) -> None:
        self.now = BEGIN

    def __call__(self) -> datetime:
        """Return the time that it shows."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """Return the clock of ``wf``."""
    return Clock()


@pytest.fixture
def wf(url: str, clock: Clock) -> Iterator[gwf.Client]:
    """Return a client of an empty database that lives by the clock."""
    with gwf.connect(url, clock=clock) as client:
        yield client
        assert client.database.engine.pool.checkedout() == 0  # type: ignore[attr-defined]


@pytest.fixture
def flow(wf: gwf.Client) -> gwf.Flow:
    """Return a flow of one manual task."""
    return wf.create_flow("早", [wf.create_task("a")])


def utc(text: str) -> datetime:
    """Return an instant."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def create_due(wf: gwf.Client, schedule: ScheduleRecord) -> list[int]:
    """Create the jobs that are due by a schedule, as a worker does, and return their ids."""
    return timely.write(wf.database, lambda conn: schedules.create_due_jobs(conn, schedule.id))


def look(wf: gwf.Client, schedule: ScheduleRecord) -> None:
    """Look once, as a worker does that may run nothing."""
    assert AnyJob().take(wf.database, LEASE, limit=1) == []


def row_of(wf: gwf.Client) -> Any:
    """Return the row of the first schedule in the frame."""
    return wf.schedules().iloc[0]


def names_of(wf: gwf.Client) -> list[str]:
    """Return the names of all jobs, the first created first."""
    return [str(name) for name in wf.jobs()["job_name"]]


WAYS = pytest.mark.parametrize("way", [create_due, look])


def test_schedule_at_seven_in_shanghai(wf: gwf.Client, flow: gwf.Flow) -> None:
    """Monday 7:00 in Shanghai is Sunday 23:00 in UTC, in the record and in the frame."""
    made = wf.schedule(flow, EARLY, tz="Asia/Shanghai", catch_up="skip", operator=7)
    assert made.next_at == utc("2026-03-01 23:00")
    frame = wf.schedules()
    assert frame.drop(columns="context").iloc[0].dropna().to_dict() == {
        "schedule_id": made.id,
        "flow_id": flow.id,
        "flow_name": "早",
        "job_name": "早",
        "cron": EARLY,
        "tz": "Asia/Shanghai",
        "catch_up": "skip",
        "is_active": True,
        "created_by": 7,
        "created_at": BEGIN,
        "next_at": made.next_at,
        "n_created": 0,
        "n_skipped": 0,
    }
    assert pd.isna(frame["last_at"][0])
    assert pd.isna(frame["last_job_id"][0])


def test_schedules_have_the_same_dtypes_when_empty(wf: gwf.Client, flow: gwf.Flow) -> None:
    """The columns and dtypes are those of ``schemas.SCHEDULES``, with rows and without."""
    wanted = {name: pd.Series([], dtype=dtype).dtype for name, dtype in schemas.SCHEDULES.items()}
    none = wf.schedules()
    wf.schedule(flow, EARLY)
    some, inactive = wf.schedules(is_active=True), wf.schedules(is_active=False)
    assert (len(none), len(some), len(inactive)) == (0, 1, 0)
    for frame in (none, some, inactive):
        assert list(frame.columns) == list(wanted)
        assert frame.dtypes.to_dict() == wanted


@WAYS
def test_create_a_due_job_once(
    wf: gwf.Client, flow: gwf.Flow, clock: Clock, way: Callable[..., Any]
) -> None:
    """Nothing before its instant, then one job that runs, named by the local time."""
    schedule = wf.schedule(flow, EARLY, tz="Asia/Shanghai", context={"环境": ["生产", 1]})
    due_at = utc("2026-03-01 23:00")
    clock.now = due_at - timedelta(microseconds=1)
    way(wf, schedule)
    assert names_of(wf) == []
    clock.now = due_at
    for _ in range(3):
        way(wf, schedule)
    assert names_of(wf) == ["早 2026-03-02 07:00"]
    job = wf.job(int(row_of(wf)["last_job_id"]))
    assert (job.status, job.record.started_at) == ("running", due_at)
    assert job.task("a").record.ready_at == due_at
    assert dict(job.context) == {"环境": ["生产", 1]}
    assert job.logs()["action"].tolist()[:2] == ["create", "start"]
    assert row_of(wf)[["next_at", "last_at", "n_created", "n_skipped"]].tolist() == [
        due_at + DAY,
        due_at,
        1,
        0,
    ]


@WAYS
def test_create_jobs_by_eight_threads_at_once(
    wf: gwf.Client, flow: gwf.Flow, clock: Clock, way: Callable[..., Any]
) -> None:
    """Of eight workers that look at the same time, one creates the job, at each of 20 instants."""
    schedule = wf.schedule(flow, "* * * * *", job_name="J")
    together = threading.Barrier(N_THREADS)

    def work(_: int) -> None:
        together.wait(60)
        way(wf, schedule)

    with ThreadPoolExecutor(N_THREADS) as threads:
        for _ in range(N_INSTANTS):
            clock.now += MINUTE
            list(threads.map(work, range(N_THREADS)))
    assert names_of(wf) == [f"J 2026-03-01 12:{minute:02}" for minute in range(1, N_INSTANTS + 1)]
    assert set(wf.jobs()["status"]) == {"running"}
    assert row_of(wf)["n_created"] == N_INSTANTS


def test_take_creates_the_job_and_then_claims_it(
    wf: gwf.Client, clock: Clock, flow: gwf.Flow
) -> None:
    """One look creates and asks for the next look at once, which claims the automated task."""
    lease = Lease("w", 30.0, {"it": executors.of_function("it", lambda config, context: None)})
    task = wf.create_task("b", type="automated", config={"executor": "it"})
    wf.schedule(wf.create_flow("F", [task]), "0 13 * * *")
    clock.now += HOUR
    source = AnyJob()
    assert source.take(wf.database, lease, limit=1) == []
    assert source.pause_s() == 0
    (step,) = source.take(wf.database, lease, limit=1)
    assert step.job.job_name == "F 2026-03-01 13:00"
    assert [claim.task.task_name for claim in step.claims] == ["b"]


def test_take_comes_to_every_schedule(wf: gwf.Client, flow: gwf.Flow, clock: Clock) -> None:
    """Many schedules of one flow are due at one instant: each creates its job, over a few looks."""
    made = [wf.schedule(flow, "0 13 * * *", job_name=f"J{number}") for number in range(6)]
    made.append(wf.schedule(flow, "0 13 * * *", job_name="J0"))
    clock.now += HOUR
    source = AnyJob()
    for _ in made:
        source.take(wf.database, LEASE, limit=1)
    numbers = sorted([0, *range(6)])
    assert sorted(names_of(wf)) == [f"J{number} 2026-03-01 13:00" for number in numbers]
    assert wf.schedules()["n_created"].tolist() == [1] * 7


#: Six instants every 10 minutes passed, the last one just so long ago that it counts as missed.
LIMIT = HOUR + timedelta(seconds=MISSED_AFTER_S)
BEYOND = LIMIT + timedelta(microseconds=1)
#: 144 instants passed, the last one 7 minutes ago.
A_DAY = DAY + 7 * MINUTE


@pytest.mark.parametrize(
    ("catch_up", "away", "created", "n_skipped"),
    [
        ("skip", HOUR, [60], 5),
        ("latest", HOUR, [60], 5),
        ("all", HOUR, [10, 20, 30, 40, 50, 60], 0),
        ("skip", LIMIT, [60], 5),
        ("latest", LIMIT, [60], 5),
        ("all", LIMIT, [10, 20, 30, 40, 50, 60], 0),
        ("skip", BEYOND, [], 6),
        ("latest", BEYOND, [60], 5),
        ("all", BEYOND, [10, 20, 30, 40, 50, 60], 0),
        ("skip", A_DAY, [], 144),
        ("latest", A_DAY, [1440], 143),
    ],
)
def test_create_jobs_after_nobody_was_there(
    wf: gwf.Client,
    flow: gwf.Flow,
    clock: Clock,
    catch_up: Any,
    away: timedelta,
    created: list[int],
    n_skipped: int,
) -> None:
    """What passed every 10 minutes is passed over, made up for once, or made up for wholly."""
    schedule = wf.schedule(flow, "*/10 * * * *", catch_up=catch_up)
    clock.now = BEGIN + away
    assert len(create_due(wf, schedule)) == len(created)
    assert create_due(wf, schedule) == []
    instants = [BEGIN + minutes * MINUTE for minutes in created]
    assert names_of(wf) == [f"早 {instant:%Y-%m-%d %H:%M}" for instant in instants]
    row = row_of(wf)
    assert (row["n_created"], row["n_skipped"]) == (len(created), n_skipped)
    assert row["next_at"] == BEGIN + (len(created) + n_skipped + (catch_up == "x") + 0) * (
        10 * MINUTE
    ) + (10 * MINUTE)
    assert pd.isna(row["last_at"]) if not created else row["last_at"] == instants[-1]


def test_create_all_missed_jobs_in_bounded_parts(
    wf: gwf.Client, flow: gwf.Flow, clock: Clock
) -> None:
    """A day of 144 instants: 100 in one transaction, the rest in the next, in order, each once."""
    schedule = wf.schedule(flow, "*/10 * * * *", catch_up="all")
    clock.now = BEGIN + A_DAY
    assert len(create_due(wf, schedule)) == MAX_CAUGHT_UP
    assert row_of(wf)["next_at"] == BEGIN + (MAX_CAUGHT_UP + 1) * 10 * MINUTE
    assert len(create_due(wf, schedule)) == 144 - MAX_CAUGHT_UP
    assert create_due(wf, schedule) == []
    instants = [BEGIN + number * 10 * MINUTE for number in range(1, 145)]
    assert names_of(wf) == [f"早 {instant:%Y-%m-%d %H:%M}" for instant in instants]
    assert row_of(wf)["next_at"] == BEGIN + 145 * 10 * MINUTE


def test_create_what_passed_within_five_minutes(
    wf: gwf.Client, flow: gwf.Flow, clock: Clock
) -> None:
    """A worker that is held up for 2 minutes is there: ``skip`` passes over nothing."""
    schedule = wf.schedule(flow, "* * * * *", catch_up="skip")
    clock.now = BEGIN + 2 * MINUTE
    create_due(wf, schedule)
    assert names_of(wf) == ["早 2026-03-01 12:01", "早 2026-03-01 12:02"]


@pytest.mark.parametrize(
    ("begin", "names"),
    [
        ("2026-03-28 12:00", ["早 2026-03-29 03:00", "早 2026-03-30 02:30"]),
        ("2026-10-24 12:00", ["早 2026-10-25 02:30", "早 2026-10-26 02:30"]),
    ],
)
def test_create_jobs_on_the_days_of_change(
    wf: gwf.Client, flow: gwf.Flow, clock: Clock, begin: str, names: list[str]
) -> None:
    """2:30 in Berlin: at 3:00 on the day without it, once on the day that has it twice."""
    clock.now = utc(begin)
    schedule = wf.schedule(flow, "30 2 * * *", tz="Europe/Berlin")
    for _ in range(4 * 36):
        clock.now += 15 * MINUTE
        create_due(wf, schedule)
    assert names_of(wf) == names


@pytest.mark.parametrize(
    ("cron", "tz", "begin", "wanted"),
    [
        ("30 2 * * *", "Europe/Berlin", "2026-03-28 12:00", "03-29 01:00, 03-30 00:30"),
        ("30 2 * * *", "Europe/Berlin", "2026-10-24 12:00", "10-25 00:30, 10-26 01:30"),
        ("0 * * * *", "Europe/Berlin", "2026-10-25 00:00", "10-25 01:00, 10-25 02:00"),
        ("0 * * * *", "Europe/Berlin", "2026-03-29 00:00", "03-29 01:00, 03-29 02:00"),
        ("30 2 * * *", "America/New_York", "2026-03-07 12:00", "03-08 07:00, 03-09 06:30"),
        ("30 1 * * *", "America/New_York", "2026-10-31 12:00", "11-01 05:30, 11-02 06:30"),
        ("0 9 * * *", "America/New_York", "2026-03-06 15:00", "03-07 14:00, 03-08 13:00"),
        ("0 0 L * *", "UTC", "2026-01-31 00:00", "02-28 00:00, 03-31 00:00"),
        ("0 0 L 2 *", "UTC", "2027-12-31 00:00", "02-29 00:00, 02-28 00:00"),
        ("0 0 29 2 *", "UTC", "2026-01-01 00:00", "02-29 00:00, 02-29 00:00"),
        ("0 9 * * MON#1", "UTC", "2026-03-02 09:00", "04-06 09:00, 05-04 09:00"),
    ],
)
def test_find_the_next_instants(cron: str, tz: str, begin: str, wanted: str) -> None:
    """Summer time, the last day of a month and the leap day, as Debian's cron has them; in UTC."""
    first = next_instant(cron, ZoneInfo(tz), utc(begin))
    second = next_instant(cron, ZoneInfo(tz), first)
    assert f"{first:%m-%d %H:%M}, {second:%m-%d %H:%M}" == wanted
    assert utc(begin) < first < second


def test_find_the_next_leap_day_past_2100() -> None:
    after = next_instant("0 0 29 2 *", ZoneInfo("UTC"), utc("2096-03-01"))
    assert after == utc("2104-02-29")


@pytest.mark.parametrize(
    ("tz", "cron", "after", "wanted"),
    [
        ("Europe/Berlin", "30 2 * * *", "2026-10-25 01:15", "2026-10-26 01:30"),
        ("America/New_York", "30 1 * * *", "2026-11-01 06:15", "2026-11-02 06:30"),
    ],
)
def test_find_an_instant_after_the_repeated_hour_began(
    tz: str, cron: str, after: str, wanted: str
) -> None:
    """Its first pass is over, so the next one is tomorrow's: never an instant that has passed."""
    assert next_instant(cron, ZoneInfo(tz), utc(after)) == utc(wanted)


CRONS = (EARLY, "30 2 * * *", "0,30 1-3 * * *", "*/7 * * * *", "0 0 L * *", "0 12 29 2 *")
ZONES = ("Asia/Shanghai", "Europe/Berlin", "America/New_York", "UTC")


@given(
    st.sampled_from(CRONS),
    st.sampled_from(ZONES),
    st.datetimes(datetime(2025, 1, 1), datetime(2030, 1, 1)),  # noqa: DTZ001 - the strategy adds UTC
)
def test_find_the_next_instant_in_the_future(cron: str, tz: str, at: datetime) -> None:
    """It is a whole minute that lies strictly after, and in order; nothing lies between."""
    zone, after = ZoneInfo(tz), at.replace(tzinfo=UTC)
    instants = [after]
    for _ in range(4):
        instants.append(next_instant(cron, zone, instants[-1]))
    for earlier, later in pairwise(instants):
        assert earlier < later
        assert (later.second, later.microsecond) == (0, 0)
        assert next_instant(cron, zone, earlier + (later - earlier) / 2) == later
