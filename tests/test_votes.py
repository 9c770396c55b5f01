"""Show how votes decide: rules A1 to A5, A7 to A9, T5, and their rows of the table of cases."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import gwf

ROLES = {
    "u-both": ["PM", "Tech Lead"],
    "u-pm": ["PM"],
    "u-lead": ["Tech Lead", "Senior Developer"],
    "u-dev": ["Developer"],
    "u-dev2": ["Developer"],
    "u-admin": ["admin"],
}


def with_people(wf: gwf.Client) -> gwf.Client:
    """Add people to the directory."""
    for name, roles in ROLES.items():
        wf.users.add(name, roles=roles)
    return wf


@pytest.fixture
def wf(wf: gwf.Client) -> gwf.Client:
    """Return a client of a database whose directory holds people."""
    return with_people(wf)


def asked(wf: gwf.Client, *, created_by: str | int | None = None, **policy: Any) -> gwf.JobTask:
    """Return a running approval with this policy, between two manual tasks."""
    for name in "AB":
        wf.create_task(name)
    wf.create_task("G", type="approval", config=policy)
    job = wf.create_job(wf.create_flow("F", ["A", "G", "B"]), "J", created_by=created_by).start()
    job.task("A").start().complete({"n": 1})
    return job.task("G").start()


def yes(task: gwf.JobTask, who: str | int, **options: Any) -> str:
    vote = task._client.approve(task.id, operator=who, **options)
    assert isinstance(vote, gwf.Vote)
    return vote.status


def no(task: gwf.JobTask, who: str | int, **options: Any) -> str:
    vote = task._client.reject(task.id, operator=who, **options)
    assert isinstance(vote, gwf.Vote)
    return vote.status


def state(task: gwf.JobTask) -> Any:
    wf = task._client
    job = wf.job(task.job_id)
    tasks = job.tasks()[["status", "attempt", "due_at"]].astype(str).to_numpy().tolist()
    votes = wf.votes(job=job)[["user", "decision", "withdrawn_at"]].astype(str)
    seats = repr(task.approval()) if task.refresh().status == "running" else ""
    return job.status, tasks, votes.to_numpy().tolist(), seats


@contextmanager
def refused(
    task: gwf.JobTask, error: type[gwf.GwfError], match: str | None = None
) -> Iterator[None]:
    """Expect one clear error, nothing changed, and the refusal on record (rule T8)."""
    wf, before = task._client, state(task)
    n_rows = len(wf.logs(job=task.job_id))
    with pytest.raises(error, match=match):
        yield
    assert state(task) == before
    rows = wf.logs(job=task.job_id).iloc[n_rows:]
    assert rows["action"].tolist() == ["refuse"]


# A1, A2: how many, and who


@pytest.mark.parametrize(
    ("policy", "voters"),
    [
        ({}, ["u-dev"]),
        ({"min_approvers": 1}, ["u-dev"]),
        ({"min_approvers": 2}, ["u-dev", "u-pm"]),
        ({"approvers": ["u-dev", "PM"]}, ["u-dev", "u-pm"]),
        ({"approvers": ["Developer"], "min_approvers": 1}, ["u-dev2"]),
        (
            {"approvers": ["Developer", "PM"], "min_approvers": "all"},
            ["u-dev", "u-dev2", "u-pm", "u-both"],
        ),
        ({"approvers": ["Developer", "PM"], "min_approvers": "51%"}, ["u-dev", "u-dev2", "u-pm"]),
        ({"required_reviewers": ["Tech Lead"]}, ["u-lead"]),
    ],
)
def test_approve_until_the_policy_is_met(
    wf: gwf.Client, policy: dict[str, Any], voters: list[str]
) -> None:
    """A1, A3: it passes with the last of these votes, and not before."""
    task = asked(wf, **policy)
    assert [yes(task, who) for who in voters] == ["open"] * (len(voters) - 1) + ["approved"]
    task.refresh()
    assert (task.status, task.result["status"], task.result["approved"]) == (
        "completed",
        "approved",
        True,
    )
    assert [vote["user"] for vote in task.result["votes"]] == voters
    assert wf.job(task.job_id).next_task().name == "B"  # type: ignore[union-attr]  # it is due
    assert wf.votes()["is_verified"].all()
    row = wf.logs(action="vote").iloc[0]
    assert row["metadata"]["roles"] == sorted(ROLES[voters[0]])


# A3, A5: rejections


# A4: votes again, withdrawn, out of place


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda wf, t: yes(t, "u-dev"), gwf.NotAllowed, "no seat .* needs PM or Tech Lead"),
        (lambda wf, t: yes(t, "u-gone"), gwf.UserNotFound, "u-gone"),
        (lambda wf, t: yes(t, 999), gwf.UserNotFound, "999"),
        (lambda wf, t: yes(t, "u-old"), gwf.NotAllowed, "not active"),
        (lambda wf, t: wf.approve(t), gwf.Invalid, "who votes"),
        (lambda wf, t: yes(t, "u-pm", attempt=2), gwf.StaleAttempt, "has not begun"),
        (lambda wf, t: no(t, "u-pm"), gwf.Invalid, "requires one with each vote"),
        (lambda wf, t: yes(t, "u-pm", comment=" "), gwf.Invalid, "requires one with each vote"),
        (lambda wf, t: wf.complete_task(t, {}, operator="u-pm"), gwf.NotAllowed, "role 'admin'"),
        (lambda wf, t: wf.fail_task(t, "no", operator="u-pm"), gwf.NotAllowed, "role 'admin'"),
        (lambda wf, t: wf.complete_task(t, {}), gwf.NotAllowed, "role 'admin'"),
    ],
)
def test_vote_that_nobody_may_cast(
    wf: gwf.Client, call: Callable[..., Any], error: type[gwf.GwfError], match: str
) -> None:
    """A8, A9, T5: one clear error each, nothing changed, and the refusal is on record."""
    wf.users.add("u-old", roles=["PM"])
    wf.users.deactivate("u-old")
    task = asked(wf, approvers=["PM", "Tech Lead"], comment_required=True)
    with refused(task, error, match):
        call(wf, task)


def test_vote_on_what_takes_none(wf: gwf.Client) -> None:
    """A vote wants a running approval: not another task, not a pending one, not a paused job."""
    task = asked(wf, min_approvers=2)
    job = wf.job(task.job_id)
    with refused(task, gwf.Conflict, "a manual task, nobody votes"):
        yes(job.task("B"), "u-dev")
    job.pause()
    with refused(task, gwf.Conflict, "is paused"):
        yes(task, "u-dev")
    job.resume()
    yes(task, "u-dev")
    assert yes(task, "u-pm") == "approved"
    with refused(task, gwf.Conflict, "is completed"):
        yes(task, "u-lead")
    job.task("B").start()
    job.rollback("B", to=1, reason="again")
    with refused(task, gwf.StaleAttempt, "attempt 1 .* is over"):
        wf.approve(task.id, operator="u-dev", attempt=1)
    with refused(task, gwf.Conflict, "is pending"):
        yes(task, "u-dev")


def test_override_by_an_admin(wf: gwf.Client) -> None:
    """A9: an admin ends an approval without its votes, and the log calls it an override."""
    task = asked(wf, min_approvers=2)
    wf.complete_task(task, {"by": "decree"}, operator="u-admin")
    row = wf.logs(action="complete").iloc[-1]
    assert (row["metadata"]["override"], row["metadata"]["roles"]) == (True, ["admin"])
    assert task.approval().status == "overridden"


def test_self_approval_and_order(wf: gwf.Client) -> None:
    """Who created the job may be barred; where the order counts, each waits for the one before."""
    task = asked(
        wf,
        created_by="u-pm",
        approvers=["PM", "Developer", "Tech Lead"],
        order="sequential",
        self_approval="bar_initiator",
    )
    with refused(task, gwf.NotAllowed, "job of your own"):
        yes(task, "u-pm")
    with refused(task, gwf.Conflict, "not your turn .* PM comes first"):
        yes(task, "u-dev")
    assert [yes(task, who) for who in ("u-both", "u-dev2", "u-lead")] == [
        "open",
        "open",
        "approved",
    ]


# A8: open mode


@pytest.fixture
def empty(url: str) -> Iterator[gwf.Client]:
    """Return a client whose directory holds nobody."""
    with gwf.connect(url) as client:
        yield client
