"""Run one job of the sample flow to its end."""

from __future__ import annotations

import random
from datetime import timedelta

from gwf.client import Client, Job
from gwf.model import TaskType
from gwf.testing.clock import FixedClock
from gwf.testing.flows import STANDARD, sample_flows
from gwf.testing.habits import HABITS
from gwf.testing.history import published_plan

_SKIPPED = "集成测试"
_SENT_BACK_FROM = "QA测试"
_SENT_BACK_TO = "代码开发"


def sample_job(wf: Client, name: str = "功能-用户登录", *, clock: FixedClock | None = None) -> Job:
    """Run a job of 标准功能开发流程 from its definition to completion, and return it.

    Two people approve where that is asked for, the optional step is skipped, and testing sends the
    job back to development once.

    Raises
    ------
    Conflict
        A flow of that name exists but is not as published.

    Parameters
    ----------
    clock
        The clock of the client, if it can be told to go on; each task then takes its usual time.

    Examples
    --------
    >>> from datetime import UTC, datetime
    >>> from gwf.testing import FixedClock, sample_job, scratch_client
    >>> clock = FixedClock(datetime(2026, 3, 2, 1, tzinfo=UTC))
    >>> job = sample_job(scratch_client(clock=clock), clock=clock)
    >>> job
    Job(1, '功能-用户登录', completed, 10 of 10 tasks done)
    >>> job.task("QA测试").attempt
    2
    """
    rng = random.Random(0)  # noqa: S311 - sample results are no secret
    standard, _ = sample_flows(wf)
    published_plan(wf, standard, STANDARD)
    job = wf.create_job(standard, name, created_by=101).start(operator=101)
    while (task := job.next_task()) is not None:
        habit = HABITS[task.name]
        who = habit.operators[0]
        if task.name == _SKIPPED:
            task.skip(reason="改动很小, 不影响接口", operator=who)
            continue
        task.start(operator=who)
        if task.type == TaskType.APPROVAL:
            task.approve(operator=who, comment="同意")
            task.approve(operator=habit.operators[1])
            continue
        if clock is not None:
            clock.advance(timedelta(hours=habit.work_h))
        if task.name == _SENT_BACK_FROM and task.attempt == 1:
            task.rollback(to=_SENT_BACK_TO, reason=habit.reasons[0], operator=who)
        else:
            assert habit.result is not None  # noqa: S101 - it is no approval
            task.complete(habit.result(rng), operator=who)
    return job
