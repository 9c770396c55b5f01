"""Draw figures of what jobs did, each a function of a DataFrame that knows no database.

Why ``timeline`` is built as it is: both ends of a bar are converted to one zone and then lose it,
so no change of the clocks moves a bar by an hour, and they stay datetimes, because plotly reads
numbers on a date axis in the browser's zone. Rows are integers on a category axis that
``labelalias`` names: labels thin out when there are many, and come back when one zooms in. What
people typed is escaped for plotly, whose text knows tags and TeX.
"""

from __future__ import annotations

import html
import itertools
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
_Array: TypeAlias = np.ndarray[Any, Any]

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
_WORDY_PX = 14  # rows at least this high have texts in and behind their bars
_NEUTRAL = "#777777"  # more than 4 to 1 on white and on the #111111 of dark themes
_FAINT = "rgba(128,128,128,0.25)"
_FONTS = "Noto Sans CJK SC, Microsoft YaHei, PingFang SC, sans-serif"
_BACK = STATUS_COLOURS["rolled_back"]
_KEYS = {"waiting": STATUS_COLOURS["pending"], **STATUS_COLOURS}
_WORDS = {key: key.replace("_", " ") for key in _KEYS}
_THIN = ("waiting", "pending")
_OPEN = ("pending", "running")
_URGENCY = ("failed", "running", "pending", "rolled_back", "completed", "skipped")
_IDS = ["job_task_id", "job_id", "sequence", "attempt", "operator_id"]
_TEXT = ["job_name", "task_name", "status", "result", "error_code", "error_message"]
_TIMES = (("ready", "waited"), ("started", "worked"), ("completed", ""), ("due", ""))
_ENDS = ["ready_at", "wait_to", "started_at", "work_to", "completed_at"]
_OUTCOME = (("result", "result"), ("error_code", "error"), ("error_message", "message"))
_UNITS = ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s"))
_EMPTY = {"text": "no attempts yet", "showarrow": False, "font_size": 16}
_NOTHING: _Dict = {"annotations": [_EMPTY], "xaxis_visible": False, "yaxis_visible": False}
_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data: blob:; \
script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; form-action 'none'">
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

    Waiting is thin and grey, work is solid in the colour of its status, and what is open is hatched
    up to ``now``. A diamond is a skip, a cross a failure, a dotted arrow a send-back or reopening.
    More than ``MAX_TASK_ROWS`` rows of more than eight jobs become one row per job; more than
    ``MAX_BARS`` bars become lines, without hatching and attempt numbers. It is as wide as its place
    and less than 2,200 pixels high; without attempts it says so.

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

    Raises
    ------
    Invalid
        ``now`` has no zone, ``tz`` is unknown, a column is missing, or there are more than
        ``MAX_SEGMENTS`` bars.
    """
    from plotly.graph_objects import Figure

    zone, moment = _checked(tz, now)
    if attempts.empty:
        return Figure(layout=_layout(title, 60) | _NOTHING)
    frame = _ordered(attempts, moment)
    labels = _place(frame)
    backs = _send_backs(frame)
    for name in [*_ENDS, "due_at", "now"]:
        frame[name] = frame[name].dt.tz_convert(zone).dt.tz_localize(None).dt.as_unit("ms")
    frame["hover"] = _hover(frame)
    bars = _bars(frame)
    if len(bars) > MAX_SEGMENTS:
        most = f"at most {MAX_SEGMENTS:,}; narrow the frame by flow, status or time"
        raise Invalid("number of bars", len(bars), expected=most)
    px = min(26.0, 2000 / len(labels))
    traces = [*_bar_traces(bars, px), *_marks(frame, bars, px), *_arrows(frame, backs, px)]
    for trace in {trace["legendgroup"]: trace for trace in reversed(traces)}.values():
        trace["showlegend"] = True
    for trace in traces if len(bars) > MAX_BARS else ():
        trace["type"] = "scattergl"
    layout = _layout(title, px * len(labels)) | _axes(frame, labels, px, tz)
    return Figure(data=[*traces, *_words(frame, px)], layout=layout)


def write_page(figure: Figure, path: str | Path, *, title: str) -> Path:
    """Write the figure and plotly.js as one HTML page that may make no request; return its path."""
    # plotly.js 4 would offer to share the data on its maker's server.
    config = {"responsive": True, "displaylogo": False, "showSendToCloud": False}
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
    needed = [*_IDS, *_TEXT, *(f"{name}_at" for name, _ in _TIMES)]
    if missing := [name for name in needed if name not in attempts.columns]:
        raise Invalid("attempts without", missing, expected="all columns of the frame attempts")
    keys = [attempts[name] for name in ("attempt", "job_task_id", "sequence", "job_id")]
    keys.insert(2, pd.Series(pd.factorize(attempts["task_name"], sort=True)[0]))
    frame = pd.DataFrame(attempts)[needed].iloc[np.lexsort(keys)].reset_index(drop=True)
    frame["status"] = status = frame["status"].astype(object)
    ready, started, done = frame["ready_at"], frame["started_at"], frame["completed_at"]
    is_waiting = status.eq("pending") & started.isna()
    frame["wait_to"] = started.fillna(done).mask(is_waiting, now).where(ready.notna())
    frame["work_to"] = done.mask(status == "running", now).where(started.notna())
    frame["waited"], frame["worked"] = frame["wait_to"] - ready, frame["work_to"] - started
    return frame.assign(now=now)


def _place(frame: pd.DataFrame) -> dict[str, str]:
    """Give each attempt its row, or its lane in the row of its job; return the labels of rows."""
    job, task = (pd.Series(pd.factorize(frame[name])[0]) for name in ("job_id", "job_task_id"))
    n_jobs, n_tasks = job.iloc[-1] + 1, task.iloc[-1] + 1
    is_per_job = bool(n_jobs > _FEW_JOBS and n_jobs + n_tasks > MAX_TASK_ROWS)
    frame["y"] = job if is_per_job else task + (job + 1 if n_jobs > 1 else 0)
    group = task.groupby([job, frame["sequence"]])
    first, last = group.transform("min"), group.transform("max")
    frame["height"] = 1 / ((last - first) * is_per_job + 1)
    frame["lane"] = ((task - first) * is_per_job + 0.5) * frame["height"] - 0.5
    is_repeated = frame["attempt"].groupby(task).transform("max") > 1
    number = ("#" + frame["attempt"].astype(str).astype(object)).where(is_repeated, "")
    frame["number"] = "" if is_per_job else number
    jobs = frame.drop_duplicates("job_id")
    names = zip(jobs["y"] - (not is_per_job), jobs["job_id"], jobs["job_name"], strict=True)
    labels = {str(y): f"<b>{key} · {_shown(name, 28)}</b>" for y, key, name in names if y >= 0}
    if not is_per_job:
        tasks = frame.drop_duplicates("job_task_id")
        names = zip(tasks["y"], tasks["sequence"], tasks["task_name"], strict=True)
        labels |= {str(y): f"{place}. {_shown(name, 28)}" for y, place, name in names}
    return labels


def _send_backs(frame: pd.DataFrame) -> list[tuple[int, int, bool]]:
    """Return the attempt each send-back left, the one it went back to, and if that is due again.

    The frame does not say when an attempt was superseded, but then its target is due again. So the
    attempts rolled back are read by when the next attempt of their task was due: the first opens a
    send-back, those from its sequence on that had ended by then belong to it, and it left the
    highest one that was worked on. What is not due again is one send-back per job.
    """
    after = frame[["job_task_id", "attempt", "ready_at"]].shift(-1)
    follows = after["job_task_id"].eq(frame["job_task_id"]) & after["ready_at"].notna()
    at = after["ready_at"].where(follows, pd.Timestamp("2262-01-01", tz="UTC"))
    is_own, is_worked = frame["error_code"] != "cancelled", frame["started_at"].notna()
    known = frame.assign(at=at, follows=follows, is_own=is_own, is_worked=is_worked)
    known = known[frame["status"].eq("rolled_back") & frame["completed_at"].notna()]
    found: dict[Any, list[list[Any]]] = {}
    for row in known.sort_values(["job_id", "at", "sequence"]).itertuples():
        events = found.setdefault(row.job_id, [])
        fits = (e for e in events if row.completed_at <= e[0].at and e[0].sequence <= row.sequence)
        event = next(fits, [])
        event.append(row)
        if len(event) == 1:
            events.append(event)
    every = [event for events in found.values() for event in events]
    left = [
        max(e, key=lambda r: (r.is_worked, r.sequence, r.is_own, r.completed_at)) for e in every
    ]
    return [(a.Index, b[0].Index, b[0].follows) for a, b in zip(left, every, strict=True)]


def _hover(frame: pd.DataFrame) -> list[str]:
    """Say in one text per attempt what, who, when, for how long, and with which outcome."""
    columns: list[Any] = [_said(frame[name]) for name in ("task_name", "job_name")]
    columns += [frame["job_id"], frame["attempt"], frame["status"].map(_WORDS)]
    columns += [_said(frame["operator_id"], ", operator ")]
    for name, lasted in _TIMES:
        texts = np.datetime_as_string(frame[f"{name}_at"].to_numpy(), unit="s").tolist()
        word = name.replace("completed", "ended")
        columns += [["" if t == "NaT" else f"<br>{word} {t.replace('T', ' ')}" for t in texts]]
        if lasted:
            seconds = frame[lasted].dt.total_seconds().fillna(-1).tolist()
            columns += [["" if s < 0 else f", {lasted} {_human(s)}" for s in seconds]]
    columns += [_said(frame[name], f"<br>{word} ") for name, word in _OUTCOME]
    return [
        f"<b>{task}</b><br>{job} (job {key})<br>attempt {attempt}: {status}{''.join(rest)}"
        for task, job, key, attempt, status, *rest in zip(*columns, strict=True)
    ]


def _human(seconds: float) -> str:
    """Say a length of time in its two largest units."""
    s = int(seconds)
    for size, name, part, part_name in _UNITS:
        if s >= size:
            return f"{s // size} {name} {s % size // part} {part_name}"
    return f"{s} s" if s else f"{seconds * 1000:.0f} ms"


def _shown(text: object, width: int) -> str:
    """Make what a person typed safe in texts of plotly, and at most this many columns wide."""
    line = " ".join(str(text).split())
    if not line.isascii() or len(line) > width:
        wide = [1 + (unicodedata.east_asian_width(char) in "WF") for char in line[: width + 1]]
        fits = sum(used <= width for used in itertools.accumulate(wide))
        line = line if fits == len(line) else line[: fits - 1] + "…"
    return html.escape(line).replace("&quot;", "&#34;").replace("$", "&#36;").replace("%", "&#37;")


def _said(values: pd.Series[Any], word: str = "") -> _Array:
    """Return the word and the value as safe text, and nothing where there is no value."""
    texts = np.full(len(values), "", dtype=object)
    known = values.notna().to_numpy()
    codes, names = pd.factorize(values[known].map(str))
    texts[known] = np.array([word + _shown(name, 80) for name in names], dtype=object)[codes]
    return texts


def _bars(frame: pd.DataFrame) -> pd.DataFrame:
    """Return one row per bar: ``start``, ``end``, its ``key`` in the legend, and its attempt's."""
    status, is_unworked = frame["status"], frame["work_to"].isna()
    waiting = status.where(status == "pending", "waiting")
    kinds = (("ready_at", "wait_to", waiting, is_unworked), ("started_at", "work_to", status, True))
    common = frame[["y", "lane", "height", "number", "hover"]]
    bars = pd.concat(
        common.assign(start=frame[start], end=frame[end], key=key, is_main=is_main)
        for start, end, key, is_main in kinds
    ).dropna(subset=["start", "end"])
    # Where clocks go back, an end may stand before its start; such a bar has no length.
    return bars.assign(end=bars["end"].clip(lower=bars["start"]))


