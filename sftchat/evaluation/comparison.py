"""Two models on the same items: pairs, changed items, paired tests and intervals of the differences.

Only the items on which the models differ carry evidence; a test that ignores the pairing finds fewer of the real differences (Yeh 2000).
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
from sftchat.evaluation.results import SIGNIFICANCE_LEVEL, MetricDifference
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
        indices: For each pair, the index in ``old``, and the index in ``new``.
    """

    old: ScoredItems
    new: ScoredItems
    indices: tuple[Ints, Ints]

    def __len__(self) -> int:
        return len(self.indices[0])

    def select(self, positions: Iterable[int]) -> tuple[Pair, ...]:
        """Return the pairs at these positions, in that order."""
        old_indices, new_indices = self.indices
        return tuple((self.old[old_indices[position]], self.new[new_indices[position]]) for position in positions)

    @property
    def clusters(self) -> list[str]:
        """Cluster of every pair."""
        return [self.new.arrays.clusters[index] for index in self.indices[1]]

    @cached_property
    def tables(self) -> tuple[Counts, Counts]:
        """Counts of the baseline and of the candidate, one row per pair; requires at least one pair."""
        old_indices, new_indices = self.indices
        # column-major, because metrics read columns
        old_rows, new_rows = np.asfortranarray(self.old.table.rows[old_indices]), np.asfortranarray(self.new.table.rows[new_indices])
        return Counts(self.old.table.keys, old_rows), Counts(self.new.table.keys, new_rows)

    @cached_property
    def text_changed(self) -> NDArray[np.bool_]:
        """Whether the two reply texts differ, for every pair."""
        return np.array([old.reply.text != new.reply.text for old, new in self.select(range(len(self)))], dtype=np.bool_)


def pair_items(old: ScoredItems, new: ScoredItems) -> PairedItems:
    """Pair the items that both models answered, in the candidate's order."""
    old_index_by_id = {item_id: index for index, item_id in enumerate(old.ids)}
    old_indices = np.fromiter((old_index_by_id.get(item_id, -1) for item_id in new.ids), np.int64, len(new))
    new_indices = (old_indices >= 0).nonzero()[0]
    return PairedItems(old, new, (old_indices[new_indices], new_indices))


@dataclass(frozen=True)
class ItemChanges:
    """The changed items, each in exactly one of the first four fields.

    Attributes:
        broken: Right before, wrong now; largest loss first.
        fixed: Wrong before, right now; largest gain first.
        score_changed: Right or wrong as before, but with other counts; largest loss first.
        text_changed: Right or wrong as before, with the same counts and another text.
        losses: Loss of the metric by id, for items whose counts changed; negative for a gain.
    """

    broken: tuple[Pair, ...]
    fixed: tuple[Pair, ...]
    score_changed: tuple[Pair, ...]
    text_changed: tuple[Pair, ...]
    losses: dict[str, float]


def item_changes(pairs: PairedItems, metric: Metric) -> ItemChanges:
    """Group changed items and sort them by loss.

    The loss of an item is how much better the metric would be if only this item had its old reply. A metric is not a mean over items, so a single
    item has no value of its own.

    Args:
        pairs: All items under both models.
        metric: Primary metric.
    """
    old_indices, new_indices = pairs.indices
    old_errors, new_errors = pairs.old.arrays.error_counts[old_indices], pairs.new.arrays.error_counts[new_indices]
    was_right, is_right = old_errors == 0, new_errors == 0
    as_before = was_right == is_right
    before, after = pairs.tables
    counts_changed = (before.rows != after.rows).any(axis=1)
    changed = counts_changed.nonzero()[0]
    old, new = before.columns(metric), after.columns(metric)
    sums = new.sum(axis=0)
    increases = apply_metric(metric, after, sums - new[changed] + old[changed]) - apply_metric(metric, after, sums)
    sign = 1.0 if metric.higher_is_better else -1.0
    losses = {int(position): sign * float(increase) for position, increase in zip(changed, increases, strict=True)}

    def sort_key(position: int) -> tuple[float, int]:
        """Largest loss first, then most additional errors."""
        return -round(losses.get(position, 0.0), 12), int(old_errors[position] - new_errors[position])

    def select(mask: NDArray[np.bool_], reverse: bool = False) -> tuple[Pair, ...]:
        # sorting is stable, also in reverse: items with equal loss stay in the evalset's order
        return pairs.select(sorted(map(int, mask.nonzero()[0]), key=sort_key, reverse=reverse))

    return ItemChanges(
        broken=select(was_right & ~is_right),
        fixed=select(~was_right & is_right, reverse=True),
        score_changed=select(as_before & counts_changed),
        text_changed=pairs.select((as_before & ~counts_changed & pairs.text_changed).nonzero()[0]),
        losses={pairs.new.ids[new_indices[position]]: loss for position, loss in losses.items()},
    )


