"""The code of the README, as written, on each database; and what an analyst sees in a cell."""

from __future__ import annotations

import html
import os
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
import pytest

import gwf


@pytest.fixture
def configured(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Let the environment name the database, as an installation would."""
    monkeypatch.setenv("GWF_DATABASE_URL", url)
    yield url


def _flow(wf: gwf.Client) -> gwf.Flow:
    review = wf.create_task("需求评审", type="manual", description="产品需求评审会议")
    develop = wf.create_task("代码开发")
    lint = wf.create_task("静态检查", type="manual")
    unit = wf.create_task("单元测试", type="manual", config={"coverage_threshold": 80})
    deploy = wf.create_task("部署", config={"environment": "production"})
    return wf.create_flow(
        "功能开发流程",
        [
            review,
            develop,
            [lint, gwf.Step(unit, optional=True)],  # a list is a parallel group: equal sequence
            gwf.Step(deploy, allow_rollback=False, condition="context.env == 'prod'"),
        ],
        version="1.0.0",
        description="标准的功能开发流程",
    )


def test_connect_runs_the_example(configured: str) -> None:  # noqa: PLR0915 - the example, whole
    """The main job goes from definition to completion, with a retry and a send-back on the way."""
    wf = gwf.connect()
    flow = _flow(wf)

    job = wf.create_job(flow, "feature-user-auth", context={"env": "prod"}, created_by=1)
    jobs = wf.create_jobs(flow, ["a", "b"], contexts=None)
    assert [one.name for one in jobs] == ["a", "b"]
    job.start()
    task = job.next_task()
    assert task is not None
    task.start(operator=100)
    task.complete({"approved": True})
    job.task("代码开发").start(operator=100)
    job.task("代码开发").fail("权限不足")
    assert job.status == "failed"
    assert "权限不足" in str(job.explain())
    job.retry("代码开发", operator=100)
    job.task("代码开发").start(operator=100).complete({"commit": "abc"})
    job.task("静态检查").start(operator=101)
    job.task("静态检查").complete({"warnings": 3})
    job.task("单元测试").start(operator=102)
    assert job.allowed_targets("单元测试") == (1, 2)
    job.rollback("单元测试", to=2, reason="接口要改", operator=100)
    assert job.explain().waiting[0].task_name == "代码开发"

    job.task("代码开发").start().complete()
    job.task("静态检查").start().complete()
    job.skip("单元测试", operator=102)
    job.pause()
    assert job.next_task() is None
    job.resume()
    assert job.context["env"] == "prod"
    job.task("部署").start().complete()
    assert job.status == "completed"
    job.reopen(to=3, reason="线上发现问题")
    job.context["env"] = "staging"
    job.context.update(build=7)
    assert dict(job.context) == {"env": "staging", "build": 7}
    job.cancel(reason="不再需要")
    assert job.status == "cancelled"

    assert len(wf.jobs(status="cancelled", flow=flow, since="2026-11-01", limit=None)) == 1
    assert len(wf.tasks()) == 5
    assert len(wf.flows()) == 1
    assert list(wf.flow_tasks(flow)["sequence"]) == [1, 2, 3, 3, 4]
    assert len(wf.job_tasks(job=job)) == len(job.tasks()) == 5
    attempts = wf.attempts(job=job)
    assert len(attempts) > 5
    pd.testing.assert_frame_equal(attempts, job.attempts())
    assert list(attempts["status"].astype(str)).count("rolled_back") >= 3
    assert {"rollback", "reopen", "skip", "retry"} <= set(wf.logs(job=job)["action"].astype(str))
    assert len(job.logs()) == len(wf.logs(job=job))
    assert set(wf.context(job)["key"]) == {"env", "build"}
    assert isinstance(job.timeline(), go.Figure)
    wf.close()


def test_definitions_are_edited_by_the_example(wf: gwf.Client) -> None:
    """A singular noun is an object, by id or by name; what is in use is not deleted."""
    flow = _flow(wf)
    review = wf.task("需求评审")
    assert wf.update_task(review, description="新的描述").description == "新的描述"
    assert wf.update_flow(flow, version="1.0.1").version == "1.0.1"
    with pytest.raises(gwf.InUse, match="功能开发流程"):
        wf.delete_task(review)
    job = wf.create_job(flow, "x")
    assert wf.job(job.id).name == "x"
    assert wf.flow("功能开发流程").id == flow.id
    with pytest.raises(gwf.InUse):
        wf.delete_flow(flow)
    unused = wf.create_task("unused")
    wf.delete_task(unused)
    with pytest.raises(gwf.TaskNotFound):
        wf.task("unused")


def test_start_task_takes_ids(wf: gwf.Client) -> None:
    """The verbs on the client take the id that a DataFrame shows, numpy integer or not."""
    job = wf.create_job(_flow(wf), "ids")
    wf.start_job(job.id)
    first = wf.job_tasks(job=job.id)["job_task_id"].iloc[0]
    assert wf.start_task(first, operator=100).status == "running"
    assert wf.complete_task(int(first), {"ok": True}).result == {"ok": True}
    following = wf.next_task(job)
    assert following is not None
    assert following.name == "代码开发"
    assert wf.fail_task(wf.start_task(following), "broken").status == "failed"
    assert wf.retry_task(following.id).attempt == 2


def test_job_task_addresses_the_attempt_it_was_read_with(wf: gwf.Client) -> None:
    """An answer to an attempt that is over is a Conflict (rule T5) until one looks again."""
    job = wf.create_job(_flow(wf), "stale").start()
    seen = job.task("需求评审").start()
    job.task("需求评审").fail("no")
    job.retry("需求评审")
    job.task("需求评审").start()
    with pytest.raises(gwf.StaleAttempt, match="attempt 1"):
        seen.complete({"late": True})
    assert seen.refresh().complete({"late": False}).attempt == 2
    assert seen.previous_attempt is not None
    assert seen.previous_attempt.error_message == "no"


def test_repr_html_escapes_what_people_typed(wf: gwf.Client) -> None:
    """A name or a result is text in a cell, never markup."""
    evil = "<img src=x onerror=alert(1)>"
    task = wf.create_task(evil, description=evil, config={"x": evil})
    flow = wf.create_flow(evil, [task], description=evil)
    job = wf.create_job(flow, evil).start()
    run = job.task(evil).start().complete({"x": evil})
    for thing in (task, flow, job, run):
        shown = thing._repr_html_()
        assert evil not in shown
        assert html.escape(evil) in shown
        assert len(repr(thing)) < 200


def test_context_is_a_mapping(wf: gwf.Client) -> None:
    """Deleting a key takes it away; None is a value; a missing key is a KeyError."""
    job = wf.create_job(_flow(wf), "context", context={"a": 1, "none": None})
    assert dict(job.context) == {"a": 1, "none": None}
    del job.context["a"]
    assert "a" not in job.context
    assert job.context["none"] is None
    assert job.context[" none "] is None
    with pytest.raises(KeyError, match="there is no context key 'a'"):
        job.context["a"]
    with pytest.raises(gwf.NotFound):
        del job.context["a"]


def test_connect_makes_the_embedded_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without any setting the database is gwf.db in the working folder, made on first use."""
    for name in [name for name in os.environ if name.startswith(("DB_", "GWF_DATABASE"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    with gwf.connect() as wf:
        wf.create_task("x")
    assert (tmp_path / "gwf.db").exists()
    with gwf.connect() as again:
        assert list(again.tasks()["name"]) == ["x"]
