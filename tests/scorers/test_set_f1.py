"""Lists of items in any layout."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftchat import Example, Reply, Score, UsageError
from sftchat.scorers import set_f1
from sftchat.task import metric_value

NAMES = ("rome", "oslo", "巴黎", "são paulo", "42")


def score(gold: str, reply: str, separator: str = ",") -> Score:
    return set_f1(separator=separator).score(Example(({"role": "user", "content": "?"},), gold, "i"), Reply(reply))


@pytest.mark.parametrize(
    "reply",
    [
        "Rome, Oslo",
        "oslo，rome。",
        "Oslo、Rome",
        "- Oslo\n- Rome",
        "1. Rome\n2) Oslo",
        "**Rome**,\n“Oslo”",
        "Rome, Oslo, rome",
        "• Ｒｏｍｅ\n• Oslo\n",
    ],
)
def test_the_layout_and_order_of_a_list_do_not_matter(reply: str) -> None:
    assert score("Rome, Oslo", reply) == Score({"n": 1, "tp": 2, "pred": 2, "gold": 2, "answered": 1, "exact": 1}, "oslo\nrome")


@pytest.mark.parametrize(
    ("gold", "reply", "counts", "errors"),
    [
        ("Rome", "Rome, Oslo", (1, 2, 1, 1, 0), ("spurious",)),
        ("Rome, Oslo", "Rome", (1, 1, 2, 1, 0), ("missing",)),
        ("Rome", "none", (0, 0, 1, 1, 0), ("missing",)),
        ("无", "无。", (0, 0, 0, 1, 1), ()),
        ("none", "", (0, 0, 0, 0, 0), ("empty",)),
        ("none", "—, …", (0, 1, 0, 1, 0), ("spurious",)),
        ("Rome", "...", (0, 0, 1, 0, 0), ("no_items",)),
        ("Rome", "none, Rome", (1, 1, 1, 1, 1), ()),
    ],
)
def test_items_are_counted(gold: str, reply: str, counts: tuple[int, ...], errors: tuple[str, ...]) -> None:
    found = score(gold, reply)

    assert (found.stats, found.errors) == (dict(zip(("tp", "pred", "gold", "answered", "exact"), counts, strict=True)) | {"n": 1}, errors)


LISTS = st.frozensets(st.sampled_from(NAMES))


@given(st.lists(st.tuples(LISTS, LISTS), min_size=1), st.sampled_from([",", ";", "|", ""]))
def test_the_metrics_are_those_of_all_items_together(pairs: list[tuple[frozenset[str], frozenset[str]]], separator: str) -> None:
    scorer = set_f1(separator=separator)
    sums = dict.fromkeys(("n", "tp", "pred", "gold", "answered", "exact"), 0.0)
    for gold, said in pairs:
        texts = [(separator or "\n").join(sorted(items)) or "none" for items in (gold, said)]
        for key, count in score(texts[0], texts[1], separator).stats.items():
            sums[key] += count
    right = sum(len(gold & said) for gold, said in pairs)
    listed, wanted = sum(len(said) for _, said in pairs), sum(len(gold) for gold, _ in pairs)

    assert {metric.name: metric_value(metric, sums) for metric in scorer.metrics} == pytest.approx(
        {
            "f1": 2 * right / (listed + wanted) if listed + wanted else 1,
            "precision": right / listed if listed else float(not wanted),
            "recall": right / wanted if wanted else float(not listed),
            "exact": sum(gold == said for gold, said in pairs) / len(pairs),
        }
    )


def test_a_gold_reply_without_items_is_a_problem_of_its_row() -> None:
    rows = [Example((), gold) for gold in ("Rome", "none", "...")]

    assert [list(set_f1().validate_row(row)) for row in rows] == [
        [],
        [],
        ["the gold reply lists no item and is not a word for none (none, 无)"],
    ]


@pytest.mark.parametrize("separator", [" ", "and", "\n"])
def test_a_separator_is_punctuation(separator: str) -> None:
    with pytest.raises(UsageError) as caught:
        set_f1(separator=separator)

    assert str(caught.value) == f"separator is {separator!r}, must be punctuation, or empty for one item a line"
