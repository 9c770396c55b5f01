"""Run tasks on a real Dask cluster, and end one of its workers in the middle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import distributed
import pytest
from conftest import Databases

import gwf

N_JOBS = 20


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Start a cluster of two worker processes on this machine."""
    make: Any = distributed.LocalCluster
    with make(
        n_workers=2, threads_per_worker=2, processes=True, dashboard_address="127.0.0.1:0"
    ) as started:
        yield started


@pytest.fixture
def client(cluster: Any) -> Iterator[Any]:
    """Return a client of the cluster."""
    connect: Any = distributed.Client
    with connect(cluster) as connected:
        yield connected


def flow_of(wf: gwf.Client, config: dict[str, Any], n_tasks: int = 2) -> gwf.Flow:
    """Return a flow of so many automated tasks, one after the other."""
    tasks = [
        wf.create_task(f"t{number}", type="automated", config=config) for number in range(n_tasks)
    ]
    return wf.create_flow("F", tasks)


def test_run_on_dask(wf: gwf.Client, client: Any) -> None:
    """The code of the issue: the tasks run in the processes of the cluster."""
    wf.executor("where")(lambda config, context: {"pid": os.getpid(), "n": len(context.results)})
    jobs = wf.create_jobs(flow_of(wf, {"executor": "where"}), ["1", "2", "3"])
    done = wf.run(jobs, executor=client.get_executor())
    assert [job.status for job in done] == ["completed"] * 3
    results = wf.job_tasks()["result"].tolist()
    pids = {worker["pid"] for worker in client.run(lambda: {"pid": os.getpid()}).values()}
    assert {result["pid"] for result in results} <= pids
    assert sorted(result["n"] for result in results) == [0, 0, 0, 1, 1, 1]


def test_run_on_dask_with_built_in_executors(
    wf: gwf.Client, client: Any, databases: Databases
) -> None:
    """A command and a query run there too, with the database reached by its address."""
    command = {"command": [sys.executable, "-c", "print({{ job.id }})"]}
    query = {"sql": "SELECT job_name FROM jobs"}
    tasks = [
        wf.create_task(name, type="automated", config=config)
        for name, config in (("command", command), ("query", query))
    ]
    job = wf.create_job(wf.create_flow("F", tasks), "中文")
    wf.run(job, allow=["command", "sql"], executor=client.get_executor())
    assert job.task("command").result["stdout"] == f"{job.id}\n"
    assert job.task("query").result["rows"] == [{"job_name": "中文"}]


def test_failure_on_dask_is_a_failure_of_the_task(wf: gwf.Client, client: Any) -> None:
    wf.executor("bad")(lambda config, context: 1 / 0)
    job = wf.run(
        wf.create_job(flow_of(wf, {"executor": "bad"}), "J"), executor=client.get_executor()
    )
    assert job.task("t0").record.error_code == "ZeroDivisionError"


@pytest.mark.parametrize("databases", ["sqlite", "mariadb"], indirect=True)
def test_worker_of_the_cluster_is_killed(wf: gwf.Client, tmp_path: Path) -> None:
    """One of two worker processes is killed by the first task that it runs; all jobs end.

    Dask runs what it lost on the other one, or says that it cannot, and then the retry does.
    """
    mark = str(tmp_path / "killed")

    @wf.executor("perish")
    def perish(config: Any, context: Any) -> int:
        try:
            os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return os.getpid()
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    config = {"executor": "perish", "retry": {"max_attempts": 3, "delay": 0}}
    jobs = wf.create_jobs(flow_of(wf, config), [str(number) for number in range(N_JOBS)])
    make: Any = distributed.LocalCluster
    connect: Any = distributed.Client
    with (
        make(
            n_workers=2, threads_per_worker=2, processes=True, dashboard_address="127.0.0.1:0"
        ) as own,
        connect(own) as client,
    ):
        done = wf.run(jobs, executor=client.get_executor())
    assert [job.status for job in done] == ["completed"] * N_JOBS
    assert Path(mark).exists()
    assert all(wf.job_tasks()["result"] > 0)


@pytest.mark.parametrize("databases", ["mysql"], indirect=True)
def test_worker_command_on_dask(wf: gwf.Client, url: str, cluster: Any) -> None:
    """``gwf worker --dask ADDRESS`` runs what is due on the cluster, until it is stopped."""
    job = wf.create_job(flow_of(wf, {"command": ["true"]}), "J").start()
    command = [sys.executable, "-m", "gwf", "--database", url, "worker", "--allow", "command"]
    worker = subprocess.Popen(
        [*command, "--dask", cluster.scheduler_address], stderr=subprocess.PIPE, text=True
    )
    while job.status == "running":
        assert worker.poll() is None
    worker.send_signal(signal.SIGTERM)
    _, said = worker.communicate(timeout=60)
    assert (worker.returncode, job.status) == (0, "completed"), said
