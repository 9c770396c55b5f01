"""Figures show what the frame says: each bar, mark, arrow and word, in the zone asked for."""

from __future__ import annotations

import html
import json
import re
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from gwf import figures
from gwf.errors import Invalid
from gwf.figures import STATUS_COLOURS, timeline, write_page

IDS = ["job_task_id", "job_id", "flow_id", "sequence", "task_id", "attempt"]
TEXT = ["job_name", "flow_name", "task_name", "error_code", "error_message"]
TIMES = ["ready_at", "started_at", "completed_at", "due_at"]
COLUMNS = [
    *("job_task_id", "job_id", "job_name", "flow_id", "flow_name", "sequence", "task_id"),
    *("task_name", "task_type", "status", "attempt", "operator_id", "result", "error_code"),
    *("error_message", *TIMES, "wait_s", "work_s"),
]
STATUSES = ["pending", "running", "completed", "failed", "skipped", "rolled_back"]
BEGIN = datetime(2026, 3, 2, 8, tzinfo=UTC)
HOUR_MS = 3_600_000.0
EVIL = [
    "<img src=x onerror=alert(1)>",
    "<b>x</b>",
    "a %{x} b",
    "$latex$",
    '<a href="javascript:alert(1)">y</a>',
    "&lt;b&gt; & \"double\" 'single'",
]


def frame_of(*rows: dict[str, Any]) -> pd.DataFrame:
    """Return the rows as the frame ``attempts`` has them; what a row leaves out has a default."""
    default = {"job_id": 1, "flow_id": 1, "task_id": 1, "attempt": 1, "job_name": "Order"}
    frame = pd.DataFrame([default | row for row in rows], columns=COLUMNS)
    for name in IDS:
        frame[name] = frame[name].astype("int64")
    for name in TEXT:
        frame[name] = frame[name].astype("str")
    for name in TIMES:
        frame[name] = pd.to_datetime(frame[name], utc=True).astype("datetime64[us, UTC]")
    frame["operator_id"] = frame["operator_id"].astype("Int64")
    frame["result"] = frame["result"].astype(object)
    frame["status"] = pd.Categorical(frame["status"], STATUSES)
    frame["task_type"] = pd.Categorical(frame["task_type"], ["manual", "automated", "approval"])
    return frame.astype({"wait_s": "Float64", "work_s": "Float64"})


def at(hours: float | None) -> datetime | None:
    return None if hours is None else BEGIN + timedelta(hours=hours)


def row(job_task_id: int, status: str, *hours: float | None, **more: Any) -> dict[str, Any]:
    """Return one attempt; the hours are those at which it was due, started and completed."""
    ready, started, done = hours
    times = {"ready_at": at(ready), "started_at": at(started), "completed_at": at(done)}
    task = {"job_task_id": job_task_id, "task_name": f"task {job_task_id}"}
    return task | {"sequence": job_task_id, "status": status} | times | more


def draw(*rows: dict[str, Any], **options: Any) -> dict[str, list[dict[str, Any]]]:
    """Return the traces of the timeline by name, as a browser would get them."""
    options = {"now": at(100)} | options
    traces: dict[str, list[dict[str, Any]]] = {}
    for trace in timeline(frame_of(*rows), **options).data:
        plain = {key: _plain(value) for key, value in trace.to_plotly_json().items()}
        traces.setdefault(trace.name, []).append(plain)
    return traces


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray) and value.dtype.kind == "M":
        return np.datetime_as_string(value, unit="m").tolist()
    return value.tolist() if isinstance(value, np.ndarray) else value


def the_bar(traces: dict[str, list[dict[str, Any]]], name: str) -> dict[str, Any]:
    (bar,) = (trace for trace in traces[name] if trace["type"] == "bar")
    return bar


def labels_of(figure: Any) -> list[str]:
    alias = figure.layout.yaxis.labelalias
    return [alias[str(y)] for y in range(len(alias))]


def arrows_of(traces: dict[str, list[dict[str, Any]]]) -> list[tuple[str, int, int]]:
    """Return when each send-back was, the row it left, and the row it went to."""
    (trace,) = traces.get("sent back", [{"x": [], "y": []}])
    x, y = trace["x"], trace["y"]
    return [(x[i], y[i + 1], y[i]) for i in range(0, len(x), 3)]


