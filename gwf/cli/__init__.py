"""Offer gwf on the command line: ``gwf --help``.

Why packages load inside the commands: ``gwf --help`` and the completion of a shell answer at once,
without pandas, plotly or SQLAlchemy.
"""

from __future__ import annotations

import sys
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

import gwf
from gwf.cli import automation
from gwf.cli.door import client, complain, database
from gwf.errors import Conflict, GwfError, Invalid

if TYPE_CHECKING:
    from gwf.database import Database

_HELP = """Run workflows: flows, jobs, approvals, and every attempt on record.

\b
The database is, in this order:
  --database URL       sqlite:///gwf.db or mysql+pymysql://user:password@host:3306/name
  GWF_DATABASE_URL     the same as an environment variable, out of sight of other users
  DB_HOST DB_PORT DB_USER DB_PASSWORD DB_NAME DB_CHARSET
  sqlite:///gwf.db     a file in this folder, made on first use

\b
Examples:
  gwf demo                                     see a job from definition to completion
  gwf init                                     make the tables
  gwf jobs --status running --flow 热修复流程
  gwf job show 7                               why does job 7 wait, and on whom?
  gwf run 7 --allow command                    run its automated tasks
  gwf worker --allow command,webhook           run those of all jobs, until stopped
  gwf jobs --json | jq '.[] | select(.n_rollbacks > 2) | .job_name'

\b
Exit codes: 0 done, 2 wrong usage or value, 3 not found, 4 the state does not allow it,
5 not permitted, 6 the database is away or not ours, 7 outcome unknown, 1 anything else.
"""
_JOBS_HELP = """List jobs, the newest last.

\b
Examples:
  gwf jobs --status failed --since 2026-11-01
  gwf jobs --flow 热修复流程 --limit 10
  gwf jobs --json | jq 'group_by(.status) | map({(.[0].status): length}) | add'
"""
_SHOW_HELP = """Show what a job waits for, its tasks, and every attempt.

\b
Examples:
  gwf job show 7
  gwf job show 7 --json | jq '.attempts[] | select(.status == "rolled_back")'
"""
_SAMPLE_HELP = """Add the published sample flows.

These are 标准功能开发流程 and 热修复流程. Flows that are there stay as they are.
With --jobs, add a history of jobs too, which ends now.

\b
Examples:
  gwf sample-data
  gwf --database sqlite:///play.db sample-data --jobs 500
"""
_DEMO_HELP = """Run a job of ten steps, and draw it.

It goes from definition to completion, with a skip and a send-back on the way. Prints the job and
its attempts, and writes timeline.html, a page that needs no network. An automated task counts them.
Without --database, work on a database of its own, gwf.db in the folder of --out, made anew each
time; the environment is not looked at. The demo has its own clock, so that the work takes days.

\b
Examples:
  gwf demo
  gwf --database mysql+pymysql://user:password@host/name demo --out pages
"""

_TABLE_LIMIT = 50
_DEMO_JOB = "功能-用户登录"
_DEMO_QUERY = "每日统计"
_DEMO_FLOWS = {"标准功能开发流程", "热修复流程", _DEMO_QUERY}


