"""Show how a config names an executor, and what an executor is told: rules W1 and W8."""

from __future__ import annotations

from typing import Any

import pytest

import gwf
from gwf.execution import HIDDEN, ExecutionContext, work_of
from gwf.retries import Retry
from gwf.testing import sample_flows, scratch_client


@pytest.mark.parametrize(
    ("config", "executor", "arguments"),
    [
        ({"command": "make test"}, "command", {"command": "make test"}),
        (
            {"command": "go test ./...", "coverage_threshold": 80},
            "command",
            {"command": "go test ./...", "coverage_threshold": 80},
        ),
        ({"webhook_url": "http://h/x"}, "webhook", {"webhook_url": "http://h/x"}),
        ({"url": "http://h", "method": "PUT"}, "http", {"url": "http://h", "method": "PUT"}),
        ({"sql": "SELECT 1"}, "sql", {"sql": "SELECT 1"}),
        ({"notebook": "r.ipynb"}, "notebook", {"notebook": "r.ipynb"}),
        ({"python": "pkg:run"}, "python", {"python": "pkg:run"}),
        ({"executor": "lint"}, "lint", {}),
        ({"executor": "lint", "command": "x", "timeout": 5}, "lint", {"command": "x"}),
    ],
)
def test_work_of_names_its_executor(
    config: dict[str, Any], executor: str, arguments: dict[str, Any]
) -> None:
    """W1: in full, or by a shorthand; other keys are arguments."""
    work = work_of(config)
    assert work is not None
    assert (work.executor, work.arguments) == (executor, arguments)


@pytest.mark.parametrize("config", [None, {}, {"environment": "staging", "rollback_enabled": True}])
def test_work_of_nobody(config: dict[str, Any] | None) -> None:
    """A config without an executor is none's work; the published samples hold such."""
    assert work_of(config) is None


def test_work_of_the_published_samples() -> None:
    """Each automated task of the sample data is read; two of them are commands."""
    with scratch_client() as wf:
        sample_flows(wf)
        configs = wf.tasks().query("task_type == 'automated'")["config"]
    found = [work.executor for config in configs if (work := work_of(config)) is not None]
    assert (len(configs), found) == (4, ["command", "command"])


def test_work_of_bounds() -> None:
    """The timeout and the retries are no arguments."""
    work = work_of({"command": "x", "timeout": 600, "retry": {"max_attempts": 3, "jitter": True}})
    assert work is not None
    assert (work.timeout_s, work.retry) == (600.0, Retry(max_attempts=3, jitter=True))
    assert work.arguments == {"command": "x"}


@pytest.mark.parametrize(
    ("config", "match"),
    [
        ("make", "a mapping"),
        ({"command": "x", "url": "http://h"}, "command and url"),
        ({"executor": ""}, "executor"),
        ({"executor": 5}, "executor"),
        ({"command": "x", "timeout": 0}, "timeout"),
        ({"command": "x", "timeout": "600"}, "timeout"),
        ({"command": "x", "timeout": float("nan")}, "timeout"),
        ({"command": "x", "retry": {"attempts": 3}}, "max_attempts"),
    ],
)
def test_work_of_what_makes_no_sense(config: Any, match: str) -> None:
    """One clear error each."""
    with pytest.raises(gwf.Invalid, match=match):
        work_of(config)


def test_context_is_a_mapping() -> None:
    """``context["env"]`` reads the context of the job."""
    context = ExecutionContext({"env": "prod", "build": 7}, job={"id": 1})
    assert (context["env"], len(context), list(context)) == ("prod", 2, ["env", "build"])
    assert context.get("no") is None
    assert not context.given_up.is_set()


def test_context_reveals_and_hides_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """W8: a secret comes from the environment, and no text that is kept shows it."""
    monkeypatch.setenv("TOKEN", "s3cret-value")
    context = ExecutionContext()
    assert context.revealed("x", "plain") == "plain"
    assert context.redacted("s3cret-value") == "s3cret-value"
    assert context.revealed("x", {"secret": "TOKEN"}) == "s3cret-value"
    assert context.redacted("a s3cret-value b") == f"a {HIDDEN} b"
    assert "s3cret" not in repr(context)


@pytest.mark.parametrize(
    "value", [5, None, ["a"], {"secret": "NO_SUCH"}, {"secret": 5}, {"secret": "A", "x": 1}]
)
def test_context_reveals_nothing_else(value: object) -> None:
    """A missing secret, and what is neither text nor a reference."""
    with pytest.raises(gwf.Invalid):
        ExecutionContext().revealed("env A", value)
