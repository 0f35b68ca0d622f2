"""Tables of Markdown, drawn with columns that line up, Chinese included."""

from __future__ import annotations

import re

from sftchat.chat.render.inline import inline
from sftchat.chat.render.width import Line, joined, pad, plain, width, wrap_line

_DELIMITER = re.compile(r"\s{0,3}\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*")
_TOKEN = re.compile(r"`[^`]*`|\\.|.")
_LEAST = 4
"""A column narrower than this is not worth drawing."""


def is_row(line: str) -> bool:
    """Whether a line may be a row of a table: only with a bar at its start, so that prose is never taken for one."""
    return re.match(r" {0,3}\|.*\S", line) is not None


def is_delimiter(line: str) -> bool:
    """Whether a line is the one below the header."""
    return is_row(line) and "-" in line and _DELIMITER.fullmatch(line) is not None


def draw_table(source: list[str], columns: int) -> list[Line]:
    """A table as lines no wider than ``columns``; as it was written, when there is no room or rows have more cells than the header.

    Args:
        source: Header, delimiter and rows, as written.
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
    """The cells of a row; ``\\|`` and bars within code are text."""
    cells = [""]
    for token in _TOKEN.findall(line.strip().removeprefix("|")):
        if token == "|":
            cells.append("")
        else:
            cells[-1] += "|" if token == "\\|" else token
    if len(cells) > 1 and not cells[-1].strip():  # behind the bar at the end
        cells.pop()
    return [cell.strip() for cell in cells]


def _align(cell: str) -> str:
    """How a column is aligned, from its cell of the delimiter."""
    if cell.endswith(":"):
        return "center" if cell.startswith(":") else "right"
    return "left"


def _fit(wanted: list[int], columns: int) -> list[int] | None:
    """Widths that fit, the widest column giving way first; None when there is no room for all."""
    widths = list(wanted)
    if columns < sum(min(size, _LEAST) for size in widths):
        return None
    while sum(widths) > columns:
        widest = max(range(len(widths)), key=widths.__getitem__)
        widths[widest] -= 1
    return widths


def _draw_row(row: list[Line], widths: list[int], aligns: list[str]) -> list[Line]:
    """A row as lines: as many as its highest cell has."""
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
    """A line without the spaces at its end."""
    while line and not line[-1][1].rstrip(" "):
        line = line[:-1]
    if line:
        style, text = line[-1]
        line = [*line[:-1], (style, text.rstrip(" "))]
    return joined(line) if plain(line) else []
