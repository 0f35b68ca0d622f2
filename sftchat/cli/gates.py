"""A gate of the demo: the verdict, its exit code, and some broken items."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from sftchat.evaluation.comparison import Comparison
    from sftchat.evaluation.results import ModelResult
    from sftchat.task import Task

WIDTH = 120
"""Maximum number of characters shown of a reply."""
SHOWN = 3
"""Maximum number of newly broken items shown; ``report.html`` has all."""


def show_gate(console: Console, task: Task, baseline: ModelResult, candidate: ModelResult, words: str) -> int:
    """Print a command, its verdict, and a few broken items; returns its exit code."""
    from sftchat.evaluation.evaluate import compare
    from sftchat.evaluation.gate import COLOURS, decide, gate
    from sftchat.evaluation.report import Report
    from sftchat.evaluation.rules import GateConfig, GatedMetric

    rules = GateConfig(gated=(GatedMetric(task.metric.name),))
    (comparison,), gates = gate((compare(baseline, candidate, task),), lambda _: rules.gated)
    report = Report(task.name, (candidate,), (baseline,), (comparison,), gates=gates)
    verdict = decide(report, rules)
    console.print(f"  $ {words}", soft_wrap=True)
    for line in verdict.lines:
        console.print(f"  {line}", soft_wrap=True)
    colour = COLOURS[verdict.tone]
    console.print(f"  exit code [bold {colour}]{verdict.exit_code}[/bold {colour}]\n", markup=True)
    _broken(console, comparison)
    return verdict.exit_code


def _broken(console: Console, comparison: Comparison) -> None:
    """Print a few newly broken items with both replies."""
    for old, new in comparison.broken[:SHOWN]:
        faults = ", ".join(dict.fromkeys(new.score.errors))
        console.print(f"    broken: {new.example.id}  ({faults})", soft_wrap=True)
        for name, text in (("gold", new.example.gold or ""), ("before", old.reply.text), ("now", new.reply.text)):
            console.print(f"      {name:<7}{' / '.join(text.splitlines())[:WIDTH]}", soft_wrap=True)
    if len(comparison.broken) > SHOWN:
        console.print(f"    and {len(comparison.broken) - SHOWN} more")
