"""Limits on replies: what is counted, with which interval, and when a limit is kept."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftchat import Example, Message, Reply, Score, UsageError
from sftchat.evaluation.limits import MEASURES, LimitValue, check_limits, describe_limit, measure_items
from sftchat.evaluation.samples import join_samples
from sftchat.evaluation.scored import Failure, Item, ScoredItems, collect_outcomes
from sftchat.evaluation.statistics import wilson_interval


def items(*pairs: tuple[Reply, Sequence[str]]) -> ScoredItems:
    """Scored items from replies and error classes."""
    return collect_outcomes(
        Item(Example((Message(role="user", content="?"),), "x", f"i{number}"), reply, Score({"n": 1}, errors=tuple(errors)))
        for number, (reply, errors) in enumerate(pairs)
    )


FINE = Reply("x", completion_tokens=4)
MIXED = items(
    (FINE, ()),
    (FINE, ()),
    (Reply("I am sorry, I cannot.", completion_tokens=8), ("wrong_answer",)),
    (Reply("Sorry, sir, it is x", completion_tokens=9), ()),
    (Reply("<think>hm</think>\n ", completion_tokens=6), ("empty",)),
    (Reply("x x x", "length", completion_tokens=10), ("unknown_label", "truncated")),
    (Reply("", refused=True), ("refused",)),
    (Reply("y", completion_tokens=3), ("no_marker",)),
)


@pytest.mark.parametrize(
    ("name", "count"), [("truncated", 1), ("empty", 2), ("refused", 2), ("unparsable", 2)],
)  # fmt: skip
def test_a_share_is_a_count_with_wilsons_interval(name: str, count: int) -> None:
    interval = wilson_interval(count / 8, 8)

    assert measure_items(name, MIXED) == LimitValue(count, 8, count / 8, interval.low, interval.high)


def test_tokens_are_a_mean_with_an_interval() -> None:
    measured = measure_items("tokens", MIXED)

    assert measured is not None
    assert (measured.count, measured.total, measured.value) == (44, 8, 5.5)
    assert 2.5 < (measured.low or 0) < 5.5 < (measured.high or 0) < 8.5


def test_every_sample_of_an_item_is_a_reply() -> None:
    cut = Reply("x", "length", completion_tokens=8)
    measured = measure_items("truncated", items((join_samples([cut, FINE]), ()), (join_samples([cut, cut]), ())))

    assert measured is not None
    assert (measured.count, measured.total, measured.value) == (3, 4, 0.75)


def test_what_is_unknown_keeps_no_limit() -> None:
    dead = collect_outcomes([Failure(Example((), "x", "i"), "server gone")])
    uncounted = items((Reply("a long text"), ()))

    assert [measure_items(name, dead) for name in MEASURES] == [None] * len(MEASURES)
    assert measure_items("tokens", uncounted) is None
    assert describe_limit("tokens", None, 9, upper=False) == (False, "tokens unknown: no reply has it, so it cannot be under the limit 9")


def test_the_upper_bound_is_limited_when_asked_for() -> None:
    measured = measure_items("truncated", MIXED)

    assert describe_limit("truncated", measured, 0.2, upper=False) == (
        True, "truncated is within the limit 0.2 (1 of 8 replies: 0.125 [0.022, 0.471])",
    )  # fmt: skip
    assert describe_limit("truncated", measured, 0.2, upper=True) == (
        False, "the upper bound of truncated, 0.471, is over the limit 0.2 (1 of 8 replies: 0.125 [0.022, 0.471])",
    )  # fmt: skip


@given(st.sampled_from([*MEASURES]), st.floats(0, 1), st.floats(0, 1))
def test_a_looser_limit_is_kept_when_a_tighter_one_is(name: str, one: float, other: float) -> None:
    measured = measure_items(name, MIXED)
    tight, loose = sorted((one, other))

    for upper in (False, True):
        assert describe_limit(name, measured, tight, upper=upper)[0] <= describe_limit(name, measured, loose, upper=upper)[0]


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"token": 3}, "unknown limit 'token'; did you mean 'tokens'? (available: empty, refused, tokens, truncated, unparsable)"),
        ({"tokens": 0}, "limit tokens = 0 must be a number of tokens above 0"),
        ({"tokens": float("nan")}, "limit tokens = nan must be a number of tokens above 0"),
        ({"empty": 5}, "limit empty = 5 must be a share from 0 to 1, such as 0.05"),
        ({"empty": float("nan")}, "limit empty = nan must be a share from 0 to 1, such as 0.05"),
    ],
)
def test_impossible_limits_are_refused(limits: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_limits(limits)

    assert str(caught.value) == message
