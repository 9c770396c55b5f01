"""Show how a job is sent back 打回 and reopened: rules R1 to R10."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd
import pytest

import gwf
from gwf.limits import MAX_SEQUENCE


def started(wf: gwf.Client, *steps: Any, **options: Any) -> gwf.Job:
    """Return a started job of these steps over the manual tasks A to D."""
    for name in "ABCD":
        wf.create_task(name)
    return wf.create_job(wf.create_flow("F", steps, **options), "J").start()


def do(job: gwf.Job, *names: str) -> None:
    for name in names:
        job.task(name).start().complete({"by": name})


def back(task: gwf.JobTask, to: int | str, **options: Any) -> gwf.JobTask:
    return task.rollback(to=to, reason="again", **options)


def state(job: gwf.Job) -> str:
    """Return name, status and attempt of each task, in order, as ``A completed 1, B pending 2``."""
    frame = job.tasks()
    shown = zip(frame["task_name"], frame["status"], frame["attempt"].astype(str), strict=True)
    return ", ".join(map(" ".join, shown))


def place(job: gwf.Job) -> tuple[str, int | None, int, int]:
    record = job.record
    return record.status, record.current_task_seq, record.n_done, record.n_rollbacks


def due(job: gwf.Job) -> set[str]:
    """Return the names of the tasks with a ``ready_at`` that are still to be done."""
    frame = job.tasks()
    is_open = frame["status"].isin(["pending", "rolled_back"])
    return set(frame.loc[frame["ready_at"].notna() & is_open, "task_name"])


def history(job: gwf.Job, name: str) -> list[tuple[int, str, Any, Any]]:
    """Return number, status, result and error code of every attempt of a task."""
    frame = job.attempts()
    rows = frame.loc[frame["task_name"] == name, ["attempt", "status", "result", "error_code"]]
    return [
        (number, status, result, None if pd.isna(code) else code)
        for number, status, result, code in rows.itertuples(index=False)
    ]


@contextmanager
def refused(job: gwf.Job, error: type[gwf.GwfError] = gwf.SendBackRefused) -> Iterator[Any]:
    """Assert that the block is refused with this error and changes nothing but the log."""
    before = job.record, job.attempts().to_csv(), dict(job.context)
    with pytest.raises(error) as refusal:
        yield refusal
    assert (job.record, job.attempts().to_csv(), dict(job.context)) == before


# R1, R2: who may send back, and when


def test_rollback_task_of_a_completed_job(wf: gwf.Client) -> None:
    """R1: refused, and the message names reopen_job."""
    job = started(wf, "A", "B")
    do(job, "A", "B")
    with refused(job) as refusal:
        back(job.task("B"), 1)
    assert "reopen_job" in str(refusal.value)
    assert refusal.value.allowed == ()


@pytest.mark.parametrize("status", ["pending", "cancelled"])
def test_rollback_task_of_a_job_that_is_not_open(wf: gwf.Client, status: str) -> None:
    """R1: a pending or a cancelled job takes no send-back, and the message names its status."""
    job = started(wf, "A", "B")
    if status == "pending":
        job = wf.create_job("F", "not started")
    else:
        do(job, "A")
        job.task("B").start()
        job.cancel()
    with refused(job) as refusal:
        back(job.task("B"), 1)
    assert f"job {job.id} is {status}" in str(refusal.value)
    assert isinstance(refusal.value, gwf.Conflict)


def test_rollback_task_that_runs(wf: gwf.Client) -> None:
    """R2, R5: the range reopens, the caller shows rolled_back, and only the target is due."""
    job = started(wf, "A", "B", "C", "D")
    do(job, "A", "B")
    caller = back(job.task("C").start(), 2)
    assert (caller.status, caller.attempt) == ("rolled_back", 2)
    assert state(job) == "A completed 1, B pending 2, C rolled_back 2, D pending 1"
    assert place(job) == ("running", 2, 1, 1)
    assert due(job) == {"B"}


def test_rollback_task_that_failed(wf: gwf.Client) -> None:
    """R1, R2: the job runs again without an end, and the failed attempt is kept."""
    job = started(wf, "A", "B")
    do(job, "A")
    job.task("B").start().fail("broken", error_code="E1")
    back(job.task("B"), 1)
    assert state(job) == "A pending 2, B rolled_back 2"
    assert place(job) == ("running", 1, 0, 1)
    assert job.record.completed_at is None
    assert history(job, "B")[0] == (1, "rolled_back", None, "E1")
    assert job.task("B").previous_attempt.error_message == "broken"


def test_rollback_task_that_completed(wf: gwf.Client) -> None:
    """R2: allowed while nothing later has started; what was due behind it no longer is."""
    job = started(wf, "A", "B", "C")
    do(job, "A", "B")
    assert due(job) == {"C"}
    back(job.task("B"), 1)
    assert state(job) == "A pending 2, B rolled_back 2, C pending 1"
    assert place(job) == ("running", 1, 0, 1)
    assert due(job) == {"A"}
    with pytest.raises(gwf.NotDue):
        job.task("C").start()


@pytest.mark.parametrize("later", ["running", "failed", "completed"])
def test_rollback_task_after_a_later_one_started(wf: gwf.Client, later: str) -> None:
    """R2: a completed task whose successor has started sends nothing back; it is named."""
    job = started(wf, "A", "B", "C", "D")
    do(job, "A", "B")
    task = job.task("C").start()
    if later == "failed":
        task.fail("broken")
    elif later == "completed":
        task.complete()
    with refused(job) as refusal:
        back(job.task("B"), 1)
    assert "'C'" in str(refusal.value)


@pytest.mark.parametrize("status", ["pending", "skipped", "rolled_back"])
def test_rollback_task_that_did_nothing(wf: gwf.Client, status: str) -> None:
    """R2: from a pending, a skipped or a rolled back task there is no way back."""
    job = started(wf, "A", gwf.Step("B", optional=True), "C")
    do(job, "A")
    if status == "skipped":
        job.task("B").skip()
    elif status == "rolled_back":
        back(job.task("B").start(), 1)
    with refused(job) as refusal:
        back(job.task("B"), 1)
    assert (refusal.value.found, refusal.value.allowed) == (status, ())


def test_rollback_task_takes_back_later_decisions(wf: gwf.Client) -> None:
    """R2, C3: a task behind the caller that its condition skipped or failed is decided anew."""
    later = gwf.Step("C", condition="results.B.by == 'nobody'")
    failing = gwf.Step("D", condition="context.missing", skip_if_false=False)
    job = started(wf, "A", "B", later, failing)
    do(job, "A", "B")
    assert state(job) == "A completed 1, B completed 1, C skipped 1, D failed 1"
    back(job.task("B"), 1)
    assert state(job) == "A pending 2, B rolled_back 2, C pending 2, D pending 2"
    assert place(job) == ("running", 1, 0, 1)
    do(job, "A")
    job.task("B").start().complete({"by": "nobody"}, context={"missing": True})
    assert state(job) == "A completed 2, B completed 2, C pending 2, D pending 2"


# R3: the target


def test_rollback_task_to_no_earlier_sequence(wf: gwf.Client) -> None:
    """R3: its own, a later and an unknown sequence are refused with the allowed list."""
    job = started(wf, "A", "B", "C")
    do(job, "A")
    task = job.task("B").start()
    for target in (2, 3, 99, MAX_SEQUENCE):
        with refused(job) as refusal:
            back(task, target)
        assert refusal.value.allowed == (1,)
        assert "allowed targets: 1" in str(refusal.value)
    row = job.logs().iloc[-1]
    assert (row["action"], row["task_name"], row["to_status"]) == ("refuse", "B", "running")


def test_rollback_task_to_what_is_no_sequence(wf: gwf.Client) -> None:
    """R3: a target is a whole number from 1, or a name; anything else is Invalid."""
    job = started(wf, "A", "B")
    do(job, "A")
    task = job.task("B").start()
    for target in (0, -1, 1.0, True, None):
        with refused(job, gwf.Invalid):
            back(task, target)


def test_rollback_task_to_the_name_of_a_task(wf: gwf.Client) -> None:
    """R3: a name stands for the sequence of that task; an unknown one is not found."""
    job = started(wf, "A", "B")
    do(job, "A")
    task = job.task("B").start()
    with refused(job, gwf.JobTaskNotFound):
        back(task, "X")
    back(task, "A")
    assert due(job) == {"A"}


def test_rollback_task_to_a_group(wf: gwf.Client) -> None:
    """R3: the whole group is reopened, and with gaps in the sequences the numbers hold."""
    job = started(
        wf,
        gwf.Step("A", sequence=3),
        gwf.Step("B", sequence=7),
        gwf.Step("C", sequence=7),
        gwf.Step("D", sequence=20),
    )
    do(job, "A", "B", "C")
    task = job.task("D").start()
    assert task.allowed_targets() == (3, 7)
    back(task, 7)
    assert state(job) == "A completed 1, B pending 2, C pending 2, D rolled_back 2"
    assert due(job) == {"B", "C"}
    assert place(job) == ("running", 7, 1, 1)


def test_allowed_targets_are_exactly_the_accepted_ones(wf: gwf.Client) -> None:
    """R3: for each task in each state and each sequence, the list and the verb agree."""
    started(wf, "A", "B", [gwf.Step("C", allow_rollback=False), "D"])
    choices = [
        {"running": running, "force": force}
        for running in ("refuse", "cancel")
        for force in (False, True)
    ]

    def probe(n_acts: int) -> gwf.Job:
        job = wf.create_job("F", "probe").start()
        acts = (
            lambda: do(job, "A"),
            lambda: do(job, "B"),
            lambda: job.task("C").start(),
            lambda: job.task("D").start(),
            lambda: job.task("C").complete(),
            lambda: job.task("D").fail("broken"),
        )
        for act in acts[:n_acts]:
            act()
        return job

    n_accepted = 0
    for n_acts in range(7):
        job = probe(n_acts)
        tasks = [job.task(name) for name in "ABCD"]
        for task, options in itertools.product(tasks, choices):
            allowed = task.allowed_targets(**options)
            for target in {1, 2, 3, 4} - set(allowed):
                with pytest.raises((gwf.SendBackRefused, gwf.NotAllowed)):
                    back(task, target, **options)
            for target in allowed:
                back(probe(n_acts).task(task.name), target, **options)
                n_accepted += 1
        assert job.record.n_rollbacks == 0
    assert n_accepted > 20


# R4: tasks that allow no send-back


def test_rollback_task_that_allows_none(wf: gwf.Client) -> None:
    """R4: the caller needs allow_rollback; the refusal is logged."""
    job = started(wf, "A", gwf.Step("B", allow_rollback=False))
    do(job, "A")
    task = job.task("B").start()
    with refused(job, gwf.NotAllowed) as refusal:
        back(task, 1)
    assert f"job task {task.id} 'B' allows no send-back" in str(refusal.value)
    assert job.logs().iloc[-1]["action"] == "refuse"
    assert job.allowed_targets("B") == ()


def test_rollback_task_across_a_protected_one(wf: gwf.Client) -> None:
    """R4: a completed task without allow_rollback is crossed by force with a reason only."""
    job = started(wf, "A", gwf.Step("B", allow_rollback=False), "C", "D")
    do(job, "A", "B", "C")
    task = job.task("D").start()
    assert (task.allowed_targets(), task.allowed_targets(force=True)) == ((3,), (1, 2, 3))
    with refused(job, gwf.NotAllowed) as refusal:
        back(task, 1)
    assert "'B'" in str(refusal.value)
    with refused(job, gwf.Invalid):
        task.rollback(to=1, reason=" ", force=True)
    back(task, 1, force=True)
    assert state(job) == "A pending 2, B pending 2, C pending 2, D rolled_back 2"
    frame = job.logs()
    (metadata,) = frame.loc[
        (frame["action"] == "rollback") & frame["job_task_id"].isna(), "metadata"
    ]
    assert metadata["force"] is True


def test_allowed_targets_by_force_depend_on_who_asks(wf: gwf.Client) -> None:
    """R3, A8: once the directory holds people, ``force`` opens a target for an admin alone."""
    job = started(wf, "A", gwf.Step("B", allow_rollback=False), "C")
    do(job, "A", "B")
    task = job.task("C").start()
    wf.users.add("u-dev")
    wf.users.add("u-admin", roles=["admin"])
    assert task.allowed_targets(force=True) == ()
    assert task.allowed_targets(force=True, operator="u-dev") == ()
    assert task.allowed_targets(force=True, operator="u-admin") == (1, 2)
    with pytest.raises(gwf.NotAllowed):
        back(task, 1, force=True, operator="u-dev")
    assert back(task, 1, force=True, operator="u-admin").status == "rolled_back"


def test_rollback_task_across_a_protected_one_that_was_skipped(wf: gwf.Client) -> None:
    """R4: only a completed task is protected; one that was skipped did nothing."""
    job = started(wf, "A", gwf.Step("B", optional=True, allow_rollback=False), "C")
    do(job, "A")
    job.task("B").skip()
    back(job.task("C").start(), 1)
    assert state(job) == "A pending 2, B pending 2, C rolled_back 2"


# R5: nothing is erased


def test_rollback_task_keeps_every_attempt(wf: gwf.Client) -> None:
    """R5: result, operator and times stay in the history; the next attempt starts empty."""
    job = started(wf, "A", "B", "C")
    first = job.task("A").start(operator=1).complete({"try": 1}, operator=1)
    do(job, "B")
    back(job.task("C").start(operator=3), 1)
    again = job.task("A")
    assert (again.status, again.attempt) == ("pending", 2)
    assert (again.result, again.operator_id, again.started_at) == (None, None, None)
    kept = again.previous_attempt
    assert (kept.attempt, kept.status, kept.result) == (1, "rolled_back", {"try": 1})
    assert (kept.operator_id, kept.ready_at) == (1, first.ready_at)
    assert (kept.started_at, kept.completed_at) == (first.started_at, first.completed_at)
    again.start().complete({"try": 2})
    back(job.task("B").start(), 1)
    assert history(job, "A") == [
        (1, "rolled_back", {"try": 1}, None),
        (2, "rolled_back", {"try": 2}, None),
        (3, "pending", None, None),
    ]
    assert [number for number, *_ in history(job, "C")] == [1, 2]


def test_rollback_task_logs_each_transition(wf: gwf.Client) -> None:
    """R5, R9, T8: one row for the job with the reason, and one for each task that changed."""
    job = started(wf, "A", ["B", "C"])
    do(job, "A")
    task = job.task("B").start(operator=2)
    n_rows = len(job.logs())
    task.rollback(to=1, reason=" wrong figures ", operator=2)
    do(job, "A")
    frame = job.logs().iloc[n_rows:].astype(object)
    names = ["action", "task_name", "attempt", "from_status", "to_status", "operator_id"]
    rows = frame[names].where(frame[names].notna(), None).itertuples(index=False)
    assert list(map(tuple, rows)) == [
        ("rollback", None, None, "running", "running", 2),
        ("rollback", "A", 1, "completed", "pending", 2),
        ("rollback", "B", 1, "running", "rolled_back", 2),
        ("start", "A", 2, "pending", "running", None),
        ("complete", "A", 2, "running", "completed", None),
        ("reopen", "B", 2, "rolled_back", "pending", None),
    ]
    assert list(frame["message"][:3]) == ["wrong figures"] * 3
    assert frame["metadata"].iloc[0]["target"] == 1


def test_complete_task_makes_the_caller_due_again(wf: gwf.Client) -> None:
    """R5, P3: rolled_back holds the job open, and turns to pending when it is due again."""
    job = started(wf, "A", "B")
    do(job, "A")
    back(job.task("B").start(), 1)
    with pytest.raises(gwf.NotDue, match="sequence 1 'A' is pending"):
        job.task("B").start()
    do(job, "A")
    assert state(job) == "A completed 2, B pending 2"
    assert job.task("B").ready_at == job.task("A").completed_at
    do(job, "B")
    assert place(job) == ("completed", None, 2, 1)


def test_rollback_task_with_a_sibling_that_did_nothing(wf: gwf.Client) -> None:
    """R5: a pending sibling has no attempt to keep: it stays the first, and stops being due."""
    job = started(wf, "A", ["B", "C"])
    do(job, "A")
    back(job.task("B").start(), 1)
    assert state(job) == "A pending 2, B rolled_back 2, C pending 1"
    assert due(job) == {"A"}
    do(job, "A")
    assert due(job) == {"B", "C"}


# R6: running siblings


@pytest.mark.parametrize("caller", ["running", "completed", "failed"])
def test_rollback_task_with_a_sibling_running(wf: gwf.Client, caller: str) -> None:
    """R6: refused by default, naming the sibling and the way out."""
    job = started(wf, "A", ["B", "C"])
    do(job, "A")
    job.task("C").start()
    task = job.task("B").start()
    if caller != "running":
        (task.complete if caller == "completed" else task.fail)("x")
    with refused(job) as refusal:
        back(task, 1)
    assert "'C' is running" in str(refusal.value)
    assert "running='cancel'" in str(refusal.value)


@pytest.mark.parametrize("resume", ["through", "direct"])
def test_rollback_task_that_cancels_a_sibling(wf: gwf.Client, resume: Any) -> None:
    """R6: the sibling's attempt ends as cancelled; its late result is a Conflict, and logged."""
    job = started(wf, "A", ["B", "C"])
    do(job, "A")
    late = job.task("C").start()
    caller = job.task("B").start()
    back(caller, 1, running="cancel", resume=resume)
    assert state(job) == "A pending 2, B rolled_back 2, C pending 2"
    assert history(job, "C")[0] == (1, "rolled_back", None, "cancelled")
    assert due(job) == {"A"}
    with refused(job, gwf.StaleAttempt) as refusal:
        late.complete({"by": "C"})
    assert (refusal.value.attempt, refusal.value.current) == (1, 2)
    with refused(job, gwf.Conflict):
        wf.complete_task(late.id, {"by": "C"})
    assert list(job.logs()["action"].iloc[-2:]) == ["refuse", "refuse"]
    do(job, "A")
    assert due(job) == {"B", "C"}


