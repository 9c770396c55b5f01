"""Show that the sample data are as published, and that a history is what the engine leaves."""

from __future__ import annotations

import doctest
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd
import pytest

import gwf
from gwf.testing import FixedClock, clock, flows, sample_flows, sample_history, scratch_client
from gwf.testing.office import SHANGHAI, after_office_hours

NOW = datetime(2026, 11, 20, 6, tzinfo=UTC)
INSTANTS = ["created_at", "started_at", "completed_at", "ready_at"]


def frames_of(wf: gwf.Client) -> dict[str, pd.DataFrame]:
    return {
        "jobs": wf.jobs(limit=None),
        "job_tasks": wf.job_tasks(limit=None),
        "attempts": wf.attempts(limit=None),
        "logs": wf.logs(limit=None),
        "votes": wf.votes(limit=None),
    }


# The sample flows


def test_sample_flows_are_as_published(wf: gwf.Client) -> None:
    standard, hotfix = sample_flows(wf)
    steps = wf.flow_tasks(standard)
    assert (standard.name, standard.version, standard.description) == (
        "标准功能开发流程",
        "1.0.0",
        "完整的功能开发到上线流程",
    )
    assert standard.record.created_by == hotfix.record.created_by == 1
    assert steps["sequence"].tolist() == list(range(1, 11))
    assert steps["task_name"].tolist() == [task["name"] for task in flows.TASKS]
    assert steps.loc[steps["is_optional"], "task_name"].tolist() == ["集成测试"]
    assert steps.loc[~steps["allow_rollback"], "task_name"].tolist() == ["发布审批", "生产部署"]
    assert wf.flow_tasks(hotfix)["task_name"].tolist() == [
        "代码开发",
        "代码审查",
        "单元测试",
        "发布审批",
        "生产部署",
    ]
    assert wf.task("技术设计").config["required_sections"] == ["架构", "接口", "数据库"]
    assert wf.tasks()["task_type"].value_counts().to_dict() == {
        "automated": 4,
        "manual": 3,
        "approval": 3,
    }


def test_sample_flows_twice_creates_nothing(wf: gwf.Client) -> None:
    first = sample_flows(wf)
    again = sample_flows(wf)
    assert [flow.id for flow in first] == [flow.id for flow in again]
    assert (len(wf.tasks()), len(wf.flows()), len(wf.flow_tasks())) == (10, 2, 15)


def test_sample_flows_share_their_tasks_with_a_flow_that_was_there(wf: gwf.Client) -> None:
    """The one that is missing is made from the tasks of the other."""
    _, hotfix = sample_flows(wf)
    wf.delete_flow(hotfix)
    _, again = sample_flows(wf)
    assert len(wf.tasks()) == 10
    assert set(wf.flow_tasks(again)["task_id"]) <= set(wf.flow_tasks("标准功能开发流程")["task_id"])


def test_sample_flows_leave_a_task_of_the_same_name_alone(wf: gwf.Client) -> None:
    """A task of the user that happens to have the name does not become part of the sample."""
    mine = wf.create_task("代码开发", description="mine")
    standard, _ = sample_flows(wf)
    assert mine.id not in set(wf.flow_tasks(standard)["task_id"])
    assert wf.task(mine.id).description == "mine"


# The history


def test_sample_history_has_what_a_history_has(wf: gwf.Client) -> None:
    job_ids = sample_history(wf, n_jobs=300, now=NOW)
    frames = frames_of(wf)
    jobs, attempts = frames["jobs"], frames["attempts"]
    assert jobs["job_id"].tolist() == job_ids
    assert jobs["created_at"].is_monotonic_increasing
    assert set(jobs["status"]) >= {"completed", "running", "failed", "cancelled"}
    assert set(jobs["flow_name"]) == {"标准功能开发流程", "热修复流程"}
    assert (jobs["status"] == "completed").mean() > 0.7
    assert (attempts["status"] == "rolled_back").sum() > 100
    assert attempts["attempt"].max() > 2
    assert (attempts["status"] == "skipped").any()
    is_open = frames["job_tasks"]["job_id"].isin(jobs.loc[jobs["status"] == "running", "job_id"])
    assert frames["job_tasks"].loc[is_open, "sequence"].nunique() > 3
    assert pd.api.types.is_integer_dtype(attempts["operator_id"])


