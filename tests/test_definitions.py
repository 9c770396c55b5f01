"""Tasks and flows on the three databases, and every bad input of the doors that use them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gwf
from gwf.database import read
from gwf.tables import metadata

APPROVED = "previous_task_result.status == 'approved'"
TEXT = st.text(st.characters(codec="utf-8"), max_size=30)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=10,
)


def content(wf: gwf.Client) -> dict[str, list[tuple[Any, ...]]]:
    """Return every row of every table."""
    tables = metadata.sorted_tables
    return read(
        wf.database,
        lambda conn: {
            table.name: [tuple(row) for row in conn.execute(sa.select(table))] for table in tables
        },
    )


def steps_of(wf: gwf.Client, flow: object) -> list[tuple[int, str]]:
    """Return the sequence and the name of each position of a flow."""
    frame = wf.flow_tasks(flow)
    return list(zip(frame["sequence"].tolist(), frame["task_name"].tolist(), strict=True))


# Bad input


@pytest.fixture(scope="module")
def stage(databases: Any) -> Iterator[SimpleNamespace]:
    """Return a client and one of each thing; a refused call leaves all of them as they are."""
    wf = gwf.connect(databases.new())
    task, other = wf.create_task("代码开发"), wf.create_task("部署")
    retired = wf.update_task(wf.create_task("旧任务"), is_active=False)
    unused = wf.create_task("没用过")
    flow = wf.create_flow("功能开发流程", [task, gwf.Step(other, optional=True)])
    empty = wf.create_flow("空流程", [])
    old = wf.update_flow(wf.create_flow("旧流程", [task]), is_active=False)
    job = wf.create_job(flow, "feature", context={"env": "prod"}).start()
    job.task(1).start(operator=100)
    yield SimpleNamespace(
        wf=wf,
        task=task,
        other=other,
        retired=retired,
        unused=unused,
        flow=flow,
        empty=empty,
        old=old,
        job=job,
        running=job.task(1).id,
        pending=job.task(2).id,
    )
    wf.close()


def nested(depth: int) -> object:
    """Return a list in a list in a list, so deep."""
    return [nested(depth - 1)] if depth else 1


def make(s: Any, *steps: object) -> object:
    """Create a flow of these steps."""
    return s.wf.create_flow("a", list(steps))


def back(s: Any, **how: Any) -> object:
    """Send the job back from the task that runs."""
    return s.wf.rollback_task(s.running, **{"to": 1, "reason": "x", **how})


NAIVE = datetime(2026, 11, 1)  # noqa: DTZ001 - refusing it is the point
LONG = "长" * 101
Step, Group = gwf.Step, gwf.Group
T, F, J, K = gwf.TaskNotFound, gwf.FlowNotFound, gwf.JobNotFound, gwf.JobTaskNotFound
E, C, N = gwf.Invalid, gwf.Conflict, gwf.NotFound
BAD: dict[str, tuple[Callable[[Any], object], type[Exception], str]] = {
    # unknown ids and names
    "task": (lambda s: s.wf.task(99), T, r"no task 99; tasks\(\)"),
    "task name": (lambda s: s.wf.task("没有"), T, "no task '没有'"),
    "flow": (lambda s: s.wf.flow(99), F, r"no flow 99; flows\(\)"),
    "flow name": (lambda s: s.wf.flow("没有"), F, "没有"),
    "job": (lambda s: s.wf.job(99), J, r"no job 99; jobs\(\)"),
    "job task": (lambda s: s.wf.job_task(99), K, "no job task 99"),
    "task of job": (lambda s: s.job.task("没有"), K, "in job 1"),
    "sequence of job": (lambda s: s.job.task(3), K, "in job 1"),
    "update task": (lambda s: s.wf.update_task(99, name="a"), T, "99"),
    "delete task": (lambda s: s.wf.delete_task(99), T, "99"),
    "update flow": (lambda s: s.wf.update_flow(99, name="a"), F, "99"),
    "delete flow": (lambda s: s.wf.delete_flow(99), F, "99"),
    "step": (lambda s: make(s, s.task, 99), T, "99"),
    "step name": (lambda s: make(s, "没有"), T, "没有"),
    "new step": (lambda s: s.wf.update_flow(s.flow, name="b", steps=[99]), T, "99"),
    "flow of job": (lambda s: s.wf.create_job(99, "a"), F, "99"),
    "flow of jobs": (lambda s: s.wf.create_jobs(99, ["a"]), F, "99"),
    "start job": (lambda s: s.wf.start_job(99), J, "99"),
    "cancel job": (lambda s: s.wf.cancel_job(99), J, "99"),
    "explain": (lambda s: s.wf.explain(99), J, "99"),
    "next task": (lambda s: s.wf.next_task(99), J, "99"),
    "set context": (lambda s: s.wf.set_context(99, {"a": 1}), J, "99"),
    "context of": (lambda s: s.wf.context_of(99), J, "99"),
    "context key": (lambda s: s.job.context["no"], N, "no context key 'no' in job 1"),
    "del context": (lambda s: s.job.context.__delitem__("no"), N, "'no' in job 1"),
    "start task": (lambda s: s.wf.start_task(99), K, "99"),
    "complete task": (lambda s: s.wf.complete_task(99, {}), K, "99"),
    "targets": (lambda s: s.wf.allowed_targets(99), K, "99"),
    "rollback": (lambda s: s.wf.rollback_task(99, to=1, reason="x"), K, "99"),
    "target name": (lambda s: back(s, to="没有"), K, "没有"),
    # the state does not allow it
    "retired task": (lambda s: make(s, s.retired), C, "retired"),
    "job of a retired flow": (lambda s: s.wf.create_job(s.old, "a"), C, "not active"),
    "job of no tasks": (lambda s: s.wf.create_job(s.empty, "a"), C, "no tasks"),
    "jobs of no tasks": (lambda s: s.wf.create_jobs(s.empty, ["a"]), C, "no tasks"),
    # wrong types
    "true as id": (lambda s: s.wf.job(True), E, "whole number"),
    "float as id": (lambda s: s.wf.job(1.0), E, "whole number"),
    "none as id": (lambda s: s.wf.task(None), E, "whole number"),
    "text as job": (lambda s: s.wf.job("1"), E, "whole number"),
    "flow as task": (lambda s: s.wf.task(s.flow), E, "task id"),
    "zero as id": (lambda s: s.wf.flow(0), E, "from 1"),
    "large id": (lambda s: s.wf.job_task(2**63), E, "from 1"),
    "steps as text": (lambda s: s.wf.create_flow("a", "代码开发"), E, "a list of tasks"),
    "one step": (lambda s: s.wf.create_flow("a", s.task), E, "a list of tasks"),
    "no steps": (lambda s: s.wf.create_flow("a", None), E, "a list of tasks"),
    "step of nothing": (lambda s: make(s, None), E, "a task, its id or name"),
    "true as step": (lambda s: make(s, True), E, "a task, its id or name"),
    "group in a group": (lambda s: make(s, [[s.task]]), E, "a task, its id"),
    "empty group": (lambda s: make(s, s.task, []), E, "at least one step"),
    "optional": (lambda s: make(s, Step(s.task, optional="no")), E, "is_optional.*True or False"),
    "names": (lambda s: s.wf.create_jobs(s.flow, "abc"), E, "a list of names"),
    "number of names": (lambda s: s.wf.create_jobs(s.flow, 3), E, "a list of names"),
    "contexts": (lambda s: s.wf.create_jobs(s.flow, ["a"], contexts=5), E, "contexts"),
    "few contexts": (lambda s: s.wf.create_jobs(s.flow, ["a", "b"], contexts=[{}]), E, "one for"),
    "context": (lambda s: s.wf.create_job(s.flow, "a", context=[]), E, "a mapping"),
    "values": (lambda s: s.wf.set_context(s.job, [("a", 1)]), E, "a mapping"),
    "config": (lambda s: s.wf.create_task("a", config=[1]), E, "a mapping"),
    "is_active": (lambda s: s.wf.update_task(s.unused, is_active=1), E, "True or False"),
    "field": (lambda s: s.wf.update_task(s.unused, colour="red"), E, "one of name, type"),
    "field of flow": (lambda s: s.wf.update_flow(s.empty, tasks=[]), E, "one of name, version"),
    "operator": (lambda s: s.wf.start_task(s.pending, operator=True), E, "whole number"),
    "operator name": (lambda s: s.wf.create_job(s.flow, "a", created_by="李雷"), E, "a number"),
    "attempt": (lambda s: s.wf.complete_task(s.running, attempt=0), E, "attempt.*from 1"),
    "running": (lambda s: back(s, running="kill"), E, "refuse.*cancel"),
    "resume": (lambda s: back(s, resume="jump"), E, "through.*direct"),
    # names and texts
    "no name": (lambda s: s.wf.create_task(" "), E, "task name.*not be empty"),
    "long name": (lambda s: s.wf.create_task(LONG), E, "task name.*100 characters.* 101"),
    "name": (lambda s: s.wf.update_task(s.unused, name=None), E, "task name.*text"),
    "no flow name": (lambda s: s.wf.create_flow("", []), E, "flow name.*not be empty"),
    "long flow name": (lambda s: s.wf.update_flow(s.empty, name=LONG), E, "flow name"),
    "no job name": (lambda s: s.wf.create_job(s.flow, ""), E, "job name"),
    "long job name": (lambda s: s.wf.create_jobs(s.flow, ["a", LONG]), E, "job name"),
    "version": (lambda s: s.wf.create_flow("a", [], version="1" * 21), E, "version.*20"),
    "description": (lambda s: s.wf.create_task("a", description="x" * 16_001), E, "16000"),
    "no reason": (lambda s: back(s, reason=" "), E, "say why"),
    "reason of a skip": (lambda s: s.wf.skip_task(s.pending, force=True), E, "say why"),
    "no error": (lambda s: s.wf.fail_task(s.running, ""), E, "what went wrong"),
    "error code": (lambda s: s.wf.fail_task(s.running, "x", error_code="c" * 51), E, "error code"),
    "key": (lambda s: s.wf.start_task(s.pending, idempotency_key="k" * 256), E, "idempotency"),
    "long key": (lambda s: s.job.context.update({"好" * 256: 1}), E, "key.*255 characters.* 256"),
    "long key of a job": (lambda s: s.wf.create_job(s.flow, "a", context={"k" * 256: 1}), E, "255"),
    "number as context key": (lambda s: s.job.context.update({5: 1}), E, "keys are text"),
    # numbers and choices
    "sequence": (lambda s: make(s, Step(s.task, sequence=0)), E, "sequence.*from 1"),
    "true as sequence": (lambda s: make(s, Step(s.task, sequence=True)), E, "whole number"),
    "one sequence": (lambda s: make(s, Step(s.task, sequence=1), s.other), E, "all of them or"),
    "target": (lambda s: back(s, to=0), E, "from 1"),
    "join": (lambda s: make(s, Group(s.task, join=2)), E, "join.*1 to 1"),
    "join of nobody": (lambda s: make(s, Group(s.task, join=0)), E, "join"),
    "join word": (lambda s: make(s, Group(s.task, join="most")), E, "join"),
    "two joins": (
        lambda s: make(s, Step(s.task, sequence=1), Group(Step(s.other, sequence=1), join=1)),
        E,
        "join",
    ),
    "max_rollbacks": (lambda s: s.wf.create_flow("a", [], max_rollbacks=-1), E, "from 0"),
    "task type": (lambda s: s.wf.create_task("a", type="robot"), E, "manual, automated, approval"),
    "new type": (lambda s: s.wf.update_task(s.unused, type="robot"), E, "one of manual"),
    "condition": (
        lambda s: make(s, Step(s.task, condition="a == ")),
        gwf.ConditionInvalid,
        "condition 'a == ' is not valid",
    ),
    "new condition": (
        lambda s: s.wf.update_flow(s.flow, name="b", steps=[Step(s.task, condition="((")]),
        gwf.ConditionInvalid,
        "condition",
    ),
    "no condition": (
        lambda s: make(s, Step(s.task, condition=5)),
        gwf.ConditionInvalid,
        "condition 5 is",
    ),
    # what JSON cannot say
    "nan": (lambda s: s.wf.complete_task(s.running, {"a": math.nan}), E, "NaN"),
    "set": (lambda s: s.wf.complete_task(s.running, {1, 2}), E, "set is not JSON"),
    "overflow": (lambda s: s.wf.complete_task(s.running, [2**63]), E, "64 bits"),
    "deep": (lambda s: s.wf.complete_task(s.running, nested(65)), E, "64 levels"),
    "oversize": (lambda s: s.wf.complete_task(s.running, "字" * 333_334), E, "1,000,000 bytes"),
    "config nan": (lambda s: s.wf.create_task("a", config={"x": math.inf}), E, "NaN"),
    "context value": (lambda s: s.job.context.update(when=datetime.now(UTC)), E, "not JSON"),
    "new context": (lambda s: s.wf.complete_task(s.running, {}, context={"a": {1}}), E, "not JSON"),
    # frames
    "status": (lambda s: s.wf.jobs(status="rolled_back"), E, "one of pending, running, compl"),
    "task status": (lambda s: s.wf.job_tasks(status=["pending", "x"]), E, "rolled_back"),
    "status number": (lambda s: s.wf.jobs(status=5), E, "status"),
    "action": (lambda s: s.wf.logs(action="explode"), E, "one of create, start"),
    "naive since": (lambda s: s.wf.jobs(since=NAIVE), E, "time zone"),
    "naive until": (lambda s: s.wf.logs(until=NAIVE), E, "time zone"),
    "since": (lambda s: s.wf.attempts(since="soon"), E, "ISO 8601"),
    "limit": (lambda s: s.wf.jobs(limit=-1), E, "limit.*from 0"),
    "true as limit": (lambda s: s.wf.tasks(limit=True), E, "limit.*whole number"),
    "active": (lambda s: s.wf.tasks(is_active="yes"), E, "is_active.*True or False"),
    "jobs of a flow": (lambda s: s.wf.jobs(flow=99), F, "99"),
    "jobs of a flow name": (lambda s: s.wf.jobs(flow="没有"), F, "没有"),
    "steps of a flow": (lambda s: s.wf.flow_tasks(99), F, "99"),
    "tasks of a job": (lambda s: s.wf.job_tasks(job=99), J, "99"),
    "logs of a job": (lambda s: s.wf.logs(job=99), J, "99"),
    "context of a job": (lambda s: s.wf.context(99), J, "99"),
    # people, last: were one of these added, operators would no longer be free numbers
    "no user": (lambda s: s.wf.users.add(""), E, "user"),
    "display name": (lambda s: s.wf.users.add("a", display_name=LONG), E, "display.name"),
    "long role": (lambda s: s.wf.users.add("b", roles=[LONG]), E, "role"),
    "roles": (lambda s: s.wf.users.add("c", roles="admin"), E, "role"),
}


@pytest.mark.parametrize("name", BAD)
def test_call_is_refused_and_changes_nothing(stage: SimpleNamespace, name: str) -> None:
    """One error of the tree names the value and what to do, and no row differs afterwards."""
    act, error, message = BAD[name]
    before = content(stage.wf)
    with pytest.raises(error, match=message) as refused:
        act(stage)
    assert isinstance(refused.value, gwf.GwfError)
    assert content(stage.wf) == before


def test_call_is_accepted_with_numpy_ids(stage: SimpleNamespace) -> None:
    """Ids taken out of a frame are numpy's."""
    wf = stage.wf
    row = wf.jobs().iloc[0]
    assert wf.job(row["job_id"]).id == stage.job.id
    assert wf.flow(row["flow_id"]).id == stage.flow.id
    assert wf.task(np.int32(stage.task.id)).id == stage.task.id
    assert len(wf.job_tasks(job=row["job_id"])) == 2