# R7: context and earlier results


def test_rollback_task_supersedes_the_context_of_its_attempts(wf: gwf.Client) -> None:
    """R7: readers see the value from before each attempt; what the job itself set stays."""
    job = started(wf, "A", "B", "C")
    job.context.update(stage="base", note="kept")
    job.task("A").start().complete(context={"stage": "A", "a": 1})
    job.task("B").start().complete(context={"stage": "B", "b": 1})
    task = job.task("C").start()
    task.set_context(stage="C", c=1)
    assert dict(job.context) == {"stage": "C", "note": "kept", "a": 1, "b": 1, "c": 1}
    back(task, 2)
    assert dict(job.context) == {"stage": "A", "note": "kept", "a": 1}
    back(job.task("B").start(), 1)
    assert dict(job.context) == {"stage": "base", "note": "kept"}
    assert list(wf.context(job)["key"]) == ["stage", "note"]
    assert len(wf.context(job, superseded=True)) == 8


def test_rollback_task_decides_its_target_by_the_earlier_context(wf: gwf.Client) -> None:
    """R7, C3: the condition of the target no longer sees what the rolled back attempts wrote."""
    job = started(wf, "A", gwf.Step("B", condition="!has(context.done)"), "C")
    do(job, "A")
    job.task("B").start().complete(context={"done": True})
    back(job.task("C").start(), 2)
    assert state(job) == "A completed 1, B pending 2, C rolled_back 2"
    assert due(job) == {"B"}


