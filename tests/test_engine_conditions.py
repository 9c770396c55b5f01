"""Show how conditions decide what becomes due: rules C1 to C5."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
import sqlalchemy as sa

import gwf
from gwf.tables import flow_tasks


def created(wf: gwf.Client, *steps: Any, **options: Any) -> gwf.Job:
    """Return a job of these steps over the manual tasks A to D."""
    for name in "ABCD":
        wf.create_task(name)
    return wf.create_job(wf.create_flow("F", steps), "J", **options)


def started(wf: gwf.Client, *steps: Any, **options: Any) -> gwf.Job:
    return created(wf, *steps, **options).start()


def on(task: str, condition: str, **settings: Any) -> gwf.Step:
    return gwf.Step(task, condition=condition, **settings)


def do(job: gwf.Job, name: str, result: Any = None, **options: Any) -> None:
    job.task(name).start().complete(result, **options)


def statuses(job: gwf.Job) -> str:
    """Return name and status of each task, in order, as ``A completed, B pending``."""
    frame = job.tasks()
    return ", ".join(map(" ".join, zip(frame["task_name"], frame["status"], strict=True)))


def rows(job: gwf.Job, action: str) -> list[dict[str, Any]]:
    """Return the rows of the log of this action that are about a task."""
    frame = job.logs()
    frame = frame[(frame["action"] == action) & frame["job_task_id"].notna()]
    return frame.to_dict("records")


def decided(wf: gwf.Client, condition: str, *, result: Any = None, **options: Any) -> gwf.JobTask:
    """Return task B of a job, after A completed with this result and B's condition was decided."""
    job = started(wf, "A", on("B", condition), "C", **options)
    do(job, "A", result)
    return job.task("B")


# C1: the language


NOT_CEL = (
    "previous_task_result.status ==",
    "previous_task_result.status = 'approved'",
    "context.a and context.b",
    "",
    "   ",
    "'unclosed",
    "(true",
    "lambda: True",
)


def test_create_flow_with_a_condition_that_is_none(wf: gwf.Client) -> None:
    """C1: what is not CEL is refused when saved; no flow is left behind."""
    wf.create_task("A")
    for condition in NOT_CEL:
        with pytest.raises(gwf.ConditionInvalid) as refusal:
            wf.create_flow("F", [on("A", condition)])
        assert refusal.value.expression == condition
        assert isinstance(refusal.value, gwf.Invalid)
    assert wf.flows().empty
    assert wf.flow_tasks().empty


def test_update_flow_with_a_condition_that_is_none(wf: gwf.Client) -> None:
    """C1: the flow keeps its name and its steps when one of the new steps is refused."""
    wf.create_task("A")
    flow = wf.create_flow("F", [on("A", "true")])
    with pytest.raises(gwf.ConditionInvalid):
        wf.update_flow(flow, name="G", steps=["A", on("A", "1 +")])
    assert wf.flow(flow.id).name == "F"
    assert list(flow.tasks()["condition"]) == ["true"]


def test_create_flow_with_a_condition_that_is_too_large(wf: gwf.Client) -> None:
    """C5: length and depth are bounded, where the flow is saved."""
    wf.create_task("A")
    for condition in (" || ".join(["1 == 1"] * 5000), "(" * 500 + "true" + ")" * 500):
        with pytest.raises(gwf.ConditionInvalid):
            wf.create_flow("F", [on("A", condition)])
    assert wf.flows().empty


def test_create_flow_with_a_skip_if_false_that_is_no_flag(wf: gwf.Client) -> None:
    """C1: skip_if_false is true or false, nothing that only looks like it."""
    wf.create_task("A")
    for flag in (None, 1, "false"):
        with pytest.raises(gwf.Invalid, match="skip_if_false"):
            wf.create_flow("F", [on("A", "true", skip_if_false=flag)])


# C2: the names


def test_complete_task_decides_by_the_previous_result(wf: gwf.Client) -> None:
    """C2: previous_task_result.status == 'approved' works as written."""
    for status, expected in {"approved": "pending", "rejected": "skipped"}.items():
        task = decided(wf, "previous_task_result.status == 'approved'", result={"status": status})
        assert task.status == expected


