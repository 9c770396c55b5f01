"""Let two callers act at once: real threads and real processes, 200 rounds each in lockstep.

Threads share one client; processes are spawned, and each connects by itself.
Each round begins at a barrier, so no test waits for a time to pass.
"""

from __future__ import annotations

import multiprocessing
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa

import gwf
from gwf.database import write
from gwf.engine import job_tasks as task_verbs
from gwf.engine import jobs as job_verbs
from gwf.model import Call
from gwf.tables import job_context, job_task_logs, job_tasks, jobs, votes

ROUNDS = 200
TIMEOUT_S = 60

Act = Callable[..., Any]
#: What a call came to: "won" or the name of the error, and its answer.
Outcome = tuple[str, Any]

_barriers: dict[str, Any] = {}


def _meet_at(barrier: Any) -> None:
    """Keep the barrier of this pair of processes; an object of its kind travels at birth only."""
    _barriers["process"] = barrier


def _play(
    wf: gwf.Client, barrier: Any, act: Act, rounds: Sequence[tuple[Any, ...]]
) -> list[Outcome]:
    outcomes: list[Outcome] = []
    for arguments in rounds:
        barrier.wait(timeout=TIMEOUT_S)
        try:
            outcomes.append(("won", act(wf, *arguments)))
        except Exception as error:  # a raw error of a driver has to be seen as such
            outcomes.append((type(error).__name__, str(error)))
    return outcomes


def _play_in_a_process(url: str, act: Act, rounds: Sequence[tuple[Any, ...]]) -> list[Outcome]:
    with gwf.connect(url) as wf:
        return _play(wf, _barriers["process"], act, rounds)


class Race:
    """Let two callers play their rounds side by side."""

    def __init__(self, wf: gwf.Client, url: str, processes: Executor | None) -> None:
        self.wf = wf
        self._url = url
        self._processes = processes

    def run(
        self, first: Act, second: Act, rounds: Sequence[tuple[tuple[Any, ...], tuple[Any, ...]]]
    ) -> list[tuple[Outcome, Outcome]]:
        """Return the outcomes of each round, whose two tuples hold the arguments of the acts."""
        sides = [(first, [one for one, _ in rounds]), (second, [two for _, two in rounds])]
        if self._processes is not None:
            played = [
                self._processes.submit(_play_in_a_process, self._url, act, mine)
                for act, mine in sides
            ]
            outcomes = [one.result() for one in played]
        else:
            barrier = threading.Barrier(2)
            with ThreadPoolExecutor(2) as threads:
                played = [threads.submit(_play, self.wf, barrier, *side) for side in sides]
                outcomes = [one.result() for one in played]
        assert [len(one) for one in outcomes] == [len(rounds)] * 2
        return list(zip(*outcomes, strict=True))

    def jobs(self, *steps: Any, n_started: int = 0) -> list[tuple[int, list[int]]]:
        """Return 200 running jobs and the ids of their tasks, the first few of them running."""
        flow = self.wf.create_flow("race", list(steps))
        made = self.wf.create_jobs(flow, [f"round {number}" for number in range(ROUNDS)])
        ids: dict[int, list[int]] = {job.id: [] for job in made}
        for job_id, job_task_id in self.rows(
            sa.select(job_tasks.c.job_id, job_tasks.c.id).order_by(job_tasks.c.id)
        ):
            ids[job_id].append(job_task_id)

        def start(conn: sa.Connection) -> None:
            for job_id, mine in ids.items():
                job_verbs.start_job(conn, job_id, Call())
                for job_task_id in mine[:n_started]:
                    task_verbs.start_task(conn, job_task_id, Call())

        write(self.wf.database, start)
        return list(ids.items())

    def rows(self, query: sa.Select[Any]) -> list[Any]:
        """Return what the database holds."""
        with self.wf.database.engine.connect() as conn:
            found = list(conn.execute(query))
            conn.rollback()
        return found

    def log(self, action: str, *, of_tasks: bool) -> Counter[int]:
        """Count the log rows of an action, by job or by task."""
        owner = job_task_logs.c.job_task_id
        key = owner if of_tasks else job_task_logs.c.job_id
        query = sa.select(key).where(
            job_task_logs.c.action == action, owner.is_not(None) if of_tasks else owner.is_(None)
        )
        return Counter(row[0] for row in self.rows(query))