def test_rollback_task_decides_by_the_results_that_stand(wf: gwf.Client) -> None:
    """R5, C2: results of rolled back attempts are no inputs of a condition any more."""
    job = started(wf, "A", gwf.Step("B", condition="results == {'A': {'by': 'A'}}"), "C")
    do(job, "A", "B")
    back(job.task("C").start(), 2)
    assert state(job) == "A completed 1, B pending 2, C rolled_back 2"


# R8: the way back


def test_rollback_task_comes_straight_back(wf: gwf.Client) -> None:
    """R8: with resume="direct" only target and caller are done again; results between stand."""
    job = started(wf, "A", "B", "C", "D")
    do(job, "A", "B", "C")
    between = job.task("B").record
    back(job.task("D").start(), 1, resume="direct")
    assert state(job) == "A pending 2, B completed 1, C completed 1, D rolled_back 2"
    assert place(job) == ("running", 1, 2, 1)
    assert due(job) == {"A"}
    do(job, "A")
    assert state(job) == "A completed 2, B completed 1, C completed 1, D pending 2"
    assert place(job) == ("running", 4, 3, 1)
    assert due(job) == {"D"}
    assert job.task("B").record == between
    do(job, "D")
    assert place(job) == ("completed", None, 4, 1)


def test_rollback_task_decides_its_target_by_lower_results(wf: gwf.Client) -> None:
    """R8, C2: a later result that stands is not the previous one of the target."""
    job = started(wf, gwf.Step("A", condition="previous_task_result == null"), "B", "C")
    do(job, "A", "B")
    back(job.task("C").start(), 1, resume="direct")
    assert state(job) == "A pending 2, B completed 1, C rolled_back 2"


