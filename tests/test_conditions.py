"""Show what a condition may say, what it comes to, and that no text can hurt the process."""

from __future__ import annotations

import copy
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gwf import conditions
from gwf.conditions import NAMES, Verdict, check, evaluate, read_by
from gwf.errors import ConditionInvalid

INPUTS: dict[str, Any] = {
    "previous_task_result": {"status": "approved", "approved": True},
    "results": {
        "需求评审": {"approved": True, "votes": [{"approved": True}, {"approved": True}]},
        "build": {"approved": False, "votes": []},
    },
    "context": {
        "env": "prod",
        "x": 4,
        "n": 5,
        "f": 5.0,
        "build": 5.5,
        "tags": ["a", "b"],
        "nothing": None,
        "yes": True,
        "most": 2**63 - 1,
        "least": -(2**63),
        "emoji": "😀",
        "title": "需求评审",
        "quoted": 'it\'s "q" \\ b',
        "when": "2026-01-01T00:00:00Z",
    },
    "job": {"name": "hotfix 热修", "id": 7},
    "task": {"name": "部署"},
}

TRUE = [
    "previous_task_result.status == 'approved'",
    "context.env == 'prod'",
    "results['需求评审'].approved",
    "has(context.x) && context.x > 3",
    "!has(context.missing)",
    "size(results) > 0",
    "context.n == 5",
    "context.n == 5.0",
    "context.f == 5",
    "context.build > 5",
    "context.n > 4.5",
    "context.n < context.build",
    "5 in [context.f]",
    "job.name.startsWith('hot')",
    "job.name.contains('热')",
    "task.name.matches('^部署$')",
    "'a' in context.tags",
    "!('z' in context.tags)",
    "'env' in context",
    "context.yes ? context.n == 5 : false",
    "context.when < '2026-02-01'",
    "timestamp(context.when) < timestamp('2026-02-01T00:00:00Z')",
    "context.emoji == '😀'",
    "context.emoji == '\\U0001F600'",
    r"""context.quoted == 'it\'s "q" \\ b'""",
    r'''context.quoted == "it's \"q\" \\ b"''',
    r"r'\d' == '\\d'",
    "context.most == 9223372036854775807",
    "context.least == -9223372036854775808",
    "context.nothing == null",
    "context.yes != 1",
    "results.exists(r, results[r].approved)",
    "!results.all(r, results[r].approved)",
    "results.all(r, results[r].votes.all(v, v.approved))",
    "size(results.filter(r, results[r].approved)) >= 1",
    "context.tags.map(t, t + t) == ['aa', 'bb']",
    "type(context.n) == int && type(context.f) == double && type(context.yes) == bool",
    "context.n == 5 // 行末注释",
    "size(context.title) == 4",
    "context.title.size() == 4 && size(context.emoji) == 1",
    "size (context.tags) == 2 && size(job) == 2 && size('size(') == 5",
    "true || missing.x",
    "missing.x || true",
    "true || context.missing",
]
FALSE = ["false && missing.x", "missing.x && false", "context.env == 'test'", "context.n == '5'"]


@pytest.mark.parametrize("expression", TRUE)
def test_evaluate_is_true_for_what_holds(expression: str) -> None:
    """Every kind of expression that the handbook shows comes out as true."""
    assert evaluate(expression, INPUTS) == Verdict(True)


@pytest.mark.parametrize("expression", FALSE)
def test_evaluate_is_false_for_what_does_not_hold(expression: str) -> None:
    """A false condition is false, also where CEL need not look at the faulty half."""
    assert evaluate(expression, INPUTS) == Verdict(False)


@pytest.mark.parametrize("expression", [text for text in TRUE if "missing.x" not in text])
def test_check_accepts_what_can_be_evaluated(expression: str) -> None:
    """What evaluates can be saved, unless it mentions an unknown name."""
    check(expression)


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("context.missing", "no key 'missing'"),
        ("context.missing == null", "no key 'missing'"),
        ("results['发布'].approved", "no key '发布'"),
        ("context.tags[7] == 'a'", "out of bounds"),
        ("env == 'prod'", "env"),
        ("missing.x && true", "missing"),
        ("has(missing.x)", "missing"),
        ("__import__('os')", "__import__"),
        ("1", "the value is 1, not true or false"),
        ("'true'", "the value is 'true', not true or false"),
        ("null", "the value is null, not true or false"),
        ("[true]", "the value is a list, not true or false"),
        ("results", "the value is a map, not true or false"),
        ("context.n", "the value is 5, not true or false"),
        ("context.n > 'x'", "overload"),
        ("context.n ? true : false", "overload"),
        ("context.most + 1 > 0", "overflow"),
        ("1 / 0 == 1", "zero"),
        ("size(1) == 1", "only text, bytes, a list or a map has a size"),
        ("job.name.matches('(')", "regex"),
        ("context.env = 'prod'", "line 1, column 13"),
        ("", "empty"),
    ],
)
def test_evaluate_reports_an_error_instead_of_a_value(expression: str, said: str) -> None:
    """What has no value of true or false gives a sentence, never a silent false."""
    verdict = evaluate(expression, INPUTS)
    assert verdict.value is None
    assert said in str(verdict.error)
    assert "\n" not in str(verdict.error)


