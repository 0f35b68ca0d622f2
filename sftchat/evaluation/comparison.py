"""Two models on the same items: pairs, changed items, paired tests and intervals of the differences.

Only the items on which the models differ carry evidence; tests that ignore the pairing underestimate it (Yeh 2000).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from sftchat.errors import NotComparableError
from sftchat.evaluation.results import LEVEL, MetricDifference
from sftchat.evaluation.scored import Ints, Pair, ScoredItems
from sftchat.evaluation.statistics import (
    CONFIDENCE,
    RESAMPLES,
    Array,
    Counts,
    apply_metric,
    bootstrap_sums,
    central_interval,
    clopper_pearson_interval,
    coin_flip_sums,
    compute_metric,
    count_distinct_rows,
)
from sftchat.task import Metric


@dataclass(frozen=True, eq=False)
class PairedItems:
    """Items that both models answered, in the candidate's order.

    Attributes:
        old: Items of the baseline.
        new: Items of the candidate.
        indices: Indices into ``old`` and into ``new``, one pair per item.
    """

    old: ScoredItems
    new: ScoredItems
    indices: tuple[Ints, Ints]

    def __len__(self) -> int:
        return len(self.indices[0])

    def select(self, positions: Iterable[int]) -> tuple[Pair, ...]:
        """Return the pairs at the given positions, in that order."""
        old, new = self.indices
        return tuple((self.old[old[position]], self.new[new[position]]) for position in positions)

    @property
    def clusters(self) -> list[str]:
        """Cluster of every item."""
        return [self.new.arrays.clusters[index] for index in self.indices[1]]

    @cached_property
    def tables(self) -> tuple[Counts, Counts]:
        """Counts of the baseline and of the candidate; requires at least one item."""
        sides = zip((self.old.table, self.new.table), self.indices, strict=True)
        old, new = (Counts(table.keys, np.asfortranarray(table.rows[index])) for table, index in sides)  # metrics read columns
        return old, new

    @cached_property
    def text_changed(self) -> NDArray[np.bool_]:
        """Whether the two reply texts of an item differ."""
        return np.array([old.reply.text != new.reply.text for old, new in self.select(range(len(self)))], dtype=np.bool_)


def pair_items(old: ScoredItems, new: ScoredItems) -> PairedItems:
    """Pair the items that both models answered, in the candidate's order; an item that one of them failed to answer is left out."""
    index_of = {item_id: index for index, item_id in enumerate(old.ids)}
    in_old = np.fromiter((index_of.get(item_id, -1) for item_id in new.ids), np.int64, len(new))
    in_new = (in_old >= 0).nonzero()[0]
    return PairedItems(old, new, (in_old[in_new], in_new))


@dataclass(frozen=True)
class ItemChanges:
    """The changed items, each in exactly one of four groups.

    Attributes:
        broken: Right before, wrong now; largest loss first.
        fixed: Wrong before, right now; largest gain first.
        score_changed: Right or wrong as before, but with other counts; largest loss first.
        text_changed: Same counts, other text.
        losses: Loss of the metric by id, for items whose counts changed; negative for a gain.
    """

    broken: tuple[Pair, ...]
    fixed: tuple[Pair, ...]
    score_changed: tuple[Pair, ...]
    text_changed: tuple[Pair, ...]
    losses: dict[str, float]


def item_changes(pairs: PairedItems, metric: Metric) -> ItemChanges:
    """Group changed items and sort them by loss.

    The loss of an item is how much better the metric would be if only this reply were the old one: a metric is not a mean over items, so a
    single item has no value of its own.

    Args:
        pairs: All items under both models.
        metric: Primary metric.
    """
    before, after = pairs.tables
    old_errors, new_errors = (side.arrays.error_counts[index] for side, index in zip((pairs.old, pairs.new), pairs.indices, strict=True))
    old, new = before.columns(metric), after.columns(metric)
    sums = new.sum(axis=0)
    counts_changed = (before.rows != after.rows).any(axis=1)
    changed = counts_changed.nonzero()[0]
    better = apply_metric(metric, after, sums - new[changed] + old[changed]) - apply_metric(metric, after, sums)
    sign = 1.0 if metric.higher_is_better else -1.0
    losses = {int(position): sign * float(loss) for position, loss in zip(changed, better, strict=True)}
    was_right, is_right = old_errors == 0, new_errors == 0
    as_before = was_right == is_right
    fewer = old_errors - new_errors

    def cost(position: int) -> tuple[float, int]:
        """Sort key: largest loss first, then most additional error classes."""
        return -round(losses.get(position, 0.0), 12), int(fewer[position])

    def select(group: NDArray[np.bool_], reverse: bool = False) -> tuple[Pair, ...]:
        # sorting is stable, also in reverse: items with equal loss stay in the evalset's order
        return pairs.select(sorted(map(int, group.nonzero()[0]), key=cost, reverse=reverse))

    return ItemChanges(
        broken=select(was_right & ~is_right),
        fixed=select(~was_right & is_right, reverse=True),
        score_changed=select(as_before & counts_changed),
        text_changed=pairs.select((as_before & ~counts_changed & pairs.text_changed).nonzero()[0]),
        losses={pairs.new.ids[pairs.indices[1][position]]: loss for position, loss in losses.items()},
    )