def test_rollback_task_comes_straight_back_to_its_group(wf: gwf.Client) -> None:
    """R8: a sibling that completed keeps its result, one that is pending waits with the caller."""
    job = started(wf, "A", ["B", "C", "D"])
    do(job, "A", "B")
    back(job.task("C").start(), 1, resume="direct")
    assert state(job) == "A pending 2, B completed 1, C rolled_back 2, D pending 1"
    assert due(job) == {"A"}
    do(job, "A")
    assert due(job) == {"C", "D"}


def test_rollback_task_comes_straight_back_beside_a_failed_sibling(wf: gwf.Client) -> None:
    """R8: a failed sibling has no result that could stand, so it does not fail the job again."""
    job = started(wf, "A", ["B", "C"])
    do(job, "A")
    caller, sibling = job.task("B").start(), job.task("C").start()
    caller.fail("B broke")
    sibling.fail("C broke")
    back(job.task("B"), 1, resume="direct")
    do(job, "A")
    assert job.status == "running"
    assert due(job) == {"B", "C"}


# R9: reason and bound


def test_rollback_task_without_a_reason(wf: gwf.Client) -> None:
    """R9: Python takes a reason, and blanks are none."""
    job = started(wf, "A", "B")
    do(job, "A")
    task = job.task("B").start()
    for reason in (None, "", " \n"):
        with refused(job, gwf.Invalid) as refusal:
            task.rollback(to=1, reason=reason)
        assert "reason" in str(refusal.value)