def _named(points: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame, _Dict]]:
    """Yield the rows of each key in the order of the legend, with what names their trace."""
    keys = points["key"].astype(pd.CategoricalDtype(list(_KEYS)))
    for key, part in points.groupby(keys, observed=True):
        named = {"name": _WORDS[key], "legendgroup": key, "showlegend": False}
        yield key, part, named | {"hovertext": part["hover"], "hoverinfo": "text"}


def _bar_traces(bars: pd.DataFrame, px: float) -> Iterator[_Dict]:
    for key, part, trace in _named(bars):
        start, end, share = part["start"], part["end"], 0.2 if key in _THIN else 0.8
        if len(bars) > MAX_BARS:
            x = part[["start", "end"]].assign(gap=None).astype("datetime64[ms]").to_numpy()
            line = {"color": _KEYS[key], "width": max(1, px * share)}
            line["dash"] = "dot" if key in _OPEN else "solid"
            trace |= {"hovertext": None, "hoverinfo": "skip", "mode": "lines", "line": line}
            yield trace | {"x": x.ravel(), "y": part["y"].repeat(3)}
            continue
        marker: _Dict = {"color": _KEYS[key], "line_width": 0}
        if key in _OPEN:
            marker |= {"pattern_shape": "/", "pattern_size": 6, "pattern_fillmode": "overlay"}
        if key not in _THIN and px >= _WORDY_PX:
            trace |= {"text": part["number"], "textposition": "inside", "textangle": 0}
        width = part["height"] * share
        trace |= {"type": "bar", "orientation": "h", "insidetextanchor": "middle", "base": start}
        trace |= {"x": (end - start).to_numpy().astype(float), "y": part["y"], "width": width}
        yield trace | {"offset": part["lane"] - width / 2, "marker": marker}


