"""A verdict as GitHub workflow commands, which become annotations of the changed lines.

GitHub shows ten errors per step and silently drops the others, so there is one for the verdict and at most nine for newly broken items. An
inconclusive verdict is reported with warnings, to which the same limit applies.
Escapes: https://github.com/actions/toolkit/blob/main/packages/core/src/command.ts
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Literal

from sftchat.evaluation.gate import Verdict
from sftchat.evaluation.report.view import Report, error_classes
from sftchat.text import sanitize_lines

Level = Literal["error", "warning"]
MAX_ITEM_ANNOTATIONS = 9
"""Maximum number of annotations for items, next to the one for the verdict."""


def annotate(report: Report, verdict: Verdict) -> tuple[str, ...]:
    """Return the lines to print inside a workflow: warnings for an inconclusive verdict, one for the rules of
    the tier ``warn`` that are not met, and none when the verdict passes or nothing was required.

    The annotation of an item is at its line in the evalset when the line is known.
    """
    if verdict.outcome in ("pass", "not asked"):
        warned = verdict.failed_rules("warn")
        message = "\n".join((verdict.headline, *(f"warn: {rule.line}" for rule in warned)))
        return (_format_command("warning", message, title=f"sftchat eval {report.task}"),) if warned else ()
    level: Level = "warning" if verdict.outcome == "inconclusive" else "error"
    message = "\n".join((verdict.headline, *verdict.reasons))
    return (
        _format_command(level, message, title=f"sftchat eval {report.task}"),
        *islice(_broken_item_commands(report, level), MAX_ITEM_ANNOTATIONS),
    )


def _broken_item_commands(report: Report, level: Level) -> Iterator[str]:
    """Yield the annotations of newly broken items, those of each comparison with the largest loss first."""
    for comparison in report.comparisons:
        where = f"{comparison.candidate.model} on {comparison.candidate.evalset.name}"
        for _, new in comparison.broken:
            file, _, line = new.example.source.rpartition(":")
            location = {"file": file, "line": line} if file and line.isdigit() else {}
            yield _format_command(level, f"{where}: {', '.join(error_classes(new))}", **location, title=f"newly broken: {new.example.id}")


def _format_command(level: Level, message: str, **properties: str) -> str:
    formatted = ",".join(f"{name}={_escape_property(value)}" for name, value in properties.items())
    return f"::{level} {formatted}::{_escape_message(message)}"


def _escape_message(text: str) -> str:
    """Escape a message; characters that could control a terminal are replaced."""
    return sanitize_lines(text, allowed="\t\r").replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _escape_property(text: str) -> str:
    return _escape_message(text).replace(":", "%3A").replace(",", "%2C")
