"""Filter rows: by rules, near duplicates, and diversity (farthest-first over n-gram vectors)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from random import Random
from zlib import crc32

from sftchat.data.duplicates import NearDuplicate, NearDuplicateFinder, conversation_text, hash_json
from sftchat.data.read import line_of
from sftchat.text import words
from sftchat.types import Example

BUCKETS = 1 << 18
"""Dimension of the hashed vectors; n-grams with the same hash are counted together."""


def select_diverse(texts: Iterable[str], number: int, seed: int) -> list[int]:
    """Select rows so that the smallest distance between any two is large (Gonzalez 1985, greedy k-center: at most twice the optimum).

    A text is represented by the hashed, normalised frequencies of its words and word bigrams (each Chinese character is a word); the
    distance is one minus the cosine. Each selected row costs one matrix-vector product: time grows with texts times ``number``.

    Args:
        texts: One for each row.
        number: Number of rows to select.
        seed: Selects the first row.

    Returns:
        Indices of the selected rows, ascending.
    """
    import numpy as np
    from scipy.sparse import csr_matrix

    buckets: list[int] = []
    counts: list[int] = []
    row_starts = [0]
    for text in texts:
        text_words = words(text)
        ngrams = [*text_words, *map(" ".join, pairwise(text_words))]
        bucket_counts = Counter(crc32(ngram.encode()) % BUCKETS for ngram in ngrams)
        buckets += bucket_counts.keys()
        counts += bucket_counts.values()
        row_starts.append(len(buckets))
    rows = len(row_starts) - 1
    if number >= rows:
        return list(range(rows))
    matrix = (np.array(counts, dtype=np.float32), np.array(buckets, dtype=np.int32), np.array(row_starts))
    vectors = csr_matrix(matrix, shape=(rows, BUCKETS))
    lengths = np.sqrt(np.asarray(vectors.multiply(vectors).sum(axis=1)).ravel())
    vectors = vectors.multiply(1 / np.maximum(lengths, 1e-12)[:, None]).tocsr()
    selected = [Random(seed).randrange(rows)]
    distances = np.full(rows, np.inf)  # of each row to the nearest selected one
    while len(selected) < number:
        last_selected = vectors[selected[-1]]
        distances = np.minimum(distances, 1 - np.asarray((vectors @ last_selected.T).todense()).ravel())
        distances[selected] = -np.inf  # below the 0 of duplicates of a selected row, which may be selected
        selected.append(int(np.argmax(distances)))
    return sorted(selected)


Rule = Callable[[Example], str]
"""Returns why to remove a row; empty to keep it."""


@dataclass(frozen=True)
class FilterOptions:
    """Filter options.

    Attributes:
        rules: Rules by name, applied in order; the name of the first that removes a row is the reason.
        near_threshold: Similarity, at most 1, from which a row is a near duplicate of an earlier one; 0 turns this off.
        keep: Number of remaining rows to keep, selected for diversity; None keeps all.
        seed: Seed of that selection.
    """

    rules: Mapping[str, Rule] = field(default_factory=dict)
    near_threshold: float = 0.8
    keep: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class RemovedRow:
    """A removed row.

    Attributes:
        source: Source of the row.
        reason: Name of the rule, ``duplicate``, ``near-duplicate`` or ``diversity``.
        message: Explanation, one line.
    """

    source: str
    reason: str
    message: str


def find_removed(examples: Iterable[Example], options: FilterOptions) -> tuple[int, list[RemovedRow]]:
    """Count the rows and return the removed ones.

    Rows are streamed, so a file may be larger than memory; only the selection for diversity needs all remaining rows.

    Args:
        examples: Examples with unique sources.
        options: Filter options.

    Raises:
        DataError: When a row is malformed.
        PluginError: When a task's check or scorer raises.
    """
    rows = 0
    removed: dict[str, RemovedRow] = {}
    first_lines: dict[bytes, str] = {}
    finder = NearDuplicateFinder(options.near_threshold) if options.near_threshold else None
    texts: dict[str, str] = {}
    for example in examples:
        rows += 1
        source = example.source
        if broken_rule := _find_broken_rule(example, options.rules):
            removed[source] = broken_rule
            continue
        first_line = first_lines.setdefault(hash_json(example.conversation), line_of(source))
        if first_line != line_of(source):
            removed[source] = RemovedRow(source, "duplicate", f"the same row as line {first_line}")
            continue
        text = conversation_text(example)
        if options.keep is not None:
            texts[source] = text
        if finder is not None:
            removed |= _to_removed_rows(finder.add(source, text))
    if finder is not None:
        removed |= _to_removed_rows(finder.flush())
    if options.keep is not None:
        remaining = {source: text for source, text in texts.items() if source not in removed}
        selected = set(select_diverse(remaining.values(), options.keep, options.seed))
        message = f"closer to one of the {len(selected)} rows kept than those are to each other"
        removed |= {source: RemovedRow(source, "diversity", message) for index, source in enumerate(remaining) if index not in selected}
    return rows, list(removed.values())


def _find_broken_rule(example: Example, rules: Mapping[str, Rule]) -> RemovedRow | None:
    for reason, rule in rules.items():
        if message := rule(example):
            return RemovedRow(example.source, reason, message)
    return None


def _to_removed_rows(duplicates: Iterable[NearDuplicate]) -> dict[str, RemovedRow]:
    return {duplicate.source: RemovedRow(duplicate.source, "near-duplicate", duplicate.message) for duplicate in duplicates}
