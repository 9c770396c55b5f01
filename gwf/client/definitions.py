"""Be the client's verbs on the definitions: tasks and flows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy.engine import Connection

from gwf.client.door import Door, FlowLike, known_fields, listed
from gwf.client.objects import Flow, Task
from gwf.client.steps import StepLike, TaskLike, positions
from gwf.engine import definitions
from gwf.model import MAX_ROLLBACKS, TaskType


class Definitions(Door):
    """Create, edit, delete and read tasks and flows."""

    def create_task(
        self,
        name: str,
        *,
        type: str = TaskType.MANUAL,
        description: str | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> Task:
        """Create a reusable task of type ``manual``, ``automated`` or ``approval``.

        Raises
        ------
        Invalid
            A name that is empty or longer than 100 characters, an unknown type, a config that is
            no JSON object.
        """
        values = {"name": name, "task_type": type, "description": description, "config": config}
        return Task(self._write(lambda conn: definitions.create_task(conn, values)))

    def update_task(self, task: TaskLike, **fields: Any) -> Task:
        """Change ``name``, ``type``, ``description``, ``config`` or ``is_active`` of a task.

        Fields that are not given keep their values, and existing jobs keep their copies.

        Raises
        ------
        TaskNotFound, Invalid
        """
        names = {"type": "task_type"}
        known = ("name", "type", "description", "config", "is_active")
        values = known_fields(fields, known, names)
        return Task(
            self._write(
                lambda conn: definitions.update_task(conn, self._task_id(conn, task), values)
            )
        )

    def delete_task(self, task: TaskLike) -> None:
        """Delete a task that no flow and no job uses.

        Raises
        ------
        TaskNotFound, InUse
        """
        self._write(lambda conn: definitions.delete_task(conn, self._task_id(conn, task)))

    def task(self, which: TaskLike) -> Task:
        """Return the task of this id, or the newest one of this name.

        Raises
        ------
        TaskNotFound
        """
        return Task(self._read(lambda conn: definitions.get_task(conn, self._task_id(conn, which))))

    def create_flow(
        self,
        name: str,
        steps: Iterable[StepLike],
        *,
        version: str = "1.0.0",
        description: str | None = None,
        created_by: int | None = None,
        max_rollbacks: int = MAX_ROLLBACKS,
    ) -> Flow:
        """Create a flow from steps; a list among them is a parallel group.

        A step is a task (an object, an id or a name), a ``gwf.Step`` or a ``gwf.Group``.
        A job of the flow may be sent back ``max_rollbacks`` times.

        Raises
        ------
        TaskNotFound, ConditionInvalid, Invalid
        """
        values = {
            "name": name,
            "version": version,
            "description": description,
            "created_by": created_by,
            "max_rollbacks": max_rollbacks,
        }
        wanted = listed(steps)

        def work(conn: Connection) -> Flow:
            found = positions(wanted, lambda task: self._task_id(conn, task))
            return Flow(self._client, definitions.create_flow(conn, values, found))

        return self._write(work)

    def update_flow(
        self, flow: FlowLike, *, steps: Iterable[StepLike] | None = None, **fields: Any
    ) -> Flow:
        """Change ``name``, ``version``, ``description``, ``is_active``, ``max_rollbacks`` or steps.

        Fields that are not given keep their values; steps replace the old ones as a whole.
        Existing jobs keep their copies.

        Raises
        ------
        FlowNotFound, TaskNotFound, ConditionInvalid, Invalid
        """
        known = ("name", "version", "description", "is_active", "max_rollbacks")
        values = known_fields(fields, known, {})
        wanted = None if steps is None else listed(steps)

        def work(conn: Connection) -> Flow:
            found = None
            if wanted is not None:
                found = positions(wanted, lambda task: self._task_id(conn, task))
            flow_id = self._flow_id(conn, flow)
            return Flow(self._client, definitions.update_flow(conn, flow_id, values, found))

        return self._write(work)

    def delete_flow(self, flow: FlowLike) -> None:
        """Delete a flow that no job was made from.

        Raises
        ------
        FlowNotFound, InUse
        """
        self._write(lambda conn: definitions.delete_flow(conn, self._flow_id(conn, flow)))

    def flow(self, which: FlowLike) -> Flow:
        """Return the flow of this id, or the newest active one of this name.

        Raises
        ------
        FlowNotFound
        """
        return Flow(
            self._client,
            self._read(lambda conn: definitions.get_flow(conn, self._flow_id(conn, which))),
        )
