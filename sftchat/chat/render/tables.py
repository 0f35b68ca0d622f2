"""Table layout with aligned columns, including wide (Chinese) characters."""

from __future__ import annotations

from sftchat.chat.render.width import Line, line_width, merge_styles, pad, text_of, wrap_line

MIN_COLUMN_WIDTH = 4
SEPARATOR = " │ "


def draw_table(table: list[list[Line]], aligns: list[str], columns: int) -> list[Line] | None:
    """Draw a table as lines of at most ``columns`` cells; None when it does not fit.

    Args:
        table: The cells of each row, the header first; all rows have as many cells.
        aligns: Alignment of each column: left, right or center.
        columns: Width of the terminal.
    """
    full_widths = [max(1, *map(line_width, cells)) for cells in zip(*table, strict=True)]
    widths = _shrink_widths(full_widths, columns - len(SEPARATOR) * (len(aligns) - 1))
    if widths is None:
        return None
    rule: Line = [("class:faint", "─┼─".join("─" * width for width in widths))]
    header, *body = [_draw_row(row, widths, aligns) for row in table]
    return [*header, rule, *(line for lines in body for line in lines)]


def _shrink_widths(widths: list[int], columns: int) -> list[int] | None:
    """Return column widths whose sum is at most ``columns``, shrinking the widest column first; None when even the minimum is wider."""
    if columns < sum(min(width, MIN_COLUMN_WIDTH) for width in widths):
        return None
    widths = list(widths)
    while sum(widths) > columns:
        widths[widths.index(max(widths))] -= 1
    return widths


def _draw_row(row: list[Line], widths: list[int], aligns: list[str]) -> list[Line]:
    """Draw a row; it has as many lines as its tallest cell."""
    wrapped_cells = [wrap_line(cell, width) for cell, width in zip(row, widths, strict=True)]
    lines: list[Line] = []
    for index in range(max(map(len, wrapped_cells))):
        line: Line = []
        for column, (cell, width, align) in enumerate(zip(wrapped_cells, widths, aligns, strict=True)):
            if column:
                line.append(("class:faint", SEPARATOR))
            line += pad(cell[index] if index < len(cell) else [], width, align)
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
