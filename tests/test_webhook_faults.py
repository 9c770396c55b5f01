"""Show that a web hook leaks no address, refuses one it could not use, and closes in time."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

import gwf
from gwf import notifications

EVENT = gwf.Event("decided", 1, "J", None, None, None, None, None, datetime(2026, 1, 1, tzinfo=UTC))


@pytest.fixture
def answers() -> threading.Event:
    """Return what lets the receiver answer."""
    found = threading.Event()
    found.set()
    return found


@pytest.fixture
def arrived() -> threading.Event:
    """Return what is set once the receiver has a request."""
    return threading.Event()


@pytest.fixture
def address(answers: threading.Event, arrived: threading.Event) -> Iterator[str]:
    """Return the address of a real receiver, which holds a token."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            arrived.set()
            assert answers.wait(60)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *rest: Any) -> None:
            """Stay silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/t0ken?key=t0ken"
        answers.set()
        server.shutdown()


def test_deliver_webhook_logs_no_address(address: str, caplog: pytest.LogCaptureFixture) -> None:
    """W8: at no level does a log show the address of a delivery, not even that of httpx."""
    caplog.set_level(logging.DEBUG)
    webhook = gwf.Webhook(address)
    webhook(EVENT)
    assert webhook.close()
    assert "t0ken" not in caplog.text


def test_deliver_webhook_leaves_httpx_as_it_was(address: str) -> None:
    """W8: the log of other users of httpx is not touched."""
    before = list(logging.getLogger("httpx").filters)
    webhook = gwf.Webhook(address)
    webhook(EVENT)
    assert webhook.close()
    assert logging.getLogger("httpx").filters == before


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:99999/t0ken", "http://[::1/t0ken", "http://h:port/t0ken"]
)
def test_make_webhook_with_an_address_that_cannot_be_used(url: str) -> None:
    """W8: it is refused when it is made, and the message does not show it."""
    with pytest.raises(gwf.Invalid, match="http:// or https://") as refusal:
        gwf.Webhook(url)
    assert "t0ken" not in str(refusal.value)


def test_close_webhook_that_hangs_with_a_full_queue(
    address: str,
    answers: threading.Event,
    arrived: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """``close`` returns within its timeout, and says that not all was delivered."""
    monkeypatch.setattr(notifications, "MAX_WAITING", 1)
    answers.clear()
    webhook = gwf.Webhook(address, timeout_s=60)
    webhook(EVENT)
    assert arrived.wait(60)
    webhook(EVENT)  # it fills the queue
    closed: list[bool] = []
    closing = threading.Thread(target=lambda: closed.append(webhook.close(0.05)), daemon=True)
    closing.start()
    closing.join(5)
    assert closed == [False]
    answers.set()
    assert webhook.close()


def test_call_webhook_after_close(address: str, arrived: threading.Event) -> None:
    """It is delivered by a new thread, as the next call of a closed client opens connections."""
    webhook = gwf.Webhook(address)
    webhook(EVENT)
    assert webhook.close()
    arrived.clear()
    webhook(EVENT)
    assert webhook.close()
    assert arrived.is_set()
