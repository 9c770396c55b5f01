"""Run automated tasks as a notebook does: the code of the issue, and what its users do next."""

from __future__ import annotations

import http.server
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nbformat
import pytest

import gwf

LOCAL = ["127.0.0.0/8"]


class Received(http.server.BaseHTTPRequestHandler):
    """Keep the bodies that were posted."""

    def do_POST(self) -> None:
        """Take one."""
        length = int(self.headers["content-length"])
        self.server.bodies.append(json.loads(self.rfile.read(length)))  # type: ignore[attr-defined]  # given below
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def hook() -> Iterator[http.server.ThreadingHTTPServer]:
    """Run a server that takes web hooks."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Received)
    server.bodies = []  # type: ignore[attr-defined]  # the handler fills it
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def flow_of(wf: gwf.Client, *configs: dict[str, Any]) -> gwf.Flow:
    """Return a flow of automated tasks with these configs, named by letters."""
    tasks = [
        wf.create_task(name, type="automated", config=config)
        for name, config in zip("abcdefghij", configs, strict=False)
    ]
    return wf.create_flow("自动", tasks)


def test_code_of_the_issue(
    wf: gwf.Client, tmp_path: Path, hook: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every line of it: five kinds of work, allowed one by one."""
    (tmp_path / "mypkg").mkdir()
    (tmp_path / "mypkg" / "__init__.py").touch()
    (tmp_path / "mypkg" / "steps.py").write_text(
        "def clean(config, context):\n    return {'lint': context.results['lint']['warnings']}\n"
    )
    cells = [nbformat.v4.new_code_cell("flow = 0", metadata={"tags": ["parameters"]})]
    cells.append(nbformat.v4.new_code_cell("{'flow': flow}"))
    (tmp_path / "reports").mkdir()
    named = {"name": "python3", "display_name": "Python 3", "language": "python"}
    kernel = {"kernelspec": named}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=kernel)
    nbformat.write(notebook, tmp_path / "reports" / "r.ipynb")
    monkeypatch.chdir(tmp_path)

    @wf.executor("lint")
    def lint(config: Any, context: Any) -> dict[str, int]:
        return {"warnings": 3}

    steps = [
        wf.create_task("lint", type="automated", config={"executor": "lint"}),
        wf.create_task(
            "单元测试",
            type="automated",
            config={
                "command": [sys.executable, "-c", "print('2 passed')"],
                "timeout": 600,
                "retry": {
                    "max_attempts": 3,
                    "backoff": "exponential",
                    "delay": 1,
                    "jitter": True,
                },
            },
        ),
        wf.create_task(
            "通知",
            type="automated",
            config={
                "webhook_url": f"http://127.0.0.1:{hook.server_port}/hook",
                "body": {"job": "{{ job.id }}"},
            },
        ),
        wf.create_task(
            "统计",
            type="automated",
            config={"sql": "SELECT status, COUNT(*) n FROM jobs GROUP BY status"},
        ),
        wf.create_task(
            "报告",
            type="automated",
            config={"notebook": "reports/r.ipynb", "parameters": {"flow": 1}},
        ),
        wf.create_task("清洗", type="automated", config={"python": "mypkg.steps:clean"}),
    ]
    job = wf.create_job(wf.create_flow("全部", steps), "一")
    assert wf.run(job, allow=["command"]) is not None
    assert job.task("单元测试").result["stdout"] == "2 passed\n"
    assert job.task("通知").status == "pending"
    assert "wf.run(job, allow=['webhook'])" in str(job.explain())
    same = wf.run(job, allow=["webhook", "sql", "notebook", "python"], networks=LOCAL)
    assert same.status == "completed"
    assert hook.bodies == [{"job": job.id}]
    assert job.task("统计").result["rows"] == [{"status": "running", "n": 1}]
    assert job.task("清洗").result == {"lint": 3}
    assert Path(job.task("报告").result["notebook"]).is_file()
    assert job.context["lint"] == {"warnings": 3}