class _Commands(TyperGroup):
    """Say in one line what went wrong, and exit with the code of the error."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except GwfError as error:
            complain(str(error))
            raise typer.Exit(error.exit_code) from None
        except BrokenPipeError:
            raise
        except OSError as error:
            complain(str(error))
            raise typer.Exit(1) from None


app = typer.Typer(
    name="gwf",
    cls=_Commands,
    help=_HELP,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,  # its tracebacks may show local variables: URLs, passwords
)
_job_app = typer.Typer(help="Look at one job.", no_args_is_help=True)

_Json = Annotated[bool, typer.Option("--json", help="Print JSON, instants as RFC 3339 in UTC.")]


@app.callback()
def _options(
    ctx: typer.Context,
    url: Annotated[
        str | None, typer.Option("--database", metavar="URL", help="Which database, see above.")
    ] = None,
) -> None:
    ctx.obj = url


@app.command()
def init(ctx: typer.Context) -> None:
    """Make the tables.

    A database that has them stays as it is; one with other tables is refused.
    """
    from gwf import migrate

    with database(ctx) as db:
        before = migrate.current(db)
        migrate.prepare(db)
        _say_what_changed(db, before)


@app.command()
def upgrade(ctx: typer.Context) -> None:
    """Upgrade the tables, with their data.

    Make a backup first. A database that is up to date stays as it is.
    """
    from gwf import migrate

    with database(ctx) as db:
        before = migrate.current(db)
        migrate.upgrade(db)
        _say_what_changed(db, before)


@app.command()
def adopt(ctx: typer.Context) -> None:
    """Take over a database of GoWorkFlow.

    Its data stay. Make a backup first.
    """
    from gwf import migrate

    with database(ctx) as db:
        before = migrate.current(db)
        migrate.adopt(db)
        if before is None:
            typer.echo(f"{db.label}: took over the tables of GoWorkFlow, with their data")
        _say_what_changed(db, before or migrate.PUBLISHED)


@app.command("sample-data", help=_SAMPLE_HELP)
def sample_data(
    ctx: typer.Context,
    jobs: Annotated[int, typer.Option(min=0, metavar="N", help="Add a history of N jobs.")] = 0,
    seed: Annotated[
        int, typer.Option(metavar="N", help="Which history; the same seed tells the same.")
    ] = 0,
) -> None:
    """Add the published sample flows, and jobs if they are asked for."""
    from gwf.testing import sample_flows, sample_history

    with client(ctx) as wf:
        for flow in sample_flows(wf):
            typer.echo(f"flow {flow.id} {flow.name} {flow.version}: {len(flow.tasks())} tasks")
        if jobs:
            job_ids = sample_history(wf, n_jobs=jobs, seed=seed, now=datetime.now(UTC))
            typer.echo(f"jobs {job_ids[0]} to {job_ids[-1]}: a history of {jobs:,} jobs")
        typer.echo(f"in {wf.database.label}")


@app.command("jobs", help=_JOBS_HELP)
def list_jobs(
    ctx: typer.Context,
    *,
    status: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STATUS",
            help="pending, running, completed, failed or cancelled; may be repeated.",
        ),
    ] = None,
    flow: Annotated[str | None, typer.Option(metavar="FLOW", help="Name or id of a flow.")] = None,
    since: Annotated[
        str | None, typer.Option(metavar="WHEN", help="Created at or after; ISO 8601, UTC.")
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="WHEN", help="Created before; ISO 8601, UTC.")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1,
            help=f"The newest N only; by default {_TABLE_LIMIT}, with --json all.",
            metavar="N",
        ),
    ] = None,
    as_json: _Json = False,
) -> None:
    """List jobs, newest last."""
    from gwf import terminal

    which: str | int | None = int(flow) if flow is not None and flow.isdecimal() else flow
    most = limit or (None if as_json else _TABLE_LIMIT)
    with client(ctx) as wf, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # said below in words of the command line
        shown = wf.jobs(
            status=status or None, flow=which, since=since, until=until, limit=most, newest=True
        )
    if shown.attrs["gwf"]["is_cut"]:
        complain(f"the newest {most:,} jobs; --limit N shows more")
    typer.echo(terminal.as_json(terminal.records(shown)) if as_json else terminal.job_table(shown))


@_job_app.command("show", help=_SHOW_HELP)
def show_job(
    ctx: typer.Context,
    job_id: Annotated[int, typer.Argument(metavar="N", help="The id of the job.")],
    as_json: _Json = False,
) -> None:
    """Show one job."""
    from gwf import terminal

    with client(ctx) as wf:
        job = wf.job(job_id)
        explanation, tasks, attempts = job.explain(), job.tasks(), job.attempts()
        record = job.record
    if as_json:
        answer = {
            "job": {**record.as_json(), "duration_s": record.duration_s},
            "explanation": explanation.as_json(),
            "tasks": terminal.records(tasks),
            "attempts": terminal.records(attempts),
        }
        typer.echo(terminal.as_json(answer))
        return
    typer.echo(str(explanation))
    typer.echo(f"\nTasks\n{terminal.attempt_table(tasks)}")
    typer.echo(f"\nAttempts\n{terminal.attempt_table(attempts)}")


@app.command(help=_DEMO_HELP)
def demo(
    ctx: typer.Context,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the files go.")] = Path("demo"),
) -> None:
    """Run the flow of ten steps with a skip and a send-back, and draw it."""
    from gwf import terminal
    from gwf.figures import write_page
    from gwf.testing import FixedClock, sample_job

    if out.exists() and not out.is_dir():
        raise Invalid("--out", str(out), expected="a folder, or a name that is free")
    out.mkdir(parents=True, exist_ok=True)
    url = ctx.obj or _new_demo_database(out / "gwf.db")
    clock = FixedClock(datetime.now(UTC) - timedelta(hours=72), step=timedelta(minutes=12))
    with gwf.connect(url, clock=clock) as wf:
        typer.echo(f"The published sample flows, in {wf.database.label}")
        job = sample_job(wf, _DEMO_JOB, clock=clock)
        jobs = wf.jobs(flow=job.flow_id, limit=None)
        typer.echo(f"\nJob\n{terminal.job_table(jobs[jobs['job_id'] == job.id])}")
        typer.echo(f"\nAttempts\n{terminal.attempt_table(job.attempts())}")
        title = f"{job.name} (job {job.id})"
        page = write_page(job.timeline(tz="Asia/Shanghai"), out / "timeline.html", title=title)
    _run_automated_task(url)
    typer.echo(f"\nTimeline: {page}")


def _run_automated_task(url: str) -> None:
    """Let a worker of this process count the attempts of the demo by status."""
    query = {"sql": "SELECT status, COUNT(*) AS n FROM job_tasks GROUP BY status ORDER BY status"}
    with gwf.connect(url) as wf:
        task = wf.create_task(_DEMO_QUERY, type="automated", config=query)
        job = wf.create_job(wf.create_flow(_DEMO_QUERY, [task]), _DEMO_QUERY)
        done = wf.run(job, allow=["sql"], progress=False).task(_DEMO_QUERY)
    counts = ", ".join(f"{row['n']} {row['status']}" for row in done.result["rows"])
    typer.echo(f"\nAutomated task: {_DEMO_QUERY} (executor sql) is {done.status}: {counts}")


app.add_typer(_job_app, name="job")
app.command(help=automation.RUN_HELP)(automation.run)
app.command(help=automation.WORKER_HELP)(automation.worker)
app.command()(automation.workers)
app.command()(automation.executors)


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(f"gwf {gwf.__version__}")


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a terminal may lack a character
    app(prog_name="gwf")


def _say_what_changed(db: Database, before: str | None) -> None:
    from gwf import migrate

    after = migrate.current(db)
    if before is None:
        typer.echo(f"{db.label}: made the tables, revision {after}")
    elif before == after:
        typer.echo(f"{db.label}: ready, revision {after}; nothing to do")
    else:
        typer.echo(f"{db.label}: upgraded from revision {before} to {after}")


def _new_demo_database(path: Path) -> str:
    """Return the URL of a file that is not there any more, unless it holds work of somebody."""
    url = f"sqlite:///{path}"
    if not path.exists():
        return url
    with gwf.connect(url) as wf:
        names = {"job": set(wf.jobs()["job_name"]), "flow": set(wf.flows()["name"])}
    others = names["job"] - {_DEMO_JOB, _DEMO_QUERY} or names["flow"] - _DEMO_FLOWS
    if others:
        raise Conflict(
            f"{path} holds more than the demo made, such as {min(others)!r}; "
            "choose another folder with --out",
            found="in use",
        )
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    return url
