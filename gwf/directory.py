"""Know the people, and decide who may do what.

Why one function: Python, the command line, the server and the widgets all ask ``authorise`` at the
moment of the decision, so no door can be wider than another (rule T4).
While the directory holds nobody the project is in open mode: operators are free numbers and no role
can be checked (rule A8).
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gwf.errors import Conflict, Invalid, NotAllowed, UserNotFound
from gwf.limits import checked_id, checked_name
from gwf.model import Call
from gwf.statements import Statement, Write, execute
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


def authorise(
    actor: Actor,
    what: str,
    *,
    open_mode: bool,
    needs_admin: bool,
    or_one_of: Container[int | None] = (),
) -> None:
    """Let the actor do this, or refuse.

    ``or_one_of`` names those who may as well; with None in it, a caller who gives no name may:
    whoever opens the database without one is the program that owns it.

    Raises
    ------
    NotAllowed
        It takes an admin, the directory holds people, and the actor is none.
    """
    if not needs_admin or open_mode or actor.is_admin or actor.operator_id in or_one_of:
        return
    raise NotAllowed(f"{what} is not allowed", needs=f"the role {ADMIN!r}")


@dataclass(frozen=True, slots=True)
class Member:
    """Be one active user of the directory, with the roles held now."""

    id: int
    name: str
    roles: frozenset[str]


def members(conn: Connection) -> list[Member]:
    """Return every active user, by id."""
    found: dict[int, tuple[str, set[str]]] = {}
    for user_id, name, role in _MEMBERS.fetch(conn):
        roles = found.setdefault(user_id, (name, set()))[1]
        if role is not None:
            roles.add(role)
    return [Member(user_id, name, frozenset(roles)) for user_id, (name, roles) in found.items()]


def names_of(conn: Connection) -> dict[int, str]:
    """Return the name of each user by id, also of those who are not active any more."""
    return {user_id: name for user_id, name in _NAMES.fetch(conn)}  # noqa: C416 - rows are not pairs to mypy


def find_user(conn: Connection, who: int | str) -> tuple[int, str]:
    """Return id and name of a user, given either.

    Raises
    ------
    UserNotFound
        The directory knows nobody of this id or name.
    """
    if isinstance(who, str):
        rows = _BY_NAME.fetch(conn, name=checked_name("user", who))
    else:
        rows = _BY_ID.fetch(conn, user_id=checked_id("user id", who))
    if not rows:
        raise UserNotFound(who)
    return rows[0][0], rows[0][1]


def add_user(
    conn: Connection,
    call: Call,
    name: str,
    *,
    roles: tuple[str, ...],
    display_name: str | None,
    now: datetime,
) -> int:
    """Add an active user and return the id.

    Raises
    ------
    Conflict
        A user of this name exists, or the name is that of a role, or a role that of a user.
    Invalid
        A name or a role that is empty or too long.
    NotAllowed
        The caller has a name, and is no admin.
    """
    wanted = checked_name("user", name)
    shown = None if display_name is None else checked_name("display name", display_name)
    held = tuple(dict.fromkeys(checked_name("role", role) for role in roles))
    _expect_admin(conn, call, f"adding user {wanted!r}")
    if _BY_NAME.fetch(conn, name=wanted):
        raise Conflict(
            f"user {wanted!r} exists already", found="exists", legal=("users.grant", "users.revoke")
        )
    _expect_no_role(conn, wanted)
    for role in held:
        _expect_no_user(conn, role, new=wanted)
    user_id = _INSERT_USER.insert(
        conn, name=wanted, display_name=shown, is_active=True, created_at=now, updated_at=now
    )
    for role in held:
        _INSERT_ROLE.insert(conn, user_id=user_id, role=role)
    return user_id


def grant(conn: Connection, call: Call, who: int | str, role: str, *, now: datetime) -> int:
    """Give a user a role, which changes nothing where it is held already, and return the id.

    Raises
    ------
    UserNotFound, Invalid, NotAllowed
    Conflict
        The role is the name of a user.
    """
    wanted = checked_name("role", role)
    user_id, name = find_user(conn, who)
    _expect_admin(conn, call, f"granting {wanted!r} to {name!r}")
    _expect_no_user(conn, wanted)
    if not _HOLDS_ROLE.fetch(conn, user_id=user_id, role=wanted):
        _INSERT_ROLE.insert(conn, user_id=user_id, role=wanted)
        execute(conn, [Write(_TOUCH_USER, {"b_id": user_id, "updated_at": now})])
    return user_id


def revoke(conn: Connection, call: Call, who: int | str, role: str, *, now: datetime) -> int:
    """Take a role from a user, and return the id.

    Raises
    ------
    UserNotFound, Invalid, NotAllowed
    Conflict
        The user does not hold the role.
    """
    wanted = checked_name("role", role)
    user_id, name = find_user(conn, who)
    _expect_admin(conn, call, f"revoking {wanted!r} from {name!r}")
    if not _HOLDS_ROLE.fetch(conn, user_id=user_id, role=wanted):
        raise Conflict(f"user {name!r} does not hold the role {wanted!r}", found="not held")
    execute(
        conn,
        [
            Write(_DELETE_ROLE, {"b_user_id": user_id, "b_role": wanted}, rows=1),
            Write(_TOUCH_USER, {"b_id": user_id, "updated_at": now}),
        ],
    )
    return user_id


def set_active(
    conn: Connection, call: Call, who: int | str, *, is_active: bool, now: datetime
) -> int:
    """Let a user act, or no longer, and return the id; votes that were cast stand.

    Raises
    ------
    UserNotFound, NotAllowed
    """
    user_id, name = find_user(conn, who)
    _expect_admin(conn, call, f"{'activating' if is_active else 'deactivating'} {name!r}")
    values = {"b_id": user_id, "is_active": is_active, "updated_at": now}
    execute(conn, [Write(_SET_ACTIVE, values, rows=1)])
    return user_id


def _expect_admin(conn: Connection, call: Call, what: str) -> None:
    open_mode = not holds_anybody(conn)
    if not open_mode:
        actor = identify(conn, call.operator, open_mode=False)
        expect_active(actor)
        authorise(actor, what, open_mode=False, needs_admin=True, or_one_of=(None,))


def _expect_no_role(conn: Connection, name: str) -> None:
    """Keep users and roles apart, so that a name in a policy means one of them."""
    if _ANY_HOLDER.fetch(conn, role=name):
        raise Conflict(f"{name!r} is a role; a user needs another name", found="a role")


def _expect_no_user(conn: Connection, role: str, *, new: str | None = None) -> None:
    if role == new or _BY_NAME.fetch(conn, name=role):
        raise Conflict(f"{role!r} is a user; a role needs another name", found="a user")


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
_DELETE_ROLE = Statement(
    user_roles.delete().where(
        user_roles.c.user_id == sa.bindparam("b_user_id"),
        user_roles.c.role == sa.bindparam("b_role"),
    )
)
_TOUCH_USER = Statement(
    users.update()
    .where(users.c.id == sa.bindparam("b_id"))
    .values(updated_at=sa.bindparam("updated_at"))
)
_SET_ACTIVE = Statement(
    users.update()
    .where(users.c.id == sa.bindparam("b_id"))
    .values(is_active=sa.bindparam("is_active"), updated_at=sa.bindparam("updated_at"))
)
_HOLDS_ROLE = Statement(
    sa.select(user_roles.c.user_id).where(
        user_roles.c.user_id == sa.bindparam("user_id"), user_roles.c.role == sa.bindparam("role")
    )
)
_ANY_HOLDER = Statement(
    sa.select(user_roles.c.user_id).where(user_roles.c.role == sa.bindparam("role")).limit(1)
)
_MEMBERS = Statement(
    sa.select(users.c.id, users.c.name, user_roles.c.role)
    .outerjoin_from(users, user_roles, user_roles.c.user_id == users.c.id)
    .where(users.c.is_active)
    .order_by(users.c.id, user_roles.c.role)
)
_NAMES = Statement(sa.select(users.c.id, users.c.name).order_by(users.c.id))
