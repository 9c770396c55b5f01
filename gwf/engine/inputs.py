"""Say what a condition, a template and an executor know of their job (rule C2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from gwf.model import JobRecord, JobTaskRecord, JobTaskStatus


class Ran(Protocol):
    """Be a task of the job, as far as others see it."""

    @property
    def sequence(self) -> int:
        """Return where it stands."""

    @property
    def task_name(self) -> str:
        """Return its name."""

    @property
    def status(self) -> str:
        """Return its status."""

    @property
    def result(self) -> Any:
        """Return its result."""


def inputs(
    job: JobRecord, task: JobTaskRecord, tasks: Sequence[Ran], context: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the names that this task may use; ``tasks`` are all tasks of the job.

    ``previous_task_result`` is that of the nearest lower sequence that completed something; for a
    group of several it is a map by task name, as ``results`` is for the whole job.
    """
    done = [other for other in tasks if other.status == JobTaskStatus.COMPLETED]
    lower = [other.sequence for other in done if other.sequence < task.sequence]
    previous: Any = None
    if lower:
        size = sum(other.sequence == max(lower) for other in tasks)
        nearest = [other for other in done if other.sequence == max(lower)]
        previous = (
            nearest[0].result if size == 1 else {one.task_name: one.result for one in nearest}
        )
    return {
        "previous_task_result": previous,
        "results": {other.task_name: other.result for other in done},
        "context": context,
        "job": {
            "id": job.id,
            "name": job.job_name,
            "flow": job.flow_name,
            "version": job.flow_version,
            "created_by": job.created_by,
            "n_rollbacks": job.n_rollbacks,
        },
        "task": {
            "id": task.id,
            "name": task.task_name,
            "type": task.task_type,
            "sequence": task.sequence,
            "attempt": task.attempt,
            "config": task.config or {},
        },
    }
