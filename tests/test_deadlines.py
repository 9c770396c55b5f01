"""Show that deadlines hold without a daemon (rule W6), and that a pause stops the clock."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import gwf

START = datetime(2026, 3, 2, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
TICK = timedelta(microseconds=1)


class Clock:
    """Tell the time that a test sets."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        """Return the time."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def wf(url: str, clock: Clock) -> Iterator[gwf.Client]:
    """Return a client of a database without people, whose clock the test sets."""
    with gwf.connect(url, clock=clock) as client:
        yield client


def asked(wf: gwf.Client, *more: Any, **policy: Any) -> gwf.JobTask:
    """Return an approval that was started at START and is due an hour later."""
    policy = {"approvers": ["PM", "TL"], "timeout": 3600, **policy}
    wf.create_task("A")
    wf.create_task("G", type="approval", config=policy)
    job = wf.create_job(wf.create_flow("F", ["A", ["G", *more]]), "J", context={"k": 1}).start()
    job.task("A").start().complete()
    task = job.task("G").start()
    assert (task.record.due_at, job.record.next_due_at) == (START + HOUR, START + HOUR)
    return task


def test_deadline_escalates_to_a_role(wf: gwf.Client, clock: Clock) -> None:
    """With people in the directory, who holds the role decides in place of the silent one."""
    for name, role in (("u-pm", "PM"), ("u-lead", "TL"), ("u-boss", "Director")):
        wf.users.add(name, roles=[role])
    task = asked(wf, on_timeout="escalate", escalate_to="Director")
    wf.approve(task, operator="u-pm")
    assert len(wf.inbox("u-boss")) == 0
    clock.now = START + HOUR + TICK
    assert wf.inbox("u-boss")["seat"].tolist() == ["TL"]
    assert len(wf.inbox("u-lead")) == 1
    vote = wf.approve(task, operator="u-boss")
    assert (vote.status, vote.seat) == ("approved", "TL")  # type: ignore[union-attr]  # one vote


def test_deadline_stands_still_in_a_pause(wf: gwf.Client, clock: Clock) -> None:
    """Nobody can vote in a pause, so resuming gives the time back."""
    task = asked(wf)
    job = wf.job(task.job_id)
    clock.now = START + HOUR / 2
    job.pause()
    clock.now = START + 10 * HOUR
    assert (wf.tick(), job.status) == (0, "running")
    job.resume()
    assert task.refresh().record.due_at == START + 10.5 * HOUR
    assert job.record.next_due_at == START + 10.5 * HOUR
    clock.now = START + 10.5 * HOUR
    wf.approve(task, operator=1)
    clock.now += TICK
    assert job.status == "failed"


def test_deadline_of_the_next_attempt_is_a_new_one(wf: gwf.Client, clock: Clock) -> None:
    task = asked(wf)
    clock.now = START + 2 * HOUR
    job = wf.job(task.job_id).retry("G")
    assert job.record.due_at is None
    again = wf.job(task.job_id).task("G").start()
    assert again.record.due_at == START + 3 * HOUR
    assert [row["due_at"] for row in wf.attempts().to_dict("records")][1] == START + HOUR


def test_next_deadline_of_a_job_with_two(wf: gwf.Client, clock: Clock) -> None:
    """The job knows the first that is open, and none once it has ended."""
    wf.create_task("H", type="approval", config={"timeout": 7200})
    task = asked(wf, "H")
    job = wf.job(task.job_id)
    other = job.task("H").start()
    assert job.record.next_due_at == START + HOUR
    for who in (1, 2):
        wf.approve(task, operator=who)
    assert job.record.next_due_at == START + 2 * HOUR
    wf.approve(other, operator=1)
    assert (job.status, job.record.next_due_at) == ("completed", None)
    clock.now = START + 9 * HOUR
    assert (wf.tick(), job.status) == (0, "completed")