def test_limit_is_accepted_up_to_64_bits(stage: SimpleNamespace) -> None:
    """The largest limit is as good as none, it does not overflow."""
    assert len(stage.wf.tasks(limit=2**63 - 1)) == len(stage.wf.tasks(limit=None))


# What is stored


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(config=st.dictionaries(TEXT, JSON, max_size=4), description=TEXT)
def test_task_is_read_back_unchanged(
    stage: SimpleNamespace, config: dict[str, Any], description: str
) -> None:
    """Whatever JSON and text can say comes back equal from each database, by object and frame."""
    wf, task = stage.wf, stage.unused
    wf.update_task(task, config=config, description=description)
    found = wf.task(task.id)
    assert (found.config, found.description) == (config, description)
    row = wf.tasks().set_index("task_id").loc[task.id]
    assert (row["config"], row["description"]) == (config, description)


@pytest.mark.parametrize(
    "text",
    [
        "中文名称",
        "😀👩‍👩‍👧 emoji",
        "𠮷 4 bytes",
        'o\'clock "quoted"',
        "100% %s %(x)s :name",
        "back\\slash\\",
    ],
)
def test_name_is_read_back_unchanged(wf: gwf.Client, text: str) -> None:
    """Characters that a driver, a LIKE or a format might take for its own stay what they are."""
    task = wf.create_task(text, description=text, config={text: text})
    flow = wf.create_flow(text, [text], description=text)
    job = wf.create_job(text, text, context={text: text}).start()
    done = job.task(text).start().complete({text: text})
    assert (wf.task(text).id, wf.flow(text).id) == (task.id, flow.id)
    assert (done.name, done.config, done.result) == (text, {text: text}, {text: text})
    assert job.context[text] == text
    assert wf.jobs(flow=text)[["job_name", "flow_name"]].iloc[0].tolist() == [text, text]


