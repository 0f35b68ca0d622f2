"""Markdown tables with aligned columns, including wide (Chinese) characters."""

from __future__ import annotations

import re

from sftchat.chat.render.inline import inline
from sftchat.chat.render.width import Line, joined, pad, plain, width, wrap_line

_DELIMITER = re.compile(r"\s{0,3}\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*")
_TOKEN = re.compile(r"`[^`]*`|\\.|.")
_LEAST = 4
"""Minimum width of a table column."""


def is_row(line: str) -> bool:
    """Return whether a line may be a table row: only with a leading bar, so that prose is never taken for a table."""
    return re.match(r" {0,3}\|.*\S", line) is not None


def is_delimiter(line: str) -> bool:
    """Return whether a line is the delimiter below a table header."""
    return is_row(line) and "-" in line and _DELIMITER.fullmatch(line) is not None


def draw_table(source: list[str], columns: int) -> list[Line]:
    """Render a table as lines of at most ``columns`` cells; unchanged when it does not fit or a row has more cells than the header.

    Args:
        source: Source lines: header, delimiter and rows.
        columns: Width of the terminal.
    """
    header, delimiter, *body = [_split(line) for line in source]
    count = len(header)
    if len(delimiter) != count or any(len(row) > count for row in body):
        return [[("", line)] for line in source]
    aligns = [_align(cell) for cell in delimiter]
    table = [[inline(cell, "bold") for cell in header], *([inline(cell) for cell in row] for row in body)]
    for row in table:
        row += [[] for _ in range(count - len(row))]
    widths = _fit([max(1, *(width(row[at]) for row in table)) for at in range(count)], columns - 3 * (count - 1))
    if widths is None:
        return [[("", line)] for line in source]
    rule: Line = [("class:faint", "─┼─".join("─" * size for size in widths))]
    drawn = [_draw_row(row, widths, aligns) for row in table]
    return [*drawn[0], rule, *(line for lines in drawn[1:] for line in lines)]


def _split(line: str) -> list[str]:
    """Split a row into cells; ``\\|`` and bars within code are text."""
    cells = [""]
    for token in _TOKEN.findall(line.strip().removeprefix("|")):
        if token == "|":
            cells.append("")
        else:
            cells[-1] += "|" if token == "\\|" else token
    if len(cells) > 1 and not cells[-1].strip():  # after the closing bar
        cells.pop()
    return [cell.strip() for cell in cells]


def _align(cell: str) -> str:
    """Return the alignment that a delimiter cell specifies."""
    if cell.endswith(":"):
        return "center" if cell.startswith(":") else "right"
    return "left"


def _fit(wanted: list[int], columns: int) -> list[int] | None:
    """Return widths that fit, shrinking the widest column first; None when the columns cannot fit."""
    widths = list(wanted)
    if columns < sum(min(size, _LEAST) for size in widths):
        return None
    while sum(widths) > columns:
        widest = max(range(len(widths)), key=widths.__getitem__)
        widths[widest] -= 1
    return widths


def _draw_row(row: list[Line], widths: list[int], aligns: list[str]) -> list[Line]:
    """Draw a row as as many lines as its highest cell has."""
    wrapped = [wrap_line(cell, size) for cell, size in zip(row, widths, strict=True)]
    lines: list[Line] = []
    for level in range(max(map(len, wrapped))):
        line: Line = []
        for at, (rows, size, align) in enumerate(zip(wrapped, widths, aligns, strict=True)):
            line += [("class:faint", " │ ")] if at else []
            line += pad(rows[level] if level < len(rows) else [], size, align)
        lines.append(_trimmed(line))
    return lines


def _trimmed(line: Line) -> Line:
    """Remove trailing spaces of a line."""
    while line and not line[-1][1].rstrip(" "):
        line = line[:-1]
    if line:
        style, text = line[-1]
        line = [*line[:-1], (style, text.rstrip(" "))]
    return joined(line) if plain(line) else []
