"""Tell a service about a task: ``{"webhook_url": {"secret": "HOOK_URL"}}``.

It is a request as ``http`` sends it, by default a POST that says which job and task it comes from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gwf.execution import ExecutionContext
from gwf.executors import http


def check(config: Mapping[str, Any]) -> None:
    """Refuse a config that could never run.

    Raises
    ------
    Invalid
    """
    http.check(_as_request(config, body=None))


def execute(config: Mapping[str, Any], context: ExecutionContext) -> dict[str, Any]:
    """Post to ``webhook_url``, and return what was answered, as ``http.execute`` does.

    Parameters
    ----------
    config
        ``webhook_url``, a text or ``{"secret": "NAME"}``; ``body``, by default the id and the name
        of the job, and the name and the attempt of the task; ``method``, by default POST. The
        other keys are those of ``http``.
    context
        What ``http.execute`` needs, and the job and the task.

    Raises
    ------
    ExecutionFailed
    Invalid
    """
    body = {
        "job": {key: context.job.get(key) for key in ("id", "name")},
        "task": {key: context.task.get(key) for key in ("name", "attempt")},
    }
    return http.execute(_as_request(config, body=body), context)


def _as_request(config: Mapping[str, Any], *, body: object) -> dict[str, Any]:
    """Return the config of ``http`` that does the same."""
    return {"method": "POST", "body": body, **config, "url": config.get("webhook_url")}
