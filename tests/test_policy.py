"""Show what the policy of an approval may say, whom it asks for, and what votes come to."""

from __future__ import annotations

import math
from dataclasses import astuple, fields
from decimal import Decimal
from fractions import Fraction
from itertools import permutations
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gwf.ballots import Outcome, Seat, Terms
from gwf.errors import Invalid
from gwf.limits import MAX_ID
from gwf.policy import MAX_PEOPLE, MAX_TIMEOUT_S, Policy, parse, seats_of, simulate, terms

KEYS = [one.name for one in fields(Policy)]
#: What a key needs beside it to be consistent.
BESIDE: dict[str, dict[str, Any]] = {
    "order": {"approvers": ["PM"]},
    "on_timeout": {"timeout": 60, "escalate_to": None},
    "escalate_to": {"timeout": 60, "on_timeout": "escalate"},
}


def test_parse_reads_every_key() -> None:
    """All twelve keys at once; names lose the space around them, seconds become a float."""
    config = {
        "approvers": ["PM", " Tech Lead ", 7],
        "min_approvers": "60%",
        "required_reviewers": ("高级工程师",),
        "reject_policy": "count:2",
        "order": "sequential",
        "self_approval": "bar_initiator",
        "timeout": 3600,
        "on_timeout": "escalate",
        "escalate_to": "CTO",
        "max_escalations": 3,
        "on_reject": "send_back:2",
        "comment_required": True,
    }
    kept = {"approvers": ("PM", "Tech Lead", 7), "escalate_to": ("CTO",), "timeout": 3600.0}
    policy = parse(config)
    assert list(config) == KEYS
    assert policy == Policy(**{**config, **kept})
    assert isinstance(policy.timeout, float)
    assert policy.names == ("PM", "Tech Lead", 7, "高级工程师", "CTO")


@pytest.mark.parametrize("config", [None, {}, dict.fromkeys(KEYS)])
def test_parse_fails_safe_without_values(config: object) -> None:
    """A1: no key, or null for each of them, gives the defaults: a veto, no approval by timeout."""
    defaults = ((), None, (), "veto", "parallel", "allow", None, "fail", (), 1, "fail", False)
    assert astuple(parse(config)) == defaults


GOOD: dict[str, list[Any]] = {
    "approvers": [[], ["PM", "PM"], [1, MAX_ID], ["名" * 100] * MAX_PEOPLE],
    "min_approvers": [1, MAX_PEOPLE, "all", "100%", "1%", "0.000001%", "33.333333%", "060%"],
    "required_reviewers": [["Senior Developer", 5]],
    "reject_policy": ["veto", "majority", "count:1", "count:999999999"],
    "order": ["parallel", "sequential"],
    "self_approval": ["allow", "bar_initiator"],
    "timeout": [1, 0.5, 1e-6, MAX_TIMEOUT_S],
    "on_timeout": ["fail", "approve", "reject"],
    "escalate_to": [["CTO"], ["CTO", 5], "CTO", 5],
    "max_escalations": [1, 100],
    "on_reject": ["fail", "cancel", "send_back:previous", "send_back:1", "send_back:20"],
    "comment_required": [True, False],
}


@pytest.mark.parametrize(("key", "value"), [(key, one) for key in GOOD for one in GOOD[key]])
def test_parse_accepts_what_a_key_may_hold(key: str, value: Any) -> None:
    """Each value is kept as it is written; lists become tuples, and so does one to escalate to."""
    kept = getattr(parse({**BESIDE.get(key, {}), key: value}), key)
    if key == "escalate_to" and not isinstance(value, list):
        value = [value]
    assert kept == (tuple(value) if isinstance(value, list) else value)


