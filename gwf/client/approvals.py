"""Be the client's verbs on approvals: vote, change who sits where, and see what waits for whom."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from sqlalchemy.engine import Connection

from gwf import timely
from gwf.ballots import Decision
from gwf.client.approval import Approval, Vote, read_approval, vote_of
from gwf.client.door import Door, JobTaskLike, Operator, attempt_of, id_of
from gwf.client.handles import JobTask
from gwf.engine import approvals, permissions, signers
from gwf.engine.rows import database_now
from gwf.engine.seats import candidates_of
from gwf.errors import GwfError, Invalid
from gwf.notifications import Hook, Hooks

if TYPE_CHECKING:
    import pandas as pd

Tasks = JobTaskLike | Iterable[JobTaskLike]
Who = int | str


class Approvals(Door):
    """Vote, hand over, ask who may do what, and be told what happened."""

    hooks: Hooks

    def approve(
        self,
        task: Tasks | pd.DataFrame,
        *,
        comment: str | None = None,
        operator: Operator = None,
        attempt: int | None = None,
        idempotency_key: str | None = None,
    ) -> Vote | pd.DataFrame:
        """Approve a running approval as the user of this client, and return the vote.

        Given rows of ``inbox()`` or a list of tasks, vote on each in a transaction of its own and
        return a DataFrame with a row for each: job_task_id, attempt, outcome (``approved``,
        ``rejected``, ``open`` or the name of the error) and message.

        Raises
        ------
        JobTaskNotFound, UserNotFound, Invalid
        Conflict
            It is no running approval, or one's earlier vote says otherwise.
        StaleAttempt
            The attempt that was looked at is over.
        NotAllowed
            The user has no seat in it.
        """
        return self._vote(
            "approve",
            task,
            comment=comment,
            operator=operator,
            attempt=attempt,
            idempotency_key=idempotency_key,
        )

    def reject(
        self,
        task: Tasks | pd.DataFrame,
        *,
        comment: str | None = None,
        operator: Operator = None,
        attempt: int | None = None,
        idempotency_key: str | None = None,
    ) -> Vote | pd.DataFrame:
        """Reject a running approval; what that leads to is up to its policy. As ``approve``.

        Raises
        ------
        JobTaskNotFound, UserNotFound, Invalid, Conflict, StaleAttempt, NotAllowed
        """
        return self._vote(
            "reject",
            task,
            comment=comment,
            operator=operator,
            attempt=attempt,
            idempotency_key=idempotency_key,
        )

    def withdraw_vote(
        self,
        task: JobTaskLike,
        *,
        reason: str | None = None,
        operator: Operator = None,
        idempotency_key: str | None = None,
    ) -> Vote:
        """Take one's vote back while the approval is open; it stays on record as withdrawn.

        Raises
        ------
        JobTaskNotFound, UserNotFound, StaleAttempt, NotAllowed
        Conflict
            The approval is not open, or there is no vote of this user.
        """
        job_task_id = id_of("job task", task)
        call = self._call(operator, attempt=attempt_of(task, None), idempotency_key=idempotency_key)
        return self._write(
            lambda conn: vote_of(
                conn, approvals.withdraw_vote(conn, job_task_id, call, reason=reason)
            )
        )

    def transfer(self, task: JobTaskLike, giver: Who, taker: Who, **options: Any) -> JobTask:
        """Give a person's place in a running approval to somebody else 转办.

        ``options`` are ``reason``, ``operator``, ``attempt`` and ``idempotency_key``.

        Raises
        ------
        JobTaskNotFound, UserNotFound, StaleAttempt, Conflict, NotAllowed, UnsatisfiablePolicy
        """
        return self._seat_verb(signers.transfer, task, giver=giver, taker=taker, **options)

    def delegate(self, task: JobTaskLike, giver: Who, taker: Who | None, **options: Any) -> JobTask:
        """Lend a person's place to somebody else 委派, or take it back with None.

        ``options`` are ``reason``, ``operator``, ``attempt`` and ``idempotency_key``.

        Raises
        ------
        JobTaskNotFound, UserNotFound, StaleAttempt, Conflict, NotAllowed, UnsatisfiablePolicy
        """
        return self._seat_verb(signers.delegate, task, giver=giver, taker=taker, **options)

    def add_signer(self, task: JobTaskLike, signer: Who, **options: Any) -> JobTask:
        """Add a seat that this user has to fill 加签; everybody who was needed still is.

        ``options`` are ``reason``, ``operator``, ``attempt`` and ``idempotency_key``.

        Raises
        ------
        JobTaskNotFound, UserNotFound, StaleAttempt, Conflict, NotAllowed, UnsatisfiablePolicy
        """
        return self._seat_verb(signers.add_signer, task, signer=signer, **options)

    def remove_signer(self, task: JobTaskLike, signer: Who, **options: Any) -> JobTask:
        """Take the seat of this user away 减签, unless they voted.

        ``options`` are ``reason``, ``operator``, ``attempt`` and ``idempotency_key``.

        Raises
        ------
        JobTaskNotFound, UserNotFound, StaleAttempt, Conflict, NotAllowed, UnsatisfiablePolicy
        """
        return self._seat_verb(signers.remove_signer, task, signer=signer, **options)

    def approval(self, task: JobTaskLike) -> Approval:
        """Return the seats of an approval, who fills them, what is missing, and until when.

        Raises
        ------
        JobTaskNotFound
        Conflict
            The task is no approval, or nobody was asked yet.
        """
        job_task_id = id_of("job task", task)
        return self._read(lambda conn: read_approval(conn, job_task_id))

    def inbox(self, user: Who | None = None) -> pd.DataFrame:
        """Return what waits for the vote of this user, one row per approval, by due time.

        Without ``user`` it is the user of this client. See ``schemas.INBOX``; an empty inbox has
        the same columns.

        Raises
        ------
        UserNotFound
        Invalid
            No user is given, and the client has none.
        """
        who = self._call(user).operator
        if who is None:
            raise Invalid("user", None, expected="whose inbox: gwf.connect(url, user=…) or user=…")
        timely.apply_all_deadlines(self.database)

        def work(conn: Connection) -> pd.DataFrame:
            from gwf import frames
            from gwf.frames import Reading

            reading = Reading(database_now(conn), None, {"user": str(who)})
            user_id, candidates = candidates_of(conn, who)
            return frames.inbox(conn, reading, user_id=user_id, candidates=candidates)

        return self._read(work)

    def allowed_actions(self, task: JobTaskLike, *, user: Who | None = None) -> tuple[str, ...]:
        """Return the verbs that this user may use on the task now.

        Raises
        ------
        JobTaskNotFound, UserNotFound
        """
        return tuple(verb for verb, why in self.refusals(task, user=user).items() if why is None)

    def refusals(self, task: JobTaskLike, *, user: Who | None = None) -> dict[str, str | None]:
        """Return for each verb why this user may not use it now, or None where they may.

        Raises
        ------
        JobTaskNotFound, UserNotFound
        """
        job_task_id = id_of("job task", task)
        call = self._call(user)
        return self._read(lambda conn: permissions.refusals(conn, job_task_id, call))

    def can(self, user: Who | None, verb: str, task: JobTaskLike) -> bool:
        """Say whether this user may use the verb on the task now.

        Raises
        ------
        JobTaskNotFound, UserNotFound
        Invalid
            There is no such verb.
        """
        name = permissions.expect_verb(verb)
        return self.refusals(task, user=user)[name] is None

    def tick(self) -> int:
        """Apply every deadline that has passed, and return how many did.

        Nobody has to call this for a deadline to hold: a job's deadlines are applied before it is
        read or written. It tells the hooks in time, and keeps the first reader from waiting.
        """
        return timely.apply_all_deadlines(self.database)

    def on(self, event: str, hook: Hook) -> Callable[[], None]:
        """Call a function after each commit in which this happened, and return what ends that.

        The events are those of ``gwf.events.EVENTS``. A hook that fails is logged and
        harms nothing.

        Raises
        ------
        Invalid
            There is no such event, or the hook cannot be called.
        """
        return self.hooks.on(event, hook)

    def _seat_verb(
        self,
        verb: Callable[..., Any],
        task: JobTaskLike,
        *,
        operator: Operator = None,
        attempt: int | None = None,
        idempotency_key: str | None = None,
        **arguments: Any,
    ) -> JobTask:
        return self._task_verb(verb, task, operator, attempt, idempotency_key, **arguments)

    def _vote(
        self,
        decision: Decision,
        task: Tasks | pd.DataFrame,
        *,
        comment: str | None,
        operator: Operator,
        attempt: int | None,
        idempotency_key: str | None,
    ) -> Vote | pd.DataFrame:
        if isinstance(task, (JobTask, int)):
            job_task_id = id_of("job task", task)
            call = self._call(
                operator, attempt=attempt_of(task, attempt), idempotency_key=idempotency_key
            )
            return self._write(
                lambda conn: vote_of(
                    conn,
                    approvals.vote(conn, job_task_id, call, decision=decision, comment=comment),
                )
            )
        rows = []
        for job_task_id, row_attempt in _addressed(task):
            key = None if idempotency_key is None else f"{idempotency_key}:{job_task_id}"
            try:
                vote = self._vote(
                    decision,
                    job_task_id,
                    comment=comment,
                    operator=operator,
                    attempt=row_attempt,
                    idempotency_key=key,
                )
                assert isinstance(vote, Vote)  # noqa: S101 - one task gives one vote
                message = f"needs {', '.join(vote.missing)}" if vote.missing else ""
                rows.append((job_task_id, row_attempt, vote.status, message))
            except GwfError as error:
                rows.append((job_task_id, row_attempt, type(error).__name__, str(error)))
        from gwf import frames

        return frames.outcomes(rows)


def _addressed(tasks: Any) -> list[tuple[int, int | None]]:
    """Return id and attempt of each task of a list or of the rows of a DataFrame."""
    if hasattr(tasks, "itertuples"):
        import pandas as pd

        if "job_task_id" not in tasks.columns:
            raise Invalid("tasks", list(tasks.columns), expected="a column job_task_id")
        attempts = tasks["attempt"] if "attempt" in tasks.columns else [None] * len(tasks)
        pairs = zip(tasks["job_task_id"], attempts, strict=True)
        return [
            (
                id_of("job task", _whole(key)),
                None if pd.isna(one) else attempt_of(0, _whole(one)),
            )
            for key, one in pairs
        ]
    if isinstance(tasks, (str, bytes)) or not isinstance(tasks, Iterable):
        raise Invalid("task", tasks, expected="a job task or its id, or rows of inbox()")
    return [(id_of("job task", one), attempt_of(one, None)) for one in tasks]


def _whole(value: Any) -> Any:
    """Return a number of a column as an int: one that ever had a gap holds floats."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
