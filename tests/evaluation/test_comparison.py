"""Paired comparison of two models: known errors of other harnesses, and the error rates of this one."""

from __future__ import annotations

import math
import random
from functools import cache
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scripts.bench_gate import two_models
from sftchat import Metric, NotComparableError, Score, rate, ratio
from sftchat.evaluation import comparison as paired
from sftchat.evaluation.comparison import adjust_p_values, paired_difference
from sftchat.evaluation.gate import decide_outcome
from sftchat.evaluation.gate_options import GatedMetric
from sftchat.evaluation.results import MetricDifference
from sftchat.evaluation.statistics import Counts, build_counts, clopper_pearson_interval

F1 = Metric("f1", lambda sums: ratio(2 * sums["tp"], sums["pred"] + sums["gold"]), stats=("tp", "pred", "gold"))
EXACT = rate("exact", "exact")
Row = tuple[int, int, int]


def table(rows: list[Row]) -> Counts:
    """Counts of items given as (tp, pred, gold)."""
    return build_counts(Score({"tp": tp, "pred": pred, "gold": gold, "n": 1, "exact": int(tp == pred == gold)}) for tp, pred, gold in rows)


def marks(right: str) -> Counts:
    """Counts of single-answer items written as 1 and 0."""
    return table([(int(mark), 1, 1) for mark in right])


def test_one_changed_item_of_200_is_no_evidence() -> None:
    found = paired_difference(marks("1" * 200), marks("1" * 199 + "0"), F1)

    assert (found.p, found.test, found.differing, found.judgement) == (1.0, "exact permutation", 1, "no significant difference")


def test_identical_systems_have_p_1_and_an_interval_of_positive_width() -> None:
    bound, inner = 1 - ((1 - 0.95) / 2) ** (1 / 4), 1 - ((1 - 0.9) / 2) ** (1 / 4)
    for metric in (F1, EXACT):
        found = paired_difference(marks("1101"), marks("1101"), metric)

        assert found == MetricDifference(
            metric.name,
            0.75,
            0.75,
            pytest.approx(-bound),
            pytest.approx(bound),
            1.0,
            "discordance",
            "identical",
            0,
            pytest.approx(-inner),
            pytest.approx(inner),
        )
        assert (round(bound, 3), round(inner, 3)) == (0.602, 0.527)


def test_identical_systems_on_an_unbounded_metric_have_no_interval() -> None:
    found = paired_difference(marks("11"), marks("11"), Metric("count", lambda sums: sums["gold"]))

    assert (found.low, found.high, found.interval, found.p) == (None, None, "none", 1.0)


@pytest.mark.parametrize(
    ("broken", "fixed", "p"),
    [(6, 0, 0.03125), (8, 1, 0.0390625), (10, 2, 0.03857421875), (12, 4, 0.076812744140625), (1, 0, 1.0), (3, 3, 1.0)],
)
def test_mcnemar_is_exact_and_agrees_with_enumerating_every_swap(broken: int, fixed: int, p: float) -> None:
    before, after = marks("1" * broken + "0" * fixed + "1" * 30), marks("0" * broken + "1" * fixed + "1" * 30)
    no_rate = Metric("exact", EXACT.function, stats=EXACT.stats)

    assert paired_difference(before, after, EXACT).p == p
    assert paired_difference(before, after, no_rate).p == p


def test_mcnemar_needs_no_chi_square_for_thousands_of_items() -> None:
    found = paired_difference(marks("1" * 3000 + "0" * 2000), marks("0" * 3000 + "1" * 2000), EXACT)

    assert found.judgement == "worse"
    assert found.p < 1e-40
    assert found.difference == pytest.approx(-0.2)


def test_when_every_item_gets_worse_the_difference_is_significant_and_the_interval_has_width() -> None:
    found = paired_difference(marks("1" * 6), marks("0" * 6), F1)

    bound = 1 - ((1 - 0.95) / 2) ** (1 / 6)  # bounds of the share that does not change, and of the share that gets better
    assert (found.low, found.high, found.p, found.judgement) == (-1.0, pytest.approx(-1 + bound * 2**0.5), 0.03125, "worse")


def test_one_changed_item_does_not_narrow_the_interval() -> None:
    same, other = (paired_difference(marks("1" * 100), marks("1" * 99 + last), F1) for last in "10")

    assert other.high - other.low >= same.high - same.low  # type: ignore[operator]
    assert (round(same.low_90 or 0, 4), round(other.low_90 or 0, 4)) == (-0.0295, -0.0466)


