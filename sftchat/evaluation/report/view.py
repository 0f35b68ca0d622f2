"""What became of every item since the baseline: the list behind the cases of JUnit and the items of the HTML page."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from sftchat.evaluation.comparison import LEVEL, Comparison, MetricDifference
from sftchat.evaluation.report import Report
from sftchat.evaluation.results import ModelResult
from sftchat.evaluation.run import Failure, Item, Outcome
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


def number(value: float | None) -> str:
    """A value of a metric; empty for None."""
    return "" if value is None else f"{value:.3f}"


def bounds(low: float | None, high: float | None) -> str:
    """An interval of a value; empty where there is none."""
    return "" if low is None or high is None else f"[{low:.3f}, {high:.3f}]"


def difference(metric: MetricDifference) -> str:
    """A difference with its sign, ``~`` before it where it is not significant, as benchstat writes it."""
    return f"{'~ ' if metric.judgement == 'no significant difference' else ''}{metric.difference:+.3f}"


def difference_bounds(metric: MetricDifference) -> str:
    """The interval of a difference; empty where there is none."""
    return "" if metric.low is None or metric.high is None else f"[{metric.low:+.3f}, {metric.high:+.3f}]"


def p_value(p: float) -> str:
    """A p-value, without pretending to know one under 0.001."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def p_values(metric: MetricDifference) -> str:
    """The p of a difference, and the adjusted one that decides, where it is another."""
    plain, deciding = p_value(metric.p), p_value(metric.deciding_p)
    return plain if plain == deciding else f"{plain} ({deciding} adjusted)"


def disagreement(metric: MetricDifference) -> str:
    """What test and interval say where only one of them sees a difference, which is then not significant; empty where they agree."""
    significant = metric.deciding_p < LEVEL
    if significant == metric.excludes_zero:
        return ""
    p = f"the {'adjusted ' if metric.deciding_p != metric.p else ''}p of {metric.deciding_p:.3g}"
    if not significant:
        return f"not significant: the interval excludes 0, but {p} is not under {LEVEL:g}"
    interval = "there is no interval" if metric.low is None else "the interval includes 0"
    return f"not significant: {p} is under {LEVEL:g}, but {interval}"


def without_errors(result: ModelResult) -> str:
    """How many answered items have no error class at all, which need not be the items that a metric counts as right."""
    return f"{result.right} of {len(result.items)} items without any error class"


def signed(change: float) -> str:
    """A change of a count or a value; empty when there is none."""
    if not change:
        return ""
    return f"{change:+d}" if isinstance(change, int) else f"{change:+.3f}"
