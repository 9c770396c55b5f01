"""Show that a request goes only where it may, ends in time, and leaks nothing: rules W1, W4, W8."""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import gwf
from gwf import outgoing
from gwf.execution import HIDDEN, ExecutionContext
from gwf.executors import http, webhook

HERE = ("127.0.0.0/8",)
TOKEN = "s3cret-tok/en"
JSON = "application/json"


@dataclass
class Received:
    """Hold one request as the server got it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Site:
    """Be what the server does at each path, what it got, and how its last hanging request went."""

    address: str = ""
    answers: dict[str, Callable[[Handler], None]] = field(default_factory=dict)
    requests: list[Received] = field(default_factory=list)
    arrived: threading.Event = field(default_factory=threading.Event)
    left: threading.Event = field(default_factory=threading.Event)

    def at(self, path: str, answer: Callable[[Handler], None]) -> str:
        """Answer at this path so, and return its address."""
        self.answers[path] = answer
        return self.address + path

    @property
    def port(self) -> str:
        """Return the port of the address."""
        return self.address.rpartition(":")[2]


class Handler(BaseHTTPRequestHandler):
    """Keep each request, and answer as the site says."""

    site: Site

    def answer_any(self) -> None:
        """Answer a request of any method."""
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = {name.lower(): text for name, text in self.headers.items()}
        self.site.requests.append(Received(self.command, self.path, headers, body))
        self.site.answers[self.path.partition("?")[0]](self)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = answer_any

    def say(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Answer so; in the names of headers ``_`` is a hyphen."""
        self.send_response(status)
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            with contextlib.suppress(OSError):  # nobody has to read all of it
                self.wfile.write(body)

    def log_message(self, *rest: Any) -> None:
        """Stay silent."""


def says(status: int, body: object = b"", **headers: str) -> Callable[[Handler], None]:
    """Return what answers so; what is not bytes is sent as JSON."""
    if isinstance(body, bytes):
        return lambda handler: handler.say(status, body, **headers)
    data = json.dumps(body).encode()
    return lambda handler: handler.say(status, data, content_type=JSON, **headers)


def hang(handler: Handler) -> None:
    """Answer nothing until the other side is gone."""
    handler.site.arrived.set()
    with contextlib.suppress(OSError):
        handler.connection.recv(1)
    handler.site.left.set()


def drip(handler: Handler) -> None:
    """Answer with a byte now and then, until the other side is gone."""
    handler.site.arrived.set()
    with contextlib.suppress(OSError):
        while not handler.site.left.wait(0.02):
            handler.wfile.write(b"x")
    handler.site.left.set()


