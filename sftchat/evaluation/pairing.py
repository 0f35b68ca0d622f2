"""The items that two models answered, side by side."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from sftchat.evaluation.items import Pair
from sftchat.evaluation.scored import Ints, Scored
from sftchat.evaluation.statistics import Counts


@dataclass(frozen=True, eq=False)
class Pairs:
    """Items that both models answered, in the candidate's order.

    Attributes:
        old: The baseline's items.
        new: The candidate's.
        places: Which of the baseline's, and which of the candidate's.
    """

    old: Scored
    new: Scored
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


def paired(old: Scored, new: Scored) -> Pairs:
    """The items that both answered, in the candidate's order: what one of them failed to answer says nothing about either."""
    where = {identity: place for place, identity in enumerate(old.ids)}
    found = np.fromiter((where.get(identity, -1) for identity in new.ids), np.int64, len(new))
    both = (found >= 0).nonzero()[0]
    return Pairs(old, new, (found[both], both))