NOT_NAMES = ["PM", 5, True, {"PM": 1}, {"PM"}, [""], ["  "], [None], [True], [1.5], [0], [-1]]
NOT_NAMES += [[MAX_ID + 1], [["PM"]], ["a\nb"], ["x" * 101], ["\ud800"], ["x"] * (MAX_PEOPLE + 1)]
NOT_MINIMA = [0, -1, MAX_PEOPLE + 1, True, False, 1.0, 1.5, float("nan"), [2], {}, "", "2", "many"]
NOT_MINIMA += ["150%", "100.1%", "0%", "0.0%", "-5%", "+5%", "1e1%", "60 %", " 60%", "60%\n", "%"]
NOT_MINIMA += [".5%", "5.%", "0.0000001%", "0060%", "६०%", "nan%", "All", "60", "60%%", "count:2"]
NOT_WORDS: list[Any] = ["", 1, True, ["veto"], {}, 1.5, "none", "VETO", "veto ", "count:2"]
NOT_SECONDS = [0, -1, True, "60", MAX_TIMEOUT_S + 1, float("inf"), float("nan"), [60], 10**400]
BAD: dict[str, list[Any]] = {
    "approvers": NOT_NAMES,
    "min_approvers": NOT_MINIMA,
    "required_reviewers": NOT_NAMES,
    "reject_policy": [
        *NOT_WORDS[:-1],
        *("count", "count:", "count:0", "count:-1", "count:01", "count:1.5", "count:x", "count:२"),
        *("count:2 ", "count: 2", "veto:2", "count:1000000000", "count:2:3"),
    ],
    "order": [*NOT_WORDS, "serial", "Parallel"],
    "self_approval": [*NOT_WORDS, "deny"],
    "timeout": NOT_SECONDS,
    "on_timeout": [*NOT_WORDS, "send_back:previous"],
    "escalate_to": [value for value in NOT_NAMES if value not in ("PM", 5)] + ["", 0, -1],
    "max_escalations": [0, -1, 101, 1.5, True, "1", [1]],
    "on_reject": [*NOT_WORDS, "send_back", "send_back:", "send_back:0", "send_back:next", "fail:1"],
    "comment_required": [0, 1, "yes", "true", [], {}],
}


@pytest.mark.parametrize(("key", "value"), [(key, one) for key in BAD for one in BAD[key]])
def test_parse_refuses_what_no_policy_can_have(key: str, value: Any) -> None:
    """The message names the key, and nothing but Invalid is raised."""
    with pytest.raises(Invalid) as refused:
        parse({**BESIDE.get(key, {}), key: value})
    assert key in refused.value.what
    assert refused.value.expected


def test_parse_says_what_a_minimum_may_be() -> None:
    """The message shows the value and each of the ways to write it."""
    with pytest.raises(Invalid) as refused:
        parse({"min_approvers": "150%"})
    assert str(refused.value) == (
        "min_approvers '150%' is not valid: a number from 1 to 1000, 'all', or a share like '60%'"
    )
    with pytest.raises(Invalid, match=r"one of veto, majority, count:<number>$"):
        parse({"reject_policy": "count:0"})


@pytest.mark.parametrize("config", ["PM", ["PM"], 5, True, [("order", "parallel")], b"{}", ""])
def test_parse_refuses_what_is_no_mapping(config: object) -> None:
    """The config of an approval is a mapping, even where it is empty."""
    with pytest.raises(Invalid, match=r"config of an approval .* a mapping"):
        parse(config)


MEANT = {"approver": "approvers", "minApprovers": "min_approvers", "rejectpolicy": "reject_policy"}
MEANT |= {"on_timeuot": "on_timeout", "Timeout": "timeout", "escalate": "escalate_to"}


@pytest.mark.parametrize(("key", "meant"), [*MEANT.items(), ("zzz", None), (5, None), (None, None)])
def test_parse_refuses_an_unknown_key(key: Any, meant: str | None) -> None:
    """The key that is meant is named if one is near, and all of them are listed."""
    with pytest.raises(Invalid) as refused:
        parse({"order": "parallel", key: None})
    hint = f"did you mean {meant!r}? " if meant else ""
    assert (refused.value.what, refused.value.value) == ("policy key", key)
    assert refused.value.expected == f"{hint}one of {', '.join(KEYS)}"


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"order": "sequential"}, "a list of approvers"),
        ({"order": "sequential", "approvers": []}, "a list of approvers"),
        ({"order": "sequential", "required_reviewers": ["PM"]}, "a list of approvers"),
        *(({"on_timeout": word}, "a timeout") for word in ("approve", "reject", "escalate")),
        ({"on_timeout": "escalate", "timeout": 60}, "escalate_to, the users or roles"),
        ({"on_timeout": "escalate", "timeout": 60, "escalate_to": []}, "escalate_to, the users"),
        ({"escalate_to": ["CTO"]}, "on_timeout 'escalate'"),
        ({"escalate_to": ["CTO"], "timeout": 60, "on_timeout": "reject"}, "on_timeout 'escalate'"),
    ],
)
def test_parse_refuses_keys_that_contradict_each_other(config: Any, said: str) -> None:
    """A key that could have no effect, or lacks what it needs, is refused."""
    with pytest.raises(Invalid, match=said):
        parse(config)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
