"""A verdict as GitHub workflow commands, which the runner turns into annotations beside the changed lines.

GitHub shows ten errors a step and drops the rest without a word, so there is one for the verdict and at most nine for newly broken items; the same
holds for warnings, which an inconclusive verdict has instead.
Escapes: https://github.com/actions/toolkit/blob/main/packages/core/src/command.ts
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Literal

from sftchat.evaluation.gate import Verdict
from sftchat.evaluation.report import Report
from sftchat.evaluation.report.view import faults
from sftchat.text import printable_lines

Level = Literal["error", "warning"]
ITEMS = 9
"""Annotations that are left for items once the verdict has its own."""


def annotate(report: Report, verdict: Verdict) -> tuple[str, ...]:
    """Lines to be printed inside a workflow: warnings where the verdict is inconclusive, none where it is a pass or nothing was asked.

    An item's annotation stands at its line of the gold set, where the item knows it.
    """
    if verdict.outcome in ("pass", "not asked"):
        return ()
    level: Level = "warning" if verdict.outcome == "inconclusive" else "error"
    words = "\n".join((verdict.headline, *verdict.reasons))
    return (_command(level, words, title=f"sftchat eval {report.task}"), *islice(_broken(report, level), ITEMS))


def _broken(report: Report, level: Level) -> Iterator[str]:
    """Newly broken items, the worst first."""
    for comparison in report.comparisons:
        where = f"{comparison.candidate.model} on {comparison.candidate.evalset.name}"
        for _, new in comparison.broken:
            file, _, line = new.example.source.rpartition(":")
            place = {"file": file, "line": line} if file and line.isdigit() else {}
            yield _command(level, f"{where}: {', '.join(faults(new))}", **place, title=f"newly broken: {new.example.id}")


def _command(level: Level, message: str, **properties: str) -> str:
    """One workflow command."""
    given = ",".join(f"{name}={_property(value)}" for name, value in properties.items())
    return f"::{level} {given}::{_data(message)}"


def _data(text: str) -> str:
    """A message: what would end it is escaped, and what a log's reader could obey is replaced."""
    return printable_lines(text, kept="\t\r").replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    """The value of a property: what would end it is escaped."""
    return _data(text).replace(":", "%3A").replace(",", "%2C")
