"""Imagine believable jobs of the sample flows, up to a moment.

Pure: it knows no database and no clock, and the same seed tells the same stories.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from gwf.model import FlowRecord, JobTaskRecord, TaskType
from gwf.testing.habits import DEVELOPERS, HABITS, PRODUCT_MANAGERS, TECH_LEADS, Habit
from gwf.testing.office import WEEK_H, after_office_hours
from gwf.testing.rows import JobRows

_TOPICS = (
    "用户登录",
    "订单导出",
    "支付超时",
    "消息推送",
    "报表查询",
    "权限管理",
    "文件上传",
    "搜索",
)

_COMMENTS = (None, None, "同意", "没有问题", "范围清楚, 可以开始")

#: Spans are log-normal around their medians; these are the sigmas.
_SPREAD_OF_WAITS = 0.9
_SPREAD_OF_WORK = 0.6

#: The last few jobs are at most so many office hours old, so that some are under way at the end.
_N_YOUNG = 5
_YOUNG_H = 20.0

_MOST_ROLLBACKS = 4


@dataclass(frozen=True, slots=True)
class Plan:
    """Hold a flow and what a new job copies from it: its tasks, one for each sequence."""

    flow: FlowRecord
    tasks: tuple[JobTaskRecord, ...]


def tell(
    standard: Plan, hotfix: Plan, *, n_jobs: int, seed: int, now: datetime, weeks: int
) -> Iterator[JobRows]:
    """Yield jobs as they stand at ``now``, in the order in which they were created."""
    rng = random.Random(seed)  # noqa: S311 - a story is no secret
    for number, created_at in enumerate(_creations(rng, n_jobs, now, weeks), start=1):
        is_hotfix = rng.random() < 0.3
        kind, plan = ("修复", hotfix) if is_hotfix else ("功能", standard)
        creator = rng.choice(DEVELOPERS if is_hotfix else PRODUCT_MANAGERS)
        name = f"{kind}-{rng.choice(_TOPICS)}-{number:04d}"
        rows = JobRows(plan.flow, plan.tasks, name=name, created_by=creator, created_at=created_at)
        _Story(rng, rows, now).unfold()
        yield rows


def _creations(rng: random.Random, n_jobs: int, now: datetime, weeks: int) -> Sequence[datetime]:
    n_young = min(_N_YOUNG, n_jobs)
    ages = [rng.uniform(0, weeks * WEEK_H) for _ in range(n_jobs - n_young)]
    ages += [_YOUNG_H * ((step + rng.random()) / _N_YOUNG) ** 2 for step in range(n_young)]
    return sorted(min(after_office_hours(now, -age), now) for age in ages)


class _NowIsReached(Exception):
    """Say that what comes next lies in the future."""


class _Story:
    """Let one job go on until it ends or the present is reached."""

    def __init__(self, rng: random.Random, rows: JobRows, now: datetime) -> None:
        self.rng = rng
        self.rows = rows
        self.now = now
        self.people: dict[str, int] = {}

    def unfold(self) -> None:
        """Start the job, then take one task after another."""
        try:
            self._office(0.5)
            if self._happens(0.01):
                self.rows.cancel_job("重复的需求")
                return
            self.rows.start_job()
            while self.rows.current is not None:
                self._attempt(self.rows.current)
        except _NowIsReached:
            return

    def _attempt(self, position: int) -> None:
        """Carry out one attempt of a task, from the wait for it to its end."""
        rows, task = self.rows, self.rows.copied[position]
        habit = HABITS[task.task_name]
        if self._happens(0.006):
            self._pause()
        if self._happens(0.0015):
            self._cancel(1, "需求取消")
            return
        self._wait(task, habit.wait_h)
        if task.is_optional and self._happens(0.25):
            rows.skip(position, "改动很小, 不影响接口")
            return
        rows.start(position)
        if self._happens(0.001):
            self._cancel(habit.work_h / 2, "版本计划调整")
            return
        if task.task_type == TaskType.APPROVAL:
            self._decide(position, habit)
            return
        self._work(task, habit.work_h)
        if self._happens(habit.sends_back) and self._may_send_back(position):
            self._send_back(position)
        elif self._happens(habit.fails):
            rows.fail(position, *self.rng.choice(habit.errors))
            self._after_failure(position)
        else:
            assert habit.result is not None  # noqa: S101 - it is no approval
            rows.complete(position, habit.result(self.rng))

    def _decide(self, position: int, habit: Habit) -> None:
        """Let people vote one after another, or send the job back after the first vote."""
        first = self.rows.operator
        others = [who for who in (*TECH_LEADS, *PRODUCT_MANAGERS) if who != first]
        for voter in (first, self.rng.choice(others)):
            self._deliberate(position, habit.work_h)
            self.rows.operator = voter
            if self._happens(habit.sends_back / 2) and self._may_send_back(position):
                self._send_back(position)
                return
            self.rows.vote(position, self.rng.choice(_COMMENTS))

    def _deliberate(self, position: int, median_h: float) -> None:
        """Think about it; where there is a deadline, at most two fifths of the time."""
        hours = median_h * self.rng.lognormvariate(0, _SPREAD_OF_WORK)
        timeout = self.rows.copied[position].config.get("timeout")
        if timeout is None:
            self._go_to(after_office_hours(self.rows.now, hours))
        else:
            self._go_to(self.rows.now + timedelta(seconds=min(hours * 3600, 0.4 * timeout)))

    def _after_failure(self, position: int) -> None:
        """Leave the job failed, give it up, send it back, or mostly try the task again."""
        chance = self.rng.random()
        if chance < 0.1:
            return
        if chance < 0.15:
            self._cancel(8, "不再需要")
            return
        self._office(0.7)
        self.rows.operator = self.rng.choice(DEVELOPERS)
        if chance < 0.4 and self._may_send_back(position):
            self._send_back(position)
        else:
            self.rows.retry(position, "再试一次")

    def _send_back(self, position: int) -> None:
        names = [task.task_name for task in self.rows.copied]
        habit = HABITS[names[position]]
        assert habit.back_to is not None  # noqa: S101 - _may_send_back has seen to it
        target = names.index(habit.back_to)
        self.rows.roll_back(position, target, self.rng.choice(habit.reasons))

    def _may_send_back(self, position: int) -> bool:
        earlier = [task.task_name for task in self.rows.copied[:position]]
        is_possible = HABITS[self.rows.copied[position].task_name].back_to in earlier
        most = min(_MOST_ROLLBACKS, self.rows.job["max_rollbacks"])
        return is_possible and self.rows.job["n_rollbacks"] < most

    def _cancel(self, wait_h: float, reason: str) -> None:
        self._office(wait_h)
        self.rows.operator = self.rows.job["created_by"]
        self.rows.cancel_job(reason)

    def _pause(self) -> None:
        self._office(0.5)
        self.rows.operator = self.rows.job["created_by"]
        self.rows.pause_job("等待外部确认")
        self._office(7)
        self.rows.resume_job()

    def _wait(self, task: JobTaskRecord, median_h: float) -> None:
        self._spend(task, median_h, _SPREAD_OF_WAITS)
        self.rows.operator = self._person(task.task_name)

    def _work(self, task: JobTaskRecord, median_h: float) -> None:
        self._spend(task, median_h, _SPREAD_OF_WORK)

    def _spend(self, task: JobTaskRecord, median_h: float, spread: float) -> None:
        if task.task_type != TaskType.AUTOMATED:
            self._office(median_h, spread)
            return
        hours = median_h * self.rng.lognormvariate(0, spread)
        self._go_to(self.rows.now + timedelta(hours=hours))

    def _office(self, median_h: float, spread: float = _SPREAD_OF_WAITS) -> None:
        hours = median_h * self.rng.lognormvariate(0, spread)
        self._go_to(after_office_hours(self.rows.now, hours))

    def _go_to(self, instant: datetime) -> None:
        if instant > self.now:
            raise _NowIsReached
        self.rows.now = instant

    def _person(self, task_name: str) -> int:
        """Return who does this in this job, also when it comes back."""
        if task_name not in self.people:
            self.people[task_name] = self.rng.choice(HABITS[task_name].operators)
        return self.people[task_name]

    def _happens(self, share: float) -> bool:
        return self.rng.random() < share
