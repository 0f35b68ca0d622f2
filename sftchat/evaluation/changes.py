"""Which items changed between two models, and what each of them costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sftchat.evaluation.comparison import Pair
from sftchat.evaluation.statistics import Counts, apply
from sftchat.task import Metric


@dataclass(frozen=True)
class ItemChanges:
    """The changed items in four kinds, every changed item in exactly one.

    Attributes:
        broken: Right before, not right now; the greatest loss first.
        fixed: Not right before, right now; the greatest gain first.
        shifted: As right or wrong as before, with other counts; the greatest loss first.
        alike: The same counts, another text.
        losses: What each item with other counts costs the metric, by id; negative where it gains.
    """

    broken: tuple[Pair, ...] = ()
    fixed: tuple[Pair, ...] = ()
    shifted: tuple[Pair, ...] = ()
    alike: tuple[Pair, ...] = ()
    losses: dict[str, float] = field(default_factory=dict)


def item_changes(pairs: Sequence[Pair], before: Counts, after: Counts, metric: Metric) -> ItemChanges:
    """Sort changed items by what they cost.

    The loss of an item is how much better the metric would be with this one reply as it was: metrics are no means of items, so an item
    has no value of its own.

    Args:
        pairs: Every item under both models.
        before: The baseline's counts of the same items, in the same order.
        after: The candidate's.
        metric: The primary one.
    """
    old, new = before.columns(metric), after.columns(metric)
    totals = new.sum(axis=0)
    changed = (before.rows != after.rows).any(axis=1).nonzero()[0]
    better = apply(metric, after, totals - new[changed] + old[changed]) - apply(metric, after, totals)
    sign = 1.0 if metric.higher_is_better else -1.0
    losses = {pairs[place][1].example.id: sign * float(loss) for place, loss in zip(changed, better, strict=True)}
    kinds: dict[str, list[Pair]] = {"broken": [], "fixed": [], "shifted": [], "alike": []}
    for pair in pairs:
        kind = _kind(pair, pair[1].example.id in losses)
        if kind:
            kinds[kind].append(pair)

    def cost(pair: Pair) -> tuple[float, int]:
        """The loss, and among equals the number of faults."""
        return -round(losses.get(pair[1].example.id, 0.0), 12), len(pair[0].score.errors) - len(pair[1].score.errors)

    # sorted is stable: items that cost the same stay in the evalset's order
    return ItemChanges(
        tuple(sorted(kinds["broken"], key=cost)),
        tuple(sorted(kinds["fixed"], key=lambda pair: tuple(-part for part in cost(pair)))),
        tuple(sorted(kinds["shifted"], key=cost)),
        tuple(kinds["alike"]),
        losses,
    )


def _kind(pair: Pair, other_counts: bool) -> str:
    """What happened to one item; empty for nothing."""
    old, new = pair
    if old.right != new.right:
        return "fixed" if new.right else "broken"
    if other_counts:
        return "shifted"
    return "alike" if old.reply.text != new.reply.text else ""
