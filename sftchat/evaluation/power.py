"""Minimum detectable effect of an evalset, from a stored model's replies, before anything runs.

Two checkpoints of a model agree on most items, and only the others carry evidence. The new checkpoint is assumed to answer a share ``q`` of the
items (*resampled* items) independently of the stored one, and the whole drop ``d`` to happen on those. Let ``v`` be the variance of one item's
contribution to the metric (from the jackknife, Efron and Stein 1981), and ``w`` the same variance for a resampled item. The difference over ``n``
items then has the variance ``(q (v + w + (d / q)^2) - d^2) / n``. The drop that is detected with power ``b`` at level ``a`` is
``z(1 - a / 2) + z(b)`` times the square root of this variance. For shares of items this is exact up to the normal approximation. For other metrics
the ratio of ``w`` to ``v`` is taken from a share of the same value.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from sftchat.errors import UsageError
from sftchat.evaluation.comparison import MIN_DIFFERING_ITEMS, POINT, POWER
from sftchat.evaluation.evaluate import counts_per_unit, score_stored
from sftchat.evaluation.gate_options import GatedMetric
from sftchat.evaluation.plan import Plan
from sftchat.evaluation.results import SIGNIFICANCE_LEVEL
from sftchat.evaluation.statistics import Counts, apply_metric, compute_metric, count_distinct_rows
from sftchat.task import Metric
from sftchat.text import pluralize

RESAMPLED_SHARES = (0.1, 0.2, 0.4)
"""Shares of resampled items in the output: after a small change, after a usual one, and with a new training recipe."""
USUAL_RESAMPLED_SHARE = 0.2


@dataclass(frozen=True)
class MinimumDetectableEffect:
    """Minimum detectable effect of one metric on one evalset.

    Attributes:
        evalset: Name of the evalset.
        metric: Name of the metric.
        value: Value of the stored model.
        n: Number of items, or of clusters.
        margin: Margin of the gate, in points.
        drops: By share of resampled items, the smallest drop, in points, that is detected with 80 % power; without the shares for which no
            possible drop is detected.
        items_needed: Number of items needed to detect a drop of the margin, at the usual share; None with too few stored items.
    """

    evalset: str
    metric: str
    value: float
    n: int
    margin: float
    drops: dict[float, float]
    items_needed: int | None


def minimum_detectable_effects(plans: Sequence[Plan]) -> tuple[MinimumDetectableEffect, ...]:
    """Compute the minimum detectable effect of every gated metric on every evalset, from the baselines' stored replies; no model is opened.

    Args:
        plans: One plan per task, gated together.

    Raises:
        UsageError: When a plan has no stored replies.
    """
    tests = [(plan, name, table, rule) for plan in plans for name, table in _stored_counts(plan) for rule in plan.gate_config.gated]
    return tuple(
        minimum_detectable_effect(name, metric, table, rule, len(tests))
        for plan, name, table, rule in tests
        for metric in plan.task.metrics
        if metric.name == rule.metric
    )


def _stored_counts(plan: Plan) -> Iterator[tuple[str, Counts]]:
    """Yield the name of every evalset and the counts of its stored replies."""
    stored = [source.stored for source in (plan.baseline, *plan.sources) if source is not None and source.stored is not None]
    if not stored:
        raise UsageError("--plan needs stored items to plan from: give --baseline FILE, or --replies FILE")
    for evalset in plan.evalsets:
        (items,) = score_stored(plan.task, evalset.examples, stored[:1], None, plan.cluster)
        if items:
            yield evalset.name, counts_per_unit(items)


def minimum_detectable_effect(evalset: str, metric: Metric, table: Counts, rule: GatedMetric, tests: int = 1) -> MinimumDetectableEffect:
    """Compute the minimum detectable effect of one metric.

    Args:
        evalset: Name of the evalset.
        metric: Gated metric.
        table: Counts of the stored items, or clusters.
        rule: Margin of the gate.
        tests: Number of metrics and evalsets gated together; the level is divided by it.
    """
    n = len(table.rows)
    value = compute_metric(metric, table)
    if n < MIN_DIFFERING_ITEMS:
        return MinimumDetectableEffect(evalset, metric.name, value, n, rule.margin, {}, None)
    item_variance = _item_variance(metric, table)
    # a test needs a minimum number of broken items, even when all items have equal counts
    min_broken = _broken_items_needed(tests) if metric.per_item_rate or not item_variance else 0.0
    standard_errors = NormalDist().inv_cdf(1 - SIGNIFICANCE_LEVEL / tests / 2) + NormalDist().inv_cdf(POWER)
    direction = -1.0 if metric.higher_is_better else 1.0

    def smallest_drop(share: float, items: int) -> float:
        """Return the drop in units of the metric; it depends on the variance and the variance on it, so both are iterated from a drop of 0."""
        drop = 0.0
        for _ in range(50):
            ratio = _variance_ratio(value, value + direction * drop / share)
            variance = share * (item_variance * (1 + ratio) + (drop / share) ** 2) - drop**2
            drop = standard_errors * math.sqrt(max(0.0, variance) / items)
        return max(drop, min_broken / items)

    def detects_margin(items: int) -> bool:
        return smallest_drop(USUAL_RESAMPLED_SHARE, items) <= rule.margin * POINT

    enough = MIN_DIFFERING_ITEMS
    while not detects_margin(enough):
        enough *= 2
    needed = bisect_left(range(enough), True, lo=MIN_DIFFERING_ITEMS, key=detects_margin)  # the smallest number that does
    drops = {share: smallest_drop(share, n) / POINT for share in RESAMPLED_SHARES}
    if metric.higher_is_better and 0 <= value <= 1:
        drops = {share: drop for share, drop in drops.items() if drop * POINT <= value}  # the metric cannot fall below 0
    return MinimumDetectableEffect(evalset, metric.name, value, n, rule.margin, drops, needed)


def effect_lines(effect: MinimumDetectableEffect) -> tuple[str, ...]:
    """Return the lines for the user."""
    head = f"{effect.evalset}, {pluralize(effect.n, 'item')}: {effect.metric} {effect.value:.3f}"
    if effect.n < MIN_DIFFERING_ITEMS:
        return (f"{head}; no drop can be detected with fewer than {MIN_DIFFERING_ITEMS} items",)
    if not effect.drops:
        return (f"{head}; no drop can be detected with {POWER:.0%} power, because the metric cannot fall that far",)
    lines = [f"{head}; the smallest drop found with {POWER:.0%} power is"]
    lines += [f"  {drop:4.1f} points if {share:.0%} of the items get a new, independent reply" for share, drop in effect.drops.items()]
    if effect.items_needed:
        margin = f"{effect.margin:g} {'point' if effect.margin == 1 else 'points'}"
        lines.append(f"  for a drop of {margin} it takes about {effect.items_needed:,} items (at {USUAL_RESAMPLED_SHARE:.0%})")
    return tuple(lines)


def _item_variance(metric: Metric, table: Counts) -> float:
    """Return the variance of one item's contribution to a metric, by the jackknife: from the metric's values without each item."""
    distinct, times = count_distinct_rows(table.columns(metric))
    n = len(table.rows)
    values = apply_metric(metric, table, (distinct * times[:, None]).sum(axis=0) - distinct)
    mean = float((values * times).sum()) / n
    # (n - 1) / n times this sum is the variance of the metric, and n times that is the variance of one item's contribution
    return (n - 1) * float((times * (values - mean) ** 2).sum())


def _variance_ratio(before: float, after: float) -> float:
    """Return the variance of a share of items after a change divided by its variance before; 1 when ``before`` is not between 0 and 1."""
    if not 0 < before < 1:
        return 1.0
    after = min(max(after, 0.0), 1.0)
    return after * (1 - after) / (before * (1 - before))


def _broken_items_needed(tests: int) -> float:
    """Return how many items must break on average for a significant result with the required power.

    ``enough`` items that all break give a two-sided p of ``2 / 2^enough``. The number that breaks is taken as Poisson-distributed, and its mean is
    found by bisection.
    """
    enough = math.ceil(1 + math.log2(tests / SIGNIFICANCE_LEVEL))
    low, high = 0.0, 10.0 * enough
    for _ in range(60):
        mean = (low + high) / 2
        probability_of_fewer = sum(math.exp(-mean) * mean**k / math.factorial(k) for k in range(enough))
        if 1 - probability_of_fewer >= POWER:
            high = mean
        else:
            low = mean
    return high
