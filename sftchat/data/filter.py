"""The most different rows of many: farthest-first over n-gram vectors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from random import Random
from zlib import crc32

from sftchat.data.duplicates import NearDuplicates, digest, whole_text
from sftchat.data.read import line_of
from sftchat.text import words
from sftchat.types import Example

BUCKETS = 1 << 18
"""Places of a vector; n-grams that fall into one place count together."""


def most_different(texts: Iterable[str], number: int, seed: int) -> list[int]:
    """Choose rows so that the least distance between any two of them is large (Gonzalez 1985, greedy k-center: at most twice the optimum).

    A text is the frequencies of its words and of its pairs of neighbouring words, a Chinese character being one, hashed and of length 1;
    the distance is one minus the cosine. Each row chosen costs one product of all vectors with one: time grows with texts times number.

    Args:
        texts: One a row.
        number: How many to choose.
        seed: Of the row to begin with.

    Returns:
        Places of the chosen rows, ascending.
    """
    import numpy as np
    from scipy.sparse import csr_matrix

    places: list[int] = []
    counts: list[int] = []
    ends = [0]
    for text in texts:
        said = words(text)
        grams = Counter(crc32(" ".join(gram).encode()) % BUCKETS for gram in [*((word,) for word in said), *pairwise(said)])
        places += grams.keys()
        counts += grams.values()
        ends.append(len(places))
    rows = len(ends) - 1
    if number >= rows:
        return list(range(rows))
    vectors = csr_matrix((np.array(counts, dtype=np.float32), np.array(places, dtype=np.int32), np.array(ends)), shape=(rows, BUCKETS))
    lengths = np.sqrt(np.asarray(vectors.multiply(vectors).sum(axis=1)).ravel())
    vectors = vectors.multiply(1 / np.maximum(lengths, 1e-12)[:, None]).tocsr()
    chosen = [Random(seed).randrange(rows)]
    nearest = np.full(rows, np.inf)
    while True:
        last = vectors[chosen[-1]]
        nearest = np.minimum(nearest, 1 - np.asarray((vectors @ last.T).todense()).ravel())
        nearest[chosen] = -np.inf  # equal rows are at distance 0 and may still have to be chosen
        if len(chosen) == number:
            return sorted(chosen)
        chosen.append(int(np.argmax(nearest)))


Rule = Callable[[Example], str]
"""What is wrong with a row; empty when nothing is."""


@dataclass(frozen=True)
class Selection:
    """What to keep.

    Attributes:
        rules: By the reason that they give, in the order in which they are asked.
        near: Similarity from which on a row is a near duplicate of an earlier one, up to 1; 0 looks for none.
        keep: How many of the rest to keep, the most different ones; None keeps all.
        seed: Of that choice.
    """

    rules: Mapping[str, Rule] = field(default_factory=dict)
    near: float = 0.8
    keep: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Removed:
    """A row that goes.

    Attributes:
        source: Where it stands.
        reason: The name of the rule, ``duplicate``, ``near-duplicate`` or ``diversity``.
        message: Why, in one line.
    """

    source: str
    reason: str
    message: str


def removed(examples: Iterable[Example], selection: Selection) -> tuple[int, list[Removed]]:
    """Count the rows and find those that go.

    Rows are read once and not kept, so that a file may be larger than memory; only the most different ones are chosen from all that are left.

    Args:
        examples: Each with a source of its own.
        selection: What to keep.

    Raises:
        DataError: A row is malformed.
        PluginError: A task's check or scorer failed.
    """
    rows = 0
    gone: dict[str, Removed] = {}
    first: dict[bytes, str] = {}
    neighbours = NearDuplicates(selection.near) if selection.near else None
    texts: dict[str, str] = {}
    for example in examples:
        rows += 1
        source = example.source
        broken = next(((reason, words) for reason, rule in selection.rules.items() if (words := rule(example))), None)
        if broken is not None:
            gone[source] = Removed(source, *broken)
            continue
        line = first.setdefault(digest(example.conversation), line_of(source))
        if line != line_of(source):
            gone[source] = Removed(source, "duplicate", f"the same row as line {line}")
            continue
        text = whole_text(example)
        if selection.keep is not None:
            texts[source] = text
        if neighbours is not None:
            for near in neighbours.add(source, text):
                gone[near.source] = _near(near.source, near.first, near.similarity)
    if neighbours is not None:
        for near in neighbours.rest():
            gone[near.source] = _near(near.source, near.first, near.similarity)
    if selection.keep is not None:
        left = {source: text for source, text in texts.items() if source not in gone}
        chosen = set(most_different(left.values(), selection.keep, selection.seed))
        for place, source in enumerate(left):
            if place not in chosen:
                gone[source] = Removed(source, "diversity", f"closer to one of the {len(chosen)} rows kept than those are to each other")
    return rows, list(gone.values())


def _near(source: str, first: str, similarity: float) -> Removed:
    """A near duplicate."""
    return Removed(source, "near-duplicate", f"nearly the same row as line {line_of(first)} (similarity about {similarity:.2f})")