def test_with_few_changed_items_the_interval_has_its_nominal_coverage() -> None:
    """Exact over all samples of 40 items: the plain bootstrap covers 93.9 % where 6 of 40 truly break, and misses a drop in 8 % of them."""
    n = 40

    @cache
    def measured(worse: int, better: int) -> MetricDifference:
        same = n - worse - better
        return paired_difference(
            marks("1" * worse + "0" * better + "1" * same), marks("0" * worse + "1" * better + "1" * same), EXACT, resamples=400
        )

    for worse, better in ((4, 0), (6, 0), (8, 1)):
        covered = missed = 0.0
        truth, p, q = (better - worse) / n, worse / n, better / n
        for b, c in product(range(n + 1), repeat=2):
            weight = math.comb(n, b) * math.comb(n - b, c) * p**b * q**c * (1 - p - q) ** (n - b - c) if b + c <= n else 0.0
            if weight > 1e-5:
                found = measured(b, c)
                assert found.low is not None
                assert found.high is not None
                assert found.low_90 is not None
                covered += weight * (found.low - 1e-9 <= truth <= found.high + 1e-9)
                missed += weight * (found.low_90 > truth + 1e-9)
        assert covered >= 0.95
        assert missed <= 0.055


@pytest.mark.parametrize("broken", [6, 9, 13, 17])
def test_intervals_of_one_sided_changes_are_widened_for_any_number(broken: int) -> None:
    found = paired_difference(marks("1" * 200), marks("1" * (200 - broken) + "0" * broken), EXACT)
    low, high = clopper_pearson_interval(broken, 200, 0.9)

    assert (found.interval, found.judgement) == ("discordance", "worse")
    assert found.low_90 == pytest.approx(-high)  # no item got better, so the drop is at most the share that may get worse
    assert found.high_90 is not None
    assert found.high_90 > -low


def test_six_in_each_direction_are_enough_for_the_bootstrap() -> None:
    methods = [
        paired_difference(marks("1" * 90 + "0" * 10), marks("0" * 6 + "1" * 84 + "1" * fixed + "0" * (10 - fixed)), EXACT).interval
        for fixed in (5, 6)
    ]

    assert methods == ["discordance", "bootstrap"]


def test_changes_that_cancel_out_give_an_interval_with_width() -> None:
    found = paired_difference(marks("10" * 10), marks("10" * 10), F1)
    swapped = paired_difference(
        Counts(("x",), np.zeros((20, 1))), Counts(("x",), np.ones((20, 1))), Metric("none", lambda sums: 0 * sums["x"])
    )

    assert (swapped.low, swapped.high, swapped.differing) == (found.low, found.high, 20)


def test_lower_is_better_inverts_the_judgement() -> None:
    wrong = Metric("wrong", lambda sums: 1 - ratio(sums["exact"], sums["n"]), stats=("exact", "n"), higher_is_better=False)
    before, after = marks("0" * 20 + "1" * 20), marks("1" * 20 + "1" * 20)

    assert paired_difference(before, after, wrong).judgement == "better"
    assert paired_difference(after, before, wrong).judgement == "worse"
    assert paired_difference(before, after, EXACT).judgement == "better"


rows = st.lists(
    st.tuples(*[st.sampled_from([(0, 0, 1), (0, 1, 1), (1, 1, 1), (1, 2, 2), (2, 2, 2), (0, 0, 0), (0, 1, 0)])] * 2), min_size=1, max_size=8
)


@given(rows)
@settings(max_examples=50, deadline=None)
def test_exact_p_equals_a_naive_enumeration(pairs: list[tuple[Row, Row]]) -> None:
    def f1(chosen: list[Row]) -> float:
        tp, pred, gold = (sum(row[column] for row in chosen) for column in range(3))
        return 2 * tp / (pred + gold) if pred + gold else 0.0

    observed = abs(f1([b for _, b in pairs]) - f1([a for a, _ in pairs]))
    swaps = list(product((False, True), repeat=len(pairs)))
    as_large = 0
    for swap in swaps:
        first = [b if s else a for s, (a, b) in zip(swap, pairs, strict=True)]
        second = [a if s else b for s, (a, b) in zip(swap, pairs, strict=True)]
        as_large += abs(f1(second) - f1(first)) >= observed - 1e-12

    found = paired_difference(table([a for a, _ in pairs]), table([b for _, b in pairs]), F1, resamples=200)

    assert found.p == pytest.approx(as_large / len(swaps))