WORDS = st.sampled_from(["all", "60%", "veto", "count:2", "sequential", "escalate", "send_back:1"])


@settings(max_examples=400)
@given(st.dictionaries(st.sampled_from([*KEYS, "unknown"]), JSON | WORDS, max_size=4))
def test_parse_raises_nothing_but_invalid(config: dict[str, Any]) -> None:
    """Any JSON is a policy or refused."""
    try:
        assert parse(config).names is not None
    except Invalid as refusal:
        assert refusal.expected


def asked(config: dict[str, Any]) -> list[Seat]:
    """Return the seats of a policy; a number is that user, every other name is a role."""
    policy = parse(config)
    return seats_of(
        policy,
        {one: ("user", one) if isinstance(one, int) else ("role", None) for one in policy.names},
    )


@pytest.mark.parametrize(
    ("config", "seats"),
    [
        ({}, "any:anybody"),
        ({"approvers": []}, "any:anybody"),
        ({"min_approvers": 2}, "any:anybody"),
        ({"approvers": ["PM", 7]}, "role:PM! user:7!"),
        ({"approvers": ["PM", "PM"]}, "role:PM! role:PM!"),
        ({"approvers": ["PM"], "min_approvers": 1}, "role:PM"),
        ({"required_reviewers": ["QA"]}, "role:QA!"),
        ({"min_approvers": 2, "required_reviewers": [3]}, "user:3! any:anybody"),
        ({"approvers": ["PM"], "required_reviewers": ["QA"]}, "role:PM! role:QA!"),
        ({"approvers": [1], "min_approvers": "all", "required_reviewers": [2]}, "user:1 user:2!"),
    ],
)
def test_seats_of_a_policy_follow_the_defaults(config: Any, seats: str) -> None:
    """A1: approvers alone are all required (!); with a minimum they may vote, reviewers must."""
    found = asked(config)
    assert " ".join(f"{one.kind}:{one.label}{'!' * one.is_required}" for one in found) == seats
    assert [one.number for one in found] == list(range(1, len(found) + 1))
    assert all((one.user_id is not None) == (one.kind == "user") for one in found)


@pytest.mark.parametrize(
    ("config", "n_eligible", "needed", "electorate"),
    [
        ({}, None, 1, 1),
        ({"approvers": ["PM", "QA"]}, None, 2, 2),
        ({"approvers": ["PM", "QA"]}, 9, 2, 2),
        ({"required_reviewers": ["PM", "QA"]}, 9, 2, 2),
        ({"approvers": ["PM"], "required_reviewers": ["QA"]}, 9, 2, 2),
        ({"min_approvers": 2}, None, 2, 2),
        ({"min_approvers": 2}, 9, 2, 2),
        ({"min_approvers": 1, "required_reviewers": ["PM", "QA"]}, 9, 1, 2),
        ({"min_approvers": 2, "approvers": ["PM", "QA", "TL"]}, None, 2, 3),
        ({"min_approvers": 2, "approvers": ["PM"]}, 5, 2, 5),
        ({"min_approvers": "all"}, 5, 5, 5),
        ({"min_approvers": "all", "approvers": ["PM", "QA"]}, None, 2, 2),
        ({"min_approvers": "all", "approvers": ["PM", "QA"]}, 5, 5, 5),
        ({"min_approvers": "60%", "approvers": [1, 2, 3, 4, 5]}, None, 3, 5),
        ({"min_approvers": "60%"}, 5, 3, 5),
        ({"min_approvers": "60%"}, 6, 4, 6),
        ({"min_approvers": "1%"}, 5, 1, 5),
        ({"min_approvers": "1%"}, 0, 1, 0),
    ],
)
def test_terms_fix_how_many_of_how_many(
    config: Any, n_eligible: int | None, needed: int, electorate: int
) -> None:
    """A1, A3: the threshold and the electorate of each kind of policy; at least one approves."""
    config = {"reject_policy": "majority", **config}
    found = terms(parse(config), asked(config), n_eligible)
    assert found == Terms(needed, electorate, "majority", "parallel")


def needed(share: str, n_people: int) -> int:
    """Return how many of so many people a share asks for."""
    return terms(Policy(min_approvers=share), [], n_people).needed


