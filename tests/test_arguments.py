"""Show that a wrong argument is refused at once, in words, and changes nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa
from conftest import Databases

import gwf
from gwf.database import write
from gwf.engine import definitions
from gwf.model import Position
from gwf.tables import flow_tasks
from gwf.testing import sample_job, scratch_client


@pytest.fixture
def job() -> gwf.Job:
    """Return a started job of three steps; two more jobs are there to be hit by mistake."""
    wf = scratch_client()
    for name in "ABC":
        wf.create_task(name)
    flow = wf.create_flow("F", ["A", gwf.Step("B", allow_rollback=False), "C"])
    wf.create_jobs(flow, ["other", "another"])
    return wf.create_job(flow, "J").start()


@pytest.mark.parametrize(
    "call",
    [
        lambda wf, job: wf.cancel_job(job.task("A")),
        lambda wf, job: wf.start_job(wf.flow("F")),
        lambda wf, job: wf.start_task(job),
        lambda wf, job: wf.approve(job),
        lambda wf, job: wf.logs(job=job.task("A")),
        lambda wf, job: wf.job_tasks(job=wf.task("A")),
        lambda wf, job: wf.explain(job.task("A")),
        lambda wf, job: wf.allowed_targets(job),
    ],
)
def test_verb_of_an_object_of_another_kind(job: gwf.Job, call: Callable[..., Any]) -> None:
    """An id is not taken from whatever has one: a job task of number 1 is not job 1."""
    wf = job._client
    before = wf.logs().to_dict("records")
    with pytest.raises(gwf.Invalid, match="or its id"):
        call(wf, job)
    assert wf.logs().to_dict("records") == before


@pytest.mark.parametrize(
    "call",
    [
        lambda job: job.rollback("C", to=1, reason="x", force="no"),
        lambda job: job.skip("C", reason="x", force="no"),
        lambda job: job.allowed_targets("C", force=1),
        lambda job: job.allowed_targets("C", running="typo"),
        lambda job: job.rollback("C", to=1, reason="x", running="typo"),
        lambda job: job.task("C").fail("   "),
        lambda job: job.context.update(5),
        lambda job: job.context.update({"a": 1, " a ": 2}),
        lambda job: job._client.create_task("\u200b"),
    ],
)
def test_value_that_looks_right(job: gwf.Job, call: Callable[[gwf.Job], Any]) -> None:
    """Text is no flag, space is no message, and two keys do not become one in silence."""
    for name in "AB":
        job.task(name).start().complete()
    job.task("C").start()
    before = job.logs().to_dict("records")
    with pytest.raises(gwf.Invalid):
        call(job)
    assert job.logs().to_dict("records") == before


def test_context_answers_for_any_key(job: gwf.Job) -> None:
    """``in`` says False for what can be no key, and an empty update writes nothing."""
    n_rows = len(job.logs())
    assert [key in job.context for key in (5, "", None, "a")] == [False] * 4
    job.context.update()
    assert len(job.logs()) == n_rows


def test_result_that_refers_to_itself_many_times(job: gwf.Job) -> None:
    """Forty doublings are a trillion values: it is refused before they are all looked at."""
    value: list[Any] = [1]
    for _ in range(40):
        value = [value, value]
    with pytest.raises(gwf.Invalid, match="1,000,000 bytes"):
        job.task("A").start().complete(value)


@pytest.mark.parametrize("group", [gwf.Group, lambda *steps, **join: list(steps)])
def test_group_of_different_sequences(job: gwf.Job, group: Callable[..., Any]) -> None:
    """A parallel group has one sequence, so two of them are a mistake."""
    steps = (gwf.Step("A", sequence=1), gwf.Step("B", sequence=5))
    with pytest.raises(gwf.Invalid, match="one for all steps of a parallel group"):
        job._client.create_flow("G", [group(*steps)])


def test_previous_attempt_of_nothing(job: gwf.Job) -> None:
    """No earlier attempt is None; no such task is an error."""
    assert job.task("A").previous_attempt is None
    with pytest.raises(gwf.JobTaskNotFound):
        job._client.previous_attempt(999)


def test_memory_is_gone_once_it_is_closed() -> None:
    """The next call says so, where SQLite would say that a table is missing."""
    wf = scratch_client()
    wf.close()
    with pytest.raises(gwf.DatabaseUnavailable, match="in memory is gone"):
        wf.tasks()


@pytest.mark.parametrize("clock", [5, "now"])
def test_connect_with_a_clock_that_is_none(clock: Any) -> None:
    with pytest.raises(gwf.Invalid, match="clock"):
        gwf.connect("sqlite://", clock=clock)


@pytest.mark.parametrize("options", ["bogus=1", "ssl_ca=no-such-file"])
def test_connect_with_options_that_are_none(options: str) -> None:
    """A misspelt option of the URL, or a file that is not there, is one error of ours."""
    with pytest.raises(gwf.Invalid, match="options of the database URL") as refusal:
        gwf.connect(f"mysql+pymysql://user:s3cret@127.0.0.1:1/name?{options}")
    assert "s3cret" not in str(refusal.value)


def test_sample_job_of_a_flow_that_was_edited() -> None:
    """Nothing is begun that could not be ended."""
    wf = scratch_client()
    wf.create_flow("标准功能开发流程", [wf.create_task("x")])
    with pytest.raises(gwf.Conflict, match="not as published"):
        sample_job(wf)
    assert wf.jobs().empty


def test_in_use_names_a_verb_that_exists(job: gwf.Job) -> None:
    """What to do instead is a verb of the client."""
    wf = job._client
    for delete, verb in ((wf.delete_task, "update_task"), (wf.delete_flow, "update_flow")):
        with pytest.raises(gwf.InUse) as refusal:
            delete(1)
        assert refusal.value.legal == (verb,)
        assert hasattr(wf, verb)


@pytest.mark.parametrize("databases", ["mariadb", "mysql"], indirect=True)
def test_delete_task_while_a_flow_takes_it(databases: Databases) -> None:
    """It waits for the flow and then finds it: a step is never lost (SQLite has one writer)."""
    with gwf.connect(databases.empty()) as wf:
        task = wf.create_task("A")
        taken, deleting = threading.Event(), threading.Event()

        def create(conn: sa.Connection) -> None:
            definitions.create_flow(conn, {"name": "F"}, [Position(task.id, 1)])
            taken.set()
            assert deleting.wait(60)

        @sa.event.listens_for(wf.database.engine, "before_cursor_execute")
        def looks(conn: Any, cursor: Any, sql: str, *rest: Any) -> None:
            if sql.startswith("SELECT DISTINCT flows.id"):
                deleting.set()  # it did not wait for the flow, and would find nothing

        with ThreadPoolExecutor() as pool:
            made = pool.submit(write, wf.database, create)
            assert taken.wait(60)
            deleted = pool.submit(wf.delete_task, task)
            assert not deleting.wait(0.3)
            deleting.set()
            made.result(60)
            with pytest.raises(gwf.InUse):
                deleted.result(60)
        with wf.database.engine.connect() as conn:
            assert len(conn.execute(sa.select(flow_tasks.c.id)).all()) == 1
