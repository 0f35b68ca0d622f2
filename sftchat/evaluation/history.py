"""What became of every item since the baseline: the list behind the cases of JUnit and the items of the HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sftchat.evaluation.comparison import Comparison
from sftchat.evaluation.items import Failure, Item, Outcome
from sftchat.evaluation.lazy import Lazy
from sftchat.evaluation.pairing import Pairs
from sftchat.evaluation.report import Report
from sftchat.evaluation.results import ModelResult
from sftchat.types import Example

Change = Literal["broken", "failed", "fixed", "wrong", "right"]


@dataclass(frozen=True)
class ItemHistory:
    """One item under one model, beside the baseline where there is one.

    Attributes:
        change: ``broken`` was right and is not; ``failed`` was not answered; ``fixed`` was not right and is; ``wrong`` and ``right`` are
            all others, among them every answered item of a report without a baseline.
        new: What the model answered, or why it did not.
        old: The same of the baseline; None when there is no baseline.
    """

    change: Change
    new: Outcome
    old: Outcome | None = None

    @property
    def example(self) -> Example:
        """What was asked."""
        return self.new.example

    @property
    def differs(self) -> bool:
        """Whether both answered, in different words."""
        return isinstance(self.new, Item) and isinstance(self.old, Item) and self.new.reply.text != self.old.reply.text


def comparison_of(report: Report, result: ModelResult) -> Comparison | None:
    """The comparison of a result with the baseline, where there is one."""
    return next((comparison for comparison in report.comparisons if comparison.candidate == result), None)


class Histories(Lazy[ItemHistory]):
    """Every item of a result: newly broken ones first, the worst leading; then what failed, newly fixed, wrong, right.

    Args:
        result: One model on one gold set.
        comparison: Its comparison with the baseline, where there is one; what counts as broken and fixed is decided there.
    """

    def __init__(self, result: ModelResult, comparison: Comparison | None = None) -> None:
        self._items, self._failures = result.items, result.failures
        self._old = None if comparison is None else comparison.baseline.items
        broken, fixed = (_places(pairs) for pairs in ((comparison.broken, comparison.fixed) if comparison is not None else ((), ())))
        told = {*broken, *fixed}
        wrong = (result.items.figures.faults > 0).tolist()
        self._places: dict[Change, Sequence[int]] = {
            "broken": broken,
            "failed": range(len(result.failures)),
            "fixed": fixed,
            "wrong": [place for place, is_wrong in enumerate(wrong) if is_wrong and place not in told],
            "right": [place for place, is_wrong in enumerate(wrong) if not is_wrong and place not in told],
        }

    def __len__(self) -> int:
        """How many there are."""
        return sum(map(len, self._places.values()))

    def at(self, place: int) -> ItemHistory:
        """One of them."""
        for change, places in self._places.items():
            if place < len(places):
                new: Outcome = self._failures[places[place]] if change == "failed" else self._items[places[place]]
                return ItemHistory(change, new, None if self._old is None else self._old.outcome_of(new.example.id))
            place -= len(places)
        raise IndexError("there are not so many items")

    def counts(self) -> dict[Change, int]:
        """How many items became what."""
        return {change: len(places) for change, places in self._places.items()}


def _places(pairs: Pairs | tuple[()]) -> list[int]:
    """Which of the candidate's items were compared."""
    return pairs.places[1].tolist() if pairs else []


def faults(outcome: Outcome | None) -> tuple[str, ...]:
    """The error classes of an answered item, each once, in the scorer's order."""
    return tuple(dict.fromkeys(outcome.score.errors)) if isinstance(outcome, Item) else ()


def said(outcome: Outcome | None) -> str:
    """What a model answered; for a failure the words of its error in brackets."""
    if outcome is None:
        return ""
    return f"[not answered: {outcome.error}]" if isinstance(outcome, Failure) else outcome.reply.text
