"""Show what templates may do, and that data never becomes one."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import gwf
from gwf import templates
from gwf.limits import checked_json

NAMES = {
    "job": {"id": 7, "name": "热修复"},
    "context": {"env": "{{ job.id }}", "list": [1, 2]},
    "results": {"检查": {"warnings": 3}},
    "previous_task_result": None,
    "task": {"attempt": 2},
}


def rendered(value: Any) -> Any:
    return templates.render({"x": value}, NAMES, is_literal=lambda key, value: False)["x"]


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("{{ job.id }}", 7),
        (" {{ job.id }} ", 7),
        ("job {{ job.id }}", "job 7"),
        ("{{ job.id }}{{ job.id }}", "77"),
        ("{{ results.检查.warnings > 2 }}", True),
        ("{{ context.list }}", [1, 2]),
        ("{{ previous_task_result }}", None),
        ("{% if task.attempt > 1 %}again{% endif %}", "again"),
        ({"a": ["{{ job.name }}", 1]}, {"a": ["热修复", 1]}),
        ("{{ context.env }}", "{{ job.id }}"),
        ("<{{ context.env }}>", "<{{ job.id }}>"),
        ("{{ '}}' }}", "}}"),
        ("{% raw %}{{ x }}{% endraw %}", "{{ x }}"),
        (3, 3),
        (None, None),
    ],
)
def test_render_keeps_the_type_of_a_lone_expression(template: Any, value: Any) -> None:
    """Any other text stays text, and what a value holds is never rendered itself."""
    assert rendered(template) == value
    assert type(rendered(template)) is type(value)


@pytest.mark.parametrize(
    "template",
    [
        "{{ nope }}",
        "{{ job.nope }}",
        "x {{ context.nope }}",
        "{{ job.__class__ }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ context.list.append(3) }}",
        "{{ context.update({}) }}",
        "{{ 'a' * 1000000000 }}",
        "{{ [0] * 1000000000 }}",
        "{{ 9 ** 9999 }}",
        "{{ 'a'.center(1000000000) }}",
        "{{ 'a'|center(1000000000) }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '{:>1000000000}'.format(1) }}",
        "{{ range(1000000000)|list }}",
        "{{ unclosed",
        "{{.State}}",
        "{% for %}",
        "{% include 'x' %}",
        "{% import 'x' as x %}",
        "{{ 1 / 0 }}",
        "{% for i in range(99999) %}0123456789a{% endfor %}",
    ],
)
def test_render_refuses(template: str) -> None:
    """Unknown names, ways out of the sandbox, what is too large, and what does not parse."""
    with pytest.raises(gwf.Invalid):
        rendered(template)


def test_render_leaves_literals_alone() -> None:
    """Keys that an executor takes as they stand are no templates."""
    given_ = {"sql": "{{ job.id", "n": "{{ job.id }}"}
    found = templates.render(given_, NAMES, is_literal=lambda key, value: key == "sql")
    assert found == {"sql": "{{ job.id", "n": 7}
    templates.check(given_, is_literal=lambda key, value: key == "sql")


def test_check_says_how_to_keep_braces() -> None:
    with pytest.raises(gwf.Invalid, match="raw"):
        templates.check({"x": ["{{.State}}"]}, is_literal=lambda key, value: False)


@given(st.text().filter(lambda text: "{{" not in text and "{%" not in text))
def test_text_without_a_template_stays(text: str) -> None:
    assert rendered(text) == text


def with_context(value: Any, **context: Any) -> Any:
    """Return what becomes of an argument in a job with this context."""
    names = {**NAMES, "context": context}
    return templates.render({"x": value}, names, is_literal=lambda key, value: False)["x"]


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("{{ context.x }}", 1.5),
        ("\n{{- context.x -}}\n", True),
        ("{{\n  context.x\n}}\n\n", None),
        ("{{ context['x'] }}", {"a": [1, {"b": None}]}),
        ("{{ context.x if true else 1 }}", []),
        ("{{ context.nope|default(3) }}", 3),
        ("{{ context.nope is defined }}", False),
        ("{{ {'a': {'b': context.x}}['a']['b'] }}", 2**62),
    ],
)
def test_render_keeps_the_type_however_it_is_written(template: str, value: Any) -> None:
    """Space, new lines and braces of its own do not make a text of an expression."""
    found = with_context(template, x=value)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ job.id }}{% if true %}{% endif %}", "7"),
        ("{% if true %}{{ job.id }}{% endif %}", "7"),
        ("{{ job.id ~ '' }}", "7"),
        ("{{ 'a'|e }}", "a"),
        ("<{{ previous_task_result }}>", "<None>"),
        ("{{ '<b>' }}&{{ '\"' }}", '<b>&"'),
    ],
)
def test_render_makes_plain_text_of_all_else(template: str, text: str) -> None:
    """A ``str`` and none of its subclasses, with nothing escaped as HTML would be."""
    assert rendered(template) == text
    assert type(rendered(template)) is str


def test_render_reaches_lists_and_dicts_and_leaves_keys() -> None:
    """However deep; what is given stays as it is, and a tuple becomes a list."""
    given_ = {"{{ job.id }}": [["{{ job.id }}", {"a": ("{{ job.id }}", "b")}], 1.5, None, True]}
    before = copy.deepcopy(given_)
    assert rendered(given_) == {"{{ job.id }}": [[7, {"a": [7, "b"]}], 1.5, None, True]}
    assert given_ == before


def test_read_a_key_that_is_also_a_method() -> None:
    """``items`` of a result is what the task returned, as it is in a condition."""
    assert with_context("{{ context.items }}", items=[1]) == [1]
    assert with_context("{{ context.a.values|length }}", a={"values": [1, 2]}) == 2


@pytest.mark.parametrize(
    "template",
    [
        "{{ context.keys }}",
        "{{ range }}",
        "{{ lipsum }}",
        "{{ namespace(a=1) }}",
        "{{ self }}",
        "{{ [1]|map('string') }}",
        "{{ 'a'.encode() }}",
        "{{ (-1) ** 0.5 }}",
        "{{ {1: 2} }}",
        "{{ 10 ** 60 }}",
        "{{ [range(3)] }}",
        "{{ '\ud800' }}",
    ],
)
def test_render_gives_json_or_refuses(template: str) -> None:
    """No function, generator or object reaches an executor, and no number that JSON has not."""
    try:
        value = with_context(template, x=1)
    except gwf.Invalid:
        return
    assert checked_json("rendered", value) == value


@pytest.mark.parametrize(
    "template",
    [
        "{{ nope.x }}",
        "{{ nope() }}",
        "{{ context.list[9] }}",
        "{{ not nope }}",
        "{{ nope in [1] }}",
        "{{ []|first }}",
        "{{ 'a' ~ nope }}",
        "{% if nope %}{% endif %}",
        "{% set x = nope %}{{ x }}",
        "{{ 1 if false }}",
        "{{ [nope] }}",
        "{{ {'a': [context.nope]} }}",
        "{{ [job]|map(attribute='nope')|list }}",
        "x {{ [nope] }}",
        "x {{ {'a': job.nope} }}",
    ],
)
def test_render_refuses_an_unknown_name_wherever_it_stands(template: str) -> None:
    """In lists and dicts too: an unknown name never reaches an executor, nor as a text."""
    for value in (template, [template], {"a": [template]}):
        with pytest.raises(gwf.Invalid):
            rendered(value)


@pytest.mark.parametrize(
    "expression",
    [
        "''['__class__']",
        "''|attr('__class__')",
        "()|attr('__class__')|attr('__base__')|attr('__subclasses__')",
        "job.__class__.__base__.__subclasses__()",
        "lipsum.__globals__",
        "lipsum.__globals__['os'].popen('id').read()",
        "cycler.__init__.__globals__",
        "namespace().__class__",
        "self._TemplateReference__context",
        "(context|items).gi_frame.f_globals",
        "('{0.__class__}'|attr('format'))(3)",
        "'{0.__class__}'.format(3)",
        "'{a.__class__}'.format_map({'a': 3})",
        "'a'['format'](3)",
        "['{0.__class__}']|map('format', 3)|list",
    ],
)
def test_render_lets_nothing_out_of_the_sandbox(expression: str) -> None:
    """As a lone expression and within a text."""
    for template in (f"{{{{ {expression} }}}}", f"x{{{{ {expression} }}}}"):
        with pytest.raises(gwf.Invalid):
            rendered(template)


@pytest.mark.parametrize(
    "call",
    [
        "a.append(1)",
        "a.pop()",
        "a.reverse()",
        "a.__setitem__(0, 7)",
        "b.update(x=1)",
        "b.pop('y')",
        "b.setdefault('x', 1)",
        "b['update'](x=1)",
        "(b|attr('update'))(x=1)",
    ],
)
def test_render_changes_no_value(call: str) -> None:
    """A template reads; what the job knows stays as it is."""
    context = {"a": [2, 1], "b": {"y": 1}}
    before = copy.deepcopy(context)
    for template in (f"{{{{ context.{call} }}}}", f"{{% set x = context.{call} %}}"):
        with pytest.raises(gwf.Invalid):
            with_context(template, **context)
    with pytest.raises(gwf.Invalid):
        with_context("{% set context.a = 1 %}", **context)
    assert context == before


@pytest.mark.parametrize(
    "expression",
    [
        "'a'.ljust(2000000)",
        "'\t'.expandtabs(2000000)",
        "'a'|indent(2000000)",
        "'a'.encode().rjust(2000000)",
        "range(2000000)|list",
        "[1]|batch(2000000, 'x')|first",
        "[1]|slice(2000000)|list",
        "(1).to_bytes(2000000, 'big')",
        "[1]|tojson(indent=2000000)",
        "lipsum(n=1, min=200000, max=200001)",
        "range(2000)|join(context.text)",
        "context.text.join(range(2000)|map('string'))",
        "context.text.replace('x', context.text ~ context.text)",
        "context.text|replace('x', context.text ~ context.text)",
        "context.text|wordwrap(1, wrapstring=context.text ~ context.text)",
        "context.text.translate({120: context.text ~ context.text})",
    ],
)
def test_render_makes_nothing_large_of_small_values(expression: str) -> None:
    """Not on the way either: each of these would take any memory with larger numbers."""
    with pytest.raises(gwf.Invalid):
        with_context(f"{{{{ ({expression})|length }}}}", text="x" * 1000)


@pytest.mark.parametrize("one", ["n.s ~ n.s", "n.s + n.s", "[n.s, n.s]|join", "(n.l + n.l)"])
def test_render_doubles_nothing_without_a_bound(one: str) -> None:
    """Thirty rounds of it would be a million million; twelve show whether there is a bound."""
    begin = "{% set n = namespace(s=context.text, l=context.text|list) %}"
    name = "l" if "n.l" in one else "s"
    loop = f"{{% for i in range(12) %}}{{% set n.{name} = {one} %}}{{% endfor %}}"
    with pytest.raises(gwf.Invalid):
        with_context(f"{begin}{loop}{{{{ n.{name}|length }}}}", text="x" * 1000)


def test_render_bounds_a_text_and_what_holds_texts() -> None:
    """A million characters in all, with the quotes of JSON, in one text or in many."""
    text = "x" * (templates.MAX_RENDERED // 2 - 1)
    assert with_context("{{ context.a }}{{ context.a }}", a=text) == text * 2
    for template in (
        "{{ context.a }}{{ context.a }}...",
        "{{ [context.a, context.a, context.a] }}",
    ):
        with pytest.raises(gwf.Invalid):
            with_context(template, a=text)


def test_render_bounds_a_template_but_no_other_text() -> None:
    longest = "{{ 7 }}".ljust(templates.MAX_TEMPLATE)
    assert rendered(longest) == 7
    with pytest.raises(gwf.Invalid, match="at most 100,000"):
        rendered(f"{longest} ")
    assert rendered("x" * 200_000) == "x" * 200_000


@pytest.mark.parametrize(
    "template",
    [
        "{{ " + "(" * 500 + "1" + ")" * 500 + " }}",
        "{{ " + "not " * 3000 + "1 }}",
        "{{ 1" + "|abs" * 5000 + " }}",
        "{% for x in [1] %}" * 30 + "{% endfor %}" * 30,
        "{{ " + "9" * 5000 + " }}",
    ],
)
def test_check_refuses_what_python_cannot_compile(template: str) -> None:
    """Whoever saves a task learns it from gwf, as of any other syntax error."""
    with pytest.raises(gwf.Invalid):
        templates.check({"x": template}, is_literal=lambda key, value: False)


@pytest.mark.parametrize(
    "template",
    [
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% for a in [1] recursive %}{{ loop([1]) }}{% endfor %}",
        "{{ 7|xmlattr }}",
        "{{ 'a'|truncate(-1) }}",
        "{{ cycler() }}",
        "{{ 1e1000 }}",
        "{{ job.id + 'a' }}",
    ],
)
def test_render_refuses_whatever_a_template_raises(template: str) -> None:
    with pytest.raises(gwf.Invalid, match=r"^x "):
        rendered(template)


@pytest.mark.parametrize("text", ["{{", "{%", "{{ }}", "{% nope %}", "{{ a b }}", "{{ 1|nope }}"])
def test_check_names_the_argument_and_how_to_keep_braces(text: str) -> None:
    for value in (text, [text], {"a": (text,)}):
        with pytest.raises(gwf.Invalid, match=r"^x .*\{% raw %\} keeps braces as they are$"):
            templates.check({"x": value}, is_literal=lambda key, value: False)
    kept = f"{{% raw %}}{text}{{% endraw %}}"
    templates.check({"x": kept}, is_literal=lambda key, value: False)
    assert rendered(kept) == text


@pytest.mark.parametrize(
    "text",
    ['{"a": {"b": {}}}', "}}", "%}", "{ { x } }", "${x:-{y}}", "{#", "{# x #}", "#}", "{", "$#{x}"],
)
def test_text_with_other_braces_stays(text: str) -> None:
    """JSON, shell and CSS hold braces; also beside a template they mean nothing to it."""
    assert rendered(text) == text
    assert rendered(f"{text}\n{{{{ job.id }}}}") == f"{text}\n7"


@given(st.text(st.characters(exclude_characters="{}%#\r")))
def test_text_around_a_template_stays(text: str) -> None:
    """New lines at its end are part of it; Jinja2 makes one character of a carriage return."""
    assert rendered(f"<{{{{ job.id }}}}>{text}") == f"<7>{text}"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
MARKS = st.sampled_from(["{{ job.id }}", "{{", "{% if %}", "{{ nope }}", "{# x #}", "{% raw %}"])


@given(JSON | MARKS)
def test_values_are_never_rendered(value: Any) -> None:
    """Whatever a value looks like, it comes back as it is, alone and within a text."""
    assert with_context("{{ context.v }}", v=value) == value
    assert with_context("{{ [context.v] }}", v=value) == [value]
    if isinstance(value, str):
        assert with_context("<{{ context.v }}>", v=value) == f"<{value}>"
