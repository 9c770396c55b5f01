"""Open the door to gwf: one verb is one transaction, an answer is an object or a DataFrame.

A plural noun gives a DataFrame (``wf.jobs()``), a singular one an object (``wf.job(7)``).
Every verb takes an id or an object, an ``operator``, and an ``idempotency_key`` that makes the
repeat of the call safe.
One file per noun, as in the engine; ``door`` is what they share.
"""

from __future__ import annotations

import os

from sqlalchemy.engine import URL

from gwf.client.approval import Approval, Vote
from gwf.client.approvals import Approvals
from gwf.client.automation import Automation, BackgroundWorker
from gwf.client.definitions import Definitions
from gwf.client.handles import JobTask
from gwf.client.job import Job, JobContext
from gwf.client.job_tasks import JobTasks
from gwf.client.jobs import Jobs
from gwf.client.objects import Flow, Task
from gwf.client.people import Users
from gwf.client.steps import Group, Step
from gwf.client.tables import Tables
from gwf.database import Clock, Database, open_database
from gwf.limits import checked_operator
from gwf.migrate import prepare
from gwf.notifications import Hooks, Webhook, configured_webhook

__all__ = [
    "Approval",
    "BackgroundWorker",
    "Client",
    "Flow",
    "Group",
    "Job",
    "JobContext",
    "JobTask",
    "Step",
    "Task",
    "Vote",
    "connect",
]


def connect(
    url: str | URL | None = None,
    *,
    user: int | str | None = None,
    clock: Clock | None = None,
) -> Client:
    """Connect to a database and make sure that it has the schema of this version.

    Parameters
    ----------
    url
        ``sqlite:///gwf.db``, ``mysql+pymysql://user:password@host/name`` or an ``sqlalchemy.URL``;
        by default ``GWF_DATABASE_URL``, else the published ``DB_*`` variables, else
        ``sqlite:///gwf.db``.
    user
        Who acts where a verb is given no ``operator``: a number, or a name of the directory.
    clock
        A function that returns aware datetimes, in place of the database's clock.

    Where ``GWF_WEBHOOK_URL`` is set, events are posted there; see ``configured_webhook``.

    Raises
    ------
    Invalid
        The URL cannot be read.
    DatabaseUnavailable, DatabaseMismatch
        The database cannot be reached, or holds other tables; the message says what to do.
    """
    db = open_database(url, clock=clock)
    webhook = configured_webhook(os.environ)
    prepare(db)
    client = Client(db, user=user)
    if webhook is not None:
        client.webhook, events = webhook
        for event in events:
            client.on(event, client.webhook)
    return client


class Client(Definitions, Jobs, JobTasks, Approvals, Automation, Tables):
    """Run the verbs on one database and read its tables; made by ``gwf.connect``."""

    def __init__(self, database: Database, *, user: int | str | None = None) -> None:
        self.database = database
        self.user = checked_operator(user)
        self.users = Users(database, self.user)
        self._functions = {}
        self.hooks = Hooks()
        self.webhook: Webhook | None = None
        database.after_commit.append(self.hooks.tell)

    def as_user(self, user: int | str | None) -> Client:
        """Return a client of the same database that acts as somebody else."""
        other = Client(self.database, user=user)
        other._functions = self._functions
        return other

    def __repr__(self) -> str:
        """Return where the database is, without its password."""
        return f"Client({self.database.label!r})"

    def __enter__(self) -> Client:
        """Return the client itself."""
        return self

    def __exit__(self, *failure: object) -> None:
        """Close the connections."""
        self.close()

    def close(self) -> None:
        """Close the connections; the next call opens new ones, unless it was in memory.

        Posts that wait for the web hook of the configuration are delivered first.
        """
        if self.webhook is not None:
            self.webhook.close()
        self.database.close()
