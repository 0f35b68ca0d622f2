"""How numbers are written in every report for people: the same figure looks the same on the terminal, in Markdown and in HTML."""

from __future__ import annotations

from sftchat.evaluation.comparison import MetricDifference
from sftchat.evaluation.verdict import Verdict

VERDICT = "verdict: "
"""What the line of a verdict begins with; other lines give reasons."""


def number(value: float | None) -> str:
    """A value of a metric; empty for None."""
    return "" if value is None else f"{value:.3f}"


def bounds(low: float | None, high: float | None) -> str:
    """An interval of a value; empty where there is none."""
    return "" if low is None or high is None else f"[{low:.3f}, {high:.3f}]"


def difference(metric: MetricDifference) -> str:
    """A difference with its sign, ``~`` before it where chance explains it, as benchstat writes it."""
    return f"{'~ ' if metric.judgement == 'no significant difference' else ''}{metric.difference:+.3f}"


def difference_bounds(metric: MetricDifference) -> str:
    """The interval of a difference; empty where there is none."""
    return "" if metric.low is None or metric.high is None else f"[{metric.low:+.3f}, {metric.high:+.3f}]"


def p_value(p: float) -> str:
    """A p-value, without pretending to know one under 0.001."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def word_and_reasons(verdict: Verdict) -> tuple[str, tuple[str, ...]]:
    """The verdict in a word or a few, empty where nothing was asked, and the lines that give its reasons."""
    words = [line.removeprefix(VERDICT) for line in verdict.lines if line.startswith(VERDICT)]
    return "".join(words[-1:]), tuple(line for line in verdict.lines if not line.startswith(VERDICT))


def signed(change: float) -> str:
    """A change of a count or a value; empty when there is none."""
    if not change:
        return ""
    return f"{change:+d}" if isinstance(change, int) else f"{change:+.3f}"
