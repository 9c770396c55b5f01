"""Declare the columns and dtypes of every DataFrame; ``frames`` applies them.

``int64`` ids (``Int64`` where there may be none), ``datetime64[us, UTC]`` instants, categories with
the full fixed set of values, ``str`` text, ``Float64`` seconds, JSON columns as Python objects.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from gwf.model import Action, JobStatus, JobTaskStatus, TaskType

ID = "int64"
MAYBE_ID = "Int64"
INSTANT = "datetime64[us, UTC]"
TEXT = "str"
FLAG = "bool"
SECONDS = "Float64"
JSON = "object"


def _category(values: Iterable[str]) -> pd.CategoricalDtype:
    return pd.CategoricalDtype([str(value) for value in values])


TASK_TYPE = _category(TaskType)
JOB_STATUS = _category(JobStatus)
TASK_STATUS = _category(JobTaskStatus)
ACTION = _category(Action)
DECISION = _category(("approve", "reject"))
WORKER_STATE = _category(("running", "stopping", "stopped", "lost"))
ANY_STATUS = _category(dict.fromkeys([*map(str, JobTaskStatus), *map(str, JobStatus)]))

Schema = Mapping[str, Any]

TASKS: Schema = {
    "task_id": ID,
    "name": TEXT,
    "task_type": TASK_TYPE,
    "description": TEXT,
    "config": JSON,
    "is_active": FLAG,
    "created_at": INSTANT,
    "updated_at": INSTANT,
}
FLOWS: Schema = {
    "flow_id": ID,
    "name": TEXT,
    "version": TEXT,
    "description": TEXT,
    "is_active": FLAG,
    "n_tasks": ID,
    "created_by": MAYBE_ID,
    "created_at": INSTANT,
    "updated_at": INSTANT,
    "max_rollbacks": ID,
}
FLOW_TASKS: Schema = {
    "flow_task_id": ID,
    "flow_id": ID,
    "flow_name": TEXT,
    "sequence": ID,
    "task_id": ID,
    "task_name": TEXT,
    "task_type": TASK_TYPE,
    "is_optional": FLAG,
    "allow_rollback": FLAG,
    "condition": TEXT,
    "skip_if_false": "boolean",
    "join_count": MAYBE_ID,
}
JOBS: Schema = {
    "job_id": ID,
    "job_name": TEXT,
    "flow_id": ID,
    "flow_name": TEXT,
    "status": JOB_STATUS,
    "current_task_seq": MAYBE_ID,
    "n_tasks": ID,
    "n_done": ID,
    "n_rollbacks": ID,
    "created_by": MAYBE_ID,
    "created_at": INSTANT,
    "started_at": INSTANT,
    "completed_at": INSTANT,
    "duration_s": SECONDS,
    "flow_version": TEXT,
    "paused_at": INSTANT,
}
ATTEMPTS: Schema = {
    "job_task_id": ID,
    "job_id": ID,
    "job_name": TEXT,
    "flow_id": ID,
    "flow_name": TEXT,
    "sequence": ID,
    "task_id": ID,
    "task_name": TEXT,
    "task_type": TASK_TYPE,
    "status": TASK_STATUS,
    "attempt": ID,
    "operator_id": MAYBE_ID,
    "result": JSON,
    "error_code": TEXT,
    "error_message": TEXT,
    "ready_at": INSTANT,
    "started_at": INSTANT,
    "completed_at": INSTANT,
    "due_at": INSTANT,
    "wait_s": SECONDS,
    "work_s": SECONDS,
    "executor": TEXT,
    "worker": TEXT,
}
LOGS: Schema = {
    "log_id": ID,
    "job_id": ID,
    "job_task_id": MAYBE_ID,
    "task_name": TEXT,
    "attempt": MAYBE_ID,
    "action": ACTION,
    "operator_id": MAYBE_ID,
    "on_behalf_of": MAYBE_ID,
    "from_status": ANY_STATUS,
    "to_status": ANY_STATUS,
    "message": TEXT,
    "metadata": JSON,
    "created_at": INSTANT,
}
CONTEXT: Schema = {
    "job_id": ID,
    "key": TEXT,
    "value": JSON,
    "job_task_id": MAYBE_ID,
    "attempt": MAYBE_ID,
    "created_at": INSTANT,
    "is_deleted": FLAG,
    "superseded_at": INSTANT,
}
VOTES: Schema = {
    "vote_id": ID,
    "job_id": ID,
    "job_task_id": ID,
    "task_name": TEXT,
    "attempt": ID,
    "user": TEXT,
    "decision": DECISION,
    "seat": TEXT,
    "comment": TEXT,
    "created_at": INSTANT,
    "withdrawn_at": INSTANT,
    "user_id": ID,
    "on_behalf_of": TEXT,
    "roles": JSON,
    "is_verified": FLAG,
    "is_superseded": FLAG,
}
INBOX: Schema = {
    "job_task_id": ID,
    "job_id": ID,
    "job_name": TEXT,
    "flow_id": ID,
    "flow_name": TEXT,
    "sequence": ID,
    "task_id": ID,
    "task_name": TEXT,
    "attempt": ID,
    "seat": TEXT,
    "created_by": MAYBE_ID,
    "requested_at": INSTANT,
    "due_at": INSTANT,
}
OUTCOMES: Schema = {"job_task_id": ID, "attempt": MAYBE_ID, "outcome": TEXT, "message": TEXT}
USERS: Schema = {
    "user_id": ID,
    "name": TEXT,
    "display_name": TEXT,
    "is_active": FLAG,
    "roles": JSON,
    "created_at": INSTANT,
}
SCHEDULES: Schema = {
    "schedule_id": ID,
    "flow_id": ID,
    "flow_name": TEXT,
    "job_name": TEXT,
    "cron": TEXT,
    "tz": TEXT,
    "catch_up": TEXT,
    "context": JSON,
    "is_active": FLAG,
    "created_by": MAYBE_ID,
    "created_at": INSTANT,
    "next_at": INSTANT,
    "last_at": INSTANT,
    "last_job_id": MAYBE_ID,
    "n_created": ID,
    "n_skipped": ID,
}
WORKERS: Schema = {
    "worker": TEXT,
    "host": TEXT,
    "pid": ID,
    "state": WORKER_STATE,
    "executors": JSON,
    "concurrency": ID,
    "n_running": ID,
    "n_completed": ID,
    "n_failed": ID,
    "n_lost": ID,
    "last_error": TEXT,
    "started_at": INSTANT,
    "seen_at": INSTANT,
}
EXECUTORS: Schema = {"executor": TEXT, "source": TEXT, "is_allowed": FLAG, "summary": TEXT}
