"""Show how seats move and who moves them (rule A6): 转办, 委派, 加签, 减签."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from test_votes import asked, refused, with_people, yes

import gwf


@pytest.fixture
def wf(wf: gwf.Client) -> gwf.Client:
    """Return a client of a database whose directory holds people."""
    return with_people(wf)


def inboxes(wf: gwf.Client, *users: str) -> list[int]:
    return [len(wf.inbox(user)) for user in users]


def test_transfer_a_seat(wf: gwf.Client) -> None:
    """The giver is out, the taker votes as themselves, and others of the role still may."""
    task = asked(wf, approvers=["PM", "Tech Lead"])
    assert inboxes(wf, "u-pm", "u-dev", "u-both") == [1, 0, 1]
    wf.transfer(task, "u-pm", "u-dev", reason="on leave", operator="u-pm")
    assert inboxes(wf, "u-pm", "u-dev", "u-both") == [0, 1, 1]
    with refused(task, gwf.NotAllowed, "gave your seat"):
        yes(task, "u-pm")
    row = wf.logs(action="transfer").iloc[-1]
    assert row["metadata"]["from"] == "u-pm"
    assert (row["message"], row["metadata"]["to"]) == ("on leave", "u-dev")
    assert (yes(task, "u-dev"), yes(task, "u-lead")) == ("open", "approved")
    assert wf.votes()["on_behalf_of"].isna().all()


def test_transfer_back_and_on(wf: gwf.Client) -> None:
    """A seat may travel: to a third person, and back to the first."""
    task = asked(wf, approvers=["u-pm"])
    wf.transfer(task, "u-pm", "u-dev")
    wf.transfer(task, "u-dev", "u-dev2")
    assert inboxes(wf, "u-pm", "u-dev", "u-dev2") == [0, 0, 1]
    wf.transfer(task, "u-dev2", "u-pm")
    assert inboxes(wf, "u-pm", "u-dev", "u-dev2") == [1, 0, 0]
    assert yes(task, "u-pm") == "approved"


def test_delegate_a_seat_and_take_it_back(wf: gwf.Client) -> None:
    """The deputy votes on behalf of the lead; lent is not given, so it can be taken back."""
    task = asked(wf, approvers=["u-lead", "PM"])
    wf.delegate(task, "u-lead", "u-dev", operator="u-lead")
    with refused(task, gwf.NotAllowed, "delegate"):
        yes(task, "u-lead")
    wf.delegate(task, "u-lead", None, operator="u-lead")
    with refused(task, gwf.Conflict, "has lent no seat"):
        wf.delegate(task, "u-lead", None)
    assert inboxes(wf, "u-lead", "u-dev") == [1, 0]
    wf.delegate(task, "u-lead", "u-dev")
    assert yes(task, "u-dev") == "open"
    with refused(task, gwf.Conflict, "on behalf of u-lead is cast already"):
        wf.delegate(task, "u-lead", None)
    assert yes(task, "u-pm") == "approved"
    assert wf.votes()["on_behalf_of"].fillna("").tolist() == ["u-lead", ""]
    row = wf.logs(action="vote").iloc[0]
    assert row["on_behalf_of"] == wf.users().set_index("name").loc["u-lead", "user_id"]


def test_add_signer(wf: gwf.Client) -> None:
    """One more has to sign, and everybody who was needed still is."""
    task = asked(wf, min_approvers=1)
    wf.add_signer(task, "u-lead", reason="a large change")
    assert (task.approval().needed, task.approval().missing) == (2, ("u-lead", "one more person"))
    assert yes(task, "u-lead") == "open"
    with refused(task, gwf.Conflict, "has a seat"):
        wf.add_signer(task, "u-lead")
    assert yes(task, "u-dev") == "approved"


def test_remove_signer(wf: gwf.Client) -> None:
    """Their seat is gone, unless they voted or have none by name; the threshold stays."""
    task = asked(wf, approvers=["u-pm", "u-dev", "Tech Lead"], min_approvers=2)
    wf.remove_signer(task, "u-dev")
    assert task.approval().needed == 2
    with refused(task, gwf.Conflict, "no seat by name"):
        wf.remove_signer(task, "u-lead")
    assert yes(task, "u-pm") == "open"
    with refused(task, gwf.Conflict, "u-pm voted approve"):
        wf.remove_signer(task, "u-pm")
    assert yes(task, "u-lead") == "approved"


def test_remove_signer_that_the_policy_requires(wf: gwf.Client) -> None:
    """Who is asked with somebody else cannot take them away and then approve alone."""
    task = asked(wf, approvers=["u-pm", "u-dev"])
    with refused(task, gwf.UnsatisfiablePolicy, "removing u-dev .* the policy requires"):
        wf.remove_signer(task, "u-dev", operator="u-pm")


def test_remove_signer_that_is_needed(wf: gwf.Client) -> None:
    """Two of these two have to approve, so neither can be taken away."""
    task = asked(wf, approvers=["u-pm", "u-dev"], min_approvers=2)
    with refused(task, gwf.UnsatisfiablePolicy, "2 people who may vote"):
        wf.remove_signer(task, "u-dev")
    with refused(task, gwf.UnsatisfiablePolicy):
        wf.transfer(task, "u-dev", "u-pm")


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda wf, t, **o: wf.transfer(t, "u-pm", "u-gone", **o), gwf.UserNotFound, "u-gone"),
        (lambda wf, t, **o: wf.transfer(t, "u-pm", "u-old", **o), gwf.NotAllowed, "not active"),
        (lambda wf, t, **o: wf.transfer(t, "u-pm", "u-pm", **o), gwf.Conflict, "already"),
        (lambda wf, t, **o: wf.transfer(t, "u-dev", "u-dev2", **o), gwf.Conflict, "has no seat"),
        (lambda wf, t, **o: wf.delegate(t, "u-dev", "u-pm", **o), gwf.Conflict, "has no seat"),
        (lambda wf, t, **o: wf.add_signer(t, "u-gone", **o), gwf.UserNotFound, "u-gone"),
        (lambda wf, t, **o: wf.add_signer(t, "u-old", **o), gwf.NotAllowed, "not active"),
        (lambda wf, t, **o: wf.add_signer(t, "u-dev", attempt=2, **o), gwf.StaleAttempt, "begun"),
    ],
)
def test_seats_that_cannot_move(
    wf: gwf.Client, call: Callable[..., Any], error: type[gwf.GwfError], match: str
) -> None:
    """One clear error, nothing changed, and the refusal is on record."""
    wf.users.add("u-old", roles=["PM"])
    wf.users.deactivate("u-old")
    task = asked(wf, approvers=["PM", "Tech Lead"])
    with refused(task, error, match):
        call(wf, task, operator="u-admin")


def test_seats_move_by_those_concerned(wf: gwf.Client) -> None:
    """Oneself, an admin, or the program that owns the database; to add, who has a part in it."""
    task = asked(wf, approvers=["PM", "Tech Lead"])
    for who in ("u-dev", "u-lead"):
        with refused(task, gwf.NotAllowed, "role 'admin'"):
            wf.transfer(task, "u-pm", "u-dev", operator=who)
    with refused(task, gwf.NotAllowed, "role 'admin'"):
        wf.add_signer(task, "u-dev", operator="u-dev2")
    wf.add_signer(task, "u-dev", operator="u-lead")
    wf.remove_signer(task, "u-dev", operator="u-admin")
    wf.delegate(task, "u-pm", "u-dev", operator="u-admin")


def test_seats_of_what_is_not_open(wf: gwf.Client) -> None:
    task = asked(wf, min_approvers=1)
    yes(task, "u-dev")
    with refused(task, gwf.Conflict, "only a running approval has seats"):
        wf.add_signer(task, "u-pm")
    with pytest.raises(gwf.Conflict, match="no approvers"):
        wf.approval(wf.job(task.job_id).task("A"))
