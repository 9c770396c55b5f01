"""Show who gets an automated task, for how long, and what becomes of a report: rules W1 to W7."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

import gwf
from gwf import timely
from gwf.database import Database, read, write
from gwf.engine import claims
from gwf.engine.claims import FoundWork, Lease, Step
from gwf.engine.rows import database_now
from gwf.executors import of_function
from gwf.model import JobTaskRecord

START = datetime(2026, 3, 2, 1, tzinfo=UTC)


class Clock:
    """Be a clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        """Return the time."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Go on."""
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    """Return the clock of ``wf``."""
    return Clock()


@pytest.fixture
def wf(url: str, clock: Clock) -> Iterator[gwf.Client]:
    """Return a client of an empty database that goes by ``clock``."""
    with gwf.connect(url, clock=clock) as client:
        yield client
        assert client.database.engine.pool.checkedout() == 0  # type: ignore[attr-defined]


def lease(worker: str = "w1", *names: str, seconds: float = 30.0) -> Lease:
    """Return the lease of a worker that may run executors of these names, by default ``it``."""
    found = {name: of_function(name, print) for name in names or ("it",)}
    return Lease(worker, seconds, found)


def job_of(wf: gwf.Client, *configs: dict[str, Any]) -> gwf.Job:
    """Return a started job of automated tasks with these configs, by default one for ``it``."""
    tasks = [
        wf.create_task(f"t{number}", type="automated", config=config)
        for number, config in enumerate(configs or ({"executor": "it"},))
    ]
    return wf.create_job(wf.create_flow("F", tasks), "J").start()


def found(wf: gwf.Client, *names: str) -> FoundWork:
    return read(
        wf.database, lambda conn: claims.find_work(conn, sorted(names or ("it",)), limit=10)
    )


def claim(wf: gwf.Client, by: Lease) -> list[Step]:
    """Look and claim as a worker does."""
    ids = found(wf, *by.executors).job_task_ids
    return write(wf.database, lambda conn: claims.claim(conn, ids, by)) if ids else []


def claimed(wf: gwf.Client, by: Lease) -> JobTaskRecord:
    """Claim, and return the one task that was got."""
    (step,) = claim(wf, by)
    (one,) = step.claims
    return one.task


def complete(wf: gwf.Client, task: JobTaskRecord, by: Lease, result: Any = 1) -> Step:
    return timely.write(
        wf.database, lambda conn: claims.report_result(conn, task, by, result, limit=5)
    )


def fail(wf: gwf.Client, task: JobTaskRecord, by: Lease, code: str = "broken") -> Step:
    return timely.write(
        wf.database,
        lambda conn: claims.report_failure(conn, task, by, code=code, message="it broke", limit=5),
    )


def test_find_work_of_nothing(wf: gwf.Client) -> None:
    assert found(wf) == FoundWork((), (), ())
    assert read(wf.database, lambda conn: claims.find_work(conn, [], limit=1)).job_task_ids == ()


def test_find_work_looks_for_the_executors_that_may_run(wf: gwf.Client) -> None:
    """Each worker finds what it may run, the oldest first, whatever else waits."""
    first = job_of(wf, {"executor": "it"})
    job_of(wf, {"executor": "other"})
    job_of(wf, {"coverage_threshold": 80})
    last = job_of(wf, {"executor": "it"})
    assert found(wf).job_task_ids == (first.task(1).id, last.task(1).id)
    assert len(found(wf, "it", "other").job_task_ids) == 3
    assert found(wf, "It").job_task_ids == ()


@pytest.mark.parametrize("act", ["pause", "cancel"])
def test_find_work_leaves_a_job_that_does_not_go_on(wf: gwf.Client, act: str) -> None:
    job = job_of(wf)
    getattr(job, act)()
    assert found(wf).job_task_ids == ()


def test_find_work_names_late_jobs(wf: gwf.Client, clock: Clock) -> None:
    """Deadlines of approvals are applied by workers too (rule W6)."""
    gate = wf.create_task("gate", type="approval", config={"timeout": 60})
    job = wf.create_job(wf.create_flow("G", [gate]), "J").start()
    job.task(1).start()
    assert found(wf).late_job_ids == ()
    clock.advance(60.000001)
    assert found(wf).late_job_ids == (job.id,)


