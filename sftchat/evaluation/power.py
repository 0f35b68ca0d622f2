"""Before anything runs: the smallest drop that a gold set can show, from how a stored model did on its items.

Two checkpoints of a model agree on most items, and only the others carry evidence. The assumption here, stated with every answer, is the
share ``q`` of items that the new checkpoint answers *afresh*, independently of the stored one, and all of the drop ``d`` happens on those.
With ``v`` the variance of one item's part in the metric (from the jackknife, Efron and Stein 1981) and ``w`` that of a fresh one, the
difference over ``n`` items has the variance ``(q (v + w + (d / q)^2) - d^2) / n``; the drop found with power ``b`` at level ``a`` is
``z(1 - a / 2) + z(b)`` times its root. For shares this is exact up to the normal approximation; other metrics borrow the ratio of ``w`` to ``v``.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from sftchat.errors import UsageError
from sftchat.evaluation.comparison import LEVEL
from sftchat.evaluation.evaluate import units
from sftchat.evaluation.paired_test import MIN_DIFFERING_ITEMS, POWER
from sftchat.evaluation.plan import Plan
from sftchat.evaluation.rules import POINT, GatedMetric
from sftchat.evaluation.scored import score_stored
from sftchat.evaluation.statistics import Counts, apply, grouped, value
from sftchat.task import Metric
from sftchat.text import counted

RESAMPLED_SHARES = (0.1, 0.2, 0.4)
"""Shares of items answered afresh that are tabulated: a careful step, the usual one, another recipe."""
USUAL_RESAMPLED_SHARE = 0.2


@dataclass(frozen=True)
class MinimumDetectableEffect:
    """What one gold set can show of one metric.

    Attributes:
        evalset: Name of the gold set.
        metric: Name of the metric.
        value: Of the stored model.
        n: Items, or clusters.
        margin: The gate's, in points.
        drops: Points of the smallest drop found with 80 % power, by the share of items answered afresh; without those at which
            no drop that the metric has room for would be found.
        items_needed: For a drop as large as the margin, at the usual share; None where nothing says so.
    """

    evalset: str
    metric: str
    value: float
    n: int
    margin: float
    drops: dict[float, float]
    items_needed: int | None


def planned(plans: Sequence[Plan]) -> tuple[MinimumDetectableEffect, ...]:
    """What every gold set can show of every gated metric, from the stored replies of the baselines; no model is asked.

    Args:
        plans: One for each task, gated together.

    Raises:
        UsageError: When a plan has no stored replies.
    """
    tables = [(plan, name, table) for plan in plans for name, table in _tables(plan)]
    tests = sum(len(plan.rules.gated) for plan, _, _ in tables)
    return tuple(
        minimum_detectable_effect(name, metric, table, rule, tests)
        for plan, name, table in tables
        for rule in plan.rules.gated
        for metric in plan.task.metrics
        if metric.name == rule.metric
    )


def _tables(plan: Plan) -> Iterator[tuple[str, Counts]]:
    """The counts of the stored replies to every gold set."""
    source = next((one for one in (plan.baseline, *plan.sources) if one is not None and one.stored is not None), None)
    if source is None or source.stored is None:
        raise UsageError("--plan needs stored items to plan from: give --baseline FILE, or --replies FILE")
    for evalset in plan.evalsets:
        items = score_stored(plan.task, evalset.examples, [source.stored], None, plan.cluster)[0]
        if items:
            yield evalset.name, units(items)


def minimum_detectable_effect(evalset: str, metric: Metric, table: Counts, rule: GatedMetric, tests: int = 1) -> MinimumDetectableEffect:
    """The smallest drop that a gold set can show.

    Args:
        evalset: Its name.
        metric: What is gated.
        table: Counts of the stored items, or clusters.
        rule: The margin.
        tests: How many metrics and gold sets are gated together; the level is divided among them.
    """
    n = len(table.rows)
    found = value(metric, table)
    if n < MIN_DIFFERING_ITEMS:
        return MinimumDetectableEffect(evalset, metric.name, found, n, rule.margin, {}, None)
    spread = _spread(metric, table)
    # however alike the items are, some must break before a test can notice
    least = _rarest(tests) if metric.items or not spread else 0.0
    reach = NormalDist().inv_cdf(1 - LEVEL / tests / 2) + NormalDist().inv_cdf(POWER)
    down = -1.0 if metric.higher_is_better else 1.0

    def smallest(share: float, items: int) -> float:
        """The drop in units of the metric; the variance depends on it, so it is approached from 0."""
        drop = 0.0
        for _ in range(50):
            variance = share * (spread * (1 + _growth(found, found + down * drop / share)) + (drop / share) ** 2) - drop**2
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
        drops = {share: drop for share, drop in drops.items() if drop * POINT <= found}  # it cannot fall further than to 0
    return MinimumDetectableEffect(evalset, metric.name, found, n, rule.margin, drops, needed)


def lines(found: MinimumDetectableEffect) -> tuple[str, ...]:
    """What to tell the user."""
    head = f"{found.evalset}, {counted(found.n, 'item')}: {found.metric} {found.value:.3f}"
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


def _spread(metric: Metric, table: Counts) -> float:
    """The variance of one item's part in a metric, by the jackknife."""
    rows, times = grouped(table.columns(metric))
    n = len(table.rows)
    without = apply(metric, table, (rows * times[:, None]).sum(axis=0) - rows)
    mean = float((without * times).sum()) / n
    return (n - 1) * float((times * (without - mean) ** 2).sum())


def _growth(before: float, after: float) -> float:
    """How the variance of a share changes with it; 1 for metrics on another scale."""
    if not 0 < before < 1:
        return 1.0
    after = min(max(after, 0.0), 1.0)
    return after * (1 - after) / (before * (1 - before))


def _rarest(tests: int) -> float:
    """How many items must break on average so that enough break with the power wanted (Poisson)."""
    enough = math.ceil(1 + math.log2(tests / LEVEL))
    low, high = 0.0, 10.0 * enough
    for _ in range(60):
        mean = (low + high) / 2
        fewer = sum(math.exp(-mean) * mean**k / math.factorial(k) for k in range(enough))
        low, high = (low, mean) if 1 - fewer >= POWER else (mean, high)
    return high