def test_evaluate_calls_a_name_unknown_when_no_input_is_given() -> None:
    """A name that the engine left out is unknown, not null."""
    assert "previous_task_result" in str(evaluate("previous_task_result.ok", {}).error)


def test_evaluate_ignores_inputs_of_other_names() -> None:
    """Only the five names reach the library, whatever else is given."""
    assert evaluate("other == 1", {"other": 1}).value is None


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1, 10**400])
def test_evaluate_refuses_an_integer_beyond_64_bits(number: int) -> None:
    """An integer that the library would round is refused instead."""
    assert "64 bits" in str(evaluate("context.n == context.n", {"context": {"n": number}}).error)


@pytest.mark.parametrize(
    "expression",
    [
        5,
        None,
        b"true",
        "",
        " \n",
        "// only a comment",
        "1 +",
        "(",
        "x'",
        "'abc",
        "context.env = 'prod'",
        "context.env and true",
        "true true",
        "true\x00",
        "'\ud800' == context.env",
        "99999999999999999999 > 1",
        "has(context)",
        "1 == " + "1" * conditions.MAX_LENGTH,
    ],
)
def test_check_refuses_what_does_not_parse(expression: object) -> None:
    """A mistake shows when the flow is saved, with the expression and the reason as facts."""
    with pytest.raises(ConditionInvalid) as caught:
        check(expression)
    assert caught.value.expression == expression
    assert caught.value.reason


def test_check_says_where_the_mistake_is() -> None:
    """The reason names line and column, on one line."""
    with pytest.raises(ConditionInvalid) as caught:
        check("context.n == 5 &&\n  context.x = 3")
    assert caught.value.reason.startswith("line 2, column 13: ")
    assert "\n" not in caught.value.reason


@pytest.mark.parametrize("expression", ["env == 'x'", "results.all(r, s)", "math.x"])
def test_check_leaves_an_unknown_name_to_the_evaluation(expression: str) -> None:
    """C1, C5: only syntax is refused when saved; an unknown name is an error when due."""
    check(expression)
    verdict = evaluate(expression, {**INPUTS, "results": {"a": 1}})
    assert verdict.value is None
    assert verdict.error


@pytest.mark.parametrize(
    "expression",
    [
        "results.exists_one(r, r == 'x')",
        "context.tags.map(t, t != '', t + 'x') == []",
        "context.a.filter(i, i > 1).exists(j, j in context.b)",
        "type(context.x) in [int, uint, double, bool, string, bytes, list, map, null_type, type]",
        "{'k': context.n}.k == dyn(1)",
        " || ".join(["context.n == 1"] * 50),
        "context.n - 1 == 4",
    ],
)
def test_check_accepts_loop_variables_functions_and_types(expression: str) -> None:
    """Words of the language and variables of loops are no unknown names."""
    check(expression)


def deep(depth: int) -> list[str]:
    """Return one expression for each way of nesting."""
    return [
        "(" * depth + "true" + ")" * depth,
        "[" * depth + "1" + "]" * depth,
        "{1:" * depth + "1" + "}" * depth,
        "!" * depth + "true",
        "- " * depth + "job.id",
        "true?true:" * depth + "true",
        "job" + ".a" * depth,
        "job" + "[0]" * depth,
        "job[" * depth + "1" + "]" * depth,
        "dyn(" * depth + "1" + ")" * depth,
        "job" + ".f()" * depth,
        "(" * depth,
        "{" * depth,
    ]


@pytest.mark.parametrize("expression", deep(conditions.MAX_DEPTH + 1) + deep(60))
def test_check_refuses_what_is_nested_too_deep(expression: str) -> None:
    """Every way of nesting is bounded before the parser sees the text."""
    with pytest.raises(ConditionInvalid, match="nested deeper than 32"):
        check(expression)
    assert "nested deeper" in str(evaluate(expression, INPUTS).error)


