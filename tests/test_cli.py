"""Show the commands as a user meets them: what they print, where, and how they exit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

import gwf
from gwf.cli import app
from gwf.testing import sample_flows, sample_history

NOW = datetime(2026, 11, 20, 6, tzinfo=UTC)
ROOT = Path(gwf.__file__).parent.parent


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty current folder, with nothing about databases in the environment."""
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith(("DB_", "GWF_DATABASE")):
            monkeypatch.delenv(name)
    return tmp_path


def run(*arguments: str, url: str | None = None, exit_code: int = 0) -> Any:
    before = [] if url is None else ["--database", url]
    result = CliRunner().invoke(app, [*before, *arguments], catch_exceptions=False)
    assert result.exit_code == exit_code, result.output
    return result


def real(arguments: Sequence[str], **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, as a user does."""
    known = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        [sys.executable, "-m", "gwf", *arguments],
        capture_output=True,
        encoding="utf-8",
        check=False,
        env={**known, "PYTHONPATH": str(ROOT), **environment},
    )


def expect_one_line(result: Any, *words: str) -> None:
    """Expect nothing on stdout and one line on stderr that names the words."""
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("gwf: ")
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr


# As a process


def test_help_answers_without_heavy_packages() -> None:
    code = (
        "import sys; sys.argv = ['gwf', '--help']\n"
        "from gwf.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(*{'pandas', 'plotly', 'sqlalchemy', 'alembic'} & set(sys.modules), 'loaded')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        encoding="utf-8",
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.stdout.splitlines()[-1] == " loaded"[1:]
    for word in ("GWF_DATABASE_URL", "DB_PASSWORD", "gwf job show 7", "热修复流程", "Exit codes"):
        assert word in done.stdout


def test_process_prints_chinese_whatever_the_locale(folder: Path) -> None:
    done = real(["sample-data"], LC_ALL="C")
    assert done.returncode == 0, done.stderr
    assert "标准功能开发流程" in done.stdout
    assert (folder / "gwf.db").exists()


def test_process_survives_a_terminal_without_chinese(folder: Path) -> None:
    done = real(["sample-data"], PYTHONIOENCODING="latin-1")
    assert done.returncode == 0, done.stderr
    assert "\\u6807\\u51c6" in done.stdout


def test_process_takes_the_database_of_the_environment(folder: Path) -> None:
    done = real(["init"], GWF_DATABASE_URL="sqlite:///mine.db")
    assert done.returncode == 0
    assert "sqlite:///mine.db" in done.stdout
    assert (folder / "mine.db").exists()


def test_process_fails_in_one_line(folder: Path) -> None:
    done = real(["job", "show", "7"])
    assert done.returncode == 3
    expect_one_line(done, "there is no job 7")


def test_process_never_prints_a_password(folder: Path) -> None:
    for arguments, exit_code in (
        (["--database", "mysql+pymysql://u:S3cret@127.0.0.1:1/x", "jobs"], 6),
        (["--database", "mysql+pymysql://u:S3cret@host:port/x", "jobs"], 2),
        (["--database", "oracle://u:S3cret@host/x", "jobs"], 2),
        (["--database", "mysql+pymysql://u:S3cret@127.0.0.1:1", "jobs"], 2),
    ):
        done = real(arguments)
        assert done.returncode == exit_code, done.stderr
        expect_one_line(done)
        assert "S3cret" not in done.stdout + done.stderr


def test_process_whose_reader_went_away_prints_no_traceback(folder: Path) -> None:
    """``gwf jobs | head`` ends quietly."""
    with gwf.connect("sqlite:///gwf.db") as wf:
        sample_history(wf, n_jobs=2000, now=NOW)
    with subprocess.Popen(
        [sys.executable, "-m", "gwf", "jobs", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "[\n"
        process.stdout.close()
        assert process.stderr.read() == ""


# Usage


@pytest.mark.parametrize(
    "arguments",
    [
        ["fly"],
        ["jobs", "--what"],
        ["job", "show"],
        ["job", "show", "seven"],
        ["jobs", "--limit", "0"],
        ["jobs", "--limit", "many"],
        ["sample-data", "--jobs", "-1"],
    ],
)
def test_wrong_usage_exits_2(folder: Path, arguments: list[str]) -> None:
    result = run(*arguments, exit_code=2)
    assert "Usage: " in result.stderr
    assert not (folder / "gwf.db").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["jobs"],
        ["job"],
        ["job", "show"],
        ["demo"],
        ["init"],
        ["upgrade"],
        ["adopt"],
        ["sample-data"],
    ],
)
def test_every_command_has_help(arguments: list[str]) -> None:
    assert "Usage: " in run(*arguments, "--help").stdout


def test_version_is_that_of_the_package() -> None:
    assert run("version").stdout == f"gwf {gwf.__version__}\n"


# The database


def test_init_says_what_it_did(databases: Any) -> None:
    url = databases.new()
    label = sa.make_url(url).render_as_string(hide_password=True)
    assert run("init", url=url).stdout == f"{label}: made the tables, revision 0004\n"
    assert run("init", url=url).stdout == f"{label}: ready, revision 0004; nothing to do\n"
    assert run("upgrade", url=url).stdout == f"{label}: ready, revision 0004; nothing to do\n"


def test_init_refuses_a_file_that_is_no_database(folder: Path) -> None:
    (folder / "notes.txt").write_text("not a database, but some text that is long enough " * 30)
    result = run("init", url="sqlite:///notes.txt", exit_code=6)
    expect_one_line(result, "no SQLite database", "notes.txt")


def test_upgrade_brings_an_older_database_to_this_version(databases: Any) -> None:
    from gwf import migrate
    from gwf.database import open_database

    url = databases.new()
    db = open_database(url)
    migrate.upgrade(db, migrate.PUBLISHED)
    db.close()
    assert "upgraded from revision 0001 to 0004" in run("upgrade", url=url).stdout
    assert run("jobs", "--json", url=url).stdout == "[]\n"


def test_adopt_takes_over_the_published_tables(databases: Any) -> None:
    url = databases.new()
    published(url)
    result = run("init", url=url, exit_code=6)
    expect_one_line(result, "gwf adopt")
    shown = run("adopt", url=url).stdout
    assert "took over the tables of GoWorkFlow" in shown
    assert "upgraded from revision 0001 to 0004" in shown
    assert run("jobs", "--json", url=url).stdout == "[]\n"
    assert "nothing to do" in run("adopt", url=url).stdout


def published(url: str) -> None:
    """Make the tables as GoWorkFlow does, without any mark of ours."""
    from gwf.published import published_schema

    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as conn:
        published_schema(conn.dialect.name).create_all(conn)


def test_adopt_refuses_an_empty_database(folder: Path) -> None:
    expect_one_line(run("adopt", exit_code=6), "empty", "gwf init")


def test_an_unwritable_folder_is_one_line(folder: Path) -> None:
    (folder / "taken").write_text("a file where a folder is wanted")
    expect_one_line(run("demo", "--out", "taken", exit_code=2), "a name that is free")


# Reading


@pytest.fixture
def history(url: str) -> str:
    """Return the URL of a database with a history of 80 jobs."""
    with gwf.connect(url) as wf:
        sample_history(wf, n_jobs=80, now=NOW)
    return url


def test_jobs_prints_the_newest(history: str) -> None:
    result = run("jobs", "--limit", "5", url=history)
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["76", "77", "78", "79", "80"]
    assert result.stderr == "gwf: the newest 5 jobs; --limit N shows more\n"
    assert len(run("jobs", url=history).stdout.splitlines()) == 51


def test_jobs_as_json_holds_all_that_the_frame_holds(history: str) -> None:
    with gwf.connect(history) as wf:
        frame = wf.jobs(limit=None)
    result = run("jobs", "--json", url=history)
    assert result.stderr == ""
    jobs = json.loads(result.stdout)
    assert [job["job_id"] for job in jobs] == frame["job_id"].tolist()
    assert list(jobs[0]) == list(frame.columns)
    assert [job["status"] for job in jobs] == frame["status"].tolist()
    found = [datetime.fromisoformat(job["created_at"]) for job in jobs]
    assert found == frame["created_at"].tolist()
    is_open = [job["completed_at"] is None for job in jobs]
    assert is_open == frame["completed_at"].isna().tolist()
    assert [job["duration_s"] is None for job in jobs] == frame["duration_s"].isna().tolist()


def test_jobs_filters(history: str) -> None:
    def ids(*arguments: str) -> list[int]:
        return [
            job["job_id"]
            for job in json.loads(run("jobs", "--json", *arguments, url=history).stdout)
        ]

    with gwf.connect(history) as wf:
        hotfix = wf.flow("热修复流程").id
        expected = wf.jobs(status=["failed", "running"])["job_id"].tolist()
        fixes = wf.jobs(flow=hotfix)["job_id"].tolist()
        late = wf.jobs(since="2026-11-01", until="2026-11-15T12:00:00+08:00")["job_id"].tolist()
    assert expected
    assert fixes
    assert late
    assert ids("--status", "failed", "--status", "running") == expected
    assert ids("--flow", "热修复流程") == ids("--flow", str(hotfix)) == fixes
    assert ids("--since", "2026-11-01", "--until", "2026-11-15T12:00:00+08:00") == late
    assert ids("--limit", "2") == [79, 80]


@pytest.mark.parametrize(
    ("arguments", "exit_code", "word"),
    [
        (["jobs", "--status", "flying"], 2, "one of pending, running"),
        (["jobs", "--flow", "nothing"], 3, "there is no flow 'nothing'"),
        (["jobs", "--since", "yesterday"], 2, "ISO 8601"),
        (["job", "show", "0"], 2, "job id"),
        (["job", "show", "99"], 3, "there is no job 99"),
    ],
)
def test_reading_refuses_in_one_line(
    folder: Path, arguments: list[str], exit_code: int, word: str
) -> None:
    expect_one_line(run(*arguments, exit_code=exit_code), word)


def test_job_show_explains(url: str) -> None:
    with gwf.connect(url) as wf:
        standard, _ = sample_flows(wf)
        job = wf.create_job(standard, "功能-搜索").start()
        job.next_task().start(operator=7)  # type: ignore[union-attr]  # it is due
    shown = run("job", "show", str(job.id), url=url).stdout
    assert "Job 1 '功能-搜索' is running" in shown
    assert "on votes: 0 of 2 approved; needs PM, Tech Lead; due in" in shown
    assert shown.count("需求评审") == 4
    told = json.loads(run("job", "show", "1", "--json", url=url).stdout)
    assert set(told) == {"job", "explanation", "tasks", "attempts"}
    assert told["job"]["job_name"] == "功能-搜索"
    assert told["explanation"]["waiting"][0]["status"] == "running"
    assert [task["sequence"] for task in told["tasks"]] == list(range(1, 11))
    assert told["attempts"][0]["operator_id"] == 7


# Sample data and demo


def test_sample_data_twice_adds_nothing(url: str) -> None:
    first = run("sample-data", url=url).stdout
    assert "flow 1 标准功能开发流程 1.0.0: 10 tasks" in first
    assert "flow 2 热修复流程 1.0.0: 5 tasks" in first
    assert run("sample-data", url=url).stdout == first


def test_sample_data_adds_a_history(folder: Path) -> None:
    assert "jobs 1 to 30: a history of 30 jobs" in run("sample-data", "--jobs", "30").stdout
    assert len(json.loads(run("jobs", "--json").stdout)) == 30


def expect_demo(shown: str, page: Path) -> None:
    """Expect the skip, the send-back and the page that draws both."""
    lines = [line.split() for line in shown.splitlines()]
    tested = [words[2:4] for words in lines if words[1:2] == ["QA测试"]]
    assert tested == [["1", "rolled_back"], ["2", "completed"]]
    assert [words[3] for words in lines if words[1:2] == ["集成测试"]] == ["rolled_back", "skipped"]
    assert any("10/10" in words and "completed" in words for words in lines)
    assert "(executor sql) is completed: " in shown
    assert f"Timeline: {page}" in shown
    assert "QA" in page.read_text(encoding="utf-8")


def test_demo_runs_on_the_database_given(url: str, folder: Path) -> None:
    """It ends before now, and jobs lists it; doing it again adds two more jobs."""
    expect_demo(run("demo", "--out", "here", url=url).stdout, Path("here/timeline.html"))
    assert not (folder / "here" / "gwf.db").exists()
    job, automated = json.loads(run("jobs", "--json", url=url).stdout)
    assert (job["n_rollbacks"], automated["status"]) == (1, "completed")
    assert datetime.fromisoformat(job["completed_at"]) < datetime.now(UTC)
    run("demo", "--out", "here", url=url)
    assert len(json.loads(run("jobs", "--json", url=url).stdout)) == 4


def test_demo_makes_its_own_database_anew(folder: Path) -> None:
    """Without --database it neither asks the environment nor keeps what the last run made."""
    for _ in range(2):
        done = real(["demo"], GWF_DATABASE_URL="sqlite:///mine.db")
        assert done.returncode == 0, done.stderr
        expect_demo(done.stdout, Path("demo/timeline.html"))
    assert not (folder / "mine.db").exists()
    listed = run("jobs", "--json", url="sqlite:///demo/gwf.db").stdout
    assert [job["job_id"] for job in json.loads(listed)] == [1, 2]


def test_demo_leaves_the_work_of_others_alone(folder: Path) -> None:
    """A gwf.db in the folder of --out that somebody uses is not made anew."""
    with gwf.connect("sqlite:///gwf.db") as wf:
        wf.create_job(wf.create_flow("mine", [wf.create_task("t")]), "important")
    expect_one_line(run("demo", "--out", ".", exit_code=4), "'important'", "--out")
    with gwf.connect("sqlite:///gwf.db") as wf:
        assert wf.jobs()["job_name"].tolist() == ["important"]
