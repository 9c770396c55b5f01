"""Draw figures of what jobs did, each a function of a DataFrame that knows no database.

Why ``timeline`` is built as it is: both ends of a bar are converted to one zone and then lose it, so
no change of the clocks moves a bar by an hour, and they stay datetimes, because plotly reads numbers
on a date axis in the browser's zone. Rows are integers on a category axis named by ``labelalias``,
so labels thin out when there are many and come back when one zooms in. What people typed is escaped
for plotly, whose text knows tags and TeX.
"""

from __future__ import annotations

import html
import itertools
import json
import unicodedata
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

from gwf.errors import Invalid

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_Dict: TypeAlias = dict[str, Any]

#: One colour per status of a task or a job, safe for colour-blind readers.
#: Source: Okabe and Ito, Color Universal Design (2008), and a grey for what has not begun.
STATUS_COLOURS = {
    "pending": "#999999",
    "running": "#0072B2",
    "completed": "#009E73",
    "failed": "#D55E00",
    "skipped": "#56B4E9",
    "rolled_back": "#CC79A7",
    "cancelled": "#E69F00",
}
MAX_BARS = 5_000  #: More bars than this are drawn by WebGL, which stays fast where SVG does not.
MAX_SEGMENTS = 200_000  #: More bars than this are refused.
MAX_TASK_ROWS = 80  #: With more rows, and more than ``_FEW_JOBS`` jobs, each job has one row.