SENT_BACK = (
    row(1, "rolled_back", 0, 1, 2),
    row(1, "completed", 8, 9, 10, attempt=2),
    row(2, "rolled_back", 2, 3, 4),
    row(2, "completed", 10, 11, 12, attempt=2),
    row(3, "rolled_back", 4, 5, 8),
    row(3, "running", 12, 13, None, attempt=2),
)


def many_jobs(n_jobs: int, n_tasks: int) -> pd.DataFrame:
    """Return jobs of so many completed tasks each, which gives two bars per task."""
    n = n_jobs * n_tasks
    job, step = np.divmod(np.arange(n), n_tasks)
    frame = frame_of(row(1, "completed", 0, 1, 2)).iloc[np.zeros(n, dtype=int)]
    frame = frame.reset_index(drop=True)
    start = pd.Series(BEGIN, frame.index).astype("datetime64[us, UTC]")
    start += pd.to_timedelta(job + 3 * step, unit="h")
    return frame.assign(
        job_task_id=np.arange(n) + 1,
        job_id=job + 1,
        sequence=step + 1,
        ready_at=start,
        started_at=start + pd.Timedelta(hours=1),
        completed_at=start + pd.Timedelta(hours=2),
    )


def test_give_each_status_a_colour_of_its_own() -> None:
    assert {*STATUSES, "cancelled"} == set(STATUS_COLOURS)
    assert len(set(STATUS_COLOURS.values())) == len(STATUS_COLOURS)
    assert all(re.fullmatch("#[0-9A-F]{6}", colour) for colour in STATUS_COLOURS.values())


@pytest.mark.parametrize("frame", [frame_of(), pd.DataFrame(columns=COLUMNS)])
def test_draw_an_empty_frame(frame: pd.DataFrame) -> None:
    """A frame without rows says so in words, instead of an error or an empty plot."""
    figure = timeline(frame, title="<b>x</b>")
    assert [note.text for note in figure.layout.annotations] == ["no attempts yet"]
    assert figure.layout.title.text == "&lt;b&gt;x&lt;/b&gt;"
    assert not figure.data


def test_draw_waiting_thin_and_work_solid() -> None:
    traces = draw(row(1, "completed", 0, 2, 5))
    waiting, work = the_bar(traces, "waiting"), the_bar(traces, "completed")
    assert (waiting["base"], waiting["x"]) == (["2026-03-02T08:00"], [2 * HOUR_MS])
    assert (work["base"], work["x"]) == (["2026-03-02T10:00"], [3 * HOUR_MS])
    assert waiting["width"][0] < work["width"][0] / 3
    assert waiting["marker"]["color"] == STATUS_COLOURS["pending"]
    assert work["marker"]["color"] == STATUS_COLOURS["completed"]
    assert work["orientation"] == "h"
    assert work["marker"]["line"]["width"] == 0
    assert "pattern" not in work["marker"]


def test_draw_open_work_hatched_to_now() -> None:
    traces = draw(row(1, "running", 0, 2, None), row(2, "pending", 1, None, None), now=at(6))
    running, pending = the_bar(traces, "running"), the_bar(traces, "pending")
    assert (running["base"], running["x"]) == (["2026-03-02T10:00"], [4 * HOUR_MS])
    assert (pending["base"], pending["x"]) == (["2026-03-02T09:00"], [5 * HOUR_MS])
    assert running["marker"]["pattern"]["shape"] == pending["marker"]["pattern"]["shape"] == "/"


def test_draw_now_in_any_zone_of_its_own() -> None:
    """``now`` is an instant: the zone that it was written in changes nothing."""
    elsewhere = (BEGIN + timedelta(hours=6)).astimezone(timezone(timedelta(hours=8)))
    one = timeline(frame_of(row(1, "running", 0, 2, None)), now=at(6)).to_json()
    assert timeline(frame_of(row(1, "running", 0, 2, None)), now=elsewhere).to_json() == one


