"""The items that two models answered, side by side."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from sftchat.evaluation.run import Pair
from sftchat.evaluation.scored import Ints, ScoredItems
from sftchat.evaluation.statistics import Counts, apply
from sftchat.task import Metric


@dataclass(frozen=True, eq=False)
class PairedItems:
    """Items that both models answered, in the candidate's order.

    Attributes:
        old: The baseline's items.
        new: The candidate's.
        places: Which of the baseline's, and which of the candidate's.
    """

    old: ScoredItems
    new: ScoredItems
    places: tuple[Ints, Ints]

    def __len__(self) -> int:
        """How many there are."""
        return len(self.places[0])

    def chosen(self, places: Iterable[int]) -> tuple[Pair, ...]:
        """Some of them, in the given order."""
        old, new = self.places
        return tuple((self.old[old[place]], self.new[new[place]]) for place in places)

    @property
    def ids(self) -> list[str]:
        """The id of every item."""
        return [self.new.ids[place] for place in self.places[1]]

    @property
    def clusters(self) -> list[str]:
        """The cluster of every item."""
        return [self.new.figures.clusters[place] for place in self.places[1]]

    @cached_property
    def tables(self) -> tuple[Counts, Counts]:
        """The baseline's counts, and the candidate's; there must be items."""
        return _counts(self.old.table, self.places[0]), _counts(self.new.table, self.places[1])

    @property
    def faults(self) -> tuple[Ints, Ints]:
        """How many faults each item had with the baseline, and how many it has with the candidate."""
        return self.old.figures.faults[self.places[0]], self.new.figures.faults[self.places[1]]

    @property
    def differs(self) -> NDArray[np.bool_]:
        """Whether the two said something different."""
        return np.not_equal(self.old.figures.said[self.places[0]], self.new.figures.said[self.places[1]])


def _counts(table: Counts, places: Ints) -> Counts:
    """The counts of some items."""
    return Counts(table.keys, np.asfortranarray(table.rows[places]))  # metrics read columns


def pair_items(old: ScoredItems, new: ScoredItems) -> PairedItems:
    """The items that both answered, in the candidate's order: what one of them failed to answer says nothing about either."""
    where = {identity: place for place, identity in enumerate(old.ids)}
    found = np.fromiter((where.get(identity, -1) for identity in new.ids), np.int64, len(new))
    both = (found >= 0).nonzero()[0]
    return PairedItems(old, new, (found[both], both))


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


def item_changes(both: PairedItems, metric: Metric) -> ItemChanges:
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