_FEW_JOBS = 8
_NEUTRAL = "#777777"  # more than 4 to 1 on white and on the #111111 of dark themes
_FAINT = "rgba(128,128,128,0.25)"
_FONT = "Noto Sans CJK SC, Microsoft YaHei, PingFang SC, sans-serif"
_KEYS = {"waiting": STATUS_COLOURS["pending"], **STATUS_COLOURS}
_WORDS = {key: key.replace("_", " ") for key in _KEYS}
_OPEN = ("pending", "running")
_URGENCY = ("failed", "running", "pending", "rolled_back", "completed", "skipped")
_TIMES = {"ready_at": "ready", "started_at": "start", "completed_at": "end", "due_at": "due"}
_ENDS = ["ready_at", "wait_to", "started_at", "work_to", "completed_at"]
_IDS = ["job_task_id", "job_id", "sequence", "attempt"]
_TEXT = ["job_name", "task_name", "status"]
_SAID = {"operator_id": "operator", "result": "result", "error_code": "error", "error_message": ""}
_UNITS = ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s"))
_EMPTY = {"text": "no attempts yet", "showarrow": False, "font_size": 16}
_NOTHING: _Dict = {"annotations": [_EMPTY], "xaxis_visible": False, "yaxis_visible": False}
_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data: blob:; \
script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'">
<style>:root {{ color-scheme: light dark }} body {{ background: Canvas; color: CanvasText }}</style>
</head><body><main aria-label="{title}">{chart}</main></body></html>
"""  # WebGL compiles its shaders with ``new Function``, hence unsafe-eval


def timeline(
    attempts: pd.DataFrame,
    *,
    now: datetime | None = None,
    tz: str = "UTC",
    title: str | None = None,
) -> Figure:
    """Draw when each attempt waited and was worked on, one row per task, first at the top.

    Waiting is thin and grey, work is solid in the colour of its status, what is open is hatched and
    ends at ``now``. A diamond is a skip, a cross a failure, a dotted arrow a send-back or a
    reopening. Above ``MAX_TASK_ROWS`` rows of more than eight jobs each job has one row; above
    ``MAX_BARS`` bars, lines without hatching and attempt numbers take their place.

    Parameters
    ----------
    attempts : DataFrame
        The frame ``attempts``, in any order.
    now : datetime, optional
        The aware instant at which open work ends; the current time if not given.
    tz : str
        The IANA name of the zone of the axis and of the hover texts.
    title : str, optional
        Shown above the figure.

    Returns
    -------
    Figure
        As wide as its place and less than 2,200 pixels high; one without rows says so in words.

    Raises
    ------
    Invalid
        ``now`` or a column has no zone, ``tz`` is unknown, a column is missing, or there are more
        than ``MAX_SEGMENTS`` bars.
    """
    from plotly.graph_objects import Figure

    zone, moment = _checked(tz, now)
    if attempts.empty:
        return Figure(layout=_layout(title, 60) | _NOTHING)
    frame = _ordered(attempts, moment)
    labels = _place(frame)
    arrows = _send_backs(frame)
    for table, names in ((frame, [*_TIMES, "wait_to", "work_to", "now"]), (arrows, ["at"])):
        for name in names:
            table[name] = table[name].dt.tz_convert(zone).dt.tz_localize(None).dt.as_unit("ms")
    frame["hover"] = _hover(frame)
    bars = _bars(frame)
    if len(bars) > MAX_SEGMENTS:
        most = f"at most {MAX_SEGMENTS:,}; narrow the frame by flow, status or time"
        raise Invalid("number of bars", len(bars), expected=most)
    px = min(26.0, 2000 / len(labels))
    is_small = len(bars) <= MAX_BARS
    traces = [*(_svg_bars if is_small else _webgl_bars)(bars, px), *_marks(frame, bars, px)]
    traces += _arrows(arrows, px)
    for trace in {trace["legendgroup"]: trace for trace in reversed(traces)}.values():
        trace["showlegend"] = True
    for trace in [] if is_small else traces:
        trace["type"] = "scattergl"
    layout = _layout(title, px * len(labels)) | _axes(frame, labels, tz)
    return Figure(data=[*traces, *_words(frame, px)], layout=layout)


def write_page(figure: Figure, path: str | Path, *, title: str) -> Path:
    """Write the figure as one HTML page that makes no network request, and return its path.

    plotly.js is part of the page (about 5 MB), and a policy in it forbids every request.
    """
    config = {"responsive": True, "displaylogo": False}
    chart = figure.to_html(full_html=False, include_plotlyjs=True, config=config)
    page = Path(path)
    page.write_text(_PAGE.format(title=html.escape(title), chart=chart), encoding="utf-8")
    return page


def _checked(tz: str, now: datetime | None) -> tuple[ZoneInfo, pd.Timestamp]:
    try:
        zone = ZoneInfo(tz)
    except (LookupError, ValueError, OSError, TypeError) as error:
        raise Invalid("tz", tz, expected="an IANA name such as 'Europe/Berlin'") from error
    now = datetime.now(UTC) if now is None else now
    if now.tzinfo is None:
        raise Invalid("now", now, expected="a datetime with a time zone")
    return zone, pd.Timestamp(now).tz_convert("UTC").as_unit("us")


def _ordered(attempts: pd.DataFrame, now: pd.Timestamp) -> pd.DataFrame:
    """Return the attempts by job, sequence, task name and attempt, the open ones ended at now."""
    columns = [*_IDS, *_TEXT, *_SAID, *_TIMES]
    missing = [name for name in columns if name not in attempts.columns]
    if missing:
        raise Invalid("attempts without", missing, expected="all columns of the frame attempts")
    keys = [attempts[name] for name in ("attempt", "job_task_id", "sequence", "job_id")]
    keys.insert(2, pd.Series(pd.factorize(attempts["task_name"], sort=True)[0]))
    frame = attempts[columns].iloc[np.lexsort(keys)].reset_index(drop=True)
    for name in _TIMES:
        if not isinstance(frame[name].dtype, pd.DatetimeTZDtype):
            raise Invalid(name, str(frame[name].dtype), expected="times with a time zone")
        frame[name] = frame[name].dt.tz_convert("UTC").dt.as_unit("us")
    frame["status"] = status = frame["status"].astype(object)
    ready, started, done = frame["ready_at"], frame["started_at"], frame["completed_at"]
    is_waiting = status.eq("pending") & started.isna()
    frame["wait_to"] = started.fillna(done).mask(is_waiting, now).where(ready.notna())
    frame["work_to"] = done.mask(status == "running", now).where(started.notna())
    frame["waited"], frame["worked"] = frame["wait_to"] - ready, frame["work_to"] - started
    return frame.assign(now=now)


def _place(frame: pd.DataFrame) -> dict[str, str]:
    """Give each attempt its row ``y``, its share of it and its texts; return the rows' labels.

    Parallel tasks share the row of their job; else several jobs each have a row for their name.
    """
    job, task = (pd.Series(pd.factorize(frame[name])[0]) for name in ("job_id", "job_task_id"))
    n_jobs = int(job.iloc[-1]) + 1
    is_per_job = n_jobs > _FEW_JOBS and n_jobs + int(task.iloc[-1]) >= MAX_TASK_ROWS
    frame["y"] = job if is_per_job else task + (job + 1 if n_jobs > 1 else 0)
    group = task.groupby([job, frame["sequence"]])
    lane, last = ((values - group.transform("min")) * is_per_job for values in (task, group.transform("max")))
    frame["height"] = 1 / (last + 1)
    frame["lane"] = (lane + 0.5) * frame["height"] - 0.5
    for name in ("job_name", "task_name"):
        codes, texts = pd.factorize(frame[name])
        frame[name] = pd.Series([_shown(text, 28) for text in texts], dtype=object).take(codes).array
    ...


def _send_backs(frame: pd.DataFrame) -> pd.DataFrame:
    """Return one row per send-back: ``at``, and the rows ``y`` it left from and ``y_target``.

    The frame does not say when an attempt was superseded, but at that moment its target is due
    again. So attempts rolled back are read by when the next attempt of their task was due: the
    first opens a send-back, and those from its sequence on that had ended by then belong to it. It
    left from the highest sequence that was worked on. What is not due again (a paused job, a frame
    cut by a filter) is one send-back per job, when the attempt it left from ended.
    """
    after = frame.shift(-1)
    is_next = after["job_task_id"].eq(frame["job_task_id"])
    is_next &= after["attempt"].eq(frame["attempt"] + 1)
    back = frame.assign(at=after["ready_at"].where(is_next), is_worked=frame["started_at"].notna())
    back["is_own"] = back["error_code"].ne("cancelled")
    back = back[back["status"].eq("rolled_back") & back["completed_at"].notna()]
    back = back.sort_values(["job_id", "at", "sequence"])
    back["event"] = list(_events(back))
    left = back.sort_values(["is_worked", "sequence", "is_own", "completed_at"])
    left = left.drop_duplicates(["job_id", "event"], keep="last")
    target = back.sort_values("y").drop_duplicates(["job_id", "event"])
    both = left.merge(target, on=["job_id", "event"], suffixes=("", "_target"))
    return both.assign(at=both["at_target"].fillna(both["completed_at"]))


def _events(back: pd.DataFrame) -> Iterator[int]:
    """Yield the number of the send-back, within its job, that each of these attempts belongs to."""
    found: list[tuple[Any, int]] = []
    job, at = None, back["at"].fillna(pd.Timestamp.max.tz_localize("UTC"))
    columns = (back["job_id"], back["completed_at"], at, back["sequence"])
    for key, ended, due, sequence in zip(*columns, strict=True):
        if key != job:
            job, found = key, []
        fits = (n for n, (when, low) in enumerate(found) if ended <= when and low <= sequence)
        number = next(fits, len(found))
        if number == len(found):
            found.append((due, sequence))
        yield number


def _hover(frame: pd.DataFrame) -> list[str]:
    """Say in one text per attempt what, who, when, for how long, and with which outcome."""
    operator = frame["operator_id"]
    columns: list[Any] = [_each_shown(frame[name], 60) for name in ("task_name", "job_name")]
    columns += [frame["job_id"], frame["attempt"], frame["status"].map(_WORDS)]
    columns += [("operator " + operator.astype(str)).where(operator.notna(), "nobody")]
    for name, word in _TIMES.items():
        texts = np.datetime_as_string(frame[name].to_numpy(), unit="s").tolist()
        columns += [["" if t == "NaT" else f"<br>{word} {t[:10]} {t[11:]}" for t in texts]]
    for word in ("waited", "worked"):
        columns += [[_lasted(word, s) for s in frame[word].dt.total_seconds().tolist()]]
    columns += [map(_outcome, frame["result"], frame["error_code"], frame["error_message"])]
    return [
        f"<b>{task}</b><br>{job} (job {key})<br>attempt {attempt}: {status}, {who}{''.join(rest)}"
        for task, job, key, attempt, status, who, *rest in zip(*columns, strict=True)
    ]


def _lasted(word: str, seconds: float) -> str:
    """Say a length of time in its two largest units, and nothing for NaN."""
    if seconds != seconds:
        return ""
    s = max(int(seconds), 0)
    for size, name, part, part_name in _UNITS:
        if s >= size:
            return f"<br>{word} {s // size} {name} {s % size // part} {part_name}"
    return f"<br>{word} {s} s" if s else f"<br>{word} {max(seconds, 0) * 1000:.0f} ms"


def _outcome(result: object, code: object, message: object) -> str:
    text = "" if _is_none(result) else f"<br>result {_shown(_RESULT.encode(result), 80)}"
    error = ": ".join(str(part) for part in (code, message) if not _is_none(part))
    return f"{text}<br>error {_shown(error, 80)}" if error else text


def _is_none(value: object) -> bool:
    return value is None or value is pd.NA or value != value


def _shown(text: object, width: int) -> str:
    """Make what a person typed safe in texts of plotly, and at most this many columns wide."""
    line = " ".join(str(text).split())
    if not line.isascii() or len(line) > width:
        wide = [1 + (unicodedata.east_asian_width(char) in "WF") for char in line[: width + 1]]
        fits = sum(used <= width for used in itertools.accumulate(wide))
        line = line if fits == len(line) else line[: fits - 1] + "…"
    return html.escape(line).replace("&quot;", "&#34;").replace("$", "&#36;").replace("%", "&#37;")


def _each_shown(texts: pd.Series[Any], width: int) -> pd.Series[Any]:
    return texts.map({text: _shown(text, width) for text in texts.unique()})


def _bars(frame: pd.DataFrame) -> pd.DataFrame:
    """Return one row per bar: ``start``, ``end``, its ``key`` in the legend, and its attempt's.

    Where clocks go back, an end may stand before its start; such a bar has no length.
    """
    status, is_unworked = frame["status"], frame["work_to"].isna()
    waiting = status.where(status == "pending", "waiting")
    kinds = (("ready_at", "wait_to", waiting, is_unworked), ("started_at", "work_to", status, True))
    common = frame[["y", "lane", "height", "text", "hover"]]
    bars = pd.concat(
        common.assign(start=frame[start], end=frame[end], key=key, is_main=is_main)
        for start, end, key, is_main in kinds
    ).dropna(subset=["start", "end"])
    return bars.assign(end=bars["end"].clip(lower=bars["start"]))


def _named(points: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame, _Dict]]:
    """Yield the rows of each key in the order of the legend, with what names their trace."""
    groups = dict(iter(points.groupby("key")))
    for rank, key in enumerate(_KEYS):
        if key in groups:
            named = {"name": _WORDS[key], "legendgroup": key, "legendrank": rank}
            yield key, groups[key], named | {"showlegend": False, "hoverinfo": "text"}


def _svg_bars(bars: pd.DataFrame, px: float) -> Iterator[_Dict]:
    for key, part, trace in _named(bars):
        is_thin = key in ("waiting", "pending")
        width = part["height"] * (0.2 if is_thin else 0.72)
        marker: _Dict = {"color": _KEYS[key], "line_width": 0}
        if key in _OPEN:
            marker |= {"pattern_shape": "/", "pattern_size": 6, "pattern_solidity": 0.4}
        if px >= 14 and not is_thin:
            ink = "#000000" if key in ("rolled_back", "skipped") else "#ffffff"
            trace |= {"text": part["text"], "textposition": "inside", "insidetextfont_color": ink}
        length = (part["end"] - part["start"]).to_numpy().astype(float)
        trace |= {"type": "bar", "orientation": "h", "y": part["y"], "base": part["start"]}
        trace |= {"x": length, "width": width, "offset": part["lane"] - width / 2, "marker": marker}
        yield trace | {"hovertext": part["hover"], "insidetextanchor": "middle", "textangle": 0}


def _webgl_bars(bars: pd.DataFrame, px: float) -> Iterator[_Dict]:
    for key, part, trace in _named(bars):
        x = np.full((len(part), 3), np.datetime64("NaT"), dtype="datetime64[ms]")
        x[:, 0], x[:, 1] = part["start"], part["end"]
        width = max(1, px * (0.2 if key in ("waiting", "pending") else 0.72))
        line = {"color": _KEYS[key], "width": width, "dash": "dot" if key in _OPEN else "solid"}
        trace |= {"mode": "lines", "x": x.ravel(), "y": part["y"].repeat(3)}
        yield trace | {"line": line, "hoverinfo": "skip"}


def _marks(frame: pd.DataFrame, bars: pd.DataFrame, px: float) -> Iterator[_Dict]:
    """Mark skips and failures, and bars that are lines or too short to see by a dot."""
    ended = frame.assign(key=frame["status"], at=frame["completed_at"], edge=1)
    is_skip = frame["started_at"].isna() & frame["status"].eq("rolled_back")
    ended = ended[frame["status"].isin(["skipped", "failed"]) | is_skip].dropna(subset="at")
    ended["symbol"] = np.where(ended["status"] == "failed", "x", "diamond")
    ended["size"] = min(11, 4 + px / 2)
    length = bars["end"] - bars["start"]
    is_short = length <= (bars["end"].max() - bars["start"].min()) / 500
    dots = bars.assign(at=bars["start"] + length / 2, symbol="square", size=3, edge=0)
    dots = dots[bars["is_main"] & (is_short | (len(bars) > MAX_BARS))]
    for key, part, trace in _named(pd.concat([ended, dots])):
        marker = {"symbol": part["symbol"], "size": part["size"], "color": _KEYS[key]}
        marker |= {"opacity": 1, "line": {"width": part["edge"], "color": "#ffffff"}}
        trace |= {"type": "scatter", "mode": "markers", "x": part["at"], "y": part["y"]}
        yield trace | {"marker": marker, "hovertext": part["hover"]}


def _arrows(found: pd.DataFrame) -> Iterator[_Dict]:
    """Draw each send-back from the row it left to that of its target; in one row, a head alone."""
    if found.empty:
        return
    is_inside = found["y"].eq(found["y_target"])
    head = np.where(is_inside, "triangle-left", "triangle-up")
    x = np.full((len(found), 3), np.datetime64("NaT"), dtype="datetime64[ms]")
    x[:, 0] = x[:, 1] = found["at"]
    y = np.column_stack([found["y"], found["y_target"], found["y_target"]]).ravel()
    symbol = np.column_stack([np.where(is_inside, head, "circle"), head, head]).ravel()
    names = [_each_shown(found[name], 60) for name in ("task_name", "task_name_target")]
    text = "sent back from <b>" + names[0] + "</b><br>to <b>" + names[1] + "</b>"
    text += "<br>" + found["at"].dt.strftime("%Y-%m-%d %H:%M:%S")
    yield {
        "type": "scatter",
        "mode": "lines+markers",
        "name": "sent back",
        "legendgroup": "sent back",
        "x": x.ravel(),
        "y": y,
        "line": {"color": STATUS_COLOURS["rolled_back"], "width": 1.5, "dash": "dot"},
        "marker": {"symbol": symbol, "size": 9, "color": STATUS_COLOURS["rolled_back"]},
        "hovertext": text.repeat(3),
        "hoverinfo": "text",
    }


def _words(frame: pd.DataFrame, px: float) -> Iterator[_Dict]:
    """Say the status behind the last bar of each row; of a job, that of its most urgent task."""
    if px < 14:
        return
    ends = frame[_ENDS].max(axis=1)
    of_job = ends.groupby(frame["job_id"]).transform("max")
    frame = frame.assign(
        at=ends.groupby(frame["y"]).transform("max").fillna(of_job).fillna(frame["now"]),
        rank=frame["status"].map({status: rank for rank, status in enumerate(_URGENCY)}),
    ).drop_duplicates("job_task_id", keep="last")
    frame = frame.sort_values(["y", "rank", "sequence"]).drop_duplicates("y")
    is_late = frame["due_at"].lt(frame["now"]) & frame["status"].isin(_OPEN)
    number = (" #" + frame["attempt"].astype(str)).where(frame["attempt"] > 1, "")
    text = (
        "\u2003"
        + frame["status"].map(_WORDS)
        + number
        + is_late.map({True: ", overdue", False: ""})
    )
    look = {"type": "scatter", "mode": "text", "textposition": "middle right", "hoverinfo": "skip"}
    look |= {"cliponaxis": False, "showlegend": False, "name": "status"}
    yield look | {"x": frame["at"], "y": frame["y"], "text": text}


def _layout(title: str | None, rows_px: float) -> _Dict:
    top = 70 + 30 * bool(title)
    font = {"family": _FONT, "color": _NEUTRAL, "size": 12}
    layout: _Dict = {"template": "none", "autosize": True, "height": round(rows_px) + top + 60}
    layout |= {"paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)", "font": font}
    layout |= {"barmode": "overlay", "hovermode": "closest", "margin_t": top, "margin_b": 60}
    layout |= {"margin_l": 20, "margin_r": 20, "uniformtext": {"minsize": 10, "mode": "hide"}}
    layout["hoverlabel"] = {"align": "left", "bgcolor": "#222222", "font_color": "#f5f5f5"}
    layout["legend"] = {"orientation": "h", "x": 0, "y": 1 + 18 / rows_px, "yanchor": "bottom"}
    if title:
        layout["title"] = {"text": _shown(title, 120), "x": 0, "xref": "paper", "font_size": 16}
        layout["title"] |= {"y": 1, "yanchor": "top", "pad_t": 12}
    return layout


def _axes(frame: pd.DataFrame, labels: list[str], tz: str) -> _Dict:
    now = frame["now"].iloc[0]
    first, last = frame[_ENDS].min().min(), frame[_ENDS].max().max()
    first, last = (now, now) if pd.isna(first) else (first, last)
    span = max(last - first, pd.Timedelta(minutes=1))
    extent = [first - span / 50, last + span * (0.16 if len(labels) < 143 else 0.02)]
    grid = {"gridcolor": _FAINT, "zeroline": False, "ticks": "", "automargin": True}
    x = {"type": "date", "range": extent, "title": {"text": f"time ({tz})"}, **grid}
    names = {str(y): label for y, label in enumerate(labels)}
    y = {"type": "category", "range": [len(labels) - 0.5, -0.5], "labelalias": names, **grid}
    y |= {"categoryorder": "array", "categoryarray": np.arange(len(labels)), "showgrid": False}
    axes: _Dict = {"xaxis": x, "yaxis": y}
    if frame["status"].isin(_OPEN).any():
        line = {"type": "line", "x0": now, "x1": now, "yref": "paper", "y0": 0, "y1": 1}
        axes["shapes"] = [line | {"line": {"color": _NEUTRAL, "width": 1, "dash": "dot"}}]
        note = {"text": "now", "x": now, "yref": "paper", "y": 1, "yanchor": "bottom"}
        axes["annotations"] = [note | {"showarrow": False}]
    return axes