@pytest.mark.parametrize(("options", "most"), [({}, 20), ({"max_rollbacks": 1}, 1)])
def test_rollback_task_more_often_than_the_flow_allows(
    wf: gwf.Client, options: dict[str, int], most: int
) -> None:
    """R9: the default is 20; the one after is a Conflict that says so, and nothing is allowed."""
    job = started(wf, "A", "B", **options)
    for _ in range(most):
        do(job, "A")
        back(job.task("B").start(), 1)
    do(job, "A")
    task = job.task("B").start()
    assert task.allowed_targets(force=True) == ()
    with refused(job) as refusal:
        back(task, 1, force=True)
    assert f"sent back {most} times" in str(refusal.value)
    assert (job.record.n_rollbacks, task.attempt) == (most, most + 1)


def test_rollback_task_with_a_key_twice(wf: gwf.Client) -> None:
    """T3: the repeat gets the stored answer and sends nothing back again."""
    job = started(wf, "A", "B")
    do(job, "A")
    task_id = job.task("B").start().id
    answers = [
        wf.rollback_task(task_id, to=1, reason="again", idempotency_key="k") for _ in range(2)
    ]
    assert answers[0].record == answers[1].record
    assert place(job) == ("running", 1, 0, 1)
    with refused(job, gwf.KeyReused):
        wf.rollback_task(task_id, to=1, reason="other", idempotency_key="k")


