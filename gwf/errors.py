"""Name every way in which a call can fail.

Each class inherits the builtin that fits, so ``except LookupError`` works without importing gwf.
The HTTP status and the exit code of the command line stand beside each name::

    GwfError                                  500   1
    ├── Invalid (ValueError)                  422   2   a value that no state would accept
    │   └── ConditionInvalid                            a condition that does not parse
    ├── NotFound (LookupError)                404   3
    │   ├── TaskNotFound
    │   ├── FlowNotFound
    │   ├── JobNotFound
    │   ├── JobTaskNotFound
    │   ├── ContextKeyNotFound (KeyError)
    │   ├── UserNotFound
    │   └── ScheduleNotFound
    ├── Conflict (RuntimeError)               409   4   the state found does not allow it
    │   ├── InUse                                       still used by a flow or a job
    │   ├── NotDue                                      something else has to finish first
    │   ├── StaleAttempt                                an answer to another attempt
    │   ├── UnsatisfiablePolicy                         nobody could fill a seat that is asked for
    │   ├── SendBackRefused                             the target is not one of the allowed ones
    │   └── KeyReused                                   an idempotency key with other arguments
    ├── NotAllowed (PermissionError)          403   5   the rules or the roles forbid it
    ├── DatabaseUnavailable (ConnectionError) 503   6   unreachable, refused, read-only
    │   └── DatabaseMismatch                            too old, too new, or not ours
    ├── ExecutionFailed (RuntimeError)        500   1   an automated task did not succeed
    └── OutcomeUnknown (RuntimeError)         503   7   the connection broke while committing
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence


class GwfError(Exception):
    """Stand at the root of every error that gwf raises on purpose."""

    http_status = 500
    exit_code = 1

    #: True once the refusal was written to the log; the transaction is then kept, not undone.
    logged = False


class Invalid(GwfError, ValueError):
    """Refuse a value that no state of the database would accept."""

    http_status = 422
    exit_code = 2

    def __init__(self, what: str, value: object, *, expected: str) -> None:
        self.what = what
        self.value = value
        self.expected = expected
        super().__init__(f"{what} {_shown(value)} is not valid: {expected}")


class ConditionInvalid(Invalid):
    """Refuse a condition that is not an expression of the Common Expression Language."""

    def __init__(self, expression: object, reason: str) -> None:
        self.expression = expression
        self.reason = reason
        super().__init__("condition", expression, expected=reason)


class NotFound(GwfError, LookupError):
    """Say that nothing has this id or name."""

    http_status = 404
    exit_code = 3
    noun = "thing"
    look_at = ""

    def __init__(self, key: object, *, within: str | None = None) -> None:
        self.key = key
        self.within = within
        place = f" in {within}" if within else ""
        hint = f"; {self.look_at} lists what there is" if self.look_at else ""
        super().__init__(f"there is no {self.noun} {_shown(key)}{place}{hint}")


class TaskNotFound(NotFound):
    """Say that no task has this id or name."""

    noun = "task"
    look_at = "tasks()"


class FlowNotFound(NotFound):
    """Say that no flow has this id or name."""

    noun = "flow"
    look_at = "flows()"


class JobNotFound(NotFound):
    """Say that no job has this id."""

    noun = "job"
    look_at = "jobs()"


class JobTaskNotFound(NotFound):
    """Say that no job task has this id, or that the job has no task of this name."""

    noun = "job task"
    look_at = "job_tasks()"


class UserNotFound(NotFound):
    """Say that the directory knows nobody of this id or name."""

    noun = "user"
    look_at = "users()"


class ScheduleNotFound(NotFound):
    """Say that no schedule has this id."""

    noun = "schedule"
    look_at = "schedules()"


class ContextKeyNotFound(NotFound, KeyError):
    """Say that the context of the job has no such key."""

    noun = "context key"
    look_at = "context(job)"

    __str__ = Exception.__str__  # KeyError would show the message as a quoted literal


class Conflict(GwfError, RuntimeError):
    """Refuse a call that the state found does not allow.

    ``found`` is that state and ``legal`` names the verbs that it would allow instead.
    """

    http_status = 409
    exit_code = 4

    def __init__(
        self, message: str, *, found: str | None = None, legal: Iterable[str] = ()
    ) -> None:
        self.found = found
        self.legal = tuple(legal)
        instead = f"; legal now: {', '.join(self.legal)}" if self.legal else ""
        super().__init__(f"{message}{instead}")


class InUse(Conflict):
    """Refuse to delete something that a flow or a job still uses, naming the users."""

    def __init__(self, what: str, *, users: Sequence[str], legal: Iterable[str]) -> None:
        self.users = tuple(users)
        super().__init__(
            f"{what} is used by {', '.join(self.users)}; set is_active=False to retire it",
            found="in use",
            legal=legal,
        )


class NotDue(Conflict):
    """Refuse to start or skip a task that is not due, naming what has to happen first."""

    def __init__(
        self, what: str, *, found: str, blockers: Sequence[str], legal: Iterable[str] = ()
    ) -> None:
        self.blockers = tuple(blockers)
        super().__init__(f"{what} is not due: {', '.join(self.blockers)}", found=found, legal=legal)


class StaleAttempt(Conflict):
    """Refuse an answer that was meant for another attempt than the current one."""

    def __init__(self, what: str, *, attempt: int, current: int, found: str) -> None:
        self.attempt = attempt
        self.current = current
        state = "is over" if attempt < current else "has not begun"
        super().__init__(
            f"attempt {attempt} of {what} {state}, attempt {current} is {found}; "
            "read the task again and decide anew",
            found=found,
        )


class SendBackRefused(Conflict):
    """Refuse a send-back; ``allowed`` holds exactly the sequences that would be accepted."""

    def __init__(self, reason: str, *, found: str, allowed: Sequence[int]) -> None:
        self.allowed = tuple(allowed)
        targets = ", ".join(map(str, self.allowed)) if self.allowed else "none"
        super().__init__(f"{reason} (allowed targets: {targets})", found=found)


class UnsatisfiablePolicy(Conflict):
    """Refuse a policy that the known users cannot satisfy; ``missing`` names what is lacking."""

    def __init__(self, what: str, *, missing: Sequence[str], advice: str) -> None:
        self.missing = tuple(missing)
        super().__init__(
            f"{what} could never pass: it lacks {', '.join(self.missing)}; {advice}",
            found="unsatisfiable",
        )


class KeyReused(Conflict):
    """Refuse an idempotency key that was used before with other arguments."""

    def __init__(self, key: str, *, verb: str, used_for: str) -> None:
        self.key = key
        self.verb = verb
        self.used_for = used_for
        super().__init__(
            f"idempotency key {key!r} was used before for {used_for} with other arguments; "
            f"choose a new key for this {verb}",
            found=f"key used for {used_for}",
        )


class NotAllowed(GwfError, PermissionError):
    """Refuse what the rules of the flow or the roles of the caller forbid."""

    http_status = 403
    exit_code = 5

    def __init__(self, message: str, *, needs: str) -> None:
        self.needs = needs
        super().__init__(f"{message}; it needs {needs}")


class DatabaseUnavailable(GwfError, ConnectionError):
    """Say that the database cannot be reached or does not accept us, and what to check."""

    http_status = 503
    exit_code = 6

    def __init__(self, database: str, *, reason: str, advice: str) -> None:
        self.database = database
        self.reason = reason
        self.advice = advice
        super().__init__(f"{database}: {reason}; {advice}")


class DatabaseMismatch(DatabaseUnavailable):
    """Say that the tables found are not those that this version of gwf works with."""


class ExecutionFailed(GwfError, RuntimeError):
    """Say that an automated task did not succeed; ``code`` is the error code of its attempt."""

    def __init__(self, message: str, *, code: str) -> None:
        self.code = code
        super().__init__(message)


class OutcomeUnknown(GwfError, RuntimeError):
    """Say that the connection broke while the commit was under way."""

    http_status = 503
    exit_code = 7

    def __init__(self, database: str, *, reason: str) -> None:
        self.database = database
        self.reason = reason
        super().__init__(
            f"{database}: the connection broke during the commit ({reason}), so the change may or "
            "may not be there; read the state again, or repeat the call with its idempotency key"
        )


def _shown(value: object) -> str:
    """Show a value in a message: quoted, and short enough to read."""
    text = " ".join(repr(value).split()) if not isinstance(value, str) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
