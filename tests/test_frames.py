"""Every frame has one schema on every database: columns, dtypes, values, order, filters, limits."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import gwf
from gwf import frames, schemas

BEGIN = datetime(2026, 11, 2, 1, 0, 0, 123456, tzinfo=UTC)

#: The first columns of each frame, as the design names them; more may follow.
COLUMNS = {
    "tasks": "task_id name task_type description config is_active created_at updated_at",
    "flows": "flow_id name version description is_active n_tasks created_by created_at updated_at",
    "flow_tasks": "flow_task_id flow_id flow_name sequence task_id task_name task_type is_optional "
    "allow_rollback condition skip_if_false",
    "jobs": "job_id job_name flow_id flow_name status current_task_seq n_tasks n_done n_rollbacks "
    "created_by created_at started_at completed_at duration_s",
    "job_tasks": "job_task_id job_id job_name flow_id flow_name sequence task_id task_name "
    "task_type status attempt operator_id result error_code error_message ready_at started_at "
    "completed_at due_at wait_s work_s",
    "logs": "log_id job_id job_task_id task_name attempt action operator_id on_behalf_of "
    "from_status to_status message metadata created_at",
    "context": "job_id key value job_task_id attempt created_at",
}
COLUMNS["attempts"] = COLUMNS["job_tasks"]
SCHEMAS = {
    "tasks": schemas.TASKS,
    "flows": schemas.FLOWS,
    "flow_tasks": schemas.FLOW_TASKS,
    "jobs": schemas.JOBS,
    "job_tasks": schemas.ATTEMPTS,
    "attempts": schemas.ATTEMPTS,
    "logs": schemas.LOGS,
    "context": schemas.CONTEXT,
}


class Clock:
    """Be a clock that stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = BEGIN

    def __call__(self) -> datetime:
        """Return the time that it shows."""
        return self.now

    def pass_s(self, seconds: float) -> None:
        """Go on."""
        self.now += timedelta(seconds=seconds)


def tell_story(url: str) -> gwf.Client:
    """Fill a database: a job that is sent back and completed, one that failed, one that waits."""
    clock = Clock()
    wf = gwf.connect(url, clock=clock)
    review = wf.create_task("需求评审", description="评审 😀", config={"n": [1, None, {"x": 0.5}]})
    develop = wf.create_task("代码开发", type="automated")
    deploy = wf.create_task("部署", type="approval", config={})
    condition = "context.env == 'prod'"
    last = gwf.Step(deploy, optional=True, allow_rollback=False, condition=condition)
    flow = wf.create_flow("功能开发", [review, develop, last], description="标准", created_by=7)
    wf.create_flow(
        "功能开发", [gwf.Step(review, condition="true", skip_if_false=False)], version="2"
    )
    done = wf.create_job(flow, "feature", context={"env": "dev"}, created_by=1)
    clock.pass_s(3600)
    done.start(operator=9)
    clock.pass_s(60)
    done.task("需求评审").start(operator=100)
    clock.pass_s(0.25)
    done.task("需求评审").complete({"approved": True}, context={"env": "test", "build": 7})
    clock.pass_s(30)
    done.task("代码开发").start()
    clock.pass_s(30)
    done.rollback("代码开发", to=1, reason="接口要改", operator=100)
    clock.pass_s(10)
    done.task("需求评审").start(operator=101).complete(None, operator=101)
    done.context["env"] = "prod"
    done.task("代码开发").start().complete(["ok", None])
    clock.pass_s(5)
    done.skip("部署", operator=9)
    clock.pass_s(86_400)
    failed = wf.create_job(flow, "hotfix").start()
    failed.task("需求评审").start().fail("权限不足", error_code="denied")
    clock.pass_s(1)
    wf.create_jobs("功能开发", ["waits"])
    return wf


@pytest.fixture(scope="module")
def story(databases: Any) -> Iterator[gwf.Client]:
    """Return a client of a database with the story; the tests of this module only read it."""
    wf = tell_story(databases.new())
    yield wf
    wf.close()


@pytest.fixture
def empty(wf: gwf.Client) -> dict[str, pd.DataFrame]:
    """Return each frame of a database without rows, but for the job whose context is empty."""
    flow = wf.create_flow("f", [wf.create_task("t")])
    context = wf.context(wf.create_job(flow, "j"))
    none = "2000-01-01"
    found = {noun: getattr(wf, noun)(until=none) for noun in ("jobs", "job_tasks", "attempts")}
    return found | {
        "context": context,
        "logs": wf.logs(until=none),
        "tasks": wf.tasks(is_active=False),
        "flows": wf.flows(is_active=False),
        "flow_tasks": wf.flow_tasks(wf.create_flow("nothing", [])),
    }


