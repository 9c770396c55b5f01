"""Show how the votes of an approval are counted: rules A1 to A5 and A7, and T3 to T5 of a vote."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

import gwf

PEOPLE = {
    "u-pm": ["PM"],
    "u-pm2": ["PM"],
    "u-both": ["PM", "Tech Lead"],
    "u-lead": ["Tech Lead", "Senior Developer"],
    "u-dev": ["Developer"],
    "u-new": ["Developer"],
}
BOTH = {"approvers": ["PM", "Tech Lead"]}
REVIEW = {"min_approvers": 2, "required_reviewers": ["Senior Developer"]}


def gate(wf: gwf.Client, policy: Any, **job: Any) -> gwf.JobTask:
    """Return the approval of a running job, not started, with manual tasks before and after it."""
    for name, roles in PEOPLE.items():
        wf.users.add(name, roles=roles)
    wf.create_task("A")
    wf.create_task("Z")
    wf.create_task("Gate", type="approval", config=policy)
    running = wf.create_job(wf.create_flow("F", ["A", "Gate", "Z"]), "J", **job).start()
    running.task("A").start().complete()
    return running.task("Gate")


def asked(wf: gwf.Client, policy: Any, **job: Any) -> gwf.JobTask:
    """Return the approval of a running job, started."""
    return gate(wf, policy, **job).start()


def vote(task: gwf.JobTask, *names: str) -> gwf.Vote:
    """Let these people approve, or reject where the name begins with ``-``; return the last."""
    for name in names:
        cast = task.reject if name.startswith("-") else task.approve
        last = cast(operator=name.removeprefix("-"))
    return last


def statuses(wf: gwf.Client, task: gwf.JobTask) -> dict[str, str]:
    frame = wf.job_tasks(job=task.job_id)
    return dict(zip(frame["task_name"], frame["status"], strict=True))


# A1: what a policy asks for


def test_approve_with_approvers_alone(wf: gwf.Client) -> None:
    """A1: every seat has to be filled 会签, and only then the next task is due."""
    task = asked(wf, BOTH)
    first = vote(task, "u-pm")
    assert (first.status, first.missing, first.seat) == ("open", ("Tech Lead",), "PM")
    assert statuses(wf, task) == {"A": "completed", "Gate": "running", "Z": "pending"}
    last = vote(task, "u-lead")
    assert (last.status, last.missing, last.seat) == ("approved", (), "Tech Lead")
    assert wf.job(task.job_id).task("Z").ready_at is not None


def test_approve_with_a_minimum_alone(wf: gwf.Client) -> None:
    """A1: n distinct people, whoever they are; nobody counts twice."""
    task = asked(wf, {"min_approvers": 2})
    assert vote(task, "u-dev").missing == ("one more person",)
    assert vote(task, "u-dev").status == "open"
    assert vote(task, "u-new").status == "approved"


@pytest.mark.parametrize("policy", [{"min_approvers": 1, "approvers": ["PM", "Tech Lead"]}, {}])
def test_approve_where_one_is_enough(wf: gwf.Client, policy: Any) -> None:
    """A1: 1 is 或签, and a policy that says nothing asks for one approval."""
    assert vote(asked(wf, policy), "u-lead").status == "approved"


def test_approve_with_a_required_reviewer(wf: gwf.Client) -> None:
    """A1: of n = 2 and a required Senior, two juniors leave it open and the Senior is named."""
    task = asked(wf, REVIEW)
    after = vote(task, "u-dev", "u-new")
    assert (after.status, after.missing) == ("open", ("Senior Developer",))
    assert "needs Senior Developer" in repr(task.approval())
    assert vote(task, "u-lead").status == "approved"


def test_approve_with_min_approvers_all(wf: gwf.Client) -> None:
    """A1: "all" means each person who may vote when the attempt starts."""
    task = asked(wf, {"approvers": ["PM"], "min_approvers": "all"})
    assert vote(task, "u-pm", "u-pm2").missing == ("one more person",)
    assert vote(task, "u-both").status == "approved"


# A2: people are counted


def test_approve_by_a_holder_of_both_roles(wf: gwf.Client) -> None:
    """A2: one person fills one of the seats PM and Tech Lead, so it is 1 of 2."""
    task = asked(wf, BOTH)
    assert vote(task, "u-both").status == "open"
    shown = task.approval()
    assert (shown.n_approved, shown.needed, len(shown.missing)) == (1, 2, 1)
    assert vote(task, "u-lead").status == "approved"


@pytest.mark.parametrize("order", [("u-both", "u-pm"), ("u-pm", "u-both")])
def test_approve_moves_the_holder_of_both_roles(wf: gwf.Client, order: Any) -> None:
    """A2: with another PM it passes in any order, and each vote shows the seat that it filled."""
    task = asked(wf, BOTH)
    assert vote(task, *order).status == "approved"
    frame = wf.votes(job=task.job_id)
    assert dict(zip(frame["user"], frame["seat"], strict=True)) == {
        "u-both": "Tech Lead",
        "u-pm": "PM",
    }


# A3: decided when it is certain


def five(wf: gwf.Client, **policy: Any) -> gwf.JobTask:
    """Return a started approval by 60 % of five voters."""
    for number in range(1, 7):
        wf.users.add(f"v{number}", roles=["Voter"] if number < 6 else ())
    return asked(wf, {"approvers": ["Voter"], "min_approvers": "60%", **policy})


@pytest.mark.parametrize("reject_policy", ["majority", "count:3", "count:5"])
def test_reject_makes_a_share_impossible(wf: gwf.Client, reject_policy: str) -> None:
    """A3: 60 % of 5 and three reject: rejected at the third, whatever the reject policy allows."""
    task = five(wf, reject_policy=reject_policy)
    assert vote(task, "-v1", "-v2").status == "open"
    assert vote(task, "-v3").status == "rejected"


def test_approve_reaches_a_share(wf: gwf.Client) -> None:
    """A3: three of five approve: approved at the third, the others are not waited for."""
    task = five(wf, reject_policy="majority")
    assert vote(task, "v1", "-v2", "v3").status == "open"
    assert vote(task, "v4").status == "approved"


def test_approve_of_a_share_whose_people_became_more(wf: gwf.Client) -> None:
    """A3: the denominator is fixed at the start, so a sixth voter changes nothing but who votes."""
    task = five(wf)
    wf.users.grant("v6", "Voter")
    assert task.approval().needed == 3
    assert vote(task, "v6", "v1").status == "open"
    assert vote(task, "v2").status == "approved"


def test_reject_leaves_a_required_seat_without_a_person(wf: gwf.Client) -> None:
    """A3: the only Tech Leads reject: nobody can fill that seat, so the outcome is certain."""
    task = asked(wf, {**BOTH, "reject_policy": "count:3"})
    assert vote(task, "-u-lead").status == "open"
    assert vote(task, "-u-both").status == "rejected"


# A4: a vote again, the opposite vote, a vote withdrawn


def test_approve_again(wf: gwf.Client) -> None:
    """A4: the same vote is a no-op: the first vote is returned, no row is written or logged."""
    task = asked(wf, BOTH)
    first = task.approve(operator="u-pm", comment="first")
    n_rows = len(wf.logs(job=task.job_id))
    again = task.approve(operator="u-pm", comment="second")
    assert again == first
    assert len(wf.votes(job=task.job_id)) == 1
    assert len(wf.logs(job=task.job_id)) == n_rows


def test_withdraw_vote_while_it_is_open(wf: gwf.Client) -> None:
    """A4: the vote stays on record as withdrawn, counts nothing, and the person may vote anew."""
    task = asked(wf, BOTH)
    vote(task, "u-pm")
    taken = task.withdraw_vote(operator="u-pm", reason="又想了想")
    assert taken.withdrawn_at is not None
    assert taken.missing == ("PM", "Tech Lead")
    assert vote(task, "u-lead").status == "open"
    assert vote(task, "u-pm").status == "approved"
    frame = wf.votes(job=task.job_id)
    assert list(frame["user"]) == ["u-pm", "u-lead", "u-pm"]
    assert list(frame["withdrawn_at"].notna()) == [True, False, False]
    row = wf.logs(job=task.job_id).query("action == 'withdraw'").to_dict("records")[0]
    assert (row["message"], row["metadata"]["decision"]) == ("又想了想", "approve")
    assert [one["user"] for one in wf.job_task(task.id).result["votes"]] == ["u-lead", "u-pm"]


def test_withdraw_vote_then_the_opposite(wf: gwf.Client) -> None:
    """A4: withdrawing is the way to change one's mind."""
    task = asked(wf, BOTH)
    vote(task, "u-pm")
    task.withdraw_vote(operator="u-pm")
    assert vote(task, "-u-pm").status == "rejected"


