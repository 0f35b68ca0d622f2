"""The most different rows of many: farthest-first over n-gram vectors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from random import Random
from zlib import crc32

from sftchat.text import words

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
