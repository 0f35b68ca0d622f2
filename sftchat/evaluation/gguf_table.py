"""What the user sees of exported GGUF files: a line for each while the export runs, and a table at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sftchat.evaluation.report.view import format_difference_interval, format_value
from sftchat.evaluation.results import GateOutcome

if TYPE_CHECKING:
    from sftchat.evaluation.gguf_export import ExportedFile

VERDICTS: Mapping[GateOutcome | None, str] = {"fine": "not worse", "regressed": "worse", "inconclusive": "not proved", None: "not judged"}
"""Words for the outcomes of the gate."""
COLOURS: Mapping[GateOutcome | None, str] = {"fine": "green", "regressed": "red", "inconclusive": "yellow"}


def describe_file(file: ExportedFile) -> str:
    """Return one line on a file: its size and, if it was judged, its score, the difference from the model and the verdict."""
    parts = [_megabytes(file) + " MB"]
    if (difference := file.difference) is not None:
        parts.append(f"{difference.name} {format_value(difference.candidate)} ({difference.difference:+.3f})")
    if file.report is not None:
        parts.append(VERDICTS[file.outcome])
    return f"{file.path.name}: {', '.join(parts)}"


def describe_failure(file: ExportedFile, margin: float) -> str:
    """Return one line that says why no file passed.

    Args:
        file: The largest file, which failed.
        margin: Drop that had to be excluded, in points.
    """
    if file.outcome == "regressed":
        return f"{file.path.name} is significantly worse than the model"
    if file.report is not None and file.report.failures and file.report.verdict is not None:
        return f"{file.path.name} could not be judged: {file.report.verdict.reasons[-1]}"
    unsettled = file.report.verdict.unsettled if file.report is not None and file.report.verdict is not None else None
    return f"no file is proved not worse by more than {margin:g} points{f': {unsettled.words}' if unsettled is not None else ''}"


def table_of(files: Sequence[ExportedFile], kept: ExportedFile) -> Any:
    """Return a rich table of judged files, the model first: type, size, score, difference with its interval, speed, verdict.

    Args:
        files: The files, at least one, in the order of the rows.
        kept: The file that was kept.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    first = files[0].difference
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="dim")
    table.add_column("type", no_wrap=True)
    for column in ("MB", first.name if first is not None else "score", "difference", "95 % interval", "tokens/s"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    if first is not None:
        table.add_row("model", "", format_value(first.baseline), "", "", "", "")
    for file in files:
        difference = file.difference
        cells = ("", "", "")
        if difference is not None:
            cells = (format_value(difference.candidate), f"{difference.difference:+.3f}", format_difference_interval(difference))
        speed = f"{file.tokens_per_second:,.0f}" if file.tokens_per_second else ""
        verdict = Text(VERDICTS[file.outcome], style=COLOURS.get(file.outcome, ""))
        if is_chosen := file is kept and not file.failed:
            verdict.append(", kept")
        table.add_row(file.file_type, _megabytes(file), *cells, speed, verdict, style="bold" if is_chosen else "")
    return table


def _megabytes(file: ExportedFile) -> str:
    return f"{file.size / 1e6:,.0f}" if file.size >= 1e9 else f"{file.size / 1e6:.1f}"
