"""Show that every use of a job finds its deadlines applied, and how each policy applies them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd
import pytest

import gwf

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
TIMEOUT_S = 60
JUST = timedelta(microseconds=1)


class Clock:
    """Be a clock that stands until it is set."""

    def __init__(self) -> None:
        self.now = BEGIN

    def __call__(self) -> datetime:
        """Return the time."""
        return self.now

    def to(self, seconds: float, *, us: int = 0) -> None:
        """Set it to so many seconds after the beginning."""
        self.now = BEGIN + timedelta(seconds=seconds, microseconds=us)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def wf(url: str, clock: Clock) -> Iterator[gwf.Client]:
    """Return a client of an empty database whose clock the test sets."""
    client = gwf.connect(url, clock=clock)
    yield client
    assert client.database.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    client.close()


def at(seconds: float) -> datetime:
    return BEGIN + timedelta(seconds=seconds)


def asked(wf: gwf.Client, **policy: Any) -> tuple[gwf.Job, gwf.JobTask]:
    """Return a job of Write, Gate and After whose Gate was started; it is due in 60 seconds."""
    wf.create_task("Write")
    config = {"approvers": [1, 2], "timeout": TIMEOUT_S, **policy}
    wf.create_task("Gate", type="approval", config=config)
    wf.create_task("After")
    job = wf.create_job(wf.create_flow("F", ["Write", "Gate", "After"]), "J").start()
    job.task("Write").start().complete()
    return job, job.task("Gate").start(operator=1)


def two_gates(wf: gwf.Client, first_s: int, second_s: int, **policy: Any) -> gwf.Job:
    """Return a job with two parallel approvals, both started."""
    for name, seconds in (("G1", first_s), ("G2", second_s)):
        config = {"approvers": [1], "timeout": seconds, **policy}
        wf.create_task(name, type="approval", config=config)
    job = wf.create_job(wf.create_flow("F", [["G1", "G2"]]), "J").start()
    job.task("G1").start()
    job.task("G2").start()
    return job


def next_due(job: gwf.Job) -> datetime | None:
    return job.record.next_due_at


def logged(job: gwf.Job, *actions: str) -> list[tuple[Any, ...]]:
    """Return action, task, operator and states of the rows with these actions."""
    frame = job.logs()
    frame = frame[frame["action"].isin(actions)]
    names = ["action", "task_name", "operator_id", "from_status", "to_status"]
    rows = frame[names].itertuples(index=False)
    return [tuple(None if pd.isna(value) else value for value in row) for row in rows]


# What happens


def test_time_out_fails_the_task_and_the_job(wf: gwf.Client, clock: Clock) -> None:
    """W6: by default the attempt fails with the code timed_out, by nobody, and the job with it."""
    job, task = asked(wf)
    assert (task.record.due_at, next_due(job)) == (at(60), at(60))
    clock.to(61)
    task.refresh()
    assert (task.status, task.error_code, task.result) == ("failed", "timed_out", None)
    assert task.completed_at == at(61)
    assert (job.status, next_due(job)) == ("failed", None)
    assert task.approval().status == "timed_out"
    assert logged(job, "timeout", "fail") == [
        ("timeout", "Gate", None, "running", "running"),
        ("fail", "Gate", None, "running", "failed"),
        ("fail", None, None, "running", "failed"),
    ]


def test_time_out_approves(wf: gwf.Client, clock: Clock) -> None:
    """W6: with on_timeout approve the task is completed by the timeout, and the next is due."""
    job, task = asked(wf, on_timeout="approve")
    wf.approve(task, operator=1)
    clock.to(61)
    assert job.next_task().name == "After"
    result = task.refresh().result
    assert (task.status, result["status"], result["approved"]) == ("completed", "approved", True)
    assert (result["by"], [vote["user"] for vote in result["votes"]]) == ("timeout", [1])
    assert task.approval().status == "approved"
    assert logged(job, "timeout", "complete")[1:] == [
        ("timeout", "Gate", None, "running", "running"),
        ("complete", "Gate", None, "running", "completed"),
    ]


@pytest.mark.parametrize(
    ("on_reject", "job_status", "statuses"),
    [
        ("fail", "failed", ["completed", "failed", "pending"]),
        ("cancel", "cancelled", ["completed", "failed", "pending"]),
        ("send_back:previous", "running", ["pending", "rolled_back", "pending"]),
        ("send_back:1", "running", ["pending", "rolled_back", "pending"]),
    ],
)
def test_time_out_rejects(
    wf: gwf.Client, clock: Clock, on_reject: str, job_status: str, statuses: list[str]
) -> None:
    """W6: with on_timeout reject the attempt ends as rejected, and on_reject says what follows."""
    job, task = asked(wf, on_timeout="reject", on_reject=on_reject)
    clock.to(61)
    assert job.status == job_status
    assert job.tasks()["status"].tolist() == statuses
    attempt = job.attempts().query("task_name == 'Gate'").iloc[0]
    assert (attempt["error_code"], attempt["attempt"]) == ("rejected", 1)
    assert attempt["result"] == {
        "status": "rejected",
        "approved": False,
        "votes": [],
        "by": "timeout",
    }
    assert next_due(job) is None
    assert wf.tick() == 0
    with pytest.raises(gwf.Conflict):
        wf.approve(task, operator=1)


def test_time_out_escalates_to_more_people(wf: gwf.Client, clock: Clock) -> None:
    """W6: an escalation lets others sit in the empty seats, and the time begins anew."""
    job, task = asked(wf, on_timeout="escalate", escalate_to=[9])
    wf.approve(task, operator=1)
    assert "approve" not in task.allowed_actions(user=9)
    clock.to(70)
    task.refresh()
    assert (task.status, task.record.due_at, next_due(job)) == ("running", at(130), at(130))
    seats = {seat.label: (seat.filled_by, seat.stand_ins) for seat in task.approval().seats}
    assert seats == {"1": ("1", ()), "2": (None, ("9",))}
    assert logged(job, "timeout", "add_signer") == [
        ("timeout", "Gate", None, "running", "running"),
        ("add_signer", "Gate", None, "running", "running"),
    ]
    assert {"approve"} <= set(task.allowed_actions(user=2)) & set(task.allowed_actions(user=9))
    assert wf.approve(task, operator=9).status == "approved"
    assert (job.status, next_due(job)) == ("running", None)


def test_time_out_escalates_where_no_seat_is_required(wf: gwf.Client, clock: Clock) -> None:
    """W6: where any of the approvers is enough, the others get a seat beside them."""
    _, task = asked(wf, min_approvers=1, on_timeout="escalate", escalate_to=[8, 9])
    clock.to(61)
    assert [seat.label for seat in task.approval().seats] == ["1", "2", "8", "9"]
    assert wf.approve(task, operator=9).status == "approved"


@pytest.mark.parametrize("n_allowed", [1, 3])
def test_time_out_escalates_a_bounded_number_of_times(
    wf: gwf.Client, clock: Clock, n_allowed: int
) -> None:
    """W6: after max_escalations the attempt fails with the code timed_out."""
    job, task = asked(wf, on_timeout="escalate", escalate_to=[9], max_escalations=n_allowed)
    for number in range(1, n_allowed + 1):
        clock.to(number * 61)
        assert (task.refresh().status, next_due(job)) == ("running", at(number * 61 + 60))
    clock.to((n_allowed + 1) * 61)
    assert (task.refresh().status, task.error_code) == ("failed", "timed_out")
    assert (job.status, next_due(job)) == ("failed", None)
    assert len(logged(job, "add_signer")) == n_allowed


# The last moment


@pytest.mark.parametrize("decision", ["approve", "reject"])
def test_vote_at_the_last_moment(wf: gwf.Client, clock: Clock, decision: str) -> None:
    """W6: at due_at itself a vote counts."""
    _, task = asked(wf, approvers=[1])
    clock.to(60)
    assert getattr(wf, decision)(task, operator=1).status == f"{decision}d".replace("td", "ted")
    assert task.refresh().status == {"approve": "completed", "reject": "failed"}[decision]


@pytest.mark.parametrize(
    ("on_timeout", "status"), [("fail", "failed"), ("approve", "completed"), ("reject", "failed")]
)
def test_vote_after_the_last_moment(
    wf: gwf.Client, clock: Clock, on_timeout: str, status: str
) -> None:
    """W6: at due_at + 1 µs, with nobody running, the timeout comes first; the vote is refused."""
    job, task = asked(wf, on_timeout=on_timeout)
    clock.to(60, us=1)
    with pytest.raises(gwf.Conflict) as refusal:
        wf.approve(task, operator=1)
    assert refusal.value.found == status
    assert task.refresh().status == status
    assert task.completed_at == at(60) + JUST
    assert wf.votes(job=job).empty
    actions = job.logs()["action"].tolist()
    assert actions.index("timeout") < actions.index("refuse")
    assert logged(job, "refuse") == [("refuse", "Gate", 1, status, status)]


def test_vote_after_an_escalation(wf: gwf.Client, clock: Clock) -> None:
    """W6: a vote that comes late for the first deadline is in time for the one it moved to."""
    _, task = asked(wf, approvers=[1], on_timeout="escalate", escalate_to=[9])
    clock.to(60, us=1)
    assert wf.approve(task, operator=9).status == "approved"


# Nobody has to run

Act = Callable[[gwf.Client, gwf.Job, gwf.JobTask], Any]
ACTS: dict[str, Act] = {
    "job.status": lambda wf, job, task: job.status,
    "job.tasks": lambda wf, job, task: job.tasks(),
    "job.attempts": lambda wf, job, task: job.attempts(),
    "job.logs": lambda wf, job, task: job.logs(),
    "job.task": lambda wf, job, task: job.task("Gate"),
    "job.task of another": lambda wf, job, task: job.task("After"),
    "job.next_task": lambda wf, job, task: job.next_task(),
    "job.explain": lambda wf, job, task: job.explain(),
    "job.allowed_targets": lambda wf, job, task: job.allowed_targets("Gate"),
    "job.context": lambda wf, job, task: dict(job.context),
    "repr": lambda wf, job, task: repr(job),
    "wf.job": lambda wf, job, task: wf.job(job.id),
    "wf.jobs": lambda wf, job, task: wf.jobs(),
    "wf.job_tasks": lambda wf, job, task: wf.job_tasks(),
    "wf.attempts": lambda wf, job, task: wf.attempts(),
    "wf.logs": lambda wf, job, task: wf.logs(),
    "wf.votes": lambda wf, job, task: wf.votes(),
    "wf.context": lambda wf, job, task: wf.context(job),
    "wf.inbox": lambda wf, job, task: wf.inbox(7),
    "wf.job_task": lambda wf, job, task: wf.job_task(task.id),
    "wf.job_task of another": lambda wf, job, task: wf.job_task(task.id + 1),
    "wf.allowed_targets": lambda wf, job, task: wf.allowed_targets(task.id),
    "previous_attempt": lambda wf, job, task: task.previous_attempt,
    "approval": lambda wf, job, task: task.approval(),
    "allowed_actions": lambda wf, job, task: task.allowed_actions(user=1),
    "wf.can": lambda wf, job, task: wf.can(1, "approve", task),
    "wf.tick": lambda wf, job, task: wf.tick(),
    "start sibling": lambda wf, job, task: wf.start_task(task.id - 1),
    "start next": lambda wf, job, task: wf.start_task(task.id + 1),
    "complete": lambda wf, job, task: wf.complete_task(task.id),
    "fail": lambda wf, job, task: wf.fail_task(task.id, "late"),
    "skip": lambda wf, job, task: wf.skip_task(task.id),
    "retry": lambda wf, job, task: wf.retry_task(task.id),
    "rollback": lambda wf, job, task: wf.rollback_task(task.id, to=1, reason="late"),
    "approve": lambda wf, job, task: wf.approve(task.id, operator=1),
    "reject": lambda wf, job, task: wf.reject(task.id, operator=1),
    "withdraw_vote": lambda wf, job, task: wf.withdraw_vote(task.id, operator=1),
    "transfer": lambda wf, job, task: wf.transfer(task.id, 1, 5),
    "delegate": lambda wf, job, task: wf.delegate(task.id, 1, 5),
    "add_signer": lambda wf, job, task: wf.add_signer(task.id, 5),
    "remove_signer": lambda wf, job, task: wf.remove_signer(task.id, 2),
    "bulk approve": lambda wf, job, task: wf.approve([task.id], operator=1),
    "start_job": lambda wf, job, task: wf.start_job(job),
    "cancel": lambda wf, job, task: job.cancel(),
    "pause": lambda wf, job, task: job.pause(),
    "resume": lambda wf, job, task: job.resume(),
    "reopen": lambda wf, job, task: job.reopen(to=1, reason="late"),
    "set_context": lambda wf, job, task: wf.set_context(job, {"a": 1}),
    "set_context of the task": lambda wf, job, task: task.set_context(a=1),
    "delete_context": lambda wf, job, task: wf.delete_context(job, "a"),
}


@pytest.mark.parametrize("act", ACTS)
def test_any_use_of_a_job_applies_its_deadline(wf: gwf.Client, clock: Clock, act: str) -> None:
    """W6: whatever reads or writes the job first, the timeout was applied before it."""
    job, task = asked(wf)
    told: list[str] = []
    wf.on("overdue", lambda event: told.append(event.name))
    clock.to(60, us=1)
    with contextlib.suppress(gwf.Conflict, gwf.NotAllowed, gwf.NotFound):
        ACTS[act](wf, job, task)  # most verbs are refused on what timed out
    assert told == ["overdue"]
    clock.to(30)  # nothing that follows would find the deadline passed
    actions = job.logs()["action"].tolist()
    assert actions.count("timeout") == 1
    assert task.refresh().attempt > 1 or task.error_code == "timed_out"


def test_previous_attempt_of_what_timed_out(wf: gwf.Client, clock: Clock) -> None:
    """W6, R7: the attempt that a timeout sends back is the previous one, not that before it."""
    job, task = asked(wf, on_timeout="reject", on_reject="send_back:previous")
    wf.reject(task, comment="no", operator=1)
    job.task("Write").start().complete()
    again = job.task("Gate").start()
    clock.to(61)
    assert again.previous_attempt.attempt == 2
    assert again.previous_attempt.result["by"] == "timeout"


def test_read_of_a_task_behind_a_passed_deadline(wf: gwf.Client, clock: Clock) -> None:
    """W6: a task is read as due where the timeout of the one before it made it so."""
    job, _ = asked(wf, on_timeout="approve")
    after = job.task("After")
    clock.to(61)
    assert wf.job_task(after.id).ready_at == at(61)


def test_vote_that_is_in_time_under_the_lock(url: str) -> None:
    """T6: what was in time when it was decided is not undone because the clock went on."""
    moments = iter([at(0)] * 40)
    with gwf.connect(url, clock=lambda: next(moments)) as wf:
        _, task = asked(wf)
        moments = iter([at(60), at(60) + JUST, *[at(60)] * 40])
        assert wf.approve(task, operator=1).status == "open"


def test_bulk_approve_of_a_frame_with_gaps(wf: gwf.Client) -> None:
    """A column with a gap holds floats: the numbers are taken, the gap in ``attempt`` is no one."""
    _, task = asked(wf)
    gaps = pd.DataFrame({"job_task_id": [task.id, 99], "attempt": [1, None]})
    for frame in (gaps, gaps.astype("Int64")):
        outcomes = wf.approve(frame, operator=1)
        assert outcomes["outcome"].tolist() == ["open", "JobTaskNotFound"]
        assert outcomes["attempt"].isna().tolist() == [False, True]


@pytest.mark.parametrize(
    ("job_task_id", "attempt"),
    [("x", 1), ("1", 1), (None, 1), (1.5, 1), (True, 1), (1, "x"), (1, 0), (1, 1.5)],
)
def test_bulk_approve_of_a_frame_with_bad_cells(
    wf: gwf.Client, job_task_id: object, attempt: object
) -> None:
    """It is an Invalid that names the cell, never a raw error, and nobody has voted."""
    asked(wf)
    frame = pd.DataFrame({"job_task_id": [job_task_id], "attempt": [attempt]}, dtype=object)
    with pytest.raises(gwf.Invalid):
        wf.approve(frame, operator=1)
    assert wf.votes().empty


def test_tick_says_how_many_deadlines_passed(wf: gwf.Client, clock: Clock) -> None:
    """W6: it applies all of them, more than one batch and several of a job, and once."""
    two_gates(wf, 60, 50, on_timeout="reject")
    config = {"approvers": [1], "timeout": 60}
    wf.create_task("G", type="approval", config=config)
    jobs = wf.create_jobs(wf.create_flow("one", ["G"]), [f"J{number}" for number in range(101)])
    for job in jobs:
        job.start().task("G").start()
    clock.to(60)
    assert wf.tick() == 1
    clock.to(60, us=1)
    assert wf.tick() == 102
    assert wf.tick() == 0
    assert set(wf.jobs()["status"]) == {"failed"}


@pytest.mark.parametrize("on_timeout", ["fail", "escalate"])
def test_two_clients_apply_a_deadline_once(
    wf: gwf.Client, url: str, clock: Clock, on_timeout: str
) -> None:
    """W6, T2: of two who find it at the same moment one applies it, and neither fails."""
    more = {"escalate_to": [9]} if on_timeout == "escalate" else {}
    config = {"approvers": [1], "timeout": 60, "on_timeout": on_timeout, **more}
    wf.create_task("G", type="approval", config=config)
    jobs = wf.create_jobs(wf.create_flow("one", ["G"]), [f"J{number}" for number in range(20)])
    for job in jobs:
        job.start().task("G").start()
    clock.to(61)
    barrier = threading.Barrier(2)

    def use(client: gwf.Client) -> list[str]:
        seen = []
        for job in jobs:
            barrier.wait(timeout=60)
            seen.append(client.job(job.id).status)
        return seen

    with gwf.connect(url, clock=clock) as other, ThreadPoolExecutor(2) as threads:
        seen = list(threads.map(use, (wf, other)))
    assert seen == [["failed" if on_timeout == "fail" else "running"] * 20] * 2
    counts = wf.logs(action="timeout").groupby("job_id").size()
    assert counts.tolist() == [1] * 20
