"""Which items changed between two models, and what each of them costs."""

from __future__ import annotations

from dataclasses import dataclass

from sftchat.evaluation.items import Pair
from sftchat.evaluation.pairing import Pairs
from sftchat.evaluation.statistics import apply
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

    broken: tuple[Pair, ...]
    fixed: tuple[Pair, ...]
    shifted: tuple[Pair, ...]
    alike: tuple[Pair, ...]
    losses: dict[str, float]


def item_changes(both: Pairs, metric: Metric) -> ItemChanges:
    """Sort changed items by what they cost.

    The loss of an item is how much better the metric would be with this one reply as it was: metrics are no means of items, so an item
    has no value of its own.

    Args:
        both: Every item under both models.
        metric: The primary one.
    """
    before, after = both.tables
    faults_before, faults_after = both.faults
    ids = both.ids
    old, new = before.columns(metric), after.columns(metric)
    totals = new.sum(axis=0)
    counted = (before.rows != after.rows).any(axis=1)
    changed = counted.nonzero()[0]
    better = apply(metric, after, totals - new[changed] + old[changed]) - apply(metric, after, totals)
    sign = 1.0 if metric.higher_is_better else -1.0
    losses = {int(place): sign * float(loss) for place, loss in zip(changed, better, strict=True)}
    was_right, is_right = faults_before == 0, faults_after == 0
    alike = was_right == is_right
    kinds = {
        "broken": was_right & ~is_right,
        "fixed": ~was_right & is_right,
        "shifted": alike & counted,
        "alike": alike & ~counted & both.differs,
    }
    fewer = faults_before - faults_after

    def cost(place: int) -> tuple[float, int]:
        """The loss, and among equals the number of faults."""
        return -round(losses.get(place, 0.0), 12), int(fewer[place])

    def gain(place: int) -> tuple[float, int]:
        """The opposite."""
        loss, faults = cost(place)
        return -loss, -faults

    places = {kind: [int(place) for place in which.nonzero()[0]] for kind, which in kinds.items()}
    # sorted is stable: items that cost the same stay in the evalset's order
    return ItemChanges(
        both.chosen(sorted(places["broken"], key=cost)),
        both.chosen(sorted(places["fixed"], key=gain)),
        both.chosen(sorted(places["shifted"], key=cost)),
        both.chosen(places["alike"]),
        {ids[place]: loss for place, loss in losses.items()},
    )