def test_sample_history_ends_now(url: str) -> None:
    """Nothing lies in the future; read later, a deadline that passed meanwhile would be applied."""
    with gwf.connect(url, clock=lambda: NOW) as wf:
        sample_history(wf, n_jobs=200, now=NOW, seed=3)
        told = frames_of(wf)
    for frame in told.values():
        for name in set(INSTANTS) & set(frame.columns):
            assert (frame[name].dropna() <= NOW).all()
    created = told["jobs"]["created_at"]
    assert (created >= NOW - timedelta(weeks=12, days=1)).all()
    local = created.dt.tz_convert("Asia/Shanghai")
    assert set(local.dt.day_of_week) <= set(range(5))
    assert local.dt.hour.between(9, 18).all()


def test_sample_history_keeps_the_invariants(wf: gwf.Client) -> None:
    sample_history(wf, n_jobs=300, now=NOW, seed=1)
    frames = frames_of(wf)
    jobs, tasks, attempts = frames["jobs"], frames["job_tasks"], frames["attempts"]
    for earlier, later in (("ready_at", "started_at"), ("started_at", "completed_at")):
        both = attempts.dropna(subset=[earlier, later])
        assert (both[earlier] <= both[later]).all()
    by_job = tasks.groupby("job_id")
    n_done = by_job["status"].agg(lambda column: column.isin(["completed", "skipped"]).sum())
    assert n_done.tolist() == jobs["n_done"].tolist()
    assert by_job.size().tolist() == jobs["n_tasks"].tolist()
    unfinished = tasks[~tasks["status"].isin(["completed", "skipped"])]
    lowest = unfinished.groupby("job_id")["sequence"].min()
    assert lowest.to_dict() == jobs.set_index("job_id")["current_task_seq"].dropna().to_dict()
    is_over = jobs["status"].isin(["completed", "failed", "cancelled"])
    assert (jobs["completed_at"].notna() == is_over).all()
    assert (jobs["duration_s"].notna() <= is_over).all()
    per_task = attempts.groupby("job_task_id")["attempt"]
    assert (per_task.max() == per_task.size()).all()


def test_sample_history_is_what_the_engine_leaves() -> None:
    """Playing the log of the history through the real verbs gives the same rows, ids and all."""
    loaded = scratch_client(clock=lambda: NOW)
    sample_history(loaded, n_jobs=250, now=NOW)
    now = [NOW]
    played = scratch_client(clock=lambda: now[0])
    sample_flows(played)
    expected = frames_of(loaded)
    kinds = expected["logs"][["action", "from_status", "to_status"]].astype(str)
    assert len(kinds.drop_duplicates()) >= 20
    play(played, expected, now)
    found = frames_of(played)
    for frames in (expected, found):
        frames["logs"] = by_job(frames["logs"])
    for noun, frame in expected.items():
        pd.testing.assert_frame_equal(frame, found[noun])
    assert hidden_columns(loaded) == hidden_columns(played)


def by_job(logs: pd.DataFrame) -> pd.DataFrame:
    """Return the log job by job, since lots are loaded one after another."""
    ordered = logs.sort_values(["job_id", "log_id"], ignore_index=True)
    return ordered.drop(columns="log_id")


def hidden_columns(wf: gwf.Client) -> dict[str, list[Any]]:
    """Return the columns that no frame shows."""
    queries = {
        "jobs": "SELECT id, flow_version, max_rollbacks, resumed_at, elapsed_us, next_due_at, "
        "updated_at FROM jobs ORDER BY id",
        "job_tasks": "SELECT id, flow_task_id, config, is_optional, allow_rollback, is_skipped, "
        "condition_config, join_count, created_at, updated_at FROM job_tasks ORDER BY id",
        "job_task_attempts": "SELECT job_task_id, attempt, superseded_at FROM job_task_attempts "
        "ORDER BY job_task_id, attempt",
        "approvals": "SELECT job_task_id, attempt, needed, electorate, n_escalations, outcome, "
        "requested_at, decided_at FROM approvals ORDER BY job_task_id, attempt",
        "approval_seats": "SELECT job_task_id, attempt, seat, label, candidate, is_required, "
        "origin, principal_id, is_open, created_at, removed_at FROM approval_seats "
        "ORDER BY job_task_id, attempt, seat",
    }
    with wf.database.engine.connect() as conn:
        return {
            table: [tuple(row) for row in conn.exec_driver_sql(query)]
            for table, query in queries.items()
        }


