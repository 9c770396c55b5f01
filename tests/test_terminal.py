"""Show that tables stand straight and shorten visibly, and that JSON holds everything."""

from __future__ import annotations

import json
import unicodedata
from datetime import timedelta

import pandas as pd
import pytest

from gwf import frames, schemas, terminal
from gwf.testing import FixedClock, sample_job, scratch_client

START = pd.Timestamp("2026-03-02 01:00", tz="UTC").to_pydatetime()


def columns_before(line: str, text: str) -> int:
    """Return how many columns of a terminal stand before the text."""
    before = line[: line.index(text)]
    return sum(1 + (unicodedata.east_asian_width(one) in "WF") for one in before)


def test_job_table_stands_straight_with_chinese_names() -> None:
    """The status begins in the same column of the terminal, whatever the names."""
    wf = scratch_client(clock=FixedClock(START))
    flow = wf.create_flow("审批 flow", [wf.create_task("需求")])
    for name in ("a", "功能-用户登录", "emoji 🎉 name", "é́combined"):
        wf.create_job(flow, name)
    lines = terminal.job_table(wf.jobs()).splitlines()
    assert len(lines) == 5
    assert len({columns_before(line, "pending") for line in lines[1:4]}) == 1
    assert columns_before(lines[0], "status") == columns_before(lines[1], "pending")


def test_job_table_says_that_a_job_is_paused() -> None:
    wf = scratch_client()
    job = wf.create_job(wf.create_flow("f", [wf.create_task("t")]), "j").start()
    job.pause()
    assert "running, paused" in terminal.job_table(wf.jobs())


def test_attempt_table_shows_the_send_back() -> None:
    clock = FixedClock(START)
    job = sample_job(scratch_client(clock=clock), clock=clock)
    lines = terminal.attempt_table(job.attempts()).splitlines()
    tested = [line.split() for line in lines if "QA测试" in line]
    assert [words[2:4] for words in tested] == [["1", "rolled_back"], ["2", "completed"]]
    assert "4.0 h" in terminal.attempt_table(job.attempts())


def test_tables_of_nothing_are_their_head() -> None:
    assert terminal.job_table(frames.empty(schemas.JOBS)).startswith("job  name")
    assert len(terminal.attempt_table(frames.empty(schemas.ATTEMPTS)).splitlines()) == 1


def test_tables_let_no_text_rule_the_terminal() -> None:
    """Control characters of an error message become spaces, and a long one ends in an ellipsis."""
    wf = scratch_client()
    job = wf.create_job(wf.create_flow("f", [wf.create_task("t")]), "j").start()
    job.task("t").start().fail("\x1b[31mred\nsecond line\u202e " + "长" * 50)
    table = terminal.attempt_table(job.attempts())
    assert len(table.splitlines()) == 2
    assert all(one.isprintable() for one in table.replace("\n", ""))
    assert table.endswith("…")


@pytest.mark.parametrize(
    ("span", "shown"),
    [(0.2, "0 s"), (59, "59 s"), (90, "1.5 min"), (5400, "1.5 h"), (2e5, "2.3 d")],
)
def test_spans_are_read_at_a_glance(span: float, shown: str) -> None:
    wf = scratch_client(clock=FixedClock(START, step=timedelta(0)))
    frame = sample_job(wf).attempts().head(1).assign(wait_s=span)
    assert shown in terminal.attempt_table(frame)


def test_as_json_holds_every_column_and_type() -> None:
    """Instants are RFC 3339 in UTC, numbers are numbers, and what is missing is null."""
    wf = scratch_client(clock=FixedClock(START))
    task = wf.create_task("t", config={"n": [1, {"x": None}], "是": True})
    job = wf.create_job(wf.create_flow("f", [task]), "j").start()
    job.task("t").start().complete({"list": [1, 2.5, "三"], "none": None})
    (row,) = json.loads(terminal.as_json(terminal.records(job.attempts())))
    assert list(row) == list(schemas.ATTEMPTS)
    assert row["result"] == {"list": [1, 2.5, "三"], "none": None}
    assert row["operator_id"] is None
    assert row["error_message"] is None
    assert row["attempt"] == 1
    assert row["status"] == "completed"
    assert row["started_at"].startswith("2026-03-02T01:")
    assert row["started_at"].endswith("+00:00")
    assert isinstance(row["work_s"], float)
    (listed,) = json.loads(terminal.as_json(terminal.records(wf.tasks())))
    assert listed["is_active"] is True


def test_as_json_of_nothing_is_an_empty_list() -> None:
    assert terminal.as_json(terminal.records(frames.empty(schemas.JOBS))) == "[]"


def test_as_json_opens_records_in_records() -> None:
    """What an explanation says about each waiting task is JSON too."""
    wf = scratch_client()
    job = wf.create_job(wf.create_flow("f", [wf.create_task("t")]), "j").start()
    told = json.loads(terminal.as_json(job.explain()))
    assert told["waiting"][0]["task_name"] == "t"
    assert told["waiting"][0]["legal"] == ["start_task"]
    assert told["as_of"].endswith("+00:00")