def test_create_task_has_defaults(wf: gwf.Client) -> None:
    task = wf.create_task("代码开发")
    assert (task.type, task.description, task.config, task.is_active) == (
        "manual",
        None,
        None,
        True,
    )
    assert repr(task) == "Task(1, '代码开发', manual)"


def test_update_task_keeps_what_is_not_given(wf: gwf.Client) -> None:
    """An update is partial (rule T10); None clears a field that may be empty."""
    task = wf.create_task("单元测试", type="automated", description="d", config={"min": 80})
    wf.update_task(task, description="更新")
    wf.update_task(task.id, name="测试")
    found = wf.update_task("测试", type="manual")
    assert (found.name, found.type, found.description, found.config) == (
        "测试",
        "manual",
        "更新",
        {"min": 80},
    )
    cleared = wf.update_task(task, description=None, config=None)
    assert (cleared.description, cleared.config, cleared.name) == (None, None, "测试")
    assert wf.task(task.id).record == cleared.record


def test_update_flow_keeps_what_is_not_given(wf: gwf.Client) -> None:
    """Also the steps stay unless they are given, and then they are replaced as a whole."""
    for name in "abc":
        wf.create_task(name)
    flow = wf.create_flow("f", ["a", "b"], version="1.0", description="d", max_rollbacks=3)
    wf.update_flow(flow, description="e")
    found = wf.update_flow("f", version="2.0").record
    assert (found.name, found.version, found.description, found.max_rollbacks) == (
        "f",
        "2.0",
        "e",
        3,
    )
    assert steps_of(wf, flow) == [(1, "a"), (2, "b")]
    wf.update_flow(flow, steps=["c", ["a", "b"]])
    assert steps_of(wf, flow) == [(1, "c"), (2, "a"), (2, "b")]
    assert wf.flow(flow.id).record.version == "2.0"


