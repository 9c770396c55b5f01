"""Show what becomes of an approval whose seats change while it runs: rule A6."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pandas as pd
import pytest

import gwf

PEOPLE = {
    "u-pm": ["PM"],
    "u-lead": ["Tech Lead"],
    "u-dev": ["Developer"],
    "u-qa": ["QA"],
    "u-head": ["admin"],
}
BOTH = {"approvers": ["PM", "Tech Lead"]}


def asked(wf: gwf.Client, policy: Any, **job: Any) -> gwf.JobTask:
    """Return a running approval between two manual tasks, in a directory of people."""
    for name, roles in PEOPLE.items():
        wf.users.add(name, roles=roles)
    wf.create_task("A")
    wf.create_task("Z")
    wf.create_task("Gate", type="approval", config=policy)
    running = wf.create_job(wf.create_flow("F", ["A", "Gate", "Z"]), "J", **job).start()
    running.task("A").start().complete()
    return running.task("Gate").start()


def vote(task: gwf.JobTask, *names: str) -> gwf.Vote:
    for name in names:
        last = task.approve(operator=name)
    return last


@contextmanager
def refused(task: gwf.JobTask, error: type[gwf.GwfError], match: str) -> Iterator[None]:
    """Assert that the block is refused, changes no seat, and leaves one row that says so."""
    wf = task._client
    before = repr(wf.approval(task)), wf.job_task(task.id).record
    n_rows = len(wf.logs(job=task.job_id))
    with pytest.raises(error, match=match):
        yield
    assert (repr(wf.approval(task)), wf.job_task(task.id).record) == before
    assert list(wf.logs(job=task.job_id)["action"][n_rows:]) == ["refuse"]


def last_row(task: gwf.JobTask) -> dict[str, Any]:
    return task._client.logs(job=task.job_id).to_dict("records")[-1]


def test_remove_signer_that_alone_was_waited_for(wf: gwf.Client) -> None:
    """A6, A3: everybody else approved, so the approval passes at once and the job goes on."""
    task = asked(wf, BOTH)
    wf.add_signer(task, "u-qa")
    assert vote(task, "u-pm", "u-lead").missing == ("u-qa",)
    ended = wf.remove_signer(task, "u-qa", reason="on leave")
    assert ended.status == "completed"
    assert ended.result["status"] == "approved"
    assert [one["user"] for one in ended.result["votes"]] == ["u-pm", "u-lead"]
    assert wf.job(task.job_id).task("Z").ready_at is not None
    assert wf.approval(task).status == "approved"
    actions = list(wf.logs(job=task.job_id)["action"])
    assert actions[-2:] == ["remove_signer", "complete"]
    assert wf.inbox("u-qa").empty


def test_remove_signer_in_open_mode_that_alone_was_waited_for(wf: gwf.Client) -> None:
    """A6, A8: the same with numbers; a replay of the key gives the same answer."""
    wf.create_task("Gate", type="approval", config={"min_approvers": 1})
    job = wf.create_job(wf.create_flow("F", ["Gate"]), "J").start()
    task = job.task("Gate").start()
    wf.add_signer(task, 9)
    assert wf.approve(task, operator=1).status == "open"
    ended = wf.remove_signer(task, 9, idempotency_key="k")
    assert ended.status == "completed"
    assert job.status == "completed"
    again = wf.remove_signer(task, 9, idempotency_key="k")
    assert again.record == ended.record


def test_remove_signer_whose_seat_held_off_a_rejection(wf: gwf.Client) -> None:
    """A6, A3: two of three who may vote are a majority again, so it is rejected at once."""
    people = ["u-pm", "u-lead", "u-dev"]
    task = asked(wf, {"approvers": people, "min_approvers": 1, "reject_policy": "majority"})
    wf.add_signer(task, "u-qa")
    for name in people[:2]:
        assert task.reject(operator=name).status == "open"
    ended = wf.remove_signer(task, "u-qa")
    assert (ended.status, ended.error_code) == ("failed", "rejected")
    assert wf.approval(task).status == "rejected"


def test_add_signer_lowers_no_threshold(wf: gwf.Client) -> None:
    """A6: of n = 2 and an added signer, the signer and one other are not enough."""
    task = asked(wf, {"min_approvers": 2})
    wf.add_signer(task, "u-qa")
    assert vote(task, "u-qa", "u-dev").missing == ("one more person",)
    assert vote(task, "u-pm").status == "approved"


def test_add_signer_by_a_role_holder_adds_a_second_seat(wf: gwf.Client) -> None:
    """A6: the only PM as an added signer would have to sit twice, which can never be."""
    task = asked(wf, BOTH)
    with refused(task, gwf.UnsatisfiablePolicy, "adding u-pm"):
        wf.add_signer(task, "u-pm")


def test_add_signer_twice(wf: gwf.Client) -> None:
    """A6: somebody with a seat by name has one; once removed, they may be added again."""
    task = asked(wf, BOTH)
    wf.add_signer(task, "u-qa")
    with refused(task, gwf.Conflict, "has a seat"):
        wf.add_signer(task, "u-qa")
    wf.remove_signer(task, "u-qa")
    wf.add_signer(task, "u-qa")
    assert vote(task, "u-pm", "u-lead", "u-qa").status == "approved"


def test_add_signer_in_order(wf: gwf.Client) -> None:
    """A6: where the order counts, an added signer comes last."""
    task = asked(wf, {**BOTH, "order": "sequential"})
    wf.add_signer(task, "u-qa")
    with refused(task, gwf.Conflict, "not your turn"):
        vote(task, "u-qa")
    vote(task, "u-pm", "u-lead")
    assert list(wf.inbox("u-qa")["job_task_id"]) == [task.id]
    assert vote(task, "u-qa").status == "approved"


def test_remove_signer_gives_the_turn_on(wf: gwf.Client) -> None:
    """A6: where the order counts, the one after the removed signer is asked."""
    people = ["u-pm", "u-lead", "u-qa"]
    task = asked(wf, {"approvers": people, "min_approvers": 2, "order": "sequential"})
    vote(task, "u-pm")
    wf.remove_signer(task, "u-lead")
    assert list(wf.inbox("u-qa")["job_task_id"]) == [task.id]
    assert vote(task, "u-qa").status == "approved"


def test_remove_signer_who_voted(wf: gwf.Client) -> None:
    """A6: refused, for an approval as for a vote of somebody added."""
    task = asked(wf, BOTH)
    wf.add_signer(task, "u-qa")
    vote(task, "u-qa")
    with refused(task, gwf.Conflict, "u-qa voted approve"):
        wf.remove_signer(task, "u-qa")


def test_remove_signer_whose_seat_was_used(wf: gwf.Client) -> None:
    """A6: a vote on behalf of an added signer keeps the seat; withdrawn, both places go."""
    task = asked(wf, BOTH)
    wf.add_signer(task, "u-qa")
    wf.delegate(task, "u-qa", "u-dev")
    vote(task, "u-dev")
    with refused(task, gwf.Conflict, "on behalf of u-qa"):
        wf.remove_signer(task, "u-qa")
    task.withdraw_vote(operator="u-dev")
    wf.remove_signer(task, "u-qa")
    for name in ("u-dev", "u-qa"):
        with refused(task, gwf.NotAllowed, "no seat"):
            vote(task, name)
    assert vote(task, "u-pm", "u-lead").status == "approved"


def test_remove_signer_with_a_role_alone(wf: gwf.Client) -> None:
    """A6: the seat of a role belongs to nobody by name, so it cannot be removed."""
    task = asked(wf, BOTH)
    with refused(task, gwf.Conflict, "no seat by name"):
        wf.remove_signer(task, "u-pm")


def test_transfer_to_somebody_who_is_needed_elsewhere(wf: gwf.Client) -> None:
    """A6: one person would hold both seats, which could never pass; nothing is moved."""
    task = asked(wf, BOTH)
    with refused(task, gwf.UnsatisfiablePolicy, "u-pm to u-lead"):
        wf.transfer(task, "u-pm", "u-lead")


def test_transfer_after_a_vote(wf: gwf.Client) -> None:
    """A6: whoever voted keeps the seat, and takes no second one, until the vote is withdrawn."""
    task = asked(wf, BOTH)
    vote(task, "u-pm")
    with refused(task, gwf.Conflict, "u-pm voted approve"):
        wf.transfer(task, "u-pm", "u-dev")
    with refused(task, gwf.Conflict, "u-pm voted approve"):
        wf.transfer(task, "u-lead", "u-pm")
    task.withdraw_vote(operator="u-pm")
    wf.transfer(task, "u-pm", "u-dev")
    assert vote(task, "u-lead", "u-dev").status == "approved"


def test_transfer_to_the_barred_initiator(wf: gwf.Client) -> None:
    """A6: self_approval="bar_initiator" holds for a seat that was given, too."""
    task = asked(wf, {**BOTH, "self_approval": "bar_initiator"}, created_by="u-dev")
    with refused(task, gwf.NotAllowed, "created this job"):
        wf.transfer(task, "u-pm", "u-dev")


def test_transfer_is_logged(wf: gwf.Client) -> None:
    """A6, T8: from, to, the seats and the reason; the task is as it was."""
    task = asked(wf, BOTH)
    moved = wf.transfer(task, "u-pm", "u-dev", operator="u-pm", reason="休假")
    assert (moved.status, moved.attempt) == ("running", 1)
    row = last_row(task)
    assert (row["action"], row["message"]) == ("transfer", "休假")
    details = row["metadata"]
    assert (details["from"], details["to"], details["seats"]) == ("u-pm", "u-dev", ["PM"])


def test_transfer_with_the_key_of_an_earlier_one(wf: gwf.Client) -> None:
    """T3: a replay moves nothing again; other arguments are KeyReused."""
    task = asked(wf, BOTH)
    wf.transfer(task, "u-pm", "u-dev", idempotency_key="k")
    wf.transfer(task, "u-pm", "u-dev", idempotency_key="k")
    with pytest.raises(gwf.KeyReused):
        wf.transfer(task, "u-pm", "u-qa", idempotency_key="k")
    assert list(wf.logs(job=task.job_id)["action"]).count("transfer") == 1


def test_transfer_is_of_one_attempt(wf: gwf.Client) -> None:
    """A6, T5: the next attempt asks those whom the policy names."""
    task = asked(wf, BOTH)
    wf.transfer(task, "u-pm", "u-dev")
    task.reject(operator="u-dev")
    again = wf.job(task.job_id).retry("Gate").start()
    with refused(again, gwf.NotAllowed, "no seat"):
        vote(again, "u-dev")
    assert vote(again, "u-pm", "u-lead").status == "approved"
    with pytest.raises(gwf.Conflict):
        wf.transfer(task, "u-pm", "u-dev", attempt=1)


def test_delegate_and_vote_on_behalf(wf: gwf.Client) -> None:
    """A6: the vote, its log row and the result name who it was cast for; the giver may not vote."""
    task = asked(wf, BOTH)
    wf.delegate(task, "u-pm", "u-dev", operator="u-pm")
    with refused(task, gwf.NotAllowed, "gave your seat"):
        vote(task, "u-pm")
    vote(task, "u-dev")
    frame = wf.votes(job=task.job_id)
    assert frame[["user", "on_behalf_of", "seat"]].to_numpy().tolist() == [["u-dev", "u-pm", "PM"]]
    row = last_row(task)
    ids = dict(zip(wf.users()["name"], wf.users()["user_id"], strict=True))
    assert (row["operator_id"], row["on_behalf_of"]) == (ids["u-dev"], ids["u-pm"])
    vote(task, "u-lead")
    mine, other = wf.job_task(task.id).result["votes"]
    assert (mine["user"], mine["on_behalf_of"]) == ("u-dev", "u-pm")
    assert "on_behalf_of" not in other
    assert pd.isna(wf.votes(job=task.job_id)["on_behalf_of"].iloc[1])


def test_delegate_to_somebody_with_a_seat_too(wf: gwf.Client) -> None:
    """A6, A2: a vote that moves to the voter's own seat is on behalf of nobody any more."""
    task = asked(wf, {"approvers": ["PM", "u-dev"]})
    wf.users.grant("u-qa", "PM")
    wf.delegate(task, "u-pm", "u-dev")
    vote(task, "u-dev")
    assert wf.votes(job=task.job_id)[["seat", "on_behalf_of"]].to_numpy().tolist() == [
        ["PM", "u-pm"]
    ]
    assert vote(task, "u-qa").status == "approved"
    frame = wf.votes(job=task.job_id)
    assert list(frame["seat"]) == ["u-dev", "PM"]
    assert frame["on_behalf_of"].isna().all()