def test_start_job_decides_without_a_previous_result(wf: gwf.Client) -> None:
    """C2: before anything completed, previous_task_result is null and results is empty."""
    condition = "previous_task_result == null && results == {}"
    job = started(wf, on("A", condition, skip_if_false=False))
    assert job.task("A").status == "pending"
    assert job.task("A").ready_at is not None


def test_complete_task_decides_by_the_results_of_a_group(wf: gwf.Client) -> None:
    """C2: the previous result of a group of several is a map by task name."""
    whole = "previous_task_result == {'A': {'n': 1}, 'B': {'n': 2}}"
    job = started(wf, ["A", "B"], [on("C", whole), on("D", "has(previous_task_result.n)")])
    do(job, "B", {"n": 2})
    do(job, "A", {"n": 1})
    assert statuses(job) == "A completed, B completed, C pending, D skipped"


def test_complete_task_decides_by_a_group_with_one_result(wf: gwf.Client) -> None:
    """C2: a group of several stays a map when only one of it completed; the skipped is absent."""
    job = started(
        wf, [gwf.Step("A", optional=True), "B"], on("C", "previous_task_result == {'B': 5}"), "D"
    )
    job.task("A").skip()
    do(job, "B", 5)
    assert job.task("C").status == "pending"


def test_skip_task_decides_by_the_nearest_result(wf: gwf.Client) -> None:
    """C2: a sequence that was skipped as a whole is passed over for the one below it."""
    job = started(
        wf, "A", gwf.Step("B", optional=True), on("C", "previous_task_result == 'from A'"), "D"
    )
    do(job, "A", "from A")
    job.task("B").skip()
    assert job.task("C").status == "pending"


def test_complete_task_decides_by_all_results(wf: gwf.Client) -> None:
    """C2: results reaches further back than the previous one, and holds completed tasks only."""
    condition = "results == {'A': [1, 2], 'B': null} && results.A[1] == 2"
    job = started(wf, "A", "B", on("C", condition), "D")
    do(job, "A", [1, 2])
    do(job, "B")
    assert job.task("C").status == "pending"


def test_complete_task_decides_by_the_context(wf: gwf.Client) -> None:
    """C2: the context is that in force, with the values that the same call writes."""
    condition = "context == {'base': 1, 'old': 'new', 'own': true}"
    job = created(wf, "A", on("B", condition), "C", context={"base": 1, "old": "old", "gone": 0})
    job.start()
    del job.context["gone"]
    do(job, "A", context={"own": True, "old": "new"})
    assert job.task("B").status == "pending"


def test_complete_task_decides_by_the_job_and_the_task(wf: gwf.Client) -> None:
    """C2: job and task say what is decided about."""
    wf.create_task("审批", type="approval", config={"timeout": 500})
    condition = (
        "job.name == 'J' && job.flow == 'F' && job.id > 0 && task.name == '审批'"
        " && task.type == 'approval' && task.sequence == 2 && task.config.timeout >= 500"
    )
    job = started(wf, "A", on("审批", condition), "C")
    do(job, "A")
    assert job.task("审批").status == "pending"


# C3: when it is evaluated, and what the log keeps


def test_set_context_after_the_condition_was_decided(wf: gwf.Client) -> None:
    """C3: a condition is evaluated once; neither a pause nor a sibling makes it run again."""
    job = started(wf, [on("A", "context.go"), "B"], "C", context={"go": True})
    job.context["go"] = False
    do(job, "B")
    job.pause().resume()
    assert job.task("A").start().status == "running"


def test_set_context_before_the_group_is_due(wf: gwf.Client) -> None:
    """C3: nothing is decided before the group is due, when the job starts neither."""
    job = started(wf, "A", on("B", "context.go"), "C", context={"go": False})
    assert statuses(job) == "A pending, B pending, C pending"
    job.context["go"] = True
    do(job, "A")
    assert statuses(job) == "A completed, B pending, C pending"


def test_complete_task_logs_a_condition_that_is_true(wf: gwf.Client) -> None:
    """C3: expression, value and those inputs that it names stand on the row of the verb."""
    task = decided(wf, "results.A.n > 1", result={"n": 2, "secret": 3}, context={"unused": 1})
    (row,) = [row for row in rows(wf.job(task.job_id), "complete") if row["task_name"] == "A"]
    assert row["metadata"] == {
        "conditions": [
            {
                "job_task_id": task.id,
                "condition": "results.A.n > 1",
                "inputs": {"results": {"A": {"n": 2}}},
                "value": True,
            }
        ]
    }