EXACT_ITEMS = 16
"""Maximum number of differing items for which every swap is enumerated: 65,536 swaps."""
MIN_DIFFERING_ITEMS = 6
"""Minimum number of changed items for a significant result: two-sided, five items that all break give p = 2 / 2^5 = .063, six give .031.
The bootstrap cannot estimate the spread from fewer items either.
"""
TOLERANCE = 1e-12
"""Values of a statistic closer than this are ties: the order of summation changes the last bits."""
POWER = 0.8
"""Probability of detecting a drop of the stated size."""
INNER_CONFIDENCE = 0.90
"""Confidence level of the interval whose bounds are one-sided 5 % bounds, compared with a margin."""


@dataclass(frozen=True)
class _Effects:
    """Effects of the changed items on a metric, each item taken alone.

    Attributes:
        n: Number of all items.
        worse: Number of items that lower the metric.
        better: Number of items that raise it.
        loss: Total decrease, 0 or more.
        gain: Total increase, 0 or more.
    """

    n: int
    worse: int = 0
    better: int = 0
    loss: float = 0.0
    gain: float = 0.0


@dataclass(frozen=True)
class _Spread:
    """Intervals of a difference and its standard error; None when they cannot be estimated."""

    method: str
    low: float | None = None
    high: float | None = None
    low_90: float | None = None
    high_90: float | None = None
    error: float | None = None


def paired_difference(
    baseline: Counts, candidate: Counts, metric: Metric, *, seed: int = 0, resamples: int = RESAMPLES
) -> MetricDifference:
    """Compare two models on the same items.

    The interval is the paired percentile bootstrap (Koehn 2004). If fewer than six items got worse, or fewer than six got better, it is
    widened as described in ``_discordance_interval``. The test is approximate randomization (Yeh 2000, Riezler and Maxwell 2005): the two models' counts
    are swapped item by item, a tie counts as at least as large, and all swaps are enumerated when few items differ. For rates of items the
    test is McNemar's exact test (1947), which is the same test in closed form.

    Args:
        baseline: Counts of the first model.
        candidate: Counts of the second, on the same items in the same order.
        metric: Metric to compare.
        seed: Seed of the resampling.
        resamples: Number of resamples, for the interval and for the test.

    Raises:
        NotComparableError: When the two do not have the same items or the same count keys.
    """
    if baseline.keys != candidate.keys or baseline.rows.shape != candidate.rows.shape:
        raise NotComparableError("the two results do not have the same items and the same counts, so they cannot be paired")
    a, b = baseline.columns(metric), candidate.columns(metric)
    changed = (a != b).any(axis=1)
    differing = int(changed.sum())
    point_a, point_b = compute_metric(metric, baseline), compute_metric(metric, candidate)
    spread = _estimate_spread(metric, baseline, a, b, changed, seed, resamples)
    if differing == 0:
        p, test = 1.0, "identical"
    elif metric.per_item_rate:
        p, test = _mcnemar_p_value(apply_metric(metric, baseline, a), apply_metric(metric, candidate, b)), "mcnemar"
    else:
        exact = differing <= EXACT_ITEMS
        p, test = _permutation_p_value(metric, baseline, a, b, changed, seed, resamples), "exact permutation" if exact else "permutation"
    return MetricDifference(
        name=metric.name,
        baseline=point_a,
        candidate=point_b,
        low=spread.low,
        high=spread.high,
        p=p,
        interval=spread.method,
        test=test,
        differing=differing,
        low_90=spread.low_90,
        high_90=spread.high_90,
        standard_error=spread.error,
        higher_is_better=metric.higher_is_better,
    )


