"""Show in which order the tasks of a job become due: rules P1 to P5, S1, S2 and the joins."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd
import pytest

import gwf


def started(wf: gwf.Client, *steps: Any) -> gwf.Job:
    """Return a started job of these steps over the manual tasks A to E."""
    return created(wf, *steps).start()


def created(wf: gwf.Client, *steps: Any) -> gwf.Job:
    for name in "ABCDE":
        wf.create_task(name)
    return wf.create_job(wf.create_flow("F", steps), "J")


def do(job: gwf.Job, *names: str) -> None:
    for name in names:
        job.task(name).start().complete({"by": name})


def statuses(job: gwf.Job) -> dict[str, str]:
    frame = job.tasks()
    return dict(zip(frame["task_name"], frame["status"], strict=True))


def place(job: gwf.Job) -> tuple[str, int | None, int]:
    record = job.record
    return record.status, record.current_task_seq, record.n_done


def due(job: gwf.Job) -> set[str]:
    """Return the names of the pending tasks that have a ``ready_at``."""
    frame = job.tasks()
    return set(frame.loc[frame["ready_at"].notna() & (frame["status"] == "pending"), "task_name"])


def logged(job: gwf.Job, *actions: str) -> list[tuple[Any, ...]]:
    """Return the rows of the log, without the start of the job, or those of these actions."""
    frame = job.logs()
    if actions:
        frame = frame[frame["action"].isin(actions)]
    names = ["action", "task_name", "attempt", "from_status", "to_status"]
    rows = frame[names].itertuples(index=False)
    return [tuple(None if pd.isna(value) else value for value in row) for row in rows]


@contextmanager
def unchanged(job: gwf.Job) -> Iterator[None]:
    """Assert that the job, its tasks and their history stay as they are."""
    before = job.record, job.attempts().to_csv()
    yield
    assert (job.record, job.attempts().to_csv()) == before


# P1: when a task is due


def test_start_job_makes_only_its_first_group_due(wf: gwf.Client) -> None:
    """P1: the first group has a ready_at, the later ones have none."""
    job = started(wf, ["A", "B"], "C")
    assert due(job) == {"A", "B"}
    assert job.task("C").ready_at is None
    assert job.next_task().name == "A"


def test_start_task_while_a_lower_one_is_open(wf: gwf.Client) -> None:
    """P1: starting sequence 3 while 1 is open is a NotDue that names each open lower task."""
    job = started(wf, "A", "B", "C")
    with unchanged(job), pytest.raises(gwf.NotDue, match="sequence 1 'A' is pending") as refusal:
        job.task("C").start()
    assert refusal.value.blockers == (
        "sequence 1 'A' is pending",
        "sequence 2 'B' is pending",
    )
    assert refusal.value.found == "pending"
    assert isinstance(refusal.value, gwf.Conflict)


def test_start_task_while_a_sibling_of_a_lower_group_runs(wf: gwf.Client) -> None:
    """P1: only the unfinished member of the lower group is named."""
    job = started(wf, ["A", "B"], "C")
    do(job, "A")
    job.task("B").start()
    with unchanged(job), pytest.raises(gwf.NotDue) as refusal:
        job.task("C").start()
    assert refusal.value.blockers == ("sequence 1 'B' is running",)


@pytest.mark.parametrize("status", ["pending", "cancelled", "failed"])
def test_start_task_of_a_job_that_does_not_run(wf: gwf.Client, status: str) -> None:
    """P1, P4: nothing may start before the job runs or after it ended, and the message says so."""
    job = created(wf, ["A", "B"])
    if status != "pending":
        job.start()
        job.task("B").start().fail("broken")
    if status == "cancelled":
        job.cancel()
    with unchanged(job), pytest.raises(gwf.NotDue) as refusal:
        job.task("A").start()
    assert refusal.value.blockers[0] == f"job {job.id} is {status}"
    assert f"job {job.id} is {status}" in str(refusal.value)


def test_start_task_that_runs_already(wf: gwf.Client) -> None:
    """P1: the second start is a Conflict with the state found and what would be legal."""
    job = started(wf, "A")
    job.task("A").start(operator=1)
    with unchanged(job), pytest.raises(gwf.Conflict) as refusal:
        job.task("A").start(operator=2)
    assert not isinstance(refusal.value, gwf.NotDue)
    assert refusal.value.found == "running"
    assert {"complete_task", "fail_task"} <= set(refusal.value.legal)
    assert "start_task" not in refusal.value.legal
    assert job.task("A").operator_id == 1


def test_start_task_that_is_over(wf: gwf.Client) -> None:
    """P1: a completed task does not start again."""
    job = started(wf, "A", "B")
    do(job, "A")
    with unchanged(job), pytest.raises(gwf.Conflict) as refusal:
        job.task("A").start()
    assert refusal.value.found == "completed"


def test_complete_task_records_when_the_next_became_due(url: str) -> None:
    """P1: ready_at is the moment at which the last lower task ended, not an earlier one."""
    moments = [datetime(2026, 1, 1, tzinfo=UTC)]
    with gwf.connect(url, clock=lambda: moments[-1]) as wf:
        job = started(wf, "A", gwf.Step("B", optional=True), "C")
        for minute, act in enumerate(
            (
                job.task("A").start,
                lambda: job.task("A").complete(),
                lambda: job.task("B").skip(),
            ),
            start=1,
        ):
            moments.append(moments[0] + timedelta(minutes=minute, microseconds=7))
            act()
        assert job.task("A").ready_at == moments[0]
        assert job.task("B").ready_at == moments[2]
        assert job.task("C").ready_at == moments[3]


def test_resume_job_makes_due_what_the_pause_held_up(url: str) -> None:
    """P1: a group entered in a pause is due once the pause ends; one due before waits on."""
    moments = [datetime(2026, 1, 1, tzinfo=UTC)]
    with gwf.connect(url, clock=lambda: moments[-1]) as wf:
        first = started(wf, "A", "B")
        second = wf.create_job("F", "another").start()
        running = first.task("A").start()
        for minute, act in enumerate(
            (first.pause, second.pause, running.complete, first.resume, second.resume), start=1
        ):
            moments.append(moments[0] + timedelta(minutes=minute))
            act()
        assert first.task("B").ready_at == moments[4]
        assert second.task("A").ready_at == moments[0]


# P2: parallel groups and joins


@pytest.mark.parametrize("order", ["ABC", "CBA"])
def test_complete_task_ends_a_group_with_its_last_member(wf: gwf.Client, order: str) -> None:
    """P2: the next group waits for every member, whichever is last."""
    job = started(wf, ["A", "B", "C"], "D")
    do(job, *order[:2])
    assert place(job) == ("running", 1, 2)
    assert "D" not in due(job)
    do(job, order[2])
    assert place(job) == ("running", 2, 3)
    assert due(job) == {"D"}


def test_complete_task_ends_a_group_joined_by_any(wf: gwf.Client) -> None:
    """P2: the first to complete ends it; a running and a pending loser are cancelled, and kept."""
    job = started(wf, gwf.Group("A", "B", "C", join="any"), "D")
    loser = job.task("B").start(operator=3)
    do(job, "A")
    assert statuses(job) == {"A": "completed", "B": "skipped", "C": "skipped", "D": "pending"}
    assert place(job) == ("running", 2, 3)
    assert due(job) == {"D"}
    kept = job.task("B")
    assert (kept.error_code, kept.operator_id) == ("cancelled", 3)
    assert (kept.started_at, kept.attempt) == (loser.started_at, 1)
    assert kept.completed_at == job.task("A").completed_at
    assert job.task("C").error_code == "cancelled"
    assert logged(job, "cancel") == [
        ("cancel", "B", 1, "running", "skipped"),
        ("cancel", "C", 1, "pending", "skipped"),
    ]


def test_complete_task_that_lost_its_join(wf: gwf.Client) -> None:
    """P2, W7: the late result of a loser is a Conflict, is logged, and has no effect."""
    job = started(wf, gwf.Group("A", "B", join="any"), "C")
    loser = job.task("B").start()
    do(job, "A")
    with unchanged(job), pytest.raises(gwf.Conflict) as refusal:
        loser.complete({"by": "B"})
    assert refusal.value.found == "skipped"
    assert logged(job)[-1] == ("refuse", "B", 1, "skipped", "skipped")
    assert job.task("B").result == {"status": "skipped"}


def test_complete_task_ends_a_group_joined_by_a_number(wf: gwf.Client) -> None:
    """P2: join=2 of three is not ended by the first, and is by the second."""
    job = started(wf, gwf.Group("A", "B", "C", join=2), "D")
    do(job, "B")
    assert place(job) == ("running", 1, 1)
    assert due(job) == {"A", "C"}
    do(job, "C")
    assert place(job) == ("running", 2, 3)
    assert statuses(job)["A"] == "skipped"


def test_complete_task_ends_the_job_by_the_join_of_its_last_group(wf: gwf.Client) -> None:
    """P2, P3: the losers are cancelled, so the job completes with nothing left open."""
    job = started(wf, gwf.Group("A", "B", join="any"))
    job.task("B").start()
    do(job, "A")
    assert place(job) == ("completed", None, 2)
    assert statuses(job) == {"A": "completed", "B": "skipped"}


def test_skip_task_does_not_end_a_join(wf: gwf.Client) -> None:
    """P2: a skipped member is no completed one, so join="any" waits on."""
    job = started(wf, gwf.Group(gwf.Step("A", optional=True), "B", "C", join="any"), "D")
    job.task("A").skip()
    assert place(job) == ("running", 1, 1)
    assert due(job) == {"B", "C"}


def test_skip_task_puts_a_join_out_of_reach(wf: gwf.Client) -> None:
    """P2: where fewer are left than the join asks for, the group ends with its last member."""
    job = started(wf, gwf.Group(gwf.Step("A", optional=True), "B", join=2), "C")
    job.task("A").skip()
    do(job, "B")
    assert place(job) == ("running", 2, 2)


def test_complete_task_ends_a_join_beside_a_failed_member(wf: gwf.Client) -> None:
    """P2, P4: retry of one of two failed members, and it completes: the failed one has lost."""
    job = started(wf, gwf.Group("A", "B", join="any"), "C")
    first, second = job.task("A").start(), job.task("B").start()
    first.fail("A broke")
    second.fail("B broke")
    job.retry("A")
    do(job, "A")
    assert place(job) == ("running", 2, 2)
    assert statuses(job) == {"A": "completed", "B": "skipped", "C": "pending"}
    assert ("fail", "B", 1, "running", "failed") in logged(job, "fail")


def test_retry_task_of_a_join_that_was_reached_meanwhile(wf: gwf.Client) -> None:
    """P2, P4: a sibling completed while the job was failed; the retry lets the join end at once."""
    job = started(wf, gwf.Group("A", "B", join="any"), "C")
    sibling = job.task("B").start()
    job.task("A").start().fail("broken")
    sibling.complete({"by": "B"})
    assert place(job) == ("failed", 1, 1)
    job.retry("A")
    assert place(job) == ("running", 2, 2)
    assert statuses(job) == {"A": "skipped", "B": "completed", "C": "pending"}


def test_create_flow_with_a_join_that_cannot_be(wf: gwf.Client) -> None:
    """P2: a join is "all", "any" or from 1 to the size of the group; no flow is created."""
    wf.create_task("A")
    wf.create_task("B")
    for join in (0, 3, -1, "most", True, 1.0):
        with pytest.raises(gwf.Invalid, match="join"):
            wf.create_flow("F", [gwf.Group("A", "B", join=join)])
    assert wf.flows().empty


# P3, P4: when a job completes or fails


def test_complete_task_with_a_sibling_running(wf: gwf.Client) -> None:
    """P3: the job completes with the last of two, once, and has an end only then."""
    job = started(wf, ["A", "B"])
    last = job.task("A").start()
    do(job, "B")
    assert place(job) == ("running", 1, 1)
    assert job.record.completed_at is None
    last.complete()
    assert place(job) == ("completed", None, 2)
    assert job.record.completed_at == job.task("A").completed_at
    assert logged(job, "complete") == [
        ("complete", "B", 1, "running", "completed"),
        ("complete", "A", 1, "running", "completed"),
        ("complete", None, None, "running", "completed"),
    ]


def test_fail_task_fails_its_job_at_once(wf: gwf.Client) -> None:
    """P4: the job is failed while a sibling runs, and nothing of a later sequence is due."""
    job = started(wf, ["A", "B"], "C")
    job.task("B").start()
    failed = job.task("A").start().fail("broken", error_code="E7")
    assert place(job) == ("failed", 1, 0)
    assert statuses(job) == {"A": "failed", "B": "running", "C": "pending"}
    assert (failed.error_code, failed.error_message) == ("E7", "broken")
    assert job.record.completed_at == failed.completed_at
    assert due(job) == set()


def test_complete_task_after_a_sibling_failed(wf: gwf.Client) -> None:
    """P4: the running sibling is recorded, and the job stays failed since the failure."""
    job = started(wf, ["A", "B"], "C")
    sibling = job.task("B").start()
    job.task("A").start().fail("broken")
    ended_at = job.record.completed_at
    sibling.complete({"by": "B"})
    assert place(job) == ("failed", 1, 1)
    assert job.task("B").result == {"by": "B"}
    assert job.record.completed_at == ended_at
    assert due(job) == set()


def test_start_task_beside_a_failed_one(wf: gwf.Client) -> None:
    """P4: the refusal names the failed task, since that one holds up the job."""
    job = started(wf, ["A", "B"], "C")
    job.task("A").start().fail("broken")
    with unchanged(job), pytest.raises(gwf.NotDue, match="'A' is failed") as refusal:
        job.task("B").start()
    assert refusal.value.blockers[0] == f"job {job.id} is failed"


def test_fail_task_after_a_sibling_failed(wf: gwf.Client) -> None:
    """P4: the second failure is recorded; the job fails once."""
    job = started(wf, ["A", "B"])
    sibling = job.task("B").start()
    job.task("A").start().fail("first")
    sibling.fail("second")
    assert job.task("B").error_message == "second"
    assert logged(job, "fail") == [
        ("fail", "A", 1, "running", "failed"),
        ("fail", None, None, "running", "failed"),
        ("fail", "B", 1, "running", "failed"),
    ]


def test_retry_task_lets_the_job_go_on(wf: gwf.Client) -> None:
    """P4: the job is running again, the sibling's result stands, and the next group follows."""
    job = started(wf, ["A", "B"], "C")
    job.task("A").start().fail("broken")
    job.retry("A")
    assert place(job) == ("running", 1, 0)
    assert due(job) == {"A", "B"}
    do(job, "B", "A")
    assert place(job) == ("running", 2, 2)