def drip_headers(handler: Handler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nx-slow: ")
    drip(handler)


def drip_body(handler: Handler) -> None:
    handler.send_response(200)
    handler.end_headers()
    drip(handler)


@contextlib.contextmanager
def serving(tls: ssl.SSLContext | None = None) -> Iterator[Site]:
    site = Site()
    handler = type("OfThisSite", (Handler,), {"site": site})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.handle_error = lambda *_: None  # type: ignore[method-assign]  # refused handshakes
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        site.address = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield site
        site.left.set()
        server.shutdown()


@pytest.fixture
def site() -> Iterator[Site]:
    """Yield a server; when it is done, no thread of a request may be left."""
    with serving() as found:
        yield found
    expect_no_thread()


def expect_no_thread() -> None:
    for thread in threading.enumerate():
        if thread.name == outgoing.THREAD_NAME:
            thread.join(30)
            assert not thread.is_alive()


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Return the reference to a secret that exists."""
    monkeypatch.setenv("TOKEN", TOKEN)
    return {"secret": "TOKEN"}


def done(config: dict[str, Any], **context: Any) -> dict[str, Any]:
    return http.execute(config, ExecutionContext(networks=HERE, **context))


def failure(config: dict[str, Any], **context: Any) -> gwf.ExecutionFailed:
    with pytest.raises(gwf.ExecutionFailed) as failed:
        http.execute(config, ExecutionContext(**{"networks": HERE, **context}))
    return failed.value


def resolve(monkeypatch: pytest.MonkeyPatch, names: dict[str, list[str]]) -> list[str]:
    """Let names have these addresses, and return the list of the names that are looked up."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def look_up(host: Any, port: Any, *rest: Any, **more: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name not in names:
            return real(host, port, *rest, **more)
        asked.append(name)
        return [one for found in names[name] for one in real(found, port, *rest, **more)]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return asked


def test_get_returns_json(site: Site) -> None:
    """The status, the kind of content and the parsed body, and no other header."""
    url = site.at("/a", says(200, {"n": [1, None, "通过"]}, x_more="1"))
    assert done({"url": url, "params": {"q": "a b", "on": True, "k": [1, 2]}}) == {
        "status_code": 200,
        "headers": {"content-type": JSON},
        "body": {"n": [1, None, "通过"]},
    }
    (got,) = site.requests
    assert (got.method, got.path) == ("GET", "/a?q=a+b&on=true&k=1&k=2")
    assert got.headers["host"] == site.address.removeprefix("http://")
    assert "cookie" not in got.headers


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_send_a_body(site: Site, method: str) -> None:
    """JSON is sent as such, a text as text, and a header says otherwise."""
    url = site.at("/a", says(204))
    result = done({"url": url, "method": method, "body": {"a": "通过"}})
    assert result == {"status_code": 204, "headers": {}, "body": None}
    done({"url": url, "method": method, "body": "<a/>", "headers": {"Content-Type": "text/xml"}})
    done({"url": url, "method": method, "body": "plain"})
    assert [(got.method, got.headers["content-type"], got.body) for got in site.requests] == [
        (method, JSON, '{"a": "通过"}'.encode()),
        (method, "text/xml", b"<a/>"),
        (method, "text/plain; charset=utf-8", b"plain"),
    ]


def test_head_has_no_body(site: Site) -> None:
    url = site.at("/a", says(200, {"n": 1}))
    assert done({"url": url, "method": "HEAD"})["body"] is None


@pytest.mark.parametrize(
    ("body", "content_type", "expected"),
    [
        ("é".encode("latin-1"), "text/plain; charset=latin-1", "é"),
        (b"\xff", "text/plain; charset=no-such", "\ufffd"),
        (b"<p>", "text/html", "<p>"),
        (b"[1]", "application/problem+json", [1]),
        (b"[1]", "text/plain", "[1]"),
    ],
)
def test_get_what_is_no_json(site: Site, body: bytes, content_type: str, expected: object) -> None:
    url = site.at("/a", says(200, body, content_type=content_type))
    assert done({"url": url})["body"] == expected


@pytest.mark.parametrize("body", [b"ok", b"\xff", b"[NaN]", b"[" * 100_000, b'["\\ud800"]'])
def test_get_json_that_is_none(site: Site, body: bytes) -> None:
    """What is said to be JSON and is not, or is none that can be stored, is no result."""
    url = site.at("/a", says(200, body, content_type=JSON))
    assert failure({"url": url}).code == "answer_not_json"


def test_hide_a_secret_header_that_the_server_repeats(site: Site, token: dict[str, str]) -> None:
    """W8: it arrives, and stands in no result, however the server wrote it."""

    def repeat(handler: Handler) -> None:
        said = {"text": TOKEN, TOKEN: [f"Bearer {TOKEN}"], "n": 5}
        data = json.dumps(said).replace("/", "\\/").encode()
        handler.say(200, data, content_type=f"{JSON}; of={TOKEN}")

    result = done({"url": site.at("/a", repeat), "headers": {"x-token": token}})
    assert site.requests[0].headers["x-token"] == TOKEN
    assert result["body"] == {"text": HIDDEN, HIDDEN: [f"Bearer {HIDDEN}"], "n": 5}
    assert TOKEN not in str(result)


def test_hide_a_secret_number(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIN", "90210")
    url = site.at("/a", says(200, {"pin": 90210, "n": 1}))
    assert done({"url": url, "headers": {"pin": {"secret": "PIN"}}})["body"] == {
        "pin": HIDDEN,
        "n": 1,
    }


@pytest.mark.parametrize("body", [f"no {TOKEN}".encode(), {"no": TOKEN}])
def test_fail_with_the_status_and_what_was_said(
    site: Site, token: dict[str, str], body: object
) -> None:
    """W8: the message tells what the server said, without secrets."""
    url = site.at("/a", says(500, body))
    error = failure({"url": url, "headers": {"x-token": token}})
    assert error.code == "http_500"
    assert str(error).startswith("the server answered with status 500: ")
    assert HIDDEN in str(error)
    assert "tok" not in str(error)


def test_fail_with_the_beginning_of_a_long_answer(site: Site, token: dict[str, str]) -> None:
    """W8: it is cut after the secrets are hidden, so no half of one remains."""
    text = "x" * (http.MAX_SAID - 3) + TOKEN + "y" * outgoing.MAX_ANSWER
    url = site.at("/a", says(404, text.encode()))
    error = failure({"url": url, "headers": {"x-token": token}})
    assert error.code == "http_404"
    assert str(error).endswith("x" * (http.MAX_SAID - 3) + HIDDEN + " … (cut)")


def test_expect_other_statuses(site: Site) -> None:
    """What is expected is a success, and nothing else is; a redirect is not followed then."""
    url = site.at("/a", says(404, {"missing": True}))
    assert done({"url": url, "expect": [200, 404]})["body"] == {"missing": True}
    url = site.at("/b", says(200))
    assert failure({"url": url, "expect": [404]}).code == "http_200"
    url = site.at("/c", says(302, location="/b"))
    assert done({"url": url, "expect": [302]})["status_code"] == 302


@pytest.mark.parametrize(
    ("status", "method", "expected"),
    [
        (301, "POST", "GET"),
        (302, "POST", "GET"),
        (303, "PUT", "GET"),
        (303, "HEAD", "HEAD"),
        (302, "PUT", "PUT"),
        (307, "POST", "POST"),
        (308, "POST", "POST"),
    ],
)
def test_follow_a_redirect(
    site: Site, token: dict[str, str], status: int, method: str, expected: str
) -> None:
    """As browsers do; at the same origin the headers go along, but not those of a lost body."""
    url = site.at("/a", says(status, location="b?c=d"))
    site.at("/b", says(200))
    config = {"url": url, "method": method, "body": {"n": 1}, "headers": {"x-token": token}}
    assert done(config)["status_code"] == 200
    first, second = site.requests
    assert (second.method, second.path) == (expected, "/b?c=d")
    assert second.headers["x-token"] == TOKEN
    is_kept = expected == method
    assert second.body == (first.body if is_kept else b"")
    assert ("content-type" in second.headers) == is_kept


@pytest.mark.parametrize("returns", [False, True])
def test_follow_a_redirect_to_another_origin(
    site: Site, token: dict[str, str], returns: bool
) -> None:
    """W8: credentials and secrets stay behind, even when it leads back."""
    site.at("/b", says(200))
    with serving() as other:
        there = other.at("/b", says(302, location=f"{site.address}/b") if returns else says(200))
        url = site.at("/a", says(307, location=there))
        named = {"authorization": "Basic x", "cookie": "a=b", "x-token": token, "x-plain": "1"}
        done({"url": url, "headers": named})
        last = site.requests[-1] if returns else other.requests[-1]
    assert last.path == "/b"
    assert last.headers["x-plain"] == "1"
    assert not {"authorization", "cookie", "x-token"} & set(last.headers)


def test_keep_no_cookie(site: Site) -> None:
    url = site.at("/a", says(302, location="/b", set_cookie="a=b"))
    site.at("/b", says(200))
    done({"url": url})
    assert "cookie" not in site.requests[1].headers


def test_refuse_a_redirect_to_a_private_address(site: Site) -> None:
    """The metadata of a cloud is not to be had by a detour."""
    url = site.at("/a", says(302, location="http://169.254.169.254/latest/meta-data"))
    error = failure({"url": url})
    assert error.code == "address_refused"
    assert "169.254.169.254" in str(error)


@pytest.mark.parametrize(
    "location", ["file:///etc/passwd", "http://u:pass@h/", "//h:99999", "//[::1"]
)
def test_refuse_a_redirect_to_something_else(site: Site, location: str) -> None:
    error = failure({"url": site.at("/a", says(302, location=location))})
    assert error.code == "redirect_refused"
    assert location not in str(error)


def test_follow_redirects_up_to_a_bound(site: Site) -> None:
    url = site.at("/a", says(302, location="/a"))
    assert failure({"url": url}).code == "too_many_redirects"
    assert len(site.requests) == 6
    assert failure({"url": url, "max_redirects": 0}).code == "too_many_redirects"
    assert len(site.requests) == 7


def test_a_redirect_without_a_target_is_an_answer(site: Site) -> None:
    assert failure({"url": site.at("/a", says(302))}).code == "http_302"


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "2130706433",
        "0x7f.1",
        "0",
        "10.0.0.1",
        "100.64.0.1",
        "169.254.169.254",
        "224.0.1.1",
        "[::1]",
        "[::]",
        "[::127.0.0.1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:a9fe:a9fe]",
        "[64:ff9b::7f00:1]",
        "[64:ff9b:1::808:808]",
        "[2002:7f00:1::]",
        "[fd00::1]",
        "[fe80::1]",
        "[fec0::1]",
        "[ff0e::1]",
    ],
)
def test_refuse_a_private_address(site: Site, host: str) -> None:
    """However it is written, and before anything is sent."""
    error = failure({"url": f"http://{host}:{site.port}/"}, networks=())
    assert error.code == "address_refused"
    assert f"host {host.strip('[]')} has the address " in str(error)
    assert site.requests == []


