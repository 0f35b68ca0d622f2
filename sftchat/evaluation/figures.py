"""How numbers are written in every report for people: the same figure looks the same on the terminal, in Markdown and in HTML."""

from __future__ import annotations

from sftchat.evaluation.comparison import LEVEL, MetricDifference
from sftchat.evaluation.results import ModelResult


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