def test_delete_task_is_refused_while_used_and_names_the_users(wf: gwf.Client) -> None:
    """A flow or a job that uses it is named (rule T9), and nothing is deleted."""
    task = wf.create_task("代码开发")
    flow = wf.create_flow("流程", [task])
    wf.create_job(flow, "作业")
    with pytest.raises(gwf.InUse, match="is_active=False") as refused:
        wf.delete_task(task)
    assert refused.value.users == ("flow 1 '流程'", "job 1 '作业'")
    wf.update_flow(flow, steps=[])
    with pytest.raises(gwf.InUse) as refused:
        wf.delete_task(task)
    assert refused.value.users == ("job 1 '作业'",)
    assert len(wf.tasks()) == 1


def test_delete_flow_is_refused_while_a_job_uses_it(wf: gwf.Client) -> None:
    """Of many jobs the first five are named; without jobs the flow goes, and its tasks stay."""
    task = wf.create_task("a")
    used, unused = wf.create_flow("used", [task]), wf.create_flow("unused", [task])
    wf.create_jobs(used, [f"job{n}" for n in range(7)])
    with pytest.raises(gwf.InUse, match=r"used by job 1 'job0', .*more jobs") as refused:
        wf.delete_flow(used)
    assert len(refused.value.users) == 6
    wf.delete_flow(unused)
    assert wf.flows()["name"].tolist() == ["used"]
    assert set(wf.flow_tasks()["flow_id"]) == {used.id}
    with pytest.raises(gwf.InUse):
        wf.delete_task(task)


