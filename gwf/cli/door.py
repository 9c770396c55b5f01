"""Open what a command works on, and say what went wrong."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer

import gwf

if TYPE_CHECKING:
    from gwf.client import Client
    from gwf.database import Database


@contextlib.contextmanager
def client(ctx: typer.Context) -> Iterator[Client]:
    """Connect to the database that the command line names."""
    with gwf.connect(ctx.obj) as wf:
        yield wf


@contextlib.contextmanager
def database(ctx: typer.Context) -> Iterator[Database]:
    """Open the database that the command line names, whatever tables it has."""
    from gwf.database import open_database

    db = open_database(ctx.obj)
    try:
        yield db
    finally:
        db.close()


def complain(message: str) -> None:
    """Say in one line what went wrong."""
    typer.echo(f"gwf: {' '.join(message.split())}", err=True)
