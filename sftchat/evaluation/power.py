"""Minimum detectable effect of an evalset, from a stored model's replies, before anything runs.

Two checkpoints of a model agree on most items, and only the others carry evidence. The stated assumption is a share ``q`` of items that the new
checkpoint answers independently of the stored one (*resampled* items); all of the drop ``d`` happens on those. With ``v`` the variance
of one item's contribution to the metric (from the jackknife, Efron and Stein 1981) and ``w`` that of a resampled one, the difference over ``n``
items has the variance ``(q (v + w + (d / q)^2) - d^2) / n``; the drop detected with power ``b`` at level ``a`` is ``z(1 - a / 2) + z(b)`` times
its square root. For shares this is exact up to the normal approximation; for other metrics it uses the ratio of ``w`` to ``v`` of shares.
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
from sftchat.evaluation.gate import GatedMetric
from sftchat.evaluation.plan import Plan
from sftchat.evaluation.results import LEVEL
from sftchat.evaluation.statistics import Counts, apply_metric, compute_metric, count_distinct_rows
from sftchat.task import Metric
from sftchat.text import pluralize

RESAMPLED_SHARES = (0.1, 0.2, 0.4)
"""Tabulated shares of resampled items: a small change, the usual one, a new training recipe."""
USUAL_RESAMPLED_SHARE = 0.2


@dataclass(frozen=True)
class MinimumDetectableEffect:
    """Minimum detectable effect of one metric on one evalset.

    Attributes:
        evalset: Name of the evalset.
        metric: Name of the metric.
        value: Value of the stored model.
        n: Items, or clusters.
        margin: Margin of the gate, in points.
        drops: Smallest drop, in points, that is detected with 80 % power, by share of resampled items; shares for which no possible drop
            would be detected are left out.
        items_needed: Items needed to detect a drop of the margin, at the usual share; None when unknown.
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
    tables = [(plan, name, table) for plan in plans for name, table in _stored_counts(plan)]
    tests = sum(len(plan.gate_config.gated) for plan, _, _ in tables)
    return tuple(
        minimum_detectable_effect(name, metric, table, rule, tests)
        for plan, name, table in tables
        for rule in plan.gate_config.gated
        for metric in plan.task.metrics
        if metric.name == rule.metric
    )


def _stored_counts(plan: Plan) -> Iterator[tuple[str, Counts]]:
    """Yield the counts of the stored replies to every evalset."""
    source = next((one for one in (plan.baseline, *plan.sources) if one is not None and one.stored is not None), None)
    if source is None or source.stored is None:
        raise UsageError("--plan needs stored items to plan from: give --baseline FILE, or --replies FILE")
    for evalset in plan.evalsets:
        items = score_stored(plan.task, evalset.examples, [source.stored], None, plan.cluster)[0]
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
    found = compute_metric(metric, table)
    if n < MIN_DIFFERING_ITEMS:
        return MinimumDetectableEffect(evalset, metric.name, found, n, rule.margin, {}, None)
    spread = _item_variance(metric, table)
    # a test needs a minimum number of broken items, even when all items have equal counts
    least = _broken_items_needed(tests) if metric.per_item_rate or not spread else 0.0
    reach = NormalDist().inv_cdf(1 - LEVEL / tests / 2) + NormalDist().inv_cdf(POWER)
    down = -1.0 if metric.higher_is_better else 1.0

    def smallest(share: float, items: int) -> float:
        """Return the drop in units of the metric; the variance depends on it, so it is found by iteration from 0."""
        drop = 0.0
        for _ in range(50):
            variance = share * (spread * (1 + _variance_ratio(found, found + down * drop / share)) + (drop / share) ** 2) - drop**2
            drop = reach * math.sqrt(max(0.0, variance) / items)
        return max(drop, least / items)

    enough = MIN_DIFFERING_ITEMS
    while smallest(USUAL_RESAMPLED_SHARE, enough) > rule.margin * POINT:
        enough *= 2
    needed = bisect_left(
        range(enough), True, lo=MIN_DIFFERING_ITEMS, key=lambda items: smallest(USUAL_RESAMPLED_SHARE, items) <= rule.margin * POINT
    )
    drops = {share: smallest(share, n) / POINT for share in RESAMPLED_SHARES}
    if metric.higher_is_better and 0 <= found <= 1:
        drops = {share: drop for share, drop in drops.items() if drop * POINT <= found}  # the metric cannot fall below 0
    return MinimumDetectableEffect(evalset, metric.name, found, n, rule.margin, drops, needed)


def effect_lines(found: MinimumDetectableEffect) -> tuple[str, ...]:
    """Return the lines for the user."""
    head = f"{found.evalset}, {pluralize(found.n, 'item')}: {found.metric} {found.value:.3f}"
    if found.n < MIN_DIFFERING_ITEMS:
        return (f"{head}; fewer than {MIN_DIFFERING_ITEMS} items can show no drop at all",)
    if not found.drops:
        return (f"{head}; no drop can be found with {POWER:.0%} power, the metric has not that far to fall",)
    return (
        f"{head}; the smallest drop found with {POWER:.0%} power is",
        *(f"  {drop:4.1f} points where {share:.0%} of the items are answered afresh" for share, drop in found.drops.items()),
        *(
            [
                f"  for a drop of {found.margin:g} {'point' if found.margin == 1 else 'points'} it takes about {found.items_needed:,} items (at {USUAL_RESAMPLED_SHARE:.0%})"
            ]
            if found.items_needed
            else []
        ),
    )


def _item_variance(metric: Metric, table: Counts) -> float:
    """Return the variance of one item's contribution to a metric, by the jackknife."""
    distinct, repeats = count_distinct_rows(table.columns(metric))
    n = len(table.rows)
    without_item = apply_metric(metric, table, (distinct * repeats[:, None]).sum(axis=0) - distinct)
    mean = float((without_item * repeats).sum()) / n
    # the jackknife variance of the metric is (n - 1) / n times this sum, and one item contributes n times that
    return (n - 1) * float((repeats * (without_item - mean) ** 2).sum())


def _variance_ratio(before: float, after: float) -> float:
    """Return the ratio of a share's variances after and before; 1 for metrics on another scale."""
    if not 0 < before < 1:
        return 1.0
    after = min(max(after, 0.0), 1.0)
    return after * (1 - after) / (before * (1 - before))


def _broken_items_needed(tests: int) -> float:
    """Return how many items must break on average so that enough break with the required power (Poisson)."""
    enough = math.ceil(1 + math.log2(tests / LEVEL))
    low, high = 0.0, 10.0 * enough
    for _ in range(60):
        mean = (low + high) / 2
        fewer = sum(math.exp(-mean) * mean**k / math.factorial(k) for k in range(enough))
        low, high = (low, mean) if 1 - fewer >= POWER else (mean, high)
    return high
