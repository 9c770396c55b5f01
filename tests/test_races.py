"""Two callers at once: real threads and real processes, 200 rounds each, one effect each round."""

from __future__ import annotations

import multiprocessing
import threading
from collections import Counter
from collections.abc import Callable
from multiprocessing.synchronize import Barrier as ProcessBarrier
from typing import Any

import pytest

import gwf

ROUNDS = 200


def _outcome(call: Callable[[], Any]) -> str:
    try:
        call()
    except gwf.Conflict:
        return "conflict"
    return "won"


def _side_by_side(first: Callable[[int], Any], second: Callable[[int], Any]) -> list[list[str]]:
    """Let two threads make their calls in lockstep and return the outcomes of each round."""
    barrier = threading.Barrier(2)
    outcomes: list[list[str]] = [[], []]

    def run(who: int, call: Callable[[int], Any]) -> None:
        for number in range(ROUNDS):
            barrier.wait(timeout=60)
            outcomes[who].append(_outcome(lambda: call(number)))  # noqa: B023 - called at once

    threads = [
        threading.Thread(target=run, args=(who, call)) for who, call in enumerate((first, second))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(one) for one in outcomes] == [ROUNDS, ROUNDS]
    return [list(pair) for pair in zip(*outcomes, strict=True)]


def _running_jobs(wf: gwf.Client, *steps: Any) -> tuple[list[int], list[list[int]]]:
    """Return the ids of running jobs, and the ids of the tasks of each."""
    flow = wf.create_flow("race", list(steps))
    jobs = wf.create_jobs(flow, [f"round {number}" for number in range(ROUNDS)])
    for job in jobs:
        job.start()
    frame = wf.job_tasks(flow=flow)
    ids = [[int(one) for one in frame[frame["job_id"] == job.id]["job_task_id"]] for job in jobs]
    return [job.id for job in jobs], ids


def test_start_task_twice_at_once(wf: gwf.Client) -> None:
    """Exactly one of two starts wins each round, the other gets a Conflict."""
    _, ids = _running_jobs(wf, wf.create_task("A"))
    rounds = _side_by_side(
        lambda number: wf.start_task(ids[number][0], operator=1),
        lambda number: wf.start_task(ids[number][0], operator=2),
    )
    assert all(sorted(pair) == ["conflict", "won"] for pair in rounds)
    assert Counter(wf.logs(action="start")["job_task_id"].notna())[True] == ROUNDS


def test_complete_task_of_the_last_two_siblings_at_once(wf: gwf.Client) -> None:
    """Both are recorded, and the job completes once (rule P3)."""
    jobs, ids = _running_jobs(wf, [wf.create_task("A"), wf.create_task("B")])
    for pair in ids:
        for job_task_id in pair:
            wf.start_task(job_task_id)
    rounds = _side_by_side(
        lambda number: wf.complete_task(ids[number][0], "A"),
        lambda number: wf.complete_task(ids[number][1], "B"),
    )
    assert all(pair == ["won", "won"] for pair in rounds)
    assert set(wf.jobs()["status"].astype(str)) == {"completed"}
    assert set(wf.jobs()["n_done"]) == {2}
    completions = wf.logs(action="complete")
    assert sorted(completions[completions["job_task_id"].isna()]["job_id"]) == sorted(jobs)


def test_rollback_task_twice_at_once(wf: gwf.Client) -> None:
    """Of two that send a job back at once, one wins (each round from a sibling of its own)."""
    _, ids = _running_jobs(wf, wf.create_task("A"), [wf.create_task("B"), wf.create_task("C")])
    for first, *siblings in ids:
        for job_task_id in (first, *siblings):
            wf.start_task(job_task_id)
            wf.complete_task(job_task_id)
    flow_id = int(wf.jobs()["flow_id"].iloc[0])
    assert set(wf.jobs(flow=flow_id)["status"].astype(str)) == {"completed"}
    for number in range(ROUNDS):
        wf.reopen_job(int(wf.jobs()["job_id"].iloc[number]), to=2, reason="again")
        for job_task_id in ids[number][1:]:
            wf.start_task(job_task_id)
    rounds = _side_by_side(
        lambda number: wf.rollback_task(ids[number][1], to=1, reason="B", running="cancel"),
        lambda number: wf.rollback_task(ids[number][2], to=1, reason="C", running="cancel"),
    )
    assert all(sorted(pair) == ["conflict", "won"] for pair in rounds)
    assert set(wf.jobs()["n_rollbacks"]) == {1}


def test_idempotency_key_at_once(wf: gwf.Client) -> None:
    """Two calls with one key have one effect and get one answer (rule T3)."""
    _, ids = _running_jobs(wf, wf.create_task("A"))
    answers: list[dict[int, Any]] = [{}, {}]

    def call(who: int) -> Callable[[int], Any]:
        def start(number: int) -> None:
            task = wf.start_task(ids[number][0], idempotency_key=f"key {number}")
            answers[who][number] = task.record

        return start

    rounds = _side_by_side(call(0), call(1))
    assert all(pair == ["won", "won"] for pair in rounds)
    assert answers[0] == answers[1]
    assert Counter(wf.logs(action="start")["job_task_id"].notna())[True] == ROUNDS


def test_create_jobs_at_once(wf: gwf.Client) -> None:
    """Chunks of two callers interleave, and each job still has its tasks, once."""
    flow = wf.create_flow("race", [wf.create_task("A"), wf.create_task("B")])
    made: list[list[gwf.Job]] = []
    threads = [
        threading.Thread(
            target=lambda who=who: made.append(
                wf.create_jobs(flow, [f"{who} {number}" for number in range(900)])
            )
        )
        for who in ("x", "y")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ids = [job.id for jobs in made for job in jobs]
    assert len(set(ids)) == len(ids) == 1800
    frame = wf.job_tasks(flow=flow)
    assert set(frame.groupby("job_id").size()) == {2}
    assert set(frame["job_id"]) == set(ids)
    names = dict(zip(wf.jobs()["job_id"], wf.jobs()["job_name"], strict=True))
    assert all(names[job.id] == job.name for jobs in made for job in jobs)


def _start_all(url: str, ids: list[int], barrier: ProcessBarrier, results: Any) -> None:
    with gwf.connect(url) as wf:
        outcomes = []
        for job_task_id in ids:
            barrier.wait(timeout=60)
            outcomes.append(_outcome(lambda: wf.start_task(job_task_id)))  # noqa: B023 - called at once
        results.put(outcomes)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_start_task_by_two_processes(url: str) -> None:
    """Two processes on one database: exactly one start wins each of 200 rounds."""
    with gwf.connect(url) as wf:
        _, tasks = _running_jobs(wf, wf.create_task("A"))
    ids = [one[0] for one in tasks]
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    processes = [
        context.Process(target=_start_all, args=(url, ids, barrier, results)) for _ in range(2)
    ]
    for process in processes:
        process.start()
    outcomes = [results.get(timeout=120) for _ in processes]
    for process in processes:
        process.join(timeout=60)
        assert process.exitcode == 0
    rounds = [sorted(pair) for pair in zip(*outcomes, strict=True)]
    assert rounds == [["conflict", "won"]] * ROUNDS
