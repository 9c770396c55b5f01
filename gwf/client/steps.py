"""Say how tasks are put together into a flow: steps, parallel groups, sequences.

A list is a parallel group. ``Group`` is the same with a ``join``, for groups that end before each
member is done: ``"any"`` (the first one completed), a number, or ``"all"``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from gwf.client.objects import Task
from gwf.errors import Invalid
from gwf.limits import MAX_SEQUENCE, checked_whole
from gwf.model import Position

Join = Literal["all", "any"] | int
TaskLike = Task | int | str


@dataclass(frozen=True, slots=True)
class Step:
    """Put a task into a flow, with the settings of that position.

    ``sequence`` is given for all steps of a flow or for none; by default they count 1, 2, 3 …
    """

    task: TaskLike
    optional: bool = False
    allow_rollback: bool = True
    condition: str | None = None
    skip_if_false: bool = True
    sequence: int | None = None


class Group:
    """Put several steps into one parallel group."""

    def __init__(self, *steps: Step | TaskLike, join: Join = "all") -> None:
        self.steps = steps
        self.join = join

    def __repr__(self) -> str:
        """Return the steps and the join."""
        return f"Group({', '.join(map(repr, self.steps))}, join={self.join!r})"


StepLike = Step | TaskLike | Group | list[Any] | tuple[Any, ...]


def positions(steps: Iterable[StepLike], task_id: Callable[[TaskLike], int]) -> list[Position]:
    """Return the positions that these steps describe; ``task_id`` looks a task up.

    Raises
    ------
    Invalid
        Not steps, sequences given for some steps only, a bad join.
    """
    if isinstance(steps, (str, bytes, Step, Task)) or not isinstance(steps, Iterable):
        raise Invalid("steps", steps, expected="a list of tasks, steps and lists of them")
    groups = [_group(step) for step in steps]
    given = [step.sequence is not None for group in groups for step in map(_step, group.steps)]
    if any(given) and not all(given):
        raise Invalid("sequence", "given for some steps", expected="given for all of them or none")
    found: list[Position] = []
    for number, group in enumerate(groups, start=1):
        found += _positions_of(group, number, task_id)
    return found


def _group(step: StepLike) -> Group:
    if isinstance(step, Group):
        return step
    if isinstance(step, (list, tuple)):
        return Group(*step)
    return Group(step)


def _step(step: Step | TaskLike) -> Step:
    if isinstance(step, Step):
        return step
    if isinstance(step, (Task, int, str)) and not isinstance(step, bool):
        return Step(step)
    raise Invalid("step", step, expected="a task, its id or name, or a gwf.Step")


def _positions_of(group: Group, number: int, task_id: Callable[[TaskLike], int]) -> list[Position]:
    if not group.steps:
        raise Invalid("group", [], expected="at least one step")
    steps = [_step(step) for step in group.steps]
    if len({step.sequence for step in steps}) > 1:
        raise Invalid(
            "sequence",
            [step.sequence for step in steps],
            expected="one for all steps of a parallel group",
        )
    found = []
    for step in steps:
        sequence = number if step.sequence is None else step.sequence
        checked_whole("sequence", sequence, lowest=1, highest=MAX_SEQUENCE)
        condition = step.condition
        found.append(
            Position(
                task_id=task_id(step.task),
                sequence=sequence,
                is_optional=step.optional,
                allow_rollback=step.allow_rollback,
                condition_config=None
                if condition is None
                else {"condition": condition, "skip_if_false": step.skip_if_false},
                join_count=_join_count(group.join, len(group.steps)),
            )
        )
    return found


def _join_count(join: Join, size: int) -> int | None:
    if join == "all":
        return None
    if join == "any":
        return 1
    return checked_whole("join", join, lowest=1, highest=size)
