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
#: Six instants every 10 minutes passed, the last one so long ago that it nearly counts as missed.
LIMIT = HOUR + timedelta(seconds=MISSED_AFTER_S)
BEYOND = LIMIT + timedelta(microseconds=1)
#: 144 instants passed, the last one 7 minutes ago.
A_DAY = DAY + 7 * MINUTE


class Calendar:
    """Hold a client that lives by a clock, which shows ``now``, and a flow of one manual task."""

    def __init__(self, url: str) -> None:
        self.now = BEGIN
        self.wf = gwf.connect(url, clock=lambda: self.now)
        self.flow = self.wf.create_flow("早", [self.wf.create_task("a")])

    def schedule(self, cron: str, **options: Any) -> ScheduleRecord:
        """Schedule the flow."""
        return self.wf.schedule(self.flow, cron, **options)

    def create_due(self, schedule: ScheduleRecord) -> list[int]:
        """Create the jobs that are due, as a worker does, and return their ids."""
        db = self.wf.database
        return timely.write(db, lambda conn: schedules.create_due_jobs(conn, schedule.id))

    def look(self, schedule: ScheduleRecord) -> None:
        """Look once, as a worker does that may run nothing."""
        assert AnyJob().take(self.wf.database, LEASE, limit=1) == []

    def names(self) -> list[str]:
        """Return the names of all jobs, the first created first."""
        return [str(name) for name in self.wf.jobs()["job_name"]]

    def row(self) -> Any:
        """Return the row of the first schedule in the frame."""
        return self.wf.schedules().iloc[0]

    def expect(self, **values: Any) -> None:
        """Expect these values in the row of the first schedule; None stands for missing."""
        found = {name: None if pd.isna(self.row()[name]) else self.row()[name] for name in values}
        assert found == values


@pytest.fixture
def calendar(url: str) -> Iterator[Calendar]:
    """Return a calendar on an empty database; at the end no connection is checked out."""
    made = Calendar(url)
    yield made
    assert made.wf.database.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    made.wf.close()


