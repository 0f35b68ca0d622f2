"""Which items of an evalset a model may have seen while it was trained.

An item leaks when a training row has the same prompt, or nearly: the Jaccard similarity of the two prompts' sets of three consecutive
words (a Chinese character is one) reaches a threshold. What most prompts of the evalset have in common, their
instruction, says nothing and is left out.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sftchat.data.duplicates import MIN_SHINGLES, Run, common, key, prompt_text, shingles
from sftchat.text import words
from sftchat.types import Example

THRESHOLD = 0.8
"""From here on two prompts are nearly the same: a passage with one name replaced is, one with every name replaced is not."""


@dataclass(frozen=True)
class Leak:
    """An item and the training row that is most like it.

    Attributes:
        id: The item's id.
        item: Where the item stands, ``file:line``.
        row: Where the training row stands, ``file:line``.
        similarity: Jaccard similarity of their prompts, in ``[THRESHOLD, 1]``; 1.0 is the same prompt.
    """

    id: str
    item: str
    row: str
    similarity: float


def find_leaks(items: Sequence[Example], training: Iterable[Example], *, threshold: float = THRESHOLD) -> tuple[Leak, ...]:
    """Compare every item with every training row.

    The rows are read once and not kept, so a training file may be larger than memory; the items' runs of tokens are held in an index.

    Args:
        items: The evalset, with ids.
        training: Rows that a model was trained on.
        threshold: Similarity from which on a row is a leak, above 0 and at most 1.

    Returns:
        One leak for each item that has any, the most similar row of each, in the items' order.
    """
    texts = [prompt_text(item) for item in items]
    same: dict[Run, list[int]] = defaultdict(list)
    for item, text in enumerate(texts):
        same[key(text)].append(item)
    found = [shingles(words(text)) for text in texts]
    instruction = common(found, len(texts))
    index: dict[Run, list[int]] = defaultdict(list)
    for item, of_item in enumerate(found):
        for run in of_item - instruction:
            index[run].append(item)
    sizes = [len(of_item - instruction) for of_item in found]
    best: dict[int, tuple[float, str]] = {}
    for row in training:
        text = prompt_text(row)
        for item in same.get(key(text), ()):
            _keep(best, item, 1.0, row.source)
        of_row = shingles(words(text)) - instruction
        shared = Counter(item for run in of_row for item in index.get(run, ()))
        for item, count in shared.items():
            if sizes[item] >= MIN_SHINGLES:
                _keep(best, item, count / (sizes[item] + len(of_row) - count), row.source)
    return tuple(
        Leak(items[item].id, items[item].source, source, round(similarity, 3))
        for item, (similarity, source) in sorted(best.items())
        if similarity >= threshold
    )


def _keep(best: dict[int, tuple[float, str]], item: int, similarity: float, source: str) -> None:
    """Remember the most similar row of an item, the first of equals."""
    if similarity > best.get(item, (0.0, ""))[0]:
        best[item] = (similarity, source)