def all_frames(wf: gwf.Client) -> dict[str, pd.DataFrame]:
    """Return each frame with everything in it."""
    whole = {noun: getattr(wf, noun)() for noun in COLUMNS if noun != "context"}
    return whole | {"context": wf.context(1, superseded=True)}


def seconds(frame: pd.DataFrame, column: str) -> list[float | None]:
    """Return a column of seconds as floats, None where it is missing."""
    return [None if pd.isna(value) else round(value, 6) for value in frame[column]]


@pytest.mark.parametrize("noun", COLUMNS)
def test_frame_has_its_columns_and_dtypes(story: gwf.Client, noun: str) -> None:
    """The columns stand in the order of the design, each of the dtype that the schema declares."""
    frame = all_frames(story)[noun]
    wanted = COLUMNS[noun].split()
    assert list(frame.columns)[: len(wanted)] == wanted
    assert list(frame.columns) == list(SCHEMAS[noun])
    assert not frame.empty
    assert {name: str(dtype) for name, dtype in frame.dtypes.items()} == {
        name: str(pd.Series([], dtype=dtype).dtype) for name, dtype in SCHEMAS[noun].items()
    }
    assert isinstance(frame.index, pd.RangeIndex)


@pytest.mark.parametrize("noun", COLUMNS)
def test_frame_has_the_same_dtypes_when_empty(
    story: gwf.Client, empty: dict[str, pd.DataFrame], noun: str
) -> None:
    """No rows: the same columns, dtypes and categories, so that code does not break on day one."""
    assert empty[noun].empty
    assert empty[noun].dtypes.to_dict() == all_frames(story)[noun].dtypes.to_dict()
    assert frames.empty(SCHEMAS[noun]).dtypes.to_dict() == empty[noun].dtypes.to_dict()


def test_frame_is_equal_on_every_database(story: gwf.Client, tmp_path: Path) -> None:
    """The same story gives frames equal to those of a new SQLite file, to the microsecond."""
    other = tell_story(f"sqlite:///{tmp_path}/other.db")
    try:
        for noun, frame in all_frames(other).items():
            pd.testing.assert_frame_equal(all_frames(story)[noun], frame, check_exact=True)
    finally:
        other.close()


def test_tasks_hold_json_as_python_objects(story: gwf.Client) -> None:
    frame = story.tasks()
    assert frame["config"].tolist() == [{"n": [1, None, {"x": 0.5}]}, None, {}]
    assert frame["task_type"].tolist() == ["manual", "automated", "approval"]
    assert frame["description"].isna().tolist() == [False, True, True]
    assert frame["created_at"].tolist() == [pd.Timestamp(BEGIN)] * 3


def test_flow_tasks_hold_the_condition_in_two_columns(story: gwf.Client) -> None:
    frame = story.flow_tasks()
    assert frame["condition"].isna().tolist() == [True, True, False, False]
    assert frame["condition"].dropna().tolist() == ["context.env == 'prod'", "true"]
    assert frame["skip_if_false"].isna().tolist() == [True, True, False, False]
    assert frame["skip_if_false"].dropna().tolist() == [True, False]
    assert frame["is_optional"].tolist() == [False, False, True, False]
    assert frame["allow_rollback"].tolist() == [True, True, False, True]
    assert story.flows()["n_tasks"].tolist() == [3, 1]
    assert story.flows()["created_by"].isna().tolist() == [False, True]


def test_jobs_count_and_time(story: gwf.Client) -> None:
    """A job that is open has no duration; the seconds are Float64 and exact."""
    frame = story.jobs()
    assert frame["status"].tolist() == ["completed", "failed", "pending"]
    assert frame["n_tasks"].tolist() == [3, 3, 1]
    assert frame["n_done"].tolist() == [3, 0, 0]
    assert frame["n_rollbacks"].tolist() == [1, 0, 0]
    assert frame["current_task_seq"].astype(object).fillna(0).tolist() == [0, 1, 1]
    assert frame["created_by"].astype(object).fillna(0).tolist() == [1, 0, 0]
    assert frame["flow_version"].tolist() == ["1.0.0", "1.0.0", "2"]
    assert seconds(frame, "duration_s") == [135.25, 0.0, None]
    begun = pd.Timestamp(BEGIN) + pd.Timedelta(hours=1)
    assert frame["started_at"].tolist()[0] == begun
    assert frame["completed_at"].tolist()[0] == begun + pd.Timedelta(seconds=135.25)


def test_job_tasks_show_the_current_attempt(story: gwf.Client) -> None:
    frame = story.job_tasks(job=1)
    assert frame["status"].tolist() == ["completed", "completed", "skipped"]
    assert frame["attempt"].tolist() == [2, 2, 1]
    assert frame["operator_id"].astype(object).fillna(0).tolist() == [101, 0, 9]
    assert seconds(frame, "wait_s") == [10.0, 0.0, None]
    assert seconds(frame, "work_s") == [0.0, 0.0, None]


