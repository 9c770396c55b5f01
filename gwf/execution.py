"""Read what an automated task asks for, and hold what its executor is told.

``config`` names an executor and its arguments (rule W1), in full as ``{"executor": "lint", …}`` or
by the key that is an executor's own: ``{"command": "make test"}``. Other keys are arguments, or
notes for people: the published samples hold some.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from gwf import retries
from gwf.database import Database, open_database
from gwf.errors import Invalid
from gwf.limits import checked_name, checked_seconds
from gwf.retries import Retry

#: The longest that a task may be given, in seconds: thirty days.
MAX_TIMEOUT_S = 30 * 86_400

#: The key that means an executor, and which.
SHORTHANDS = {
    "command": "command",
    "webhook_url": "webhook",
    "url": "http",
    "sql": "sql",
    "notebook": "notebook",
    "python": "python",
}
HIDDEN = "•••"


@dataclass(frozen=True, slots=True)
class Work:
    """Hold what a task asks for: the executor by name, its arguments, its bounds."""

    executor: str
    arguments: Mapping[str, Any]
    timeout_s: float | None
    retry: Retry


def work_of(config: object) -> Work | None:
    """Read the config of an automated task; None where it names no executor.

    Raises
    ------
    Invalid
        It names two executors, or its ``timeout`` or ``retry`` makes no sense.
    """
    if config is None:
        return None
    if not isinstance(config, Mapping):
        raise Invalid("config of an automated task", config, expected="a mapping")
    named = [SHORTHANDS[key] for key in config if key in SHORTHANDS]
    if config.get("executor") is not None:
        executor = checked_name("executor", config["executor"])
    elif len(named) > 1:
        keys = [key for key in config if key in SHORTHANDS]
        raise Invalid("config", " and ".join(keys), expected="one of them, or name the executor")
    elif named:
        executor = named[0]
    else:
        return None
    timeout = config.get("timeout")
    bounds = ("executor", "timeout", "retry")
    return Work(
        executor=executor,
        arguments={key: value for key, value in config.items() if key not in bounds},
        timeout_s=None
        if timeout is None
        else checked_seconds("timeout", timeout, highest=MAX_TIMEOUT_S),
        retry=retries.parse(config.get("retry")),
    )


@dataclass(frozen=True)
class ExecutionContext(Mapping[str, Any]):
    """Be the context of the job for an executor, and tell what else it may need.

    As a mapping it holds the values of the job's context, so ``context["env"]`` reads one.

    Attributes
    ----------
    context
        The context in force when the attempt was started.
    job, task
        ``id`` and ``name`` of both; of the job also ``flow``, ``version`` and ``created_by``, of
        the task ``sequence`` and ``attempt``.
    results
        The result of each completed task by its name.
    previous_task_result
        As in a condition (rule C2).
    timeout_s
        Seconds after which the attempt is over, or None.
    networks
        Private networks that the worker allows requests to, such as ``127.0.0.0/8``.
    artefacts
        The folder for what an executor leaves behind, such as an executed notebook.
    database
        The database of the job; None in another process where it is in memory.
    given_up
        Is set when the attempt was cancelled, its time is over, or its worker has to stop.
    """

    context: Mapping[str, Any] = field(default_factory=dict)
    job: Mapping[str, Any] = field(default_factory=dict)
    task: Mapping[str, Any] = field(default_factory=dict)
    results: Mapping[str, Any] = field(default_factory=dict)
    previous_task_result: Any = None
    timeout_s: float | None = None
    networks: tuple[str, ...] = ()
    artefacts: str = "artefacts"
    database: Database | None = field(default=None, compare=False, repr=False)
    given_up: threading.Event = field(default_factory=threading.Event, compare=False, repr=False)
    _secrets: set[str] = field(default_factory=set, compare=False, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process needs; of the database that is its address."""
        state = dict(self.__dict__)
        del state["given_up"]
        if self.database is not None:
            url = self.database.engine.url
            state["database"] = None if self.database.in_memory else url
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take what came from another process; nobody there can set its ``given_up``."""
        url = state["database"]
        database = None if url is None else open_database(url)
        self.__dict__.update(state | {"database": database, "given_up": threading.Event()})

    def __getitem__(self, key: str) -> Any:
        """Return one value of the context."""
        return self.context[key]

    def __iter__(self) -> Iterator[str]:
        """Go through the keys of the context."""
        return iter(self.context)

    def __len__(self) -> int:
        """Return how many values the context holds."""
        return len(self.context)

    def revealed(self, what: str, value: object) -> str:
        """Return a text of a config, or the secret that ``{"secret": "NAME"}`` refers to.

        A secret is read from the environment of the worker, and ``redacted`` hides it from then on.

        Raises
        ------
        Invalid
            Neither a text nor such a reference, or the environment holds no such secret.
        """
        if isinstance(value, str):
            return value
        if not isinstance(value, Mapping) or set(value) != {"secret"}:
            raise Invalid(what, value, expected="a text or {'secret': 'NAME'}")
        name = checked_name("name of a secret", value["secret"], longest=255)
        secret = os.environ.get(name)
        if not secret:
            raise Invalid("secret", name, expected="a variable in the environment of the worker")
        self._secrets.add(secret)
        return secret

    def redacted(self, text: str) -> str:
        """Return the text without the secrets that were used (rule W8), quoted ones too."""
        forms = {form for secret in self._secrets for form in _forms(secret)}
        for form in sorted(forms, key=len, reverse=True):
            text = text.replace(form, HIDDEN)
        return text


def _forms(secret: str) -> tuple[str, ...]:
    """Return the secret as it stands, and as Python and JSON quote it."""
    quoted = (repr(secret), json.dumps(secret), json.dumps(secret, ensure_ascii=False))
    return (secret, *(one[1:-1] for one in quoted))