def test_say_which_network_a_worker_has_to_allow(site: Site) -> None:
    """Where an IPv4 address is embedded, that is what counts."""
    error = failure({"url": f"http://[::ffff:127.0.0.1]:{site.port}/"}, networks=("10.0.0.0/8",))
    assert str(error).endswith("the worker has to allow a network such as 127.0.0.1/32")


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "64:ff9b::808:808"])
def test_allow_a_public_address(address: str) -> None:
    url = outgoing.checked_url(f"http://{f'[{address}]' if ':' in address else address}/")
    assert outgoing.checked_addresses(url, ()) == [address]


def test_allow_an_address_by_what_is_embedded_in_it(site: Site) -> None:
    url = outgoing.checked_url(f"http://[::ffff:127.0.0.1]:{site.port}/")
    assert len(outgoing.checked_addresses(url, HERE)) == 1


def test_refuse_a_host_with_one_private_address(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve(monkeypatch, {"both.example": ["8.8.8.8", "10.0.0.1"]})
    error = failure({"url": "http://both.example/"})
    assert (error.code, "10.0.0.1" in str(error)) == ("address_refused", True)


def test_look_up_a_host_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The address that was checked is connected to (DNS rebinding); the name is what is said."""
    asked = resolve(monkeypatch, {"rebound.example": ["127.0.0.1"]})
    site.at("/a", says(200))
    assert done({"url": f"http://rebound.example:{site.port}/a"})["status_code"] == 200
    assert asked == ["rebound.example"]
    assert site.requests[0].headers["host"] == f"rebound.example:{site.port}"


def test_try_the_next_address(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one address of a host takes no connection, another one may."""
    resolve(monkeypatch, {"two.example": ["127.9.9.9", "127.0.0.1"]})
    site.at("/a", says(200))
    assert done({"url": f"http://two.example:{site.port}/a"})["status_code"] == 200


def test_ignore_the_proxies_of_the_environment(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy would connect to addresses that nobody checked."""
    with serving() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.address)
        assert done({"url": site.at("/a", says(200))})["status_code"] == 200
        assert proxy.requests == []


def certificate(folder: Path, name: str) -> Path:
    """Write a certificate for this name, with its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    path = folder / "certificate.pem"
    path.write_bytes(
        signed.public_bytes(pem)
        + key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return path


@pytest.fixture
def secure_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Yield a server with a certificate for secure.example, which this process trusts."""
    path = certificate(tmp_path, "secure.example")
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    resolve(monkeypatch, {name: ["127.0.0.1"] for name in ("secure.example", "other.example")})
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(path)
    with serving(tls) as found:
        yield found
    expect_no_thread()


def test_check_the_certificate_for_the_name(secure_site: Site) -> None:
    """Although the address stands in the URL, it is the host that has to prove its name."""
    secure_site.at("/a", says(200))
    port = secure_site.port
    assert done({"url": f"https://secure.example:{port}/a"})["status_code"] == 200
    error = failure({"url": f"https://other.example:{port}/a"})
    assert error.code == "unreachable"
    assert "other.example" in str(error)
    assert len(secure_site.requests) == 1


@pytest.mark.parametrize("answer", [hang, drip_headers, drip_body])
@pytest.mark.parametrize("kind", ["site", "secure_site"])
def test_stop_when_the_time_is_over(
    request: pytest.FixtureRequest, kind: str, answer: Callable[[Handler], None]
) -> None:
    """W4: a server that says nothing, or a byte now and then, is left."""
    site: Site = request.getfixturevalue(kind)
    site.at("/a", answer)
    host = "secure.example" if kind == "secure_site" else "127.0.0.1"
    url = f"{site.address.partition(':')[0]}://{host}:{site.port}/a"
    error = failure({"url": url}, timeout_s=0.5)
    assert (error.code, str(error)) == ("timed_out", "not done after 0.5 seconds")
    assert site.left.wait(30)


@pytest.mark.parametrize("answer", [hang, drip_headers, drip_body])
@pytest.mark.parametrize("kind", ["site", "secure_site"])
def test_stop_when_it_is_given_up(
    request: pytest.FixtureRequest, kind: str, answer: Callable[[Handler], None]
) -> None:
    """W7: whoever cancels the attempt ends the request, on both sides."""
    site: Site = request.getfixturevalue(kind)
    site.at("/a", answer)
    host = "secure.example" if kind == "secure_site" else "127.0.0.1"
    url = f"{site.address.partition(':')[0]}://{host}:{site.port}/a"
    given_up = threading.Event()

    def give_up() -> None:
        site.arrived.wait(30)
        given_up.set()

    threading.Thread(target=give_up, daemon=True).start()
    assert failure({"url": url}, given_up=given_up, timeout_s=600).code == "cancelled"
    assert site.left.wait(30)


def test_send_nothing_after_it_was_given_up(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is looked up for ever holds nobody up, and what it yields later is not used."""
    given_up, found = threading.Event(), threading.Event()
    real = socket.getaddrinfo

    def look_up(*rest: Any, **more: Any) -> Any:
        given_up.set()
        assert found.wait(30)
        return real(*rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    url = site.at("/a", says(200))
    assert failure({"url": url}, given_up=given_up).code == "cancelled"
    found.set()
    expect_no_thread()
    assert failure({"url": url}, given_up=given_up).code == "cancelled"
    assert site.requests == []


def test_refuse_an_answer_that_is_too_large(site: Site) -> None:
    """W8: it is refused, not cut."""
    url = site.at("/a", says(200, b"x" * outgoing.MAX_ANSWER))
    assert len(done({"url": url})["body"]) == outgoing.MAX_ANSWER
    url = site.at("/b", says(200, b"x" * (outgoing.MAX_ANSWER + 1)))
    assert failure({"url": url}).code == "answer_too_large"


@pytest.mark.parametrize(("status", "code"), [(200, "answer_encoded"), (500, "http_500")])
def test_refuse_an_answer_that_is_compressed(site: Site, status: int, code: str) -> None:
    """A few bytes of it could become any number."""
    url = site.at("/a", says(status, b"\x1f\x8b", content_encoding="gzip"))
    assert failure({"url": url}).code == code
    assert site.requests[0].headers["accept-encoding"] == "identity"


def test_nobody_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port where nobody listens, and a name that nobody has."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert failure({"url": f"http://127.0.0.1:{port}/"}).code == "unreachable"

    def look_up(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    error = failure({"url": "http://no-such-host.example/"})
    assert error.code == "unreachable"
    assert "no-such-host.example" in str(error)


@pytest.mark.parametrize("said", ["", "HTTP/1.1 200 OK\r\n{token}\r\n\r\n"])
def test_the_server_hangs_up(site: Site, token: dict[str, str], said: str) -> None:
    """W8: not even an answer that is none shows a secret."""
    url = site.at("/a", lambda handler: handler.wfile.write(said.format(token=TOKEN).encode()))
    error = failure({"url": url, "headers": {"x-token": token}})
    assert error.code == "disconnected"
    assert TOKEN not in str(error)


def test_hide_a_secret_address(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """W8: neither the address nor what follows its host, which a server likes to repeat."""
    monkeypatch.setenv("HOOK", f"{site.address}/t0ken?key=t0ken")
    site.at("/t0ken", lambda handler: handler.say(404, f"no {handler.path} here".encode()))
    error = failure({"url": {"secret": "HOOK"}})
    assert str(error) == f"the server answered with status 404: no {HIDDEN} here"
    request = http.request_of({"url": {"secret": "HOOK"}}, ExecutionContext().revealed)
    assert "t0ken" not in repr(request)


def test_log_nothing_of_a_request(
    site: Site, token: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    """W8: at no level, neither where it goes, nor where it is sent on, nor what it says."""
    caplog.set_level(logging.DEBUG)
    url = site.at("/t0ken", says(302, location=f"/b?key={TOKEN}&more=t0ken"))
    site.at("/b", says(500, TOKEN.encode(), x_repeated=TOKEN))
    failure({"url": f"{url}?key=t0ken", "headers": {"x-token": token}})
    assert len(site.requests) == 2
    assert "t0ken" not in caplog.text
    assert TOKEN not in caplog.text


def test_leave_the_log_of_others_alone(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    import httpx

    caplog.set_level(logging.DEBUG)
    done({"url": site.at("/a", says(200))})
    assert [record for record in caplog.records if record.name.startswith("http")] == []
    httpx.get(f"{site.address}/a", trust_env=False)
    logged = {record.name for record in caplog.records}
    assert {"httpx", "httpcore.connection", "httpcore.http11"} <= logged


GOOD: dict[str, Any] = {"url": "http://example.org/"}


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"url": 5},
        {"url": ""},
        {"url": "example.org"},
        {"url": "ftp://example.org/"},
        {"url": "http://"},
        {"url": "http:///path"},
        {"url": "http://h:99999/"},
        {"url": "http://h:0/"},
        {"url": "http://h:port/"},
        {"url": "http://[::1/"},
        {"url": "http://a\ud800/"},
        {"url": "http://user:password@h/"},
        {"url": {"secret": 5}},
        {"url": {"secret": "A", "more": "B"}},
        GOOD | {"method": "TRACE"},
        GOOD | {"method": None},
        GOOD | {"headers": ["a"]},
        GOOD | {"headers": {"a b": "x"}},
        GOOD | {"headers": {"": "x"}},
        GOOD | {"headers": {"a": 5}},
        GOOD | {"headers": {"a": "x\r\nb: y"}},
        GOOD | {"headers": {"a": "é"}},
        GOOD | {"headers": {"a": " x"}},
        GOOD | {"headers": {"a": "x", "A": "y"}},
        GOOD | {"headers": {"Host": "other"}},
        GOOD | {"headers": {"a": {"secret": ""}}},
        GOOD | {"params": "a=b"},
        GOOD | {"params": {"a": {"secret": "TOKEN"}}},
        GOOD | {"params": {"a": None}},
        GOOD | {"params": {"a": "x" * 70_000}},
        GOOD | {"body": float("nan")},
        GOOD | {"body": b"bytes"},
        GOOD | {"expect": 200},
        GOOD | {"expect": []},
        GOOD | {"expect": [True]},
        GOOD | {"expect": [99]},
        GOOD | {"max_redirects": 11},
        GOOD | {"max_redirects": -1},
    ],
)
def test_refuse_what_makes_no_sense(config: dict[str, Any]) -> None:
    """W1: when the task is saved, and before anything is sent; the address is not shown."""
    with pytest.raises(gwf.Invalid) as refused:
        http.check(config)
    assert "password@h" not in str(refused.value)
    with pytest.raises(gwf.Invalid):
        http.execute(config, ExecutionContext())
    hook = {("webhook_url" if key == "url" else key): value for key, value in config.items()}
    with pytest.raises(gwf.Invalid):
        webhook.check(hook)


def test_check_reads_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a task is saved there may be no secrets, and no network either."""
    monkeypatch.setattr(socket, "getaddrinfo", None)
    http.check({"url": {"secret": "NO_SUCH"}, "headers": {"a": {"secret": "NO_SUCH"}}})
    webhook.check({"webhook_url": {"secret": "NO_SUCH"}})


@pytest.mark.parametrize("secret", ["line\n", "schlüssel"])
def test_refuse_a_secret_that_no_header_can_hold(
    monkeypatch: pytest.MonkeyPatch, secret: str
) -> None:
    """W8: and the refusal does not show it."""
    monkeypatch.setenv("TOKEN", secret)
    with pytest.raises(gwf.Invalid) as refused:
        done(GOOD | {"headers": {"a": {"secret": "TOKEN"}}})
    assert secret.strip() not in str(refused.value)


def test_post_to_a_webhook(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """By default it says which job and task it comes from."""
    monkeypatch.setenv("HOOK", site.at("/t0ken", says(200, b"ok")))
    context = ExecutionContext(
        networks=HERE,
        job={"id": 7, "name": "J", "flow": "F"},
        task={"name": "T", "attempt": 2, "id": 9},
    )
    config = {"webhook_url": {"secret": "HOOK"}, "headers": {"x-a": "1"}}
    assert webhook.execute(config, context) == {
        "status_code": 200,
        "headers": {},
        "body": "ok",
    }
    (got,) = site.requests
    assert (got.method, got.headers["x-a"]) == ("POST", "1")
    assert json.loads(got.body) == {
        "job": {"id": 7, "name": "J"},
        "task": {"name": "T", "attempt": 2},
    }


def test_post_something_else_to_a_webhook(site: Site) -> None:
    url = site.at("/a", says(204))
    config = {"webhook_url": url, "method": "PUT", "body": {"text": "done"}}
    webhook.execute(config, ExecutionContext(networks=HERE))
    assert (site.requests[0].method, site.requests[0].body) == ("PUT", b'{"text": "done"}')