# A5: what is left of it


def test_approve_gives_a_result(wf: gwf.Client) -> None:
    """A5: status, approved and the votes with seat, comment and time."""
    task = asked(wf, BOTH)
    first = task.approve(operator="u-pm", comment='看过 👍 "100 %" \\')
    vote(task, "u-lead")
    result = wf.job_task(task.id).result
    assert (result["status"], result["approved"]) == ("approved", True)
    assert result["votes"][0] == {
        "user": "u-pm",
        "decision": "approve",
        "seat": "PM",
        "comment": '看过 👍 "100 %" \\',
        "at": first.created_at.isoformat(),
    }
    assert [one["user"] for one in result["votes"]] == ["u-pm", "u-lead"]
    assert task.approval().status == "approved"


def test_approve_feeds_a_condition(wf: gwf.Client) -> None:
    """A5, C2: ``previous_task_result.status == 'approved'`` works as written."""
    wf.users.add("u-pm", roles=["PM"])
    wf.create_task("Gate", type="approval", config={"approvers": ["PM"]})
    wf.create_task("B")
    when = gwf.Step("B", condition="previous_task_result.status == 'approved'")
    job = wf.create_job(wf.create_flow("F", ["Gate", when]), "J").start()
    vote(job.task("Gate").start(), "u-pm")
    assert job.task("B").ready_at is not None