def test_complete_task_logs_a_condition_that_is_false(wf: gwf.Client) -> None:
    """C3: expression, inputs and value stand on the row that skips the task."""
    task = decided(wf, "results.A.n > 1", result={"n": 1})
    (row,) = rows(wf.job(task.job_id), "skip")
    assert row["job_task_id"] == task.id
    assert row["metadata"] == {
        "condition": "results.A.n > 1",
        "inputs": {"results": {"A": {"n": 1}}},
        "value": False,
    }


def test_complete_task_decides_in_its_own_transaction(wf: gwf.Client) -> None:
    """C3: the task ends at the very instant at which the lower one did."""
    task = decided(wf, "false")
    before = wf.job(task.job_id).task("A")
    assert task.completed_at == task.ready_at == before.completed_at
    assert wf.job(task.job_id).task("C").ready_at == before.completed_at


def test_complete_task_logs_large_inputs_by_their_size(wf: gwf.Client) -> None:
    """C3: a log row stays readable: inputs beyond 20,000 characters are counted, not cut."""
    task = decided(wf, "context.text == ''", context={"text": "x" * 50_000})
    (row,) = rows(wf.job(task.job_id), "skip")
    assert row["metadata"]["inputs"]["omitted_characters"] > 50_000


# C4: false


def test_complete_task_skips_by_a_false_condition(wf: gwf.Client) -> None:
    """C4: skipped although not optional, by the system, not by who completed the task before it."""
    job = started(wf, "A", on("B", "false"), "C")
    job.task("A").start(operator=7).complete(operator=7)
    assert statuses(job) == "A completed, B skipped, C pending"
    task = job.task("B")
    assert task.record.is_skipped is True
    assert (task.result, task.error_code, task.operator_id) == ({"status": "skipped"}, None, None)
    assert (task.attempt, task.started_at) == (1, None)
    assert (job.record.current_task_seq, job.record.n_done) == (3, 2)
    assert job.task("C").start().status == "running"


@pytest.mark.parametrize("condition", ["false", "1"])
def test_complete_task_logs_its_condition_as_the_work_of_the_system(
    wf: gwf.Client, condition: str
) -> None:
    """C4: the row of a decision by condition names no person; the row of the verb does."""
    job = started(wf, "A", on("B", condition))
    job.task("A").start(operator=7).complete(operator=7)
    (row,) = rows(job, "skip" if condition == "false" else "fail")
    assert row["task_name"] == "B"
    assert pd.isna(row["operator_id"])
    assert [row["operator_id"] for row in rows(job, "complete")] == [7]


def test_start_job_skips_everything(wf: gwf.Client) -> None:
    """C4, S2: a job whose every condition is false completes at its start."""
    job = started(wf, on("A", "false"), [on("B", "false"), on("C", "1 > 2")])
    assert statuses(job) == "A skipped, B skipped, C skipped"
    record = job.record
    assert (record.status, record.current_task_seq, record.n_done) == ("completed", None, 3)
    assert record.completed_at == record.started_at


def test_complete_task_skips_one_of_a_group(wf: gwf.Client) -> None:
    """C4: the other member is due, and its end ends the group."""
    job = started(wf, "A", [on("B", "false"), on("C", "true")])
    do(job, "A")
    assert statuses(job) == "A completed, B skipped, C pending"
    do(job, "C")
    assert job.status == "completed"


def test_complete_task_fails_by_a_false_condition(wf: gwf.Client) -> None:
    """C4: without skip_if_false the task and its job fail, with the code condition_false."""
    job = started(wf, "A", on("B", "false", skip_if_false=False), "C")
    do(job, "A")
    assert statuses(job) == "A completed, B failed, C pending"
    task = job.task("B")
    assert (task.error_code, task.started_at, task.result) == ("condition_false", None, None)
    assert (job.status, job.record.current_task_seq) == ("failed", 2)
    assert job.record.completed_at == task.completed_at
    (row,) = rows(job, "fail")
    assert (row["from_status"], row["to_status"]) == ("pending", "failed")
    assert row["metadata"]["value"] is False


