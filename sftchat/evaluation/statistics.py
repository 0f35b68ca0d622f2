"""Metrics from summed counts, and their confidence intervals.

A metric is a function of summed counts, so a resample is a sum of rows, and F1 is never a mean of the items' F1. Items with equal counts are
interchangeable, so resampling draws how often each *distinct* row occurs. The distribution is the same as for items and does not depend on
their order, and thousands of items cost as much as their few dozen distinct rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from sftchat._util.plugin_calls import Malformed, call_plugin, short_repr
from sftchat.errors import PluginError
from sftchat.task import Metric
from sftchat.types import Score

Array = NDArray[np.float64]

RESAMPLES = 10_000
CONFIDENCE = 0.95
MAX_DRAWN_VALUES = 2_000_000
"""Maximum number of values that are drawn at once, so that resampling needs some tens of megabytes of memory only."""


@dataclass(frozen=True)
class Counts:
    """Counts of many items.

    Attributes:
        keys: Count keys, sorted.
        rows: Array of shape (items, keys).
    """

    keys: tuple[str, ...]
    rows: Array

    def columns(self, metric: Metric) -> Array:
        """Return the columns of the keys in ``metric.stats``, in that order; all columns when it is empty.

        Raises:
            PluginError: When the scorer does not count one of the keys.
        """
        keys = metric.stats or self.keys
        for key in keys:
            if key not in self.keys:
                raise PluginError(
                    f"metric '{metric.name}' reads '{key}', which its scorer does not count (it counts: {', '.join(self.keys)})"
                )
        return self.rows[:, [self.keys.index(key) for key in keys]]


@dataclass(frozen=True)
class Interval:
    """A 95 % confidence interval.

    Attributes:
        low: Lower bound; None when the spread cannot be estimated.
        high: Upper bound; None with ``low``.
        method: ``wilson``, ``bootstrap`` or ``none``.
    """

    low: float | None
    high: float | None
    method: str


def build_counts(scores: Iterable[Score]) -> Counts:
    """Collect the counts of scores in a matrix.

    Raises:
        PluginError: When there are no scores, two scores have different keys, or a count is not a finite number.
    """
    stats = [score.stats for score in scores]
    if not stats:
        raise PluginError("there are no scores to sum")
    if not stats[0]:
        raise PluginError("the scorer counts nothing")
    keys = tuple(sorted(stats[0]))
    for row in stats:
        if row.keys() != stats[0].keys():
            row_keys = ", ".join(sorted(row)) or "nothing"
            raise PluginError(f"the scorer counts {row_keys} for one reply and {', '.join(keys)} for another")
    rows = map(itemgetter(*keys), stats) if len(keys) > 1 else (row.values() for row in stats)  # itemgetter(key) would give no tuple
    values = chain.from_iterable(rows)
    matrix = np.fromiter(values, np.float64, len(stats) * len(keys)).reshape(len(stats), len(keys))
    if not np.isfinite(matrix).all():
        raise PluginError("the scorer gave a count that is not a finite number")
    return Counts(keys, matrix)


def sum_clusters(table: Counts, clusters: Sequence[str]) -> Counts:
    """Sum counts to one row per cluster.

    To resample or swap these rows is to resample or swap whole clusters. Items of one document are correlated; treating them as independent
    makes intervals up to three times too narrow (Miller 2024, arXiv 2411.00640).

    Args:
        table: Counts of items.
        clusters: The cluster of every item, in the same order.
    """
    index_by_cluster: dict[str, int] = {}
    indices = np.array([index_by_cluster.setdefault(cluster, len(index_by_cluster)) for cluster in clusters], dtype=np.int64)
    rows = np.zeros((len(index_by_cluster), table.rows.shape[1]))
    np.add.at(rows, indices, table.rows)
    return Counts(table.keys, rows)


def compute_metric(metric: Metric, table: Counts) -> float:
    """Compute a metric over all items.

    Raises:
        PluginError: When the metric needs a key that is not counted, or cannot be computed.
    """
    return float(apply_metric(metric, table, table.columns(metric).sum(axis=0)))


def apply_metric(metric: Metric, table: Counts, sums: Array) -> Array:
    """Compute a metric from sums of its columns.

    Args:
        metric: Metric to compute.
        table: Counts with the keys.
        sums: Sums of the columns ``table.columns(metric)`` along the last axis; the other axes may have any shape.

    Returns:
        One value per sum, in the shape of those other axes.

    Raises:
        PluginError: When the metric's function raises, or returns another shape or a value that is not finite.
    """
    sums_by_key = {key: sums[..., column].copy() for column, key in enumerate(metric.stats or table.keys)}
    shape = sums.shape[:-1]

    def compute() -> Array:
        result = np.asarray(metric.function(sums_by_key))
        if result.dtype.kind not in "biufO" or result.shape not in ((), shape):
            raise Malformed(f"gives {short_repr(result)}, must give a number, or an array of the shape {shape}")
        return np.broadcast_to(result.astype(np.float64), shape)  # a copy that the plugin cannot change

    values = call_plugin(f"metric '{metric.name}'", compute, doing=f"for sums of {', '.join(sums_by_key)}")
    if not np.isfinite(values).all():
        raise PluginError(f"metric '{metric.name}' has no finite value for some counts; divide with sftchat.ratio, which defines 0/0")
    return values


def metric_interval(metric: Metric, table: Counts, *, seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """Compute a 95 % confidence interval of a metric over the choice of items.

    Rates of items get the Wilson (1927) score interval, which is valid for small sets and at 0 and 1. Other metrics get the percentile
    bootstrap over items (Efron 1979). If every resample gives the same value, the bootstrap interval would have no width. A value of 0 or 1
    then gets the Wilson interval, and any other value gets no interval.

    Args:
        metric: Metric to estimate.
        table: Counts of the items.
        seed: Seed of the resampling; the same seed gives the same interval.
        resamples: Number of resamples, at least 1000 outside tests.

    Raises:
        PluginError: When the metric cannot be computed, or is declared a rate of items but is not between 0 and 1.
    """
    n = len(table.rows)
    point = compute_metric(metric, table)
    if metric.per_item_rate:
        if not 0 <= point <= 1:
            raise PluginError(f"metric '{metric.name}' says that it is a rate of items, but its value is {point:g}")
        return wilson_interval(point, n)
    values = apply_metric(metric, table, bootstrap_sums(table.columns(metric), seed, resamples))
    if np.ptp(values) > 0:
        low, high = central_interval(values)
        return Interval(low, high, "bootstrap")
    return wilson_interval(point, n) if point in (0.0, 1.0) else Interval(None, None, "none")


def wilson_interval(share: float, n: int) -> Interval:
    """Return the 95 % score interval of a share of ``n`` items (Wilson 1927); it contains shares of exactly 0 and 1."""
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    return Interval(max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half)), "wilson")


def clopper_pearson_interval(count: int, n: int, confidence: float) -> tuple[float, float]:
    """Return the exact interval of a share of ``n`` items (Clopper and Pearson 1934).

    Args:
        count: Number of items that have the property, from 0 to ``n``.
        n: Number of all items, at least 1.
        confidence: Confidence level, between 0 and 1.
    """
    if 2 * count > n:  # fewer terms to sum for the items without the property
        low, high = clopper_pearson_interval(n - count, n, confidence)
        return 1 - high, 1 - low
    tail = (1 - confidence) / 2
    low = _bisect_share(lambda share: 1 - _probability_at_most(count - 1, n, share) < tail) if count else 0.0
    high = _bisect_share(lambda share: _probability_at_most(count, n, share) > tail)
    return low, high


def _bisect_share(holds: Callable[[float], bool]) -> float:
    """Find the share from 0 to 1 up to which a condition holds, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        if holds(middle):
            low = middle
        else:
            high = middle
    return low


