"""Say the rules of semantics.md once more, as plain Python without a database.

The property test walks this model and the engine side by side. It was written from the rules (their
numbers stand beside the code) and not from the engine; what the rules leave open is said here:

- a job whose current group can go on no further, because a member is still failed, is failed;
- a group that ended early (P2) leaves its open members ``skipped``, whatever they were before;
- a task behind the caller of a send-back that was decided but never started is decided anew;
- of what a direct send-back skips, only results stand (R8): failed siblings are tried again;
- a pause survives a failure, and ends when the job completes or is cancelled.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

PENDING, RUNNING, COMPLETED = "pending", "running", "completed"
FAILED, CANCELLED, SKIPPED, ROLLED_BACK = "failed", "cancelled", "skipped", "rolled_back"
FINISHED = (COMPLETED, SKIPPED)
OPEN = (PENDING, RUNNING, ROLLED_BACK)
SKIPPED_RESULT = {"status": "skipped"}


class Refused(Exception):
    """Say by the name of its class in gwf which error a call must raise."""

    def __init__(self, outcome: str) -> None:
        self.outcome = outcome
        super().__init__(outcome)


@dataclass(frozen=True)
class Inputs:
    """Hold what a condition may use (rule C2)."""

    context: dict[str, Any]
    results: dict[str, Any]
    previous: Any


def _number(value: Any, holds: Callable[[int], bool]) -> bool | None:
    return holds(value) if isinstance(value, int) else None


#: Conditions and what they come to; None is an error or no boolean (rule C5).
CONDITIONS: dict[str, Callable[[Inputs], bool | None]] = {
    "context.x > 0": lambda given: _number(given.context.get("x"), lambda x: x > 0),
    "has(context.y) && context.y > 1": lambda given: given.context.get("y", 0) > 1,
    "size(results) != 2": lambda given: len(given.results) != 2,
    "previous_task_result > 0": lambda given: _number(given.previous, lambda result: result > 0),
    "context.x": lambda given: None,
}


@dataclass(frozen=True)
class Position:
    """Describe one position of a flow."""

    name: str
    sequence: int
    is_optional: bool = False
    allow_rollback: bool = True
    condition: str | None = None
    skip_if_false: bool = True
    join: int | None = None


@dataclass(frozen=True)
class Past:
    """Hold an attempt that is over and was superseded."""

    attempt: int
    status: str
    result: Any
    code: str | None


@dataclass
class Task:
    """Hold one task of the job and its attempts."""

    position: Position
    status: str = PENDING
    attempt: int = 1
    is_ready: bool = False
    is_started: bool = False
    result: Any = None
    code: str | None = None
    history: list[Past] = field(default_factory=list)

    @property
    def sequence(self) -> int:
        """Return the sequence of the task."""
        return self.position.sequence

    @property
    def is_finished(self) -> bool:
        """Say whether the task no longer holds up its group."""
        return self.status in FINISHED

    def skip(self, code: str | None = None) -> None:
        """End as skipped, which is never approved (rule S1)."""
        self.status, self.result, self.code = SKIPPED, SKIPPED_RESULT, code

    def supersede(self, kept_as: str, status: str = PENDING) -> None:
        """Keep the attempt and open the next one (rule R5)."""
        ends_now = self.status == RUNNING and status == PENDING
        code = CANCELLED if ends_now else self.code
        self.history.append(Past(self.attempt, kept_as, self.result, code))
        self.attempt += 1
        self.status = status
        self.is_ready = self.is_started = False
        self.result = self.code = None


@dataclass
class Written:
    """Hold one value of the context and the task that wrote it."""

    key: str
    value: Any
    writer: int
    is_superseded: bool = False


class Job:
    """Run the rules on one job in memory; every verb changes it or raises ``Refused``."""

    def __init__(
        self, positions: list[Position], *, max_rollbacks: int, has_directory: bool = False
    ) -> None:
        self.tasks = [Task(position) for position in positions]
        self.max_rollbacks = max_rollbacks
        self.has_directory = has_directory
        self.status = PENDING
        self.is_paused = False
        self.n_rollbacks = 0
        self.written: list[Written] = []
        #: The group whose conditions were decided; None before the next one is decided.
        self.due_sequence: int | None = None

    @property
    def current(self) -> int | None:
        """Return the lowest sequence that is not finished (rule P5)."""
        return min((task.sequence for task in self.tasks if not task.is_finished), default=None)

    @property
    def n_done(self) -> int:
        """Return how many tasks are finished."""
        return sum(task.is_finished for task in self.tasks)

    @property
    def context(self) -> dict[str, Any]:
        """Return the values in force; those of rolled-back attempts are not (rule R7)."""
        return {one.key: one.value for one in self.written if not one.is_superseded}

    def group(self, sequence: int) -> list[Task]:
        """Return the tasks of one sequence (rule P2)."""
        return [task for task in self.tasks if task.sequence == sequence]

    def is_due(self, task: Task) -> bool:
        """Say whether the task may start now (rule P1)."""
        return (
            self.status == RUNNING
            and not self.is_paused
            and task.status == PENDING
            and task.is_ready
            and all(other.is_finished for other in self.tasks if other.sequence < task.sequence)
        )

    def write_first(self, values: dict[str, Any]) -> None:
        """Set the context that the job is created with, which no send-back supersedes."""
        self.written += [Written(key, value, -1) for key, value in values.items()]

    # The verbs on a job

    def start_job(self) -> None:
        """Make the first group due."""
        _expect(self.status == PENDING, "Conflict")
        self.status = RUNNING
        self._settle()

    def cancel_job(self) -> None:
        """Give the job up; once more changes nothing (rule W7)."""
        _expect(self.status != COMPLETED, "Conflict")
        if self.status == CANCELLED:
            return
        for task in self.tasks:
            if task.status == RUNNING:
                task.status, task.code = FAILED, CANCELLED
        self.status, self.is_paused = CANCELLED, False

    def pause_job(self) -> None:
        """Let nothing new start (rule W7)."""
        _expect(self.status == RUNNING and not self.is_paused, "Conflict")
        self.is_paused = True

    def resume_job(self) -> None:
        """Allow starts again."""
        _expect(self.status == RUNNING and self.is_paused, "Conflict")
        self.is_paused = False
        late = [t for t in self.group(self.due_sequence or 0) if not t.is_ready]
        self._decide([task for task in late if task.status in (PENDING, ROLLED_BACK)])
        self._settle()

    def reopen_job(self, target: int, *, is_admin: bool = True) -> None:
        """Open a completed job again on purpose (rule R1)."""
        _expect(self.status == COMPLETED, "Conflict")
        _expect(bool(self.group(target)), "Invalid")
        later = [task for task in self.tasks if task.sequence >= target]
        crosses = any(t.status == COMPLETED and not t.position.allow_rollback for t in later)
        _expect(not crosses or self._may_force(is_admin), "NotAllowed")
        for task in later:
            self._undo(task)
        self.status, self.due_sequence = RUNNING, None
        self._settle()

    # The verbs on a task

    def start(self, task: Task) -> None:
        """Start a task that is due (rule P1)."""
        self._expect_due(task)
        task.status, task.is_started = RUNNING, True

    def complete(self, task: Task, result: Any, context: dict[str, Any]) -> None:
        """Complete a running task; in a failed job it is only recorded (rule P4)."""
        _expect(task.status == RUNNING, "Conflict")
        task.status, task.result = COMPLETED, result
        self._write(task, context)
        self._settle()

    def fail(self, task: Task, code: str | None) -> None:
        """Let a running task fail, and its job at once (rule P4)."""
        _expect(task.status == RUNNING, "Conflict")
        task.status, task.code = FAILED, code
        self.status = FAILED

    def skip(self, task: Task, *, force: bool, is_admin: bool = True) -> None:
        """Skip a task that is due and optional, or by force (rules S1, S2)."""
        self._expect_due(task)
        may = task.position.is_optional or (force and self._may_force(is_admin))
        _expect(may, "NotAllowed")
        task.skip()
        self._settle()

    def retry(self, task: Task) -> None:
        """Open the next attempt of a failed task (rules P4, C5)."""
        _expect(task.status == FAILED and self.status in (RUNNING, FAILED), "Conflict")
        task.supersede(FAILED)
        self.status = RUNNING
        if task.sequence == self.due_sequence and not self.is_paused:
            self._decide([task])
        self._settle()

    def set_context(self, task: Task, values: dict[str, Any]) -> None:
        """Write values as the current attempt of a running task."""
        _expect(self.status != CANCELLED and task.status == RUNNING, "Conflict")
        self._write(task, values)

    def rollback(
        self,
        caller: Task,
        target: int,
        *,
        running: str = "refuse",
        resume: str = "through",
        force: bool = False,
        is_admin: bool = True,
    ) -> None:
        """Send the job back (rules R1 to R8)."""
        self._expect_sendable(caller, target, running, force=force, is_admin=is_admin)
        self.n_rollbacks += 1
        self.status = RUNNING
        for task in self.tasks:
            in_range = target <= task.sequence <= caller.sequence
            if in_range and resume == "direct":
                in_range = task.sequence == target or task.status in (RUNNING, FAILED)
            is_hasty = task.sequence > caller.sequence and not task.is_started
            if task is caller:
                self._undo(task, status=ROLLED_BACK)
            elif in_range or (is_hasty and task.status != COMPLETED):
                self._undo(task)
            elif task.status == PENDING and task.sequence > target:
                task.is_ready = False
        if self.due_sequence is not None and target <= self.due_sequence:
            self.due_sequence = None  # else something below the target still goes on
        self._settle()

    def allowed_targets(
        self, caller: Task, *, running: str, force: bool, is_admin: bool = True
    ) -> tuple[int, ...]:
        """Return the targets that a send-back accepts, found by trying each (rule R3)."""
        accepted = []
        for target in sorted({task.sequence for task in self.tasks}):
            with contextlib.suppress(Refused):
                self._expect_sendable(caller, target, running, force=force, is_admin=is_admin)
                accepted.append(target)
        return tuple(accepted)

    # The machinery

    def _expect_due(self, task: Task) -> None:
        _expect(task.status in (PENDING, ROLLED_BACK), "Conflict")
        _expect(self.is_due(task), "NotDue")

    def _may_force(self, is_admin: bool) -> bool:
        return is_admin or not self.has_directory  # rule A8: roles cannot be checked

    def _expect_sendable(
        self, caller: Task, target: int, running: str, *, force: bool, is_admin: bool
    ) -> None:
        _expect(self.status in (RUNNING, FAILED), "SendBackRefused")
        _expect(self.n_rollbacks < self.max_rollbacks, "SendBackRefused")
        _expect(caller.status in (RUNNING, FAILED, COMPLETED), "SendBackRefused")
        began_later = any(t.is_started for t in self.tasks if t.sequence > caller.sequence)
        _expect(caller.status != COMPLETED or not began_later, "SendBackRefused")
        _expect(target < caller.sequence and bool(self.group(target)), "SendBackRefused")
        crossed = [
            task
            for task in self.tasks
            if target <= task.sequence <= caller.sequence and task is not caller
        ]
        busy = any(task.status == RUNNING for task in crossed)
        _expect(not busy or running == "cancel", "SendBackRefused")
        protected = any(t.status == COMPLETED and not t.position.allow_rollback for t in crossed)
        if protected or not caller.position.allow_rollback:
            _expect(force and self._may_force(is_admin), "NotAllowed")

    def _undo(self, task: Task, status: str = PENDING) -> None:
        if task.status in (PENDING, ROLLED_BACK):
            task.is_ready = False
            return
        for one in self.written:
            one.is_superseded |= one.writer == self.tasks.index(task)
        task.supersede(ROLLED_BACK, status)

    def _write(self, task: Task, values: dict[str, Any]) -> None:
        writer = self.tasks.index(task)
        self.written += [Written(key, value, writer) for key, value in values.items()]

    def _settle(self) -> None:
        """Let groups end and become due until the job waits for somebody (rules P1 to P5)."""
        while self.status == RUNNING:
            current = self.current
            if current is None:
                self.status, self.is_paused = COMPLETED, False
                return
            group = self.group(current)
            if self.due_sequence != current:
                if self.is_paused:
                    return  # it becomes due when the job is resumed
                self.due_sequence = current
                self._decide(group)
            elif self._has_ended(group):
                for task in group:
                    if not task.is_finished:
                        task.skip(CANCELLED)
            elif not any(task.status in OPEN for task in group):
                self.status = FAILED
            else:
                return

    def _has_ended(self, group: list[Task]) -> bool:
        wanted = group[0].position.join
        return wanted is not None and sum(t.status == COMPLETED for t in group) >= wanted

    def _decide(self, group: list[Task]) -> None:
        """Make tasks due, their conditions evaluated once (rules C3 to C5)."""
        for task in group:
            if task.status == ROLLED_BACK:
                task.status = PENDING
            if task.status != PENDING:
                continue
            task.is_ready = True
            position = task.position
            if position.condition is None:
                continue
            value = CONDITIONS[position.condition](self._inputs(task))
            if value is False and position.skip_if_false:
                task.skip()
            elif not value:
                task.status = FAILED
                task.code = "condition_false" if value is False else "condition_error"
                self.status = FAILED

    def _inputs(self, task: Task) -> Inputs:
        done = [other for other in self.tasks if other.status == COMPLETED]
        nearest = max((t.sequence for t in done if t.sequence < task.sequence), default=None)
        previous: Any = None
        if nearest is not None:
            members = {t.position.name: t.result for t in done if t.sequence == nearest}
            previous = members
            if len(self.group(nearest)) == 1:
                previous = next(iter(members.values()))
        return Inputs(self.context, {t.position.name: t.result for t in done}, previous)


def _expect(is_met: bool, outcome: str) -> None:
    if not is_met:
        raise Refused(outcome)


#: Walks that chance seldom takes: the sequences of the tasks, then verbs with the index of a task
#: (and of a send-back the target). Each of them failed at least once.
SCRIPTS = {
    "a_later_task_sends_back_while_the_target_of_a_direct_one_waits": (
        (1, 2, 3, 4),
        "start 0, complete 0, start 1, complete 1, start 2, complete 2, start 3, direct 3 1, "
        "rollback 2 2, start 0, complete 0, start 1, complete 1, start 2, complete 2, start 3",
    ),
    "a_later_task_sends_back_while_the_target_of_a_direct_one_runs": (
        (1, 2, 3, 4),
        "start 0, complete 0, start 1, complete 1, start 2, complete 2, start 3, direct 3 1, "
        "start 0, direct 2 2, complete 0, start 1, complete 1, start 2, complete 2, start 3",
    ),
    "a_failed_task_stays_while_its_sibling_completes": (
        (1, 1, 2),
        "start 0, start 1, fail 0, fail 1, retry 0, start 0, complete 0, retry 1, start 1, "
        "complete 1, start 2, complete 2",
    ),
    "a_group_ends_by_its_join_with_failed_members": (
        (1, 1, 1, 2),
        "start 0, start 1, start 2, fail 0, fail 1, complete 2, retry 0, start 3, complete 3",
    ),
    "a_direct_send_back_tries_failed_siblings_again": (
        (1, 2, 2),
        "start 0, complete 0, start 1, start 2, fail 1, fail 2, direct 1 1, start 0, complete 0, "
        "start 1, start 2, complete 1, complete 2",
    ),
    "a_condition_sees_no_value_of_an_attempt_that_is_sent_back": (
        (1, 2, 3),
        "start 0, complete 0, start 1, complete 1, start 2, set_context 2, rollback 2 2, start 1",
    ),
}
