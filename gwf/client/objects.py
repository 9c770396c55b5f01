"""Give tasks and flows as objects to a notebook, with a short repr and an escaped HTML one."""

from __future__ import annotations

import html
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from gwf.model import FlowRecord, TaskRecord

if TYPE_CHECKING:
    import pandas as pd

    from gwf.client import Client


def table_html(title: str, facts: Mapping[str, object]) -> str:
    """Return facts as a small HTML table; whatever a person typed is escaped."""
    rows = "".join(
        f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
        f"<td style='text-align:left'>{html.escape(_shown(value))}</td></tr>"
        for name, value in facts.items()
        if value is not None
    )
    return f"<table><caption>{html.escape(title)}</caption><tbody>{rows}</tbody></table>"


def _shown(value: object) -> str:
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S} UTC"
    return str(value)


class Task:
    """Be a reusable definition of a unit of work."""

    def __init__(self, record: TaskRecord) -> None:
        self.record = record

    @property
    def id(self) -> int:
        """Return the id of the task."""
        return self.record.id

    @property
    def name(self) -> str:
        """Return the name of the task."""
        return self.record.name

    @property
    def type(self) -> str:
        """Return ``manual``, ``automated`` or ``approval``."""
        return self.record.task_type

    @property
    def description(self) -> str | None:
        """Return the description, if there is one."""
        return self.record.description

    @property
    def config(self) -> Any:
        """Return the configuration: JSON, or None."""
        return self.record.config

    @property
    def is_active(self) -> bool:
        """Say whether new flows may use the task."""
        return self.record.is_active

    def __repr__(self) -> str:
        """Return id, name and type."""
        return f"Task({self.id}, {self.name!r}, {self.type})"

    def _repr_html_(self) -> str:
        record = self.record
        facts = {
            "id": record.id,
            "type": record.task_type,
            "description": record.description,
            "config": record.config,
            "active": record.is_active,
        }
        return table_html(f"Task {record.name}", facts)


class Flow:
    """Be an ordered set of tasks, of one version."""

    def __init__(self, client: Client, record: FlowRecord) -> None:
        self._client = client
        self.record = record

    @property
    def id(self) -> int:
        """Return the id of the flow."""
        return self.record.id

    @property
    def name(self) -> str:
        """Return the name of the flow."""
        return self.record.name

    @property
    def version(self) -> str:
        """Return the version of the flow."""
        return self.record.version

    @property
    def description(self) -> str | None:
        """Return the description, if there is one."""
        return self.record.description

    @property
    def is_active(self) -> bool:
        """Say whether jobs may be made from the flow."""
        return self.record.is_active

    def tasks(self) -> pd.DataFrame:
        """Return the frame ``flow_tasks`` of this flow."""
        return self._client.flow_tasks(self)

    def __repr__(self) -> str:
        """Return id, name and version."""
        return f"Flow({self.id}, {self.name!r}, version {self.version})"

    def _repr_html_(self) -> str:
        record = self.record
        steps = self.tasks()
        facts: dict[str, object] = {
            "id": record.id,
            "version": record.version,
            "description": record.description,
            "active": record.is_active,
        }
        for sequence, group in steps.groupby("sequence"):
            facts[f"sequence {sequence}"] = ", ".join(group["task_name"])
        return table_html(f"Flow {record.name}", facts)
