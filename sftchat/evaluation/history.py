"""What became of every item since the baseline: the list behind the cases of JUnit and the items of the HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, overload

from sftchat.evaluation.items import Failure, Item, Outcome
from sftchat.evaluation.on_disk.pairing import StoredPairs
from sftchat.evaluation.on_disk.scored import Scored
from sftchat.evaluation.report import Comparison, ModelResult, Report
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


class StoredHistories(Sequence[ItemHistory]):
    """Items on disk, each read and scored again when it is asked for.

    Args:
        result: Whose they are.
        comparison: With the baseline, where there is one.

    Attributes:
        places: Which items became what; of those that failed, which failure.
    """

    def __init__(self, result: ModelResult, comparison: Comparison | None) -> None:
        self._result, self._comparison = result, comparison
        self._failures = result.failures
        assert isinstance(result.items, Scored)
        self._items = result.items
        changes = {"broken": comparison.broken, "fixed": comparison.fixed} if comparison is not None else {}
        changed = {kind: pairs.of_candidate() for kind, pairs in changes.items() if isinstance(pairs, StoredPairs)}
        told = {place for places in changed.values() for place in places}
        wrong = (self._items.figures.faults > 0).tolist()
        self.places: dict[Change, Sequence[int]] = {
            "broken": changed.get("broken", ()),
            "failed": range(len(self._failures)),
            "fixed": changed.get("fixed", ()),
            "wrong": [place for place, is_wrong in enumerate(wrong) if is_wrong and place not in told],
            "right": [place for place, is_wrong in enumerate(wrong) if not is_wrong and place not in told],
        }

    def __len__(self) -> int:
        """How many there are."""
        return sum(map(len, self.places.values()))

    @overload
    def __getitem__(self, place: int) -> ItemHistory: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[ItemHistory, ...]: ...
    def __getitem__(self, place: int | slice) -> ItemHistory | tuple[ItemHistory, ...]:
        """One of them, or some."""
        if isinstance(place, slice):
            return tuple(self[one] for one in range(len(self))[place])
        for change, places in self.places.items():
            if place < len(places):
                new: Outcome = self._failures[places[place]] if change == "failed" else self._items[places[place]]
                return ItemHistory(change, new, self._old(new.example.id))
            place -= len(places)
        raise IndexError("there are not so many items")

    def _old(self, identity: str) -> Outcome | None:
        """What the baseline answered."""
        items = None if self._comparison is None else self._comparison.baseline.items
        return items.outcome_of(identity) if isinstance(items, Scored) else None


def counted(found: Sequence[ItemHistory]) -> dict[Change, int]:
    """How many items became what."""
    if isinstance(found, StoredHistories):
        return {change: len(places) for change, places in found.places.items()}
    counts: dict[Change, int] = dict.fromkeys(("broken", "failed", "fixed", "wrong", "right"), 0)
    for item in found:
        counts[item.change] += 1
    return counts


def histories(result: ModelResult, comparison: Comparison | None = None) -> Sequence[ItemHistory]:
    """Every item of a result: newly broken ones first, the worst leading; then what failed, newly fixed, wrong, right.

    Args:
        result: One model on one gold set.
        comparison: Its comparison with the baseline; what counts as broken and fixed is decided there.
    """
    if isinstance(result.items, Scored):
        return StoredHistories(result, comparison)
    outcomes: tuple[Outcome, ...] = (*result.items, *result.failures)
    if comparison is None:
        found = [ItemHistory(_alone(outcome), outcome) for outcome in outcomes]
    else:
        baseline = comparison.baseline
        before: tuple[Outcome, ...] = (*baseline.items, *baseline.failures)
        olds = {outcome.example.id: outcome for outcome in before}
        paired: dict[str, Change] = {new.example.id: "broken" for _, new in comparison.broken}
        paired |= {new.example.id: "fixed" for _, new in comparison.fixed}
        order = {identity: position for position, identity in enumerate(paired)}
        found = [
            ItemHistory(paired.get(outcome.example.id, _alone(outcome)), outcome, olds.get(outcome.example.id)) for outcome in outcomes
        ]
        found.sort(key=lambda item: order.get(item.example.id, len(order)))
    ranks = ("broken", "failed", "fixed", "wrong", "right")
    return tuple(sorted(found, key=lambda item: ranks.index(item.change)))  # stable: the rest stays in the gold set's order


def faults(outcome: Outcome | None) -> tuple[str, ...]:
    """The error classes of an answered item, each once, in the scorer's order."""
    return tuple(dict.fromkeys(outcome.score.errors)) if isinstance(outcome, Item) else ()


def said(outcome: Outcome | None) -> str:
    """What a model answered; for a failure the words of its error in brackets."""
    if outcome is None:
        return ""
    return f"[not answered: {outcome.error}]" if isinstance(outcome, Failure) else outcome.reply.text


def _alone(outcome: Outcome) -> Change:
    """What an item is when nothing is known of its past."""
    if isinstance(outcome, Failure):
        return "failed"
    return "right" if outcome.right else "wrong"
