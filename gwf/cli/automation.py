"""Offer automated tasks on the command line: ``run``, ``worker``, ``workers``, ``executors``."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections.abc import Iterator
from concurrent.futures import Executor as Pool
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gwf.cli.door import client
from gwf.errors import Invalid

if TYPE_CHECKING:
    from gwf.client import BackgroundWorker

RUN_HELP = """Run the automated tasks of jobs, until each ends or needs a person.

A pending job is started. What --allow does not name stays pending.

\b
Examples:
  gwf run 7 --allow command
  gwf run 7 8 9 --allow command,webhook --allow-network 10.0.0.0/8
"""
WORKER_HELP = """Run automated tasks of any job, until it is stopped.

It also applies deadlines and creates the jobs of schedules. Any number of workers may run, on
several machines. SIGTERM or Ctrl-C: what runs is finished, or given back after --grace seconds;
a second one ends it at once. SIGUSR1: say how it is.

\b
Examples:
  gwf worker --allow command,webhook
  gwf worker --concurrency 32 --allow python --dask tcp://scheduler:8786
"""

#: What runs has this long to report after the second signal, in seconds.
_LAST_S = 2.0

_Allow = Annotated[
    list[str] | None,
    typer.Option(metavar="NAMES", help="Executors that may run, with commas; may be repeated."),
]
_Concurrency = Annotated[
    int, typer.Option(min=1, max=1000, metavar="N", help="How many tasks run at once.")
]
_Networks = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-network",
        metavar="NET",
        help="A private network that http and webhook may reach, 10.0.0.0/8; may be repeated.",
    ),
]
_Artefacts = Annotated[
    Path, typer.Option(metavar="FOLDER", help="Where executed notebooks are kept.")
]


def run(
    ctx: typer.Context,
    job_ids: Annotated[list[int], typer.Argument(metavar="N…", help="The ids of the jobs.")],
    *,
    allow: _Allow = None,
    concurrency: _Concurrency = 8,
    allow_network: _Networks = None,
    artefacts: _Artefacts = Path("artefacts"),
) -> None:
    """Run the automated tasks of jobs."""
    with client(ctx) as wf:
        for job in wf.run(
            job_ids,
            allow=_names(allow),
            concurrency=concurrency,
            networks=allow_network or (),
            artefacts=str(artefacts),
        ):
            typer.echo(str(job.explain()))


def worker(
    ctx: typer.Context,
    *,
    allow: _Allow = None,
    concurrency: _Concurrency = 8,
    allow_network: _Networks = None,
    artefacts: _Artefacts = Path("artefacts"),
    dask: Annotated[
        str | None, typer.Option(metavar="URL", help="Run the tasks on this Dask cluster.")
    ] = None,
    grace: Annotated[
        float,
        typer.Option(min=0, metavar="SECONDS", help="How long what runs may go on at a stop."),
    ] = 25.0,
    lease: Annotated[
        float,
        typer.Option(
            min=1, metavar="SECONDS", help="How long after its last sign of life others take over."
        ),
    ] = 30.0,
    name: Annotated[str | None, typer.Option(help="Its name, by default host and process.")] = None,
) -> None:
    """Run automated tasks of any job."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    names = _names(allow)
    if not names:
        raise Invalid("--allow", "nothing", expected="executors, such as --allow command,webhook")
    with client(ctx) as wf, _dask(dask) as pool:
        found = wf.worker(
            allow=names,
            concurrency=concurrency,
            executor=pool,
            networks=allow_network or (),
            artefacts=str(artefacts),
            grace_s=grace,
            lease_s=lease,
            name=name,
        )
        _obey_signals(found)
        typer.echo(f"{found!r} in {wf.database.label}; allowed: {', '.join(names)}", err=True)
        found.run()
        typer.echo(f"{found!r}", err=True)


def workers(
    ctx: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the workers of the last week, and how they are."""
    from gwf import terminal

    with client(ctx) as wf:
        shown = wf.workers()
    table = terminal.worker_table
    typer.echo(terminal.as_json(terminal.records(shown)) if as_json else table(shown))


def executors(
    ctx: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the executors that are installed here."""
    from gwf import terminal

    with client(ctx) as wf:
        shown = wf.executors()
    table = terminal.executor_table
    typer.echo(terminal.as_json(terminal.records(shown)) if as_json else table(shown))


def _names(allow: list[str] | None) -> list[str]:
    return [name.strip() for one in allow or () for name in one.split(",") if name.strip()]


def _obey_signals(found: BackgroundWorker) -> None:
    """Let the first signal stop the worker, the second end it, and SIGUSR1 ask how it is.

    What a handler says goes to the file itself: a buffer may be in use just then.
    """
    from gwf.processes import kill_all

    n_stops = 0

    def stop(number: int, frame: Any) -> None:
        nonlocal n_stops
        n_stops += 1
        if n_stops == 1:
            os.write(2, b"gwf: stopping: what runs is finished; once more ends it at once\n")
            found.stop()
        elif n_stops == 2:
            found.stop(grace_s=0.0)
            signal.setitimer(signal.ITIMER_REAL, _LAST_S)
        else:
            end(number, frame)

    def end(number: int, frame: Any) -> None:
        kill_all()
        os._exit(128 + signal.SIGTERM)

    def tell(number: int, frame: Any) -> None:
        os.write(2, f"{found!r}\n".encode())

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGALRM, end)
    signal.signal(signal.SIGUSR1, tell)


@contextlib.contextmanager
def _dask(address: str | None) -> Iterator[Pool | None]:
    """Connect to a Dask cluster, if one is named."""
    if address is None:
        yield None
        return
    try:
        import distributed
    except ModuleNotFoundError:
        raise Invalid(
            "--dask", address, expected="distributed installed: pip install 'goworkflow[dask]'"
        ) from None
    connect: Any = distributed.Client
    with connect(address) as found:
        yield found.get_executor()
