"""Show that others are told after the commit, and that a hook harms nothing."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from standardwebhooks import Webhook as Verifier
from test_votes import asked, no, yes

import gwf
from gwf import notifications
from gwf.events import EVENTS
from gwf.testing import scratch_client

SECRET = "whsec_c2VjcmV0"
Request = tuple[dict[str, str], bytes]


def _late(wf: gwf.Client, task: gwf.JobTask) -> None:
    with wf.database.engine.begin() as conn:
        for table, column in (("jobs", "next_due_at"), ("job_tasks", "due_at")):
            conn.exec_driver_sql(
                f"UPDATE {table} SET {column} = '2020-01-01 00:00:00.000000' "
                f"WHERE {column} IS NOT NULL"
            )
    wf.tick()


CAUSES: dict[str, Callable[[gwf.Client, gwf.JobTask], Any]] = {
    "approval_requested": lambda wf, t: (
        wf.create_job("F", "K").start().task("A").start().complete() and wf.job(2).task("G").start()
    ),
    "vote_cast": lambda wf, t: yes(t, 1),
    "decided": lambda wf, t: (yes(t, 1), yes(t, 2)),
    "overdue": _late,
    "escalated": _late,
    "seat_moved": lambda wf, t: wf.transfer(t, 1, 2),
    "task_failed": lambda wf, t: no(t, 1),
    "sent_back": lambda wf, t: t.rollback(to=1, reason="again"),
    "job_completed": lambda wf, t: (yes(t, 1), yes(t, 2), wf.job(1).task("B").start().complete()),
    "job_failed": lambda wf, t: no(t, 1),
    "job_cancelled": lambda wf, t: wf.cancel_job(t.job_id),
}


@pytest.mark.parametrize("name", EVENTS)
def test_hook_is_told_once_after_the_commit(wf: gwf.Client, url: str, name: str) -> None:
    """Inside the hook another client reads the new state already, and no lock is held."""
    task = asked(wf, min_approvers=2, timeout=60, on_timeout="escalate", escalate_to="Boss")
    told: list[gwf.Event] = []
    seen: list[str] = []
    with gwf.connect(url) as other:

        def hook(event: gwf.Event) -> None:
            told.append(event)
            seen.append(other.logs(job=event.job_id)["action"].iloc[-1])
            other.create_task(event.name)

        off = wf.on(name, hook)
        n_rows = len(wf.logs())
        CAUSES[name](wf, task)
        assert len(told) == 1
        assert (told[0].name, told[0].job_name) == (name, wf.job(told[0].job_id).name)
        assert len(wf.logs()) > n_rows
        assert wf.task(name).id > 0
        assert seen[0] != "refuse"
        off()
        off()
        wf.cancel_job(wf.create_job("F", "L").id)
        assert len(told) == 1


def test_hook_is_not_told_of_what_was_refused(wf: gwf.Client) -> None:
    """A refusal changes nothing, and neither does a vote that was cast before."""
    task = asked(wf, approvers=[5], comment_required=True)
    told: list[gwf.Event] = []
    for name in EVENTS:
        wf.on(name, told.append)
    for call in (
        lambda: yes(task, 6, comment="x"),
        lambda: yes(task, 5),
        lambda: wf.start_task(task, operator=5),
        lambda: wf.complete_task(99),
    ):
        with pytest.raises(gwf.GwfError):
            call()
    assert told == []
    assert yes(task, 5, comment="x") == "approved"
    assert [event.name for event in told] == ["vote_cast", "decided"]


def test_hook_that_fails_harms_nothing(wf: gwf.Client, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged; the verb has its answer, and the other hooks are told."""
    task = asked(wf)
    told: list[gwf.Event] = []

    def fail(event: gwf.Event) -> None:
        raise ZeroDivisionError

    wf.on("decided", fail)
    wf.on("decided", told.append)
    assert yes(task, 1) == "approved"
    assert len(told) == 1
    assert "hook failed" in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_hook_that_acts(wf: gwf.Client) -> None:
    """A hook may call verbs: the next task starts by itself."""
    task = asked(wf)
    wf.on("decided", lambda event: wf.next_task(event.job_id).start())  # type: ignore[union-attr]  # it is due
    yes(task, 1)
    assert wf.job(task.job_id).task("B").status == "running"


@pytest.mark.parametrize(("name", "hook"), [("happened", print), (5, print), ("decided", 5)])
def test_on_with_what_is_none(name: Any, hook: Any) -> None:
    with pytest.raises(gwf.Invalid):
        scratch_client().on(name, hook)


# Web hooks