def test_delete_is_possible_when_nothing_uses_it(wf: gwf.Client) -> None:
    """An id is never given twice, so nobody takes the new task for the deleted one."""
    task = wf.create_task("a")
    wf.delete_flow(wf.create_flow("f", [task]))
    wf.delete_task(task)
    assert (len(wf.tasks()), len(wf.flow_tasks())) == (0, 0)
    assert wf.create_task("b").id > task.id


def test_retired_flow_is_opened_again_by_an_update(wf: gwf.Client) -> None:
    flow = wf.create_flow("f", [wf.create_task("a")])
    wf.update_flow(flow, is_active=False)
    with pytest.raises(gwf.Conflict, match="update_flow"):
        wf.create_job(flow, "j")
    wf.update_flow(flow, is_active=True)
    assert wf.create_job(flow, "j").status == "pending"
    assert wf.flows(is_active=False).empty


def test_job_is_unchanged_when_its_flow_and_tasks_are_edited(wf: gwf.Client) -> None:
    """The job holds copies of names, types, configs, flags and conditions (rule T7)."""
    first = wf.create_task("评审", type="approval", config={"approvers": ["PM"]})
    second = wf.create_task("部署", config={"env": "prod"})
    third = wf.create_task("新任务")
    step = gwf.Step(second, optional=True, allow_rollback=False, condition=APPROVED)
    flow = wf.create_flow("流程", [first, step], version="1")
    job = wf.create_job(flow, "old")
    before = (job.record, [job.task(n).record for n in (1, 2)])
    wf.update_task(first, name="x", type="manual", config=None, is_active=False)
    wf.update_task(second, name="y", config={"env": "dev"})
    wf.update_flow(flow, name="z", version="2", is_active=False, max_rollbacks=0, steps=[third])
    assert (job.record, [job.task(n).record for n in (1, 2)]) == before
    assert job.tasks()["task_name"].tolist() == ["评审", "部署"]
    job.start()
    job.task("评审").start().complete({"status": "approved"})
    job.task("部署").start().complete()
    assert job.status == "completed"
    wf.update_flow(flow, is_active=True)
    newer = wf.create_job("z", "new")
    assert newer.tasks()[["sequence", "task_name", "flow_name"]].values.tolist() == [
        [1, "新任务", "z"]
    ]


