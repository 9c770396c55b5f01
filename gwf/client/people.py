"""Be ``wf.users``: the directory of people and their roles."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from gwf import directory
from gwf.database import read, write
from gwf.engine.rows import database_now
from gwf.errors import Invalid
from gwf.model import Call

if TYPE_CHECKING:
    import pandas as pd

    from gwf.database import Database


class Users:
    """Add people, give them roles and list them; while there is nobody, operators are numbers.

    A user may not have the name of a role, nor a role that of a user: a policy names either.
    Once somebody is there, a caller with a name has to be an admin to change the directory; a
    client that was opened without a user owns the database and may.
    """

    def __init__(self, database: Database, user: int | str | None) -> None:
        self._database = database
        self._user = user

    def __call__(self) -> pd.DataFrame:
        """Return one row per user, in the order of ids; ``roles`` holds lists."""
        from gwf import frames
        from gwf.frames import Reading

        return read(self._database, lambda conn: frames.users(conn, Reading(database_now(conn))))

    def add(self, name: str, *, roles: Iterable[str] = (), display_name: str | None = None) -> int:
        """Add an active user and return the id.

        Raises
        ------
        Conflict
            A user of this name exists, or a name would be that of a user and of a role.
        Invalid
            A name or a role that is empty or longer than 100 characters.
        NotAllowed
            The caller is no admin.
        """
        if isinstance(roles, str) or not isinstance(roles, Iterable):
            raise Invalid("roles", roles, expected="a list of roles")
        wanted = tuple(roles)
        return self._write(directory.add_user, name, roles=wanted, display_name=display_name)

    def grant(self, who: int | str, role: str) -> int:
        """Give a user a role, which changes nothing where it is held, and return the id.

        Raises
        ------
        UserNotFound, Conflict, Invalid, NotAllowed
        """
        return self._write(directory.grant, who, role)

    def revoke(self, who: int | str, role: str) -> int:
        """Take a role from a user, and return the id; votes that were cast with it stand.

        Raises
        ------
        UserNotFound, Invalid, NotAllowed
        Conflict
            The user does not hold it.
        """
        return self._write(directory.revoke, who, role)

    def deactivate(self, who: int | str) -> int:
        """Let a user act no more, and return the id; what the user did stands.

        Raises
        ------
        UserNotFound, NotAllowed
        """
        return self._write(directory.set_active, who, is_active=False)

    def activate(self, who: int | str) -> int:
        """Let a user act again, and return the id.

        Raises
        ------
        UserNotFound, NotAllowed
        """
        return self._write(directory.set_active, who, is_active=True)

    def _write(self, change: Callable[..., int], *names: Any, **options: Any) -> int:
        call = Call(operator=self._user)
        return write(
            self._database,
            lambda conn: change(conn, call, *names, now=database_now(conn), **options),
        )
