"""Show where a rejection leads, which votes are refused, and the open mode: rules A4 to A9."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import gwf

PEOPLE = {
    "u-pm": ["PM"],
    "u-lead": ["Tech Lead"],
    "u-dev": ["Developer"],
    "u-head": ["admin"],
}
BOTH = {"approvers": ["PM", "Tech Lead"]}


def job_of(wf: gwf.Client, policy: Any, *before: Any, **job: Any) -> gwf.Job:
    """Return a running job of these steps, the approval Gate, and Z; Gate is due."""
    for name in "ABCZ":
        wf.create_task(name)
    wf.create_task("Gate", type="approval", config=policy)
    flow = wf.create_flow("F", [*before, gwf.Step("Gate"), "Z"])
    running = wf.create_job(flow, "J", **job).start()
    for step in before:
        running.task(step.task if isinstance(step, gwf.Step) else step).start().complete()
    return running


def asked(wf: gwf.Client, policy: Any, *before: Any, **job: Any) -> gwf.JobTask:
    """Return the started approval of such a job, in a directory of people."""
    for name, roles in PEOPLE.items():
        wf.users.add(name, roles=roles)
    return job_of(wf, policy, *before, **job).task("Gate").start()


def frames(wf: gwf.Client, job_id: int) -> Any:
    """Return what a refused vote must not change: the job, its tasks and its votes."""
    tasks, votes = wf.job_tasks(job=job_id), wf.votes(job=job_id)
    return wf.job(job_id).record, tasks.to_csv(), votes.to_csv()


@contextmanager
def refused(task: gwf.JobTask, error: type[gwf.GwfError], match: str) -> Iterator[None]:
    """Assert that the block is refused, changes nothing, and leaves one row that says so."""
    wf, job_id = task._client, task.job_id
    before, n_rows = frames(wf, job_id), len(wf.logs(job=job_id))
    with pytest.raises(error, match=match):
        yield
    assert frames(wf, job_id) == before
    rows = wf.logs(job=job_id).iloc[n_rows:]
    assert list(rows["action"]) == ["refuse"]
    assert list(rows["from_status"]) == list(rows["to_status"])


def state(job: gwf.Job) -> str:
    frame = job.tasks()
    shown = zip(frame["task_name"], frame["status"], frame["attempt"].astype(str), strict=True)
    return f"{job.status}: " + ", ".join(map(" ".join, shown))


# on_reject


@pytest.mark.parametrize(
    ("on_reject", "after"),
    [
        ("fail", "failed: A completed 1, B completed 1, Gate failed 1, Z pending 1"),
        ("cancel", "cancelled: A completed 1, B completed 1, Gate failed 1, Z pending 1"),
        (
            "send_back:previous",
            "running: A completed 1, B pending 2, Gate rolled_back 2, Z pending 1",
        ),
        ("send_back:1", "running: A pending 2, B pending 2, Gate rolled_back 2, Z pending 1"),
    ],
)
def test_reject_with_on_reject(wf: gwf.Client, on_reject: str, after: str) -> None:
    """A5, R5: what the policy says happens at once; the rejected attempt is kept."""
    task = asked(wf, {**BOTH, "on_reject": on_reject}, "A", "B")
    assert task.reject(operator="u-pm", comment="范围不清").status == "rejected"
    job = wf.job(task.job_id)
    assert state(job) == after
    kept = job.attempts().query("task_name == 'Gate' and attempt == 1").iloc[0]
    assert (kept["result"]["status"], kept["error_code"]) == ("rejected", "rejected")
    if on_reject.startswith("send_back"):
        reasons = job.logs().query("action == 'rollback'")["message"]
        assert all("范围不清" in reason for reason in reasons)
        assert job.record.n_rollbacks == 1


@pytest.mark.parametrize(
    ("on_reject", "before", "why"),
    [
        ("send_back:previous", (), "no sequence 0"),
        ("send_back:7", ("A",), "no sequence 7"),
        ("send_back:2", ("A",), "no sequence 2"),
        ("send_back:1", (gwf.Step("A", allow_rollback=False), "B"), "allows no send-back"),
    ],
)
def test_reject_whose_send_back_is_refused(
    wf: gwf.Client, on_reject: str, before: Any, why: str
) -> None:
    """A5, R3, R4: the rejection stands, the job stays failed, and the log says why."""
    task = asked(wf, {**BOTH, "on_reject": on_reject}, *before)
    assert task.reject(operator="u-pm").status == "rejected"
    job = wf.job(task.job_id)
    assert (job.status, job.task("Gate").status, job.record.n_rollbacks) == ("failed", "failed", 0)
    row = job.logs().to_dict("records")[-1]
    assert row["action"] == "refuse"
    assert why in row["message"]
    assert len(wf.votes(job=job)) == 1


def test_reject_whose_sibling_runs(wf: gwf.Client) -> None:
    """A5, R6: a send-back is refused while a sibling runs, which may finish; the job is failed."""
    wf.users.add("u-pm", roles=["PM"])
    policy = {"approvers": ["PM"], "on_reject": "send_back:1"}
    wf.create_task("Gate", type="approval", config=policy)
    wf.create_task("A")
    wf.create_task("B")
    job = wf.create_job(wf.create_flow("F", ["A", ["Gate", "B"]]), "J").start()
    job.task("A").start().complete()
    sibling = job.task("B").start()
    job.task("Gate").start().reject(operator="u-pm")
    assert state(job) == "failed: A completed 1, Gate failed 1, B running 1"
    assert "'B' is running" in job.logs().to_dict("records")[-1]["message"].replace('"', "'")
    assert sibling.complete().status == "completed"


def test_reject_as_often_as_a_job_may_be_sent_back(wf: gwf.Client) -> None:
    """R9: max_rollbacks holds for a rejection; the last one fails the job."""
    wf.users.add("u-pm", roles=["PM"])
    policy = {"approvers": ["PM"], "on_reject": "send_back:previous"}
    wf.create_task("A")
    wf.create_task("Gate", type="approval", config=policy)
    flow = wf.create_flow("F", ["A", "Gate"], max_rollbacks=1)
    job = wf.create_job(flow, "J").start()
    for _ in range(2):
        job.task("A").start().complete()
        job.task("Gate").start().reject(operator="u-pm")
    assert state(job) == "failed: A completed 2, Gate failed 2"
    assert "1 times" in job.logs().to_dict("records")[-1]["message"]


def test_reject_sends_back_and_the_next_attempt_starts_at_zero(wf: gwf.Client) -> None:
    """A5: approvals of the sent-back attempt stay on record and count nothing."""
    task = asked(wf, {**BOTH, "on_reject": "send_back:previous"}, "A")
    task.approve(operator="u-pm")
    task.reject(operator="u-lead")
    job = wf.job(task.job_id)
    job.task("A").start().complete()
    again = job.task("Gate").start()
    assert again.approval().n_approved == 0
    assert list(wf.votes(job=job)["is_superseded"]) == [True, True]
    again.approve(operator="u-lead")
    again.approve(operator="u-pm")
    assert job.task("Gate").status == "completed"


# Votes that are refused


def _vote(**options: Any) -> Callable[[gwf.JobTask], Any]:
    return lambda task: task._client.approve(task.id, **options)


@pytest.mark.parametrize(
    ("policy", "act", "error", "match"),
    [
        ({}, _vote(operator="u-gone"), gwf.UserNotFound, "u-gone"),
        ({}, _vote(), gwf.Invalid, "who votes"),
        (BOTH, _vote(operator="u-dev"), gwf.NotAllowed, "PM or Tech Lead"),
        (BOTH, _vote(operator="u-head"), gwf.NotAllowed, "no seat"),
        (BOTH, _vote(operator="u-pm", attempt=2), gwf.StaleAttempt, "has not begun"),
        (
            {**BOTH, "self_approval": "bar_initiator", "min_approvers": 1},
            _vote(operator="u-pm"),
            gwf.NotAllowed,
            "your own",
        ),
        ({"comment_required": True}, _vote(operator="u-pm"), gwf.Invalid, "comment"),
        ({"comment_required": True}, _vote(operator="u-pm", comment=" "), gwf.Invalid, "comment"),
        ({**BOTH, "order": "sequential"}, _vote(operator="u-lead"), gwf.Conflict, "PM comes first"),
        (
            BOTH,
            lambda task: task.withdraw_vote(operator="u-pm"),
            gwf.Conflict,
            "no vote",
        ),
    ],
)
def test_approve_that_is_refused(
    wf: gwf.Client, policy: Any, act: Any, error: type[gwf.GwfError], match: str
) -> None:
    """A4, A8, T5: one clear error for each; no vote, no change, and the refusal is on record."""
    task = asked(wf, policy, "A", created_by=None)
    if "self_approval" in policy:
        task = wf.create_job("F", "K", created_by="u-pm").start().task("A").start().complete()
        task = wf.job(task.job_id).task("Gate").start()
    with refused(task, error, match):
        act(task)


def test_approve_by_a_user_that_is_not_active(wf: gwf.Client) -> None:
    """A8: refused and logged; a vote cast before stands."""
    task = asked(wf, BOTH)
    task.approve(operator="u-pm")
    wf.users.deactivate("u-pm")
    with refused(task, gwf.NotAllowed, "not active"):
        task.withdraw_vote(operator="u-pm")
    assert task.approve(operator="u-lead").status == "approved"


def test_reject_after_an_approval_of_ones_own(wf: gwf.Client) -> None:
    """A4: the opposite vote is a Conflict that names withdraw_vote."""
    task = asked(wf, BOTH)
    task.approve(operator="u-pm")
    with refused(task, gwf.Conflict, "withdraw_vote"):
        task.reject(operator="u-pm")


@pytest.mark.parametrize("how", ["approved", "rejected", "cancelled", "skipped by a person"])
def test_approve_what_is_over(wf: gwf.Client, how: str) -> None:
    """T5, A5: a decided, cancelled or pending approval takes no vote and gives none back."""
    task = asked(wf, {"approvers": ["PM"], "min_approvers": 1})
    if how == "approved":
        task.approve(operator="u-pm")
    elif how == "rejected":
        task.reject(operator="u-pm")
    elif how == "cancelled":
        wf.cancel_job(task.job_id)
    else:
        task = wf.create_job("F", "K").start().task("Gate")
        task.skip(force=True, reason="urgent", operator="u-head")
        assert task.result == {"status": "skipped"}
    for act in (task.approve, task.reject, task.withdraw_vote):
        with refused(task, gwf.Conflict, "running approval"):
            act(operator="u-pm")


def test_approve_an_attempt_that_is_over(wf: gwf.Client) -> None:
    """T5: an answer that was meant for attempt 1 says nothing about attempt 2."""
    task = asked(wf, {"approvers": ["PM"]})
    seen = wf.job_task(task.id)
    task.reject(operator="u-pm")
    again = wf.job(task.job_id).retry("Gate").start()
    with refused(again, gwf.StaleAttempt, "attempt 1"):
        seen.approve(operator="u-pm")
    with refused(again, gwf.StaleAttempt, "attempt 1"):
        seen.withdraw_vote(operator="u-pm")


def test_approve_what_is_no_approval(wf: gwf.Client) -> None:
    """A manual task takes no votes, running or not."""
    task = asked(wf, {"min_approvers": 1}, "A")
    task.approve(operator="u-pm")
    manual = wf.job(task.job_id).task("Z")
    with refused(manual, gwf.Conflict, "manual task, nobody votes"):
        manual.approve(operator="u-pm")


def test_approve_in_a_pause(wf: gwf.Client) -> None:
    """W7: a pause takes no votes and gives none back; they count again once it is over."""
    task = asked(wf, BOTH)
    task.approve(operator="u-pm")
    wf.pause_job(task.job_id)
    for act in (task.approve, task.reject):
        with refused(task, gwf.Conflict, "resume_job"):
            act(operator="u-lead")
    with refused(task, gwf.Conflict, "paused"):
        task.withdraw_vote(operator="u-pm")
    wf.resume_job(task.job_id)
    assert task.approve(operator="u-lead").status == "approved"


def test_approve_one_microsecond_late(url: str) -> None:
    """W6: with no worker the timeout is applied first, and the vote is a Conflict."""
    moments = [datetime(2026, 1, 1, tzinfo=UTC)]
    with gwf.connect(url, clock=lambda: moments[-1]) as wf:
        task = asked(wf, {"approvers": ["PM"], "timeout": 60})
        moments.append(moments[0] + timedelta(seconds=60, microseconds=1))
        with pytest.raises(gwf.Conflict, match="timed_out"):
            task.approve(operator="u-pm")
        assert wf.job_task(task.id).error_code == "timed_out"
        assert wf.votes(job=task.job_id).empty
        assert list(wf.logs(job=task.job_id)["action"])[-4:] == [
            "timeout",
            "fail",
            "fail",
            "refuse",
        ]


# A8, A9: open mode, and the override


def test_complete_task_in_open_mode(wf: gwf.Client) -> None:
    """A9: the published walk: start, complete with approved true; the log calls it an override."""
    task = job_of(wf, {"min_approvers": 2, "required_reviewers": ["Senior"]}).task("Gate")
    task.start(operator=1).complete({"approved": True, "comments": "ok"}, operator=1)
    assert (task.status, task.result["approved"]) == ("completed", True)
    row = wf.logs(job=task.job_id).query("action == 'complete'").to_dict("records")[0]
    assert row["metadata"]["override"] is True
    assert task.approval().status == "overridden"


def test_approve_in_open_mode(wf: gwf.Client) -> None:
    """A8: roles cannot be checked, two distinct ids are needed, and the log says unverified."""
    task = job_of(wf, {"min_approvers": 2, "required_reviewers": ["Senior"]}).task("Gate").start()
    for _ in range(2):
        assert task.approve(operator=1).status == "open"
    with refused(task, gwf.Conflict, "withdraw"):
        task.reject(operator=1)
    assert task.approve(operator=2).status == "approved"
    rows = wf.logs(job=task.job_id).query("action == 'vote'")["metadata"]
    assert [row["unverified"] for row in rows] == [True, True]
    frame = wf.votes(job=task.job_id)
    assert list(frame["user"]) == ["1", "2"]
    assert not frame["is_verified"].any()
    assert [one["user"] for one in task.refresh().result["votes"]] == [1, 2]


def test_approve_by_a_name_in_open_mode(wf: gwf.Client) -> None:
    """A8: a name means nobody yet; the message says why, and no vote is cast."""
    task = job_of(wf, {}).task("Gate").start()
    with pytest.raises(gwf.Invalid, match="directory holds nobody"):
        task.approve(operator="u-pm")
    assert wf.votes(job=task.job_id).empty


def test_add_user_ends_the_open_mode_of_a_running_approval(wf: gwf.Client) -> None:
    """A8, A9: from the first user on roles count, numbers mean nobody, and complete_task ends."""
    task = job_of(wf, BOTH).task("Gate").start()
    task.approve(operator=10**6)
    for name, roles in PEOPLE.items():
        wf.users.add(name, roles=roles)
    with refused(task, gwf.UserNotFound, "1000001"):
        task.approve(operator=10**6 + 1)
    with refused(task, gwf.NotAllowed, "no seat"):
        task.approve(operator="u-dev")
    for who in ("u-pm", None):
        with refused(task, gwf.NotAllowed, "role 'admin'"):
            task.complete({"approved": True}, operator=who)
    assert task.approve(operator="u-lead").status == "approved"
    assert list(wf.votes(job=task.job_id)["is_verified"]) == [False, True]