def test_evaluate_survives_the_deepest_text_on_a_small_stack() -> None:
    """What the bounds let through fits a thread of 512 kB, the smallest usual one."""
    texts = [
        *deep(conditions.MAX_DEPTH - 2),
        "1" + "+1" * 499,
        "1" + "<1" * 499,
        "true" + "&&true" * 166,
        "&&".join(["true?true:true"] * 60),
    ]
    program = (
        "import sys, threading; from gwf.conditions import evaluate; import cel\n"
        "threading.stack_size(512 * 1024)\n"
        "run = lambda: [evaluate(text, {'job': {'id': 1}}) for text in sys.argv[1:]]\n"
        "thread = threading.Thread(target=run); thread.start(); thread.join(); print('alive')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *texts], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr


@pytest.mark.parametrize(
    "expression",
    [
        "context.l.all(a, context.l.all(b, context.l.all(c, true)))",
        "context.l.exists(a, context.l.filter(b, context.l.exists_one(c, c == b)) == [])",
        "[[1]]" + ".map(y, y + y)" * 3 + " == []",
    ],
)
def test_check_refuses_loops_that_could_explode(expression: str) -> None:
    """Two loops inside one another and two map are the most."""
    with pytest.raises(ConditionInvalid, match="at most 2"):
        check(expression)


@pytest.mark.parametrize(
    ("expression", "length"),
    [
        ("context.l.filter(x, x >= 0) != []", 100_000),
        ("context.l.all(x, context.l == context.l)", 10_000),
        ("context.l.map(x, context.l.map(y, context.l)) != []", 100),
        ("[context.l].map(x, x + x + x).map(x, x + x + x) != []", 100_000),
        ("context.l.exists(x, 'a'.matches('((a{1,30}){1,30}){1,30}b'))", 100),
        (r"context.l.exists(x, 'a'.matches('(a\x7b1,30})\x7b1,30}b'))", 100),
        ("context.l.exists(x, 'a'.matches('a' + context.pattern))", 100),
        ("context.l.exists(x, 'a'.matches(r'" + r"\w" * 200 + "'))", 100),
    ],
)
def test_evaluate_refuses_more_work_than_it_can_bound(expression: str, length: int) -> None:
    """Loops that would take minutes or gigabytes are refused beforehand."""
    verdict = evaluate(expression, {"context": {"l": list(range(length))}})
    assert "too large for the loops" in str(verdict.error)


@pytest.mark.parametrize(
    "expression",
    [
        "results.all(r, results[r].votes.all(v, v.approved))",
        "size(results.filter(r, results[r].approved)) == 30",
        r"results.all(r, r.matches('^任务\\d+$') && r.matches(r'^\S+$'))",
        "results.exists(a, results.exists(b, results[a].score + results[b].score == 58))",
    ],
)
def test_evaluate_allows_the_loops_of_a_large_job(expression: str) -> None:
    """Thirty tasks with five votes each stay within the bounds."""
    votes = [{"user": n, "decision": "approve", "approved": True} for n in range(5)]
    results = {f"任务{n}": {"approved": True, "score": n, "votes": votes} for n in range(30)}
    assert evaluate(expression, {"results": results}) == Verdict(True)


def nested(depth: int) -> list[Any]:
    """Return lists within lists."""
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def endless() -> list[Any]:
    """Return a list that holds itself twice."""
    value: list[Any] = []
    value.extend([value, value])
    return value


@pytest.mark.parametrize(
    "value", [nested(200), nested(100_000), endless()], ids=["200", "1e5", "∞"]
)
def test_evaluate_refuses_inputs_that_are_nested_too_deep(value: list[Any]) -> None:
    """Inputs that would overflow the stack of the library give an error."""
    assert "nested too deep" in str(evaluate("context == context", {"context": value}).error)


GIVEN: dict[str, Any] = {
    "previous_task_result": {"status": "approved", "votes": [1, 2]},
    "results": {"A": {"n": 1}, "B b": 2},
    "context": {"env": "prod", "token": "s3cret", "deep": {"er": {"x": 1, "y": 2}}},
    "job": {"id": 7, "name": "j"},
    "task": {"id": 9, "name": "t"},
}


@pytest.mark.parametrize(
    ("expression", "part"),
    [
        (
            "previous_task_result.status == 'approved'",
            {"previous_task_result": {"status": "approved"}},
        ),
        (
            "results['B b'] > 1 && context.deep.er.x > 3",
            {"results": {"B b": 2}, "context": {"deep": {"er": {"x": 1}}}},
        ),
        ('context["env"] == "results" // task', {"context": {"env": "prod"}}),
        ("context.env.startsWith('p')", {"context": {"env": "prod"}}),
        ("context.env.length == 1", {"context": {"env": "prod"}}),
        ("context.none.x || context.deep.none", {"context": {"deep": {}}}),
        (r"'it\'s task' == r'\' + job.name", {"job": {"name": "j"}}),
        ("context[job.name] == 1", {"context": GIVEN["context"], "job": {"name": "j"}}),
        (
            "context.deep.er.x == size(context.deep)",
            {"context": {"deep": {"er": {"x": 1, "y": 2}}}},
        ),
        ("job.size() > 0 && task.id == 9", {"job": {"id": 7, "name": "j"}, "task": {"id": 9}}),
        ("previous_task_result.votes[0] == 1", {"previous_task_result": {"votes": [1, 2]}}),
        ("tasks == jobs", {}),
        ("true", {}),
        ("'unfinished job", {"job": {"id": 7, "name": "j"}}),
        ("context.", {"context": GIVEN["context"]}),
    ],
)
def test_read_by_shows_what_is_read_and_no_more(expression: str, part: dict[str, Any]) -> None:
    """A key that is not named, such as a password, is not shown; strings and comments are none."""
    before = copy.deepcopy(GIVEN)
    assert read_by(expression, GIVEN) == part
    assert before == GIVEN


class _Raising(Mapping[str, Any]):
    """Raise an error in place of every value, as a library could in the midst of its work."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __getitem__(self, key: str) -> Any:
        raise self._error

    def __iter__(self) -> Iterator[str]:
        return iter(NAMES)

    def __len__(self) -> int:
        return len(NAMES)

    def __contains__(self, key: object) -> bool:
        return key in NAMES


def test_evaluate_contains_a_panic() -> None:
    """A panic of Rust, which is no Exception, becomes an error of the verdict."""
    panic = type("PanicException", (BaseException,), {"__module__": "pyo3_runtime"})
    assert evaluate("job.id == 1", _Raising(panic("attempt to subtract"))).error == (
        "attempt to subtract"
    )
    assert evaluate("job.id == 1", _Raising(panic())).error == (
        "the library failed with PanicException"
    )


@pytest.mark.parametrize("request_to_stop", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_evaluate_lets_a_request_to_stop_through(request_to_stop: type[BaseException]) -> None:
    """Ctrl-C and exit are not errors of a condition."""
    with pytest.raises(request_to_stop):
        evaluate("job.id == 1", _Raising(request_to_stop()))


def test_evaluate_agrees_across_threads() -> None:
    """Threads share nothing, so each gets the verdict of its own inputs."""
    start = threading.Barrier(8)

    def decide(thread: int) -> bool:
        start.wait()
        return all(
            evaluate("context.n == 3", {"context": {"n": thread}}) == Verdict(thread == 3)
            for _ in range(100)
        )

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(decide, range(8)))


def test_import_leaves_the_library_unloaded() -> None:
    """Importing the module costs nothing; the library loads with the first condition."""
    program = "import sys, gwf.conditions; print('cel' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"


SIGNS = "()[]{}.,:?!-+*/%<>\"'\\\n @\x00\ud800需😀"
WORDS = (
    "x 1 2.5 5u true false null 'a' \"\"\" r' in == && || // .all(x, .map(x, .filter(x, has( size("
)
PIECES = st.sampled_from([*NAMES, *SIGNS, *WORDS.split(), "matches(", "timestamp(", "int("])
TEXTS = st.one_of(st.text(), st.lists(PIECES, max_size=60).map("".join))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=1500)
@given(TEXTS)
def test_check_raises_nothing_but_condition_invalid(text: str) -> None:
    """Any text is either accepted or refused with a reason."""
    try:
        check(text)
    except ConditionInvalid as refusal:
        assert refusal.reason


@settings(max_examples=1500)
@given(TEXTS, st.dictionaries(st.sampled_from(NAMES), JSON))
def test_evaluate_never_raises(text: str, inputs: dict[str, Any]) -> None:
    """Any text over any JSON gives a verdict that holds exactly one of value and error."""
    verdict = evaluate(text, inputs)
    assert (verdict.value is None) != (verdict.error is None)


@settings(max_examples=500)
@given(JSON)
def test_evaluate_sees_values_equal_to_themselves(value: Any) -> None:
    """Every JSON value reaches the library unharmed, or the verdict says why not."""
    verdict = evaluate("context == context", {"context": value})
    assert verdict.value is True or verdict.error or "nan" in repr(value)