def test_draw_no_bar_for_what_is_not_due() -> None:
    """A task that is not due has a row and a word, at the end of what is drawn, and no bar."""
    traces = draw(row(1, "running", 0, 1, None), row(2, "pending", None, None, None), now=at(6))
    assert list(traces) == ["waiting", "running", "status"]
    (words,) = traces["status"]
    assert words["x"] == ["2026-03-02T14:00"] * 2
    assert [text.strip() for text in words["text"]] == ["running", "pending"]


def test_draw_a_line_at_now_only_if_something_is_open() -> None:
    done, running = row(1, "completed", 0, 1, 2), row(2, "running", 2, 3, None)
    assert not timeline(frame_of(done), now=at(6)).layout.shapes
    (line,) = timeline(frame_of(done, running), now=at(6)).layout.shapes
    assert line.label.text == "now"
    assert line.x0 == line.x1 == pd.Timestamp("2026-03-02T14:00")


def test_order_rows_by_job_sequence_and_name() -> None:
    """The first is at the top, whatever the order of the frame; a header names each job."""
    frame = frame_of(
        row(4, "completed", 0, 1, 2, job_id=2, sequence=1, job_name="Second"),
        row(2, "completed", 0, 1, 2, sequence=2, task_name="b"),
        row(3, "completed", 0, 1, 2, sequence=2, task_name="a"),
        row(1, "completed", 0, 1, 2, sequence=10, task_name="z"),
    )
    figure = timeline(frame, now=at(9))
    assert labels_of(figure) == [
        "<b>1 · Order</b>",
        "2. a",
        "2. b",
        "10. z",
        "<b>2 · Second</b>",
        "1. task 4",
    ]
    assert figure.layout.yaxis.range == (5.5, -0.5)
    assert sorted(figure.data[0].y.tolist()) == [1, 2, 3, 5]


def test_draw_one_job_without_a_header() -> None:
    figure = timeline(frame_of(row(1, "completed", 0, 1, 2)), now=at(9))
    assert labels_of(figure) == ["1. task 1"]


def test_leave_the_frame_as_it_was() -> None:
    frame = frame_of(*SENT_BACK)
    before = frame.copy(deep=True)
    timeline(frame, now=at(20))
    pd.testing.assert_frame_equal(frame, before)


def test_number_the_attempts_of_a_task_with_several() -> None:
    traces = draw(
        row(1, "failed", 0, 1, 2),
        row(1, "completed", 2, 3, 4, attempt=2),
        row(2, "completed", 4, 5, 6),
        row(3, "running", 6, 7, None, attempt=2),
    )
    assert the_bar(traces, "failed")["text"] == ["#1"]
    assert the_bar(traces, "completed")["text"] == ["#2", ""]
    assert the_bar(traces, "running")["text"] == ["#2"]
    (words,) = traces["status"]
    assert [text.strip() for text in words["text"]] == ["completed #2", "completed", "running #2"]


def test_say_the_status_in_words_behind_each_row() -> None:
    """Colour is not the only cue: the word stands where the last attempt ends."""
    traces = draw(*SENT_BACK, now=at(20))
    (words,) = traces["status"]
    assert words["y"] == [0, 1, 2]
    assert words["x"] == ["2026-03-02T18:00", "2026-03-02T20:00", "2026-03-03T04:00"]
    assert words["text"][2].strip() == "running #2"


def test_leave_room_for_the_words() -> None:
    """Words reach beyond the last end by a fifth; without words, there is almost no margin."""
    for n_jobs, least in ((50, 0.19), (500, 0.01)):
        frame = many_jobs(n_jobs, 6)
        figure = timeline(frame, now=at(9000))
        first, last = frame["ready_at"].min(), frame["completed_at"].max()
        room = (figure.layout.xaxis.range[1].tz_localize("UTC") - last) / (last - first)
        assert least <= room <= least * 2
        assert (n_jobs == 50) == any(trace.name == "status" for trace in figure.data)


def test_say_that_open_work_is_overdue() -> None:
    traces = draw(
        row(1, "completed", 0, 1, 9, due_at=at(5)),
        row(2, "running", 0, 1, None, due_at=at(5)),
        row(3, "running", 0, 1, None, due_at=at(50)),
        now=at(10),
    )
    (words,) = traces["status"]
    assert [text.strip() for text in words["text"]] == ["completed", "running, overdue", "running"]