def _marks(frame: pd.DataFrame, bars: pd.DataFrame, px: float) -> Iterator[_Dict]:
    """Mark skips and failures, and bars that are lines or too short to see by a dot."""
    ended = frame[["y", "hover"]].assign(key=frame["status"], at=frame["completed_at"])
    is_skip = frame["started_at"].isna() & frame["status"].eq("rolled_back")
    ended = ended[frame["status"].isin(["skipped", "failed"]) | is_skip].dropna(subset="at")
    span = bars["end"].max() - bars["start"].min()
    is_short = (bars["end"] - bars["start"] <= span / 500) | (len(bars) > MAX_BARS)
    dots = bars[bars["is_main"] & is_short]
    dots = dots.assign(at=dots["start"] + (dots["end"] - dots["start"]) / 2)
    for points, size in ((ended, min(11, 4 + px / 2)), (dots, 3)):
        for key, part, trace in _named(points):
            symbol = "square" if points is dots else "x" if key == "failed" else "diamond"
            edge = {"width": int(points is ended and px >= _WORDY_PX), "color": "#ffffff"}
            marker = {"symbol": symbol, "size": size, "color": _KEYS[key], "line": edge}
            trace |= {"type": "scatter", "mode": "markers", "x": part["at"], "y": part["y"]}
            yield trace | {"marker": marker}


