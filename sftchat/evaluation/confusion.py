"""Which label was answered for which gold label, counted over scored items."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sftchat.types import Score


@dataclass(frozen=True)
class Confusion:
    """Counts of answers by gold label.

    Attributes:
        labels: Gold labels, the most frequent first, then labels that were only answered.
        counts: One row per label as gold, one column per label as answer.
        unlabelled: For each label as gold, the number of replies without a label.
    """

    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    unlabelled: tuple[int, ...]

    def as_json(self) -> dict[str, Any]:
        """The counts as stored in ``report.json``."""
        return {"labels": [*self.labels], "counts": [[*row] for row in self.counts], "unlabelled": [*self.unlabelled]}


def count_confusion(scores: Iterable[Score]) -> Confusion | None:
    """Count ``expected`` and ``answer`` of scores; None when no score has an expected label."""
    pairs = Counter((score.expected, score.answer) for score in scores if score.expected)
    if not pairs:
        return None
    gold: Counter[str] = Counter()
    answered: Counter[str] = Counter()
    for (expected, answer), count in pairs.items():
        gold[expected] += count
        if answer:
            answered[answer] += count
    labels = tuple(sorted({*gold, *answered}, key=lambda label: (-gold[label], -answered[label], label)))
    return Confusion(
        labels,
        tuple(tuple(pairs[expected, answer] for answer in labels) for expected in labels),
        tuple(pairs[expected, ""] for expected in labels),
    )