def _probability_at_most(count: int, n: int, share: float) -> float:
    """Return the probability of at most ``count`` successes in ``n`` trials; only terms that are not 0 in floating point are summed."""
    deviation = math.sqrt(count)  # at least the standard deviation, when at most ``count`` successes are expected
    if n * share < count - 6 * deviation:
        return 1.0
    first = max(0, count - int(12 * deviation) - 50)
    # logarithm of the probability of ``first`` successes
    log_first = math.lgamma(n + 1) - math.lgamma(first + 1) - math.lgamma(n - first + 1)
    log_first += first * math.log(share) + (n - first) * math.log1p(-share)
    # logarithms of the ratios of each further probability to the one before
    successes = np.arange(first + 1, count + 1)
    log_ratios = np.log((n - successes + 1) / successes) + math.log(share) - math.log1p(-share)
    return float(np.exp(log_first + np.append(0.0, np.cumsum(log_ratios))).sum())


def bootstrap_sums(rows: Array, seed: int, resamples: int) -> Array:
    """Draw ``len(rows)`` rows with replacement and sum them, once per resample: shape (resamples, columns)."""
    distinct, times = count_distinct_rows(rows)
    generator = np.random.default_rng(seed)
    shares = times / len(rows)
    return _sum_in_chunks(lambda size: generator.multinomial(len(rows), shares, size), distinct, resamples)


def coin_flip_sums(rows: Array, seed: int, resamples: int) -> Array:
    """Sum the rows that fair coin flips select, once per resample: shape (resamples, columns)."""
    distinct, times = count_distinct_rows(rows)
    generator = np.random.default_rng(seed)
    return _sum_in_chunks(lambda size: generator.binomial(times, 0.5, (size, len(times))), distinct, resamples)


def count_distinct_rows(rows: Array) -> tuple[Array, NDArray[np.int64]]:
    """Return the distinct rows in lexicographic order, and how often each occurs.

    Integer counts are packed into one number per row: sorting a million of those takes a tenth of a second, sorting rows several seconds.
    """
    low = rows.min(axis=0)
    sizes = rows.max(axis=0) - low + 1  # number of possible values of each column
    if (rows != np.floor(rows)).any() or float(np.prod(sizes)) >= 2**53:  # floats represent every integer only below 2**53
        distinct, times = np.unique(rows, axis=0, return_counts=True)
        return distinct, times
    # the columns are the digits of a number: the place value of a column is the product of the sizes of the columns to its right
    place_values = np.append(np.cumprod(sizes[:0:-1])[::-1], 1).astype(np.int64)
    codes, times = np.unique((rows - low).astype(np.int64) @ place_values, return_counts=True)
    return low + codes[:, None] // place_values % sizes.astype(np.int64), times


def central_interval(values: Array, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the interval that holds the share ``confidence`` of the values, with as many values below as above."""
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _sum_in_chunks(draw: Callable[[int], NDArray[np.int64]], distinct: Array, resamples: int) -> Array:
    """Sum the rows of each resample, some resamples at a time to limit memory; the number at a time does not change the result.

    ``draw`` takes a number of resamples and returns how often each distinct row occurs in each: shape (resamples, distinct rows).
    """
    size = max(1, MAX_DRAWN_VALUES // len(distinct))
    return np.concatenate([draw(min(size, resamples - start)) @ distinct for start in range(0, resamples, size)])
