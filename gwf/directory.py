"""Know the people, and decide who may do what.

Why one function: Python, the command line, the server and the widgets all ask ``authorise`` at the
moment of the decision, so no door can be wider than another (rule T4).
While the directory holds nobody the project is in open mode: operators are free numbers and no role
can be checked (rule A8).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gwf.errors import Conflict, Invalid, NotAllowed, UserNotFound
from gwf.limits import checked_name
from gwf.statements import Statement
from gwf.tables import user_roles, users

ADMIN = "admin"

#: True while the directory holds anybody; cheap enough to stand in the statement that locks a job.
HOLDS_ANYBODY = sa.exists(sa.select(users.c.id)).label("holds_anybody")

_BY_ID = Statement(
    sa.select(users.c.id, users.c.name, users.c.is_active, user_roles.c.role)
    .outerjoin_from(users, user_roles, user_roles.c.user_id == users.c.id)
    .where(users.c.id == sa.bindparam("user_id"))
)
_BY_NAME = Statement(
    sa.select(users.c.id, users.c.name, users.c.is_active, user_roles.c.role)
    .outerjoin_from(users, user_roles, user_roles.c.user_id == users.c.id)
    .where(users.c.name == sa.bindparam("name"))
)
_HOLDS_ANYBODY = Statement(sa.select(HOLDS_ANYBODY))


@dataclass(frozen=True, slots=True)
class Actor:
    """Say who acts, and with which roles; both are stored with the decision."""

    operator_id: int | None
    roles: tuple[str, ...] = ()
    is_verified: bool = False
    is_active: bool = True

    @property
    def is_admin(self) -> bool:
        """Say whether the actor may set a rule aside."""
        return ADMIN in self.roles


def holds_anybody(conn: Connection) -> bool:
    """Say whether the directory knows at least one user."""
    return bool(_HOLDS_ANYBODY.fetch(conn)[0][0])


def identify(conn: Connection, operator: int | str | None, *, open_mode: bool) -> Actor:
    """Return who the operator is, as the directory knows it now.

    Raises
    ------
    UserNotFound
        The directory holds people, but not this one.
    Invalid
        A name while the directory is empty.
    """
    if operator is None:
        return Actor(None)
    if open_mode:
        if isinstance(operator, str):
            raise Invalid(
                "operator", operator, expected="a number, while the directory holds nobody"
            )
        return Actor(operator)
    if isinstance(operator, str):
        rows = _BY_NAME.fetch(conn, name=operator)
    else:
        rows = _BY_ID.fetch(conn, user_id=operator)
    if not rows:
        raise UserNotFound(operator)
    user_id, _, is_active, _ = rows[0]
    roles = tuple(row[3] for row in rows if row[3] is not None)
    return Actor(user_id, roles, is_verified=True, is_active=is_active)


def expect_active(actor: Actor) -> None:
    """Let an active user act, or anybody in open mode.

    Raises
    ------
    NotAllowed
        The user was deactivated.
    """
    if not actor.is_active:
        raise NotAllowed(f"user {actor.operator_id} is not active", needs="an active user")


def authorise(actor: Actor, what: str, *, open_mode: bool, needs_admin: bool) -> None:
    """Let the actor do this, or refuse.

    Raises
    ------
    NotAllowed
        It takes an admin, the directory holds people, and the actor is none.
    """
    if needs_admin and not open_mode and not actor.is_admin:
        raise NotAllowed(f"{what} is not allowed", needs=f"the role {ADMIN!r}")


def add_user(
    conn: Connection, name: str, *, roles: tuple[str, ...], display_name: str | None, now: datetime
) -> int:
    """Add an active user and return the id.

    Raises
    ------
    Conflict
        A user of this name exists.
    Invalid
        A name or a role that is empty or too long.
    """
    wanted = checked_name("user", name)
    shown = None if display_name is None else checked_name("display name", display_name)
    if _BY_NAME.fetch(conn, name=wanted):
        raise Conflict(f"user {wanted!r} exists already", found="exists", legal=("grant", "revoke"))
    user_id = _INSERT_USER.insert(
        conn, name=wanted, display_name=shown, is_active=True, created_at=now, updated_at=now
    )
    for role in dict.fromkeys(checked_name("role", role) for role in roles):
        _INSERT_ROLE.insert(conn, user_id=user_id, role=role)
    return user_id


_INSERT_USER = Statement(
    users.insert().values(
        {
            name: sa.bindparam(name)
            for name in ("name", "display_name", "is_active", "created_at", "updated_at")
        }
    )
)
_INSERT_ROLE = Statement(
    user_roles.insert().values(user_id=sa.bindparam("user_id"), role=sa.bindparam("role"))
)