def test_attempts_include_the_superseded_ones(story: gwf.Client) -> None:
    """Ordered by sequence and attempt; what was sent back keeps its result, people and times."""
    frame = story.attempts(job=1)
    assert frame["task_name"].tolist() == ["需求评审"] * 2 + ["代码开发"] * 2 + ["部署"]
    assert frame["attempt"].tolist() == [1, 2, 1, 2, 1]
    assert frame["status"].tolist() == [
        "rolled_back",
        "completed",
        "rolled_back",
        "completed",
        "skipped",
    ]
    assert frame["operator_id"].astype(object).fillna(0).tolist() == [100, 101, 0, 0, 9]
    assert frame["result"].tolist()[0] == {"approved": True}
    assert seconds(frame, "wait_s") == [60.0, 10.0, 30.0, 0.0, None]
    assert seconds(frame, "work_s") == [0.25, 0.0, 30.0, 0.0, None]
    assert frame["due_at"].isna().all()
    pd.testing.assert_frame_equal(story.job(1).attempts(), frame)


def test_results_tell_none_from_a_value(story: gwf.Client) -> None:
    """A result that is None is missing, also one that was given; others are Python objects."""
    frame = story.attempts(job=1)
    assert frame["result"].tolist()[1:] == [None, None, ["ok", None], {"status": "skipped"}]
    failed = story.job_tasks(job=2).iloc[0]
    assert (failed["error_code"], failed["error_message"]) == ("denied", "权限不足")
    assert frame[["error_code", "error_message"]].isna().all(axis=None)


def test_logs_are_in_the_order_written(story: gwf.Client) -> None:
    frame = story.logs(job=1)
    assert frame["log_id"].is_monotonic_increasing
    assert frame["action"].tolist()[:4] == ["create", "start", "start", "complete"]
    assert frame["job_task_id"].isna().tolist()[:4] == [True, True, False, False]
    assert frame["task_name"].isna().tolist()[:4] == [True, True, False, False]
    sent = frame[(frame["action"] == "rollback") & frame["job_task_id"].isna()].iloc[0]
    assert (sent["message"], sent["operator_id"], sent["to_status"]) == ("接口要改", 100, "running")
    assert sent["metadata"]["target"] == 1
    assert frame["created_at"].iloc[0] == pd.Timestamp(BEGIN)


def test_context_shows_what_is_in_force_or_everything(story: gwf.Client) -> None:
    """The values of the attempt that was sent back are superseded (rule R7)."""
    frame = story.context(1)
    assert dict(zip(frame["key"], frame["value"], strict=True)) == {"env": "prod"}
    every = story.context(1, superseded=True)
    assert every[["key", "value"]].values.tolist() == [
        ["env", "dev"],
        ["env", "test"],
        ["build", 7],
        ["env", "prod"],
    ]
    assert every["superseded_at"].isna().tolist() == [True, False, False, True]
    assert every["attempt"].astype(object).fillna(0).tolist() == [0, 1, 1, 0]


def test_jobs_are_filtered_by_status_and_flow(story: gwf.Client) -> None:
    """A name stands for every version of a flow, an id or an object for one."""

    def ids(**filters: Any) -> list[int]:
        return story.jobs(**filters)["job_id"].tolist()

    assert ids(status="failed") == [2]
    assert ids(status=["pending", gwf.JobStatus.COMPLETED]) == [1, 3]
    assert ids(flow="功能开发") == [1, 2, 3]
    assert ids(flow=1) == [1, 2]
    assert ids(flow=story.flow(2)) == [3]
    assert ids(flow=1, status="pending") == []


def test_frames_are_filtered_by_time(story: gwf.Client) -> None:
    """``since`` is included and ``until`` is not, at the microsecond; a date begins in UTC."""

    def ids(**filters: Any) -> list[int]:
        return story.jobs(**filters)["job_id"].tolist()

    just = timedelta(microseconds=1)
    assert ids(since=BEGIN) == [1, 2, 3]
    assert ids(since=BEGIN + just) == [2, 3]
    assert ids(until=BEGIN) == []
    assert ids(until=BEGIN + just) == [1]
    assert ids(since=date(2026, 11, 3)) == ids(since="2026-11-03") == [2, 3]
    assert ids(until=BEGIN.astimezone(timezone(timedelta(hours=8))) + just) == [1]
    assert story.attempts(since="2026-11-03")["job_id"].unique().tolist() == [2, 3]
    assert story.job_tasks(until="2026-11-03")["job_id"].unique().tolist() == [1]
    assert story.logs(since=BEGIN, until=BEGIN + just)["action"].tolist() == ["create"]