def test_retry_task_with_another_member_failed(wf: gwf.Client) -> None:
    """P3, P4: a job never goes on past a failed task: it fails again when only that one is left."""
    job = started(wf, ["A", "B"], "C")
    first, second = job.task("A").start(), job.task("B").start()
    first.fail("A broke")
    second.fail("B broke")
    job.retry("A")
    assert place(job) == ("running", 1, 0)
    do(job, "A")
    assert place(job) == ("failed", 1, 1)
    assert "C" not in due(job)
    job.retry("B")
    do(job, "B")
    assert place(job) == ("running", 2, 2)


# P5: sequences with gaps


def test_create_job_of_a_flow_with_gaps_in_its_sequences(wf: gwf.Client) -> None:
    """P5: 1, 5, 5, 9 in any order; current_task_seq is always the lowest unfinished one."""
    job = created(
        wf,
        gwf.Step("D", sequence=9),
        gwf.Step("B", sequence=5),
        gwf.Step("A", sequence=1),
        gwf.Step("C", sequence=5),
    )
    assert place(job) == ("pending", 1, 0)
    job.start()
    seen = []
    for name in "ABCD":
        seen.append(job.record.current_task_seq)
        do(job, name)
    assert seen == [1, 5, 5, 9]
    assert place(job) == ("completed", None, 4)


