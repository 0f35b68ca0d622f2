"""A verdict as GitHub workflow commands, which the runner turns into annotations beside the changed lines.

GitHub shows ten errors a step and drops the rest without a word, so there is one for the verdict and at most nine for newly broken items.
Escapes: https://github.com/actions/toolkit/blob/main/packages/core/src/command.ts
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from sftchat.evaluation.figures import word_and_reasons
from sftchat.evaluation.history import faults
from sftchat.evaluation.report import Report
from sftchat.evaluation.verdict import PASSED, Verdict

ITEMS = 9
"""Annotations that are left for items once the verdict has its own."""


def annotate(report: Report, verdict: Verdict) -> tuple[str, ...]:
    """Lines to be printed inside a workflow; none when the gate passed.

    An item's annotation stands at its line of the gold set, where the item knows it.
    """
    if verdict.exit_code == PASSED:
        return ()
    word, reasons = word_and_reasons(verdict)
    return (_error("\n".join((word, *reasons)), title=f"sftchat eval {report.task}"), *islice(_broken(report), ITEMS))


def _broken(report: Report) -> Iterator[str]:
    """Newly broken items, the worst first."""
    for comparison in report.comparisons:
        where = f"{comparison.candidate.model} on {comparison.candidate.evalset.name}"
        for _, new in comparison.broken:
            file, _, line = new.example.source.rpartition(":")
            place = {"file": file, "line": line} if file and line.isdigit() else {}
            yield _error(f"{where}: {', '.join(faults(new))}", **place, title=f"newly broken: {new.example.id}")


def _error(message: str, **properties: str) -> str:
    """One workflow command."""
    given = ",".join(f"{name}={_property(value)}" for name, value in properties.items())
    return f"::error {given}::{_data(message)}"


def _data(text: str) -> str:
    """A message: what would end it is escaped."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    """The value of a property: what would end it is escaped."""
    return _data(text).replace(":", "%3A").replace(",", "%2C")