def test_mark_failures_and_skips_by_shape() -> None:
    """A skip has no bar of work, so the diamond shows it where it was decided."""
    traces = draw(
        row(1, "failed", 0, 1, 2),
        row(2, "skipped", 2, None, 4),
        row(3, "rolled_back", 4, None, 5),
    )
    marks = {name: traces[name][-1] for name in ("failed", "skipped", "rolled back")}
    assert [mark["x"] for mark in marks.values()] == [
        ["2026-03-02T10:00"],
        ["2026-03-02T12:00"],
        ["2026-03-02T13:00"],
    ]
    assert [mark["marker"]["symbol"] for mark in marks.values()] == ["x", "diamond", "diamond"]
    assert marks["skipped"]["marker"]["color"] == STATUS_COLOURS["skipped"]


def test_mark_bars_too_short_to_see() -> None:
    """A second within a month is narrower than a pixel; a dot of fixed size shows it."""
    traces = draw(row(1, "completed", 0, 0, 1 / 3600), row(2, "running", 0, 1, None), now=at(700))
    (bar, dot) = traces["completed"]
    assert bar["x"] == [1000.0]
    assert (dot["mode"], dot["marker"]["symbol"], dot["y"]) == ("markers", "square", [0])


def test_name_each_status_once_in_the_legend() -> None:
    figure = timeline(frame_of(*SENT_BACK, row(4, "failed", 0, 1, 2)), now=at(20))
    shown = [trace.name for trace in figure.data if trace.showlegend]
    assert shown == ["waiting", "running", "completed", "failed", "rolled back", "sent back"]


def test_draw_an_arrow_for_a_send_back() -> None:
    """It leads from the row that was sent back to its target, when the target is due again."""
    assert arrows_of(draw(*SENT_BACK)) == [("2026-03-02T16:00", 2, 0)]
    (trace,) = draw(*SENT_BACK)["sent back"]
    assert trace["marker"]["symbol"] == "triangle-up"
    assert trace["hovertext"][0] == "sent back from task 3<br>to task 1<br>2026-03-02T16:00:00"


def test_draw_no_arrow_for_a_retry() -> None:
    assert (
        arrows_of(draw(row(1, "failed", 0, 1, 2), row(1, "running", 2, 3, None, attempt=2))) == []
    )


def test_draw_a_send_back_that_came_long_after_the_failure() -> None:
    """The caller had failed at 8, but it was sent back when its target was due again, at 20."""
    rows = (
        row(1, "rolled_back", 0, 1, 2),
        row(1, "pending", 20, None, None, attempt=2),
        row(2, "rolled_back", 2, 3, 8),
        row(2, "rolled_back", None, None, None, attempt=2),
    )
    assert arrows_of(draw(*rows)) == [("2026-03-03T04:00", 1, 0)]


def test_draw_one_arrow_for_each_of_several_send_backs() -> None:
    """First from 4 to 3, then from 3 to 1: task 2 was rolled back by the second one only."""
    rows = (
        row(1, "rolled_back", 0, 0.5, 1),
        row(1, "running", 9, 9.5, None, attempt=2),
        row(2, "rolled_back", 1, 1.5, 2),
        row(2, "pending", None, None, None, attempt=2),
        row(3, "rolled_back", 2, 2.5, 3),
        row(3, "rolled_back", 5, 6, 9, attempt=2),
        row(3, "rolled_back", None, None, None, attempt=3),
        row(4, "rolled_back", 3, 4, 5),
        row(4, "pending", None, None, None, attempt=2),
    )
    assert arrows_of(draw(*rows)) == [("2026-03-02T13:00", 3, 2), ("2026-03-02T17:00", 2, 0)]


def test_draw_a_send_back_by_a_task_whose_successor_was_due_at_once() -> None:
    """When 3 is done again, 4 is due again at the same instant: that is no send-back to 4."""
    rows = (
        row(2, "rolled_back", 0, 1, 2),
        row(2, "rolled_back", 6, 7, 8, attempt=2),
        row(2, "running", 11, 11, None, attempt=3),
        row(3, "rolled_back", 2, 3, 4),
        row(3, "rolled_back", 8, 9, 10, attempt=2),
        row(3, "pending", None, None, None, attempt=3),
        row(4, "rolled_back", 4, 5, 6),
        row(4, "pending", 10, None, None, attempt=2),
    )
    assert arrows_of(draw(*rows)) == [("2026-03-02T14:00", 2, 0), ("2026-03-02T19:00", 1, 0)]


