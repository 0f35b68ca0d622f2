"""What two texts have in common: runs of consecutive words, whatever the language, with what belongs to the instruction left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from sftchat.text import normalise, words
from sftchat.types import Example

SIZE = 3
"""Words of a run; a Chinese character is one."""
FEW = 8
"""Texts with fewer runs than this are alike only when they are the same: short questions resemble each other."""
COMMON = 0.3
FEWEST = 10
"""A run in more than this share of the texts, and in more than this many, belongs to the instruction."""

Run = tuple[str, ...]


def key(text: str) -> Run:
    """Equal for texts that differ in nothing but spaces, width, case and punctuation; the text itself where nothing else is in it."""
    return tuple(words(text)) or (normalise(text),)


def runs(text: Sequence[str]) -> set[Run]:
    """Every run of ``SIZE`` consecutive tokens."""
    return {tuple(text[at : at + SIZE]) for at in range(len(text) - SIZE + 1)}


def common(texts: Iterable[set[Run]], number: int) -> frozenset[Run]:
    """The runs that so many of a number of texts share that they say nothing: the instruction."""
    counts = Counter(run for text in texts for run in text)
    most = max(FEWEST, int(COMMON * number))
    return frozenset(run for run, count in counts.items() if count > most)


def prompt_text(example: Example) -> str:
    """Everything that is said before the reply."""
    return "\n".join(turn["content"] for turn in example.messages)


def whole_text(example: Example) -> str:
    """Everything that is said, the reply included."""
    return "\n".join(turn["content"] for turn in example.conversation)
