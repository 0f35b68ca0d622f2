"""Items that two models answered, in pairs, and the changes between them."""

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
        old: Items of the baseline.
        new: Items of the candidate.
        places: Indices into ``old`` and into ``new``, one pair per item.
    """

    old: ScoredItems
    new: ScoredItems
    places: tuple[Ints, Ints]

    def __len__(self) -> int:
        return len(self.places[0])

    def chosen(self, places: Iterable[int]) -> tuple[Pair, ...]:
        """Return the pairs at the given indices, in that order."""
        old, new = self.places
        return tuple((self.old[old[place]], self.new[new[place]]) for place in places)

    @property
    def ids(self) -> list[str]:
        """Id of every item."""
        return [self.new.ids[place] for place in self.places[1]]

    @property
    def clusters(self) -> list[str]:
        """Cluster of every item."""
        return [self.new.figures.clusters[place] for place in self.places[1]]

    @cached_property
    def tables(self) -> tuple[Counts, Counts]:
        """Counts of the baseline and of the candidate; requires at least one item."""
        return _counts(self.old.table, self.places[0]), _counts(self.new.table, self.places[1])

    @property
    def faults(self) -> tuple[Ints, Ints]:
        """Number of error classes per item, with the baseline and with the candidate."""
        return self.old.figures.faults[self.places[0]], self.new.figures.faults[self.places[1]]

    @property
    def differs(self) -> NDArray[np.bool_]:
        """Whether the two reply texts of an item differ."""
        return np.not_equal(self.old.figures.said[self.places[0]], self.new.figures.said[self.places[1]])


def _counts(table: Counts, places: Ints) -> Counts:
    """Return the rows at some indices."""
    return Counts(table.keys, np.asfortranarray(table.rows[places]))  # column-major: metrics read columns


def pair_items(old: ScoredItems, new: ScoredItems) -> PairedItems:
    """Pair the items that both models answered, in the candidate's order; an item that one of them failed to answer is left out."""
    where = {identity: place for place, identity in enumerate(old.ids)}
    found = np.fromiter((where.get(identity, -1) for identity in new.ids), np.int64, len(new))
    both = (found >= 0).nonzero()[0]
    return PairedItems(old, new, (found[both], both))


@dataclass(frozen=True)
class ItemChanges:
    """The changed items, each in exactly one of four groups.

    Attributes:
        broken: Right before, wrong now; largest loss first.
        fixed: Wrong before, right now; largest gain first.
        shifted: Right or wrong as before, but with other counts; largest loss first.
        alike: Same counts, other text.
        losses: Loss of the metric by id, for items whose counts changed; negative for a gain.
    """

    broken: tuple[Pair, ...]
    fixed: tuple[Pair, ...]
    shifted: tuple[Pair, ...]
    alike: tuple[Pair, ...]
    losses: dict[str, float]


def item_changes(both: PairedItems, metric: Metric) -> ItemChanges:
    """Group changed items and sort them by loss.

    The loss of an item is how much better the metric would be if only this reply were the old one: a metric is not a mean over items, so a
    single item has no value of its own.

    Args:
        both: All items under both models.
        metric: Primary metric.
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
        """Sort key: largest loss first, then most additional error classes."""
        return -round(losses.get(place, 0.0), 12), int(fewer[place])

    def gain(place: int) -> tuple[float, int]:
        """Sort key: the reverse of ``cost``."""
        loss, faults = cost(place)
        return -loss, -faults

    places = {kind: [int(place) for place in which.nonzero()[0]] for kind, which in kinds.items()}
    # sorted is stable: items with equal loss stay in the evalset's order
    return ItemChanges(
        both.chosen(sorted(places["broken"], key=cost)),
        both.chosen(sorted(places["fixed"], key=gain)),
        both.chosen(sorted(places["shifted"], key=cost)),
        both.chosen(places["alike"]),
        {ids[place]: loss for place, loss in losses.items()},
    )