def test_draw_the_send_back_of_a_paused_job() -> None:
    """Nothing is due again, so the arrow stands where the attempt that was sent back ended."""
    rows = (
        row(1, "rolled_back", 0, 1, 2),
        row(1, "pending", None, None, None, attempt=2),
        row(2, "rolled_back", 2, 3, 4),
        row(2, "rolled_back", None, None, None, attempt=2),
    )
    assert arrows_of(draw(*rows)) == [("2026-03-02T12:00", 1, 0)]


def test_draw_the_arrow_from_the_caller_not_from_its_cancelled_sibling() -> None:
    rows = (
        row(1, "rolled_back", 0, 1, 2),
        row(1, "running", 6, 7, None, attempt=2),
        row(2, "rolled_back", 2, 3, 6, sequence=2, error_code="cancelled"),
        row(2, "pending", None, None, None, attempt=2, sequence=2),
        row(3, "rolled_back", 2, 3, 6, sequence=2),
        row(3, "rolled_back", None, None, None, attempt=2, sequence=2),
        row(4, "rolled_back", 2, 3, 6, sequence=2, error_code="cancelled"),
        row(4, "pending", None, None, None, attempt=2, sequence=2),
    )
    assert arrows_of(draw(*rows)) == [("2026-03-02T14:00", 2, 0)]


def test_draw_the_arrow_from_the_highest_of_those_that_ended_at_once() -> None:
    rows = (
        row(1, "rolled_back", 0, 1, 2),
        row(1, "running", 6, 7, None, attempt=2),
        row(2, "rolled_back", 2, 2, 2),
        row(3, "rolled_back", 2, 2, 2),
    )
    assert arrows_of(draw(*rows)) == [("2026-03-02T14:00", 2, 0)]


def test_draw_a_send_back_within_one_row_as_a_head_alone() -> None:
    frame = many_jobs(50, 6)
    frame["status"] = frame["status"].where(frame["sequence"] > 2, "rolled_back")
    (trace,) = (t for t in timeline(frame, now=at(300)).data if t.name == "sent back")
    assert trace.marker.symbol == "triangle-left"
    assert trace.y[:3].tolist() == [0, 0, 0]


def test_draw_send_backs_of_each_job_apart() -> None:
    other = [step | {"job_id": 2, "job_task_id": step["job_task_id"] + 10} for step in SENT_BACK]
    assert arrows_of(draw(*SENT_BACK, *other)) == [
        ("2026-03-02T16:00", 3, 1),
        ("2026-03-02T16:00", 7, 5),
    ]


@pytest.mark.parametrize("text", EVIL)
def test_show_what_people_typed_as_text(text: str) -> None:
    """Plotly reads tags, entities, templates and TeX: nothing of them may be left in any text."""
    shown = html.escape(text).replace("&quot;", "&#34;").replace("$", "&#36;").replace("%", "&#37;")
    typed = {"task_name": text, "job_name": text, "error_code": text, "error_message": text}
    rows = [row(i, "failed", 0, 1, 2, job_id=i, result={"k": text}, **typed) for i in (1, 2)]
    rows += [step | {"task_name": text, "job_name": text} for step in SENT_BACK]
    figure = timeline(frame_of(*rows), now=at(9), title=text)
    texts = [figure.layout.title.text, *labels_of(figure)]
    for trace in figure.data:
        texts += [*(trace.hovertext if trace.hovertext is not None else [])]
    assert figure.layout.title.text == shown
    assert any(shown[:10] in label for label in labels_of(figure))
    for one in texts:
        bare = re.sub("</?b>|<br>", "", one)
        assert "<" not in bare
        assert "$" not in one
        assert "%" not in one
        assert "&quot;" not in one  # plotly shows this entity as it stands
    assert html.unescape(shown) == text


