"""Multiple choice and perplexity: which choice counts as chosen, and metrics of sums."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sftchat import Example, Reply
from sftchat.likelihood import Likelihood, describe_likelihoods, format_likelihoods, parse_likelihoods
from sftchat.scorers import multiple_choice, perplexity
from sftchat.task import metric_value

QUESTION = ({"role": "user", "content": "?"},)


def likely(*logprobs: float, tokens: Sequence[int] = ()) -> Reply:
    sizes = tokens or [1] * len(logprobs)
    return Reply(format_likelihoods(Likelihood(logprob, size, 1, False) for logprob, size in zip(logprobs, sizes, strict=True)))


def example(gold: str, choices: Any = ("ab", "abcd", "é")) -> Example:
    return Example(QUESTION, gold, "i", {"choices": choices})


def test_each_accuracy_divides_by_the_length_of_the_choice_without_its_delimiter() -> None:
    scorer = multiple_choice(raw=True)
    reply = likely(-4.0, -7.6, -3.9, tokens=(4, 3, 1))

    # per byte -2, -1.9, -1.95; per token -1, -2.5, -3.9; per character -2, -1.9, -3.9
    right = {
        gold: {key for key, value in scorer.score(example(gold), reply).stats.items() if value} - {"n"} for gold in ("ab", "abcd", "é")
    }

    assert right == {"ab": {"correct_tokens"}, "abcd": {"correct_bytes", "correct_characters"}, "é": {"correct"}}
    assert scorer.score(example("ab"), reply).answer == "é"
    assert multiple_choice(normalise="bytes").score(example("ab"), reply).answer == "abcd"
    assert [multiple_choice(normalise=kind).metrics[0].name for kind in ("none", "bytes", "tokens", "characters")] == [
        "accuracy", "accuracy_bytes", "accuracy_tokens", "accuracy_characters",
    ]  # fmt: skip


def test_of_equally_likely_choices_the_first_is_chosen() -> None:
    assert multiple_choice(("x", "y")).score(example("x"), likely(-1.0, -1.0)).answer == "x"


@pytest.mark.parametrize("gold", ["abcd", "B", "b", "(B)", "1", "Abcd."])
def test_the_gold_reply_is_a_text_a_letter_or_an_index(gold: str) -> None:
    scorer = multiple_choice()

    assert list(scorer.validate_row(example(gold))) == []
    assert scorer.score(example(gold), likely(-3.0, -1.0, -2.0)).errors == ()
    assert scorer.score(example(gold), likely(-1.0, -3.0, -2.0)).errors == ("wrong_choice",)


def test_the_text_of_a_choice_has_precedence_over_an_index() -> None:
    assert multiple_choice(("1", "0")).score(example("1"), likely(-1.0, -2.0)).errors == ()


def test_choices_may_be_those_of_arc_or_text_with_separators() -> None:
    arc = {"text": ["red", "blue"], "label": ["1", "2"]}

    assert multiple_choice().score(example("2", arc), likely(-2.0, -1.0)).answer == "blue"
    assert multiple_choice().score(example("2", arc), likely(-2.0, -1.0)).errors == ()
    assert multiple_choice().continuations(example("B", "red | light blue")) == ("red", "light blue")  # type: ignore[misc]


def test_likelihoods_of_another_number_of_choices_are_no_answer() -> None:
    assert multiple_choice().score(example("ab"), likely(-1.0, -2.0)).errors == ("wrong_choice",)


def test_perplexity_is_a_function_of_sums() -> None:
    scorer = perplexity()
    items = [
        scorer.score(Example(QUESTION, gold, "i"), likely(logprob, tokens=(tokens,)))
        for gold, logprob, tokens in (("Paris", -3.0, 2), ("in the south", -9.0, 4))
    ]
    sums = {key: sum(item.stats[key] for item in items) for key in items[0].stats}

    assert {metric.name: metric_value(metric, sums) for metric in scorer.metrics} == {
        "perplexity": math.exp(12 / 6), "bits_per_byte": pytest.approx(12 / 17 / math.log(2)), "word_perplexity": math.exp(12 / 4),
    }  # fmt: skip
    assert not any(metric.higher_is_better for metric in scorer.metrics)


def test_a_perplexity_beyond_the_range_of_numbers_is_finite() -> None:
    score = perplexity().score(Example(QUESTION, "a", "i"), likely(-1e6))

    assert all(math.isfinite(metric_value(metric, score.stats)) for metric in perplexity().metrics)


def test_reports_show_the_chosen_text_and_rounded_numbers() -> None:
    chosen, gold = likely(-1.25, -0.5004).text, likely(-3.0).text

    assert describe_likelihoods(chosen, "Lyon") == "Lyon\n(log-likelihood -1.25, -0.50)"
    assert describe_likelihoods(gold, "") == "log-likelihood -3.00"
    assert describe_likelihoods("Lyon", "Lyon") == "Lyon"


likelihoods = st.builds(
    Likelihood, st.floats(-1e9, 0).map(lambda value: value + 0.0), st.integers(1, 10**6), st.integers(1, 10**6), st.booleans()
)


@settings(deadline=None)
@given(st.lists(likelihoods, max_size=5))
def test_likelihoods_are_read_as_they_were_written_to_the_last_digit(written: list[Likelihood]) -> None:
    assert parse_likelihoods(format_likelihoods(written)) == tuple(written)


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)


@settings(deadline=None)
@given(st.text() | json_values.map(lambda value: json.dumps({"likelihoods": value}, separators=(",", ":"))))
def test_other_texts_are_no_likelihoods_and_never_raise(text: str) -> None:
    parsed = parse_likelihoods(text)

    assert parsed is None or parsed == ()


@pytest.mark.parametrize(
    "entry",
    [
        {"logprob": 0.5}, {"logprob": "x"}, {"logprob": float("-inf")}, {"logprob": float("nan")}, {"tokens": -1}, {"tokens": True},
        {"bytes": 1.5}, {"greedy": 1},
    ],
)  # fmt: skip
def test_an_invalid_likelihood_is_none(entry: dict[str, Any]) -> None:
    valid = {"logprob": -1.0, "tokens": 1, "bytes": 1, "greedy": False}

    assert parse_likelihoods(json.dumps({"likelihoods": [valid]}, separators=(",", ":"))) == (Likelihood(-1.0, 1, 1, False),)
    assert parse_likelihoods(json.dumps({"likelihoods": [valid | entry]}, separators=(",", ":"))) is None
