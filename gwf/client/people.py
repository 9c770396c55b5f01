"""Be ``wf.users``: the directory of people and their roles."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from sqlalchemy.engine import Connection

from gwf import directory
from gwf.database import read, write
from gwf.engine.rows import database_now
from gwf.errors import Invalid

if TYPE_CHECKING:
    import pandas as pd

    from gwf.database import Database


class Users:
    """Add people and list them; while there is nobody, operators are free numbers."""

    def __init__(self, database: Database) -> None:
        self._database = database

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
            A user of this name exists.
        Invalid
            A name or a role that is empty or longer than 100 characters.
        """
        if isinstance(roles, str) or not isinstance(roles, Iterable):
            raise Invalid("roles", roles, expected="a list of roles")
        wanted = tuple(roles)

        def work(conn: Connection) -> int:
            now = database_now(conn)
            return directory.add_user(conn, name, roles=wanted, display_name=display_name, now=now)

        return write(self._database, work)