def test_reject_gives_a_result(wf: gwf.Client) -> None:
    """A5: the attempt ends as failed with the code ``rejected``; comment and votes are told."""
    task = asked(wf, BOTH)
    vote(task, "u-pm")
    assert task.reject(operator="u-lead", comment="范围不清").status == "rejected"
    ended = wf.job_task(task.id)
    assert (ended.status, ended.error_code) == ("failed", "rejected")
    assert "范围不清" in str(ended.error_message)
    assert (ended.result["status"], ended.result["approved"]) == ("rejected", False)
    assert [one["decision"] for one in ended.result["votes"]] == ["approve", "reject"]


def test_retry_task_after_a_veto(wf: gwf.Client) -> None:
    """A5: 2 of 3 approved, the third vetoes: the next attempt starts at zero, votes are kept."""
    task = asked(wf, {"approvers": ["PM", "Tech Lead", "Developer"]})
    vote(task, "u-pm", "u-lead", "-u-dev")
    again = wf.job(task.job_id).retry("Gate").start()
    shown = again.approval()
    assert (again.attempt, shown.n_approved, shown.votes) == (2, 0, ())
    assert shown.missing == ("PM", "Tech Lead", "Developer")
    frame = wf.votes(job=task.job_id)
    assert list(frame["is_superseded"]) == [True] * 3
    assert vote(again, "u-pm", "u-lead", "u-dev").status == "approved"
    assert list(wf.votes(job=task.job_id)["is_superseded"]) == [True] * 3 + [False] * 3


def test_rollback_task_to_an_approval_of_all(wf: gwf.Client) -> None:
    """A5, R5: a send-back to a 会签 opens all its seats again and keeps its votes."""
    task = asked(wf, BOTH)
    vote(task, "u-pm", "u-lead")
    wf.job(task.job_id).task("Z").start().rollback(to="Gate", reason="again")
    again = wf.job(task.job_id).task("Gate").start()
    assert again.approval().missing == ("PM", "Tech Lead")
    assert [seat.filled_by for seat in again.approval().seats] == [None, None]
    frame = wf.votes(job=task.job_id)
    assert list(frame["attempt"]) == [1, 1]
    assert frame["is_superseded"].all()
    kept = wf.attempts(job=task.job_id).query("task_name == 'Gate' and attempt == 1")
    assert kept["result"].iloc[0]["status"] == "approved"


# Sequential order


def test_approve_in_order(wf: gwf.Client) -> None:
    """A1: with order="sequential" each seat is asked once the one before it voted."""
    task = asked(wf, {**BOTH, "order": "sequential"})
    assert not wf.can("u-lead", "approve", task)
    assert vote(task, "u-pm").seat == "PM"
    assert wf.can("u-lead", "approve", task)
    assert vote(task, "u-lead").status == "approved"


def test_withdraw_vote_in_order(wf: gwf.Client) -> None:
    """A4: in an order, a withdrawn vote gives the turn back to its seat."""
    task = asked(wf, {**BOTH, "order": "sequential"})
    vote(task, "u-pm")
    task.withdraw_vote(operator="u-pm")
    assert not wf.can("u-lead", "approve", task)
    assert list(wf.inbox("u-pm")["job_task_id"]) == [task.id]
    assert wf.inbox("u-lead").empty


# A7: policies that nobody could satisfy


