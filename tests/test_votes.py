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


def test_approve_by_one_person_in_two_roles(wf: gwf.Client) -> None:
    """A2: who holds PM and Tech Lead is one of two; another PM frees that person for the other."""
    task = asked(wf, approvers=["PM", "Tech Lead"])
    assert yes(task, "u-both") == "open"
    assert task.approval().missing == ("Tech Lead",)
    assert yes(task, "u-pm") == "approved"
    seats = {vote["user"]: vote["seat"] for vote in task.refresh().result["votes"]}
    assert seats == {"u-both": "Tech Lead", "u-pm": "PM"}


def test_approve_by_two_juniors(wf: gwf.Client) -> None:
    """A1: two people, at least one of them a Senior Developer."""
    task = asked(wf, min_approvers=2, required_reviewers=["Senior Developer"])
    assert [yes(task, who) for who in ("u-dev", "u-dev2")] == ["open", "open"]
    assert "needs Senior Developer" in repr(task.approval())
    assert yes(task, "u-lead") == "approved"


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


def test_reject_by_veto_after_two_approvals(wf: gwf.Client) -> None:
    """A5: it ends the attempt; earlier approvals stay in the history and count nothing again."""
    task = asked(wf, approvers=["Developer", "PM", "Tech Lead"])
    assert [yes(task, who) for who in ("u-dev", "u-pm")] == ["open", "open"]
    assert no(task, "u-lead", comment="范围不清") == "rejected"
    job = wf.job(task.job_id)
    task.refresh()
    assert (job.status, task.status, task.error_code) == ("failed", "failed", "rejected")
    assert (task.result["status"], task.result["approved"]) == ("rejected", False)
    assert "范围不清" in str(task.error_message)
    job.retry("G")
    again = job.task("G").start()
    assert again.approval().n_approved == 0
    votes = wf.votes(job=job)
    assert (len(votes), votes["is_superseded"].all()) == (3, True)
    assert job.attempts().query("task_name == 'G'")["result"].iloc[0]["votes"][0]["user"] == "u-dev"


@pytest.mark.parametrize("policy", ["majority", "count:4"])
def test_reject_three_of_five(wf: gwf.Client, policy: str) -> None:
    """A3: of 60 % of five, the third rejection decides, be it by policy or by arithmetic."""
    five = list(ROLES)[:5]
    task = asked(wf, approvers=five, min_approvers="60%", reject_policy=policy)
    wf.users.add("u-late", roles=["PM"])  # the denominator was fixed when the attempt started
    assert (task.approval().needed, [no(task, who) for who in five[:3]]) == (
        3,
        ["open", "open", "rejected"],
    )


@pytest.mark.parametrize(
    ("on_reject", "expected"),
    [
        ("fail", ("failed", "completed 1, failed 1, pending 1")),
        ("cancel", ("cancelled", "completed 1, failed 1, pending 1")),
        ("send_back:previous", ("running", "pending 2, rolled_back 2, pending 1")),
        ("send_back:1", ("running", "pending 2, rolled_back 2, pending 1")),
        ("send_back:7", ("failed", "completed 1, failed 1, pending 1")),
    ],
)
def test_reject_leads_where_the_policy_says(
    wf: gwf.Client, on_reject: str, expected: tuple[str, str]
) -> None:
    """A5, R5: fail, cancel, or a send-back by its own rules; what they refuse stays failed."""
    task = asked(wf, on_reject=on_reject)
    assert no(task, "u-dev", comment="no") == "rejected"
    job = wf.job(task.job_id)
    frame = job.tasks()
    shown = [f"{s} {a}" for s, a in zip(frame["status"], frame["attempt"], strict=True)]
    assert (job.status, ", ".join(shown)) == expected
    attempt = job.attempts().query("task_name == 'G'").iloc[0]
    assert attempt["result"]["status"] == "rejected"
    if on_reject == "send_back:7":
        assert "not sent back to sequence 7" in wf.logs(job=job).iloc[-1]["message"]
    elif on_reject.startswith("send_back"):
        assert (attempt["status"], job.record.n_rollbacks) == ("rolled_back", 1)
        job.task("A").start().complete()
        assert yes(job.task("G").start(), "u-dev") == "approved"


def test_rollback_task_to_an_approval(wf: gwf.Client) -> None:
    """R5: a send-back to a group that signs together opens every seat again."""
    task = asked(wf, approvers=["PM", "Developer"])
    assert [yes(task, who) for who in ("u-pm", "u-dev")] == ["open", "approved"]
    job = wf.job(task.job_id)
    job.task("B").start()
    job.rollback("B", to="G", reason="the wrong version")
    assert [seat.filled_by for seat in job.task("G").start().approval().seats] == [None, None]


