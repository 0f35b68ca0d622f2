"""Rows that are nearly the same as one before them, found by MinHash in one pass, with half a kilobyte kept of each row.

Two rows are near when the Jaccard similarity of their runs of words reaches a threshold. MinHash (Broder 1997) estimates it from 128 hashes
of each row, with a standard error of 0.035 at 0.8; an index of 16 bands of 8 of them finds 95 of 100 pairs at 0.8 and 99.9 at 0.9 without
comparing every row with every other (Leskovec, Rajaraman, Ullman, Mining of Massive Datasets, 3.4).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from zlib import crc32

from sftchat.data.overlap import FEW, Run, common, runs
from sftchat.text import words

THRESHOLD = 0.8
"""From here on two rows are nearly the same: a passage with one name replaced is, one with every name replaced is not."""
HASHES = 128
BANDS = (16, 8)
FIRST = 1000
"""Rows that are read before the first is judged, to learn which runs belong to the instruction."""


@dataclass(frozen=True)
class Near:
    """A row and the earlier one that it nearly is.

    Attributes:
        source: Where the row stands.
        first: Where the earlier one stands.
        similarity: Estimate, from the threshold to 1.
    """

    source: str
    first: str
    similarity: float


class NearDuplicates:
    """Takes rows one by one and says which are near to an earlier one that was kept.

    A row that is near is not compared with later ones: of a chain of ever so slightly changed rows the first stays, and with it those that
    are far enough from it.

    Args:
        threshold: Similarity from which on a row is near, above 0 and at most 1.
    """

    def __init__(self, threshold: float = THRESHOLD) -> None:
        self._threshold = threshold
        self._kept: list[tuple[str, Any]] = []
        self._waiting: list[tuple[str, set[Run]]] = []
        self._instruction: frozenset[Run] | None = None

    @cached_property
    def _empty(self) -> Any:
        """The sketch of nothing; importing what makes sketches takes a second, which a file of short rows need not wait for."""
        from datasketch import MinHash

        return MinHash(num_perm=HASHES, seed=1, hashfunc=crc32)

    @cached_property
    def _index(self) -> Any:
        """The sketches kept, by their bands."""
        from datasketch import MinHashLSH

        return MinHashLSH(num_perm=HASHES, params=BANDS)

    def add(self, source: str, text: str) -> Iterator[Near]:
        """Take a row; what is found may be about earlier rows, and nothing is found before ``FIRST`` rows are there.

        Args:
            source: Where it stands; no other row stands there.
            text: What it says.
        """
        found = runs(words(text))
        if self._instruction is not None:
            yield from self._judge(source, found)
            return
        self._waiting.append((source, found))
        if len(self._waiting) == FIRST:
            yield from self.rest()

    def rest(self) -> Iterator[Near]:
        """Judge the rows that still wait; call it after the last."""
        if self._instruction is None:
            self._instruction = common((found for _, found in self._waiting), len(self._waiting))
        waiting, self._waiting = self._waiting, []
        for source, found in waiting:
            yield from self._judge(source, found)

    def _judge(self, source: str, found: set[Run]) -> Iterator[Near]:
        """Compare a row with those kept, and keep it where none is near."""
        telling = found - (self._instruction or frozenset())
        if len(telling) < FEW:
            return
        sketch = self._empty.copy()
        sketch.update_batch([" ".join(run).encode() for run in telling])
        alike = [(sketch.jaccard(self._kept[place][1]), -place) for place in self._index.query(sketch)]
        similarity, place = max(alike, default=(0.0, 0))
        if similarity >= self._threshold:
            yield Near(source, self._kept[-place][0], round(float(similarity), 2))
            return
        self._index.insert(len(self._kept), sketch, check_duplication=False)
        self._kept.append((source, sketch))
