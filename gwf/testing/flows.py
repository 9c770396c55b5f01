"""Keep the sample data that GoWorkFlow published: ten tasks and the two flows made of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gwf import queries
from gwf.client import Client, Flow
from gwf.database import write
from gwf.engine import definitions
from gwf.errors import FlowNotFound
from gwf.model import FlowRecord, Position, TaskRecord
from gwf.tables import tasks

TASKS: tuple[dict[str, Any], ...] = (
    {
        "name": "需求评审",
        "description": "产品需求评审会议",
        "task_type": "approval",
        "config": {"approvers": ["PM", "Tech Lead"], "timeout": 3600},
    },
    {
        "name": "技术设计",
        "description": "完成技术设计文档",
        "task_type": "manual",
        "config": {
            "template": "tech_design_doc.md",
            "required_sections": ["架构", "接口", "数据库"],
        },
    },
    {
        "name": "代码开发",
        "description": "开发功能代码",
        "task_type": "manual",
        "config": {"git_branch_pattern": "feature/*"},
    },
    {
        "name": "代码审查",
        "description": "Code Review",
        "task_type": "approval",
        "config": {"min_approvers": 2, "required_reviewers": ["Senior Developer"]},
    },
    {
        "name": "单元测试",
        "description": "运行单元测试",
        "task_type": "automated",
        "config": {"command": "go test ./...", "coverage_threshold": 80},
    },
    {
        "name": "集成测试",
        "description": "运行集成测试",
        "task_type": "automated",
        "config": {"command": "make integration-test"},
    },
    {
        "name": "部署到测试环境",
        "description": "部署到测试环境",
        "task_type": "automated",
        "config": {"environment": "staging", "rollback_enabled": True},
    },
    {
        "name": "QA测试",
        "description": "QA功能测试",
        "task_type": "manual",
        "config": {"test_cases": "required"},
    },
    {
        "name": "发布审批",
        "description": "生产发布审批",
        "task_type": "approval",
        "config": {"approvers": ["Tech Lead", "Product Manager"]},
    },
    {
        "name": "生产部署",
        "description": "部署到生产环境",
        "task_type": "automated",
        "config": {"environment": "production", "backup_required": True},
    },
)


@dataclass(frozen=True, slots=True)
class SampleFlow:
    """Describe one of the two flows; its sequences count from 1."""

    name: str
    description: str
    task_names: tuple[str, ...]
    optional: frozenset[str] = frozenset()
    no_rollback: frozenset[str] = frozenset({"发布审批", "生产部署"})


STANDARD = SampleFlow(
    "标准功能开发流程",
    "完整的功能开发到上线流程",
    tuple(task["name"] for task in TASKS),
    optional=frozenset({"集成测试"}),
)
HOTFIX = SampleFlow(
    "热修复流程", "紧急Bug修复流程", ("代码开发", "代码审查", "单元测试", "发布审批", "生产部署")
)


def sample_flows(wf: Client) -> tuple[Flow, Flow]:
    """Return the published flows 标准功能开发流程 and 热修复流程, creating what is not there.

    Both share their tasks. A flow of the name that exists is returned as it is, so calling this
    twice creates nothing; a task that exists is used if it is exactly the published one.

    Returns
    -------
    tuple of Flow
        The flow of ten steps, the sixth of them optional, and the flow of five; the last two steps
        of each allow no send-back.

    Examples
    --------
    >>> from gwf.testing import sample_flows, scratch_client
    >>> sample_flows(scratch_client())
    (Flow(1, '标准功能开发流程', version 1.0.0), Flow(2, '热修复流程', version 1.0.0))
    """

    def work(conn: Connection) -> tuple[FlowRecord, FlowRecord]:
        task_ids: dict[str, int] = {}
        return _found_or_made(conn, STANDARD, task_ids), _found_or_made(conn, HOTFIX, task_ids)

    standard, hotfix = write(wf.database, work)
    return Flow(wf, standard), Flow(wf, hotfix)


def _found_or_made(conn: Connection, flow: SampleFlow, task_ids: dict[str, int]) -> FlowRecord:
    try:
        return definitions.find_flows(conn, flow.name)[0]
    except FlowNotFound:
        if not task_ids:
            task_ids.update((task["name"], _task_id(conn, task)) for task in TASKS)
    values = {
        "name": flow.name,
        "description": flow.description,
        "version": "1.0.0",
        "created_by": 1,
    }
    return definitions.create_flow(conn, values, positions_of(flow, task_ids))


def positions_of(flow: SampleFlow, task_ids: dict[str, int]) -> list[Position]:
    """Return the positions of the flow, given the ids of its tasks by name."""
    return [
        Position(
            task_ids[name],
            sequence,
            is_optional=name in flow.optional,
            allow_rollback=name not in flow.no_rollback,
        )
        for sequence, name in enumerate(flow.task_names, start=1)
    ]


def _task_id(conn: Connection, published: dict[str, Any]) -> int:
    """Return the id of the oldest active task that is exactly this one, or of a new one."""
    query = sa.select(*queries.TASK_COLUMNS).where(
        tasks.c.name == published["name"], tasks.c.is_active
    )
    for row in conn.execute(query.order_by(tasks.c.id)):
        task = TaskRecord.from_row(row)
        if all(getattr(task, name) == value for name, value in published.items()):
            return task.id
    return definitions.create_task(conn, published).id