# A4: votes again, withdrawn, out of place


def test_vote_again(wf: gwf.Client) -> None:
    """A4: the same vote is a no-op, the other a Conflict, until it is withdrawn."""
    task = asked(wf, min_approvers=2)
    first = wf.approve(task, operator="u-dev")
    n_rows = len(wf.logs())
    assert wf.approve(task, operator="u-dev") == first
    assert len(wf.logs()) == n_rows
    with refused(task, gwf.Conflict, "you voted approve .* withdraw that vote first"):
        no(task, "u-dev")
    assert wf.withdraw_vote(task, operator="u-dev", reason="mistaken").withdrawn_at is not None
    with refused(task, gwf.Conflict, "no vote on it"):
        wf.withdraw_vote(task, operator="u-dev")
    assert no(task, "u-dev") == "rejected"
    assert wf.votes()["withdrawn_at"].notna().tolist() == [True, False]
    with refused(task, gwf.Conflict, "is failed"):
        wf.withdraw_vote(task.id, operator="u-dev")


def test_vote_with_a_key(wf: gwf.Client) -> None:
    """T3: the same key gives the same vote; with another decision it is a Conflict."""
    task = asked(wf, min_approvers=2)
    first = wf.approve(task.id, operator="u-dev", idempotency_key="k")
    assert wf.approve(task.id, operator="u-dev", idempotency_key="k") == first
    with pytest.raises(gwf.KeyReused):
        wf.reject(task.id, operator="u-dev", idempotency_key="k")
    assert len(wf.votes()) == 1


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


@pytest.mark.parametrize(
    ("policy", "missing"),
    [
        ({"approvers": ["PM", "Auditor"]}, "'Auditor'"),
        ({"approvers": ["u-gone"]}, "'u-gone'"),
        ({"approvers": ["PM", "PM", "PM"]}, "somebody for seat 'PM'"),
        ({"min_approvers": 7}, "7 people who may vote"),
        ({"approvers": ["Developer"], "min_approvers": 3}, "3 people"),
        ({"approvers": ["u-pm"], "self_approval": "bar_initiator"}, "somebody for seat 'u-pm'"),
        ({"timeout": 9, "on_timeout": "escalate", "escalate_to": "Auditor"}, "'Auditor'"),
    ],
)
def test_start_task_of_an_approval_that_could_never_pass(
    wf: gwf.Client, policy: dict[str, Any], missing: str
) -> None:
    """A7: it is refused when it starts, naming what is lacking; the task stays pending."""
    wf.create_task("G", type="approval", config=policy)
    job = wf.create_job(wf.create_flow("F", ["G"]), "J", created_by="u-pm").start()
    with pytest.raises(gwf.UnsatisfiablePolicy) as refusal:
        job.task("G").start()
    assert missing in str(refusal.value)
    assert job.task("G").status == "pending"
    assert job.logs()["action"].tolist()[-1] == "refuse"
    with pytest.raises(gwf.Conflict, match="start_task asks its approvers"):
        job.task("G").approval()


# A8: open mode


@pytest.fixture
def empty(url: str) -> Iterator[gwf.Client]:
    """Return a client whose directory holds nobody."""
    with gwf.connect(url) as client:
        yield client


def test_approve_in_open_mode(empty: gwf.Client) -> None:
    """A8: ids are free, roles cannot be checked, distinct ids count; votes are unverified."""
    task = asked(empty, approvers=["PM", "Tech Lead"])
    assert yes(task, 100) == "open"
    assert yes(task, 100) == "open"
    assert yes(task, 200) == "approved"
    assert not empty.votes()["is_verified"].any()
    assert {row["unverified"] for row in empty.logs(action="vote")["metadata"]} == {True}
    with pytest.raises(gwf.Invalid, match="while the directory holds nobody"):
        yes(task, "u-pm")
    empty.create_task("all", type="approval", config={"min_approvers": "all"})
    job = empty.create_job(empty.create_flow("G", ["all"]), "K").start()
    with pytest.raises(gwf.UnsatisfiablePolicy, match="nobody to count"):
        job.task("all").start()


def test_directory_decides_from_its_first_user_on(empty: gwf.Client) -> None:
    """A8: a vote cast before stands; whoever votes after needs the role."""
    task = asked(empty, approvers=["PM", "Tech Lead"])
    assert yes(task, 100) == "open"
    empty.users.add("u-dev", roles=["Developer"])
    with refused(task, gwf.NotAllowed, "no seat"):
        yes(task, "u-dev")
    empty.users.add("u-pm", roles=["PM"])
    assert yes(task, "u-pm") == "approved"