def test_worker_in_the_background_runs_every_job(wf: gwf.Client) -> None:
    """``with wf.worker()``: what is due runs, also what becomes due while the block is left."""
    done = threading.Barrier(4)

    @wf.executor("meet")
    def meet(config: Any, context: Any) -> None:
        done.wait(60)

    jobs = wf.create_jobs(flow_of(wf, {"executor": "meet"}), ["1", "2", "3"])
    with wf.worker(concurrency=4) as worker:
        for job in jobs:
            job.start()
        done.wait(60)
    assert [job.status for job in jobs] == ["completed"] * 3
    health = worker.health()
    assert (health.state, health.n_completed, health.n_running) == ("stopped", 3, 0)
    assert wf.workers()["state"].tolist() == ["stopped"]
    assert wf.workers()["n_completed"].tolist() == [3]


def test_run_with_any_executor(wf: gwf.Client) -> None:
    """Anything that is a ``concurrent.futures.Executor`` runs the tasks."""
    wf.executor("where")(lambda config, context: threading.current_thread().name)
    jobs = wf.create_jobs(flow_of(wf, {"executor": "where"}), ["1", "2"])
    with ThreadPoolExecutor(2, thread_name_prefix="mine") as pool:
        done = wf.run(jobs, executor=pool)
    assert [job.id for job in done] == [job.id for job in jobs]
    assert all(job.task("a").result.startswith("mine") for job in done)


def test_run_of_a_parallel_group_at_once(wf: gwf.Client) -> None:
    """Five members wait for each other, so they pass only when all five run at the same time."""
    together = threading.Barrier(5)

    @wf.executor("together")
    def meet(config: Any, context: Any) -> None:
        together.wait(60)

    group = [
        wf.create_task(f"t{number}", type="automated", config={"executor": "together"})
        for number in range(5)
    ]
    job = wf.run(wf.create_job(wf.create_flow("F", [group]), "J"))
    assert job.status == "completed"


def test_run_of_a_mixed_flow_stops_for_a_person(wf: gwf.Client) -> None:
    """Automated, approval, automated: run, approve, run again."""
    wf.executor("count")(lambda config, context: {"n": len(context.results)})
    first, last = (
        wf.create_task(name, type="automated", config={"executor": "count"}) for name in "ac"
    )
    gate = wf.create_task("b", type="approval")
    job = wf.run(wf.create_job(wf.create_flow("F", [first, gate, last]), "J"))
    assert (job.status, job.task("a").result, job.next_task().name) == ("running", {"n": 0}, "b")
    job.task("b").start().approve(operator=7)
    assert wf.run(job).status == "completed"
    assert job.task("c").result == {"n": 2}


def test_run_leaves_alone_what_is_not_allowed(wf: gwf.Client) -> None:
    """W5: it stays pending with the reason, and nothing fails."""
    job = wf.run(wf.create_job(flow_of(wf, {"command": ["true"]}), "J"))
    assert job.task("a").status == "pending"
    assert "a worker that may run 'command', and none is there" in str(job.explain())
    with pytest.raises(gwf.Invalid, match="an executor that is known here"):
        wf.run(job, allow=["comand"])
    with pytest.raises(gwf.Invalid, match="a list of names"):
        wf.run(job, allow="command")


def test_run_renders_templates_from_the_job(wf: gwf.Client) -> None:
    """Context, results and the job are there; what a value holds is never a template itself."""
    wf.executor("echo")(lambda config, context: dict(config))
    flow = flow_of(
        wf,
        {"executor": "echo", "id": "{{ job.id }}", "env": "{{ context.env }}"},
        {"executor": "echo", "first": "{{ results.a.id }}", "last": "{{ previous_task_result }}"},
    )
    job = wf.run(wf.create_job(flow, "J", context={"env": "{{ job.id }} 'x' 中文"}))
    assert job.task("a").result == {"id": job.id, "env": "{{ job.id }} 'x' 中文"}
    assert job.task("b").result == {"first": job.id, "last": job.task("a").result}


def test_run_with_an_unknown_name_in_a_template_fails(wf: gwf.Client) -> None:
    wf.executor("echo")(lambda config, context: dict(config))
    job = wf.run(wf.create_job(flow_of(wf, {"executor": "echo", "x": "{{ context.nope }}"}), "J"))
    task = job.task("a")
    assert (task.status, task.record.error_code) == ("failed", "config_invalid")
    assert "nope" in str(task.record.error_message)


