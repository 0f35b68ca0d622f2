"""Which items of an evalset a model may have seen while it was trained.

An item leaks when a training row has the same prompt, or nearly: the Jaccard similarity of the two prompts' sets of three consecutive
tokens (a Chinese character or a Latin word is a token) reaches a threshold. What most prompts of the evalset have in common, their
instruction, says nothing and is left out.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sftchat.text import tokens
from sftchat.types import Example

THRESHOLD = 0.8
"""From here on two prompts are nearly the same: a passage with one name replaced is, one with every name replaced is not."""
SIZE = 3
COMMON = 0.3
FEWEST = 10
"""A run of tokens in more than this share of the evalset's prompts, and in more than this many, belongs to the instruction."""
FEW = 8
"""Prompts with fewer runs than this leak only when they are the same: short questions resemble each other."""

Run = tuple[str, ...]


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
    texts = [tokens(_prompt(item)) for item in items]
    same: dict[Run, list[int]] = defaultdict(list)
    for item, text in enumerate(texts):
        same[tuple(text)].append(item)
    index, instruction = _index(texts)
    sizes = [len(_runs(text) - instruction) for text in texts]
    best: dict[int, tuple[float, str]] = {}
    for row in training:
        text = tokens(_prompt(row))
        for item in same.get(tuple(text), ()):
            _keep(best, item, 1.0, row.source)
        runs = _runs(text) - instruction
        shared = Counter(item for run in runs for item in index.get(run, ()))
        for item, count in shared.items():
            if sizes[item] >= FEW:
                _keep(best, item, count / (sizes[item] + len(runs) - count), row.source)
    return tuple(
        Leak(items[item].id, items[item].source, source, round(similarity, 3))
        for item, (similarity, source) in sorted(best.items())
        if similarity >= threshold
    )


def _prompt(example: Example) -> str:
    """Everything that is said before the reply."""
    return "\n".join(turn["content"] for turn in example.messages)


def _runs(text: Sequence[str]) -> set[Run]:
    """Every run of `SIZE` consecutive tokens."""
    return {tuple(text[at : at + SIZE]) for at in range(len(text) - SIZE + 1)}


def _index(texts: Sequence[Sequence[str]]) -> tuple[dict[Run, list[int]], frozenset[Run]]:
    """Which items have which run, and the runs of the instruction, which are not in there."""
    index: dict[Run, list[int]] = defaultdict(list)
    for item, text in enumerate(texts):
        for run in _runs(text):
            index[run].append(item)
    most = max(FEWEST, int(COMMON * len(texts)))
    instruction = frozenset(run for run, items in index.items() if len(items) > most)
    return {run: items for run, items in index.items() if run not in instruction}, instruction


def _keep(best: dict[int, tuple[float, str]], item: int, similarity: float, source: str) -> None:
    """Remember the most similar row of an item, the first of equals."""
    if similarity > best.get(item, (0.0, ""))[0]:
        best[item] = (similarity, source)