def play(wf: gwf.Client, expected: dict[str, pd.DataFrame], now: list[datetime]) -> None:
    """Call the verbs that the log tells of, at the times that it tells."""
    names = expected["jobs"].set_index("job_id")[["job_name", "flow_id"]]
    results = expected["attempts"].set_index(["job_task_id", "attempt"])
    for row in expected["logs"].to_dict("records"):
        now[0] = row["created_at"].to_pydatetime()
        who, why, action = row["operator_id"], row["message"], str(row["action"])
        if pd.notna(row["job_task_id"]):
            play_task(wf, row, results.loc[(row["job_task_id"], row["attempt"])])
        elif action == "create":
            name, flow_id = names.loc[row["job_id"]]
            assert wf.create_job(int(flow_id), name, created_by=who).id == row["job_id"]
        elif action == "rollback":
            told = row["metadata"]
            wf.rollback_task(told["job_task_id"], to=told["target"], reason=why, operator=who)
        elif action in ("start", "resume"):
            getattr(wf, f"{action}_job")(row["job_id"], operator=who)
        elif action in ("pause", "cancel"):
            getattr(wf, f"{action}_job")(row["job_id"], reason=why, operator=who)


def play_task(wf: gwf.Client, row: dict[str, Any], outcome: Any) -> None:
    task, why, who = int(row["job_task_id"]), row["message"], {"operator": row["operator_id"]}
    verbs: dict[str, Callable[[], Any]] = {
        "start": lambda: wf.start_task(task, **who),
        "complete": lambda: wf.complete_task(task, outcome["result"], **who),
        "fail": lambda: wf.fail_task(task, why, error_code=outcome["error_code"], **who),
        "skip": lambda: wf.skip_task(task, reason=why, **who),
        "vote": lambda: wf.approve(task, comment=None if pd.isna(why) else why, **who),
        "retry": lambda: wf.retry_task(task, reason=why, **who),
    }
    is_approval = row["action"] == "complete" and outcome["task_type"] == "approval"
    if row["action"] in verbs and not is_approval:  # votes end an approval
        verbs[row["action"]]()


def test_sample_history_lets_the_engine_go_on(wf: gwf.Client) -> None:
    """Every job that is under way at the end can be finished by the verbs."""
    sample_history(wf, n_jobs=120, now=NOW, seed=5)
    jobs = wf.jobs(status=["pending", "running", "failed"])
    assert len(jobs) >= 5
    for job_id in jobs["job_id"]:
        finish(wf, int(job_id))
    assert set(wf.jobs()["status"]) == {"completed", "cancelled"}


def finish(wf: gwf.Client, job_id: int) -> None:
    job = wf.job(job_id)
    if job.status == "pending":
        job.start(operator=1)
    if job.is_paused:
        job.resume(operator=1)
    for task in wf.job_tasks(job=job).itertuples():
        if task.status == "failed":
            wf.retry_task(task.job_task_id, operator=1)
        elif task.status == "running":
            wf.complete_task(task.job_task_id, {"status": "approved"}, operator=1)
    while (due := job.next_task()) is not None:
        due.start(operator=1).complete({"status": "approved"})
    assert job.status == "completed"


def test_sample_history_repeats_in_any_database(url: str) -> None:
    """Seed, time and number decide everything but the ids, whatever the database holds."""
    wf = gwf.connect(url, clock=lambda: NOW)
    wf.create_task("something else")
    sample_history(wf, n_jobs=7, seed=9, now=NOW)
    other = scratch_client(clock=lambda: NOW)
    ids = ["log_id", "vote_id", "job_id", "job_task_id", "flow_id", "task_id"]
    job_ids = sample_history(wf, n_jobs=120, seed=4, now=NOW)
    sample_history(other, n_jobs=120, seed=4, now=NOW)
    for noun, expected in frames_of(other).items():
        if noun == "logs":
            continue  # its messages hold ids
        found = frames_of(wf)[noun]
        found = found[found["job_id"].isin(job_ids)].reset_index(drop=True)
        drop = [name for name in ids if name in expected.columns]
        pd.testing.assert_frame_equal(found.drop(columns=drop), expected.drop(columns=drop))
    assert len(frames_of(wf)["jobs"]) == 127
    wf.close()


def test_sample_history_of_another_seed_is_another() -> None:
    spans = []
    for seed in (0, 1):
        wf = scratch_client()
        sample_history(wf, n_jobs=20, seed=seed, now=NOW)
        spans.append(wf.jobs()["created_at"].tolist())
    assert spans[0] != spans[1]


def test_sample_history_of_more_than_one_lot(wf: gwf.Client) -> None:
    """Ids stay right across the lots that are loaded one after another."""
    job_ids = sample_history(wf, n_jobs=500, now=NOW)
    tasks = wf.job_tasks(limit=None)
    assert len(job_ids) == 500
    assert tasks.groupby("job_id").size().isin([5, 10]).all()
    first = tasks.drop_duplicates("job_id").set_index("job_id")["task_name"]
    flow = wf.jobs(limit=None).set_index("job_id")["flow_name"]
    assert (first[flow == "热修复流程"] == "代码开发").all()
    assert (first[flow == "标准功能开发流程"] == "需求评审").all()