def test_claim_starts_the_task_for_this_worker(wf: gwf.Client, clock: Clock) -> None:
    """It is running, with the worker on record, and no operator."""
    job = job_of(wf, {"executor": "it", "n": 7, "timeout": 60})
    (step,) = claim(wf, lease())
    (one,) = step.claims
    record = job.task(1).record
    assert (record.status, record.worker, record.operator_id) == ("running", "w1", None)
    assert record.available_at == clock.now + timedelta(seconds=30)
    assert record.due_at == clock.now + timedelta(seconds=60 + claims.REPORT_GRACE_S)
    assert (one.work.executor, one.work.arguments, one.context.timeout_s) == ("it", {"n": 7}, 60)
    assert (one.context.job["id"], one.context.task["attempt"]) == (job.id, 1)
    start = job.logs().iloc[-1]
    assert (start["action"], start["metadata"]["worker"]) == ("start", "w1")


def test_claim_of_one_task_by_many_at_once(wf: gwf.Client) -> None:
    """Twenty rounds of eight workers: one of them gets it, nobody waits or fails."""
    for _ in range(20):
        job = job_of(wf)
        gate = threading.Barrier(8)
        ids = [job.task(1).id]

        def try_it(number: int, ids: list[int] = ids, gate: threading.Barrier = gate) -> int:
            gate.wait(60)
            by = lease(f"w{number}")
            steps = write(wf.database, lambda conn: claims.claim(conn, ids, by))
            return sum(len(step.claims) for step in steps)

        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(try_it, range(8))) == 1
        assert (job.logs()["action"] == "start").sum() == 2  # the job and the task


@pytest.mark.parametrize("databases", ["mariadb", "mysql"], indirect=True)
def test_claim_skips_what_somebody_holds(wf: gwf.Client) -> None:
    """``SKIP LOCKED``: a verb that is under way on one job holds up no claim of another."""
    busy, free = job_of(wf), job_of(wf)
    ids = [busy.task(1).id, free.task(1).id]
    is_held, may_end = threading.Event(), threading.Event()

    def hold(conn: sa.Connection) -> None:
        conn.execute(sa.text("SELECT id FROM jobs WHERE id = :id FOR UPDATE"), {"id": busy.id})
        is_held.set()
        assert may_end.wait(60)

    with ThreadPoolExecutor(1) as pool:
        holding = pool.submit(write, wf.database, hold)
        assert is_held.wait(60)
        steps = write(wf.database, lambda conn: claims.claim(conn, ids, lease()))
        may_end.set()
        holding.result(60)
    assert [step.job.id for step in steps] == [free.id]
    assert busy.task(1).status == "pending"


def test_report_claims_what_it_makes_due(wf: gwf.Client) -> None:
    """One transaction completes an attempt and starts the next ones, up to the limit."""
    group = [{"executor": "it"}] * 2
    first = wf.create_task("first", type="automated", config={"executor": "it"})
    others = [
        wf.create_task(name, type="automated", config=config)
        for name, config in zip("ab", group, strict=True)
    ]
    job = wf.create_job(wf.create_flow("P", [first, others]), "J").start()
    task = claimed(wf, lease())
    step = complete(wf, task, lease(), result={"x": 1})
    assert [one.task.task_name for one in step.claims] == ["a", "b"]
    assert step.claims[0].context.previous_task_result == {"x": 1}
    assert step.claims[0].context.results == {"first": {"x": 1}}
    assert step.claims[0].context["first"] == {"x": 1}
    assert step.job.status == job.status == "running"


def test_report_of_the_last_task_completes_the_job(wf: gwf.Client) -> None:
    job = job_of(wf)
    step = complete(wf, claimed(wf, lease()), lease(), result=None)
    assert (step.claims, step.next_at, job.status) == ((), None, "completed")
    assert dict(job.context) == {}


def test_lease_that_expired_fails_without_a_policy(wf: gwf.Client, clock: Clock) -> None:
    """W2, W3: retries are opt-in, also for what a dead worker left."""
    job = job_of(wf)
    claimed(wf, lease())
    clock.advance(29)
    assert found(wf).job_task_ids == ()
    assert "on worker w1 to complete it" in str(job.explain())
    clock.advance(1)
    assert "to take it over: the lease of w1 ended" in str(job.explain())
    (step,) = claim(wf, lease("w2"))
    assert (step.claims, job.status) == ((), "failed")
    record = job.task(1).record
    assert (record.error_code, record.worker) == ("lease_expired", "w1")


def test_lease_that_expired_is_tried_again_by_policy(wf: gwf.Client, clock: Clock) -> None:
    """Another worker takes it over in the same transaction; the first one's report is too late."""
    job = job_of(wf, {"executor": "it", "retry": {"max_attempts": 2, "delay": 0}})
    old = claimed(wf, lease())
    clock.advance(30)
    new = claimed(wf, lease("w2"))
    assert (new.attempt, new.worker) == (2, "w2")
    for report in (complete, fail):
        with pytest.raises(gwf.StaleAttempt):
            report(wf, old, lease())
    assert job.logs()["action"].tolist()[-2:] == ["refuse", "refuse"]
    complete(wf, new, lease("w2"), result="second")
    assert (job.status, job.task(1).result) == ("completed", "second")
    assert job.attempts()["worker"].tolist() == ["w1", "w2"]


