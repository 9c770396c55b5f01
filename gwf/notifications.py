"""Tell others what happened: functions in this process, and web hooks.

A hook is called after the commit, so it never holds a lock and cannot undo anything; one that fails
is logged and harms nothing, neither the verb nor the other hooks.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import json
import logging
import queue
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime

from gwf.errors import Invalid
from gwf.events import EVENTS, Event
from gwf.limits import checked_whole

logger = logging.getLogger(__name__)

Hook = Callable[[Event], object]

#: How many deliveries wait at most; beyond it the newest are dropped, and the log says so.
MAX_WAITING = 1000


class Hooks:
    """Keep who wants to be told about what."""

    def __init__(self) -> None:
        self._hooks: list[tuple[str, Hook]] = []

    def on(self, name: str, hook: Hook) -> Callable[[], None]:
        """Call ``hook`` with each event of this name, and return what ends that.

        Raises
        ------
        Invalid
            There is no event of this name, or the hook cannot be called.
        """
        checked_event(name)
        if not callable(hook):
            raise Invalid("hook", hook, expected="a function of one event")
        entry = (name, hook)
        self._hooks.append(entry)

        def off() -> None:
            if entry in self._hooks:
                self._hooks.remove(entry)

        return off

    def tell(self, events: Sequence[Event]) -> None:
        """Call the hooks of these events, in the order in which both came."""
        for event in events:
            for name, hook in tuple(self._hooks):
                if name == event.name:
                    try:
                        hook(event)
                    except Exception:
                        logger.exception(
                            "hook failed", extra={"event": name, "job_id": event.job_id}
                        )


MAX_PORT = 65_535


class Webhook:
    """Post each event as JSON to an address: ``wf.on("decided", gwf.Webhook(url, secret=…))``.

    The body is signed by the Standard Webhooks specification (``webhook-id``,
    ``webhook-timestamp``, ``webhook-signature``), so a receiver checks it with the library of that
    name. Deliveries leave in a thread of their own, in order; one that is refused is tried again
    after 1 s, 2 s, 4 s and so on, with the same ``webhook-id``.

    Why these libraries: httpx sends and standardwebhooks signs; svix does both but through its
    service, and requests has no limit on the time of a whole answer either.
    """

    def __init__(
        self, url: str, *, secret: str | None = None, tries: int = 4, timeout_s: float = 10.0
    ) -> None:
        self._url = url
        self._host = _host_of(url)
        self._secret = secret
        self._tries = checked_whole("tries", tries, lowest=1, highest=10)
        self._timeout_s = timeout_s
        self._waiting: queue.Queue[Event | None] = queue.Queue(MAX_WAITING)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._is_closed = threading.Event()
        self._sign("id", datetime.now(UTC), b"")  # a secret that cannot sign is refused here

    def __repr__(self) -> str:
        """Return the host; the address may hold a token, and the secret is one."""
        return f"Webhook({self._host!r})"

    def __call__(self, event: Event) -> None:
        """Take an event to be delivered; this never waits for the network."""
        with self._lock:
            if self._thread is None:
                atexit.register(self.close)  # what waits is delivered before the process ends
            if self._thread is None or not self._thread.is_alive():  # new, or used after close
                self._is_closed.clear()
                self._thread = threading.Thread(
                    target=self._deliver_all, name=f"webhook {self._host}", daemon=True
                )
                self._thread.start()
        try:
            self._waiting.put_nowait(event)
        except queue.Full:
            logger.error("too many web hooks wait, one is dropped", extra={"host": self._host})

    def close(self, timeout_s: float = 30.0) -> bool:
        """Deliver what waits, try nothing again, and say whether all was done in time."""
        self._is_closed.set()
        if self._thread is None or not self._thread.is_alive():
            return True
        begun = time.monotonic()
        try:
            self._waiting.put(None, timeout=timeout_s)
        except queue.Full:
            return False
        self._thread.join(max(0.0, timeout_s - (time.monotonic() - begun)))
        return not self._thread.is_alive()

    def _deliver_all(self) -> None:
        with _unlogged_by_httpx():
            while (event := self._waiting.get()) is not None:
                try:
                    self._deliver(event)
                except Exception:
                    logger.exception("web hook failed", extra={"host": self._host})

    def _deliver(self, event: Event) -> None:
        import httpx

        body = json.dumps(
            {"type": event.name, "data": dataclasses.asdict(event)},
            default=datetime.isoformat,
            ensure_ascii=False,
        ).encode()
        message_id = f"msg_{uuid.uuid4().hex}"
        for tries in range(1, self._tries + 1):
            headers = {"content-type": "application/json"}
            headers |= self._sign(message_id, datetime.now(UTC), body)
            try:
                answer = httpx.post(
                    self._url, content=body, headers=headers, timeout=self._timeout_s
                )
                if answer.is_success:
                    return
                reason = f"status {answer.status_code}"
            except httpx.HTTPError as error:
                reason = type(error).__name__
            extra = {"host": self._host, "reason": reason, "tries": tries}
            if tries == self._tries or _pause(self._is_closed, 2.0 ** (tries - 1)):
                logger.error("web hook given up", extra=extra)
                return
            logger.warning("web hook refused, trying again", extra=extra)

    def _sign(self, message_id: str, at: datetime, body: bytes) -> dict[str, str]:
        headers = {"webhook-id": message_id, "webhook-timestamp": str(int(at.timestamp()))}
        if self._secret is None:
            return headers
        from standardwebhooks import Webhook as Signer

        try:
            signature = Signer(self._secret).sign(message_id, at, body.decode())
        except Exception as error:
            raise Invalid(
                "webhook secret", "(not shown)", expected="whsec_ and base64 text"
            ) from error
        return {**headers, "webhook-signature": signature}


def _host_of(url: object) -> str:
    """Return the host of an address that a web hook can be posted to."""
    import httpx

    with contextlib.suppress(httpx.InvalidURL, TypeError, ValueError):
        found = httpx.URL(url)  # type: ignore[arg-type]  # a TypeError where it is no text
        is_web = found.scheme in ("http", "https") and found.host
        if is_web and (found.port or 0) <= MAX_PORT:
            return found.host
    raise Invalid("webhook URL", "(not shown)", expected="an http:// or https:// address")


@contextlib.contextmanager
def _unlogged_by_httpx() -> Iterator[None]:
    """Keep httpx from logging the addresses that this thread posts to: they may hold tokens."""
    thread = threading.get_ident()

    def is_of_others(record: logging.LogRecord) -> bool:
        return record.thread != thread

    loud = logging.getLogger("httpx")
    loud.addFilter(is_of_others)
    try:
        yield
    finally:
        loud.removeFilter(is_of_others)


def _pause(is_closed: threading.Event, seconds: float) -> bool:
    """Wait between two tries, and say whether there is to be no other one."""
    return is_closed.wait(seconds)


def configured_webhook(environment: Mapping[str, str]) -> tuple[Webhook, tuple[str, ...]] | None:
    """Return the web hook that the environment asks for, and its events; None without one.

    ``GWF_WEBHOOK_URL`` says where, ``GWF_WEBHOOK_SECRET`` signs, and ``GWF_WEBHOOK_EVENTS`` names
    events with commas between them, by default all.

    Raises
    ------
    Invalid
        The address or the secret cannot be used, or there is no event of a name.
    """
    url = environment.get("GWF_WEBHOOK_URL")
    if not url:
        return None
    given = environment.get("GWF_WEBHOOK_EVENTS", "")
    names = tuple(name.strip() for name in given.split(",") if name.strip()) or EVENTS
    for name in names:
        checked_event(name)
    return Webhook(url, secret=environment.get("GWF_WEBHOOK_SECRET") or None), names


def checked_event(name: object) -> str:
    """Return the name of an event, or refuse it."""
    if not isinstance(name, str) or name not in EVENTS:
        raise Invalid("event", name, expected=f"one of {', '.join(EVENTS)}")
    return name