@pytest.mark.parametrize(
    "now",
    [
        datetime(2026, 11, 21, 3, tzinfo=UTC),
        datetime(2026, 11, 23, 0, tzinfo=UTC),
        datetime(2026, 11, 20, 15, tzinfo=UTC),
    ],
    ids=["on a Saturday", "before work", "after work"],
)
def test_sample_history_outside_office_hours(now: datetime) -> None:
    wf = scratch_client()
    sample_history(wf, n_jobs=30, now=now)
    assert (wf.logs()["created_at"] <= now).all()
    assert (wf.jobs()["status"] == "running").any()


@pytest.mark.parametrize("n_jobs", [0, 1, 3])
def test_sample_history_of_few_jobs(n_jobs: int) -> None:
    wf = scratch_client()
    assert len(sample_history(wf, n_jobs=n_jobs, now=NOW)) == n_jobs == len(wf.jobs())


@pytest.mark.parametrize(
    "wrong",
    [
        {"n_jobs": -1},
        {"n_jobs": 1.5},
        {"now": datetime(2026, 1, 1)},  # noqa: DTZ001 - naive is what is wrong with it
        {"now": None},
        {"weeks": 0},
    ],
)
def test_sample_history_refuses_bad_values(wrong: dict[str, Any]) -> None:
    wf = scratch_client()
    with pytest.raises(gwf.Invalid):
        sample_history(wf, **{"n_jobs": 1, "now": NOW, **wrong})
    assert len(wf.flows()) == 0


def test_sample_history_refuses_an_edited_flow() -> None:
    """Nobody knows how a job of another flow would have gone."""
    wf = scratch_client()
    standard, _ = sample_flows(wf)
    wf.update_flow(standard, steps=["代码开发", "代码审查"])
    with pytest.raises(gwf.Conflict, match="标准功能开发流程"):
        sample_history(wf, n_jobs=1, now=NOW)
    assert len(wf.jobs()) == 0


# Office time


@pytest.mark.parametrize(
    ("start", "hours", "end"),
    [
        ("2026-11-20 10:00", 2, "2026-11-20 12:00"),
        ("2026-11-20 17:00", 2, "2026-11-23 10:00"),
        ("2026-11-20 20:00", 1, "2026-11-23 10:00"),
        ("2026-11-21 12:00", 0.5, "2026-11-23 09:30"),
        ("2026-11-23 03:00", 0, "2026-11-23 09:00"),
        ("2026-11-23 10:00", -2, "2026-11-20 17:00"),
        ("2026-11-23 10:00", 45, "2026-11-30 10:00"),
    ],
)
def test_after_office_hours(start: str, hours: float, end: str) -> None:
    begun = datetime.fromisoformat(start).replace(tzinfo=SHANGHAI)
    assert after_office_hours(begun, hours).astimezone(SHANGHAI).isoformat(" ")[:16] == end


# Clock and client


def test_fixed_clock_goes_on_by_one_step() -> None:
    now = FixedClock(NOW, step=timedelta(seconds=2))
    assert [now() - NOW for _ in range(3)] == [timedelta(seconds=2 * n) for n in range(3)]
    now.advance(timedelta(hours=1))
    assert now() == NOW + timedelta(hours=1, seconds=6)


@pytest.mark.parametrize(
    ("start", "step"),
    [
        (datetime(2026, 1, 1), timedelta(1)),  # noqa: DTZ001 - naive is what is wrong with it
        ("2026-01-01", timedelta(1)),
        (NOW, timedelta(-1)),
        (NOW, 60),
    ],
)
def test_fixed_clock_refuses_bad_values(start: Any, step: Any) -> None:
    with pytest.raises(gwf.Invalid):
        FixedClock(start, step)


def test_scratch_clients_share_nothing() -> None:
    one, other = scratch_client(), scratch_client()
    one.create_task("review")
    assert len(other.tasks()) == 0


def test_scratch_client_takes_its_clock() -> None:
    wf = scratch_client(clock=FixedClock(NOW))
    assert wf.create_task("review").record.created_at >= NOW
    assert wf.create_task("review").record.created_at < NOW + timedelta(hours=1)


@pytest.mark.parametrize("module", [gwf.testing, clock, flows])
def test_examples_in_docstrings(module: Any) -> None:
    result = doctest.testmod(module, raise_on_error=True)
    assert result.attempted > 0
