"""What a report means for whoever waits for the exit code."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sftchat.errors import UsageError, unknown
from sftchat.evaluation.report import Comparison, ModelResult, Report
from sftchat.task import Task

PASSED, GATE_FAILED, COULD_NOT = 0, 1, 3
TOLERANCE = 1e-12
"""A value this little under its floor meets it: 0.8 is not a binary fraction."""


@dataclass(frozen=True)
class Verdict:
    """A judgement in words and as an exit code.

    Attributes:
        lines: One line for each floor and comparison, and the verdict last; empty when nothing was asked.
        exit_code: 0 passed, 1 a floor missed or a regression, 3 some items could not be answered, whatever the others say.
    """

    lines: tuple[str, ...]
    exit_code: int


def parse_floors(texts: Iterable[str], task: Task) -> dict[str, float]:
    """Read ``METRIC=X`` arguments.

    Args:
        texts: As typed.
        task: Says which metrics there are.

    Raises:
        UsageError: When one is not of that form, names no metric of the task, names one for which lower is better, or comes twice.
    """
    metrics = {metric.name: metric for metric in task.metrics}
    floors: dict[str, float] = {}
    for text in texts:
        name, equals, number = text.partition("=")
        try:
            floor = float(number)
        except ValueError:
            floor = math.nan
        if not equals or not math.isfinite(floor):
            raise UsageError(f"floor '{text}' must be METRIC=X with a number X, such as {task.metric.name}=0.8")
        if name not in metrics:
            raise UsageError(unknown("metric", name, metrics))
        if not metrics[name].higher_is_better:
            raise UsageError(f"metric '{name}' is better when lower, so a floor makes no sense")
        if name in floors:
            raise UsageError(f"metric '{name}' has two floors")
        floors[name] = floor
    return floors


def judge(report: Report, floors: Mapping[str, float]) -> Verdict:
    """Decide: every floor for every model, and every comparison by the primary metric.

    A comparison fails when the candidate is worse: p < 0.05 and the whole 95 % interval of the difference on the wrong side of 0. A drop
    that chance explains fails nothing.

    Args:
        report: What was measured.
        floors: Smallest acceptable value by metric; compared with the point value.
    """
    lines = []
    failed = False
    for result in report.results:
        for name, floor in floors.items():
            met, line = _floor(result, name, floor)
            failed |= not met
            lines.append(line)
    for comparison in report.comparisons:
        if comparison.metrics:
            failed |= comparison.metrics[0].judgement == "worse"
            lines.append(_compared(comparison))
    lost = report.failures
    if lost:
        result, failure = lost[0]
        count = f"{len(lost)} items were" if len(lost) > 1 else "1 item was"
        lines.append(f"{count} not answered, the first '{failure.example.id}' by {result.model}: {failure.error}")
        return Verdict((*lines, "verdict: could not judge"), COULD_NOT)
    if not lines:
        return Verdict((), PASSED)
    return Verdict((*lines, "verdict: fail"), GATE_FAILED) if failed else Verdict((*lines, "verdict: pass"), PASSED)


def _floor(result: ModelResult, name: str, floor: float) -> tuple[bool, str]:
    """Whether one model meets one floor, and the line that says so."""
    where = f"{result.model} on {result.evalset.name}"
    if not result.metrics:
        return False, f"{where}: no {name}, nothing was answered"
    value = result.metric(name).value
    met = value >= floor - TOLERANCE
    return met, f"{where}: {name} {value:.3f} {'meets' if met else 'is under'} the floor {floor:g}"


def _compared(comparison: Comparison) -> str:
    """The line on one comparison."""
    metric = comparison.metrics[0]
    bounds = "" if metric.low is None or metric.high is None else f" [{metric.low:+.3f}, {metric.high:+.3f}]"
    relation = {"better": "better than", "worse": "worse than", "no significant difference": "no significant difference from"}[
        metric.judgement
    ]
    where = f"{comparison.candidate.model} on {comparison.candidate.evalset.name}"
    return f"{where}: {relation} {comparison.baseline.model}: {metric.name} {metric.difference:+.3f}{bounds}, p = {metric.p:.3g}"
