"""Scorers made of scorers, and of functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sftchat import Example, Metric, Reply, Score, UsageError
from sftchat.scorers import Scorer, all_of, any_of, choice, contains, exact, function, make_scorer, numeric, rouge_l, set_f1, weighted
from sftchat.task import metric_value

TEXT = st.sampled_from(["42", "42 km", "about 42", "a, b", "b, a", "a", "yes 42", "no", "", "c"])
PARTS = (exact(), numeric(), exact(ignore_case=False), set_f1(separator=","), rouge_l(), choice(labels=("a", "b", "no")))


def example(gold: str) -> Example:
    return Example(({"role": "user", "content": "?"},), gold, "i")


def total(scorer: Scorer, pairs: list[tuple[str, str]]) -> dict[str, float]:
    scores = [scorer.score(example(gold), Reply(reply)) for gold, reply in pairs]
    return {key: sum(score.stats[key] for score in scores) for key in scores[0].stats}


@settings(deadline=None)
@given(st.lists(st.tuples(TEXT.filter(bool), TEXT), min_size=1), st.sampled_from([all_of, any_of, weighted]))
def test_the_metrics_of_parts_are_those_of_the_scorers_alone(pairs: list[tuple[str, str]], make: Any) -> None:
    scorer = make(parts=PARTS)
    values = {metric.name: metric_value(metric, total(scorer, pairs)) for metric in scorer.metrics[1:]}
    names = ("exact.", "numeric.", "exact2.", "set_f1.", "rouge_l.", "choice.")

    assert values == {
        name + metric.name: metric_value(metric, total(part, pairs))
        for name, part in zip(names, PARTS, strict=True)
        for metric in part.metrics
    }


@settings(deadline=None)
@given(st.lists(st.tuples(TEXT.filter(bool), TEXT), min_size=1), st.lists(st.floats(0.01, 100), min_size=6, max_size=6))
def test_weighted_is_the_weighted_mean_of_the_primary_metrics(pairs: list[tuple[str, str]], weights: list[float]) -> None:
    scorer = weighted(parts=tuple(zip(PARTS, weights, strict=True)))
    parts = [weight * metric_value(part.metrics[0], total(part, pairs)) for part, weight in zip(PARTS, weights, strict=True)]

    assert metric_value(scorer.metrics[0], total(scorer, pairs)) == pytest.approx(sum(parts) / sum(weights))


@settings(deadline=None)
@given(st.lists(st.tuples(TEXT.filter(bool), TEXT), min_size=1))
def test_all_and_any_are_those_of_the_parts(pairs: list[tuple[str, str]]) -> None:
    for gold, reply in pairs:
        errors = [part.score(example(gold), Reply(reply)).errors for part in PARTS]
        union = tuple(dict.fromkeys(error for part_errors in errors for error in part_errors))
        assert all_of(parts=PARTS).score(example(gold), Reply(reply)).errors == union
        assert any_of(parts=PARTS).score(example(gold), Reply(reply)).errors == (union if all(errors) else ())


def test_the_metrics_take_arrays() -> None:
    scorer = weighted(parts=PARTS)
    rows = [total(scorer, [pair]) for pair in (("42", "42 km"), ("a, b", "a"), ("no", "no"))]
    columns = {key: np.array([float(row[key]) for row in rows]) for key in rows[0]}

    assert scorer.metrics[0].function(columns).tolist() == pytest.approx([scorer.metrics[0].function(row) for row in rows])


def test_a_score_has_the_counts_of_all_parts() -> None:
    scorer = all_of(parts=(contains(), choice(labels=("yes", "no"))))

    assert scorer.score(example("yes"), Reply("no, yes")) == Score(
        {
            **{"n": 1, "correct": 0, "contains.n": 1, "contains.correct": 1},
            **{f"choice.{key}": count for key, count in (("n", 1), ("correct", 0), ("tp", 0), ("pred", 0), ("gold", 1))},
            **{"choice.tp:yes": 0, "choice.pred:yes": 0, "choice.gold:yes": 1, "choice.tp:no": 0, "choice.pred:no": 0, "choice.gold:no": 0},
        },
        "",
        ("ambiguous",),
        {"yes": {"choice.tp": 0, "choice.pred": 0, "choice.gold": 1, "gold": 1}},
        expected="yes",
    )
    assert scorer.labels == ("yes", "no")


def test_a_row_is_valid_for_any_of_when_one_part_can_score_it() -> None:
    parts = ({"name": "numeric"}, {"name": "exact"})
    problem = "the gold reply has no number"

    assert [list(make(parts=parts).validate_row(example("Paris"))) for make in (all_of, any_of, weighted)] == [[problem], [], [problem]]
    assert list(any_of(parts=parts).validate_row(example(""))) == [problem, "the row has no gold reply to compare with"]


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("all_of", {"parts": []}, "parts is empty, must be at least one scorer"),
        ("all_of", {"parts": [{"extract": "boxed"}]}, "parts[0]: needs the key 'name', the name of a scorer"),
        (
            "all_of",
            {"parts": [{"name": "exact"}, "exact"]},
            "parts[1]: is 'exact', must be a scorer or an object with its name and arguments",
        ),
        ("any_of", {"parts": [{"name": "exact", "weight": 2}]}, "parts[0]: scorer 'exact': unknown argument 'weight'"),
        ("any_of", {"parts": [{"name": "numeric", "absolute": -1}]}, "parts[0]: absolute is -1, must be a number from 0"),
        ("weighted", {"parts": [{"name": "exact", "weight": 0}]}, "parts[0]: weight is 0, must be a number above 0"),
        ("weighted", {"parts": [{"name": "exact", "weight": "2"}]}, "parts[0]: weight is '2', must be a number above 0"),
        ("all_of", {"parts": 3}, "scorer 'all_of': argument 'parts': is 3, must be a list"),
    ],
)
def test_an_invalid_part_is_named(name: str, arguments: Mapping[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        make_scorer(name, arguments)

    assert str(caught.value).startswith(message)


def test_weighted_refuses_parts_that_are_better_when_lower_and_scorers_of_likelihoods() -> None:
    lower = Scorer("errors", exact().score, (Metric("rate", lambda sums: sums["n"], higher_is_better=False),))
    likelihood = Scorer("likely", exact().score, exact().metrics, continuations=lambda example: ("a",))

    with pytest.raises(UsageError, match="'errors' cannot be a part of weighted: its metric is better when lower"):
        weighted(parts=(lower,))
    with pytest.raises(UsageError, match=r"parts\[0\]: 'likely' scores likelihoods and cannot be combined with scorers of replies"):
        all_of(parts=(likelihood,))


def test_a_function_of_truth_values_or_numbers_is_a_scorer() -> None:
    scorer = function(lambda example, reply: reply.text.count("!") <= 1)

    assert [scorer.score(example("x"), Reply(reply)) for reply in ("Hi!", "Hi!!", "")] == [
        Score({"n": 1, "score": 1}),
        Score({"n": 1, "score": 0}, errors=("low_score",)),
        Score({"n": 1, "score": 1}),
    ]
    assert [metric.name for metric in scorer.metrics] == ["score"]
    assert function(lambda example, reply: 0.5, threshold=0.5).score(example("x"), Reply("y")) == Score({"n": 1, "score": 0.5})


def test_a_function_that_is_annotated_with_bool_has_an_accuracy() -> None:
    def is_short(example: Example, reply: Reply) -> bool:
        return len(reply.text) < 3

    scorer = function(is_short)

    assert (scorer.metrics[0].name, scorer.metrics[0].per_item_rate) == ("accuracy", True)
    assert scorer.score(example("x"), Reply("yes")) == Score({"n": 1, "correct": 0}, errors=("low_score",))
    assert scorer.settings["function"].endswith("is_short")


def test_a_function_may_return_scores_with_metrics_of_its_own() -> None:
    length = Metric("length", lambda sums: sums["letters"], stats=("letters",))
    scorer = function(lambda example, reply: Score({"letters": len(reply.text)}), metrics=(length,))

    assert (scorer.metrics, scorer.score(example("x"), Reply("abc"))) == ((length,), Score({"letters": 3}))


@pytest.mark.parametrize(
    ("result", "metrics", "message"),
    [
        ("yes", (), "returned 'yes', must return True, False, a number from 0 to 1, or a Score"),
        (None, (), "returned None, must return True, False, a number from 0 to 1, or a Score"),
        (1.5, (), "returned 1.5, must return a number from 0 to 1"),
        (float("nan"), (), "returned nan, must return True, False, a number from 0 to 1, or a Score"),
        (Score({"n": 1}), (), "returned a Score; give function() the metrics of its counts"),
        (True, exact().metrics, "returned True, must return a Score"),
    ],
)
def test_another_result_of_a_function_is_an_error(result: Any, metrics: tuple[Metric, ...], message: str) -> None:
    scorer = function(lambda example, reply: result, metrics=metrics)

    with pytest.raises(TypeError) as caught:
        scorer.score(example("x"), Reply("y"))

    assert str(caught.value).endswith(message)
