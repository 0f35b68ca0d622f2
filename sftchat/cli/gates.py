"""The gate as the demonstration shows it: a verdict, its exit code, and the items that broke."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from sftchat.evaluation.results import Comparison, ModelResult
    from sftchat.task import Task

WIDTH = 120
"""Characters shown of a reply."""
SHOWN = 3
"""Newly broken items that are shown; ``report.html`` has all."""


def show_gate(console: Console, task: Task, baseline: ModelResult, candidate: ModelResult, words: str) -> int:
    """Print a command, the verdict it ends in, and a few items that broke; returns its exit code."""
    from sftchat.evaluation.evaluate import compare
    from sftchat.evaluation.gate import COLOURS, GateConfig, GatedMetric, decide, gate
    from sftchat.evaluation.report.view import Report

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
    """A few newly broken items, with what both models said."""
    for old, new in comparison.broken[:SHOWN]:
        faults = ", ".join(dict.fromkeys(new.score.errors))
        console.print(f"    broken: {new.example.id}  ({faults})", soft_wrap=True)
        for name, text in (("gold", new.example.gold or ""), ("before", old.reply.text), ("now", new.reply.text)):
            console.print(f"      {name:<7}{' / '.join(text.splitlines())[:WIDTH]}", soft_wrap=True)
    if len(comparison.broken) > SHOWN:
        console.print(f"    and {len(comparison.broken) - SHOWN} more")
