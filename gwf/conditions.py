"""Parse the condition of a task when its flow is saved, and evaluate it when the task is due.

A condition is an expression of the Common Expression Language (CEL) over the five ``NAMES``.

Why
---
The library is common-expression-language, which wraps the Rust crate ``cel``.
It compares integers with floats as CEL says, lists the names that an expression uses, refuses more
than 95 nested brackets, and takes about 80 µs for a typical condition.
cel-python, written in Python, answers ``5.0 == 5`` and ``5 > 4.5`` with an error, takes
``true == 1`` for true, and needs about 450 µs.
cel-expr-python, which wraps Google's C++, answered right whatever was tried and bounds its loops,
but it is at 0.1, weighs 50 MB, needs protobuf without saying so, and has no source package.
Importing the library takes about 0.2 s, since it loads its own command line: functions import it.

Two faults of the library are met here.
``size`` counts the UTF-8 bytes of a text, where CEL counts characters; ``_length`` replaces it.
Nothing bounds the cost while the interpreter stands still: a mention of an input copies it, and
``map`` and ``filter`` copy their list in each round, so a ``filter`` over 100,000 numbers took
305 s, and two nested ``map`` that copy a map of 100 entries 10,000 times took 136 s and 1.2 GB.
``_steps`` therefore estimates the copies beforehand: of 5,876 random pairs of expression and inputs
that it let through, the slowest took 2.1 s.

Nothing is kept between calls, so threads need no lock.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from gwf.errors import ConditionInvalid

if TYPE_CHECKING:
    import cel

NAMES = ("previous_task_result", "results", "context", "job", "task")

MAX_LENGTH = 1000
MAX_DEPTH = 32
MAX_NESTED_LOOPS = 2
MAX_MAPS = 2
MAX_STEPS = 20_000_000
MAX_VALUES = 2_000_000
MAX_INPUT_DEPTH = 100

_TYPES = frozenset(
    {"bool", "bytes", "double", "int", "list", "map", "null_type", "string", "type", "uint"}
)
_INPUTS = frozenset(NAMES)
_LOOPS = frozenset({"all", "exists", "exists_one", "existsOne", "filter", "map"})
_OPENING = frozenset("([{")
_CLOSING = frozenset(")]}")
_DESCENDING = _OPENING | frozenset("!-.?")
_SEPARATING = frozenset({",", "&&", "||"})

#: In steps, what a regular expression costs to compile: measured were up to 0.3 ms for a character
#: (of many ``\w``), and up to 180 ms with a counted repetition.
_STEPS_PER_PATTERN_CHARACTER = 2_500
_STEPS_PER_PATTERN = 1_000_000
_CHARACTERS_PER_STEP = 16

#: Stands in for ``size``; of the same width, so that positions in messages stay true.
_SIZE = "_len"

_TOKEN = re.compile(
    r"""
    //[^\n]*                                                    # comment
    | (?:[rR][bB]?|[bB][rR])(?:\"{3}[\s\S]*?\"{3}|'{3}[\s\S]*?'{3}|"[^"\n]*"|'[^'\n]*')
    | [bB]?(?:\"{3}(?:\\[\s\S]|[^\\])*?\"{3}|'{3}(?:\\[\s\S]|[^\\])*?'{3}
            |"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')
    | [A-Za-z_][A-Za-z0-9_]* | [0-9][A-Za-z0-9_.]* | [!=<>]= | && | \|\| | \S
    """,
    re.VERBOSE,
)
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PLAIN_KEY = re.compile(r"""'[^'\\]+'|"[^"\\]+\"""")
_UNCOUNTED_PATTERN = re.compile(r"""[rR]?['"](?:[^{\\]|\\[^0-7uUxX])*['"]""")
_SYNTAX_ERROR = re.compile(r"<input>:(\d+):(\d+): (.+?)(?: expecting .*)?$", re.MULTILINE)


@dataclass(frozen=True)
class Verdict:
    """Hold what a condition came to: either its value or the reason why it has none.

    Attributes
    ----------
    value : bool or None
        None exactly when ``error`` is set.
    error : str or None
        A sentence for people.
    """

    value: bool | None
    error: str | None = None


def check(expression: object) -> None:
    """Refuse what is not a condition; return nothing for one that can be saved.

    Whether a name or a function exists shows when it is evaluated (rule C5), so that a flow
    written for a later version can be saved.

    Raises
    ------
    ConditionInvalid
        Not text, empty, too long, nested too deep, looping too much, or not CEL.
    """
    text, _ = _bounded(expression)
    _parsed(text)


def evaluate(expression: object, inputs: Mapping[str, Any]) -> Verdict:
    """Evaluate a condition over plain JSON values, without ever raising for either of them.

    Parameters
    ----------
    expression : str
        The condition; one that does not parse or exceeds a bound gives a verdict with an error.
    inputs : mapping of str to Any
        The values of ``NAMES``; a name left out is unknown, others are ignored.

    Returns
    -------
    Verdict
        With an error for a missing key, an unknown name, a value that is not a boolean, or too
        much work. As in CEL, ``false && e`` is false and ``true || e`` is true for any ``e``.
    """
    try:
        text, tokens = _bounded(expression)
        _parsed(text)
        given = {name: inputs[name] for name in _mentioned(tokens) if name in inputs}
        if _steps(tokens, given) > MAX_STEPS:
            return Verdict(None, "the inputs are too large for the loops of this condition")
        return _judged(_computed(text, given))
    except ConditionInvalid as refusal:
        return Verdict(None, refusal.reason)
    except BaseException as error:
        if not _is_contained(error):
            raise
        return Verdict(None, _sentence(error))


def read_by(expression: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of the inputs that an expression may read, nested as they are.

    ``context.env`` reads one key and so shows no other; ``size(context)`` reads all of it.
    A variable of a loop that is called like an input counts as one.
    """
    part: dict[str, Any] = {}
    for path in sorted(_paths(_tokens(expression)), key=len, reverse=True):
        _copy(path, inputs, part)
    return part


def _bounded(expression: object) -> tuple[str, list[str]]:
    """Return the text and its tokens, unless it is too much for the parser or the evaluation."""
    if not isinstance(expression, str):
        raise ConditionInvalid(expression, "it has to be text")
    if len(expression) > MAX_LENGTH:
        reason = f"at most {MAX_LENGTH} characters, this has {len(expression)}"
        raise ConditionInvalid(expression, reason)
    tokens = _tokens(expression)
    if not tokens:
        raise ConditionInvalid(expression, "it must not be empty")
    if _depth(tokens) > MAX_DEPTH:
        raise ConditionInvalid(expression, f"it is nested deeper than {MAX_DEPTH} levels")
    if max(_loops_around(tokens)) > MAX_NESTED_LOOPS:
        reason = f"at most {MAX_NESTED_LOOPS} of {', '.join(sorted(_LOOPS))} inside one another"
        raise ConditionInvalid(expression, reason)
    if tokens.count("map") > MAX_MAPS:
        raise ConditionInvalid(expression, f"at most {MAX_MAPS} map in one condition")
    return expression, tokens


def _parsed(expression: str) -> cel.Program:
    import cel

    try:
        return cel.compile(expression)
    except BaseException as error:
        if not _is_contained(error):
            raise
        message = str(error).removeprefix(f"Failed to parse expression '{expression}': ")
        found = _SYNTAX_ERROR.search(message)
        reason = "line {}, column {}: {}".format(*found.groups()) if found else _sentence(error)
        raise ConditionInvalid(expression, reason) from error


def _computed(expression: str, values: Mapping[str, Any]) -> Any:
    import cel

    def measured(token: re.Match[str]) -> str:
        is_call = token[0] == "size" and expression[token.end() :].lstrip().startswith("(")
        return _SIZE if is_call else token[0]

    context = cel.Context(dict(values), {_SIZE: _length})
    return cel.evaluate(_TOKEN.sub(measured, expression), context)


def _length(value: object) -> int:
    """Count characters, bytes, elements or keys."""
    if not isinstance(value, str | bytes | list | dict):
        raise TypeError("only text, bytes, a list or a map has a size")
    return len(value)


def _judged(value: object) -> Verdict:
    if isinstance(value, bool):
        return Verdict(value)
    shown = {list: "a list", dict: "a map", type(None): "null"}.get(type(value)) or repr(value)
    return Verdict(None, f"the value is {shown[:80]}, not true or false")


def _is_contained(error: BaseException) -> bool:
    """Tell an error or a panic of the library from a request to stop the process."""
    kind = type(error)
    is_panic = (kind.__module__, kind.__name__) == ("pyo3_runtime", "PanicException")
    return isinstance(error, Exception) or is_panic


def _sentence(error: BaseException) -> str:
    if isinstance(error, KeyError) and error.args:
        return f"there is no key {error.args[0]!r}"
    lines = str(error).strip().splitlines() or [f"the library failed with {type(error).__name__}"]
    return lines[0][:300].replace(_SIZE, "size")


def _tokens(expression: str) -> list[str]:
    return [token for token in _TOKEN.findall(expression) if not token.startswith("//")]


def _mentioned(tokens: list[str]) -> frozenset[str]:
    return frozenset(token for before, token in pairwise(["", *tokens]) if before != ".") & _INPUTS


def _paths(tokens: list[str]) -> set[tuple[str, ...]]:
    """Return where inputs are read: a name and the literal keys selected from it."""
    paths = set()
    for start, (before, word) in enumerate(pairwise(["", *tokens])):
        if word not in _INPUTS or before == ".":
            continue
        path, after = [word], tokens[start + 1 :]
        while (step := _selected(after)) is not None:
            key, width = step
            path.append(key)
            after = after[width:]
        paths.add(tuple(path))
    return paths


def _selected(tokens: list[str]) -> tuple[str, int] | None:
    """Return the key of a selection that the tokens begin with, and how many tokens it takes."""
    match tokens[:3]:
        case ["[", key, "]"] if _PLAIN_KEY.fullmatch(key):
            return key[1:-1], 3
        case [".", word, *after] if _WORD.fullmatch(word) and after != ["("]:
            return word, 2
    return None


def _copy(path: tuple[str, ...], source: Any, target: dict[str, Any]) -> None:
    """Copy what stands at a path, as far as it leads; what has no such key is left out."""
    key, *rest = path
    if not isinstance(source, Mapping) or key not in source:
        return
    if rest and isinstance(source[key], Mapping):
        _copy(tuple(rest), source[key], target.setdefault(key, {}))
    else:
        target[key] = source[key]


def _depth(tokens: list[str]) -> int:
    """Count from above how deep a parser descends: brackets, signs, selections and ternaries."""
    levels = [0]
    deepest = 0
    for token in tokens:
        if token in _DESCENDING:
            levels[-1] += 1
        elif token in _SEPARATING:
            levels[-1] = 0
        if token in _OPENING:
            levels.append(0)
        elif token in _CLOSING and len(levels) > 1:
            levels.pop()
        deepest = max(deepest, sum(levels))
    return deepest


def _loops(tokens: list[str]) -> list[int]:
    """Return where ``.all(x,`` and its kin begin: the positions of their points."""
    return [
        start
        for start in range(len(tokens) - 3)
        if tokens[start] == "." and tokens[start + 1] in _LOOPS and tokens[start + 2] == "("
    ]


def _loops_around(tokens: list[str]) -> list[int]:
    """Count for each token the loops in whose rounds it is evaluated."""
    bodies = {start + 2 for start in _loops(tokens)}
    is_loop: list[bool] = []
    around = []
    for position, token in enumerate(tokens):
        if token in _CLOSING and is_loop:
            is_loop.pop()
        around.append(sum(is_loop))
        if token in _OPENING:
            is_loop.append(position in bodies)
    return around


def _steps(tokens: list[str], values: Mapping[str, Any]) -> int:
    """Estimate from above how many values the library copies; see Why.

    An input is copied in each round of the loops around its mention; the variable of a loop stands
    for one element at a time, so all rounds of that loop copy its list once.
    ``filter`` and ``map`` copy their list in each round, ``map`` a list of new values; ``+`` and
    literals make longer lists.
    """
    size, longest = _measured(values.values())
    size += len(tokens)
    growth = 1 + tokens.count("+")
    rounds = max(longest, 1 + tokens.count(",")) * growth
    steps = size
    before = ""
    for position, (word, loops) in enumerate(zip(tokens, _loops_around(tokens), strict=True)):
        if word in {"filter", "map"}:
            steps += size * rounds ** (loops + 1)
        elif word == "matches":
            steps += _pattern_steps(tokens[position + 2 : position + 4]) * rounds**loops
        elif before != "." and _WORD.fullmatch(word):
            steps += size * rounds ** (loops if word in _INPUTS else max(loops - 1, 0))
        before = word
    return steps * growth * (rounds if "map" in tokens else 1)


def _pattern_steps(argument: list[str]) -> int:
    """Estimate what a pattern costs to compile, given the first token of it and the next."""
    if argument[1:] == [")"] and _UNCOUNTED_PATTERN.fullmatch(argument[0]):
        return len(argument[0]) * _STEPS_PER_PATTERN_CHARACTER
    return _STEPS_PER_PATTERN


def _measured(values: Iterable[Any]) -> tuple[int, int]:
    """Return the number of values within JSON values, long texts counting more, and the longest."""
    size = longest = 0
    layer = list(values)
    for _ in range(MAX_INPUT_DEPTH):
        below: list[Any] = []
        for value in layer:
            if isinstance(value, str):
                size += len(value) // _CHARACTERS_PER_STEP
            elif isinstance(value, dict | list | tuple):
                longest = max(longest, len(value))
                below.extend(value)
                below.extend(value.values() if isinstance(value, dict) else ())
            elif type(value) is int and not -(2**63) <= value < 2**64:
                raise OverflowError("an integer of the inputs does not fit 64 bits")
        size += len(layer)
        if not below:
            return size, longest
        if size + len(below) > MAX_VALUES:
            break
        layer = below
    raise ValueError("the inputs are too large or nested too deep")
