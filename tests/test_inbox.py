"""Show what waits for whom, by one indexed query, and how much is decided at once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import pytest
import sqlalchemy as sa
from conftest import Databases
from test_votes import asked, with_people, yes

import gwf
from gwf import queries, schemas
from gwf.database import write
from gwf.engine.seats import candidates_of
from gwf.tables import approval_seats, job_tasks, jobs

NOW = datetime(2026, 3, 2, tzinfo=UTC)
N_OPEN = 100_000
N_MINE = 7


@pytest.fixture
def wf(wf: gwf.Client) -> gwf.Client:
    """Return a client of a database whose directory holds people."""
    return with_people(wf)


def test_inbox_has_the_same_columns_when_empty(wf: gwf.Client) -> None:
    """One row per approval, whatever the number of seats that one may fill in it."""
    empty = wf.inbox("u-both")
    assert empty.empty
    asked(wf, approvers=["PM", "Tech Lead"], timeout=60)
    full = wf.inbox("u-both")
    assert full["seat"].tolist() == ["PM, Tech Lead"]
    assert list(full.columns) == list(schemas.INBOX)
    assert full.dtypes.to_dict() == empty.dtypes.to_dict()
    assert wf.votes().dtypes.to_dict() == {
        name: pd.api.types.pandas_dtype(dtype) for name, dtype in schemas.VOTES.items()
    }


def test_inbox_is_in_order_of_due_time(wf: gwf.Client) -> None:
    """The most urgent first, what has no deadline last."""
    for name, timeout in (("none", None), ("late", 9000), ("soon", 60)):
        wf.create_task(name, type="approval", config={"timeout": timeout})
        wf.create_job(wf.create_flow(name, [name]), name).start().task(name).start()
    frame = wf.inbox("u-dev")
    assert frame["task_name"].tolist() == ["soon", "late", "none"]
    assert frame["due_at"].isna().tolist() == [False, False, True]


CHANGES: dict[str, tuple[Callable[[gwf.Client, gwf.JobTask], Any], int]] = {
    "their own vote": (lambda wf, t: yes(t, "u-pm"), 0),
    "a withdrawn vote": (
        lambda wf, t: (yes(t, "u-pm"), wf.withdraw_vote(t, operator="u-pm")),
        1,
    ),
    "the vote of another": (lambda wf, t: yes(t, "u-lead"), 1),
    "a decision": (lambda wf, t: (yes(t, "u-both"), yes(t, "u-lead")), 0),
    "a rejection": (lambda wf, t: wf.reject(t, operator="u-lead"), 0),
    "a cancelled job": (lambda wf, t: wf.cancel_job(t.job_id), 0),
    "a paused job": (lambda wf, t: wf.pause_job(t.job_id), 0),
    "a send-back": (lambda wf, t: wf.rollback_task(t, to=1, reason="x"), 0),
    "an override": (lambda wf, t: wf.complete_task(t, {}, operator="u-admin"), 0),
    "the loss of the role": (lambda wf, t: wf.users.revoke("u-pm", "PM"), 0),
    "a deactivation": (lambda wf, t: wf.users.deactivate("u-pm"), 0),
}


@pytest.mark.parametrize("change", CHANGES)
def test_inbox_after(wf: gwf.Client, change: str) -> None:
    """What no longer waits for the person is gone, at once."""
    task = asked(wf, approvers=["PM", "Tech Lead"])
    assert len(wf.inbox("u-pm")) == 1
    act, expected = CHANGES[change]
    act(wf, task)
    assert len(wf.inbox("u-pm")) == expected


def test_inbox_in_turn_and_of_ones_own_job(wf: gwf.Client) -> None:
    """Where the order counts, only whose turn it is; where the initiator is barred, not them."""
    task = asked(
        wf,
        created_by="u-pm",
        approvers=["Tech Lead", "PM"],
        order="sequential",
        self_approval="bar_initiator",
    )
    assert [len(wf.inbox(who)) for who in ("u-lead", "u-both", "u-pm")] == [1, 1, 0]
    yes(task, "u-lead")
    assert [len(wf.inbox(who)) for who in ("u-lead", "u-both", "u-pm")] == [0, 1, 0]


def test_inbox_of_nobody(wf: gwf.Client) -> None:
    with pytest.raises(gwf.Invalid, match="whose inbox"):
        wf.inbox()
    with pytest.raises(gwf.UserNotFound):
        wf.inbox("u-gone")
    assert wf.as_user("u-pm").inbox().empty


def test_inbox_in_open_mode(url: str) -> None:
    """Nobody can say whose a role is, so everybody sees what they have not voted on."""
    with gwf.connect(url) as wf:
        task = asked(wf, approvers=["PM", "Tech Lead"])
        assert len(wf.inbox(1)) == 1
        yes(task, 1)
        assert [len(wf.inbox(who)) for who in (1, 2)] == [0, 1]


def test_approve_in_bulk(wf: gwf.Client) -> None:
    """Each row is a transaction of its own, with its outcome; the others go on."""
    wf.create_task("G", type="approval", config={"approvers": ["PM", "Developer"]})
    wf.create_task("A")
    flow = wf.create_flow("F", ["A", "G"])
    tasks = []
    for job in wf.create_jobs(flow, ["open", "decided", "stale", "gone"]):
        job.start().task("A").start().complete()
        tasks.append(job.task("G").start())
    frame = wf.inbox("u-pm")
    yes(tasks[1], "u-dev")
    tasks[2].rollback(to=1, reason="x")
    wf.cancel_job(tasks[3].job_id)
    outcomes = wf.as_user("u-pm").approve(frame, comment="batch", idempotency_key="monday")
    assert isinstance(outcomes, pd.DataFrame)
    assert outcomes["outcome"].tolist() == ["open", "approved", "StaleAttempt", "Conflict"]
    assert outcomes["message"].tolist()[0] == "needs Developer"
    assert set(wf.votes()["comment"].iloc[1:]) == {"batch"}
    again = wf.as_user("u-pm").approve(frame, comment="batch", idempotency_key="monday")
    assert again["outcome"].tolist()[:2] == ["open", "approved"]  # type: ignore[index]  # as above
    handles = wf.as_user("u-dev").reject([tasks[0], tasks[1].id])
    assert handles["outcome"].tolist() == ["rejected", "Conflict"]  # type: ignore[index]  # as above
    nothing = wf.as_user("u-pm").approve([])
    assert list(nothing.columns) == list(schemas.OUTCOMES)  # type: ignore[union-attr]  # as above
    for wrong in ("1", 1.5, None, pd.DataFrame({"a": [1]}), ["x"]):
        with pytest.raises(gwf.Invalid):
            wf.as_user("u-pm").approve(wrong)  # type: ignore[arg-type]  # on purpose


def fill(wf: gwf.Client) -> None:
    """Open 100,000 approvals by doubling one that was asked for; seven wait for u-dev."""
    task = asked(wf, approvers=["PM"])
    first = 1_000
    shifted = {jobs: ("id",), job_tasks: ("id", "job_id")}
    shifted[approval_seats] = ("id", "job_id", "job_task_id")
    own = {jobs: jobs.c.id == task.job_id, job_tasks: job_tasks.c.id == task.id}
    own[approval_seats] = approval_seats.c.job_task_id == task.id

    def copy(conn: sa.Connection, table: sa.Table, rows: Any, values: dict[str, Any]) -> None:
        names = [column.key for column in table.c]
        columns = [values.get(name, table.c[name]) for name in names]
        conn.execute(table.insert().from_select(names, sa.select(*columns).where(rows)))

    def work(conn: sa.Connection) -> None:
        for table, keys in shifted.items():
            copy(conn, table, own[table], dict.fromkeys(keys, sa.literal(first)))
            n_rows = 1
            while n_rows < N_OPEN:
                lot = table.c.id.between(first, first + min(n_rows, N_OPEN - n_rows) - 1)
                copy(conn, table, lot, {key: table.c[key] + n_rows for key in keys})
                n_rows += min(n_rows, N_OPEN - n_rows)
        mine = approval_seats.c.id.in_(range(first, first + N_OPEN, N_OPEN // N_MINE + 1))
        conn.execute(approval_seats.update().where(mine).values(candidate="user:4"))

    write(wf.database, work)
    assert wf.users().set_index("user_id").loc[4, "name"] == "u-dev"


def rows_read(conn: sa.Connection) -> int:
    """Return how many rows this session has asked the storage engine for."""
    found = conn.exec_driver_sql("SHOW SESSION STATUS WHERE Variable_name LIKE 'Handler_read_%%'")
    return sum(int(value) for _, value in found)


def test_inbox_reads_little_of_100_000_open_approvals(wf: gwf.Client, databases: Databases) -> None:
    """By EXPLAIN under 50 rows beyond those that it returns, and so counted while it runs."""
    fill(wf)
    assert len(wf.inbox("u-dev")) == N_MINE
    with wf.database.engine.connect() as conn:
        user_id, candidates = candidates_of(conn, "u-dev")
        query = queries.inbox_frame(user_id, candidates)
        sql = query.compile(conn, compile_kwargs={"literal_binds": True}).string
        if databases.kind == "sqlite":
            plan = " ".join(row[-1] for row in conn.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}"))
            assert "idx_approval_seats_candidate (is_open=? AND candidate=?)" in plan
            assert "SCAN" not in plan
            return
        for table in ("jobs", "job_tasks", "approval_seats", "votes"):
            conn.exec_driver_sql(f"ANALYZE TABLE {table}").all()
        table_format = "FORMAT=TRADITIONAL" if databases.kind == "mysql" else ""
        plan = conn.exec_driver_sql(f"EXPLAIN {table_format} {sql}").mappings().all()
        assert sum(int(row["rows"] or 0) for row in plan) < N_MINE + 50
        before = rows_read(conn)
        assert len(conn.exec_driver_sql(sql).all()) == N_MINE
        assert rows_read(conn) - before < 4 * N_MINE + 50
        conn.rollback()
