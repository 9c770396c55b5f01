"""Let an automated attempt fail, and open the next one where its config allows that (rule W3).

Why in one transaction: between the failure and the next attempt nobody can find the job failed, and
a worker that dies there leaves nothing half done. Both are in the log and in ``attempts``.
``n_retries`` counts since a person opened the task, so a send-back brings all its tries back.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from gwf.engine.advance import advance, fail_job, make_due
from gwf.engine.job_tasks import reopened
from gwf.engine.state import JobState
from gwf.errors import Invalid
from gwf.execution import work_of
from gwf.model import Action, JobStatus, JobTaskRecord, JobTaskStatus
from gwf.retries import Retry

#: The worker was stopped and gave the attempt back; that is nobody's failure.
GIVEN_BACK = "given_back"


def fail_attempt(
    state: JobState,
    task: JobTaskRecord,
    *,
    code: str,
    message: str,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Let this attempt fail; open the next one, or let the job fail."""
    failed = state.change_task(
        task,
        Action.FAIL,
        message=message,
        metadata=metadata,
        by_system=True,
        status=JobTaskStatus.FAILED,
        error_code=code,
        error_message=message,
        completed_at=state.now,
    )
    if state.job.status != JobStatus.RUNNING:
        return
    rules = _retry_of(task)
    if code == GIVEN_BACK:
        _try_again(state, failed, n_retries=task.n_retries, pause_s=0.0)
    elif rules.allows(task.n_retries + 1, code):
        pause_s = rules.pause_s(task.n_retries + 1, random.random())  # noqa: S311 - jitter is no secret
        _try_again(state, failed, n_retries=task.n_retries + 1, pause_s=pause_s)
    else:
        fail_job(state, f"{task.label} failed")


def _retry_of(task: JobTaskRecord) -> Retry:
    try:
        work = work_of(task.config)
    except Invalid:  # written by another program, since it was not checked
        return Retry()
    return Retry() if work is None else work.retry


def _try_again(state: JobState, failed: JobTaskRecord, *, n_retries: int, pause_s: float) -> None:
    state.save()  # the history takes the attempt as it was saved
    when = f" in {pause_s:.1f} s" if pause_s else ""
    again = reopened(
        state,
        failed,
        Action.RETRY,
        kept_as=failed.status,
        message=f"attempt {failed.attempt + 1}{when}",
    )
    again = state.touch_task(again, n_retries=n_retries)
    if state.job.paused_at is None:
        make_due(state, [again])
    due = state.tasks[failed.id]
    if due.available_at is not None:
        state.touch_task(due, available_at=state.now + timedelta(seconds=pause_s))
    if due.status == JobTaskStatus.FAILED:  # its condition, evaluated again
        fail_job(state, f"{due.label} failed again")
    advance(state)