def test_extend_keeps_a_lease_and_tells_what_is_lost(wf: gwf.Client, clock: Clock) -> None:
    retry = {"max_attempts": 3, "delay": 0}
    jobs = [job_of(wf, {"executor": "it", "retry": retry}) for _ in range(2)]
    mine = [one.task for step in claim(wf, lease()) for one in step.claims]
    clock.advance(20)
    assert write(wf.database, lambda conn: claims.extend(conn, mine, lease())) == []
    clock.advance(20)
    assert found(wf).job_task_ids == ()
    jobs[1].cancel()
    assert write(wf.database, lambda conn: claims.extend(conn, mine, lease())) == [mine[1].id]


def test_report_of_another_worker_is_refused(wf: gwf.Client) -> None:
    job = job_of(wf)
    task = claimed(wf, lease())
    with pytest.raises(gwf.Conflict, match="worker w2 no longer has it"):
        complete(wf, task, lease("w2"))
    assert job.task(1).status == "running"


def test_report_after_a_cancel_is_logged_without_effect(wf: gwf.Client) -> None:
    job = job_of(wf)
    task = claimed(wf, lease())
    job.cancel()
    with pytest.raises(gwf.Conflict):
        complete(wf, task, lease())
    assert (job.task(1).record.error_code, job.task(1).result) == ("cancelled", None)
    assert job.logs()["action"].tolist()[-1] == "refuse"


def test_report_after_a_send_back_is_a_conflict(wf: gwf.Client) -> None:
    """The attempt is the fencing token: what was sent back meanwhile is another one."""
    manual = wf.create_task("m")
    auto = wf.create_task("a", type="automated", config={"executor": "it"})
    job = wf.create_job(wf.create_flow("F", [manual, [auto, manual]]), "J").start()
    job.task(1).start().complete()
    task = claimed(wf, lease())
    other = next(one for one in wf.job_tasks(job=job)["job_task_id"] if one > task.id)
    wf.start_task(int(other))
    wf.rollback_task(int(other), to=1, reason="again", running="cancel")
    with pytest.raises(gwf.StaleAttempt):
        complete(wf, task, lease())
    record = wf.job_task(task.id).record
    assert (record.attempt, record.available_at, record.worker) == (2, None, None)


def test_failure_waits_before_the_next_try(wf: gwf.Client, clock: Clock) -> None:
    """W3: nobody finds it before its time, ``explain`` says when, and a person may start it."""
    retry = {"max_attempts": 3, "delay": 10, "backoff": "linear"}
    job = job_of(wf, {"executor": "it", "retry": retry})
    step = fail(wf, claimed(wf, lease()), lease())
    assert (step.claims, step.next_at) == ((), clock.now + timedelta(seconds=10))
    assert "on its next try in 10 s" in str(job.explain())
    assert found(wf).job_task_ids == ()
    clock.advance(10)
    step = fail(wf, claimed(wf, lease()), lease())
    assert step.next_at == clock.now + timedelta(seconds=20)
    assert job.task(1).start(operator=7).status == "running"


@pytest.mark.parametrize("code", ["rejected", "cancelled", "condition_error"])
def test_what_was_decided_is_never_tried_again(wf: gwf.Client, code: str) -> None:
    job = job_of(wf, {"executor": "it", "retry": {"max_attempts": 3, "delay": 0}})
    fail(wf, claimed(wf, lease()), lease(), code)
    assert job.status == "failed"


def test_failure_in_a_failed_job_is_not_tried_again(wf: gwf.Client) -> None:
    """P4: a running sibling may finish and is recorded; nothing new starts."""
    retry = {"max_attempts": 3, "delay": 0}
    tasks = [
        wf.create_task(name, type="automated", config={"executor": "it", "retry": more})
        for name, more in (("a", {"max_attempts": 1}), ("b", retry))
    ]
    job = wf.create_job(wf.create_flow("F", [tasks]), "J").start()
    (step,) = claim(wf, lease())
    first, second = (one.task for one in step.claims)
    fail(wf, first, lease())
    assert job.status == "failed"
    fail(wf, second, lease())
    assert (job.status, wf.job_task(second.id).attempt) == ("failed", 1)