def outcome_of(wf: gwf.Client, function: Callable[[Any, Any], Any]) -> tuple[str | None, str]:
    """Return the error code and message of a task that calls this function."""
    wf.executor("it")(function)
    job = wf.run(wf.create_job(flow_of(wf, {"executor": "it"}), "J"))
    assert job.status == "failed"
    record = job.task("a").record
    return record.error_code, str(record.error_message)


def _raise(config: Any, context: Any) -> None:
    raise ValueError("so 中文 'x'")


def _leave(config: Any, context: Any) -> None:
    sys.exit(3)


@pytest.mark.parametrize(
    ("function", "code", "said"),
    [
        (_raise, "ValueError", "so 中文 'x' (test_client_automation.py, line"),
        (_leave, "SystemExit", "3"),
        (lambda config, context: float("nan"), "result_invalid", "NaN"),
        (lambda config, context: object(), "result_invalid", "not JSON"),
        (lambda config, context: "x" * 1_000_001, "result_invalid", "at most 1,000,000 bytes"),
        (lambda config, context: 1 / 0, "ZeroDivisionError", "division by zero"),
    ],
)
def test_outcome_of_a_function_that_goes_wrong(
    wf: gwf.Client, function: Callable[[Any, Any], Any], code: str, said: str
) -> None:
    """Each ends as failed with a code and a message; the worker goes on."""
    found, message = outcome_of(wf, function)
    assert found == code
    assert said in message


def test_outcome_of_a_function_that_hangs(wf: gwf.Client) -> None:
    """W4: its time is over, it is told so, and the outcome is ``timed_out`` when it ends then."""

    @wf.executor("hang")
    def hang(config: Any, context: Any) -> str:
        assert context.given_up.wait(60)
        return "too late"

    job = wf.run(wf.create_job(flow_of(wf, {"executor": "hang", "timeout": 0.2}), "J"))
    record = job.task("a").record
    assert (record.error_code, record.result) == ("timed_out", None)
    assert record.error_message == "not done after 0.2 seconds"