def test_frames_are_filtered_by_job_status_and_action(story: gwf.Client) -> None:
    job = story.job(1)
    assert story.job_tasks(job=job)["job_id"].unique().tolist() == [1]
    assert story.attempts(status="rolled_back")["attempt"].tolist() == [1, 1]
    assert story.job_tasks(status=["failed", "skipped"])["job_id"].tolist() == [1, 2]
    assert set(story.logs(action=["fail", "skip"])["action"]) == {"fail", "skip"}
    assert story.logs(flow=2)["job_id"].tolist() == [3]
    assert story.logs(job=2, action="fail")["job_task_id"].isna().tolist() == [False, True]
    assert story.tasks(is_active=True)["task_id"].tolist() == [1, 2, 3]


@pytest.mark.parametrize("noun", ["tasks", "flows", "flow_tasks", "jobs", "attempts", "logs"])
def test_frame_says_that_it_is_cut(story: gwf.Client, noun: str) -> None:
    """A frame that hits its limit warns, says so in its attributes and in both its reprs."""
    with pytest.warns(UserWarning, match=r"first 1 rows.*limit=None"):
        frame = getattr(story, noun)(limit=1)
    assert len(frame) == 1
    assert (frame.attrs["gwf"]["limit"], frame.attrs["gwf"]["is_cut"]) == (1, True)
    assert "limit=None" in repr(frame)
    assert "limit=None" in frame._repr_html_()
    assert type(frame.head()) is pd.DataFrame
    pd.testing.assert_frame_equal(pd.DataFrame(frame), getattr(story, noun)().head(1))


def test_frame_of_the_newest_jobs(story: gwf.Client) -> None:
    """``newest`` keeps the last rows, in the usual order; the warning points at the caller."""
    with pytest.warns(UserWarning, match="last 2 rows") as warned:
        frame = story.jobs(limit=2, newest=True)
    assert frame["job_id"].tolist() == [2, 3]
    assert warned[0].filename == __file__
    pd.testing.assert_frame_equal(story.jobs(newest=True), story.jobs())
    with pytest.raises(gwf.Invalid, match="newest"):
        story.jobs(newest="yes")


@pytest.mark.parametrize("limit", [3, 4, 100, None])
def test_frame_is_whole_when_the_limit_is_not_reached(story: gwf.Client, limit: int | None) -> None:
    """As many rows as the limit are not cut: no warning, and a plain DataFrame."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frame = story.jobs(limit=limit)
    assert (len(frame), type(frame)) == (3, pd.DataFrame)
    assert frame.attrs["gwf"]["is_cut"] is False
    assert "limit" not in repr(frame)


def test_frame_is_cut_to_nothing_by_a_limit_of_zero(story: gwf.Client) -> None:
    with pytest.warns(UserWarning, match="first 0 rows"):
        frame = story.jobs(limit=0)
    assert (len(frame), frame.attrs["gwf"]["is_cut"]) == (0, True)


def test_frame_knows_when_and_how_it_was_read(story: gwf.Client) -> None:
    """The attributes say the database's time and the filters."""
    frame = story.jobs(status="failed", flow="功能开发")
    about = frame.attrs["gwf"]
    assert datetime.fromisoformat(about["as_of"]) == BEGIN + timedelta(seconds=90136.25)
    assert about["filters"]["status"] == "['failed']"
    assert about["filters"]["flow_ids"] == "[2, 1]"
    assert "until" not in about["filters"]


def test_frame_is_ordered_by_id_and_sequence(wf: gwf.Client) -> None:
    """Also where the tasks of a job were not created in the order of their sequences."""
    a, b, c = (wf.create_task(name) for name in "abc")
    steps = [gwf.Step(a, sequence=9), gwf.Step(b, sequence=1), gwf.Step(c, sequence=5)]
    flow = wf.create_flow("f", steps)
    wf.create_jobs(flow, ["y", "x"])
    assert wf.job_tasks()["task_name"].tolist() == ["b", "c", "a"] * 2
    assert wf.attempts()["job_name"].tolist() == ["y"] * 3 + ["x"] * 3
    assert wf.jobs()["job_name"].tolist() == ["y", "x"]


def test_users_hold_their_roles_in_one_row(wf: gwf.Client) -> None:
    """One row per person; an empty directory has the same dtypes."""
    nobody = wf.users()
    wf.users.add("李雷", roles=["PM", "Tech Lead"], display_name="李 雷")
    wf.users.add("韩梅梅")
    frame = wf.users()
    assert frame["name"].tolist() == ["李雷", "韩梅梅"]
    assert frame["roles"].tolist() == [["PM", "Tech Lead"], []]
    assert nobody.empty
    assert nobody.dtypes.to_dict() == frame.dtypes.to_dict()