@pytest.fixture(scope="module")
def pair() -> Iterator[Executor]:
    """Return two processes that serve every test, since to spawn them takes longest."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        2, mp_context=context, initializer=_meet_at, initargs=(context.Barrier(2),)
    ) as executor:
        yield executor


@pytest.fixture(params=["threads", "processes"])
def race(request: pytest.FixtureRequest, wf: gwf.Client, url: str, pair: Executor) -> Race:
    """Return two callers, as threads and as processes."""
    return Race(wf, url, pair if request.param == "processes" else None)


def _once_each(ids: Sequence[int]) -> dict[int, int]:
    return dict.fromkeys(ids, 1)


def _kinds(rounds: Sequence[tuple[Outcome, Outcome]]) -> Counter[tuple[str, ...]]:
    """Count the pairs of outcomes, whoever came first."""
    return Counter(tuple(sorted((one[0], two[0]))) for one, two in rounds)


def start(wf: gwf.Client, job_task_id: int, operator: int, key: str | None = None) -> Any:
    """Start a task."""
    return wf.start_task(job_task_id, operator=operator, idempotency_key=key).record.as_json()


def complete(wf: gwf.Client, job_task_id: int, key: str | None = None) -> Any:
    """Complete a task."""
    return wf.complete_task(job_task_id, "done", idempotency_key=key).record.as_json()


def fail(wf: gwf.Client, job_task_id: int) -> Any:
    """Let a task fail."""
    return wf.fail_task(job_task_id, "broken").status


def send_back(wf: gwf.Client, job_task_id: int) -> Any:
    """Send the job back, whoever else is running."""
    return wf.rollback_task(job_task_id, to=1, reason="again", running="cancel").status


def approve(wf: gwf.Client, job_task_id: int, operator: int) -> Any:
    """Approve, and say where the approval stands."""
    return wf.approve(job_task_id, operator=operator).status  # type: ignore[union-attr]  # one vote


def reject(wf: gwf.Client, job_task_id: int, operator: int) -> Any:
    """Reject, and say where the approval stands."""
    return wf.reject(job_task_id, operator=operator).status  # type: ignore[union-attr]  # one vote


def cancel(wf: gwf.Client, job_id: int) -> Any:
    """Give the job up."""
    return wf.cancel_job(job_id).id


def create(wf: gwf.Client, flow_id: int, name: str, key: str) -> Any:
    """Create a job under a key."""
    return wf.create_job(flow_id, name, idempotency_key=key).id


def create_many(wf: gwf.Client, flow_id: int, who: str, number: int) -> Any:
    """Create many jobs, each with its name in its context."""
    names = [f"{who} {index} {'🚀' * 80}" for index in range(number)]
    made = wf.create_jobs(flow_id, names, contexts=[{"name": name} for name in names])
    return [(job.id, job.name) for job in made]


def test_start_task_twice_at_once(race: Race) -> None:
    """Expect exactly one of two starts to win each round, and a Conflict for the other."""
    ids = [mine[0] for _, mine in race.jobs(race.wf.create_task("A"))]
    rounds = race.run(start, start, [((one, 1), (one, 2)) for one in ids])
    assert _kinds(rounds) == {("Conflict", "won"): ROUNDS}
    winners = [1 if one[0] == "won" else 2 for one, _ in rounds]
    found = race.rows(
        sa.select(job_tasks.c.status, job_tasks.c.attempt, job_tasks.c.operator_id).order_by(
            job_tasks.c.id
        )
    )
    assert [tuple(row) for row in found] == [("running", 1, winner) for winner in winners]
    assert race.log("start", of_tasks=True) == _once_each(ids)


def test_complete_task_of_the_last_two_siblings_at_once(race: Race) -> None:
    """Expect both to be recorded and the job to complete once (rule P3)."""
    made = race.jobs([race.wf.create_task("A"), race.wf.create_task("B")], n_started=2)
    rounds = race.run(complete, complete, [((a,), (b,)) for _, (a, b) in made])
    assert _kinds(rounds) == {("won", "won"): ROUNDS}
    found = race.rows(sa.select(jobs.c.status, jobs.c.n_done))
    assert Counter(map(tuple, found)) == {("completed", 2): ROUNDS}
    assert race.log("complete", of_tasks=False) == _once_each([job_id for job_id, _ in made])
    assert race.log("complete", of_tasks=True) == _once_each([one for _, m in made for one in m])


def test_complete_task_and_fail_task_of_siblings_at_once(race: Race) -> None:
    """Expect both to be recorded and the job to stay failed (rule P4)."""
    made = race.jobs([race.wf.create_task("A"), race.wf.create_task("B")], n_started=2)
    rounds = race.run(complete, fail, [((a,), (b,)) for _, (a, b) in made])
    assert _kinds(rounds) == {("won", "won"): ROUNDS}
    found = race.rows(sa.select(jobs.c.status, jobs.c.n_done))
    assert Counter(map(tuple, found)) == {("failed", 1): ROUNDS}
    statuses = Counter(row[0] for row in race.rows(sa.select(job_tasks.c.status)))
    assert statuses == {"completed": ROUNDS, "failed": ROUNDS}
    assert race.log("fail", of_tasks=False) == _once_each([job_id for job_id, _ in made])
    assert race.log("complete", of_tasks=False) == {}


def test_rollback_task_twice_at_once(race: Race) -> None:
    """Expect one of two send-backs to win: of one task in even rounds, of siblings in odd ones."""
    wf = race.wf
    made = race.jobs(wf.create_task("A"), [wf.create_task("B"), wf.create_task("C")], n_started=1)

    def reach_the_siblings(conn: sa.Connection) -> None:
        for _, (first, *siblings) in made:
            task_verbs.complete_task(conn, first, Call())
            for job_task_id in siblings:
                task_verbs.start_task(conn, job_task_id, Call())

    write(wf.database, reach_the_siblings)
    callers = [((b,), (b if number % 2 == 0 else c,)) for number, (_, (_, b, c)) in enumerate(made)]
    rounds = race.run(send_back, send_back, callers)
    assert _kinds(rounds) == {("SendBackRefused", "won"): ROUNDS}
    found = race.rows(sa.select(jobs.c.status, jobs.c.n_rollbacks, jobs.c.current_task_seq))
    assert Counter(map(tuple, found)) == {("running", 1, 1): ROUNDS}
    assert race.log("rollback", of_tasks=False) == _once_each([job_id for job_id, _ in made])


def test_approve_by_the_last_two_at_once(race: Race) -> None:
    """Expect both votes to count, and the approval to be decided once, by the later one."""
    gate = race.wf.create_task("G", type="approval", config={"min_approvers": 2})
    made = race.jobs(gate, n_started=1)
    rounds = race.run(approve, approve, [((t, 1), (t, 2)) for _, (t,) in made])
    assert _kinds(rounds) == {("won", "won"): ROUNDS}
    assert {tuple(sorted((one[1], two[1]))) for one, two in rounds} == {("approved", "open")}
    assert race.log("complete", of_tasks=True) == _once_each([t for _, (t,) in made])
    found = race.rows(sa.select(votes.c.job_task_id, sa.func.count()).group_by(votes.c.job_task_id))
    assert dict(map(tuple, found)) == {t: 2 for _, (t,) in made}
    assert {row[0] for row in race.rows(sa.select(jobs.c.status))} == {"completed"}


def test_approve_and_reject_at_once(race: Race) -> None:
    """Expect the first vote to decide and the other to be refused, logged and not recorded."""
    made = race.jobs(race.wf.create_task("G", type="approval"), n_started=1)
    rounds = race.run(approve, reject, [((t, 1), (t, 2)) for _, (t,) in made])
    assert _kinds(rounds) == {("Conflict", "won"): ROUNDS}
    ended = ["completed" if one[0] == "won" else "failed" for one, _ in rounds]
    assert [row[0] for row in race.rows(sa.select(jobs.c.status).order_by(jobs.c.id))] == ended
    assert len(race.rows(sa.select(votes.c.id))) == ROUNDS
    assert race.log("refuse", of_tasks=True) == _once_each([t for _, (t,) in made])


def test_approve_twice_by_one_person_at_once(race: Race) -> None:
    """Expect one vote and one answer: a person is counted once, however often they click (A4)."""
    gate = race.wf.create_task("G", type="approval", config={"min_approvers": 2})
    made = race.jobs(gate, n_started=1)
    rounds = race.run(approve, approve, [((t, 1), (t, 1)) for _, (t,) in made])
    assert _kinds(rounds) == {("won", "won"): ROUNDS}
    assert {answer for both in rounds for _, answer in both} == {"open"}
    assert len(race.rows(sa.select(votes.c.id))) == ROUNDS


def test_idempotency_key_at_once(race: Race) -> None:
    """Expect two calls with one key to have one effect and to get one answer (rule T3)."""
    ids = [mine[0] for _, mine in race.jobs(race.wf.create_task("A"))]
    started = race.run(start, start, [((one, 1, "start"), (one, 1, "start")) for one in ids])
    completed = race.run(complete, complete, [((one, "complete"),) * 2 for one in ids])
    for rounds in (started, completed):
        assert _kinds(rounds) == {("won", "won"): ROUNDS}
        assert all(one == two for one, two in rounds)
    assert race.log("start", of_tasks=True) == _once_each(ids)
    assert race.log("complete", of_tasks=True) == _once_each(ids)


def test_idempotency_key_of_create_job_at_once(race: Race) -> None:
    """Expect one job of two creations with one key, although no job is there to be locked."""
    flow = race.wf.create_flow("race", [race.wf.create_task("A")])
    calls = [(flow.id, f"job {number}", f"key {number}") for number in range(ROUNDS)]
    rounds = race.run(create, create, [(call, call) for call in calls])
    assert _kinds(rounds) == {("won", "won"): ROUNDS}
    assert all(one == two for one, two in rounds)
    names = [row[0] for row in race.rows(sa.select(jobs.c.job_name).order_by(jobs.c.id))]
    assert names == [name for _, name, _ in calls]
    assert len(race.rows(sa.select(job_tasks.c.id))) == ROUNDS


def test_create_jobs_at_once(race: Race) -> None:
    """Expect chunks of two callers to interleave, and each job to have its tasks and context."""
    wf = race.wf
    flow = wf.create_flow("race", [wf.create_task("A"), [wf.create_task("B"), wf.create_task("C")]])
    sizes = (1, 2, 399, 400, 401, 900)
    rounds = race.run(
        create_many, create_many, [((flow.id, "x", size), (flow.id, "y", size)) for size in sizes]
    )
    assert _kinds(rounds) == {("won", "won"): len(sizes)}
    names = {job_id: name for both in rounds for _, made in both for job_id, name in made}
    assert len(names) == 2 * sum(sizes)
    assert dict(map(tuple, race.rows(sa.select(jobs.c.id, jobs.c.job_name)))) == names
    contexts = race.rows(sa.select(job_context.c.job_id, job_context.c.value))
    assert len(contexts) == len(names)
    assert dict(map(tuple, contexts)) == names
    tasks = race.rows(sa.select(job_tasks.c.job_id, job_tasks.c.task_name))
    wanted = Counter((job_id, name) for job_id in names for name in "ABC")
    assert Counter(map(tuple, tasks)) == wanted
    assert race.log("create", of_tasks=False) == _once_each(list(names))


def test_complete_task_in_different_jobs_at_once(race: Race) -> None:
    """Expect writers on different jobs never to refuse each other."""
    made = race.jobs(race.wf.create_task("A"), n_started=1)
    ids = [mine[0] for _, mine in made]
    pairs = zip(ids[::2], ids[1::2], strict=True)
    rounds = race.run(complete, complete, [((one,), (two,)) for one, two in pairs])
    assert _kinds(rounds) == {("won", "won"): ROUNDS // 2}
    assert {row[0] for row in race.rows(sa.select(jobs.c.status))} == {"completed"}


def test_cancel_job_while_its_last_task_completes(race: Race) -> None:
    """Expect the job to be completed or cancelled, as the one says who was first."""
    made = race.jobs(race.wf.create_task("A"), n_started=1)
    rounds = race.run(cancel, complete, [((job_id,), (mine[0],)) for job_id, mine in made])
    assert set(_kinds(rounds)) == {("Conflict", "won")}
    ended = ["cancelled" if one[0] == "won" else "completed" for one, _ in rounds]
    assert [row[0] for row in race.rows(sa.select(jobs.c.status).order_by(jobs.c.id))] == ended