def test_outcome_of_a_function_that_never_ends(
    wf: gwf.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread cannot be ended: it is abandoned, and what it returns later has no effect."""
    monkeypatch.setattr("gwf.worker.GIVE_UP_S", 0.2)
    leave = threading.Event()
    wf.executor("never")(lambda config, context: leave.wait(60))
    job = wf.run(wf.create_job(flow_of(wf, {"executor": "never", "timeout": 0.2}), "J"))
    leave.set()
    assert job.task("a").record.error_code == "timed_out"


def test_run_tries_again_by_policy(wf: gwf.Client) -> None:
    """W3: the failed attempts stay in ``attempts``, and the job never was failed."""
    calls: list[int] = []

    @wf.executor("flaky")
    def flaky(config: Any, context: Any) -> int:
        calls.append(context.task["attempt"])
        if len(calls) < 3:
            raise ConnectionError("not yet")
        return len(calls)

    config = {"executor": "flaky", "retry": {"max_attempts": 3, "delay": 0}}
    job = wf.run(wf.create_job(flow_of(wf, config), "J"))
    assert (job.status, calls, job.task("a").result) == ("completed", [1, 2, 3], 3)
    assert job.attempts()["status"].tolist() == ["failed", "failed", "completed"]
    assert job.attempts()["error_code"].tolist()[:2] == ["ConnectionError"] * 2
    assert (job.attempts()["worker"].dropna().nunique(), len(job.attempts())) == (1, 3)
    actions = job.logs()["action"].tolist()
    assert actions.count("retry") == 2
    assert not ((job.logs()["action"] == "fail") & job.logs()["job_task_id"].isna()).any()


def test_retries_are_used_up_and_come_back_with_a_person(wf: gwf.Client) -> None:
    """After ``max_attempts`` the job fails; a person's retry brings all tries back."""
    wf.executor("bad")(_raise)
    config = {"executor": "bad", "retry": {"max_attempts": 2, "delay": 0}}
    job = wf.run(wf.create_job(flow_of(wf, config), "J"))
    assert (job.status, job.task("a").attempt) == ("failed", 2)
    job.task("a").retry()
    assert (wf.run(job).status, job.task("a").attempt) == ("failed", 4)


def test_retry_on_names_the_codes(wf: gwf.Client) -> None:
    wf.executor("bad")(_raise)
    retry = {"max_attempts": 5, "delay": 0, "retry_on": ["timed_out"]}
    job = wf.run(wf.create_job(flow_of(wf, {"executor": "bad", "retry": retry}), "J"))
    assert (job.status, job.task("a").attempt) == ("failed", 1)


def test_cancel_gives_up_what_runs(wf: gwf.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """W7: the next heartbeat learns it; a late result is logged without effect."""
    monkeypatch.setattr("gwf.client.automation.LEASE_S", 0.3)
    job = wf.create_job(flow_of(wf, {"executor": "wait"}), "J")

    @wf.executor("wait")
    def wait(config: Any, context: Any) -> str:
        job.cancel(reason="no longer wanted")
        assert context.given_up.wait(60)
        return "late"

    assert wf.run(job).status == "cancelled"
    record = job.task("a").record
    assert (record.status, record.error_code, record.result) == ("failed", "cancelled", None)
    assert job.logs()["action"].tolist()[-1] == "refuse"


def test_pause_lets_running_work_go_on(wf: gwf.Client) -> None:
    """W7: what runs is completed, nothing new starts until the job is resumed."""
    job = wf.create_job(flow_of(wf, {"executor": "pause"}, {"executor": "pause"}), "J")

    @wf.executor("pause")
    def pause(config: Any, context: Any) -> None:
        if context.task["name"] == "a":
            job.pause()

    assert wf.run(job).is_paused
    assert (job.task("a").status, job.task("b").status) == ("completed", "pending")
    job.resume()
    assert wf.run(job).status == "completed"


def test_stop_gives_back_what_does_not_end(wf: gwf.Client) -> None:
    """The next attempt is open at once, whatever the policy of retries says."""
    began = threading.Event()

    @wf.executor("slow")
    def slow(config: Any, context: Any) -> None:
        began.set()
        assert context.given_up.wait(60)
        raise gwf.ExecutionFailed("ended early", code="cancelled")

    job = wf.create_job(flow_of(wf, {"executor": "slow"}), "J").start()
    worker = wf.worker().start()
    assert began.wait(60)
    worker.stop(grace_s=0)
    worker.join()
    attempts = job.attempts()
    assert attempts["status"].tolist() == ["failed", "pending"]
    assert attempts["error_code"].tolist()[0] == "given_back"
    assert job.status == "running"


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Let SIGINT interrupt, also where whoever started the tests ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_interrupt_gives_back_what_runs(wf: gwf.Client) -> None:
    """Stopping a cell leaves nothing running: the next ``wf.run`` begins it anew."""

    @wf.executor("slow")
    def slow(config: Any, context: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        assert context.given_up.wait(60)
        raise gwf.ExecutionFailed("ended early", code="cancelled")

    job = wf.create_job(flow_of(wf, {"executor": "slow"}), "J")
    with pytest.raises(KeyboardInterrupt):
        wf.run(job)
    assert job.attempts()["error_code"].tolist()[0] == "given_back"
    assert (job.status, job.task("a").status) == ("running", "pending")


def test_stop_finishes_what_runs(wf: gwf.Client) -> None:
    """Within the grace a task ends as it would have; nothing new is claimed."""
    began, may_end = threading.Event(), threading.Event()

    @wf.executor("slow")
    def slow(config: Any, context: Any) -> str:
        began.set()
        assert may_end.wait(60)
        return "done"

    job = wf.create_job(flow_of(wf, {"executor": "slow"}, {"executor": "slow"}), "J").start()
    worker = wf.worker().start()
    assert began.wait(60)
    worker.stop(grace_s=60)
    may_end.set()
    worker.join()
    assert (job.task("a").status, job.task("b").status) == ("completed", "pending")


def test_secrets_stay_out_of_results_and_errors(
    wf: gwf.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """W8: a secret is read from the environment of the worker, and hidden wherever it shows."""
    monkeypatch.setenv("TOKEN_OF_TEST", "s3cret-中文")
    program = "import os; print(os.environ['T']); raise SystemExit(int(os.environ.get('E', 0)))"
    config = {
        "command": [sys.executable, "-c", program],
        "env": {"T": {"secret": "TOKEN_OF_TEST"}, "PYTHONIOENCODING": "utf-8"},
    }
    failing = {**config, "env": {**config["env"], "E": "3"}}  # type: ignore[dict-item]  # a mapping
    job = wf.run(wf.create_job(flow_of(wf, config, failing), "J"), allow=["command"])
    everything = f"{job.tasks().to_dict()}{job.logs().to_dict()}{job.explain()}{job.context}"
    assert "s3cret" not in everything
    assert job.task("a").result["stdout"] == "•••\n"
    assert "•••" in str(job.task("b").record.error_message)


@pytest.mark.parametrize(
    "config",
    [
        {"command": []},
        {"command": "make", "retry": {"max_attempt": 3}},
        {"command": "make", "timeout": 0},
        {"command": "make", "url": "http://h"},
        {"webhook_url": "ftp://h"},
        {"sql": "DELETE FROM jobs"},
        {"python": "no colon"},
        {"command": ["echo", "{{ unclosed"]},
    ],
)
def test_config_that_could_never_run_is_refused_when_saved(
    wf: gwf.Client, config: dict[str, Any]
) -> None:
    """W1: before any job of it could be set running; as a manual task it may say what it likes."""
    with pytest.raises(gwf.Invalid):
        wf.create_task("x", type="automated", config=config)
    task = wf.create_task("x", config=config)
    with pytest.raises(gwf.Invalid):
        wf.update_task(task, type="automated")


def test_config_of_another_program_fails_before_it_runs(wf: gwf.Client) -> None:
    """W1: rows that nobody checked end as ``config_invalid``, and never were running."""
    task = wf.create_task("x", type="automated", config={"command": ["true"]})
    job = wf.create_job(wf.create_flow("F", [task]), "J")
    with wf.database.engine.begin() as conn:
        conn.exec_driver_sql("""UPDATE job_tasks SET config = '{"command": 7}'""")
    assert wf.run(job, allow=["command"]).status == "failed"
    record = job.task("x").record
    assert (record.error_code, record.started_at) == ("config_invalid", None)


def test_person_starts_an_automated_task_and_no_worker_takes_it(wf: gwf.Client) -> None:
    wf.executor("it")(lambda config, context: "by the worker")
    job = wf.create_job(flow_of(wf, {"executor": "it"}), "J").start()
    job.task("a").start(operator=7)
    assert wf.run(job).task("a").status == "running"
    job.task("a").complete("by hand")
    assert job.task("a").result == "by hand"


def test_executor_of_an_installed_name_is_refused(wf: gwf.Client) -> None:
    with pytest.raises(gwf.Invalid, match="no installed executor has"):
        wf.executor("command")
    with pytest.raises(gwf.Invalid, match="a function"):
        wf.executor("mine")(7)  # type: ignore[type-var]  # refused


def test_executors_are_listed(wf: gwf.Client) -> None:
    wf.executor("mine")(lambda config, context: None)
    frame = wf.executors().set_index("executor")
    assert {"command", "http", "notebook", "python", "sql", "webhook"} <= set(frame.index)
    assert frame["is_allowed"].to_dict()["mine"]
    assert not frame["is_allowed"].to_dict()["command"]


def test_run_shows_progress_when_asked(wf: gwf.Client, capsys: pytest.CaptureFixture[str]) -> None:
    wf.executor("it")(lambda config, context: None)
    job = wf.create_job(flow_of(wf, {"executor": "it"}, {"executor": "it"}), "J")
    wf.run(job, progress=True)
    assert "2/2" in capsys.readouterr().err


def test_as_user_shares_the_executors(wf: gwf.Client) -> None:
    other = wf.as_user(7)
    other.executor("it")(lambda config, context: os.getpid())
    assert wf.run(wf.create_job(flow_of(wf, {"executor": "it"}), "J")).status == "completed"