# R10: durations


def test_duration_adds_up_over_the_spans_of_a_job(url: str) -> None:
    """R10: failed, sent back, completed, reopened: the waits between do not count."""
    now = [datetime(2026, 5, 1, tzinfo=UTC)]

    def after(seconds: float) -> None:
        now[0] += timedelta(seconds=seconds)

    with gwf.connect(url, clock=lambda: now[0]) as wf:
        job = started(wf, "A", "B")
        started_at = now[0]
        do(job, "A")
        after(10)
        job.task("B").start().fail("broken")
        assert job.duration_s == 10
        after(3600)
        back(job.task("B"), 1)
        assert (job.record.completed_at, job.duration_s) == (None, None)
        after(20.5)
        do(job, "A", "B")
        assert job.duration_s == 30.5
        after(86_400)
        job.reopen(to=2, reason="a mistake")
        assert (job.record.completed_at, job.duration_s) == (None, None)
        after(0.000_001)
        do(job, "B")
        assert job.duration_s == 30.500_001
        assert wf.jobs()["duration_s"].tolist() == [30.500_001]
        assert (job.record.started_at, job.record.completed_at) == (started_at, now[0])


# reopen_job


def test_reopen_job_that_completed(wf: gwf.Client) -> None:
    """R1: from the target on every task is reopened, what lies before stands."""
    job = started(wf, "A", gwf.Step("B", optional=True), ["C", "D"])
    do(job, "A")
    job.task("B").skip()
    do(job, "C", "D")
    n_rows = len(job.logs())
    job.reopen(to=2, reason=" a mistake ", operator=6)
    assert state(job) == "A completed 1, B pending 2, C pending 2, D pending 2"
    assert place(job)[:3] == ("running", 2, 1)
    assert due(job) == {"B"}
    assert history(job, "B")[0] == (1, "rolled_back", {"status": "skipped"}, None)
    assert history(job, "C")[0] == (1, "rolled_back", {"by": "C"}, None)
    rows = job.logs().iloc[n_rows:]
    assert list(rows["action"]) == ["reopen"] * 4
    assert list(rows["from_status"]) == ["completed", "skipped", "completed", "completed"]
    assert list(rows["to_status"]) == ["running", "pending", "pending", "pending"]
    assert set(rows["message"]) == {"a mistake"}
    assert set(rows["operator_id"]) == {6}
    do(job, "B", "C", "D")
    assert job.status == "completed"


