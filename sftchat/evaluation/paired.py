"""Is the difference between two models on the same items more than chance?

Both answered the same items, so only those on which they differ carry evidence; tests that forget the pairing understate it (Yeh 2000).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from sftchat.errors import NotComparableError
from sftchat.evaluation.comparison import Judgement, MetricDifference
from sftchat.evaluation.statistics import CONFIDENCE, RESAMPLES, Array, Counts, apply, bootstrap, coin_flips, percentiles, value
from sftchat.task import Metric

EXACT_ITEMS = 16
"""Up to this many differing items every swap is enumerated: 65,536 of them."""
FEWEST = 6
"""Two-sided, five items that all break are no evidence (p = 2 / 2^5 = .063), six are (.031); nor can a bootstrap know from fewer what others would do."""
TOLERANCE = 1e-12
"""Two values of a statistic closer than this are a tie: sums in another order differ in the last bits."""
LEVEL = 0.05
"""A smaller p is called significant."""
POWER = 0.8
"""How often a drop of the size that is spoken of would be found."""
INNER = 0.90
"""Confidence of the interval whose bounds are one-sided bounds at 5 %: what a margin is compared with."""


@dataclass(frozen=True)
class _Spread:
    """Intervals of a difference and its standard error; None where the items give no hint of them."""

    method: str
    low: float | None = None
    high: float | None = None
    low_90: float | None = None
    high_90: float | None = None
    error: float | None = None


def paired_difference(
    baseline: Counts, candidate: Counts, metric: Metric, *, seed: int = 0, resamples: int = RESAMPLES
) -> MetricDifference:
    """Compare two models on the same items, row by row.

    The interval is the paired percentile bootstrap (Koehn 2004): items are drawn with what both models did to them. The test is approximate
    randomization (Yeh 2000, Riezler and Maxwell 2005): the two models' counts are swapped item by item, a tie counts as at least as
    large, and all swaps are enumerated where few items differ. For rates of items the test is the exact form of McNemar's (1947), which
    is the same test in closed form.

    Args:
        baseline: Counts of the first model.
        candidate: Counts of the second, on the same items in the same order.
        metric: What to compare.
        seed: Of the resampling.
        resamples: How many, for the interval and for the test.

    Raises:
        NotComparableError: When the two do not have the same items or the same counts.
    """
    if baseline.keys != candidate.keys or baseline.rows.shape != candidate.rows.shape:
        raise NotComparableError("the two results do not have the same items and the same counts, so they cannot be paired")
    a, b = baseline.columns(metric), candidate.columns(metric)
    changed = (a != b).any(axis=1)
    differing = int(changed.sum())
    point_a, point_b = value(metric, baseline), value(metric, candidate)
    spread = _spread(metric, baseline, a, b, differing, seed, resamples)
    if differing == 0:
        p, test = 1.0, "identical"
    elif metric.items:
        p, test = _mcnemar(apply(metric, baseline, a), apply(metric, candidate, b)), "mcnemar"
    else:
        exact = differing <= EXACT_ITEMS
        p, test = _permutation(metric, baseline, a, b, changed, seed, resamples), "exact permutation" if exact else "permutation"
    return MetricDifference(
        metric.name,
        point_a,
        point_b,
        spread.low,
        spread.high,
        p,
        spread.method,
        test,
        differing,
        _judgement(spread.low, spread.high, p, metric.higher_is_better),
        spread.low_90,
        spread.high_90,
        spread.error,
        metric.higher_is_better,
    )


def holm(values: Sequence[float]) -> tuple[float, ...]:
    """Adjust p-values of several tests so that the chance of any false alarm among them stays at the level (Holm 1979).

    Args:
        values: One p a test, in any order; the answer is in the same.
    """
    adjusted = [0.0] * len(values)
    largest = 0.0
    for rank, place in enumerate(sorted(range(len(values)), key=lambda place: values[place])):
        largest = max(largest, min(1.0, (len(values) - rank) * values[place]))
        adjusted[place] = largest
    return tuple(adjusted)


def _judgement(low: float | None, high: float | None, p: float, higher_is_better: bool) -> Judgement:
    """The verdict on one metric; the test and the interval must agree."""
    if low is None or high is None or p >= LEVEL or low <= 0 <= high:
        return "no significant difference"
    return "better" if (low > 0) == higher_is_better else "worse"


def _spread(metric: Metric, table: Counts, a: Array, b: Array, differing: int, seed: int, resamples: int) -> _Spread:
    """The paired bootstrap, at least as wide as the number of items says where hardly any differ."""
    width = a.shape[1]
    sums = bootstrap(np.hstack((a, b)), seed, resamples)
    before, after = apply(metric, table, sums[:, :width]), apply(metric, table, sums[:, width:])
    differences = after - before
    bounds, error = (*percentiles(differences), *percentiles(differences, INNER)), float(differences.std())
    if differing >= FEWEST and error > TOLERANCE:
        return _Spread("bootstrap", *bounds, error)
    # a share of items says nothing about a metric on another scale
    if min(before.min(), after.min()) < 0 or max(before.max(), after.max()) > 1:
        return _Spread("bootstrap", *bounds, error) if differing else _Spread("none")
    # of n items none differs in a way not seen here, and the bootstrap would claim that none ever could: this share of all items may (Clopper, Pearson 1934)
    outer, inner = (1 - ((1 - confidence) / 2) ** (1 / len(a)) for confidence in (CONFIDENCE, INNER))
    seen = float(apply(metric, table, b.sum(axis=0)) - apply(metric, table, a.sum(axis=0)))
    low, high, low_90, high_90 = (
        max(-1.0, min(1.0, widest(bound, seen + way)))
        for widest, bound, way in zip((min, max, min, max), bounds, (-outer, outer, -inner, inner), strict=True)
    )
    return _Spread("discordance", low, high, low_90, high_90, error or None)


def _mcnemar(a: Array, b: Array) -> float:
    """The exact sign test on the items that only one of two models got right."""
    broken, fixed = int((a > b).sum()), int((b > a).sum())
    n = broken + fixed
    if n == 0:
        return 1.0
    term = as_few = 1
    for k in range(min(broken, fixed)):  # each binomial coefficient from the one before: whole numbers, so exact for any n
        term = term * (n - k) // (k + 1)
        as_few += term
    return min(1.0, float(2 * as_few / 2**n))


def _permutation(metric: Metric, table: Counts, a: Array, b: Array, changed: Array, seed: int, resamples: int) -> float:
    """Two-sided p of the difference under swaps of the two models' counts, item by item; items with equal counts drop out."""
    gain = (b - a)[changed]
    if len(gain) <= EXACT_ITEMS:
        swapped = np.array(list(product((0.0, 1.0), repeat=len(gain)))) @ gain
    else:
        swapped = coin_flips(gain, seed, resamples)
    totals_a, totals_b = a.sum(axis=0), b.sum(axis=0)
    observed = abs(float(apply(metric, table, totals_b)) - float(apply(metric, table, totals_a)))
    statistics = np.abs(apply(metric, table, totals_b - swapped) - apply(metric, table, totals_a + swapped))
    as_large = int((statistics >= observed - TOLERANCE).sum())
    if len(gain) <= EXACT_ITEMS:
        return as_large / len(statistics)
    return (1 + as_large) / (1 + resamples)
