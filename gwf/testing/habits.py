"""Say how each task of the sample flows usually goes: who, how long, and what goes wrong."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

PRODUCT_MANAGERS = (101, 102)
TECH_LEADS = (201, 202)
DEVELOPERS = (301, 302, 303, 304, 305, 306)
TESTERS = (401, 402, 403)
PIPELINE = 900


@dataclass(frozen=True, slots=True)
class Habit:
    """Say how a task usually goes.

    ``wait_h`` and ``work_h`` are medians: hours of the office for people, of the clock for an
    automated task. An approval has no ``result`` but its votes.
    ``fails`` and ``sends_back`` are the shares of its attempts that end so.
    ``back_to`` names where it sends the job back to, also after it failed.
    """

    operators: tuple[int, ...]
    wait_h: float
    work_h: float
    result: Callable[[random.Random], dict[str, Any]] | None = None
    fails: float = 0.0
    errors: tuple[tuple[str, str], ...] = ()
    sends_back: float = 0.0
    back_to: str | None = None
    reasons: tuple[str, ...] = ()


def _designed(rng: random.Random) -> dict[str, Any]:
    return {"document": "tech_design_doc.md", "pages": rng.randint(2, 14)}


def _developed(rng: random.Random) -> dict[str, Any]:
    return {"branch": f"feature/{rng.randint(100, 999)}", "commits": rng.randint(1, 20)}


def _unit_tested(rng: random.Random) -> dict[str, Any]:
    return {"passed": rng.randint(180, 420), "coverage": rng.randint(800, 960) / 10}


def _integration_tested(rng: random.Random) -> dict[str, Any]:
    return {"passed": rng.randint(30, 60)}


def _staged(rng: random.Random) -> dict[str, Any]:
    return {"environment": "staging", "build": rng.randint(1000, 9999)}


def _checked(rng: random.Random) -> dict[str, Any]:
    n_cases = rng.randint(12, 60)
    return {"cases": n_cases, "passed": n_cases}


def _released(rng: random.Random) -> dict[str, Any]:
    return {"environment": "production", "backup": True}


#: By the name of the task.
HABITS = {
    "需求评审": Habit(TECH_LEADS, 3, 0.3),
    "技术设计": Habit(
        DEVELOPERS,
        1.5,
        5,
        _designed,
        sends_back=0.05,
        back_to="需求评审",
        reasons=("验收标准不明确", "需求范围有变化"),
    ),
    "代码开发": Habit(
        DEVELOPERS, 1, 9, _developed, fails=0.02, errors=(("no_access", "权限不足: 无法推送分支"),)
    ),
    "代码审查": Habit(
        TECH_LEADS,
        2.5,
        0.6,
        sends_back=0.16,
        back_to="代码开发",
        reasons=("错误处理不完整", "缺少单元测试", "接口与设计不一致"),
    ),
    "单元测试": Habit(
        (PIPELINE,),
        0.005,
        0.12,
        _unit_tested,
        fails=0.1,
        errors=(("exit_1", "2 tests failed"), ("coverage", "coverage 76.4 % is below 80 %")),
        back_to="代码开发",
        reasons=("单元测试未通过",),
    ),
    "集成测试": Habit(
        (PIPELINE,),
        0.005,
        0.4,
        _integration_tested,
        fails=0.07,
        errors=(("exit_2", "make: *** [integration-test] Error 1"), ("timed_out", "no answer")),
        back_to="代码开发",
        reasons=("集成测试未通过",),
    ),
    "部署到测试环境": Habit(
        (PIPELINE,),
        0.01,
        0.1,
        _staged,
        fails=0.03,
        errors=(("disk_full", "no space left on device"),),
    ),
    "QA测试": Habit(
        TESTERS,
        2,
        4,
        _checked,
        sends_back=0.14,
        back_to="代码开发",
        reasons=("边界条件出错", "与需求不符", "页面在手机上错位"),
    ),
    "发布审批": Habit((*TECH_LEADS, *PRODUCT_MANAGERS), 1.5, 0.2),
    "生产部署": Habit(
        (PIPELINE,),
        0.02,
        0.2,
        _released,
        fails=0.02,
        errors=(("health_check", "health check failed, the old version is back"),),
    ),
}
