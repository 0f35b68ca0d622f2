"""Sums, values and intervals."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftchat import Metric, PluginError, Score, rate, ratio
from sftchat.evaluation.statistics import (
    Counts,
    Interval,
    bootstrap_sums,
    build_counts,
    clopper_pearson_interval,
    compute_metric,
    count_distinct_rows,
    metric_interval,
    sum_clusters,
    wilson_interval,
)

F1 = Metric("f1", lambda sums: ratio(2 * sums["tp"], sums["pred"] + sums["gold"]), stats=("tp", "pred", "gold"))
EXACT = rate("exact", "exact")


def table(*rows: tuple[float, float, float]) -> Counts:
    """Counts of items given as (tp, pred, gold)."""
    return build_counts(Score({"tp": tp, "pred": pred, "gold": gold, "n": 1, "exact": int(tp == pred == gold)}) for tp, pred, gold in rows)


def test_f1_is_computed_from_sums_and_is_not_a_mean_of_items() -> None:
    nine_right_singles_and_one_wrong_of_ten = table(*[(1, 1, 1)] * 9, (0, 10, 10))

    assert round(compute_metric(F1, nine_right_singles_and_one_wrong_of_ten), 3) == 0.474
    assert compute_metric(EXACT, nine_right_singles_and_one_wrong_of_ten) == 0.9


@pytest.mark.parametrize(
    ("count", "n", "low", "high"),
    # from scipy.stats.binomtest(...).proportion_ci(method="exact")
    [
        (0, 1, 0.0, 0.975),
        (1, 1, 0.025, 1.0),
        (3, 50, 0.0125485878, 0.1654819466),
        (25, 60, 0.2906806665, 0.5511622022),
        (199, 200, 0.9724581015, 0.9998734190),
        (100_000, 1_000_000, 0.0994126699, 0.1005896482),
        (900_000, 1_000_000, 0.8994103518, 0.9005873301),
    ],
)
def test_clopper_pearson_agrees_with_scipy(count: int, n: int, low: float, high: float) -> None:
    assert clopper_pearson_interval(count, n, 0.95) == pytest.approx((low, high), abs=1e-9)


@pytest.mark.parametrize(
    ("share", "n", "low", "high"),
    # from scipy.stats.binomtest(...).proportion_ci(method="wilson")
    [(0.8, 10, 0.490162, 0.943318), (0.0, 20, 0.0, 0.161125), (1.0, 20, 0.838875, 1.0), (0.5, 200, 0.431361, 0.568639)],
)
def test_wilson_agrees_with_scipy(share: float, n: int, low: float, high: float) -> None:
    found = wilson_interval(share, n)

    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-6)


@given(n=st.integers(1, 500), data=st.data())
def test_wilson_contains_the_share_and_stays_within_0_and_1(n: int, data: st.DataObject) -> None:
    share = data.draw(st.integers(0, n)) / n
    found = wilson_interval(share, n)

    assert found.low is not None
    assert found.high is not None
    assert 0 <= found.low <= share <= found.high <= 1


def test_rates_of_items_get_wilson_and_other_metrics_the_bootstrap() -> None:
    some = table((1, 1, 1), (0, 1, 1), (2, 3, 2), (1, 2, 2))

    assert metric_interval(EXACT, some) == wilson_interval(0.25, 4)
    assert metric_interval(F1, some).method == "bootstrap"


def test_the_width_of_the_bootstrap_is_the_standard_error_of_the_mean() -> None:
    """Dividing the spread of resamples by sqrt(their number) once more makes intervals 100 times too narrow."""
    mean = Metric("mean", lambda sums: ratio(sums["x"], sums["n"]))
    draw = random.Random(0)
    numbers = [draw.gauss(5, 2) for _ in range(400)]
    found = metric_interval(mean, build_counts(Score({"x": number, "n": 1}) for number in numbers))
    standard_error = float(np.std(numbers)) / 400**0.5

    assert found.low is not None
    assert found.high is not None
    assert (found.high - found.low) / (2 * 1.96) == pytest.approx(standard_error, rel=0.05)


def test_items_without_errors_do_not_give_certainty() -> None:
    assert metric_interval(F1, table(*[(2, 2, 2)] * 50)) == wilson_interval(1.0, 50)
    assert metric_interval(F1, table(*[(0, 1, 2)] * 50)) == wilson_interval(0.0, 50)


def test_identical_items_carry_no_information_about_the_spread() -> None:
    assert metric_interval(F1, table(*[(1, 2, 2)] * 50)) == Interval(None, None, "none")
    assert metric_interval(F1, table((1, 2, 2))) == Interval(None, None, "none")


def test_the_same_seed_gives_the_same_interval_and_the_order_of_items_none_at_all() -> None:
    rows = [(1, 1, 1), (0, 1, 1), (2, 3, 2), (1, 2, 2), (0, 0, 2)] * 7
    once = metric_interval(F1, table(*rows), seed=3)

    assert metric_interval(F1, table(*rows), seed=3) == once
    assert metric_interval(F1, table(*reversed(rows)), seed=3) == once
    assert metric_interval(F1, table(*rows), seed=4) != once


def test_drawing_distinct_rows_draws_as_many_items_as_there_are() -> None:
    rows = table(*[(1, 1, 1)] * 5, (0, 1, 1), (2, 3, 2)).rows

    sums = bootstrap_sums(rows, 0, 500)

    n = table((1, 1, 1)).keys.index("n")
    assert sums.shape == (500, 5)
    assert set(sums[:, n]) == {7.0}


def test_resampling_in_chunks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = table((1, 1, 1), (0, 1, 1), (2, 3, 2)).rows
    whole = bootstrap_sums(rows, 0, 100)

    monkeypatch.setattr("sftchat.evaluation.statistics.MAX_DRAWN_VALUES", 10)

    assert (bootstrap_sums(rows, 0, 100) == whole).all()


@given(
    st.lists(st.tuples(*[st.sampled_from([-1.0, 0.0, 1.0, 2.0, 7.0])] * 3), min_size=1, max_size=40),
    st.sampled_from([1.0, 0.5, 1e18]),
)
def test_grouping_equal_rows_agrees_with_numpy(rows: list[tuple[float, float, float]], scale: float) -> None:
    matrix = np.array(rows) * scale
    distinct, times = count_distinct_rows(matrix)
    expected, counted = np.unique(matrix, axis=0, return_counts=True)

    assert (distinct == expected).all()
    assert (times == counted).all()


def test_a_cluster_is_the_sum_of_its_items() -> None:
    items = table((1, 1, 1), (0, 1, 1), (2, 3, 2), (1, 2, 2))
    books = sum_clusters(items, ["a", "b", "a", "b"])

    assert books.rows.tolist() == [(items.rows[0] + items.rows[2]).tolist(), (items.rows[1] + items.rows[3]).tolist()]
    assert compute_metric(F1, books) == compute_metric(F1, items)


def test_ten_items_of_one_document_carry_the_information_of_one() -> None:
    books = [(1, 1, 1), (0, 1, 1)] * 15
    alone = metric_interval(F1, table(*books))
    repeated = table(*(row for row in books for _ in range(10)))
    naive, honest = metric_interval(F1, repeated), metric_interval(F1, sum_clusters(repeated, [str(k // 10) for k in range(300)]))

    assert honest == alone
    assert naive.low is not None
    assert alone.low is not None
    assert naive.low > alone.low + 0.1


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([], "there are no scores to sum"),
        ([{}], "the scorer counts nothing"),
        ([{"a": 1}, {"b": 1}], "the scorer counts b for one reply and a for another"),
        ([{"a": float("nan")}], "the scorer gave a count that is not a finite number"),
    ],
)
def test_scores_with_inconsistent_keys_are_refused(scores: list[dict[str, float]], message: str) -> None:
    with pytest.raises(PluginError, match=f"^{message}$"):
        build_counts(Score(stats) for stats in scores)


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (rate("exact", "right"), "metric 'exact' reads 'right', which its scorer does not count (it counts: exact, gold, n, pred, tp)"),
        (
            Metric("x", lambda sums: 1 if sums["tp"] > 0 else 0, stats=("tp",)),
            f"metric 'x' failed for sums of tp, in {__file__}:",
        ),
        (
            Metric("x", lambda sums: sums["gold"], stats=("tp",)),
            f"metric 'x' failed for sums of tp, in {__file__}:",
        ),
        (Metric("x", lambda sums: sums["tp"] * float("nan"), stats=("tp",)), "metric 'x' has no finite value for some counts; "),
        (Metric("x", lambda sums: sums["gold"], per_item_rate=True), "metric 'x' says that it is a rate of items, but its value is 3"),
    ],
)
def test_a_metric_that_cannot_be_computed_is_named(metric: Metric, message: str) -> None:
    with pytest.raises(PluginError) as caught:
        metric_interval(metric, table((1, 1, 1), (0, 1, 2)))

    assert str(caught.value).startswith(message)
