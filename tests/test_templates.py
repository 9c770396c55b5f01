"""Show what templates may do, and that data never becomes one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import gwf
from gwf import templates

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
