"""Draw figures of what jobs did, each a function of a DataFrame that knows no database.

Why ``timeline`` is built as it is: both ends of a bar are converted to one zone and then lose it, so
no change of the clocks moves a bar by an hour, and they stay datetimes, because plotly reads numbers
on a date axis in the browser's zone. Rows are integers on a category axis named by ``labelalias``,
so labels thin out when there are many and come back when one zooms in. What people typed is escaped
for plotly, whose text knows tags and TeX.
"""

from __future__ import annotations

import html
import json
import unicodedata
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, tzinfo
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
_COLOURS = {"waiting": STATUS_COLOURS["pending"], **STATUS_COLOURS}
_URGENCY = ("failed", "running", "pending", "rolled_back", "completed", "skipped")
_TIMES = ["ready_at", "started_at", "completed_at", "due_at"]
_ENDS = ["ready_at", "wait_to", "started_at", "work_to", "completed_at"]
_IDS = ["job_task_id", "job_id", "sequence", "attempt", "operator_id"]
_TEXT = ["job_name", "task_name", "status", "result", "error_code", "error_message"]
_RESULT = json.JSONEncoder(ensure_ascii=False, skipkeys=True, default=str)
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
    reopening. Above ``MAX_TASK_ROWS`` rows of more than eight jobs, each job has one row; above
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

    zone, moment = _zone(tz), _moment(now)
    if attempts.empty:
        return Figure(layout=_layout(title, 60) | _NOTHING)
    frame = _ordered(attempts, moment)
    labels = _place(frame)
    arrows = _send_backs(frame)
    for table, names in ((frame, [*_TIMES, "wait_to", "work_to"]), (arrows, ["at"])):
        for name in names:
            table[name] = table[name].dt.tz_convert(zone).dt.tz_localize(None).dt.as_unit("ms")
    frame["hover"] = _hover(frame)
    bars = _bars(frame)
    if len(bars) > MAX_SEGMENTS:
        most = f"at most {MAX_SEGMENTS:,}; narrow the frame by flow, status or time"
        raise Invalid("number of bars", len(bars), expected=most)
    px = _row_px(labels)
    draw = _svg_trace if len(bars) <= MAX_BARS else _webgl_trace
    traces = [draw(key, part, px) | _named(key) for key, part in _parts(bars)]
    traces += [*_marks(frame, bars), *_arrows(arrows)]
    if len(bars) > MAX_BARS: ...


def write_page(figure: Figure, path: str | Path, *, title: str) -> Path:
    """Write the figure as one HTML page that makes no network request, and return its path.

    plotly.js is part of the page (about 5 MB), and a policy in it forbids every request.
    """
    config = {"responsive": True, "displaylogo": False}
    chart = figure.to_html(full_html=False, include_plotlyjs=True, config=config)
    page = Path(path)
    page.write_text(_PAGE.format(title=html.escape(title), chart=chart), encoding="utf-8")
    return page


def _zone(tz: str) -> ZoneInfo:
    try:
        return ZoneInfo(tz)
    except (LookupError, ValueError, OSError, TypeError) as error:
        raise Invalid("tz", tz, expected="an IANA name such as 'Europe/Berlin'") from error


def _moment(now: datetime | None) -> pd.Timestamp:
    now = datetime.now(UTC) if now is None else now
    if now.tzinfo is None:
        raise Invalid("now", now, expected="a datetime with a time zone")
    return pd.Timestamp(now).tz_convert("UTC").as_unit("us")