@given(rows)
@settings(max_examples=50, deadline=None)
def test_swapping_the_models_only_changes_the_sign(pairs: list[tuple[Row, Row]]) -> None:
    a, b = table([a for a, _ in pairs]), table([b for _, b in pairs])
    there, back = paired_difference(a, b, F1, resamples=200), paired_difference(b, a, F1, resamples=200)

    assert (there.difference, there.p, there.differing) == (-back.difference, back.p, back.differing)


def test_sampled_swaps_agree_with_enumerated_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(1)
    before = [(draw.randint(0, 2), 2, 2) for _ in range(60)]
    after = [(draw.randint(0, 2), 3, 2) if number < 16 else row for number, row in enumerate(before)]
    exact = paired_difference(table(before), table(after), F1)
    monkeypatch.setattr(paired, "EXACT_ITEMS", 0)
    sampled = paired_difference(table(before), table(after), F1)

    assert (exact.test, sampled.test) == ("exact permutation", "permutation")
    assert sampled.p == pytest.approx(exact.p, abs=0.02)


def test_the_same_seed_gives_the_same_bytes() -> None:
    draw = random.Random(2)
    before, after = ([(draw.randint(0, 2), 2, 2) for _ in range(100)] for _ in range(2))
    once = paired_difference(table(before), table(after), F1, seed=5)

    assert once.test == "permutation"
    assert paired_difference(table(before), table(after), F1, seed=5) == once
    assert paired_difference(table(before), table(after), F1, seed=6) != once


def test_results_of_other_items_cannot_be_paired() -> None:
    with pytest.raises(
        NotComparableError, match=r"^the two results do not have the same items and the same counts, so they cannot be paired$"
    ):
        paired_difference(marks("11"), marks("111"), F1)


@given(st.lists(st.floats(0, 1), max_size=6))
def test_holm_is_between_the_plain_p_and_bonferronis_and_keeps_the_order(values: list[float]) -> None:
    adjusted = adjust_p_values(values)

    assert all(p <= q <= min(1.0, len(values) * p) + 1e-12 for p, q in zip(values, adjusted, strict=True))
    assert [q for _, q in sorted(zip(values, adjusted, strict=True))] == sorted(adjusted)


def test_holm_agrees_with_the_published_example() -> None:
    """Four tests at p = .01, .04, .03, .005: Holm (1979) gives .03, .06, .06, .02."""
    assert adjust_p_values([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))


def test_one_item_and_all_items_failed_need_no_special_case() -> None:
    alone, failed = paired_difference(marks("1"), marks("0"), F1), paired_difference(marks("0" * 9), marks("0" * 9), F1)

    assert (alone.p, alone.judgement) == (1.0, "no significant difference")
    assert (failed.p, failed.difference, failed.judgement) == (1.0, 0.0, "no significant difference")


def test_six_broken_items_are_the_smallest_significant_number() -> None:
    assert paired_difference(marks("1" * 20), marks("1" * 15 + "0" * 5), EXACT).p == 0.0625
    assert paired_difference(marks("1" * 20), marks("1" * 14 + "0" * 6), EXACT).p == 0.03125


def outcomes(drop: float, items: int, repetitions: int, resamples: int = 2000) -> dict[str, float]:
    """Return how often the gate gives each outcome for a model that is truly ``drop`` worse, simulated as in ``scripts/bench_gate.py``."""
    draw = np.random.default_rng(1)
    found = {"regressed": 0.0, "inconclusive": 0.0, "fine": 0.0}
    for _ in range(repetitions):
        before, after = two_models(draw, items, drop)
        difference = paired_difference(before, after, F1, resamples=resamples)
        found[decide_outcome(difference, GatedMetric("f1"))] += 1 / repetitions
    return found


@pytest.mark.parametrize("items", [100, 300])
def test_an_unchanged_model_is_rarely_called_worse(items: int) -> None:
    """A threshold of one point calls it worse in 28 % of these runs over 100 items, and in 19 % of those over 300."""
    assert outcomes(0.0, items, repetitions=200)["regressed"] <= 0.025


def test_a_real_drop_of_three_points_is_detected_in_three_of_four_samples() -> None:
    assert outcomes(0.03, items=300, repetitions=200)["regressed"] >= 0.75