# C5: errors


@pytest.mark.parametrize("skip_if_false", [True, False])
def test_complete_task_fails_by_a_condition_in_error(wf: gwf.Client, skip_if_false: bool) -> None:
    """C5: an error or a non-boolean fails the task with condition_error, and skips it never."""
    for condition in (
        "1",
        "'true'",
        "null",
        "[true]",
        "context.missing == 1",
        "previous_task_result.status == 'approved'",
        "1 / 0 == 1",
        "__import__('os').getcwd() != ''",
        "context > 1",
    ):
        job = started(wf, "A", on("B", condition, skip_if_false=skip_if_false), "C")
        do(job, "A", "no map")
        assert statuses(job) == "A completed, B failed, C pending", condition
        task = job.task("B")
        assert task.error_code == "condition_error"
        assert task.error_message
        assert job.status == "failed"
        (row,) = rows(job, "fail")
        assert row["metadata"]["condition"] == condition
        assert row["metadata"]["value"] is None
        assert row["metadata"]["error"] == task.error_message


@pytest.mark.parametrize(
    "config", [{"condition": "nobody == 1"}, {"condition": 7}, {"skip_if_false": True}]
)
def test_complete_task_fails_by_a_condition_that_was_never_checked(
    wf: gwf.Client, config: Any
) -> None:
    """C5: what an adopted database holds fails the task, not the verb of the task before it."""
    job = created(wf, "A", on("B", "true"), "C")
    with wf.database.engine.begin() as conn:
        positions = sa.update(flow_tasks).where(flow_tasks.c.sequence == 2)
        conn.execute(positions.values(condition_config=config))
    job = wf.create_job("F", "from the adopted flow").start()
    do(job, "A")
    assert statuses(job) == "A completed, B failed, C pending"
    assert job.task("B").error_code == "condition_error"


def test_retry_task_evaluates_its_condition_again(wf: gwf.Client) -> None:
    """C5: once the cause is mended, the retry makes the task due as its second attempt."""
    job = started(wf, "A", on("B", "context.size > 1"), "C")
    do(job, "A")
    job.context["size"] = 2
    task = job.retry("B", operator=5)
    assert (task.status, task.attempt, task.error_code) == ("pending", 2, None)
    assert task.ready_at is not None
    assert job.status == "running"
    previous = task.previous_attempt
    assert (previous.status, previous.error_code) == ("failed", "condition_error")
    do(job, "B")
    assert statuses(job) == "A completed, B completed, C pending"


def test_retry_task_whose_condition_is_false_now(wf: gwf.Client) -> None:
    """C4, C5: the second evaluation may skip the task, and the job goes on."""
    job = started(wf, "A", on("B", "context.size > 1"), "C")
    do(job, "A")
    job.context["size"] = 0
    assert job.retry("B").status == "skipped"
    assert statuses(job) == "A completed, B skipped, C pending"
    assert job.task("C").ready_at is not None
    assert (job.status, job.record.current_task_seq) == ("running", 3)


def test_retry_task_whose_condition_fails_again(wf: gwf.Client) -> None:
    """C5: the job is failed again, and both attempts are kept."""
    job = started(wf, "A", on("B", "context.size > 1"), "C")
    do(job, "A")
    task = job.retry("B")
    assert (task.status, task.attempt, task.error_code) == ("failed", 2, "condition_error")
    assert job.status == "failed"
    attempts = job.attempts()
    assert list(attempts.loc[attempts["task_name"] == "B", "error_code"]) == ["condition_error"] * 2


def test_retry_task_leaves_the_condition_of_its_sibling(wf: gwf.Client) -> None:
    """C3, P4: a failing condition stops its sibling; the retry does not evaluate that one again."""
    job = started(wf, [on("A", "context.a"), on("B", "context.b")], context={"b": True})
    assert statuses(job) == "A failed, B pending"
    with pytest.raises(gwf.NotDue):
        job.task("B").start()
    job.context.update(a=True, b=False)
    job.retry("A")
    assert statuses(job) == "A pending, B pending"
    do(job, "B")
    do(job, "A")
    assert job.status == "completed"