def adjust_p_values(values: Sequence[float]) -> tuple[float, ...]:
    """Adjust p-values of several tests to control the family-wise error rate (Holm 1979).

    Args:
        values: One p-value per test; the result has the same order.
    """
    adjusted = [0.0] * len(values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(values)), key=lambda index: values[index])):
        largest = max(largest, min(1.0, (len(values) - rank) * values[index]))
        adjusted[index] = largest
    return tuple(adjusted)


def _estimate_spread(metric: Metric, table: Counts, a: Array, b: Array, changed: Array, seed: int, resamples: int) -> _Spread:
    """Compute the paired bootstrap, widened when too few items changed, or all in the same direction."""
    width = a.shape[1]
    sums = bootstrap_sums(np.hstack((a, b)), seed, resamples)
    before, after = apply_metric(metric, table, sums[:, :width]), apply_metric(metric, table, sums[:, width:])
    differences = after - before
    bounds, error = (*central_interval(differences), *central_interval(differences, INNER_CONFIDENCE)), float(differences.std())
    bounded = min(before.min(), after.min()) >= 0 and max(before.max(), after.max()) <= 1
    effects = _measure_effects(metric, table, a, b, changed)
    if effects.worse >= MIN_DIFFERING_ITEMS and effects.better >= MIN_DIFFERING_ITEMS:
        return _Spread("bootstrap", *bounds, error)
    if (
        effects.worse + effects.better < MIN_DIFFERING_ITEMS and not bounded
    ):  # a share of items has no meaning for a metric on another scale
        return _Spread("bootstrap", *bounds, error) if changed.any() else _Spread("none")
    seen = float(apply_metric(metric, table, b.sum(axis=0)) - apply_metric(metric, table, a.sum(axis=0)))
    outer, inner = _discordance_interval(effects, seen, CONFIDENCE), _discordance_interval(effects, seen, INNER_CONFIDENCE)
    low, high, low_90, high_90 = (
        widest(bound, other) for widest, bound, other in zip((min, max, min, max), bounds, (*outer, *inner), strict=True)
    )
    if bounded:
        low, high, low_90, high_90 = (max(-1.0, min(1.0, bound)) for bound in (low, high, low_90, high_90))
    return _Spread("discordance", low, high, low_90, high_90, error if error > TOLERANCE else None)


def _measure_effects(metric: Metric, table: Counts, a: Array, b: Array, changed: Array) -> _Effects:
    """Count the items that lower and raise the metric, and sum their effects; the effect of an item is that of its change alone."""
    if not changed.any():
        return _Effects(len(a))
    changes, times = count_distinct_rows((b - a)[changed])
    before, after = a.sum(axis=0), b.sum(axis=0)
    # the mean of changing the item first and changing it last, so that swapping the models only changes the signs
    as_first = apply_metric(metric, table, before + changes) - apply_metric(metric, table, before)
    as_last = apply_metric(metric, table, after) - apply_metric(metric, table, after - changes)
    effects = (as_first + as_last) / 2
    worse, better = effects < -TOLERANCE, effects > TOLERANCE
    totals = effects * times
    return _Effects(len(a), int(times[worse].sum()), int(times[better].sum()), -float(totals[worse].sum()), float(totals[better].sum()))


