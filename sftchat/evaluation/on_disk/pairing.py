"""The items that two models answered, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray

from sftchat.evaluation import statistics
from sftchat.evaluation.comparison import Pair
from sftchat.evaluation.evalset import cluster_of
from sftchat.evaluation.on_disk.scored import Scored
from sftchat.evaluation.results import ModelResult

Ints = NDArray[np.int64]


class StoredPairs(Sequence[Pair]):
    """Items of two models, each read and scored again when it is asked for.

    Args:
        old: The baseline's items.
        new: The candidate's.
        places: Which of the baseline's, and which of the candidate's.
    """

    def __init__(self, old: Scored, new: Scored, places: tuple[Ints, Ints]) -> None:
        self._old, self._new, self._places = old, new, places

    def __len__(self) -> int:
        """How many there are."""
        return len(self._places[0])

    @overload
    def __getitem__(self, place: int) -> Pair: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[Pair, ...]: ...
    def __getitem__(self, place: int | slice) -> Pair | tuple[Pair, ...]:
        """One pair, or some of them."""
        if isinstance(place, slice):
            return tuple(self[one] for one in range(len(self))[place])
        old, new = self._places
        return self._old[int(old[place])], self._new[int(new[place])]

    def clusters(self) -> list[str]:
        """The cluster of every item."""
        return [self._new.figures.clusters[place] for place in self._places[1]]

    def of_candidate(self) -> list[int]:
        """Which of the candidate's items they are."""
        return [int(place) for place in self._places[1]]

    def chosen(self, places: Sequence[int]) -> StoredPairs:
        """Some of them in another order."""
        old, new = self._places
        return StoredPairs(self._old, self._new, (old[list(places)], new[list(places)]))


@dataclass(frozen=True)
class Pairing:
    """Items that both models answered, in the gold set's order.

    Attributes:
        pairs: The items.
        ids: Theirs.
        before: The baseline's counts.
        after: The candidate's.
        faults: How many each item had with the baseline, and how many it has with the candidate.
        differs: Whether the two said something different.
    """

    pairs: Sequence[Pair]
    ids: Sequence[str]
    before: statistics.Counts
    after: statistics.Counts
    faults: tuple[Ints, Ints]
    differs: NDArray[np.bool_]

    def chosen(self, places: Sequence[int]) -> Sequence[Pair]:
        """Some of the pairs in another order."""
        return self.pairs.chosen(places) if isinstance(self.pairs, StoredPairs) else tuple(self.pairs[place] for place in places)

    def clusters(self, key: str) -> list[str]:
        """The cluster of every item, by a metadata key."""
        return self.pairs.clusters() if isinstance(self.pairs, StoredPairs) else [cluster_of(new.example, key) for _, new in self.pairs]


def ids_of_outcomes(result: ModelResult) -> list[str]:
    """The ids of what was answered, then of what was not."""
    items = result.items
    answered = items.ids if isinstance(items, Scored) else [item.example.id for item in items]
    return [*answered, *(failure.example.id for failure in result.failures)]


def paired(baseline: ModelResult, candidate: ModelResult) -> Pairing | None:
    """The items that both answered: what one of them failed to answer says nothing about either. None when there are none."""
    old, new = baseline.items, candidate.items
    if isinstance(old, Scored) and isinstance(new, Scored):
        return _stored(old, new)
    olds = {item.example.id: item for item in old}
    pairs = [(olds[item.example.id], item) for item in new if item.example.id in olds]
    if not pairs:
        return None
    faults = (np.array([len(pair[side].score.errors) for pair in pairs], dtype=np.int64) for side in (0, 1))
    return Pairing(
        pairs,
        [item.example.id for _, item in pairs],
        statistics.counts(before.score for before, _ in pairs),
        statistics.counts(after.score for _, after in pairs),
        (next(faults), next(faults)),
        np.array([before.reply.text != after.reply.text for before, after in pairs], dtype=np.bool_),
    )


def _stored(old: Scored, new: Scored) -> Pairing | None:
    """The same of items on disk, by where their examples stand."""
    a, b = old.figures, new.figures
    common = np.intersect1d(a.places, b.places, assume_unique=True)
    if a.table is None or b.table is None or not len(common):
        return None
    in_a, in_b = np.searchsorted(a.places, common), np.searchsorted(b.places, common)
    return Pairing(
        StoredPairs(old, new, (in_a, in_b)),
        [new.examples.ids[place] for place in common],
        statistics.Counts(a.table.keys, np.asfortranarray(a.table.rows[in_a])),
        statistics.Counts(b.table.keys, np.asfortranarray(b.table.rows[in_b])),
        (a.faults[in_a], b.faults[in_b]),
        a.said[in_a] != b.said[in_b],
    )