def _arrows(frame: pd.DataFrame, backs: list[tuple[int, int, bool]], px: float) -> Iterator[_Dict]:
    """Draw each send-back from the row it left to that of its target; in one row, a head alone."""
    if not backs:
        return
    left, target, is_due = (np.array(values) for values in zip(*backs, strict=True))
    again = frame["ready_at"].shift(-1).to_numpy()[target]
    at = np.where(is_due, again, frame["completed_at"].to_numpy()[left])
    y, names = frame["y"].to_numpy(), _said(frame["task_name"])
    text = "sent back from " + names[left] + "<br>to " + names[target] + "<br>"
    text += np.datetime_as_string(at, unit="s").astype(object)
    is_inside = y[left[0]] == y[target[0]]
    marker: _Dict = {"symbol": "triangle-left" if is_inside else "triangle-up", "opacity": 1}
    marker |= {"size": np.tile([min(11, 4 + px / 2), 0, 0], len(backs)), "color": _BACK}
    marker |= {"line": {"width": int(px >= _WORDY_PX), "color": "#ffffff"}}
    look: _Dict = {"type": "scatter", "mode": "lines+markers", "marker": marker}
    look |= {"x": np.column_stack([at, at, np.full(len(at), "NaT", at.dtype)]).ravel()}
    look |= {"y": np.column_stack([y[target], y[left], y[left]]).ravel(), "hoverinfo": "text"}
    look |= {"line": {"width": 1.5, "dash": "dot", "color": _BACK}, "legendgroup": "sent back"}
    yield look | {"hovertext": text.repeat(3), "name": "sent back"}


