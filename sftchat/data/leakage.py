"""Leakage: evalset items that the model may have seen in training.

An item leaks when a training row has the same or nearly the same prompt: the Jaccard similarity of their word 3-grams (each Chinese
character is a word) reaches a threshold. N-grams that are in many prompts of the evalset belong to its instruction and are ignored.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sftchat.data.duplicates import MIN_SHINGLES, Shingle, comparison_key, find_common_shingles, make_shingles, prompt_text
from sftchat.types import Example

THRESHOLD = 0.8
"""Similarity from which prompts are nearly the same: with one name replaced in a passage they are, with all names replaced they are not."""


@dataclass(frozen=True)
class Leak:
    """An item and its most similar training row.

    Attributes:
        id: Item id.
        item: Source of the item, ``file:line``.
        row: Source of the training row, ``file:line``.
        similarity: Jaccard similarity of their prompts, in ``[THRESHOLD, 1]``; 1.0 for equal prompts.
    """

    id: str
    item: str
    row: str
    similarity: float


def find_leaks(items: Sequence[Example], training: Iterable[Example], *, threshold: float = THRESHOLD) -> tuple[Leak, ...]:
    """Compare each item with each training row.

    Training rows are streamed, so the file may be larger than memory; only an index of the items' shingles is in memory.

    Args:
        items: The evalset, with ids.
        training: Training rows.
        threshold: Similarity from which a row is a leak; above 0, at most 1.

    Returns:
        One leak, the most similar row, for each leaking item, in item order.
    """
    texts = [prompt_text(item) for item in items]
    shingles_of_texts = [make_shingles(text) for text in texts]
    instruction = find_common_shingles(shingles_of_texts)
    indices_by_key: dict[Shingle, list[int]] = defaultdict(list)
    indices_by_shingle: dict[Shingle, list[int]] = defaultdict(list)
    sizes: list[int] = []
    for index, (text, text_shingles) in enumerate(zip(texts, shingles_of_texts, strict=True)):
        indices_by_key[comparison_key(text)].append(index)
        distinctive = text_shingles - instruction
        sizes.append(len(distinctive))
        for shingle in distinctive:
            indices_by_shingle[shingle].append(index)
    best_rows: dict[int, tuple[float, str]] = {}  # similarity and source of the most similar row, the first of equals
    for row in training:
        text = prompt_text(row)
        row_shingles = make_shingles(text) - instruction
        common_counts = Counter(index for shingle in row_shingles for index in indices_by_shingle.get(shingle, ()))
        similarities = {
            index: count / (sizes[index] + len(row_shingles) - count)
            for index, count in common_counts.items()
            if sizes[index] >= MIN_SHINGLES
        }
        similarities |= dict.fromkeys(indices_by_key.get(comparison_key(text), ()), 1.0)
        for index, similarity in similarities.items():
            if index not in best_rows or similarity > best_rows[index][0]:
                best_rows[index] = (similarity, row.source)
    return tuple(
        Leak(items[index].id, items[index].source, source, round(similarity, 3))
        for index, (similarity, source) in sorted(best_rows.items())
        if similarity >= threshold
    )