def test_say_in_the_hover_what_who_when_and_how_long() -> None:
    traces = draw(
        row(1, "rolled_back", 0, 2, 50.5, operator_id=7, attempt=2, due_at=at(60), result={"a": 1})
    )
    assert the_bar(traces, "rolled back")["hovertext"] == [
        "<b>task 1</b><br>Order (job 1)<br>attempt 2: rolled back, operator 7"
        "<br>ready 2026-03-02 08:00:00, waited 2 h 0 min"
        "<br>started 2026-03-02 10:00:00, worked 2 d 0 h"
        "<br>ended 2026-03-04 10:30:00<br>due 2026-03-04 20:00:00"
        "<br>result {&#x27;a&#x27;: 1}"
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 ms"), (0.25, "250 ms"), (7.9, "7 s"), (61, "1 min 1 s"), (86_399, "23 h 59 min")],
)
def test_say_how_long_in_words(seconds: float, text: str) -> None:
    traces = draw(row(1, "completed", 0, 0, seconds / 3600))
    assert f", worked {text}<br>" in the_bar(traces, "completed")["hovertext"][0]


@pytest.mark.parametrize("result", ["x" * 5_000, {"k": "x" * 5_000}, ["x" * 5_000], "批" * 5_000])
def test_shorten_a_long_result_in_the_hover(result: object) -> None:
    (text,) = the_bar(draw(row(1, "completed", 0, 1, 2, result=result)), "completed")["hovertext"]
    shown = text.split("<br>result ")[1]
    assert shown.endswith("…")
    assert len(html.unescape(shown)) <= 80


def test_shorten_a_long_name_in_the_label_only() -> None:
    """A Chinese character is as wide as two Latin ones, so half as many fit."""
    frame = frame_of(
        row(1, "completed", 0, 1, 2, task_name="n" * 60),
        row(2, "completed", 0, 1, 2, task_name="审" * 30),
        row(3, "completed", 0, 1, 2, task_name="审" * 14),
    )
    figure = timeline(frame, now=at(9))
    assert labels_of(figure) == [f"1. {'n' * 27}…", f"2. {'审' * 13}…", f"3. {'审' * 14}"]
    assert figure.data[0].hovertext[0].startswith(f"<b>{'n' * 60}</b>")


def instants(*times: str) -> dict[str, pd.Timestamp]:
    names = ("ready_at", "started_at", "completed_at")
    return {name: pd.Timestamp(time, tz="UTC") for name, time in zip(names, times, strict=False)}


def test_convert_times_when_clocks_go_forward() -> None:
    """Berlin, 2026-03-29: 02:00 is 03:00. Both ends stand at what the clock on the wall said."""
    times = instants("2026-03-28T23:00", "2026-03-29T00:30", "2026-03-29T01:30")
    traces = draw(row(1, "completed", 0, 0, 0) | times, tz="Europe/Berlin")
    bar = the_bar(traces, "completed")
    assert the_bar(traces, "waiting")["base"] == ["2026-03-29T00:00"]
    assert (bar["base"], bar["x"]) == (["2026-03-29T01:30"], [2 * HOUR_MS])
    assert traces["status"][0]["x"] == ["2026-03-29T03:30"]
    assert "worked 1 h 0 min<br>ended 2026-03-29 03:30:00" in bar["hovertext"][0]


def test_convert_an_open_end_after_clocks_went_forward() -> None:
    times = instants("2026-03-28T12:00", "2026-03-28T12:00") | {"completed_at": None}
    now = datetime(2026, 3, 29, 12, tzinfo=UTC)
    bar = the_bar(
        draw(row(1, "running", 0, 0, None) | times, tz="Europe/Berlin", now=now), "running"
    )
    assert (bar["base"], bar["x"]) == (["2026-03-28T13:00"], [25 * HOUR_MS])
    assert "worked 1 d 0 h" in bar["hovertext"][0]


def test_convert_times_when_clocks_go_back() -> None:
    """In the hour that the clocks repeat, an end stands before its start: no bar runs backwards."""
    times = instants("2026-10-24T22:00", "2026-10-25T00:50", "2026-10-25T01:10")
    traces = draw(row(1, "completed", 0, 0, 0) | times, tz="Europe/Berlin")
    bar, dot = traces["completed"]
    assert (bar["base"], bar["x"]) == (["2026-10-25T02:50"], [0.0])
    assert dot["x"] == ["2026-10-25T02:50"]
    assert "worked 20 min 0 s" in bar["hovertext"][0]


