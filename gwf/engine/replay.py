"""Make the repeat of a call safe: the same idempotency key gives the stored answer (rule T3).

The key is looked up and stored under the lock of the job, so of two equal calls at once one does
the work and the other gets its answer. Verbs that create something have no job yet; their keys
live in a scope of their own, and the primary key of the table decides a race there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gwf.engine.state import JobState
from gwf.errors import KeyReused
from gwf.limits import MAX_KEY, checked_name
from gwf.model import Call
from gwf.records import Record
from gwf.statements import Statement
from gwf.tables import idempotency_keys

Answer = TypeVar("Answer")

_FIND = Statement(
    sa.select(idempotency_keys.c.verb, idempotency_keys.c.arguments, idempotency_keys.c.answer)
    .where(
        idempotency_keys.c.scope == sa.bindparam("scope"),
        idempotency_keys.c.key == sa.bindparam("key"),
    )
    .with_for_update()
)


def once(
    state: JobState,
    verb: str,
    call: Call,
    arguments: Mapping[str, Any],
    body: Callable[[], Answer],
    *,
    record: type[Record] | None = None,
) -> Answer:
    """Identify the caller, run the body and save, or return the answer stored under the key.

    Raises
    ------
    KeyReused
        The key was used for another verb or with other arguments.
    """
    if call.idempotency_key is None:
        state.identify(call)
        answer = body()
        state.save()
        return answer
    scope = f"job:{state.job.id}"
    key, digest = checked_key(call.idempotency_key), digest_of(call, arguments)
    stored = find(state.conn, scope, key, verb=verb, digest=digest)
    if stored is not None:
        plain = stored[0]
        return plain if record is None else record.from_json(plain)  # type: ignore[return-value]  # record says what Answer is
    state.identify(call)
    answer = body()
    plain = answer.as_json() if isinstance(answer, Record) else answer
    state.remember(
        {"scope": scope, "key": key, "verb": verb, "arguments": digest, "answer": [plain]}
    )
    state.save()
    return answer


def find(conn: Connection, scope: str, key: str, *, verb: str, digest: str) -> list[Any] | None:
    """Return the stored answer in a list of one, or None while the key is new."""
    rows = _FIND.fetch(conn, scope=scope, key=key)
    if not rows:
        return None
    used_for, used_with, answer = rows[0]
    if used_for != verb or used_with != digest:
        raise KeyReused(key, verb=verb, used_for=used_for)
    stored: list[Any] = answer
    return stored


def checked_key(key: object) -> str:
    """Return an idempotency key of at most 255 characters."""
    return checked_name("idempotency key", key, longest=MAX_KEY)


def digest_of(call: Call, arguments: Mapping[str, Any]) -> str:
    """Return a digest of what a call asks for, so that a replay can be told from a reuse.

    The attempt is left out: the repeat of a call may come from a handle that was read again.
    """
    plain = json.dumps(
        {"operator": call.operator, **arguments}, sort_keys=True, ensure_ascii=False, default=str
    )
    return hashlib.sha256(plain.encode()).hexdigest()