def test_start_job_whose_lowest_sequence_is_not_1(wf: gwf.Client) -> None:
    """P5: the first group is the lowest there is."""
    job = started(wf, gwf.Step("A", sequence=40), gwf.Step("B", sequence=70))
    assert place(job) == ("running", 40, 0)
    assert due(job) == {"A"}


# S1, S2: skip


def test_skip_task_that_is_optional_and_due(wf: gwf.Client) -> None:
    """S1: it ends as skipped with the skipped result, never as completed, and the next is due."""
    job = started(wf, gwf.Step("A", optional=True), "B")
    skipped = job.task("A").skip(operator=4, reason="not needed")
    assert skipped.status == "skipped"
    assert skipped.record.is_skipped is True
    assert skipped.result == {"status": "skipped"}
    assert (skipped.operator_id, skipped.started_at) == (4, None)
    assert place(job) == ("running", 2, 1)
    assert due(job) == {"B"}
    row = job.logs().iloc[-1]
    assert (row["action"], row["task_name"], row["message"]) == ("skip", "A", "not needed")
    assert (row["from_status"], row["to_status"], row["operator_id"]) == ("pending", "skipped", 4)


def test_skip_task_that_is_not_due(wf: gwf.Client) -> None:
    """S1: optional is not enough; the lower task is named."""
    job = started(wf, "A", gwf.Step("B", optional=True))
    with unchanged(job), pytest.raises(gwf.NotDue, match="sequence 1 'A' is pending"):
        job.task("B").skip()