def test_name_the_zone_on_the_axis() -> None:
    figure = timeline(frame_of(*SENT_BACK), now=at(20), tz="Asia/Shanghai")
    assert figure.layout.xaxis.title.text == "time (Asia/Shanghai)"
    assert arrows_of(draw(*SENT_BACK, tz="Asia/Shanghai")) == [("2026-03-03T00:00", 2, 0)]


@pytest.mark.parametrize("tz", ["Mars/Olympus", "Europe", "", "../etc/localtime", "UTC+1"])
def test_refuse_an_unknown_zone(tz: str) -> None:
    with pytest.raises(Invalid, match=r"tz .* is not valid"):
        timeline(frame_of(*SENT_BACK), tz=tz)


def test_refuse_a_naive_now() -> None:
    with pytest.raises(Invalid, match="with a time zone"):
        timeline(frame_of(*SENT_BACK), now=datetime(2026, 3, 2))  # noqa: DTZ001  # that is the point


def test_refuse_a_frame_without_the_columns() -> None:
    with pytest.raises(Invalid, match="attempt"):
        timeline(frame_of(*SENT_BACK).drop(columns="attempt"))


def test_end_open_work_at_the_present_without_now() -> None:
    before = pd.Timestamp.now("UTC").tz_localize(None).floor("ms")
    figure = timeline(frame_of(row(1, "running", 0, 1, None)))
    bar = next(trace for trace in figure.data if trace.name == "running")
    end = pd.Timestamp(bar.base[0]) + pd.Timedelta(milliseconds=bar.x[0])
    assert before <= end <= pd.Timestamp.now("UTC").tz_localize(None)


def test_fit_any_theme_and_width() -> None:
    """Transparent, neutral, as wide as its place, and with fonts that have Chinese characters."""
    layout = timeline(frame_of(*SENT_BACK), now=at(20)).layout
    assert layout.paper_bgcolor == layout.plot_bgcolor == "rgba(0,0,0,0)"
    assert layout.autosize
    assert layout.width is None
    assert layout.font.family == "Noto Sans CJK SC, Microsoft YaHei, PingFang SC, sans-serif"


@pytest.mark.parametrize("background", ["#ffffff", "#111111"])
def test_contrast_with_both_backgrounds(background: str) -> None:
    """Text has at least 4 to 1, bars at least 2 to 1 (a word stands behind each bar)."""
    text = timeline(frame_of(*SENT_BACK), now=at(20)).layout.font.color
    assert contrast(text, background) >= 4
    assert all(contrast(colour, background) >= 2 for colour in STATUS_COLOURS.values())


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of two colours (WCAG 2.2, relative luminance)."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        red, green, blue = (
            part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
        )
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_grow_with_the_rows_within_bounds() -> None:
    heights = [timeline(many_jobs(1, n), now=at(9)).layout.height for n in (1, 10, 40, 300, 1000)]
    assert heights == sorted(heights)
    assert heights[1] - heights[0] == 9 * 26
    assert heights[-1] < 2_200


def test_draw_one_row_per_job_when_there_are_many() -> None:
    figure = timeline(many_jobs(50, 6), now=at(300))
    labels = labels_of(figure)
    assert len(labels) == 50
    assert labels[0] == "<b>1 · Order</b>"
    (words,) = (trace for trace in figure.data if trace.name == "status")
    assert len(words.text) == 50
    assert all(set(trace.y) <= set(range(50)) for trace in figure.data)


def test_draw_parallel_tasks_side_by_side_in_the_row_of_their_job() -> None:
    frame = many_jobs(50, 6).assign(sequence=1)
    bar = next(t for t in timeline(frame, now=at(300)).data if t.name == "completed")
    lanes = {(round(o, 3), round(o + w, 3)) for o, w in zip(bar.offset, bar.width, strict=True)}
    assert len(lanes) == 6
    ends = [edge for lane in sorted(lanes) for edge in lane]
    assert ends == sorted(ends)
    assert -0.5 <= ends[0] < ends[-1] <= 0.5