POINT = 0.01
"""One point of a metric: the unit of margins and drops."""
EXACT_ITEMS = 16
"""Maximum number of differing items for which every combination of swaps is enumerated: 65,536 combinations."""
MIN_DIFFERING_ITEMS = 6
"""Minimum number of changed items for a significant result: when all changed items break, five give a two-sided p = 2 / 2^5 = .063 and six
give .031. The bootstrap cannot estimate the spread from fewer items either."""
TOLERANCE = 1e-12
"""Values that differ by no more than this are equal: the order of summation changes the last bits."""
POWER = 0.8
"""Probability with which a drop of the stated size is detected."""
INNER_CONFIDENCE = 0.90
"""Confidence level of the interval that is compared with a margin: each of its bounds is a one-sided 5 % bound."""


@dataclass(frozen=True)
class _Effects:
    """Effects of the changed items on a metric, each item taken alone.

    Attributes:
        n: Number of all items, changed or not.
        worse: Number of items that lower the metric.
        better: Number of items that raise the metric.
        loss: Sum of the decreases, 0 or more.
        gain: Sum of the increases, 0 or more.
    """

    n: int
    worse: int = 0
    better: int = 0
    loss: float = 0.0
    gain: float = 0.0


@dataclass(frozen=True)
class _Spread:
    """A difference's 95 % interval, 90 % interval and standard error; None when they cannot be estimated."""

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
    widened to contain ``_discordance_interval``. The test is approximate randomization (Yeh 2000, Riezler and Maxwell 2005): the two models'
    counts are swapped in randomly chosen items. A difference equal to the observed one counts as at least as large. When few items differ, all
    combinations of swaps are enumerated. For rates of items the test is McNemar's exact test (1947), which is the same test in closed form.

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
    old, new = baseline.columns(metric), candidate.columns(metric)
    changed = (old != new).any(axis=1)
    differing = int(changed.sum())
    spread = _estimate_spread(metric, baseline, old, new, changed, seed, resamples)
    if differing == 0:
        p, test = 1.0, "identical"
    elif metric.per_item_rate:
        p, test = _mcnemar_p_value(apply_metric(metric, baseline, old), apply_metric(metric, candidate, new)), "mcnemar"
    else:
        p = _permutation_p_value(metric, baseline, old, new, changed, seed, resamples)
        test = "exact permutation" if differing <= EXACT_ITEMS else "permutation"
    return MetricDifference(
        name=metric.name,
        baseline=compute_metric(metric, baseline),
        candidate=compute_metric(metric, candidate),
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


def _estimate_spread(metric: Metric, table: Counts, old: Array, new: Array, changed: Array, seed: int, resamples: int) -> _Spread:
    """Compute the paired bootstrap, widened when too few items got worse or too few got better.

    ``old`` and ``new`` are the columns that the metric reads; ``changed`` tells for each item whether they differ.
    """
    width = old.shape[1]
    sums = bootstrap_sums(np.hstack((old, new)), seed, resamples)
    before, after = apply_metric(metric, table, sums[:, :width]), apply_metric(metric, table, sums[:, width:])
    differences = after - before
    low, high = central_interval(differences)
    low_90, high_90 = central_interval(differences, INNER_CONFIDENCE)
    error = float(differences.std())
    effects = _measure_effects(metric, table, old, new, changed)
    few_changed = effects.worse + effects.better < MIN_DIFFERING_ITEMS
    from_0_to_1 = min(before.min(), after.min()) >= 0 and max(before.max(), after.max()) <= 1
    if few_changed and not from_0_to_1 and not changed.any():
        return _Spread("none")
    # with few changed items the widening assumes a metric from 0 to 1
    if min(effects.worse, effects.better) >= MIN_DIFFERING_ITEMS or (few_changed and not from_0_to_1):
        return _Spread("bootstrap", low, high, low_90, high_90, error)
    observed = float(apply_metric(metric, table, new.sum(axis=0)) - apply_metric(metric, table, old.sum(axis=0)))
    wide_low, wide_high = _discordance_interval(effects, observed, CONFIDENCE)
    wide_low_90, wide_high_90 = _discordance_interval(effects, observed, INNER_CONFIDENCE)
    limit = 1.0 if from_0_to_1 else math.inf
    return _Spread(
        method="discordance",
        low=max(-limit, min(low, wide_low)),
        high=min(limit, max(high, wide_high)),
        low_90=max(-limit, min(low_90, wide_low_90)),
        high_90=min(limit, max(high_90, wide_high_90)),
        error=error if error > TOLERANCE else None,
    )


def _measure_effects(metric: Metric, table: Counts, old: Array, new: Array, changed: Array) -> _Effects:
    """Measure the effect of each changed item alone; the arguments are those of ``_estimate_spread``."""
    if not changed.any():
        return _Effects(len(old))
    changes, times = count_distinct_rows((new - old)[changed])
    before, after = old.sum(axis=0), new.sum(axis=0)
    # the mean of changing the item before all others and after all others, so that swapping the models only changes the signs
    as_first = apply_metric(metric, table, before + changes) - apply_metric(metric, table, before)
    as_last = apply_metric(metric, table, after) - apply_metric(metric, table, after - changes)
    effects = (as_first + as_last) / 2
    worse, better = effects < -TOLERANCE, effects > TOLERANCE
    totals = effects * times
    return _Effects(len(old), int(times[worse].sum()), int(times[better].sum()), -float(totals[worse].sum()), float(totals[better].sum()))


def _discordance_interval(effects: _Effects, observed: float, confidence: float) -> tuple[float, float]:
    """Compute an interval of a difference from how many items lowered and how many raised the metric.

    Both shares of items get the exact interval of Clopper and Pearson (1934). The two intervals are combined by recovering variances (Zou and
    Donner 2008, with the correlation of two shares of one sample, as Newcombe 1998 does for paired shares). Up to the upper bound of a share,
    more items may change than were observed. Each of those is assumed to have the mean effect of the changed items. If fewer than six items
    changed, each is assumed to have the largest effect that an item can have in a metric from 0 to 1: ``1 / n``.

    Args:
        effects: Effects of the changed items.
        observed: Observed difference; the interval contains it.
        confidence: Confidence level, between 0 and 1.
    """
    n, worse, better = effects.n, effects.worse, effects.better
    few_changed = worse + better < MIN_DIFFERING_ITEMS
    # effect of a further changed item, times n
    effect_times_n = 1.0 if few_changed else n * (effects.loss + effects.gain) / (worse + better)
    low_worse, high_worse = clopper_pearson_interval(worse, n, confidence)
    low_better, high_better = clopper_pearson_interval(better, n, confidence)
    # how much smaller and larger the total loss and gain may be than observed
    less_loss = effects.loss * (1 - low_worse * n / worse) if worse else 0.0
    less_gain = effects.gain * (1 - low_better * n / better) if better else 0.0
    more_loss, more_gain = (high_worse - worse / n) * effect_times_n, (high_better - better / n) * effect_times_n
    correlation = math.sqrt(worse * better / ((n - worse) * (n - better))) if worse and better else 0.0
    return (
        observed - math.sqrt(more_loss**2 + less_gain**2 + 2 * correlation * more_loss * less_gain),
        observed + math.sqrt(more_gain**2 + less_loss**2 + 2 * correlation * more_gain * less_loss),
    )


def _mcnemar_p_value(old: Array, new: Array) -> float:
    """Return the p-value of the exact sign test on the items that only one of two models got right; the arrays have 0 or 1 per item."""
    broken, fixed = int((old > new).sum()), int((new > old).sum())
    n = broken + fixed
    if n == 0:
        return 1.0
    # sum of the binomial coefficients C(n, 0) to C(n, min(broken, fixed)); in integers, so exact for any n
    coefficient = total = 1
    for k in range(min(broken, fixed)):
        coefficient = coefficient * (n - k) // (k + 1)
        total += coefficient
    return min(1.0, float(2 * total / 2**n))


def _permutation_p_value(metric: Metric, table: Counts, old: Array, new: Array, changed: Array, seed: int, resamples: int) -> float:
    """Return the two-sided p-value under swaps of the two models' counts; the arguments are those of ``_estimate_spread``."""
    changes = (new - old)[changed]
    exact = len(changes) <= EXACT_ITEMS
    # sum of the changes in the swapped items: one row per combination of swaps
    swapped = _all_subset_sums(changes) if exact else coin_flip_sums(changes, seed, resamples)
    old_sums, new_sums = old.sum(axis=0), new.sum(axis=0)
    observed = abs(float(apply_metric(metric, table, new_sums)) - float(apply_metric(metric, table, old_sums)))
    differences = np.abs(apply_metric(metric, table, new_sums - swapped) - apply_metric(metric, table, old_sums + swapped))
    as_large = int((differences >= observed - TOLERANCE).sum())
    return as_large / len(differences) if exact else (1 + as_large) / (1 + resamples)


def _all_subset_sums(rows: Array) -> Array:
    return np.array(list(product((0.0, 1.0), repeat=len(rows)))) @ rows


def estimate_items_needed(difference: MetricDifference, n: int, margin: float) -> int | None:
    """Estimate how many items would settle the outcome with a power of 80 %, if the difference and its spread stayed the same.

    The standard error falls with the square root of the number of items. The result is the smaller of two numbers: the items needed to exclude
    a drop of ``margin``, and the items needed to make the observed drop significant.

    Args:
        difference: Difference between the models.
        n: Number of items, or clusters, in the comparison.
        margin: Margin in points of the metric.

    Returns:
        At least ``n + 1``; None when the spread cannot be estimated, or when more items would not change the outcome (a drop beyond the
        margin that is already significant).
    """
    error, minimum = difference.standard_error, 0.0
    if difference.differing < MIN_DIFFERING_ITEMS:
        # so few items differ that the standard error says little: the bound that the gate compares with the margin has to shrink to it
        bound, drop = difference.smallest_gain, min(0.0, difference.gain)
        if bound is None:
            return None
        distance_to_margin = margin * POINT + drop
        if distance_to_margin > TOLERANCE:
            minimum = n * (drop - bound) / distance_to_margin
        else:  # a drop beyond the margin has to become significant, which takes MIN_DIFFERING_ITEMS changed items
            minimum = n * MIN_DIFFERING_ITEMS / difference.differing
    elif not error:
        return None
    z_power, z_margin, z_drop = (NormalDist().inv_cdf(level) for level in (POWER, 1 - SIGNIFICANCE_LEVEL, 1 - SIGNIFICANCE_LEVEL / 2))
    distances = [(z_margin, margin * POINT + difference.gain)]
    if difference.judgement != "worse":
        distances.append((z_drop, -difference.gain))
    estimates = [n * ((z + z_power) * (error or 0.0) / distance) ** 2 for z, distance in distances if distance > TOLERANCE]
    return max(n + 1, math.ceil(max(minimum, min(estimates)))) if estimates else None