def _discordance_interval(effects: _Effects, seen: float, confidence: float) -> tuple[float, float]:
    """Compute an interval of a difference from how many items lowered and how many raised the metric.

    Both shares of items get the exact interval of Clopper and Pearson (1934); the two are combined by recovering variances (Zou and Donner
    2008, with the correlation of two shares of one sample, as Newcombe 1998 does for paired shares). An item that may still change counts as
    much as a changed item does on average; if fewer than six changed, as much as an item can in a metric from 0 to 1: its share of all items.

    Args:
        effects: Effects of the changed items.
        seen: Observed difference; the interval contains it.
        confidence: Confidence level, between 0 and 1.
    """
    n, worse, better = effects.n, effects.worse, effects.better
    unseen = n * (effects.loss + effects.gain) / (worse + better) if worse + better >= MIN_DIFFERING_ITEMS else 1.0
    (low_loss, high_loss), (low_gain, high_gain) = (
        clopper_pearson_interval(worse, n, confidence),
        clopper_pearson_interval(better, n, confidence),
    )
    less_loss = effects.loss * (1 - low_loss * n / worse) if worse else 0.0
    less_gain = effects.gain * (1 - low_gain * n / better) if better else 0.0
    more_loss, more_gain = (high_loss - worse / n) * unseen, (high_gain - better / n) * unseen
    together = math.sqrt(worse * better / ((n - worse) * (n - better))) if worse and better else 0.0
    return (
        seen - math.sqrt(more_loss**2 + less_gain**2 + 2 * together * more_loss * less_gain),
        seen + math.sqrt(more_gain**2 + less_loss**2 + 2 * together * more_gain * less_loss),
    )


def _mcnemar_p_value(a: Array, b: Array) -> float:
    """Return the p-value of the exact sign test on the items that only one of two models got right."""
    broken, fixed = int((a > b).sum()), int((b > a).sum())
    n = broken + fixed
    if n == 0:
        return 1.0
    term = as_few = 1
    for k in range(min(broken, fixed)):  # each binomial coefficient follows from the previous one; integers, so exact for any n
        term = term * (n - k) // (k + 1)
        as_few += term
    return min(1.0, float(2 * as_few / 2**n))


def _permutation_p_value(metric: Metric, table: Counts, a: Array, b: Array, changed: Array, seed: int, resamples: int) -> float:
    """Return the two-sided p-value under swaps of the two models' counts, item by item; items with equal counts drop out."""
    gain = (b - a)[changed]
    if len(gain) <= EXACT_ITEMS:
        swapped = np.array(list(product((0.0, 1.0), repeat=len(gain)))) @ gain
    else:
        swapped = coin_flip_sums(gain, seed, resamples)
    totals_a, totals_b = a.sum(axis=0), b.sum(axis=0)
    observed = abs(float(apply_metric(metric, table, totals_b)) - float(apply_metric(metric, table, totals_a)))
    statistics = np.abs(apply_metric(metric, table, totals_b - swapped) - apply_metric(metric, table, totals_a + swapped))
    as_large = int((statistics >= observed - TOLERANCE).sum())
    if len(gain) <= EXACT_ITEMS:
        return as_large / len(statistics)
    return (1 + as_large) / (1 + resamples)


def estimate_items_needed(difference: MetricDifference, n: int, margin: float) -> int | None:
    """Estimate how many items would settle the outcome with a power of 80 %, if the difference and its spread stayed the same.

    The standard error falls with the square root of the number of items. The result is the smaller of two numbers: the items needed to exclude
    a drop of ``margin``, and those needed to make the observed drop significant, with the same power as ``--plan``.

    Args:
        difference: Difference between the models.
        n: Number of items, or clusters, in the comparison.
        margin: Margin in points of the metric.

    Returns:
        At least ``n + 1``; None when the spread cannot be estimated, or when more items would not change the outcome (a drop beyond the
        margin that is already significant).
    """
    error, least = difference.standard_error, 0.0
    if difference.differing < MIN_DIFFERING_ITEMS:
        bound = difference.smallest_gain  # hardly any item differs: use the upper bound of the share of items that may differ
        slack = margin * POINT + min(0.0, difference.gain)
        if bound is None:
            return None
        # an observed drop beyond the margin must become significant, which takes at least MIN_DIFFERING_ITEMS changed items
        least = n * ((min(0.0, difference.gain) - bound) / slack if slack > TOLERANCE else MIN_DIFFERING_ITEMS / difference.differing)
    elif not error:
        return None
    power = NormalDist().inv_cdf(POWER)
    distances = [(NormalDist().inv_cdf(1 - LEVEL), margin * POINT + difference.gain)]
    if difference.judgement != "worse":
        distances.append((NormalDist().inv_cdf(1 - LEVEL / 2), -difference.gain))
    needed = [n * ((z + power) * (error or 0.0) / distance) ** 2 for z, distance in distances if distance > TOLERANCE]
    return max(n + 1, math.ceil(max(least, min(needed)))) if needed else None


POINT = 0.01
"""One point of a metric: the unit of margins, drops and the items needed."""