class Receiver:
    """Take requests on 127.0.0.1, and answer each with the next status."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.statuses: list[int] = []
        self.hangs = threading.Event()
        self.hangs.set()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.requests.append((dict(self.headers), body))
                assert receiver.hangs.wait(60)
                self.send_response(receiver.statuses.pop(0) if receiver.statuses else 204)
                self.end_headers()

            def log_message(self, *rest: Any) -> None:
                """Stay silent."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook?token=t0ken"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver()
    yield found
    found.hangs.set()
    found.server.shutdown()
    found.server.server_close()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the pauses that web hooks would have made between their tries."""
    made: list[float] = []

    def pause(is_closed: threading.Event, seconds: float) -> bool:
        made.append(seconds)
        return False

    monkeypatch.setattr(notifications, "_pause", pause)
    return made


def decided(webhook: gwf.Webhook) -> gwf.JobTask:
    """Let an approval be decided with this hook, and deliver what that leads to."""
    wf = scratch_client()
    task = asked(wf)
    wf.on("decided", webhook)
    yes(task, 1)
    assert webhook.close()
    return task


def test_webhook_is_signed_and_delivered(receiver: Receiver) -> None:
    """The receiver checks the signature by the library of the standard."""
    decided(gwf.Webhook(receiver.url, secret=SECRET))
    ((headers, body),) = receiver.requests
    names = {name.lower(): value for name, value in headers.items()}
    found = Verifier(SECRET).verify(body.decode(), names)
    assert found["type"] == "decided"
    assert (found["data"]["task_name"], found["data"]["message"]) == ("G", "approved")
    assert found["data"]["at"].endswith("+00:00")
    with pytest.raises(Exception, match="signature"):
        Verifier("whsec_b3RoZXI=").verify(body.decode(), names)


def test_webhook_is_tried_again(receiver: Receiver, pauses: list[float]) -> None:
    """With the same id, so that a receiver takes it once."""
    receiver.statuses = [500, 503, 200]
    decided(gwf.Webhook(receiver.url))
    assert len({headers["webhook-id"] for headers, _ in receiver.requests}) == 1
    assert (len(receiver.requests), pauses) == (3, [1.0, 2.0])


def test_webhook_is_given_up(
    receiver: Receiver, pauses: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    """After the last try it is in the log, without address and secret."""
    caplog.set_level(logging.WARNING)
    receiver.statuses = [500] * 9
    webhook = gwf.Webhook(receiver.url, secret=SECRET, tries=2)
    decided(webhook)
    assert len(receiver.requests) == 2
    assert "web hook given up" in caplog.text
    shown = caplog.text + repr(webhook) + json.dumps([str(vars(r)) for r in caplog.records])
    assert "t0ken" not in shown
    assert SECRET not in shown


def test_webhook_that_hangs(
    receiver: Receiver, pauses: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    """The verb does not wait for it, and the delivery ends by its timeout."""
    receiver.hangs.clear()
    task = decided(gwf.Webhook(receiver.url, tries=1, timeout_s=0.05))
    assert task.refresh().status == "completed"
    assert caplog.records[-1].reason == "ReadTimeout"  # type: ignore[attr-defined]  # an extra


def test_webhook_of_a_port_where_nobody_is(
    pauses: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    decided(gwf.Webhook("http://127.0.0.1:9/hook", tries=2))
    assert caplog.records[-1].reason == "ConnectError"  # type: ignore[attr-defined]  # an extra


def test_webhook_with_too_much_to_do(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What does not fit is dropped, and the log says so; a verb never waits."""
    monkeypatch.setattr(notifications, "MAX_WAITING", 1)
    receiver.hangs.clear()
    webhook = gwf.Webhook(receiver.url)
    wf = scratch_client()
    wf.on("job_cancelled", webhook)
    job = wf.create_job(wf.create_flow("F", [wf.create_task("A")]), "J").cancel()
    for _ in range(5):
        webhook(gwf.Event("decided", job.id, "J", None, None, None, None, None, datetime.now(UTC)))
    assert "too many web hooks wait" in caplog.text
    receiver.hangs.set()
    assert webhook.close()
    assert len(receiver.requests) < 6


@pytest.mark.parametrize("url", ["", "ftp://h/x", "no address", None, "http://", 5])
def test_webhook_of_no_address(url: Any) -> None:
    with pytest.raises(gwf.Invalid, match="http:// or https://"):
        gwf.Webhook(url)


@pytest.mark.parametrize("secret", ["whsec_!!!", "plain text", ""])
def test_webhook_with_a_secret_that_cannot_sign(secret: str) -> None:
    with pytest.raises(gwf.Invalid, match="whsec_") as refusal:
        gwf.Webhook("http://127.0.0.1:9/hook", secret=secret)
    assert secret == "" or secret not in str(refusal.value)


def test_webhook_by_configuration(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment says where to post what; a mistake there is found when connecting."""
    monkeypatch.setenv("GWF_WEBHOOK_URL", receiver.url)
    monkeypatch.setenv("GWF_WEBHOOK_SECRET", SECRET)
    monkeypatch.setenv("GWF_WEBHOOK_EVENTS", "decided, job_failed")
    with gwf.connect("sqlite://") as wf:
        no(asked(wf), 1)
    types = [json.loads(body)["type"] for _, body in receiver.requests]
    assert sorted(types) == ["decided", "job_failed"]
    for name, value in (("EVENTS", "decided,happened"), ("URL", "nowhere"), ("SECRET", "!!!")):
        with monkeypatch.context() as patch:
            patch.setenv(f"GWF_WEBHOOK_{name}", value)
            with pytest.raises(gwf.Invalid):
                gwf.connect("sqlite://")
