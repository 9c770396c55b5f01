"""Run the code by which approvals were asked for, on every database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

import gwf
from gwf.database import Database


@pytest.fixture
def wf(url: str) -> Iterator[gwf.Client]:
    """Return a client of a database with people in it and a running job of two approvals."""
    with gwf.connect(url) as wf:
        wf.users.add("u-pm", roles=["PM"], display_name="产品经理")
        wf.users.add("u-lead", roles=["Tech Lead", "Senior Developer"])
        for name in ("u-pm2", "u-dep", "u-qa", "u-old"):
            wf.users.add(name)
        wf.users.grant("u-pm", "Tech Lead")
        wf.users.revoke("u-pm", "Tech Lead")
        wf.users.deactivate("u-old")
        assert wf.users()["is_active"].tolist() == [True] * 5 + [False]
        gate = wf.create_task(
            "需求评审", type="approval", config={"approvers": ["PM", "Tech Lead"], "timeout": 3600}
        )
        code = wf.create_task(
            "代码审查",
            type="approval",
            config={"min_approvers": 2, "required_reviewers": ["Senior Developer"]},
        )
        wf.create_job(wf.create_flow("发布流程", [gate, code]), "v1").start()
        yield wf


@pytest.fixture
def people(wf: gwf.Client, url: str) -> Iterator[dict[str, gwf.Client]]:
    """Return the client of each person."""
    with ExitStack() as stack:
        names = ("u-pm", "u-lead", "u-dep", "u-pm2")
        yield {name: stack.enter_context(gwf.connect(url, user=name)) for name in names}


def test_people_vote_until_it_is_decided(wf: gwf.Client, people: dict[str, gwf.Client]) -> None:
    """A vote, what is missing, a rejection, and an attempt that begins at zero."""
    as_pm, as_lead, job = people["u-pm"], people["u-lead"], wf.job(1)
    told: list[gwf.Event] = []
    as_lead.on("decided", told.append)
    task = as_pm.job(1).task("需求评审").start()
    assert as_pm.inbox()["seat"].tolist() == ["PM"]
    vote = as_pm.approve(task, comment="looks right")
    assert isinstance(vote, gwf.Vote)
    assert (vote.user, vote.seat, vote.status, vote.missing) == (
        "u-pm",
        "PM",
        "open",
        ("Tech Lead",),
    )
    shown = task.approval()
    assert "1 of 2 approved; needs Tech Lead; due in" in repr(shown)
    assert [seat.filled_by for seat in shown.seats] == ["u-pm", None]
    assert "looks right" in shown._repr_html_()
    assert "on votes: 1 of 2 approved" in str(job.explain())
    assert as_lead.reject(task, comment="范围不清").status == "rejected"  # type: ignore[union-attr]  # one vote
    assert (job.status, told[0].name, told[0].task_name) == ("failed", "decided", "需求评审")
    assert task.refresh().result["votes"][1]["comment"] == "范围不清"
    job.retry("需求评审")
    task = as_pm.job(1).task("需求评审").start()
    assert task.approval().n_approved == 0
    task.approve()
    as_pm.withdraw_vote(task)
    task.approve()
    assert as_lead.job(1).task("需求评审").approve().status == "approved"
    votes = wf.votes(job=job)
    assert votes["user"].tolist() == ["u-pm", "u-lead", "u-pm", "u-pm", "u-lead"]
    assert votes["is_superseded"].tolist() == [True, True, False, False, False]
    assert votes["withdrawn_at"].notna().tolist() == [False, False, True, False, False]


def test_people_hand_over_and_vote_in_bulk(wf: gwf.Client, people: dict[str, gwf.Client]) -> None:
    """Seats move to others, who find them in their inbox and decide."""
    job = wf.job(1)
    job.skip(
        "需求评审",
        force=True,
        reason="agreed in a meeting",
        operator=wf.users.add("u-admin", roles=["admin"]),
    )
    as_pm, as_dep, as_pm2 = people["u-pm"], people["u-dep"], people["u-pm2"]
    task = as_pm.job(1).task("代码审查").start()
    assert wf.can("u-lead", "approve", task)
    assert "approve" in as_pm.allowed_actions(task)
    wf.transfer(task, "u-pm", "u-pm2")
    wf.delegate(task, "u-lead", "u-dep")
    wf.add_signer(task, "u-qa")
    assert task.approval().needed == 3
    wf.remove_signer(task, "u-qa")
    assert as_pm.inbox().empty
    assert as_dep.approve(task).seat == "Senior Developer"  # type: ignore[union-attr]  # one vote
    outcomes = as_pm2.approve(as_pm2.inbox(), comment="batch")
    assert outcomes["outcome"].tolist() == ["approved"]  # type: ignore[index]  # a DataFrame
    assert (job.status, wf.tick()) == ("completed", 0)
    assert wf.votes(job=job)["on_behalf_of"].fillna("").tolist() == ["u-lead", ""]


def test_simulate_needs_no_database() -> None:
    """What would happen: the third of five rejections makes 60 % impossible."""
    policy = {
        "min_approvers": "60%",
        "approvers": ["a", "b", "c", "d", "e"],
        "reject_policy": "majority",
    }
    votes = [("a", "reject"), ("b", "approve"), ("c", "reject")]
    assert gwf.policy.simulate(policy, votes=votes).status == "open"
    assert gwf.policy.simulate(policy, votes=[*votes, ("d", "reject")]).status == "rejected"


def test_published_walk_in_open_mode(db: Database) -> None:
    """While there is nobody, an approval is started and completed as in the published example."""
    wf = gwf.Client(db)
    gate = wf.create_task("需求评审", type="approval", config={"approvers": ["PM", "Tech Lead"]})
    job = wf.create_job(wf.create_flow("F", [gate]), "feature-user-login", created_by=1).start()
    wf.start_task(job.task("需求评审"), operator=100)
    wf.complete_task(job.task("需求评审"), {"approved": True})
    assert job.status == "completed"
    assert job.logs()["metadata"].dropna().tolist()[-1] == {"override": True}
