"""Send an HTTP request: ``{"url": "https://example.org/api", "method": "POST", "body": {…}}``.

Why no secret in ``params``: an address is written down by every server on its way (rule W8). A
whole address may be a secret, since some services know no other way; it is shown nowhere here.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Container, Mapping
from enum import StrEnum
from typing import Any

from gwf.errors import ExecutionFailed, Invalid
from gwf.execution import ExecutionContext
from gwf.limits import checked_choice, checked_json, checked_name, checked_object, checked_whole
from gwf.outgoing import Answer, Request, checked_url, send

#: How much of an answer with an unexpected status is told, in characters.
MAX_SAID = 500

_SET_BY_US = frozenset(
    ("accept-encoding", "connection", "content-length", "host", "transfer-encoding", "upgrade")
)
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")
_JSON_TYPE = re.compile(r"(application|text)/json|[^/]+/[^/]+\+json")

Reveal = Callable[[str, object], str]


class Method(StrEnum):
    """Name the methods of HTTP that can be asked for."""

    GET = "GET"
    POST = "POST"
    PUT = "PUT"
    PATCH = "PATCH"
    DELETE = "DELETE"
    HEAD = "HEAD"


def check(config: Mapping[str, Any]) -> None:
    """Refuse a config that could never run; secrets are not read, and nothing is looked up.

    Raises
    ------
    Invalid
    """
    request_of(config, _unrevealed)


def execute(config: Mapping[str, Any], context: ExecutionContext) -> dict[str, Any]:
    """Send a request, and return what was answered.

    Parameters
    ----------
    config
        ``url``; ``method``, by default GET; ``headers``, ``params``; ``body``, JSON or a text;
        ``expect``, a list of the statuses that mean success, by default 200 to 299;
        ``max_redirects``, by default 5. The address and each header are a text or
        ``{"secret": "NAME"}``.
    context
        Its ``networks`` may be reached although they are private; its ``timeout_s`` (30 seconds
        where it has none) and ``given_up`` end the request.

    Returns
    -------
    dict
        ``status_code``, ``headers`` (``content-type``, if it was said) and ``body``: JSON if the
        answer is said to be that, else a text, or None if it is empty. Secrets are hidden.

    Raises
    ------
    ExecutionFailed
        With the code ``http_<status>``, ``answer_not_json``, or one of ``outgoing.send``.
    Invalid
        A key of the config makes no sense.
    """
    request = request_of(config, context.revealed)
    answer = send(request, context)

    def hide(text: str) -> str:
        return request.redacted(text, context)

    if answer.status not in request.expected:
        raise ExecutionFailed(
            f"the server answered with status {answer.status}{_said(answer, hide)}",
            code=f"http_{answer.status}",
        )
    headers = {} if answer.content_type is None else {"content-type": hide(answer.content_type)}
    return {"status_code": answer.status, "headers": headers, "body": _body_of(answer, hide)}


def request_of(config: Mapping[str, Any], revealed: Reveal) -> Request:
    """Return the request that a config asks for; ``revealed`` reads a text or a secret.

    Raises
    ------
    Invalid
    """
    url = checked_url(revealed("URL", config.get("url")), params=_params(config.get("params")))
    body, content_type = _content(config.get("body"))
    headers, secret_headers = _headers(config.get("headers"), revealed)
    whole = url.raw_path.decode("ascii")
    path, _, query = whole.partition("?")
    is_secret = not isinstance(config.get("url"), str)
    return Request(
        method=checked_choice("method", config.get("method", "GET"), Method),
        url=url,
        headers={
            "user-agent": "gwf",
            "accept-encoding": "identity",  # one that is packed could be of any size
            **content_type,
            **headers,
        },
        secret_headers=secret_headers,
        body=body,
        expected=_expected(config["expect"]) if "expect" in config else range(200, 300),
        max_redirects=checked_whole(
            "max_redirects", config.get("max_redirects", 5), lowest=0, highest=10
        ),
        hidden=[part for part in (whole, path, query) if is_secret and part not in ("", "/")],
    )


def _unrevealed(what: str, value: object) -> str:
    """Stand in for ``ExecutionContext.revealed`` where secrets are not there to be read."""
    if isinstance(value, str):
        return value
    if not isinstance(value, Mapping) or set(value) != {"secret"}:
        raise Invalid(what, value, expected="a text or {'secret': 'NAME'}")
    checked_name("name of a secret", value["secret"], longest=255)
    return "https://secret.invalid"


def _params(given: object) -> dict[str, Any]:
    params = checked_object("params", given)
    for name, value in params.items():
        values = value if isinstance(value, list) else [value]
        if not all(isinstance(one, str | int | float) for one in values):
            raise Invalid(
                f"param {name}",
                value,
                expected="a text, a number, a boolean or a list of them; secrets go into headers",
            )
    return params


def _headers(given: object, revealed: Reveal) -> tuple[dict[str, str], frozenset[str]]:
    """Return the headers by their names in lower case, and which of them hold secrets."""
    headers: dict[str, str] = {}
    secret: set[str] = set()
    for name, value in checked_object("headers", given).items():
        key = name.lower()
        if not _HEADER_NAME.fullmatch(key):
            raise Invalid("name of a header", name, expected="letters, digits and hyphens")
        if key in _SET_BY_US or key in headers:
            raise Invalid("header", name, expected="each one once, and none that gwf has to set")
        text = revealed(f"header {name}", value)
        if not (text.isascii() and text.isprintable() and text == text.strip()):
            expected = "printable ASCII without space around it"
            raise Invalid(f"header {name}", "(not shown)", expected=expected)
        headers[key] = text
        if not isinstance(value, str):
            secret.add(key)
    return headers, frozenset(secret)


def _content(body: object) -> tuple[bytes | None, dict[str, str]]:
    """Return the body in bytes, and the header that says what it is."""
    if body is None:
        return None, {}
    plain = checked_json("body", body)
    if isinstance(plain, str):
        return plain.encode(), {"content-type": "text/plain; charset=utf-8"}
    return json.dumps(plain, ensure_ascii=False).encode(), {"content-type": "application/json"}


def _expected(given: object) -> Container[int]:
    if not isinstance(given, list | tuple) or not given:
        raise Invalid("expect", given, expected="a list of statuses, such as [200, 404]")
    return frozenset(
        checked_whole("status in expect", one, lowest=200, highest=599) for one in given
    )


def _body_of(answer: Answer, hide: Callable[[str], str]) -> Any:
    if not answer.data:
        return None
    if not _is_json(answer):
        return hide(answer.text)
    try:
        return checked_json("answer", _json(answer, hide))
    except (ValueError, RecursionError) as error:
        raise ExecutionFailed(
            f"the answer is said to be JSON, but: {hide(str(error))}", code="answer_not_json"
        ) from None  # the error holds the whole answer


def _said(answer: Answer, hide: Callable[[str], str]) -> str:
    """Return the beginning of an answer as it stands in a message.

    Why JSON is read for that: a secret may be written with escapes in it.
    """
    text = hide(answer.text)
    if _is_json(answer):
        with contextlib.suppress(ValueError, RecursionError):  # it is not, so it stays as it is
            text = json.dumps(_json(answer, hide), ensure_ascii=False)
    text = text.strip().encode(errors="replace").decode()
    is_cut = answer.is_cut or len(text) > MAX_SAID
    return f"{': ' if text else ''}{text[:MAX_SAID]}{' … (cut)' if is_cut else ''}"


def _is_json(answer: Answer) -> bool:
    kind = (answer.content_type or "").partition(";")[0].strip().lower()
    return _JSON_TYPE.fullmatch(kind) is not None


def _json(answer: Answer, hide: Callable[[str], str]) -> Any:
    return _without_secrets(json.loads(answer.data), hide)


def _without_secrets(value: Any, hide: Callable[[str], str]) -> Any:
    """Return JSON in which the secrets are hidden; a number may be one too."""
    if isinstance(value, dict):
        return {hide(key): _without_secrets(item, hide) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_secrets(item, hide) for item in value]
    if value is None or isinstance(value, bool):
        return value
    text = value if isinstance(value, str) else str(value)
    hidden = hide(text)
    return value if hidden == text else hidden
