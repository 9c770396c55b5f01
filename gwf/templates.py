"""Render the templates in the config of an automated task: ``{"job": "{{ job.id }}"}``.

The language is Jinja2 in its immutable sandbox: expressions, ``{% if %}`` and ``{% raw %}``. An
unknown name is an error, never an empty text. A text that is one expression and nothing else keeps
the type of its value, so ``"{{ job.id }}"`` is a number; any other text stays text. What a value
holds is never rendered itself, so data cannot become a template. ``context.items`` is the value of
that key, not a method.

Why no loops, variables, macros and padding: the sandbox keeps a template from the rest of Python,
not from a text of ten thousand million characters; without them no template makes one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from functools import cache, lru_cache
from typing import Any

from jinja2 import StrictUndefined, TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from gwf.errors import Invalid
from gwf.limits import checked_json

#: Characters of a template, and of what a part of it may become.
MAX_TEMPLATE = 100_000
MAX_RENDERED = 1_000_000

IsLiteral = Callable[[str, Any], bool]

#: Methods and filters that make a large value out of small ones, and globals that do.
_GROWING_METHODS = frozenset(
    {"center", "encode", "expandtabs", "format", "format_map", "join", "ljust", "replace"}
    | {"rjust", "to_bytes", "translate", "zfill"}
)
_GROWING_FILTERS = ("batch", "center", "format", "indent", "replace", "slice", "wordwrap")
_GLOBALS = ("cycler", "joiner", "lipsum", "namespace", "range")
_STATEMENTS = (nodes.Template, nodes.Output, nodes.If)


class _Bounded(ImmutableSandboxedEnvironment):
    """Refuse what makes a large value out of small ones."""

    intercepted_binops = frozenset({"*", "**", "%"})

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Return the value of a key before a method of that name."""
        if isinstance(obj, Mapping) and attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Refuse the methods that make a text longer."""
        return attr not in _GROWING_METHODS and super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> None:
        """Leave ``str.format`` to ``is_safe_attribute``, which refuses it."""

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Calculate with small numbers alone."""
        is_number = all(isinstance(one, int | float) for one in (left, right))
        is_small = is_number and all(abs(one) <= 1e15 for one in (left, right))
        if not is_small or (operator == "**" and abs(right) > 64):
            raise SecurityError(f"{operator} is for numbers of at most 1e15")
        return super().call_binop(context, operator, left, right)


@cache
def _environment() -> _Bounded:
    environment = _Bounded(
        undefined=StrictUndefined,
        autoescape=False,
        finalize=_plain,
        keep_trailing_newline=True,
        comment_start_string="\0{#",  # there are no comments: {# is text like any other
        comment_end_string="#}\0",
    )
    for name in _GROWING_FILTERS:
        environment.filters.pop(name)
    for name in _GLOBALS:
        environment.globals.pop(name)
    environment.filters.update(join=_join, tojson=_as_json)
    return environment


def render(
    arguments: Mapping[str, Any], names: Mapping[str, Any], *, is_literal: IsLiteral
) -> dict[str, Any]:
    """Return the arguments with every template in them rendered.

    Parameters
    ----------
    arguments
        The arguments of a task, as JSON.
    names
        What a template may use: ``context``, ``results``, ``previous_task_result``, ``job``,
        ``task``.
    is_literal
        Says of a top-level key and its value that they are taken as they stand.

    Raises
    ------
    Invalid
        A template that does not parse, uses an unknown name, or becomes too large or no JSON.
    """
    return {
        key: value if is_literal(key, value) else _rendered(key, value, names)
        for key, value in arguments.items()
    }


def check(arguments: Mapping[str, Any], *, is_literal: IsLiteral) -> None:
    """Refuse templates that do not parse.

    Raises
    ------
    Invalid
    """
    for key, value in arguments.items():
        if not is_literal(key, value):
            _check(key, value)


def holds_template(value: object) -> bool:
    """Say whether a value is known only once its templates are rendered."""
    if isinstance(value, Mapping):
        return any(holds_template(one) for one in value.values())
    if isinstance(value, list | tuple):
        return any(holds_template(one) for one in value)
    return isinstance(value, str) and ("{{" in value or "{%" in value)


def _check(key: str, value: Any) -> None:
    if isinstance(value, Mapping):
        for one in value.values():
            _check(key, one)
    elif isinstance(value, list | tuple):
        for one in value:
            _check(key, one)
    elif isinstance(value, str) and holds_template(value):
        _compiled(key, value)


def _rendered(key: str, value: Any, names: Mapping[str, Any]) -> Any:
    if isinstance(value, Mapping):
        return {name: _rendered(key, one, names) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_rendered(key, one, names) for one in value]
    if not isinstance(value, str) or not holds_template(value):
        return value
    template = _compiled(key, value)
    try:
        return _bounded(template(**names))
    except Exception as error:  # whatever a template makes Python raise
        raise Invalid(key, value, expected=f"{_said(error)} in the template") from None


def _compiled(key: str, text: str) -> Callable[..., Any]:
    if len(text) > MAX_TEMPLATE:
        raise Invalid(
            key, f"of {len(text):,} characters", expected=f"templates of at most {MAX_TEMPLATE:,}"
        )
    try:
        return _template(text)
    except Exception as error:  # Python's own compiler has limits too
        raise Invalid(
            key, text, expected=f"{_said(error)}; {{% raw %}} keeps braces as they are"
        ) from None


@lru_cache(maxsize=1000)
def _template(text: str) -> Callable[..., Any]:
    """Return what renders a text; one that is an expression alone gives its value."""
    for statement in _environment().parse(text).find_all(nodes.Stmt):
        if not isinstance(statement, _STATEMENTS):
            kind = type(statement).__name__.lower()
            raise SecurityError(f"{kind!r} is no part of a config; expressions and if are")
    expression = _only_expression(text)
    if expression is not None:
        return _environment().compile_expression(expression, undefined_to_none=False)
    return _environment().from_string(text).render


def _only_expression(text: str) -> str | None:
    """Return the expression of a text that is ``{{ expression }}`` and nothing else."""
    tokens = list(_environment().lex(text.strip()))
    kinds = [kind for _, kind, _ in tokens]
    if kinds[:1] != ["variable_begin"] or kinds[-1:] != ["variable_end"]:
        return None
    if kinds.count("variable_begin") > 1:
        return None
    return "".join(value for _, _, value in tokens[1:-1])


def _bounded(value: Any) -> Any:
    if not isinstance(value, str):
        return _plain(value)
    if len(value) > MAX_RENDERED:
        raise SecurityError(f"{len(value):,} characters, at most {MAX_RENDERED:,} are allowed")
    value.encode()  # half a character is refused
    return str(value)


def _plain(value: Any) -> Any:
    """Return what a part of a text becomes; an unknown name within it is found here."""
    return checked_json("value of the template", value)


def _join(values: Iterable[Any], by: str = "") -> str:
    """Join texts, as long as that stays small."""
    texts = [str(_plain(value)) for value in values]
    if sum(map(len, texts)) + len(texts) * len(by) > MAX_RENDERED:
        raise SecurityError(f"join makes at most {MAX_RENDERED:,} characters")
    return by.join(texts)


def _as_json(value: Any) -> str:
    return json.dumps(_plain(value), ensure_ascii=False)


def _said(error: Exception) -> str:
    said = str(error) or type(error).__name__
    is_plain = isinstance(error, TemplateError | Invalid)
    return said if is_plain else f"{type(error).__name__}: {said}"