@pytest.mark.parametrize(
    ("policy", "missing"),
    [
        ({"approvers": ["QA"]}, "'QA'"),
        ({"approvers": ["u-gone", "PM"]}, "'u-gone'"),
        ({"approvers": ["u-lead", "Senior Developer"]}, "seat 'Senior Developer'"),
        ({"approvers": ["PM"], "min_approvers": 4}, "4 people"),
        ({"min_approvers": 7}, "7 people"),
        ({"approvers": ["Tech Lead"] * 3}, "seat 'Tech Lead'"),
        ({"timeout": 9, "on_timeout": "escalate", "escalate_to": "QA"}, "'QA'"),
        ({"approvers": ["u-pm"], "self_approval": "bar_initiator"}, "seat 'u-pm'"),
    ],
)
def test_start_task_with_a_policy_nobody_can_satisfy(
    wf: gwf.Client, policy: Any, missing: str
) -> None:
    """A7: refused when it starts, naming the seat; nothing has changed, and a row says so."""
    task = gate(wf, policy, created_by="u-pm")
    n_rows = len(wf.logs(job=task.job_id))
    with pytest.raises(gwf.Conflict, match="start_task asks its approvers"):
        task.approval()
    with pytest.raises(gwf.UnsatisfiablePolicy) as refusal:
        task.start()
    assert missing in ", ".join(refusal.value.missing)
    assert statuses(wf, task)["Gate"] == "pending"
    assert list(wf.logs(job=task.job_id)["action"][n_rows:]) == ["refuse"]


def test_start_task_once_somebody_can_fill_the_seat(wf: gwf.Client) -> None:
    """A7: users.grant is enough, and a user who is not active does not count."""
    task = gate(wf, {"approvers": ["QA"]})
    wf.users.grant("u-new", "QA")
    wf.users.deactivate("u-new")
    with pytest.raises(gwf.UnsatisfiablePolicy, match="'QA'"):
        task.start()
    wf.users.activate("u-new")
    assert vote(task.start(), "u-new").status == "approved"


# T3, T4: the key and the roles of a vote


def test_approve_with_the_key_of_an_earlier_vote(wf: gwf.Client) -> None:
    """T3: a replay gives the stored vote, also once it was decided; other arguments: KeyReused."""
    task = asked(wf, BOTH)
    first = task.approve(operator="u-pm", comment="ok", idempotency_key="k")
    with pytest.raises(gwf.KeyReused):
        task.approve(operator="u-pm", comment="other", idempotency_key="k")
    with pytest.raises(gwf.KeyReused):
        task.approve(operator="u-lead", comment="ok", idempotency_key="k")
    vote(task, "u-lead")
    again = wf.approve(task.id, operator="u-pm", comment="ok", idempotency_key="k")
    assert (again.vote_id, again.created_at) == (first.vote_id, first.created_at)
    assert len(wf.votes(job=task.job_id)) == 2


def test_approve_stores_the_roles_it_rests_on(wf: gwf.Client) -> None:
    """T4: roles are those of the moment of the decision, and stay with it when they are revoked."""
    task = asked(wf, BOTH)
    vote(task, "u-both")
    wf.users.revoke("u-both", "PM")
    frame = wf.votes(job=task.job_id)
    assert sorted(frame["roles"].iloc[0]) == ["PM", "Tech Lead"]
    assert frame["is_verified"].iloc[0]
    row = wf.logs(job=task.job_id).query("action == 'vote'").to_dict("records")[0]
    assert sorted(row["metadata"]["roles"]) == ["PM", "Tech Lead"]
    assert "unverified" not in row["metadata"]
    assert vote(task, "u-lead").status == "approved"


def test_approve_with_a_role_granted_after_the_start(wf: gwf.Client) -> None:
    """T4: who may vote is asked at the moment of the vote, in both directions."""
    task = asked(wf, BOTH)
    wf.users.grant("u-dev", "PM")
    wf.users.revoke("u-pm", "PM")
    with pytest.raises(gwf.NotAllowed):
        vote(task, "u-pm")
    assert vote(task, "u-dev").seat == "PM"


# Joins


def test_approve_ends_a_group_joined_by_any(wf: gwf.Client) -> None:
    """P2: the first approval wins; the other ends as skipped, takes no votes and waits for none."""
    wf.users.add("u-pm", roles=["PM"])
    wf.create_task("X", type="approval", config={"approvers": ["PM"]})
    wf.create_task("Y", type="approval", config={"approvers": ["PM"]})
    wf.create_task("Z")
    flow = wf.create_flow("F", [gwf.Group("X", "Y", join="any"), "Z"])
    job = wf.create_job(flow, "J").start()
    winner, loser = job.task("X").start(), job.task("Y").start()
    assert len(wf.inbox("u-pm")) == 2
    assert vote(winner, "u-pm").status == "approved"
    assert statuses(wf, winner) == {"X": "completed", "Y": "skipped", "Z": "pending"}
    assert wf.inbox("u-pm").empty
    with pytest.raises(gwf.Conflict, match="cancelled"):
        vote(loser, "u-pm")
    assert job.task("Y").result == {"status": "skipped"}
    assert list(pd.unique(wf.votes(job=job)["task_name"])) == ["X"]
