"""Send an HTTP request to an address that the worker allows, and bound its time and its answer.

Why the address that was checked is the one that is connected to: a name may resolve to another
address a moment later (DNS rebinding). So a host is looked up once, and its address stands in the
URL, while its name stays in the ``Host`` header and in the TLS handshake.

Why a thread: the look-up of a name cannot be interrupted, and a server that sends a byte now and
then is never late for the next one. The thread is left behind and its socket shut down, which ends
it.

Why a transport and not a client of httpx: a client logs each URL, and takes proxies from the
environment, which would go around the check. A transport is used for one request, so no connection
that was opened for one host serves another one at the same address.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Container, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, Any

from gwf.errors import ExecutionFailed, Invalid
from gwf.execution import HIDDEN, ExecutionContext

if TYPE_CHECKING:
    import httpx

#: The largest answer that is taken, in bytes.
MAX_ANSWER = 262_144
#: Seconds that a request may take in all, where the attempt has no bound of its own.
DEFAULT_TIMEOUT_S = 30.0
#: Seconds that the connection to one address may take.
MAX_CONNECT_S = 10.0
THREAD_NAME = "gwf request"

_LOOK_S = 0.1
_MAX_PORT = 65_535
_REDIRECTS = (301, 302, 303, 307, 308)
_OF_THE_BODY = ("content-type", "content-encoding", "content-language", "content-location")
_OF_THE_ORIGIN = ("authorization", "cookie", "proxy-authorization")
_NAT64 = IPv6Network("64:ff9b::/96")
_UNICAST = IPv6Network("2000::/3")
_LOGS_HEADERS = ("httpcore.connection", "httpcore.http11")

_Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Request:
    """Hold what is to be sent; what may hold a secret is not shown.

    ``secret_headers`` never reach another origin, and ``hidden`` are texts to be hidden in what the
    server says. A status in ``expected`` is an answer, even where it is a redirect.
    """

    method: str
    url: httpx.URL = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    secret_headers: frozenset[str]
    body: bytes | None = field(repr=False)
    expected: Container[int]
    max_redirects: int
    hidden: Sequence[str] = field(default=(), repr=False)

    def redacted(self, text: str, context: ExecutionContext) -> str:
        """Return the text without the secrets of the attempt and the parts of a secret URL."""
        text = context.redacted(text)
        for part in self.hidden:
            text = text.replace(part, HIDDEN)
        return text


@dataclass(frozen=True, slots=True)
class Answer:
    """Hold what a server answered; a cut one had a status that was not expected."""

    status: int
    content_type: str | None
    charset: str | None = None
    data: bytes = b""
    is_cut: bool = False
    location: str | None = None

    @property
    def text(self) -> str:
        """Return the data as text; what cannot be read is marked with U+FFFD."""
        try:
            text = self.data.decode(self.charset or "utf-8", "replace")
        except (LookupError, ValueError):  # an encoding that nobody knows, or none of text
            text = self.data.decode("utf-8", "replace")
        return text.encode(errors="replace").decode()  # some encodings yield half a character


def send(request: Request, context: ExecutionContext) -> Answer:
    """Send a request, follow its redirects, and return the last answer, whatever its status.

    Raises
    ------
    ExecutionFailed
        With the code ``address_refused``, ``unreachable``, ``disconnected``, ``timed_out``,
        ``cancelled``, ``too_many_redirects``, ``redirect_refused``, ``answer_too_large`` or
        ``answer_encoded``.
    """
    return _Exchange(context).answer_to(request)


def checked_url(text: object, *, params: Mapping[str, Any] | None = None) -> httpx.URL:
    """Return an address to which a request can be sent; a refusal does not show it.

    Raises
    ------
    Invalid
        No text, no ``http://`` or ``https://``, no host, no possible port, or with a password.
    """
    import httpx

    try:
        url = httpx.URL(text if isinstance(text, str) else "")
        if params:
            url = url.copy_merge_params(params)
    except (httpx.InvalidURL, ValueError):
        url = httpx.URL("")
    is_possible = url.port is None or 0 < url.port <= _MAX_PORT
    if url.scheme not in ("http", "https") or not url.raw_host or not is_possible:
        raise Invalid("URL", "(not shown)", expected="an http:// or https:// address")
    if url.userinfo:
        expected = "no user:password@ in it; use a header with a secret"
        raise Invalid("URL", "(not shown)", expected=expected)
    return url


def redirected(request: Request, status: int, location: str) -> Request:
    """Return the request that follows a redirect, changed as browsers do.

    Raises
    ------
    ExecutionFailed
        With the code ``redirect_refused``: no address to which a request can be sent.
    """
    import httpx

    try:
        url = checked_url(str(request.url.join(location)))
    except (httpx.InvalidURL, ValueError):
        raise ExecutionFailed(
            "the server redirects to something else than an http:// or https:// address "
            "without a password",
            code="redirect_refused",
        ) from None  # what httpx says may repeat a part of the address
    dropped: set[str] = set()
    if _origin(url) != _origin(request.url):
        dropped.update(_OF_THE_ORIGIN, request.secret_headers)
    method, body = request.method, request.body
    if (status == 303 and method != "HEAD") or (status in (301, 302) and method == "POST"):
        dropped.update(_OF_THE_BODY)
        method, body = "GET", None
    headers = {name: text for name, text in request.headers.items() if name not in dropped}
    return replace(request, method=method, url=url, headers=headers, body=body)


def checked_addresses(url: httpx.URL, networks: Sequence[str]) -> list[str]:
    """Look up the host of a URL, and return its addresses if each of them is allowed.

    Raises
    ------
    ExecutionFailed
        With the code ``address_refused`` or ``unreachable``.
    """
    allowed = [ip_network(network) for network in networks]
    host, port = _host(url), _port(url)
    try:
        found = socket.getaddrinfo(host.encode(), port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ExecutionFailed(f"host {host} was not found: {error}", code="unreachable") from error
    addresses = list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))
    for address in addresses:
        reached = _reached(ip_address(address))
        if not _is_public(reached) and not any(reached in network for network in allowed):
            raise ExecutionFailed(
                f"host {host} has the address {address}, which is not public; to send there, the "
                f"worker has to allow a network such as {reached}/{reached.max_prefixlen}",
                code="address_refused",
            )
    return addresses


class _Exchange:
    """Do what one request needs in a thread that can be left behind at any time."""

    def __init__(self, context: ExecutionContext) -> None:
        self._context = context
        self._timeout_s = DEFAULT_TIMEOUT_S if context.timeout_s is None else context.timeout_s
        self._last = time.monotonic() + self._timeout_s
        self._is_left = threading.Event()
        self._socket: socket.socket | None = None

    def answer_to(self, request: Request) -> Answer:
        """Return the answer, or stop waiting for it when the attempt is over."""
        self._left_s()
        done: Future[Answer] = Future()
        arguments = (request, done)
        threading.Thread(target=self._run, args=arguments, name=THREAD_NAME, daemon=True).start()
        try:
            while not wait([done], _LOOK_S).done:
                self._left_s()
            return done.result()
        finally:
            self._is_left.set()
            self._shut_down()

    def _run(self, request: Request, done: Future[Answer]) -> None:
        _keep_httpcore_quiet()
        try:
            done.set_result(self._follow(request))
        except Exception as error:
            done.set_exception(error)

    def _follow(self, request: Request) -> Answer:
        for _ in range(request.max_redirects + 1):
            answer = self._send(request)
            if answer.location is None:
                return answer
            request = redirected(request, answer.status, answer.location)
        raise ExecutionFailed(
            f"the server redirects more than {request.max_redirects} times",
            code="too_many_redirects",
        )

    def _send(self, request: Request) -> Answer:
        """Send to the first address of the host that takes the connection."""
        import httpx

        addresses = checked_addresses(request.url, self._context.networks)
        reason = "it has no address"
        for address in addresses:
            longest_s = min(MAX_CONNECT_S, self._left_s() / len(addresses))
            try:
                return self._send_to(address, request, connect_s=longest_s)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                reason = str(error) or type(error).__name__
            except httpx.TimeoutException as error:
                raise self._timed_out() from error
            except httpx.HTTPError as error:
                said = request.redacted(str(error), self._context)
                raise ExecutionFailed(
                    f"the connection to {_host(request.url)} broke: {said}", code="disconnected"
                ) from None  # what httpx says may repeat what the server said, with a secret
        self._left_s()
        raise ExecutionFailed(
            f"host {_host(request.url)} took no connection: {reason}", code="unreachable"
        )

    def _send_to(self, address: str, request: Request, *, connect_s: float) -> Answer:
        import httpx

        url = request.url
        sent = httpx.Request(
            request.method,
            url.copy_with(host=address),
            headers={"host": url.netloc.decode(), **request.headers},
            content=request.body,
            extensions={
                "sni_hostname": _host(url),
                "timeout": httpx.Timeout(self._left_s(), connect=connect_s).as_dict(),
                "trace": self._watch,
            },
        )
        with (
            httpx.HTTPTransport() as transport,
            contextlib.closing(transport.handle_request(sent)) as response,
        ):
            return _received(response, request.expected)

    def _watch(self, event: str, info: Mapping[str, Any]) -> None:
        """Take the socket from httpcore as soon as it is connected (its ``trace`` extension)."""
        if event in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            self._socket = info["return_value"].get_extra_info("socket")
            if self._is_left.is_set():
                self._shut_down()

    def _shut_down(self) -> None:
        """End whatever waits for the socket; to close it would not, and is done by httpcore."""
        if self._socket is not None:
            with contextlib.suppress(OSError):  # it is closed already
                self._socket.shutdown(socket.SHUT_RDWR)

    def _left_s(self) -> float:
        """Return how many seconds are left; raise where the attempt is over."""
        if self._context.given_up.is_set():
            raise ExecutionFailed("the attempt was given up", code="cancelled")
        left_s = self._last - time.monotonic()
        if left_s <= 0:
            raise self._timed_out()
        return left_s

    def _timed_out(self) -> ExecutionFailed:
        return ExecutionFailed(f"not done after {self._timeout_s:g} seconds", code="timed_out")


def _received(response: httpx.Response, expected: Container[int]) -> Answer:
    """Read the answer up to the bound; beyond it, only one that is not expected is cut."""
    status, headers = response.status_code, response.headers
    is_expected = status in expected
    answer = Answer(status, headers.get("content-type"), response.charset_encoding)
    if status in _REDIRECTS and headers.get("location") and not is_expected:
        return replace(answer, location=headers["location"])
    data = bytearray()
    for part in response.iter_raw():
        data += part
        if len(data) > MAX_ANSWER:
            break
    is_cut, encoding = len(data) > MAX_ANSWER, headers.get("content-encoding", "identity")
    if is_cut and is_expected:
        message = f"the answer is larger than {MAX_ANSWER:,} bytes; ask for less of it"
        raise ExecutionFailed(message, code="answer_too_large")
    if data and encoding.lower() != "identity":
        if is_expected:
            message = "the answer is compressed, although it was asked not to be"
            raise ExecutionFailed(message, code="answer_encoded")
        data.clear()
    return replace(answer, data=bytes(data[:MAX_ANSWER]), is_cut=is_cut)


def _reached(address: _Address) -> _Address:
    """Return what an address leads to: the IPv4 address that is embedded in it, or itself."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour or address


def _is_public(address: _Address) -> bool:
    """Say whether everybody may reach an address; of IPv6 only 2000::/3 was ever given out."""
    if isinstance(address, IPv6Address) and address not in _UNICAST:
        return False
    return address.is_global and not address.is_multicast


def _host(url: httpx.URL) -> str:
    """Return the host in ASCII; ``url.host`` would decode it, which can fail."""
    return url.raw_host.decode("ascii")


def _port(url: httpx.URL) -> int:
    return url.port or (443 if url.scheme == "https" else 80)


def _origin(url: httpx.URL) -> tuple[str, str, int]:
    return url.scheme, _host(url), _port(url)


def _keep_httpcore_quiet() -> None:
    """Keep httpcore from logging what our threads do: headers may hold secrets.

    The filter stays: to remove one while a log goes through them would make it skip the next.
    """
    for name in _LOGS_HEADERS:
        logging.getLogger(name).addFilter(_is_of_others)


def _is_of_others(_: logging.LogRecord) -> bool:
    return threading.current_thread().name != THREAD_NAME
