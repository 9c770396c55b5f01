"""Render the templates in the config of an automated task: ``{"job": "{{ job.id }}"}``.

The language is Jinja2 in its immutable sandbox; an unknown name is an error, never an empty text.
A text that is one expression and nothing else keeps the type of its value, so ``"{{ job.id }}"``
is a number; any other text stays text. What a value holds is never rendered itself, so data cannot
become a template.

Why bounds besides the sandbox: it keeps a template from the rest of Python, not from a text of
ten thousand million characters. How long a loop may run is left to whoever writes configs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from typing import Any

from jinja2 import StrictUndefined, TemplateError
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from gwf.errors import Invalid

#: Characters of a template, and of what it may become.
MAX_TEMPLATE = 100_000
MAX_RENDERED = 1_000_000

IsLiteral = Callable[[str, Any], bool]


_PADDING = frozenset({"center", "expandtabs", "format", "format_map", "ljust", "rjust", "zfill"})


class _Bounded(ImmutableSandboxedEnvironment):
    """Refuse what makes a large value out of small ones."""

    intercepted_binops = frozenset({"*", "**", "%"})

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Refuse the methods of a text that pad it."""
        return attr not in _PADDING and super().is_safe_attribute(obj, attr, value)

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
    environment = _Bounded(undefined=StrictUndefined, autoescape=False)
    for name in ("center", "indent", "format"):
        environment.filters.pop(name)  # they pad without a bound
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
        A template that does not parse, uses an unknown name, or becomes too large.
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
        rendered = template(**names)
    except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise Invalid(key, value, expected=f"{_said(error)} in the template") from None
    if isinstance(rendered, StrictUndefined):
        raise Invalid(key, value, expected="a name that the job knows")
    if isinstance(rendered, str) and len(rendered) > MAX_RENDERED:
        raise Invalid(key, value, expected=f"at most {MAX_RENDERED:,} characters when rendered")
    return rendered


def _compiled(key: str, text: str) -> Callable[..., Any]:
    if len(text) > MAX_TEMPLATE:
        raise Invalid(
            key, f"of {len(text):,} characters", expected=f"templates of at most {MAX_TEMPLATE:,}"
        )
    try:
        return _template(text)
    except TemplateError as error:
        raise Invalid(
            key, text, expected=f"{_said(error)}; {{% raw %}} keeps braces as they are"
        ) from None


@lru_cache(maxsize=1000)
def _template(text: str) -> Callable[..., Any]:
    """Return what renders a text; one that is an expression alone gives its value."""
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


def _said(error: Exception) -> str:
    said = str(error) or type(error).__name__
    return said if isinstance(error, TemplateError) else f"{type(error).__name__}: {said}"