def test_failure_in_a_pause_is_tried_again_when_it_is_over(wf: gwf.Client) -> None:
    job = job_of(wf, {"executor": "it", "retry": {"max_attempts": 2, "delay": 0}})
    task = claimed(wf, lease())
    job.pause()
    fail(wf, task, lease())
    assert (job.status, job.task(1).attempt, found(wf).job_task_ids) == ("running", 2, ())
    job.resume()
    assert claimed(wf, lease()).attempt == 2


def test_condition_is_evaluated_again_for_a_retry(wf: gwf.Client) -> None:
    """C5: what became false in between is skipped, and the job goes on."""
    task = wf.create_task(
        "t", type="automated", config={"executor": "it", "retry": {"max_attempts": 2, "delay": 0}}
    )
    step = gwf.Step(task, condition="context.go")
    job = wf.create_job(wf.create_flow("F", [step]), "J", context={"go": True}).start()
    record = claimed(wf, lease())
    job.context["go"] = False
    fail(wf, record, lease())
    assert (job.task("t").status, job.status) == ("skipped", "completed")


def test_worker_that_is_silent_past_the_timeout(wf: gwf.Client, clock: Clock) -> None:
    """W4, W6: whoever looks at the job applies the deadline, by the policy of retries."""
    retry = {"max_attempts": 2, "delay": 0}
    job = job_of(wf, {"executor": "it", "timeout": 60, "retry": retry})
    task = claimed(wf, lease(seconds=3600))
    clock.advance(60 + claims.REPORT_GRACE_S + 1)
    assert (job.status, job.task(1).attempt) == ("running", 2)
    assert job.attempts()["error_code"].tolist()[0] == "timed_out"
    with pytest.raises(gwf.StaleAttempt):
        complete(wf, task, lease())
    clock.advance(0.001)
    task = claimed(wf, lease(seconds=3600))
    clock.advance(60 + claims.REPORT_GRACE_S + 1)
    assert job.status == "failed"


def test_given_back_is_open_at_once(wf: gwf.Client) -> None:
    """Stopping a worker is nobody's failure, so it costs none of the tries."""
    job = job_of(wf)
    fail(wf, claimed(wf, lease()), lease(), "given_back")
    task = claimed(wf, lease("w2"))
    assert (task.attempt, task.n_retries, job.status) == (2, 0, "running")


def test_held_by_finds_what_a_worker_may_not_know_of(wf: gwf.Client) -> None:
    job_of(wf)
    task = claimed(wf, lease())
    held = read(wf.database, lambda conn: claims.held_by(conn, lease()))
    assert [one.id for one in held] == [task.id]
    assert read(wf.database, lambda conn: claims.held_by(conn, lease("w2"))) == []
    assert read(wf.database, lambda conn: claims.is_open(conn, task))
    complete(wf, task, lease())
    assert not read(wf.database, lambda conn: claims.is_open(conn, task))


def test_server_clock_finds_what_is_due(url: str) -> None:
    """Without a clock of ours it is the server's that decides, in the statement itself."""
    with gwf.connect(url) as wf:
        job = job_of(wf)
        assert claimed(wf, lease()).job_id == job.id
        assert read(wf.database, database_now) >= job.record.created_at


@pytest.mark.parametrize("databases", ["mariadb", "mysql"], indirect=True)
def test_find_work_reads_the_head_of_an_index(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EXPLAIN: no part of the query sorts or scans a table, however long the queue is."""
    with gwf.connect(db.engine.url) as wf:
        names = [str(number) for number in range(3000)]
        task = wf.create_task("t", type="automated", config={"executor": "it"})
        wf.create_jobs(wf.create_flow("F", [task]), names)
    with db.engine.begin() as conn:
        conn.exec_driver_sql("UPDATE jobs SET status = 'running', current_task_seq = 1")
        conn.exec_driver_sql("UPDATE job_tasks SET ready_at = NOW(6), available_at = NOW(6)")
        conn.exec_driver_sql("ANALYZE TABLE jobs, job_tasks")
    plan = claims._found(1).plan(db.engine.dialect)
    with db.engine.connect() as conn:
        values = plan.arguments({"now": None, "limit": 10, "executor_0": "it"})
        cursor = conn.connection.cursor()
        explain = "EXPLAIN " if db.engine.dialect.is_mariadb else "EXPLAIN FORMAT=TRADITIONAL "  # type: ignore[attr-defined]  # of MySQL dialects
        cursor.execute(explain + plan.sql, values)
        columns = [one[0] for one in cursor.description]
        rows = [dict(zip(columns, row, strict=True)) for row in cursor.fetchall()]
        cursor.close()
    (queue,) = [row for row in rows if row["table"] == "job_tasks"]
    assert queue["key"] == "idx_job_tasks_available"
    assert "filesort" not in str(queue["Extra"])