def test_reopen_job_supersedes_the_context_of_its_attempts(wf: gwf.Client) -> None:
    """R7: what the reopened attempts wrote is no longer in force, not for the target either."""
    job = started(wf, "A", gwf.Step("B", condition="context.n == 1"), "C")
    job.task("A").start().complete(context={"n": 1})
    job.task("B").start().complete(context={"n": 2})
    do(job, "C")
    job.reopen(to="B", reason="a mistake")
    assert dict(job.context) == {"n": 1}
    assert state(job) == "A completed 1, B pending 2, C pending 2"


@pytest.mark.parametrize("status", ["pending", "running", "failed", "cancelled"])
def test_reopen_job_that_is_not_completed(wf: gwf.Client, status: str) -> None:
    """R1: only a completed job is reopened; the state found is named."""
    job = started(wf, "A", "B")
    if status == "pending":
        job = wf.create_job("F", "not started")
    elif status == "failed":
        job.task("A").start().fail("broken")
    elif status == "cancelled":
        job.cancel()
    with refused(job, gwf.Conflict) as refusal:
        job.reopen(to=1, reason="a mistake")
    assert refusal.value.found == status


def test_reopen_job_with_a_value_that_is_not_valid(wf: gwf.Client) -> None:
    """R1, R9: an unknown sequence, and no reason, are Invalid."""
    job = started(wf, "A", "B")
    do(job, "A", "B")
    for wrong in ({"to": 3}, {"to": 0}, {"reason": " "}, {"reason": None}):
        with refused(job, gwf.Invalid):
            job.reopen(**({"to": 1, "reason": "a mistake"} | wrong))


def test_reopen_job_whose_target_skips_itself(wf: gwf.Client) -> None:
    """C3: conditions are evaluated anew; when all are false the job completes again at once."""
    job = started(wf, "A", gwf.Step("B", condition="false"))
    do(job, "A")
    job.reopen(to=2, reason="a mistake")
    assert state(job) == "A completed 1, B skipped 2"
    assert place(job)[:3] == ("completed", None, 2)