def test_say_what_is_most_urgent_in_a_job() -> None:
    """A failed task says more about its job than those that are done or not due."""
    frame = many_jobs(50, 6)
    status = frame["status"].where(frame["sequence"] != 5, "failed")
    frame["status"] = status.where(frame["sequence"] != 6, "pending")
    (words,) = (trace for trace in timeline(frame, now=at(300)).data if trace.name == "status")
    assert {text.strip() for text in words.text} == {"failed"}


def test_draw_up_to_the_limit_as_bars() -> None:
    figure = timeline(many_jobs(50, 50), now=at(300))
    bars = [trace for trace in figure.data if trace.type == "bar"]
    assert sum(len(bar.x) for bar in bars) == figures.MAX_BARS
    assert not [trace for trace in figure.data if trace.type == "scattergl"]


def test_draw_ten_thousand_bars_by_webgl() -> None:
    """Three points per bar, the third a gap; one dot per attempt carries the hover text."""
    figure = timeline(many_jobs(50, 100), now=at(900))
    assert {trace.type for trace in figure.data if trace.mode != "text"} == {"scattergl"}
    lines = [trace for trace in figure.data if trace.mode == "lines"]
    assert sum(len(line.x) for line in lines) == 3 * 10_000
    for line in lines:
        x = line.x.reshape(-1, 3)
        assert np.isnat(x[:, 2]).all()
        assert (x[:, 1] - x[:, 0] == np.timedelta64(1, "h")).all()
        assert (line.y.reshape(-1, 3) == line.y[::3, None]).all()
    dots = [trace for trace in figure.data if trace.mode == "markers"]
    assert sum(len(dot.hovertext) for dot in dots) == 5_000
    assert figure.layout.xaxis.type == "date"
    sent = json.loads(figure.to_json())["data"][0]["x"][:3]
    assert sent == ["2026-03-02T08:00:00.000", "2026-03-02T09:00:00.000", "NaT"]


def test_keep_marks_and_arrows_in_webgl(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = (*SENT_BACK, row(4, "failed", 0, 1, 2), row(5, "skipped", 0, None, 2))
    drawn = draw(*rows)
    monkeypatch.setattr(figures, "MAX_BARS", 3)
    lines = draw(*rows)
    assert arrows_of(lines) == arrows_of(drawn)
    symbols = {"failed": "x", "skipped": "diamond"}
    for name, symbol in symbols.items():
        (mark,) = (t for t in lines[name] if t.get("marker", {}).get("symbol") == symbol)
        assert mark["x"] == ["2026-03-02T10:00"]
        assert mark["type"] == "scattergl"


def test_refuse_more_bars_than_a_browser_can_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is cut silently: the refusal says how many there are and what to do."""
    monkeypatch.setattr(figures, "MAX_SEGMENTS", 10)
    with pytest.raises(Invalid, match=r"12 .*at most 10; narrow the frame"):
        timeline(frame_of(*SENT_BACK), now=at(20))


def test_send_times_without_a_zone() -> None:
    """Plotly reads numbers in the zone of the browser, so a time travels as naive text."""
    sent = json.loads(timeline(frame_of(*SENT_BACK), now=at(20), tz="Europe/Berlin").to_json())
    assert sent["data"][0]["base"][0] == "2026-03-02T09:00:00.000"
    for trace in sent["data"]:
        times = trace["base"] if trace["type"] == "bar" else trace["x"]
        assert all(re.fullmatch(r"NaT|2026-03-0\dT\d\d:\d\d:00\.000", time) for time in times)


def test_write_a_page_that_needs_no_network(tmp_path: Path) -> None:
    figure = timeline(frame_of(*SENT_BACK), now=at(20), title="季度报告")
    path = write_page(figure, tmp_path / "page.html", title="<script>alert(1)</script> 季度")
    page = path.read_text(encoding="utf-8")
    assert path == tmp_path / "page.html"
    assert page.startswith('<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">')
    assert "<title>&lt;script&gt;alert(1)&lt;/script&gt; 季度</title>" in page
    assert "default-src 'none'" in page
    assert "Plotly.newPlot" in page
    assert '"showSendToCloud": false' in page
    assert not re.search(r"<(script|link|img|iframe)[^>]*\s(src|href)=", page)
