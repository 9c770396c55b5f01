"""Show how every verb changes state: rules T1 to T3, T5 to T10, W7, and what the log keeps."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pandas as pd
import pytest
import sqlalchemy as sa

import gwf
from gwf.database import write
from gwf.engine import job_tasks
from gwf.engine.locks import lock_job_of_task
from gwf.model import Action, Call
from gwf.tables import job_tasks as job_tasks_table


def created(wf: gwf.Client, *steps: Any, **options: Any) -> gwf.Job:
    """Return a job of these steps over the manual tasks A to D."""
    for name in "ABCD":
        wf.create_task(name)
    return wf.create_job(wf.create_flow("F", steps), "J", **options)


def started(wf: gwf.Client, *steps: Any, **options: Any) -> gwf.Job:
    return created(wf, *steps, **options).start()


def do(job: gwf.Job, *names: str) -> None:
    for name in names:
        job.task(name).start().complete({"by": name})


def rows(job: gwf.Job, *names: str, since: int = 0) -> list[tuple[Any, ...]]:
    """Return these columns of the log, null as None."""
    frame = job.logs().iloc[since:]
    columns = list(names or ("action", "task_name", "attempt", "from_status", "to_status"))
    found = frame[columns].itertuples(index=False)
    return [tuple(None if pd.isna(value) else value for value in row) for row in found]


@contextmanager
def unchanged(job: gwf.Job) -> Iterator[None]:
    """Assert that the job, its tasks, their history and the context stay as they are."""
    before = job.record, job.attempts().to_csv(), dict(job.context)
    yield
    assert (job.record, job.attempts().to_csv(), dict(job.context)) == before


# T1: one transaction


def test_complete_task_with_a_value_that_cannot_be_stored(wf: gwf.Client) -> None:
    """T1: nothing of the call is kept, the good half neither, and the task still runs."""
    job = started(wf, "A", "B")
    task = job.task("A").start()
    n_rows = len(job.logs())
    for wrong in (
        {"result": float("nan")},
        {"result": {"n": 2**63}},
        {"result": "x" * 1_000_001},
        {"result": {1: "a key that is no text"}},
        {"context": {"": 1}},
        {"context": {"good": 1, "bad": object()}},
        {"context": ["no mapping"]},
    ):
        with unchanged(job), pytest.raises(gwf.Invalid):
            task.complete(**wrong)
    assert len(job.logs()) == n_rows
    assert task.complete({"good": True}).status == "completed"


def test_read_values_as_large_as_they_may_be(wf: gwf.Client) -> None:
    """T1: what was accepted (up to 1,000,000 bytes) never stops a verb, a condition or a frame."""
    large = "x" * 999_990
    task = wf.create_task("Large", config={"text": large[:-100]})
    job = started(wf, task, gwf.Step("A", condition="true"), context={"text": large, "n": 1})
    assert wf.task("Large").config == task.config
    job.task("Large").start().complete(large, context={"more": large})
    job.task("A").start().complete(large)
    job.reopen(to=1, reason="again")
    assert job.task("Large").previous_attempt.result == large
    job.task("Large").start().complete(large)
    assert dict(job.context) == {"text": large, "n": 1}
    frames = [job.tasks(), job.attempts(), job.logs(), wf.context(job), wf.tasks()]
    assert [len(frame) for frame in frames] == [2, 4, len(job.logs()), 2, 5]


def test_write_undoes_the_first_verb_when_the_second_is_refused(wf: gwf.Client) -> None:
    """T1: several verbs in one transaction are all kept or none, log rows included."""
    job = started(wf, "A", "B")
    first, second = job.task("A").id, job.task("B").id

    def both(conn: sa.Connection) -> None:
        job_tasks.start_task(conn, first, Call(operator=1))
        job_tasks.start_task(conn, second, Call(operator=1))

    n_rows = len(job.logs())
    with unchanged(job), pytest.raises(gwf.NotDue):
        write(wf.database, both)
    assert len(job.logs()) == n_rows


def test_save_finds_a_row_that_changed_under_it(wf: gwf.Client) -> None:
    """T1, T2: a guarded update that hits no row is a Conflict with the state found, and undone."""
    job = started(wf, "A")
    task = job.task("A").start()

    def meddle(conn: sa.Connection) -> None:
        state, record = lock_job_of_task(conn, task.id)
        state.change_task(record, Action.FAIL, status="failed")
        state.change_job(Action.FAIL, status="failed")
        conn.execute(sa.update(job_tasks_table).values(status="completed"))
        state.save()

    with unchanged(job), pytest.raises(gwf.Conflict) as refusal:
        write(wf.database, meddle)
    assert refusal.value.found != "failed"


# T2: what is refused, and what would be legal

TASK_VERBS: dict[str, Callable[[gwf.Client, int], Any]] = {
    "start_task": lambda wf, task: wf.start_task(task),
    "complete_task": lambda wf, task: wf.complete_task(task, 1),
    "fail_task": lambda wf, task: wf.fail_task(task, "broken"),
    "skip_task": lambda wf, task: wf.skip_task(task),
    "retry_task": lambda wf, task: wf.retry_task(task),
}
TASK_STATES: dict[str, tuple[Callable[[gwf.Job], Any], set[str]]] = {
    "pending": (lambda job: None, {"start_task", "skip_task"}),
    "running": (lambda job: job.task("B").start(), {"complete_task", "fail_task"}),
    "completed": (lambda job: do(job, "B"), set()),
    "failed": (lambda job: job.task("B").start().fail("broken"), {"retry_task"}),
    "skipped": (lambda job: job.task("B").skip(), set()),
    "rolled_back": (lambda job: job.task("B").start().rollback(to=1, reason="again"), set()),
}


@pytest.mark.parametrize("status", TASK_STATES)
def test_each_verb_of_a_task_in_each_status(wf: gwf.Client, status: str) -> None:
    """T2: a verb is accepted or a Conflict with the state found and exactly the legal verbs."""
    started(wf, "A", gwf.Step("B", optional=True), "C")
    prepare, accepted = TASK_STATES[status]
    for name, verb in TASK_VERBS.items():
        job = wf.create_job("F", name).start()
        do(job, "A")
        prepare(job)
        task = job.task("B")
        if name in accepted:
            verb(wf, task.id)
            assert job.task("B").status != status, name
            continue
        with unchanged(job), pytest.raises(gwf.Conflict) as refusal:
            verb(wf, task.id)
        assert (task.status, refusal.value.found) == (status, status)
        assert set(refusal.value.legal) - {"rollback_task"} == accepted
        assert all(one in str(refusal.value) for one in accepted)


JOB_VERBS: dict[str, Callable[[gwf.Job], Any]] = {
    "start_job": lambda job: job.start(),
    "cancel_job": lambda job: job.cancel(),
    "pause_job": lambda job: job.pause(),
    "resume_job": lambda job: job.resume(),
    "reopen_job": lambda job: job.reopen(to=1, reason="again"),
}
JOB_STATES: dict[str, tuple[Callable[[gwf.Job], Any], str, set[str]]] = {
    "pending": (lambda job: None, "pending", {"start_job", "cancel_job"}),
    "running": (lambda job: job.start(), "running", {"pause_job", "cancel_job"}),
    "paused": (lambda job: job.start().pause(), "running", {"resume_job", "cancel_job"}),
    "completed": (lambda job: do(job.start(), "A"), "completed", {"reopen_job"}),
    "failed": (lambda job: job.start().task("A").start().fail("x"), "failed", {"cancel_job"}),
    "cancelled": (lambda job: job.cancel(), "cancelled", set()),
}


@pytest.mark.parametrize("place", JOB_STATES)
def test_each_verb_of_a_job_in_each_status(wf: gwf.Client, place: str) -> None:
    """T2: a verb is accepted or a Conflict with the state found and exactly the legal verbs."""
    created(wf, "A")
    prepare, status, accepted = JOB_STATES[place]
    for name, verb in JOB_VERBS.items():
        job = wf.create_job("F", name)
        prepare(job)
        assert job.status == status
        if name in accepted:
            verb(job)
            continue
        if (place, name) == ("cancelled", "cancel_job"):
            continue
        with unchanged(job), pytest.raises(gwf.Conflict) as refusal:
            verb(job)
        assert refusal.value.found == status
        assert set(refusal.value.legal) == accepted


# T3: idempotency keys


def test_every_verb_with_its_key_twice(wf: gwf.Client) -> None:
    """T3: each repeat gets the stored answer; state and log are those of single calls."""

    def twice(verb: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        key = f"{verb.__name__} {arguments}"
        first = verb(*arguments, idempotency_key=key, **options)
        again = verb(*arguments, idempotency_key=key, **options)
        if isinstance(first, gwf.JobTask):
            assert again.record == first.record
        elif isinstance(first, gwf.Job):
            assert again.id == first.id
        else:
            assert again == first
        return first

    for name in "ABC":
        wf.create_task(name)
    flow = wf.create_flow("F", ["A", "B", gwf.Step("C", optional=True)])
    job = twice(wf.create_job, flow.id, "J", context={"n": 1})
    assert len(wf.jobs()) == 1
    twice(wf.start_job, job.id)
    twice(wf.pause_job, job.id)
    twice(wf.resume_job, job.id)
    twice(wf.set_context, job.id, {"m": 2})
    a, b, c = (job.task(name).id for name in "ABC")
    twice(wf.start_task, a, operator=1)
    twice(wf.complete_task, a, {"by": "A"})
    twice(wf.start_task, b)
    twice(wf.fail_task, b, "broken")
    twice(wf.retry_task, b)
    do(job, "B")
    twice(wf.skip_task, c)
    twice(wf.reopen_job, job.id, to=3, reason="again")
    twice(wf.cancel_job, job.id)
    assert [action for (action,) in rows(job, "action")] == [
        *("create", "start", "pause", "resume", "context"),
        *("start", "complete", "start", "fail", "fail", "retry", "retry"),
        *("start", "complete", "skip", "complete", "reopen", "reopen", "cancel"),
    ]
    assert job.task("A").operator_id == 1
    assert wf.complete_task(a, {"by": "A"}, idempotency_key=f"complete_task {(a, {'by': 'A'})}")


def test_key_with_other_arguments(wf: gwf.Client) -> None:
    """T3: another result, caller, task or verb under a used key is a Conflict naming the key."""
    job = started(wf, ["A", "B"], "C")
    job.task("A").start(operator=1)
    job.task("B").start(operator=1)
    first, second = job.task("A").id, job.task("B").id
    used = {"operator": 1, "idempotency_key": "k"}
    wf.complete_task(first, {"n": 1}, **used)
    for other in (
        lambda: wf.complete_task(first, {"n": 2}, **used),
        lambda: wf.complete_task(first, {"n": 1}, **used | {"operator": 2}),
        lambda: wf.complete_task(first, {"n": 1}, context={"x": 1}, **used),
        lambda: wf.complete_task(second, {"n": 1}, **used),
        lambda: wf.fail_task(first, "broken", **used),
        lambda: wf.pause_job(job.id, **used),
    ):
        with unchanged(job), pytest.raises(gwf.KeyReused, match="'k'") as refusal:
            other()
        assert isinstance(refusal.value, gwf.Conflict)
        assert "complete_task" in str(refusal.value)
    assert wf.complete_task(first, {"n": 1}, **used).result == {"n": 1}


def test_key_in_two_jobs(wf: gwf.Client) -> None:
    """T3: a key belongs to its job; the other job does its own work."""
    first = started(wf, "A")
    second = wf.create_job("F", "second")
    first.cancel(idempotency_key="k")
    second.cancel(idempotency_key="k")
    assert (first.status, second.status) == ("cancelled", "cancelled")


def test_key_of_a_call_that_was_refused(wf: gwf.Client) -> None:
    """T3: a refusal is no answer, so the same key works once the call is legal."""
    job = started(wf, "A", "B")
    task_id = job.task("B").id
    with pytest.raises(gwf.NotDue):
        wf.start_task(task_id, idempotency_key="k")
    do(job, "A")
    assert wf.start_task(task_id, idempotency_key="k").status == "running"


def test_key_that_is_none(wf: gwf.Client) -> None:
    """T3: a key is text of 1 to 255 characters."""
    job = created(wf, "A")
    for key in ("", "  ", "k" * 256, 7):
        with unchanged(job), pytest.raises(gwf.Invalid, match="idempotency key"):
            job.start(idempotency_key=key)


@pytest.mark.parametrize(
    "verb",
    [
        *("create_job", "create_jobs", "start_job", "cancel_job", "pause_job", "resume_job"),
        *("reopen_job", "set_context", "delete_context", "start_task", "complete_task"),
        *("fail_task", "skip_task", "retry_task", "rollback_task"),
    ],
)
def test_every_verb_takes_a_key(verb: str) -> None:
    """T3: every verb on a job takes an optional idempotency_key."""
    parameter = inspect.signature(getattr(gwf.Client, verb)).parameters["idempotency_key"]
    assert parameter.default is None


# T5: attempts


def test_answer_to_an_attempt_that_is_over(wf: gwf.Client) -> None:
    """T5, T8: it is a Conflict with both numbers, is logged, and never hits the next attempt."""
    job = started(wf, "A", "B")
    do(job, "A")
    job.task("B").start().fail("broken")
    task = job.retry("B").start().id
    n_rows = len(job.logs())
    verbs = (
        lambda: wf.start_task(task, attempt=1),
        lambda: wf.complete_task(task, 1, attempt=1),
        lambda: wf.fail_task(task, "broken", attempt=1),
        lambda: wf.skip_task(task, attempt=1),
        lambda: wf.retry_task(task, attempt=1),
        lambda: wf.rollback_task(task, to=1, reason="again", attempt=1),
    )
    for verb in verbs:
        with unchanged(job), pytest.raises(gwf.StaleAttempt) as refusal:
            verb()
        assert (refusal.value.attempt, refusal.value.current) == (1, 2)
        assert refusal.value.found == "running"
        assert isinstance(refusal.value, gwf.Conflict)
    assert rows(job, since=n_rows) == [("refuse", "B", 2, "running", "running")] * len(verbs)
    with pytest.raises(gwf.StaleAttempt, match=r"attempt 3 of .* has not begun"):
        wf.complete_task(task, 1, attempt=3)
    assert wf.complete_task(task, 1, attempt=2).status == "completed"


def test_handle_of_an_attempt_that_is_over(wf: gwf.Client) -> None:
    """T5: an object answers for the attempt it was read with, until it is refreshed."""
    job = started(wf, "A")
    old = job.task("A").start()
    wf.fail_task(old.id, "broken")
    job.retry("A").start()
    with unchanged(job), pytest.raises(gwf.StaleAttempt):
        old.complete({"late": True})
    assert old.refresh().complete({"late": False}).result == {"late": False}


# T6: times


def test_every_time_is_that_of_the_clock(url: str) -> None:
    """T6: one clock, to the microsecond, in UTC, whatever zone the clock answers in."""
    shanghai = timezone(timedelta(hours=8))
    now = datetime(2026, 2, 28, 23, 59, 59, 999_999, tzinfo=UTC)
    with gwf.connect(url, clock=lambda: now.astimezone(shanghai)) as wf:
        job = started(wf, "A", "B", context={"n": 1})
        do(job, "A")
        job.task("B").start().fail("broken")
        job.retry("B")
        job.pause()
        frames = [wf.tasks(), wf.flows(), wf.jobs(), wf.attempts(), wf.logs(), wf.context(job)]
        for frame in frames:
            for name in frame.columns[frame.columns.str.endswith("_at")]:
                assert set(frame[name].dropna()) <= {pd.Timestamp(now)}, name
        record = job.record
        assert (record.created_at, record.paused_at, record.updated_at) == (now, now, now)
        assert record.created_at.utcoffset() == timedelta(0)


def test_times_without_a_clock_never_run_backwards(wf: gwf.Client) -> None:
    """T6: rows of the log and the times of a task are in the order in which they were written."""
    job = started(wf, "A", "B")
    do(job, "A", "B")
    assert job.logs()["created_at"].is_monotonic_increasing
    task = job.task("B")
    first = job.record.created_at
    assert first <= job.record.started_at <= task.ready_at <= task.started_at <= task.completed_at
    assert task.completed_at == job.record.completed_at
    assert first.utcoffset() == timedelta(0)


# T7: the copy


@pytest.mark.parametrize("when", ["before the start", "after the start"])
def test_update_flow_and_task_while_a_job_exists(wf: gwf.Client, when: str) -> None:
    """T7: the job keeps names, types, configs, flags, conditions and order; a new job has new."""
    old = wf.create_task("Old", type="approval", config={"approvers": ["PM"]})
    steps = [
        old,
        gwf.Step("B", optional=True, allow_rollback=False, condition="context.n == 1"),
        gwf.Group("C", "D", join="any"),
    ]
    job = created(wf, *steps, context={"n": 1})
    if when == "after the start":
        job.start()
    before = job.record, [job.task(name).record for name in ("Old", "B", "C", "D")]
    wf.update_task(old, name="New", type="manual", config={"n": [2]}, is_active=False)
    wf.update_flow(
        "F", name="G", version="2", max_rollbacks=0, steps=["D", gwf.Step("B", condition="false")]
    )
    wf.update_flow("G", is_active=False)
    assert (job.record, [job.task(name).record for name in ("Old", "B", "C", "D")]) == before
    wf.update_flow("G", is_active=True)
    if when == "before the start":
        job.start()
    do(job, "Old")
    assert job.task("B").status == "pending"
    job.task("B").skip()
    do(job, "D")
    assert (job.status, job.task("C").status) == ("completed", "skipped")
    assert (job.record.flow_name, job.record.flow_version) == ("F", "1.0.0")
    new = wf.create_job("G", "new").start()
    do(new, "D")
    assert list(new.tasks()["task_name"]) == ["D", "B"]
    assert (new.status, new.record.flow_name, new.record.max_rollbacks) == ("completed", "G", 0)


# T8: the log


def test_every_verb_logs_one_row_for_each_transition(wf: gwf.Client) -> None:
    """T8: action, task, attempt, operator, from, to and message, in the order of the calls."""
    wf.create_task("A")
    wf.create_task("B")
    flow = wf.create_flow("F", ["A", gwf.Step("B", optional=True)])
    job = wf.create_job(flow, "J", created_by=1, context={"secret": "p4ss"})
    first = job.start(operator=2).task("A").id
    job.pause(reason="lunch", operator=3).resume(operator=4)
    job.task("A").start(operator=5).fail("broken", error_code="E", operator=6)
    job.retry("A", reason="mended", operator=7)
    job.task("A").start(operator=8)
    wf.set_context(job, {"secret": "w0rd", "b": 2}, task=job.task("A"), operator=9)
    wf.delete_context(job, "b", operator=10)
    job.task("A").complete({"ok": True}, operator=11)
    job.skip("B", reason="spare", operator=12)
    job.reopen(to=2, reason="look again", operator=13)
    job.cancel(reason="enough", operator=14)
    names = ["action", "task_name", "attempt", "operator_id", "from_status", "to_status", "message"]
    assert rows(job, *names) == [
        ("create", None, None, 1, None, "pending", None),
        ("start", None, None, 2, "pending", "running", None),
        ("pause", None, None, 3, "running", "running", "lunch"),
        ("resume", None, None, 4, "running", "running", None),
        ("start", "A", 1, 5, "pending", "running", None),
        ("fail", "A", 1, 6, "running", "failed", "broken"),
        ("fail", None, None, 6, "running", "failed", f"job task {first} 'A' failed"),
        ("retry", "A", 1, 7, "failed", "pending", "mended"),
        ("retry", None, None, 7, "failed", "running", None),
        ("start", "A", 2, 8, "pending", "running", None),
        ("context", "A", 2, 9, "running", "running", "set 2 value(s)"),
        ("context", None, None, 10, "running", "running", "deleted 1 value(s)"),
        ("complete", "A", 2, 11, "running", "completed", None),
        ("skip", "B", 1, 12, "pending", "skipped", "spare"),
        ("complete", None, None, 12, "running", "completed", None),
        ("reopen", None, None, 13, "completed", "running", "look again"),
        ("reopen", "B", 1, 13, "skipped", "pending", "look again"),
        ("cancel", None, None, 14, "running", "cancelled", "enough"),
    ]
    frame = job.logs()
    assert frame["on_behalf_of"].isna().all()
    assert frame["metadata"].iloc[10] == {"keys": ["b", "secret"]}
    assert "p4ss" not in frame.to_csv()
    assert "w0rd" not in frame.to_csv()


def test_reading_a_job_logs_nothing(wf: gwf.Client) -> None:
    """T8: only transitions and refusals stand in the log."""
    job = started(wf, "A")
    n_rows = len(job.logs())
    job.explain()
    job.next_task()
    job.allowed_targets("A")
    job.tasks()
    assert len(job.logs()) == n_rows


def test_set_context_as_a_task_of_another_job(wf: gwf.Client) -> None:
    """T8: values go into the job that is named, by a running task of its own, or nowhere."""
    job = started(wf, "A")
    other = wf.create_job("F", "other").start()
    task = other.task("A").start()
    with unchanged(job), unchanged(other), pytest.raises(gwf.GwfError):
        wf.set_context(job, {"n": 1}, task=task)
    with unchanged(job), pytest.raises(gwf.Conflict, match="running"):
        wf.set_context(job, {"n": 1}, task=job.task("A"))


# T9, T10: definitions


def test_delete_task_that_is_used(wf: gwf.Client) -> None:
    """T9: refused while a flow uses it, and while only a job does; the users are named."""
    job = created(wf, "A", "B")
    with pytest.raises(gwf.InUse, match=f"flow {job.flow_id} 'F'") as refusal:
        wf.delete_task("A")
    assert isinstance(refusal.value, gwf.Conflict)
    wf.update_flow(job.flow_id, steps=["B"])
    with pytest.raises(gwf.InUse, match=f"job {job.id} 'J'"):
        wf.delete_task("A")
    assert wf.task("A").name == "A"
    wf.delete_task("C")
    with pytest.raises(gwf.TaskNotFound):
        wf.task("C")


def test_delete_flow_that_is_used(wf: gwf.Client) -> None:
    """T9: refused while a job was made from it, naming the job; an unused one goes."""
    job = created(wf, "A", "B")
    with pytest.raises(gwf.InUse, match=f"job {job.id} 'J'"):
        wf.delete_flow(job.flow_id)
    assert len(wf.flow_tasks(job.flow_id)) == 2
    unused = wf.create_flow("G", ["A"])
    wf.delete_flow(unused)
    assert list(wf.flows()["name"]) == ["F"]
    assert set(wf.flow_tasks()["flow_id"]) == {job.flow_id}


def test_create_job_of_a_retired_flow(wf: gwf.Client) -> None:
    """T9: refused until the flow is active again; no job is left behind."""
    started(wf, "A").cancel()
    wf.update_flow("F", is_active=False)
    with pytest.raises(gwf.Conflict, match="not active"):
        wf.create_job("F", "K")
    with pytest.raises(gwf.Conflict, match="not active"):
        wf.create_jobs("F", ["K", "L"])
    assert list(wf.jobs()["job_name"]) == ["J"]
    wf.update_flow("F", is_active=True)
    assert wf.create_job("F", "K").status == "pending"


def test_create_job_of_a_flow_without_tasks(wf: gwf.Client) -> None:
    """T9: refused, and no job is left behind."""
    flow = wf.create_flow("F", [])
    with pytest.raises(gwf.Conflict, match="has no tasks"):
        wf.create_job(flow, "J")
    assert wf.jobs().empty


def test_create_flow_with_a_retired_task(wf: gwf.Client) -> None:
    """T9: a retired task goes into no new flow."""
    wf.update_task(wf.create_task("A"), is_active=False)
    with pytest.raises(gwf.Conflict, match="retired"):
        wf.create_flow("F", ["A"])
    assert wf.flows().empty


def test_update_task_with_some_fields(wf: gwf.Client) -> None:
    """T10: a field that is not given keeps its value; None takes one away."""
    task = wf.create_task("A", type="approval", description="d", config={"timeout": 1})
    for fields in (
        {"description": "e"},
        {"name": "B"},
        {"config": {"timeout": 2}},
        {"is_active": False},
        {"type": "manual"},
        {"description": None},
        {},
    ):
        before = wf.task(task.id).record
        wf.update_task(task, **fields)
        after = wf.task(task.id).record
        for name in ("name", "task_type", "description", "config", "is_active", "created_at"):
            given = fields.get("type" if name == "task_type" else name, getattr(before, name))
            assert getattr(after, name) == given
    with pytest.raises(gwf.Invalid, match="colour"):
        wf.update_task(task, colour="red")


def test_update_flow_with_some_fields(wf: gwf.Client) -> None:
    """T10: name, version, description, bound and steps change one by one."""
    wf.create_task("A")
    wf.create_task("B")
    flow = wf.create_flow("F", ["A"], version="1", description="d", max_rollbacks=3)
    wf.update_flow(flow, description="e")
    wf.update_flow(flow, version="2")
    record = wf.flow(flow.id).record
    assert (record.name, record.version, record.description) == ("F", "2", "e")
    assert (record.max_rollbacks, record.is_active) == (3, True)
    assert list(flow.tasks()["task_name"]) == ["A"]
    wf.update_flow(flow, steps=["B", "A"])
    assert list(flow.tasks()["task_name"]) == ["B", "A"]
    assert wf.flow(flow.id).record.version == "2"


# W7: cancel and pause


def test_cancel_job_that_runs(wf: gwf.Client) -> None:
    """W7: running tasks end as failed with the code cancelled; pending ones stay, unreachable."""
    job = started(wf, ["A", "B", "C"], "D")
    do(job, "A")
    job.task("B").start(operator=3)
    job.cancel(reason="budget", operator=9)
    frame = job.tasks()
    assert list(frame["status"]) == ["completed", "failed", "pending", "pending"]
    task = job.task("B")
    assert (task.error_code, task.error_message, task.operator_id) == ("cancelled", "budget", 3)
    assert task.completed_at == job.record.completed_at
    assert (job.status, job.record.n_done, job.task("A").result) == ("cancelled", 1, {"by": "A"})
    assert rows(job, since=-2) == [
        ("cancel", "B", 1, "running", "failed"),
        ("cancel", None, None, "running", "cancelled"),
    ]
    assert job.next_task() is None
    for name in "CD":
        with pytest.raises(gwf.NotDue, match="is cancelled"):
            job.task(name).start()
    with pytest.raises(gwf.Conflict):
        job.retry("B")
    with pytest.raises(gwf.Conflict):
        job.context["n"] = 1


def test_cancel_job_twice(wf: gwf.Client) -> None:
    """W7: the second cancel changes and logs nothing, with another reason neither."""
    job = started(wf, "A")
    job.task("A").start()
    job.cancel(reason="first")
    n_rows = len(job.logs())
    with unchanged(job):
        assert job.cancel(reason="second").status == "cancelled"
    assert len(job.logs()) == n_rows


@pytest.mark.parametrize("late", ["complete", "fail"])
def test_late_result_of_a_cancelled_job(wf: gwf.Client, late: str) -> None:
    """W7: it is a Conflict, is logged, and has no effect, its context values neither."""
    job = started(wf, "A")
    task = job.task("A").start()
    job.cancel()
    with unchanged(job), pytest.raises(gwf.Conflict) as refusal:
        task.complete({"late": 1}, context={"n": 1}) if late == "complete" else task.fail("late")
    assert refusal.value.found == "failed"
    assert rows(job, since=-1) == [("refuse", "A", 1, "failed", "failed")]
    assert job.task("A").result is None


def test_cancel_job_that_failed(wf: gwf.Client) -> None:
    """W7: it keeps the moment of its failure as its end, and cannot be retried any more."""
    job = started(wf, "A")
    job.task("A").start().fail("broken")
    ended_at = job.record.completed_at
    job.cancel()
    assert (job.status, job.record.completed_at) == ("cancelled", ended_at)
    assert job.task("A").error_code is None
    with pytest.raises(gwf.Conflict, match="cancelled"):
        job.retry("A")


def test_pause_job_stops_starts_and_no_work(wf: gwf.Client) -> None:
    """W7: nothing starts or is skipped, and what runs goes on and is recorded."""
    job = started(wf, ["A", gwf.Step("B", optional=True)], gwf.Step("C", optional=True))
    running = job.task("A").start()
    job.pause()
    assert (job.status, job.is_paused) == ("running", True)
    for verb in (job.task("B").start, job.task("B").skip):
        with unchanged(job), pytest.raises(gwf.NotDue, match="is paused"):
            verb()
    assert job.next_task() is None
    running.complete({"by": "A"})
    assert job.record.n_done == 1
    job.resume()
    assert job.is_paused is False
    do(job, "B", "C")
    assert job.status == "completed"


def test_pause_job_before_a_condition(wf: gwf.Client) -> None:
    """P1, C3: nothing becomes due in a pause, so what a condition reads may still be mended."""
    job = started(wf, "A", gwf.Step("B", condition="context.go"), "C", context={"go": "x"})
    running = job.task("A").start()
    job.pause()
    running.complete()
    assert (job.status, job.record.current_task_seq) == ("running", 2)
    assert job.task("B").ready_at is None
    job.context["go"] = False
    job.resume()
    assert (job.task("B").status, job.task("C").ready_at is None) == ("skipped", False)
    failing = job.task("C").start()
    job.pause()
    failing.fail("broken")
    assert "and it is paused" in str(job.explain())
    job.retry("C")
    assert job.task("C").ready_at is None
    job.resume()
    do(job, "C")
    assert job.status == "completed"


def test_pause_job_whose_last_task_runs(wf: gwf.Client) -> None:
    """W7, P3: the job completes, and is not paused any more."""
    job = started(wf, "A")
    running = job.task("A").start()
    job.pause()
    running.complete()
    assert (job.status, job.is_paused) == ("completed", False)


def test_cancel_job_that_is_paused(wf: gwf.Client) -> None:
    """W7: a paused job can be cancelled, and is not paused any more."""
    job = started(wf, "A").pause()
    job.cancel()
    assert (job.status, job.is_paused) == ("cancelled", False)


# retry


def test_retry_task_opens_the_next_attempt(wf: gwf.Client) -> None:
    """P4, R10: the failed attempt is kept whole; the new one is empty, due, and the job runs."""
    job = started(wf, "A", "B")
    failed = job.task("A").start(operator=1).fail("broken", error_code="E1", operator=1)
    task = job.retry("A", operator=2)
    assert (task.status, task.attempt) == ("pending", 2)
    assert (task.error_code, task.error_message) == (None, None)
    assert (task.operator_id, task.started_at, task.completed_at) == (None, None, None)
    assert task.ready_at >= failed.completed_at
    assert (job.status, job.record.completed_at, job.record.n_done) == ("running", None, 0)
    kept = task.previous_attempt
    assert (kept.attempt, kept.status, kept.operator_id) == (1, "failed", 1)
    assert (kept.error_code, kept.error_message) == ("E1", "broken")
    assert (kept.started_at, kept.completed_at) == (failed.started_at, failed.completed_at)
    do(job, "A", "B")
    assert job.status == "completed"
    assert len(job.attempts()) == 3
