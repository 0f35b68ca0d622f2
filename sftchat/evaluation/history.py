"""What became of every item since the baseline: the list behind the cases of JUnit and the items of the HTML page."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from sftchat.evaluation.comparison import Comparison
from sftchat.evaluation.items import Failure, Item, Outcome
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


def item_histories(result: ModelResult, comparison: Comparison | None = None) -> list[ItemHistory]:
    """Every item of a result: newly broken ones first, the worst leading; then what failed, newly fixed, wrong, right.

    Args:
        result: One model on one evalset.
        comparison: Its comparison with the baseline, where there is one; what counts as broken and fixed is decided there.
    """
    old = {} if comparison is None else comparison.baseline.items.outcomes
    broken, fixed = ((), ()) if comparison is None else ([new for _, new in pairs] for pairs in (comparison.broken, comparison.fixed))
    changed = {item.example.id for item in (*broken, *fixed)}
    unchanged = [item for item in result.items if item.example.id not in changed]
    kinds: dict[Change, Iterable[Outcome]] = {
        "broken": broken,
        "failed": result.failures,
        "fixed": fixed,
        "wrong": (item for item in unchanged if not item.right),
        "right": (item for item in unchanged if item.right),
    }
    return [ItemHistory(change, new, old.get(new.example.id)) for change, outcomes in kinds.items() for new in outcomes]


def change_counts(histories: Iterable[ItemHistory]) -> dict[Change, int]:
    """How many items became what."""
    counts: dict[Change, int] = dict.fromkeys(get_args(Change), 0)
    for history in histories:
        counts[history.change] += 1
    return counts


def faults(outcome: Outcome | None) -> tuple[str, ...]:
    """The error classes of an answered item, each once, in the scorer's order."""
    return tuple(dict.fromkeys(outcome.score.errors)) if isinstance(outcome, Item) else ()


def said(outcome: Outcome | None) -> str:
    """What a model answered; for a failure the words of its error in brackets."""
    if outcome is None:
        return ""
    return f"[not answered: {outcome.error}]" if isinstance(outcome, Failure) else outcome.reply.text