@pytest.mark.parametrize("status", ["running", "completed", "failed", "skipped"])
def test_skip_task_that_is_not_pending(wf: gwf.Client, status: str) -> None:
    """S1: a task that runs or is over is not skipped, by force neither."""
    job = started(wf, [gwf.Step("A", optional=True), "B"])
    task = job.task("A")
    if status == "skipped":
        task.skip()
    else:
        task.start()
        {"running": task.refresh, "completed": task.complete, "failed": lambda: task.fail("x")}[
            status
        ]()
    with unchanged(job), pytest.raises(gwf.Conflict) as refusal:
        job.task("A").skip(force=True, reason="because")
    assert refusal.value.found == status


def test_skip_task_that_is_not_optional(wf: gwf.Client) -> None:
    """S1, T8: refused without force, which is written to the log; force takes a reason."""
    job = started(wf, "A", "B")
    with unchanged(job), pytest.raises(gwf.NotAllowed, match="not optional"):
        job.task("A").skip(reason="please")
    assert logged(job)[-1] == ("refuse", "A", 1, "pending", "pending")
    n_rows = len(job.logs())
    for reason in (None, "", "  "):
        with unchanged(job), pytest.raises(gwf.Invalid, match="reason"):
            job.task("A").skip(force=True, reason=reason)
    assert len(job.logs()) == n_rows


