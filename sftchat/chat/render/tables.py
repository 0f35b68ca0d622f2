"""Table layout with aligned columns, including wide (Chinese) characters."""

from __future__ import annotations

from sftchat.chat.render.width import Line, merge_styles, pad, text_of, width, wrap_line

MIN_COLUMN_WIDTH = 4


def draw_table(table: list[list[Line]], aligns: list[str], columns: int) -> list[Line] | None:
    """Draw a table as lines of at most ``columns`` cells; None when it does not fit.

    Args:
        table: The cells of each row, the header first; all rows have as many cells.
        aligns: Alignment of each column: left, right or center.
        columns: Width of the terminal.
    """
    widths = _shrink_widths([max(1, *map(width, cells)) for cells in zip(*table, strict=True)], columns - 3 * (len(aligns) - 1))
    if widths is None:
        return None
    rule: Line = [("class:faint", "─┼─".join("─" * size for size in widths))]
    header, *body = [_draw_row(row, widths, aligns) for row in table]
    return [*header, rule, *(line for lines in body for line in lines)]


def _shrink_widths(wanted: list[int], columns: int) -> list[int] | None:
    """Return widths that fit, shrinking the widest column first; None when the columns cannot fit."""
    widths = list(wanted)
    if columns < sum(min(size, MIN_COLUMN_WIDTH) for size in widths):
        return None
    while sum(widths) > columns:
        widest = max(range(len(widths)), key=widths.__getitem__)
        widths[widest] -= 1
    return widths


def _draw_row(row: list[Line], widths: list[int], aligns: list[str]) -> list[Line]:
    """Draw a row; it has as many lines as its tallest cell."""
    wrapped = [wrap_line(cell, size) for cell, size in zip(row, widths, strict=True)]
    lines: list[Line] = []
    for level in range(max(map(len, wrapped))):
        line: Line = []
        for column, (rows, size, align) in enumerate(zip(wrapped, widths, aligns, strict=True)):
            line += [("class:faint", " │ ")] if column else []
            line += pad(rows[level] if level < len(rows) else [], size, align)
        lines.append(_strip_trailing_spaces(line))
    return lines


def _strip_trailing_spaces(line: Line) -> Line:
    """Return a line without spaces at its end; adjacent pairs of the same style are merged."""
    while line and not line[-1][1].rstrip(" "):
        line = line[:-1]
    if line:
        style, text = line[-1]
        line = [*line[:-1], (style, text.rstrip(" "))]
    return merge_styles(line) if text_of(line) else []
