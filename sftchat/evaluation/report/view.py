"""Changes of the items since the baseline and number formats, shared by the output formats."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from sftchat.evaluation.report import Report
from sftchat.evaluation.results import LEVEL, Comparison, MetricDifference, ModelResult
from sftchat.evaluation.scored import Failure, Item, Outcome
from sftchat.types import Example

Change = Literal["broken", "failed", "fixed", "wrong", "right"]


@dataclass(frozen=True)
class ItemHistory:
    """One item under one model, and under the baseline if there is one.

    Attributes:
        change: ``broken``: was right and is wrong; ``failed``: was not answered; ``fixed``: was wrong and is right; ``wrong`` and ``right``:
            all others, including every answered item of a report without a baseline.
        new: Outcome of the model.
        old: Outcome of the baseline; None without a baseline.
    """

    change: Change
    new: Outcome
    old: Outcome | None = None

    @property
    def example(self) -> Example:
        """The example of the item."""
        return self.new.example

    @property
    def differs(self) -> bool:
        """Whether both models answered with different text."""
        return isinstance(self.new, Item) and isinstance(self.old, Item) and self.new.reply.text != self.old.reply.text


def comparison_of(report: Report, result: ModelResult) -> Comparison | None:
    """Return the comparison of a result with the baseline, if there is one."""
    return next((comparison for comparison in report.comparisons if comparison.candidate == result), None)


def item_histories(result: ModelResult, comparison: Comparison | None = None) -> list[ItemHistory]:
    """Return the items of a result: newly broken ones first, in order of loss; then failed, newly fixed, wrong, right.

    Args:
        result: Result of one model on one evalset.
        comparison: Its comparison with the baseline, if there is one; it defines which items are broken and fixed.
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
    """Count the items per kind of change."""
    counts: dict[Change, int] = dict.fromkeys(get_args(Change), 0)
    for history in histories:
        counts[history.change] += 1
    return counts


def faults(outcome: Outcome | None) -> tuple[str, ...]:
    """Return the distinct error classes of an answered item, in the scorer's order."""
    return tuple(dict.fromkeys(outcome.score.errors)) if isinstance(outcome, Item) else ()


def said(outcome: Outcome | None) -> str:
    """Return the text of a reply; for a failure, the error message in brackets."""
    if outcome is None:
        return ""
    return f"[not answered: {outcome.error}]" if isinstance(outcome, Failure) else outcome.reply.text


def number(value: float | None) -> str:
    """Format the value of a metric; empty for None."""
    return "" if value is None else f"{value:.3f}"


def bounds(low: float | None, high: float | None) -> str:
    """Format the interval of a value; empty when there is none."""
    return "" if low is None or high is None else f"[{low:.3f}, {high:.3f}]"


def difference(metric: MetricDifference) -> str:
    """Format a difference with its sign, with ``~`` before it when it is not significant, as in benchstat."""
    return f"{'~ ' if metric.judgement == 'no significant difference' else ''}{metric.difference:+.3f}"


def difference_bounds(metric: MetricDifference) -> str:
    """Format the interval of a difference; empty when there is none."""
    return "" if metric.low is None or metric.high is None else f"[{metric.low:+.3f}, {metric.high:+.3f}]"


def p_value(p: float) -> str:
    """Format a p-value; values below 0.001 as ``<0.001``."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def p_values(metric: MetricDifference) -> str:
    """Format the p-value of a difference, and the adjusted one that decides if it differs."""
    plain, deciding = p_value(metric.p), p_value(metric.deciding_p)
    return plain if plain == deciding else f"{plain} ({deciding} adjusted)"


def disagreement(metric: MetricDifference) -> str:
    """Describe how test and interval disagree when only one of them finds a difference (then not significant); empty when they agree."""
    significant = metric.deciding_p < LEVEL
    if significant == metric.excludes_zero:
        return ""
    p = f"the {'adjusted ' if metric.deciding_p != metric.p else ''}p of {metric.deciding_p:.3g}"
    if not significant:
        return f"not significant: the interval excludes 0, but {p} is not under {LEVEL:g}"
    interval = "there is no interval" if metric.low is None else "the interval includes 0"
    return f"not significant: {p} is under {LEVEL:g}, but {interval}"


def without_errors(result: ModelResult) -> str:
    """Format how many answered items have no error class, which may differ from the items that a metric counts as right."""
    return f"{result.right} of {len(result.items)} items without any error class"


def signed(change: float) -> str:
    """Format a change of a count or a value; empty for none."""
    if not change:
        return ""
    return f"{change:+d}" if isinstance(change, int) else f"{change:+.3f}"