def test_terms_round_every_whole_percent_up() -> None:
    """A3: 7 % of 100 is 7, as in whole numbers, for each percentage of up to 200 people."""
    for percent in range(1, 101):
        for n_people in range(201):
            assert needed(f"{percent}%", n_people) == max(1, -(-percent * n_people // 100))


@settings(max_examples=500)
@example(Decimal("16.1"), 1000)  # in floats 161.00000000000003
@example(Decimal("33.333334"), 300)
@given(st.decimals("0.000001", "100", places=6), st.integers(1, 100_000))
def test_terms_round_every_share_up(share: Decimal, n_people: int) -> None:
    """A3: with six decimals the number is that of exact fractions."""
    text = f"{share:f}%"
    assert parse({"min_approvers": text}).min_approvers == text
    assert needed(text, n_people) == math.ceil(Fraction(share) * n_people / 100)


PEOPLE = {"both": ["PM", "TL"], "pm": ["PM"], "tl": ["TL"], "qa": [], "dev": []}
YES, NO = "approve", "reject"
SENIOR = {"min_approvers": 2, "required_reviewers": ["PM"]}
IN_ORDER = {"approvers": ["PM", "TL"], "order": "sequential"}
EITHER = {"approvers": ["qa", "pm"], "min_approvers": 1, "reject_policy": "count:3"}


@pytest.mark.parametrize(
    ("config", "votes", "people", "said"),
    [
        ({}, [], None, "open: 0 of 1 approved; needs one more person"),
        ({}, [("a", YES)], None, "approved"),
        ({}, [("a", NO)], None, "rejected: the reject policy is veto"),
        ({}, [("qa", YES)], PEOPLE, "approved"),
        ({"approvers": ["a", 7]}, [(7, YES)], None, "open: 1 of 2 approved; needs a"),
        ({"approvers": ["a", 7]}, [(7, YES), ("a", YES)], None, "approved"),
        ({"approvers": [7]}, [(7, YES)], {"7": []}, "approved"),
        ({"approvers": ["PM", "TL"]}, [("x", YES)], None, "open: 1 of 2 approved; needs TL"),
        ({"approvers": ["PM", "TL"]}, [("x", YES), ("y", YES)], None, "approved"),
        ({"approvers": ["PM", "TL"]}, [("both", YES)], PEOPLE, "open: 1 of 2 approved; needs TL"),
        ({"approvers": ["PM", "TL"]}, [("both", YES), ("pm", YES)], PEOPLE, "approved"),
        ({"approvers": ["PM", "TL"]}, [("pm", YES), ("both", YES)], PEOPLE, "approved"),
        ({"approvers": ["PM", "qa"]}, [("qa", YES)], PEOPLE, "open: 1 of 2 approved; needs PM"),
        (SENIOR, [("qa", YES), ("dev", YES)], PEOPLE, "open: 2 of 2 approved; needs PM"),
        (SENIOR, [("qa", YES), ("pm", YES)], PEOPLE, "approved"),
        ({"min_approvers": "60%"}, [("qa", YES), ("pm", YES), ("dev", YES)], PEOPLE, "approved"),
        ({"approvers": ["PM"], "min_approvers": "all"}, [("pm", YES)], PEOPLE, "open: 1 of 2"),
        ({"min_approvers": 3}, [("a", YES), ("b", YES), ("c", NO)], None, "rejected: the reject"),
        (EITHER, [("qa", NO)], None, "open: 0 of 1 approved; needs one more person"),
        (EITHER, [("qa", NO), ("pm", NO)], None, "rejected: too few people are left"),
        (EITHER, [("qa", NO), ("pm", NO)], PEOPLE, "rejected: too few people are left"),
        (EITHER, [("stranger", NO), ("other", NO)], None, "open"),
        (EITHER, [{"user": "qa", "decision": YES}], PEOPLE, "approved"),
    ],
)
def test_simulate_says_what_votes_come_to(config: Any, votes: Any, people: Any, said: str) -> None:
    """Without people a name is a person; with them it is the person or the role that they say."""
    assert str(simulate(config, votes, people=people)).startswith(said)


@pytest.mark.parametrize(
    ("reject_policy", "why"), [("majority", "the reject policy"), ("count:5", "too few people")]
)
@pytest.mark.parametrize("people", [None, dict.fromkeys("abcde", ())])
def test_simulate_rejects_at_the_third_of_five(reject_policy: str, why: str, people: Any) -> None:
    """Table: 60 % of 5; two rejections leave it open, the third rejects it, in any order."""
    config = {"approvers": [*"abcde"], "min_approvers": "60%", "reject_policy": reject_policy}
    for order in permutations("abcde", 3):
        assert simulate(config, [(who, NO) for who in order[:2]], people=people).status == "open"
        found = simulate(config, [(who, NO) for who in order], people=people)
        assert (found.status, found.needed) == ("rejected", 3)
        assert found.reason.startswith(why)


def test_simulate_asks_in_order_when_sequential() -> None:
    """Each seat waits for the one before it; who votes too early is refused."""
    first = simulate(IN_ORDER, [("pm", YES)], people=PEOPLE)
    assert first == Outcome("open", 1, 0, 2, {1: "pm"}, ("TL",))
    assert simulate(IN_ORDER, [("pm", YES), ("both", YES)], people=PEOPLE).status == "approved"
    assert simulate(IN_ORDER, [("pm", NO)], people=PEOPLE).status == "rejected"
    assert simulate(IN_ORDER, [("PM", YES), ("TL", YES)]).status == "approved"
    for votes, people in [([("tl", YES), ("pm", YES)], PEOPLE), ([("TL", YES)], None)]:
        with pytest.raises(Invalid, match="whose turn it is"):
            simulate(IN_ORDER, votes, people=people)


@pytest.mark.parametrize(
    ("config", "votes", "people", "said"),
    [
        ({"aprovers": []}, [], None, "did you mean 'approvers'"),
        *(({}, [vote], None, "a pair of a person") for vote in ("ab", 5, None, ("a",), {"a", YES})),
        ({}, [("a", YES, "why")], None, "a pair of a person"),
        *(({}, [("a", one)], None, "decision") for one in ("yes", "", None, True, [YES], "Reject")),
        *(({}, [(who, YES)], None, "vote") for who in ("", " ", None, True, 0, -1, 1.5, [1])),
        *(({}, [vote], None, "not valid") for vote in ({}, {"user": "a"}, {"decision": YES})),
        ({"min_approvers": 2}, [("a", YES), ("a", YES)], None, "one vote of each person"),
        ({"min_approvers": 2}, [("a", YES), (" a ", NO)], None, "one vote of each person"),
        ({"min_approvers": 2}, [(5, YES), ("5", YES)], {5: []}, "one vote of each person"),
        ({"approvers": ["PM"]}, [("tl", YES)], PEOPLE, "a person who has a seat"),
        ({"approvers": ["qa"]}, [("pm", YES)], PEOPLE, "a person who has a seat"),
        ({"min_approvers": 1}, [("stranger", YES)], PEOPLE, "somebody of these people"),
        ({}, [("stranger", YES)], {}, "somebody of these people"),
        *(({"min_approvers": most}, [], None, "whom to count") for most in ("all", "60%")),
        ({}, [], {"PM": [], "a": ["PM"]}, "'PM' .* a person or a role, not both"),
    ],
)
def test_simulate_refuses_what_cannot_be_voted(
    config: Any, votes: Any, people: Any, said: str
) -> None:
    """The policy, the form of a vote, a second vote, a stranger, a voter without a seat."""
    with pytest.raises(Invalid, match=said):
        simulate(config, votes, people=people)


TWICE = {"approvers": ["PM"], "min_approvers": 2, "order": "sequential"}
ALL_AND_ONE = {"approvers": ["a", "b"], "min_approvers": "all", "required_reviewers": ["c"]}
TWO_OF_THREE = {"approvers": ["a", "b", "c"], "min_approvers": 2}
PM_LAST = {**IN_ORDER, "min_approvers": 1, "required_reviewers": ["PM"]}
NO_TL = {"both": ["PM", "TL"], "pm": ["PM"]}


@pytest.mark.parametrize(
    ("config", "votes", "people", "status"),
    [
        (IN_ORDER, [("both", YES)], NO_TL, "rejected"),
        ({**IN_ORDER, "reject_policy": "count:2"}, [("pm", NO), ("tl", YES)], PEOPLE, "rejected"),
        (TWICE, [("pm", YES)], PEOPLE, "rejected"),
        (PM_LAST, [("PM", YES), ("TL", YES)], None, "approved"),
        (ALL_AND_ONE, [("a", YES), ("c", YES)], None, "open"),
        (TWO_OF_THREE, [("a", NO), ("b", YES), ("c", YES)], None, "rejected"),
    ],
    ids=["nobody left", "asked once", "one seat for two", "asked too late", "all", "veto first"],
)
def test_simulate_decides_at_the_first_moment_it_is_certain(
    config: Any, votes: Any, people: Any, status: str
) -> None:
    """A3: a sequence that nobody can end is rejected, all means all, a veto stands."""
    assert simulate(config, votes, people=people).status == status
