"""Show that deadlines hold without a daemon (rule W6), and that a pause stops the clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
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


def test_vote_at_the_last_moment(wf: gwf.Client, clock: Clock) -> None:
    """At due_at it counts; a microsecond later the timeout is first and the vote is a Conflict."""
    task = asked(wf)
    clock.now = START + HOUR
    assert wf.approve(task, operator=1).status == "open"  # type: ignore[union-attr]  # one vote
    clock.now += TICK
    with pytest.raises(gwf.Conflict, match=r"is failed.*timed_out"):
        wf.approve(task, operator=2)
    task.refresh()
    assert (task.status, task.error_code) == ("failed", "timed_out")
    assert wf.job(task.job_id).status == "failed"
    actions = wf.logs(job=task.job_id)["action"].tolist()
    assert actions[-4:] == ["timeout", "fail", "fail", "refuse"]
    assert len(wf.votes()) == 1
    assert task.approval().status == "timed_out"


LOOKS: dict[str, Callable[[gwf.Client, gwf.Job], Any]] = {
    "status": lambda wf, job: job.status,
    "tasks": lambda wf, job: job.tasks(),
    "jobs": lambda wf, job: wf.jobs(status="failed"),
    "logs": lambda wf, job: wf.logs(),
    "votes": lambda wf, job: wf.votes(),
    "attempts": lambda wf, job: wf.attempts(),
    "explain": lambda wf, job: job.explain(),
    "next task": lambda wf, job: job.next_task(),
    "task by name": lambda wf, job: job.task("G"),
    "task by id": lambda wf, job: wf.job_task(2),
    "inbox": lambda wf, job: wf.inbox(1),
    "allowed targets": lambda wf, job: wf.allowed_targets(2),
    "allowed actions": lambda wf, job: wf.allowed_actions(2, user=1),
    "context": lambda wf, job: job.context["k"],
    "write": lambda wf, job: job.context.update(k=2),
    "tick": lambda wf, job: wf.tick(),
    "create": lambda wf, job: wf.create_job("F", "another") and wf.tick(),
}


@pytest.mark.parametrize("look", LOOKS)
def test_deadline_is_applied_by_whoever_looks(wf: gwf.Client, clock: Clock, look: str) -> None:
    """Each way to read or write a job sees what became of its deadline."""
    job = wf.job(asked(wf).job_id)
    clock.now = START + HOUR + TICK
    LOOKS[look](wf, job)
    with wf.database.engine.connect() as conn:
        found = conn.exec_driver_sql("SELECT status, next_due_at FROM jobs WHERE id = 1").one()
        conn.rollback()
    assert tuple(found) == ("failed", None)


@pytest.mark.parametrize(
    ("policy", "ends"),
    [
        ({}, ("failed", "failed", None)),
        ({"on_timeout": "approve"}, ("completed", "completed", "approved")),
        ({"on_timeout": "reject"}, ("failed", "failed", "rejected")),
        (
            {"on_timeout": "reject", "on_reject": "send_back:previous"},
            ("running", "rolled_back", None),
        ),
        ({"on_timeout": "reject", "on_reject": "cancel"}, ("cancelled", "failed", "rejected")),
    ],
)
def test_deadline_does_what_the_policy_says(
    wf: gwf.Client,
    clock: Clock,
    policy: dict[str, Any],
    ends: tuple[str, str, str | None],
) -> None:
    """Fail, approve or reject, by nobody, with the votes cast so far in the result."""
    job_status, task_status, result = ends
    task = asked(wf, **policy)
    wf.approve(task, operator=1, comment="in time")
    clock.now = START + 2 * HOUR
    assert (wf.tick(), wf.tick()) == (1, 0)
    task.refresh()
    assert (wf.job(task.job_id).status, task.status) == (job_status, task_status)
    if result is not None:
        assert (task.result["status"], task.result["by"]) == (result, "timeout")
        assert task.result["votes"][0]["comment"] == "in time"
    ended = wf.logs(action=["timeout", "complete", "fail"]).iloc[-2:]
    assert ended["operator_id"].isna().all()
    if result == "approved":
        assert wf.jobs()["completed_at"].iloc[0] == START + 2 * HOUR


def test_deadline_escalates(wf: gwf.Client, clock: Clock) -> None:
    """Others may fill the empty seats, the time begins anew, and the second time it fails."""
    task = asked(
        wf, on_timeout="escalate", escalate_to=["Director"], max_escalations=1, min_approvers=None
    )
    wf.approve(task, operator=1)
    clock.now = START + HOUR + TICK
    shown = task.approval()
    assert (shown.status, shown.due_at) == ("open", clock.now + HOUR)
    assert [(seat.label, seat.filled_by, seat.stand_ins) for seat in shown.seats] == [
        ("PM", "1", ()),
        ("TL", None, ("Director",)),
    ]
    assert wf.job(task.job_id).record.next_due_at == clock.now + HOUR
    clock.now += HOUR + TICK
    assert task.approval().status == "timed_out"
    assert wf.logs(action="timeout")["job_task_id"].tolist() == [task.id, task.id]


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


def test_deadline_is_applied_once_by_two_at_once(wf: gwf.Client, url: str, clock: Clock) -> None:
    """Two clients tick at the same time: each of twenty deadlines passes once."""
    wf.create_task("G", type="approval", config={"timeout": 1})
    for job in wf.create_jobs(wf.create_flow("F", ["G"]), [str(n) for n in range(20)]):
        job.start().task("G").start()
    clock.now = START + HOUR
    with gwf.connect(url, clock=clock) as other, ThreadPoolExecutor(2) as pool:
        n_applied = sum(pool.map(lambda client: client.tick(), (wf, other)))
    assert n_applied == 20
    assert sorted(wf.logs(action="timeout")["job_id"]) == list(range(1, 21))
    assert wf.jobs()["status"].tolist() == ["failed"] * 20