def _words(frame: pd.DataFrame, px: float) -> Iterator[_Dict]:
    """Say the status behind the last bar of each row; of a job, that of its most urgent task."""
    if px < _WORDY_PX:
        return
    ends = frame[_ENDS].max(axis=1)
    at = ends.groupby(frame["y"]).transform("max").fillna(ends.max()).fillna(frame["now"])
    rank = frame["status"].map({status: rank for rank, status in enumerate(_URGENCY)})
    last = frame.assign(at=at, rank=rank).drop_duplicates("job_task_id", keep="last")
    last = last.sort_values(["y", "rank", "sequence"]).drop_duplicates("y")
    is_late = last["due_at"].lt(last["now"]) & last["status"].isin(_OPEN)
    text = (last["status"].map(_WORDS) + " " + last["number"]).str.rstrip()
    text = "\u2003" + text + np.where(is_late, ", overdue", "")
    look: _Dict = {"type": "scatter", "mode": "text", "textposition": "middle right"}
    look |= {"cliponaxis": False, "showlegend": False, "name": "status", "hoverinfo": "skip"}
    yield look | {"x": last["at"], "y": last["y"], "text": text}


def _layout(title: str | None, rows_px: float) -> _Dict:
    top = 70 + 30 * bool(title)
    font = {"family": _FONTS, "color": _NEUTRAL, "size": 12}
    layout: _Dict = {"template": "none", "autosize": True, "height": round(rows_px) + top + 60}
    layout |= {"paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)", "font": font}
    layout |= {"barmode": "overlay", "hovermode": "closest", "margin_l": 20, "margin_r": 20}
    layout |= {"margin_t": top, "margin_b": 60}
    layout |= {"uniformtext": {"minsize": 8, "mode": "hide"}}
    layout["hoverlabel"] = {"align": "left", "bgcolor": "#222222", "font": font | {"color": "#eee"}}
    legend = {"orientation": "h", "itemsizing": "constant", "x": 0, "y": 1 + 18 / rows_px}
    layout["legend"] = legend | {"yanchor": "bottom"}
    if title:
        layout["title"] = {"text": _shown(title, 120), "x": 0, "xref": "paper", "y": 1, "pad_t": 12}
    return layout


def _axes(frame: pd.DataFrame, labels: dict[str, str], px: float, tz: str) -> _Dict:
    now, ends = frame["now"].iloc[0], frame[_ENDS]
    first, last = ends.min().min(), ends.max().max()
    first, last = (now, now) if pd.isna(first) else (first, last)
    span = max(last - first, pd.Timedelta(minutes=1))
    extent = [first - span / 50, last + span * (0.2 if px >= _WORDY_PX else 0.02)]
    grid = {"gridcolor": _FAINT, "zeroline": False, "ticks": "", "automargin": True}
    x = {"type": "date", "range": extent, "title": {"text": f"time ({tz})"}, **grid}
    y = {"type": "category", "range": [len(labels) - 0.5, -0.5], "labelalias": labels, **grid}
    y |= {"categoryorder": "array", "categoryarray": np.arange(len(labels)), "showgrid": False}
    if last < now:
        return {"xaxis": x, "yaxis": y}
    note = {"text": "now", "textposition": "end", "textangle": 0, "yanchor": "bottom"}
    line = {"type": "line", "x0": now, "x1": now, "yref": "paper", "y0": 0, "y1": 1, "label": note}
    line["line"] = {"color": _NEUTRAL, "width": 1, "dash": "dot"}
    return {"xaxis": x, "yaxis": y, "shapes": [line]}
