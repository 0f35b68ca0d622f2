"""Leakage: evalset items that the model may have seen in training.

An item leaks when a training row has the same or nearly the same prompt: the Jaccard similarity of their word 3-grams (each Chinese
character is a word) reaches a threshold. N-grams that most prompts of the evalset share, those of the instruction, are left out.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sftchat.data.duplicates import MIN_SHINGLES, Shingle, common_shingles, comparison_key, prompt_text, shingles
from sftchat.text import words
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

    Training rows are streamed, so the file may be larger than memory; the items' shingles are held in an index.

    Args:
        items: The evalset, with ids.
        training: Training rows.
        threshold: Similarity from which a row is a leak; above 0, at most 1.

    Returns:
        One leak, the most similar row, for each leaking item, in item order.
    """
    texts = [prompt_text(item) for item in items]
    items_by_key: dict[Shingle, list[int]] = defaultdict(list)
    for item, text in enumerate(texts):
        items_by_key[comparison_key(text)].append(item)
    item_shingles = [shingles(words(text)) for text in texts]
    instruction = common_shingles(item_shingles, len(texts))
    index: dict[Shingle, list[int]] = defaultdict(list)
    for item, own_shingles in enumerate(item_shingles):
        for run in own_shingles - instruction:
            index[run].append(item)
    sizes = [len(own_shingles - instruction) for own_shingles in item_shingles]
    best: dict[int, tuple[float, str]] = {}
    for row in training:
        text = prompt_text(row)
        for item in items_by_key.get(comparison_key(text), ()):
            _update_best(best, item, 1.0, row.source)
        row_shingles = shingles(words(text)) - instruction
        shared = Counter(item for run in row_shingles for item in index.get(run, ()))
        for item, count in shared.items():
            if sizes[item] >= MIN_SHINGLES:
                _update_best(best, item, count / (sizes[item] + len(row_shingles) - count), row.source)
    return tuple(
        Leak(items[item].id, items[item].source, source, round(similarity, 3))
        for item, (similarity, source) in sorted(best.items())
        if similarity >= threshold
    )


def _update_best(best: dict[int, tuple[float, str]], item: int, similarity: float, source: str) -> None:
    """Update the most similar row of an item; the first of equals wins."""
    if similarity > best.get(item, (0.0, ""))[0]:
        best[item] = (similarity, source)
