"""Lay answers out: tables for the eyes at a terminal, JSON for programs.

Tables choose their columns, a long text ends in "…", and control characters become spaces, since a
terminal obeys them. JSON has every column and shortens nothing.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import pandas as pd

_TEXT_WIDTH = 40


def job_table(jobs: pd.DataFrame) -> str:
    """Return the frame ``jobs`` as a table, one line per job."""
    rows = [
        (
            str(row.job_id),
            row.job_name,
            row.flow_name,
            row.status if _cell(row.paused_at) == "" else f"{row.status}, paused",
            f"{row.n_done}/{row.n_tasks}",
            str(row.n_rollbacks),
            row.created_at,
            _span(row.duration_s),
        )
        for row in jobs.itertuples()
    ]
    names = ("job", "name", "flow", "status", "done", "sent back", "created (UTC)", "took")
    return _table(names, rows, "right left left left right right left right")


def attempt_table(attempts: pd.DataFrame) -> str:
    """Return the frame ``attempts`` or ``job_tasks`` as a table, one line per attempt."""
    rows = [
        (
            str(row.sequence),
            row.task_name,
            str(row.attempt),
            row.status,
            row.operator_id,
            row.ready_at,
            _span(row.wait_s),
            _span(row.work_s),
            row.error_message,
        )
        for row in attempts.itertuples()
    ]
    names = (
        "seq",
        "task",
        "attempt",
        "status",
        "operator",
        "due (UTC)",
        "waited",
        "worked",
        "error",
    )
    return _table(names, rows, "right left right left right left right right left")


def worker_table(workers: pd.DataFrame) -> str:
    """Return the frame ``workers`` as a table, one line per worker."""
    rows = [
        (
            row.worker,
            row.state,
            _names(row.executors),
            f"{row.n_running}/{row.concurrency}",
            str(row.n_completed),
            str(row.n_failed),
            str(row.n_lost),
            row.seen_at,
            row.last_error,
        )
        for row in workers.itertuples()
    ]
    names = (
        "worker",
        "state",
        "may run",
        "running",
        "completed",
        "failed",
        "lost",
        "seen (UTC)",
        "last error",
    )
    return _table(names, rows, "left left left right right right right right left")


def executor_table(executors: pd.DataFrame) -> str:
    """Return the frame ``executors`` as a table, one line per executor."""
    rows = [(row.executor, row.source, row.summary) for row in executors.itertuples()]
    return _table(("executor", "from", "what it does"), rows, "left left left", widest=80)


def _table(
    names: Sequence[str], rows: Sequence[Sequence[Any]], sides: str, *, widest: int = _TEXT_WIDTH
) -> str:
    """Return lines whose columns stand straight, also with Chinese in them."""
    texts = [list(names), *([_cell(value, widest) for value in row] for row in rows)]
    widths = [max(map(_width, column)) for column in zip(*texts, strict=True)]
    lines = []
    for line in texts:
        padded = []
        for text, width, side in zip(line, widths, sides.split(), strict=True):
            gap = " " * (width - _width(text))
            padded.append(f"{gap}{text}" if side == "right" else f"{text}{gap}")
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def _cell(value: Any, widest: int = _TEXT_WIDTH) -> str:
    if pd.isna(value):
        return ""
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    text = "".join(character if character.isprintable() else " " for character in str(value))
    if _width(text) <= widest:
        return text
    while _width(text) > widest - 1:
        text = text[:-1]
    return f"{text}…"


def _width(text: str) -> int:
    """Return how many columns of a terminal the text takes: a Chinese character takes two."""
    return sum(
        0 if unicodedata.combining(one) else 1 + (unicodedata.east_asian_width(one) in "WF")
        for one in text
    )


def _names(values: Any) -> str:
    return ", ".join(values)


def _span(seconds: Any) -> str:
    if pd.isna(seconds):
        return ""
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return one dict per row, its values as ``as_json`` takes them."""
    names = list(frame.columns)
    rows = zip(*(frame[name].astype(object) for name in names), strict=True)
    return [dict(zip(names, row, strict=True)) for row in rows]


def as_json(answer: Any) -> str:
    """Return the answer as JSON: instants as RFC 3339 in UTC, what is missing as null."""
    return json.dumps(_plain(answer), ensure_ascii=False, indent=2, allow_nan=False)


def _plain(value: Any) -> Any:
    """Return what JSON can hold: instants as text, nothing as null, records as objects."""
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if hasattr(value, "as_json"):
        return _plain(value.as_json())
    if value is None or pd.isna(value):
        return None
    return value.isoformat() if isinstance(value, datetime) else value