def test_skip_task_by_force(wf: gwf.Client) -> None:
    """S1: with force and a reason it is skipped, and the log keeps that it was forced."""
    job = started(wf, "A", "B")
    job.task("A").skip(force=True, reason="  the vendor is gone ")
    assert place(job) == ("running", 2, 1)
    row = job.logs().iloc[-1]
    assert (row["action"], row["message"]) == ("skip", "the vendor is gone")
    assert row["metadata"]["force"] is True


def test_skip_task_by_force_before_it_is_due(wf: gwf.Client) -> None:
    """S1: force sets the optional flag aside, not the order."""
    job = started(wf, "A", "B")
    with unchanged(job), pytest.raises(gwf.NotDue):
        job.task("B").skip(force=True, reason="in a hurry")


def test_skip_task_of_type_approval(wf: gwf.Client) -> None:
    """S1: a skipped approval says skipped and nothing that could be read as approved."""
    approval = wf.create_task("Sign", type="approval", config={"min_approvers": 1})
    job = started(wf, gwf.Step(approval, optional=True))
    assert job.task("Sign").skip().result == {"status": "skipped"}
    assert job.status == "completed"


def test_skip_task_that_is_the_last_open_one(wf: gwf.Client) -> None:
    """S2: the job completes, at the moment of the skip."""
    job = started(wf, "A", gwf.Step("B", optional=True))
    do(job, "A")
    skipped = job.task("B").skip()
    assert place(job) == ("completed", None, 2)
    assert job.record.completed_at == skipped.completed_at


@pytest.mark.parametrize("sibling", ["running", "pending"])
def test_skip_task_with_a_sibling_open(wf: gwf.Client, sibling: str) -> None:
    """S2: with a sibling running or pending the job goes on, until that one ends."""
    job = started(wf, [gwf.Step("A", optional=True), "B"])
    if sibling == "running":
        job.task("B").start()
    job.task("A").skip()
    assert place(job) == ("running", 1, 1)
    assert statuses(job) == {"A": "skipped", "B": sibling}
    (job.task("B") if sibling == "running" else job.task("B").start()).complete()
    assert place(job) == ("completed", None, 2)