def test_create_flow_takes_objects_ids_names_groups_and_joins(wf: gwf.Client) -> None:
    """Positions count 1, 2, 3; a list is a parallel group, and steps may come from a generator."""
    a, b, c = (wf.create_task(name) for name in "abc")
    steps = (step for step in [a, [b.id, gwf.Step("c", optional=True)], gwf.Group(a, b, c, join=2)])
    flow = wf.create_flow("f", steps)
    frame = wf.flow_tasks(flow)
    assert steps_of(wf, flow) == [(1, "a"), (2, "b"), (2, "c"), (3, "a"), (3, "b"), (3, "c")]
    assert frame["is_optional"].tolist() == [False, False, True, False, False, False]
    assert frame["join_count"].tolist()[3:] == [2, 2, 2]
    assert frame["join_count"].isna().tolist() == [True] * 3 + [False] * 3
    any_of = wf.create_flow("g", [gwf.Group(a, b, join="any"), gwf.Group(a, b, join="all")])
    assert wf.flow_tasks(any_of)["join_count"].astype(object).tolist()[:2] == [1, 1]


def test_create_flow_takes_sequences_that_are_not_dense(wf: gwf.Client) -> None:
    """1, 5, 5, 9 is legal (rule P5), in whatever order the steps are given."""
    tasks = [wf.create_task(name) for name in "abcd"]
    steps = [gwf.Step(tasks[n], sequence=at) for n, at in ((3, 9), (1, 5), (0, 1), (2, 5))]
    flow = wf.create_flow("f", steps)
    assert steps_of(wf, flow) == [(1, "a"), (5, "b"), (5, "c"), (9, "d")]
    assert wf.create_job(flow, "j").start().record.current_task_seq == 1


