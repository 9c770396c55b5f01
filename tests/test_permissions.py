"""Show that ``refusals``, ``can`` and ``allowed_actions`` answer as the verbs then act: rule T4."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import gwf

PEOPLE = {
    "u-pm": ["PM"],
    "u-lead": ["Tech Lead"],
    "u-dev": ["Developer"],
    "u-head": ["admin"],
    "u-qa": [],
    "u-last": [],
    "u-old": ["PM"],
}
BOTH = {"approvers": ["PM", "Tech Lead"]}
Who = str | int
Prepare = Callable[[gwf.JobTask], Any]


def running(act: Prepare = lambda task: None) -> Prepare:
    """Return what starts the approval, adds a signer who may be removed again, and does this."""

    def prepare(task: gwf.JobTask) -> None:
        wf = task._client
        task.start()
        wf.add_signer(task, people_of(wf)[4])
        act(task)

    return prepare


def approved(task: gwf.JobTask, *names: str) -> None:
    for name in names:
        task.approve(operator=name)


def people_of(wf: gwf.Client) -> list[Who]:
    return list(PEOPLE) if len(wf.users()) else [11, 12, 13, 14, 15, 16]


PLACES: dict[str, tuple[dict[str, Any], Prepare]] = {
    "pending": (BOTH, lambda t: None),
    "pending, nobody can fill a seat": ({"approvers": ["QA"]}, lambda t: None),
    "pending, in a pause": (BOTH, lambda t: t._client.pause_job(t.job_id)),
    "running": (BOTH, running()),
    "the initiator is barred": (
        {**BOTH, "min_approvers": 1, "self_approval": "bar_initiator"},
        running(),
    ),
    "in order": ({**BOTH, "order": "sequential"}, running()),
    "in order, one voted": (
        {**BOTH, "order": "sequential"},
        running(lambda t: t._client.approve(t, operator="u-pm")),
    ),
    "an admin voted": (
        {"min_approvers": 3},
        running(lambda t: t._client.approve(t, operator="u-head")),
    ),
    "a seat is given away": (BOTH, running(lambda t: t._client.transfer(t, "u-pm", "u-dev"))),
    "a seat is lent": (BOTH, running(lambda t: t._client.delegate(t, "u-pm", "u-dev"))),
    "a lent seat has voted": (
        BOTH,
        running(
            lambda t: (
                t._client.delegate(t, "u-pm", "u-dev"),
                t._client.approve(t, operator="u-dev"),
            )
        ),
    ),
    "in a pause, one voted": (
        BOTH,
        running(
            lambda t: (t._client.approve(t, operator="u-pm"), t._client.pause_job(t.job_id)),
        ),
    ),
    "approved": (BOTH, running(lambda t: approved(t, "u-pm", "u-lead", "u-qa"))),
    "rejected": (BOTH, running(lambda t: t._client.reject(t, operator="u-pm"))),
    "sent back": (BOTH, running(lambda t: t.rollback(to=1, reason="again"))),
    "cancelled": (BOTH, running(lambda t: t._client.cancel_job(t.job_id))),
}
OPEN_PLACES: dict[str, tuple[dict[str, Any], Prepare]] = {
    "pending": (BOTH, lambda t: None),
    "pending, too few are named": ({"approvers": [11], "min_approvers": 2}, lambda t: None),
    "running": (BOTH, running()),
    "numbers": ({"approvers": [11, 12]}, running()),
    "one voted": ({"approvers": [11, 12]}, running(lambda t: t._client.approve(t, operator=11))),
}


def calls(wf: gwf.Client, task: gwf.JobTask, who: Who | None) -> dict[str, list[Callable[[], Any]]]:
    """Return for each verb the ways to use it; one that succeeds shows that the verb is allowed."""
    by = {"operator": who}
    people = people_of(wf)

    def moves(verb: Callable[..., Any], *takers: Who | None) -> list[Callable[[], Any]]:
        return [
            lambda giver=giver, taker=taker: verb(task, giver, taker, **by)  # type: ignore[misc]
            for giver in people[:2]
            for taker in takers
        ]

    return {
        "start_task": [lambda: wf.start_task(task, **by)],
        "complete_task": [lambda: wf.complete_task(task, {}, **by)],
        "fail_task": [lambda: wf.fail_task(task, "no", **by)],
        "skip_task": [lambda: wf.skip_task(task, **by)],
        "retry_task": [lambda: wf.retry_task(task, **by)],
        "rollback_task": [lambda: wf.rollback_task(task, to=1, reason="x", **by)],
        "approve": [lambda: wf.approve(task, **by)],
        "reject": [lambda: wf.reject(task, **by)],
        "withdraw_vote": [lambda: wf.withdraw_vote(task, **by)],
        "transfer": moves(wf.transfer, people[5]) + own_moves(wf.transfer, task, who, people[5]),
        "delegate": moves(wf.delegate, people[5], None)
        + own_moves(wf.delegate, task, who, people[5]),
        "add_signer": [lambda: wf.add_signer(task, people[5], **by)],
        "remove_signer": [lambda: wf.remove_signer(task, people[4], **by)],
    }


def own_moves(
    verb: Callable[..., Any], task: gwf.JobTask, who: Who | None, taker: Who
) -> list[Callable[[], Any]]:
    return [] if who is None else [lambda: verb(task, who, taker, operator=who)]


def is_taken(wf: gwf.Client, task: gwf.JobTask, ways: list[Callable[[], Any]]) -> bool:
    """Say whether one of these calls succeeds and does something."""
    for way in ways:
        n_rows = len(wf.logs(job=task.job_id))
        try:
            way()
        except gwf.GwfError:
            continue
        if len(wf.logs(job=task.job_id)) > n_rows:
            return True
    return False


def new_task(wf: gwf.Client, policy: Any, prepare: Prepare) -> Iterator[gwf.JobTask]:
    """Yield the approval of a new job in this state, again and again."""
    wf.create_task("A")
    wf.create_task("G", type="approval", config=policy)
    wf.create_flow("F", ["A", gwf.Step("G", optional=True)])
    while True:
        job = wf.create_job("F", "J", created_by=people_of(wf)[0]).start()
        job.task("A").start().complete()
        task = job.task("G")
        prepare(task)
        yield task.refresh()


def expect_agreement(wf: gwf.Client, places: Any, place: str, callers: list[Who | None]) -> None:
    """Compare what is said with what is done; only a verb that was taken needs another copy."""
    tasks = new_task(wf, *places[place])
    for who in callers:
        task = next(tasks)
        said = wf.refusals(task, user=who)
        allowed = wf.allowed_actions(task, user=who)
        assert set(allowed) == {verb for verb, why in said.items() if why is None}
        for verb, why in said.items():
            assert wf.can(who, verb, task) == (why is None)
            did = is_taken(wf, task, calls(wf, task, who)[verb])
            assert did == (why is None), f"{place}: {verb} by {who}: {why or 'allowed'}"
            if did:
                task = next(tasks)


@pytest.mark.parametrize("place", PLACES)
def test_refusals_agree_with_the_verbs(wf: gwf.Client, place: str) -> None:
    """T4: for everybody in this state, a verb is refused when used if and only if it was said."""
    for name, roles in PEOPLE.items():
        wf.users.add(name, roles=roles)
    wf.users.deactivate("u-old")
    expect_agreement(wf, PLACES, place, ["u-pm", "u-lead", "u-dev", "u-head", "u-old", None])


@pytest.mark.parametrize("place", OPEN_PLACES)
def test_refusals_agree_with_the_verbs_in_open_mode(wf: gwf.Client, place: str) -> None:
    """T4, A8: the same while the directory holds nobody and callers are numbers."""
    expect_agreement(wf, OPEN_PLACES, place, [11, 13, None])


def test_can_by_the_short_name_of_a_verb(wf: gwf.Client) -> None:
    """T4: ``start`` means ``start_task``; what is no verb is Invalid, whoever asks."""
    task = next(new_task(wf, BOTH, lambda t: None))
    assert wf.can(1, "start", task)
    assert wf.can(1, "start_task", task)
    with pytest.raises(gwf.Invalid, match="verb"):
        wf.can(1, "veto", task)


def test_refusals_for_somebody_unknown(wf: gwf.Client) -> None:
    """T4: a question about nobody is refused, and asking leaves no row in the log."""
    wf.users.add("u-pm", roles=["PM"])
    task = next(new_task(wf, {}, lambda t: None))
    n_rows = len(wf.logs(job=task.job_id))
    with pytest.raises(gwf.UserNotFound):
        wf.refusals(task, user="u-gone")
    with pytest.raises(gwf.UserNotFound):
        wf.can("u-gone", "approve", task)
    assert len(wf.logs(job=task.job_id)) == n_rows


def test_refusals_of_a_policy_nobody_can_satisfy(wf: gwf.Client) -> None:
    """T4, A7: what start_task would say is said before, and nothing is logged by asking."""
    wf.users.add("u-pm", roles=["PM"])
    task = next(new_task(wf, {"approvers": ["QA"]}, lambda t: None))
    n_rows = len(wf.logs(job=task.job_id))
    said = wf.refusals(task, user="u-pm")["start_task"]
    with pytest.raises(gwf.UnsatisfiablePolicy) as refusal:
        task.start(operator="u-pm")
    assert said == str(refusal.value)
    assert len(wf.logs(job=task.job_id)) == n_rows + 1
