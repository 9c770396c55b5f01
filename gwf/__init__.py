"""Run workflows from Python and Jupyter: flows, jobs, approvals, and every attempt as a DataFrame.

>>> import gwf
>>> wf = gwf.connect()

Why names load lazily: ``import gwf`` costs little more than nothing, and pandas, plotly or
SQLAlchemy are imported where they are used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Action": "gwf.model",
    "Approval": "gwf.client",
    "BackgroundWorker": "gwf.client",
    "Client": "gwf.client",
    "ConditionInvalid": "gwf.errors",
    "Conflict": "gwf.errors",
    "ContextKeyNotFound": "gwf.errors",
    "DatabaseMismatch": "gwf.errors",
    "DatabaseUnavailable": "gwf.errors",
    "Event": "gwf.events",
    "ExecutionContext": "gwf.execution",
    "ExecutionFailed": "gwf.errors",
    "Flow": "gwf.client",
    "FlowNotFound": "gwf.errors",
    "Group": "gwf.client",
    "GwfError": "gwf.errors",
    "InUse": "gwf.errors",
    "Invalid": "gwf.errors",
    "Job": "gwf.client",
    "JobNotFound": "gwf.errors",
    "JobStatus": "gwf.model",
    "JobTask": "gwf.client",
    "JobTaskNotFound": "gwf.errors",
    "JobTaskStatus": "gwf.model",
    "KeyReused": "gwf.errors",
    "NotAllowed": "gwf.errors",
    "NotDue": "gwf.errors",
    "NotFound": "gwf.errors",
    "OutcomeUnknown": "gwf.errors",
    "ScheduleNotFound": "gwf.errors",
    "SendBackRefused": "gwf.errors",
    "StaleAttempt": "gwf.errors",
    "Step": "gwf.client",
    "Task": "gwf.client",
    "TaskNotFound": "gwf.errors",
    "TaskType": "gwf.model",
    "UnsatisfiablePolicy": "gwf.errors",
    "UserNotFound": "gwf.errors",
    "Vote": "gwf.client",
    "Webhook": "gwf.notifications",
    "connect": "gwf.client",
}

__all__ = [
    "Action",
    "Approval",
    "BackgroundWorker",
    "Client",
    "ConditionInvalid",
    "Conflict",
    "ContextKeyNotFound",
    "DatabaseMismatch",
    "DatabaseUnavailable",
    "Event",
    "ExecutionContext",
    "ExecutionFailed",
    "Flow",
    "FlowNotFound",
    "Group",
    "GwfError",
    "InUse",
    "Invalid",
    "Job",
    "JobNotFound",
    "JobStatus",
    "JobTask",
    "JobTaskNotFound",
    "JobTaskStatus",
    "KeyReused",
    "NotAllowed",
    "NotDue",
    "NotFound",
    "OutcomeUnknown",
    "ScheduleNotFound",
    "SendBackRefused",
    "StaleAttempt",
    "Step",
    "Task",
    "TaskNotFound",
    "TaskType",
    "UnsatisfiablePolicy",
    "UserNotFound",
    "Vote",
    "Webhook",
    "connect",
]

if TYPE_CHECKING:
    from gwf.client import (
        Approval,
        BackgroundWorker,
        Client,
        Flow,
        Group,
        Job,
        JobTask,
        Step,
        Task,
        Vote,
        connect,
    )
    from gwf.errors import (
        ConditionInvalid,
        Conflict,
        ContextKeyNotFound,
        DatabaseMismatch,
        DatabaseUnavailable,
        ExecutionFailed,
        FlowNotFound,
        GwfError,
        InUse,
        Invalid,
        JobNotFound,
        JobTaskNotFound,
        KeyReused,
        NotAllowed,
        NotDue,
        NotFound,
        OutcomeUnknown,
        ScheduleNotFound,
        SendBackRefused,
        StaleAttempt,
        TaskNotFound,
        UnsatisfiablePolicy,
        UserNotFound,
    )
    from gwf.events import Event
    from gwf.execution import ExecutionContext
    from gwf.model import Action, JobStatus, JobTaskStatus, TaskType
    from gwf.notifications import Webhook


def __getattr__(name: str) -> Any:
    """Load a public name, or a module of gwf, when it is first asked for."""
    if name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
        globals()[name] = value
        return value
    if name in ("testing", "frames", "figures", "errors", "model", "policy"):
        return import_module(f"gwf.{name}")
    raise AttributeError(f"module 'gwf' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted([*globals(), *__all__])