def test_flow_without_tasks_is_stored_but_makes_no_job(wf: gwf.Client) -> None:
    flow = wf.create_flow("空", [])
    assert wf.flows()["n_tasks"].tolist() == [0]
    with pytest.raises(gwf.Conflict, match="no tasks; legal now: update_flow") as refused:
        wf.create_job(flow, "j")
    assert (refused.value.found, len(wf.jobs())) == ("empty", 0)


def test_name_means_the_newest_active_one(wf: gwf.Client) -> None:
    """Of equal names the newest that is active is meant; a retired one only where there is none."""
    tasks = [wf.create_task("a") for _ in range(3)]
    flows = [wf.create_flow("f", ["a"], version=version) for version in ("1", "2", "3")]
    assert (wf.task("a").id, wf.flow("f").version) == (tasks[2].id, "3")
    wf.update_task(tasks[2], is_active=False)
    wf.update_flow(flows[2], is_active=False)
    assert (wf.task("a").id, wf.flow("f").version) == (tasks[1].id, "2")
    assert wf.create_job("f", "j").record.flow_version == "2"
    for task in tasks:
        wf.update_task(task, is_active=False)
    assert wf.task("a").id == tasks[2].id


@pytest.mark.parametrize(("name", "other"), [("Env", "env"), ("é", "e"), ("😀", "😁"), ("ß", "ss")])
def test_name_is_found_to_the_letter(wf: gwf.Client, name: str, other: str) -> None:
    """The collation of a server takes these for equal; a look-up does not."""
    wf.create_task(name)
    wf.create_flow(name, [name])
    for look_up in (wf.task, wf.flow):
        assert look_up(name).name == name
        with pytest.raises(gwf.NotFound):
            look_up(other)
    task, flow = wf.create_task(other), wf.create_flow(other, [other])
    assert (wf.task(name).id, wf.task(other).id) == (1, task.id)
    assert (wf.flow(name).id, wf.flow(other).id) == (1, flow.id)