def utc(text: str) -> datetime:
    """Return an instant."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


WAYS = pytest.mark.parametrize("way", [Calendar.create_due, Calendar.look])


def test_schedule_at_seven_in_shanghai(calendar: Calendar) -> None:
    """Monday 7:00 in Shanghai is Sunday 23:00 in UTC, in the record and in the frame."""
    made = calendar.schedule(EARLY, tz="Asia/Shanghai", catch_up="skip", operator=7)
    next_at = utc("2026-03-01 23:00")
    assert made.next_at == next_at
    calendar.expect(schedule_id=made.id, flow_id=calendar.flow.id, flow_name="早", job_name="早")
    calendar.expect(cron=EARLY, tz="Asia/Shanghai", catch_up="skip", context=None, is_active=True)
    calendar.expect(created_by=7, created_at=BEGIN, next_at=next_at, n_created=0, n_skipped=0)
    calendar.expect(last_at=None, last_job_id=None)


def test_schedules_have_the_same_dtypes_when_empty(calendar: Calendar) -> None:
    """The columns and dtypes are those of ``schemas.SCHEDULES``, with rows and without."""
    wanted = {name: pd.Series([], dtype=dtype).dtype for name, dtype in schemas.SCHEDULES.items()}
    none = calendar.wf.schedules()
    calendar.schedule(EARLY)
    some, stopped = (calendar.wf.schedules(is_active=is_active) for is_active in (True, False))
    assert (len(none), len(some), len(stopped)) == (0, 1, 0)
    for frame in (none, some, stopped):
        assert list(frame.columns) == list(wanted)
        assert frame.dtypes.to_dict() == wanted


@WAYS
def test_create_a_due_job_once(calendar: Calendar, way: Callable[..., Any]) -> None:
    """Nothing before its instant, then one job that runs, named by the local time."""
    schedule = calendar.schedule(EARLY, tz="Asia/Shanghai", context={"环境": ["生产", 1]})
    due_at = utc("2026-03-01 23:00")
    calendar.now = due_at - timedelta(microseconds=1)
    way(calendar, schedule)
    assert calendar.names() == []
    calendar.now = due_at
    for _ in range(3):
        way(calendar, schedule)
    assert calendar.names() == ["早 2026-03-02 07:00"]
    job = calendar.wf.job(int(calendar.row()["last_job_id"]))
    assert (job.status, job.record.started_at) == ("running", due_at)
    assert (job.task("a").record.ready_at, dict(job.context)) == (due_at, {"环境": ["生产", 1]})
    assert job.logs()["action"].tolist()[:2] == ["create", "start"]
    calendar.expect(next_at=due_at + DAY, last_at=due_at, n_created=1, n_skipped=0)


@WAYS
def test_create_jobs_by_eight_threads_at_once(calendar: Calendar, way: Callable[..., Any]) -> None:
    """Of eight workers that look at the same time, one creates the job, at each of 20 instants."""
    schedule = calendar.schedule("* * * * *", job_name="J")
    together = threading.Barrier(8)

    def work(_: int) -> None:
        together.wait(60)
        way(calendar, schedule)

    with ThreadPoolExecutor(8) as threads:
        for _ in range(20):
            calendar.now += MINUTE
            list(threads.map(work, range(8)))
    assert calendar.names() == [f"J 2026-03-01 12:{minute:02}" for minute in range(1, 21)]
    calendar.expect(n_created=20, n_skipped=0)


def test_take_creates_the_job_and_then_claims_it(calendar: Calendar) -> None:
    """One look creates and asks for the next look at once, which claims the automated task."""
    lease = Lease("w", 30.0, {"it": executors.of_function("it", lambda config, context: None)})
    task = calendar.wf.create_task("b", type="automated", config={"executor": "it"})
    calendar.wf.schedule(calendar.wf.create_flow("F", [task]), "0 13 * * *")
    calendar.now += HOUR
    source = AnyJob()
    assert source.take(calendar.wf.database, lease, limit=1) == []
    assert source.pause_s() == 0
    (step,) = source.take(calendar.wf.database, lease, limit=1)
    assert step.job.job_name == "F 2026-03-01 13:00"
    assert [claim.task.task_name for claim in step.claims] == ["b"]


def test_take_comes_to_every_schedule(calendar: Calendar) -> None:
    """Seven of one flow are due at one instant: each creates its job, over a few looks."""
    made = [calendar.schedule("0 13 * * *", job_name=f"J{number // 2}") for number in range(7)]
    calendar.now += HOUR
    for schedule in made:
        calendar.look(schedule)
    wanted = [f"J{number // 2} 2026-03-01 13:00" for number in range(7)]
    assert sorted(calendar.names()) == wanted
    assert calendar.wf.schedules()["n_created"].tolist() == [1] * 7


@pytest.mark.parametrize("away", [HOUR, LIMIT, BEYOND, A_DAY], ids=str)
@pytest.mark.parametrize("catch_up", ["skip", "latest"])
def test_create_a_job_after_nobody_was_there(
    calendar: Calendar, catch_up: str, away: timedelta
) -> None:
    """Of what passed every 10 minutes the last is made up for; by ``skip`` unless it is missed."""
    schedule = calendar.schedule("*/10 * * * *", catch_up=catch_up)
    calendar.now = BEGIN + away
    n_passed = {HOUR: 6, LIMIT: 6, BEYOND: 6, A_DAY: 144}[away]
    n_created = int(catch_up == "latest" or away <= LIMIT)
    last_at = BEGIN + n_passed * 10 * MINUTE
    assert len(calendar.create_due(schedule)) == n_created
    assert calendar.create_due(schedule) == []
    assert calendar.names() == [f"早 {last_at:%Y-%m-%d %H:%M}"] * n_created
    calendar.expect(next_at=last_at + 10 * MINUTE, last_at=last_at if n_created else None)
    calendar.expect(n_created=n_created, n_skipped=n_passed - n_created)


@pytest.mark.parametrize("away", [HOUR, LIMIT, BEYOND, A_DAY], ids=str)
def test_create_all_missed_jobs_in_bounded_parts(calendar: Calendar, away: timedelta) -> None:
    """Each instant once, in order; of the 144 of a day 100 in one transaction, then the rest."""
    schedule = calendar.schedule("*/10 * * * *", catch_up="all")
    calendar.now = BEGIN + away
    instants = [BEGIN + n * 10 * MINUTE for n in range(1, 146 if away == A_DAY else 8)]
    next_at = instants.pop()
    assert len(calendar.create_due(schedule)) == min(len(instants), MAX_CAUGHT_UP)
    calendar.expect(next_at=[*instants, next_at][: MAX_CAUGHT_UP + 1][-1])
    assert len(calendar.create_due(schedule)) == max(0, len(instants) - MAX_CAUGHT_UP)
    assert calendar.create_due(schedule) == []
    assert calendar.names() == [f"早 {instant:%Y-%m-%d %H:%M}" for instant in instants]
    calendar.expect(next_at=next_at, last_at=instants[-1], n_created=len(instants), n_skipped=0)


def test_create_what_passed_within_five_minutes(calendar: Calendar) -> None:
    """A worker that is held up for 2 minutes is there: ``skip`` passes over nothing."""
    schedule = calendar.schedule("* * * * *", catch_up="skip")
    calendar.now += 2 * MINUTE
    calendar.create_due(schedule)
    assert calendar.names() == ["早 2026-03-01 12:01", "早 2026-03-01 12:02"]


@pytest.mark.parametrize(
    ("day", "times"),
    [("2026-03-28", ["29 03:00", "30 02:30"]), ("2026-10-24", ["25 02:30", "26 02:30"])],
)
def test_create_jobs_when_the_clocks_change(calendar: Calendar, day: str, times: list[str]) -> None:
    """2:30 in Berlin: at 3:00 on the day without it, once on the day that has it twice."""
    calendar.now = utc(day) + 12 * HOUR
    schedule = calendar.schedule("30 2 * * *", tz="Europe/Berlin")
    for _ in range(2 * 40):
        calendar.now += 30 * MINUTE
        calendar.create_due(schedule)
    assert calendar.names() == [f"早 {day[:7]}-{time}" for time in times]


def test_update_schedule_stops_it_and_lets_it_go_on(calendar: Calendar) -> None:
    """Stopped, it has no next instant; set going, it makes up for nothing that passed."""
    schedule = calendar.schedule("0 * * * *", catch_up="all")
    assert calendar.wf.update_schedule(schedule, is_active=False).next_at is None
    calendar.expect(is_active=False, next_at=None)
    assert calendar.wf.schedules(is_active=True).empty
    calendar.now += 3 * HOUR + MINUTE
    calendar.look(schedule)
    assert (calendar.create_due(schedule), calendar.names()) == ([], [])
    calendar.wf.update_schedule(schedule.id, is_active=True)
    assert calendar.create_due(schedule) == []
    calendar.expect(is_active=True, next_at=BEGIN + 4 * HOUR, n_created=0, n_skipped=0)
    calendar.now += HOUR
    calendar.look(schedule)
    assert calendar.names() == ["早 2026-03-01 16:00"]


def test_update_schedule_that_is_active_keeps_what_is_due(calendar: Calendar) -> None:
    """Setting active what is active changes nothing: the instant that just came is not lost."""
    schedule = calendar.schedule("0 13 * * *")
    calendar.now += HOUR
    calendar.wf.update_schedule(schedule, is_active=True)
    calendar.look(schedule)
    assert calendar.names() == ["早 2026-03-01 13:00"]


def test_create_nothing_twice_when_the_clock_goes_back(calendar: Calendar) -> None:
    """An hour that the clock shows again has its job already."""
    schedule = calendar.schedule("0 13 * * *")
    for shown in (HOUR, -HOUR, MINUTE, HOUR, HOUR + MINUTE):
        calendar.now = BEGIN + shown
        calendar.look(schedule)
    assert calendar.names() == ["早 2026-03-01 13:00"]


def test_update_schedule_after_the_clock_went_back(calendar: Calendar) -> None:
    """Set going again, it goes on after its last instant, not with that instant."""
    schedule = calendar.schedule("0 13 * * *")
    calendar.now += HOUR
    calendar.look(schedule)
    calendar.now = BEGIN
    for is_active in (False, True):
        calendar.wf.update_schedule(schedule, is_active=is_active)
    calendar.expect(next_at=BEGIN + HOUR + DAY)


@pytest.mark.parametrize("change", [{"is_active": False}, {"steps": []}], ids=str)
def test_create_nothing_of_a_flow_that_cannot_have_jobs(
    calendar: Calendar, change: dict[str, Any]
) -> None:
    """A flow that was retired, or lost its tasks, stops the schedule, so that workers can rest."""
    schedule = calendar.schedule("0 13 * * *")
    calendar.wf.update_flow(calendar.flow, **change)
    calendar.now += HOUR
    calendar.look(schedule)
    calendar.expect(is_active=False, next_at=None, n_created=0)
    assert calendar.names() == []


def test_delete_flow_with_a_schedule(calendar: Calendar) -> None:
    """An active schedule uses its flow; one that was stopped goes with it."""
    schedule = calendar.schedule(EARLY)
    with pytest.raises(gwf.InUse, match="schedule 1 '早'"):
        calendar.wf.delete_flow(calendar.flow)
    calendar.wf.update_schedule(schedule, is_active=False)
    calendar.wf.delete_flow(calendar.flow)
    assert calendar.wf.schedules().empty


def test_create_nothing_of_a_flow_that_was_deleted(calendar: Calendar) -> None:
    """The schedule is gone with its flow, and a worker that found it before learns that."""
    schedule = calendar.schedule("0 13 * * *")
    calendar.wf.update_schedule(schedule, is_active=False)
    calendar.wf.delete_flow(calendar.flow)
    calendar.now += HOUR
    calendar.look(schedule)
    for act in (calendar.create_due, lambda one: calendar.wf.update_schedule(one, is_active=True)):
        with pytest.raises(gwf.ScheduleNotFound):
            act(schedule)


@pytest.mark.parametrize(
    ("cron", "options"),
    [
        (cron, {})
        for cron in ("", "7", "@daily", "0 0 7 * * 1", "60 * * * *", "0 0 30 2 *", "L " * 5)
    ]
    + [("* * * * *", {"tz": tz}) for tz in ("", "Mars/Base", "../etc", "Europe", "+08:00")]
    + [("* * * * *", {"catch_up": value}) for value in ("", "None", "ALL", None)]
    + [("* * * * *", {"job_name": value}) for value in ("", "x" * 84, 7)]
    + [("* * * * *", {"context": value}) for value in ({1: 2}, {"x": object()}, "x")],
)
def test_schedule_of_what_makes_no_sense(
    calendar: Calendar, cron: str, options: dict[str, Any]
) -> None:
    """It is refused at once, an instant that never comes too, and nothing is stored."""
    with pytest.raises(gwf.Invalid):
        calendar.schedule(cron, **options)
    assert calendar.wf.schedules().empty


def test_schedule_of_or_by_what_is_not_there(calendar: Calendar) -> None:
    """An unknown flow, a retired one, an unknown user: as for a job."""
    calendar.wf.users.add("ann")
    with pytest.raises(gwf.FlowNotFound):
        calendar.wf.schedule(99, EARLY)
    with pytest.raises(gwf.UserNotFound):
        calendar.schedule(EARLY, operator="bob")
    calendar.wf.update_flow(calendar.flow, is_active=False)
    with pytest.raises(gwf.Conflict, match="not active"):
        calendar.schedule(EARLY)


def test_schedule_by_a_deactivated_user(calendar: Calendar) -> None:
    """Who may create no job may not let workers create it either."""
    calendar.wf.users.deactivate(calendar.wf.users.add("ann"))
    with pytest.raises(gwf.NotAllowed):
        calendar.schedule(EARLY, operator="ann")


def test_schedule_of_a_long_name_leaves_room_for_the_time(calendar: Calendar) -> None:
    """83 characters are the most; of a longer name of a flow 80 are used."""
    calendar.flow = calendar.wf.update_flow(calendar.flow, name="流" * 100)
    calendar.schedule("0 13 * * *", job_name="程" * 83)
    schedule = calendar.schedule("0 13 * * *")
    calendar.now += HOUR
    calendar.look(schedule)
    assert set(calendar.names()) == {f"{name} 2026-03-01 13:00" for name in ("程" * 83, "流" * 80)}


@pytest.mark.parametrize(
    ("cron", "tz", "after", "wanted"),
    [
        ("0 * * * *", "Europe/Berlin", "2026-10-25 00:00", "2026-10-25 01:00"),
        ("0 * * * *", "Europe/Berlin", "2026-03-29 00:59", "2026-03-29 01:00"),
        ("30 2 * * *", "Europe/Berlin", "2026-10-25 00:30", "2026-10-26 01:30"),
        ("30 2 * * *", "Europe/Berlin", "2026-10-25 01:15", "2026-10-26 01:30"),  # 2:15 again
        ("30 1 * * *", "America/New_York", "2026-11-01 06:15", "2026-11-02 06:30"),  # 1:15 again
        ("30 1 * * *", "America/New_York", "2026-11-01 05:15", "2026-11-01 05:30"),
        ("30 2 * * *", "America/New_York", "2026-03-08 06:59", "2026-03-08 07:00"),
        ("0 0 L * *", "UTC", "2026-01-31 00:00", "2026-02-28 00:00"),
        ("0 0 L * *", "UTC", "2028-01-31 00:00", "2028-02-29 00:00"),
        ("0 0 29 2 *", "UTC", "2026-01-01 00:00", "2028-02-29 00:00"),
        ("0 0 29 2 *", "UTC", "2096-02-29 00:00", "2104-02-29 00:00"),
    ],
)
def test_find_the_next_instant(cron: str, tz: str, after: str, wanted: str) -> None:
    """Summer time, the last day of a month and the leap day, as Debian's cron has them; in UTC."""
    assert next_instant(cron, ZoneInfo(tz), utc(after)) == utc(wanted)


@given(
    st.sampled_from((EARLY, "30 2 * * *", "0,30 1-3 * * *", "*/7 * * * *", "0 0 L * *")),
    st.sampled_from(("Asia/Shanghai", "Europe/Berlin", "America/New_York", "UTC")),
    st.datetimes(datetime(2025, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - the strategy adds the zone
)
def test_find_the_next_instant_in_the_future(cron: str, tz: str, after: datetime) -> None:
    """It is a whole minute strictly after, each time anew, and none lies between."""
    instants = [after]
    for _ in range(4):
        instants.append(next_instant(cron, ZoneInfo(tz), instants[-1]))
    for earlier, later in pairwise(instants):
        assert earlier < later
        assert (later.second, later.microsecond) == (0, 0)
        between = earlier + (later - earlier) / 2
        assert next_instant(cron, ZoneInfo(tz), between) == later