def test_delegate_and_take_back(wf: gwf.Client) -> None:
    """A6: with None the seat is the giver's again, unless the vote on their behalf was cast."""
    task = asked(wf, BOTH)
    with refused(task, gwf.Conflict, "lent no seat"):
        wf.delegate(task, "u-pm", None)
    wf.delegate(task, "u-pm", "u-dev")
    with refused(task, gwf.NotAllowed, "role 'admin'"):
        wf.delegate(task, "u-pm", None, operator="u-dev")
    vote(task, "u-dev")
    with refused(task, gwf.Conflict, "cast already"):
        wf.delegate(task, "u-pm", None, operator="u-pm")
    task.withdraw_vote(operator="u-dev")
    wf.delegate(task, "u-pm", None, operator="u-pm")
    with refused(task, gwf.NotAllowed, "no seat"):
        vote(task, "u-dev")
    assert vote(task, "u-pm", "u-lead").status == "approved"


@pytest.mark.parametrize("verb", ["transfer", "delegate"])
def test_delegate_and_take_back_what_was_handed_on(wf: gwf.Client, verb: str) -> None:
    """A6: lent is lent: whoever got the seat from the borrower loses it as the borrower does."""
    task = asked(wf, BOTH)
    wf.delegate(task, "u-pm", "u-dev")
    getattr(wf, verb)(task, "u-dev", "u-qa", operator="u-dev")
    wf.delegate(task, "u-pm", None, operator="u-pm")
    for name in ("u-dev", "u-qa"):
        with refused(task, gwf.NotAllowed, "no seat"):
            vote(task, name)
    assert vote(task, "u-pm", "u-lead").status == "approved"


@pytest.mark.parametrize("verb", ["transfer", "delegate"])
def test_delegate_and_take_back_what_was_handed_on_and_used(wf: gwf.Client, verb: str) -> None:
    """A6: a vote cast from the lent seat stands, whoever it was handed on to."""
    task = asked(wf, BOTH)
    wf.delegate(task, "u-pm", "u-dev")
    getattr(wf, verb)(task, "u-dev", "u-qa", operator="u-dev")
    vote(task, "u-qa")
    with refused(task, gwf.Conflict, "cast already"):
        wf.delegate(task, "u-pm", None, operator="u-pm")
    assert vote(task, "u-lead").status == "approved"
