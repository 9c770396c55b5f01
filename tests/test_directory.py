"""Show who may do what: rule T4, and the open mode of rule A8."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pandas as pd
import pytest
import sqlalchemy as sa

import gwf
from gwf.tables import user_roles, users


def started(wf: gwf.Client, *steps: Any) -> gwf.Job:
    """Return a started job of these steps over the manual tasks A to C."""
    for name in "ABC":
        wf.create_task(name)
    return wf.create_job(wf.create_flow("F", steps), "J").start()


def last_row(job: gwf.Job) -> dict[str, Any]:
    return job.logs().to_dict("records")[-1]


@contextmanager
def unchanged(job: gwf.Job) -> Iterator[None]:
    """Assert that the job, its tasks and their history stay as they are."""
    before = job.record, job.attempts().to_csv()
    yield
    assert (job.record, job.attempts().to_csv()) == before


def _forced_skip(wf: gwf.Client) -> tuple[gwf.Job, Callable[..., Any]]:
    job = started(wf, "A", "B")
    return job, lambda **who: job.skip("A", force=True, reason="urgent", **who)


def _forced_send_back(wf: gwf.Client) -> tuple[gwf.Job, Callable[..., Any]]:
    job = started(wf, gwf.Step("A", allow_rollback=False), "B")
    job.task("A").start().complete()
    task = job.task("B").start()
    return job, lambda **who: task.rollback(to=1, force=True, reason="urgent", **who)


def _forced_send_back_of_its_own(wf: gwf.Client) -> tuple[gwf.Job, Callable[..., Any]]:
    job = started(wf, "A", gwf.Step("B", allow_rollback=False))
    job.task("A").start().complete()
    task = job.task("B").start()
    return job, lambda **who: task.rollback(to=1, force=True, reason="urgent", **who)


def _reopening(wf: gwf.Client) -> tuple[gwf.Job, Callable[..., Any]]:
    job = started(wf, gwf.Step("A", allow_rollback=False))
    job.task("A").start().complete()
    return job, lambda **who: job.reopen(to=1, reason="urgent", **who)


ADMIN_VERBS = pytest.mark.parametrize(
    "prepare", [_forced_skip, _forced_send_back, _forced_send_back_of_its_own, _reopening]
)


# A8: open mode


def test_start_task_in_open_mode(wf: gwf.Client) -> None:
    """A8: while nobody is known, ids are free numbers; no roles are claimed in the log."""
    job = started(wf, ["A", "B", "C"])
    for name, operator in {"A": 0, "B": 7, "C": 2**63 - 1}.items():
        assert job.task(name).start(operator=operator).operator_id == operator
        row = last_row(job)
        assert (row["operator_id"], row["metadata"]) == (operator, None)


def test_start_task_by_a_name_in_open_mode(wf: gwf.Client) -> None:
    """A8: a name means nobody while the directory is empty, and the message says why."""
    job = started(wf, "A")
    with unchanged(job), pytest.raises(gwf.Invalid, match="directory holds nobody"):
        job.task("A").start(operator="ana")


def test_start_task_by_what_is_no_operator(wf: gwf.Client) -> None:
    """A8: an operator is a number from 0 or a name, on every database."""
    job = started(wf, "A")
    for operator in (-1, True, 1.5, 2**63, "", "x" * 101, [1]):
        with unchanged(job), pytest.raises(gwf.Invalid, match="operator"):
            job.task("A").start(operator=operator)


@ADMIN_VERBS
def test_force_in_open_mode(wf: gwf.Client, prepare: Any) -> None:
    """A8: roles cannot be checked, so whoever gives a reason may, somebody unnamed too."""
    for who in ({}, {"operator": 7}):
        job, verb = prepare(wf)
        n_done = job.record.n_done
        verb(**who)
        assert job.record.n_done != n_done
        assert "urgent" in set(job.logs()["message"].dropna())


# T4: the directory decides


@ADMIN_VERBS
def test_force_by_an_admin(wf: gwf.Client, prepare: Any) -> None:
    """T4: allowed, and the roles that it rests on stand in the row of the decision."""
    job, verb = prepare(wf)
    n_rows = len(job.logs())
    admin = wf.users.add("u-head", roles=["auditor", "admin"])
    verb(operator="u-head")
    row = job.logs().to_dict("records")[n_rows]
    assert row["action"] in ("skip", "rollback", "reopen")
    assert row["operator_id"] == admin
    assert sorted(row["metadata"]["roles"]) == ["admin", "auditor"]


@ADMIN_VERBS
def test_force_by_no_admin(wf: gwf.Client, prepare: Any) -> None:
    """T4, T8: refused, also to somebody unnamed; who asked with which roles is logged."""
    job, verb = prepare(wf)
    wf.users.add("u-head", roles=["admin"])
    dev = wf.users.add("u-dev", roles=["Admin", "administrator", "ADMIN"])
    n_rows = len(job.logs())
    for name in ("u-dev", None):
        with unchanged(job), pytest.raises(gwf.NotAllowed) as refusal:
            verb(operator=name)
        assert "role 'admin'" in refusal.value.needs
    named, unnamed = job.logs().to_dict("records")[n_rows:]
    assert named["action"] == unnamed["action"] == "refuse"
    assert named["from_status"] == named["to_status"]
    assert named["operator_id"] == dev
    assert sorted(named["metadata"]["roles"]) == ["ADMIN", "Admin", "administrator"]
    assert pd.isna(unnamed["operator_id"])


def test_every_row_of_a_known_user_holds_the_roles(wf: gwf.Client) -> None:
    """T4: each decision stores the roles that its caller had then; none is an empty list."""
    job = started(wf, "A", "B")
    dev = wf.users.add("dev", roles=["Developer", "Tech Lead"])
    wf.users.add("new")
    n_rows = len(job.logs())
    job.pause(operator="dev").resume(operator=dev)
    job.task("A").start(operator="dev").complete(operator="new")
    rows = job.logs().to_dict("records")[n_rows:]
    assert [row["action"] for row in rows] == ["pause", "resume", "start", "complete"]
    roles = [sorted(row["metadata"]["roles"]) for row in rows]
    assert roles == [["Developer", "Tech Lead"]] * 3 + [[]]
    assert {row["operator_id"] for row in rows[:3]} == {dev}


def test_roles_are_those_of_the_moment(wf: gwf.Client) -> None:
    """T4: a role that is taken away or given counts from then on, and never in earlier rows."""
    job = started(wf, "A", "B")
    head = wf.users.add("u-head", roles=["admin"])
    job.skip("A", force=True, reason="urgent", operator="u-head")
    with wf.database.engine.begin() as conn:
        conn.execute(sa.update(user_roles).values(role="reader"))
    with unchanged(job), pytest.raises(gwf.NotAllowed):
        job.skip("B", force=True, reason="urgent", operator=head)
    metadata = list(job.logs()["metadata"])
    assert metadata[-2]["roles"] == ["admin"]
    assert metadata[-1]["roles"] == ["reader"]
    with wf.database.engine.begin() as conn:
        conn.execute(sa.update(user_roles).values(role="admin"))
    job.skip("B", force=True, reason="urgent", operator=head)
    assert job.status == "completed"


def test_start_task_by_somebody_unknown(wf: gwf.Client) -> None:
    """A8: from the first user on, free numbers end; a name counts to the letter."""
    job = started(wf, "A")
    job.pause(operator=7)
    job.resume(operator=7)
    wf.users.add("u-head")
    for operator in (7, "u-gone", "U-HEAD", "u-head\u0301", "1"):
        with unchanged(job), pytest.raises(gwf.UserNotFound) as refusal:
            job.task("A").start(operator=operator)
        assert refusal.value.key == operator
    assert job.task("A").start(operator="u-head").status == "running"


def test_user_that_is_not_active(wf: gwf.Client) -> None:
    """T4: somebody who left may do nothing any more."""
    job = started(wf, "A")
    head = wf.users.add("u-head", roles=["admin"])
    _deactivate(wf)
    for operator in ("u-head", head):
        with unchanged(job), pytest.raises(gwf.NotAllowed, match="not active"):
            job.task("A").start(operator=operator)
    with pytest.raises(gwf.UserNotFound):
        job.task("A").start(operator=head + 1)


def test_refusal_of_a_user_that_is_not_active_is_logged(wf: gwf.Client) -> None:
    """T8: it is a refusal by policy like any other, so it leaves a row that says who asked."""
    job = started(wf, "A")
    head = wf.users.add("u-head")
    _deactivate(wf)
    with pytest.raises(gwf.NotAllowed):
        job.task("A").start(operator="u-head")
    row = last_row(job)
    assert (row["action"], row["operator_id"]) == ("refuse", head)


def _deactivate(wf: gwf.Client) -> None:
    with wf.database.engine.begin() as conn:
        conn.execute(sa.update(users).values(is_active=False))


def test_create_job_by_a_known_user(wf: gwf.Client) -> None:
    """T4: name and number are one person; an unknown creator creates nothing."""
    started(wf, "A")
    head = wf.users.add("u-head")
    assert wf.create_job("F", "K", created_by="u-head").record.created_by == head
    assert wf.create_job("F", "L", created_by=head).record.created_by == head
    with pytest.raises(gwf.UserNotFound):
        wf.create_job("F", "M", created_by="u-gone")
    assert list(wf.jobs()["job_name"]) == ["J", "K", "L"]


def test_connect_as_a_user(url: str) -> None:
    """T4: the user of the connection acts where a verb names nobody, and only there."""
    with gwf.connect(url) as setup:
        job = started(setup, "A", "B")
        head, dev = setup.users.add("u-head"), setup.users.add("u-dev")
    with gwf.connect(url, user="u-head") as wf:
        job = wf.job(job.id)
        task = job.task("A").start()
        task.complete(operator="u-dev")
        assert task.operator_id == head
        assert list(job.logs()["operator_id"].iloc[-2:]) == [head, dev]


# The users themselves


def test_add_user(wf: gwf.Client) -> None:
    """A8: the frame holds one row per user with a list of roles, each role once."""
    assert wf.users().empty
    first = wf.users.add("u-head", roles=["b", "a", "b"], display_name="负责人")
    second = wf.users.add("u-dev")
    frame = wf.users()
    assert list(frame["user_id"]) == [first, second]
    assert list(frame["name"]) == ["u-head", "u-dev"]
    assert list(frame["roles"]) == [["a", "b"], []]
    assert list(frame["is_active"]) == [True, True]
    assert frame["display_name"].iloc[0] == "负责人"
    assert pd.isna(frame["display_name"].iloc[1])


def test_add_user_that_exists(wf: gwf.Client) -> None:
    """A8: a Conflict, and the roles of the first stay."""
    wf.users.add("u-head", roles=["admin"])
    with pytest.raises(gwf.Conflict, match="'u-head' exists already"):
        wf.users.add("u-head", roles=["reader"])
    assert list(wf.users()["roles"]) == [["admin"]]


def test_add_user_with_a_name_that_is_none(wf: gwf.Client) -> None:
    """A8: Invalid, and nobody is added, so the project stays in open mode."""
    for name, role in (
        ("", "r"),
        ("x" * 101, "r"),
        (7, "r"),
        ("u-head", ""),
        ("u-head", "r" * 101),
    ):
        with pytest.raises(gwf.Invalid):
            wf.users.add(name, roles=["reader", role])
    assert wf.users().empty
    assert started(wf, "A").task("A").start(operator=7).operator_id == 7


def test_add_user_with_roles_that_are_a_text(wf: gwf.Client) -> None:
    """A8: roles="admin" is a slip of the pen, not the five roles a, d, m, i and n."""
    with pytest.raises(gwf.Invalid, match="roles"):
        wf.users.add("u-head", roles="admin")
    assert wf.users().empty


def test_grant_and_revoke_a_role(wf: gwf.Client) -> None:
    """A8: it counts from the next call on; to grant what is held changes nothing."""
    head = wf.users.add("u-head", display_name="负责人")
    assert wf.users.grant("u-head", "admin") == wf.users.grant(head, "admin") == head
    assert wf.users()["roles"].tolist() == [["admin"]]
    assert wf.users.revoke("u-head", " admin ") == head
    assert wf.users()["roles"].tolist() == [[]]
    with pytest.raises(gwf.Conflict, match="does not hold the role"):
        wf.users.revoke("u-head", "admin")
    for change in (wf.users.grant, wf.users.revoke):
        with pytest.raises(gwf.UserNotFound):
            change("u-gone", "admin")
        with pytest.raises(gwf.Invalid):
            change("u-head", "")


def test_deactivate_and_activate(wf: gwf.Client) -> None:
    """A8: whoever is not active does nothing, until they are again; what they did stands."""
    wf.users.add("u-head")
    job = started(wf, "A", "B")
    task = job.task("A").start(operator="u-head")
    wf.users.deactivate("u-head")
    assert not wf.users()["is_active"].any()
    with pytest.raises(gwf.NotAllowed, match="not active"):
        task.complete(operator="u-head")
    wf.users.activate("u-head")
    assert task.complete(operator="u-head").status == "completed"
    with pytest.raises(gwf.UserNotFound):
        wf.users.deactivate("u-gone")


def test_name_is_a_user_or_a_role(wf: gwf.Client) -> None:
    """A policy names either, so no name may be both; each way to make one is refused."""
    wf.users.add("u-head", roles=["PM"])
    for call in (
        lambda: wf.users.add("PM"),
        lambda: wf.users.add("u-new", roles=["u-head"]),
        lambda: wf.users.add("u-new", roles=["u-new"]),
        lambda: wf.users.grant("u-head", "u-head"),
    ):
        with pytest.raises(gwf.Conflict, match="needs another name"):
            call()
    assert wf.users()["name"].tolist() == ["u-head"]


def test_directory_is_changed_by_an_admin(wf: gwf.Client) -> None:
    """A8: by a client without a user, which owns the database, or by an admin; nobody else."""
    wf.users.add("u-head", roles=["admin"])
    wf.users.add("u-dev")
    users = wf.as_user("u-dev").users
    for call in (
        lambda: users.add("u-new"),
        lambda: users.grant("u-dev", "admin"),
        lambda: users.revoke("u-head", "admin"),
        lambda: users.deactivate("u-head"),
        lambda: wf.as_user("u-gone").users.add("u-new"),
    ):
        with pytest.raises((gwf.NotAllowed, gwf.UserNotFound)):
            call()
    assert wf.as_user("u-head").users.grant("u-dev", "admin") == 2
    users.add("u-new")
    wf.users.deactivate("u-head")
    with pytest.raises(gwf.NotAllowed, match="not active"):
        wf.as_user("u-head").users.add("u-newer")


def test_unknown_caller_is_on_record(wf: gwf.Client) -> None:
    """T8: an attempt by nobody that the directory knows is refused, and logged."""
    wf.users.add("u-head")
    job = started(wf, "A")
    with pytest.raises(gwf.UserNotFound):
        job.task("A").start(operator="u-gone")
    row = job.logs().iloc[-1]
    assert (row["action"], "u-gone" in row["message"]) == ("refuse", True)
