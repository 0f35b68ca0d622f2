"""Layout of several replies side by side: texts in, rows out. The separators between columns stay aligned at any content."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from wcwidth import iter_graphemes

from sftchat.chat.render.width import Line, line_width, pad, text_of, wrap_line
from sftchat.chat.safe_text import escape_controls

RULE = " │ "
MIN_COLUMN_WIDTH = 48
"""Minimum column width; narrower replies are easier to read one below the other. Two columns need a terminal of 99 columns."""

Row = list[Line]
"""One line for each column, at most as wide as the column."""


@dataclass(frozen=True)
class Side:
    """One of several replies.

    Attributes:
        text: The reply so far.
        done: True when the reply is complete.
    """

    text: str
    done: bool = True


def column_widths(count: int, columns: int) -> list[int] | None:
    """Return the widths of ``count`` columns on a terminal; None for a single column, or when the terminal is too narrow."""
    column_width = (columns - len(RULE) * (count - 1)) // max(1, count)
    return (
        [column_width] * count if count > 1 and column_width >= MIN_COLUMN_WIDTH else None
    )  # equal widths, so that equal texts wrap equally


def first_difference(sides: Sequence[Side]) -> int | None:
    """Return the index of the first character at which replies differ; None when no difference is certain yet.

    A reply that ends earlier than the others differs from them at its end. Grapheme clusters are compared as a whole: emoji that differ in
    their last member differ at their first character. The last cluster of an unfinished reply may still grow, so its difference is not certain.
    """
    clusters_of_sides = [list(iter_graphemes(side.text)) for side in sides]
    character_index = 0
    for cluster_index in range(max(map(len, clusters_of_sides), default=0)):
        clusters_here: list[str] = []
        one_has_ended = one_may_grow = False
        for clusters, side in zip(clusters_of_sides, sides, strict=True):
            if cluster_index < len(clusters):
                clusters_here.append(clusters[cluster_index])
                is_last = cluster_index == len(clusters) - 1
                one_may_grow = one_may_grow or (is_last and not side.done and clusters_here[-1] != "\n")
            elif side.done:
                one_has_ended = True
            else:
                return None
        if one_has_ended or (len(set(clusters_here)) > 1 and not one_may_grow):
            return character_index
        if one_may_grow:
            return None
        character_index += len(clusters_here[0])
    return None


def side_rows(side: Side, columns: int, difference: int | None = None) -> list[Line]:
    """Wrap one reply to its column and mark the character with index ``difference``; the mark at the end of a line is ⏎, at the end of the
    reply ∎.
    """
    rows: list[Line] = []
    line_start = 0
    lines = side.text.split("\n")
    for number, line in enumerate(lines):
        is_last = number == len(lines) - 1
        mark = None if difference is None else difference - line_start
        marks = len(line) if is_last and not side.done else len(line) + 1  # a line that may grow has no end to mark
        rows += _wrap_marked(line, columns, mark if mark is not None and 0 <= mark < marks else None, "∎" if is_last else "⏎")
        line_start += len(line) + 1
    return rows


@lru_cache(maxsize=2048)  # most lines are wrapped again in each frame
def _wrap_marked(line: str, columns: int, mark: int | None, end_mark: str) -> list[Line]:
    """Wrap a line and mark the character with index ``mark``; ``end_mark`` is added when that is the length of the line."""
    if mark is None:
        return wrap_line([("", _escape(line))], columns)
    marked = next(iter_graphemes(line[mark:]), "")
    visible = "␣" if marked.isspace() else _escape(marked)  # a blank at the end of a row is invisible
    shown = [("", _escape(line[:mark])), ("class:difference", visible or end_mark), ("", _escape(line[mark + len(marked) :]))]
    return wrap_line([pair for pair in shown if pair[1]], columns)


def count_final_rows(sides: Sequence[Side], rows_of_sides: Sequence[list[Line]]) -> int:
    """Return the number of rows, from the top, that no further text can change in any column."""
    unfinished_heights = [len(rows) for side, rows in zip(sides, rows_of_sides, strict=True) if not side.done]
    return min(unfinished_heights) - 1 if unfinished_heights else max(map(len, rows_of_sides), default=0)


def text_after_rows(text: str, columns: int, count: int) -> str:
    """Return the text that follows the first ``count`` rows, as ``side_rows`` wraps it.

    Args:
        text: Text of a side, without control characters.
        columns: Width of its column.
        count: Number of rows.
    """
    lines = text.split("\n")
    for number, line in enumerate(lines):
        rows = wrap_line([("", line)], columns)
        if count < len(rows):
            remaining = line
            for row in rows[:count]:
                remaining = remaining[len(text_of(row)) :].lstrip(" ")  # wrapping drops the spaces at a break
            return "\n".join([remaining, *lines[number + 1 :]])
        count -= len(rows)
    return ""


def rows_across(rows_of_sides: Sequence[list[Line]], start: int = 0, stop: int | None = None) -> list[Row]:
    """Return rows ``start`` to ``stop`` (exclusive; None for all) of all columns; a column that has ended is empty."""
    if stop is None:
        stop = max(map(len, rows_of_sides), default=0)
    return [[rows[index] if index < len(rows) else [] for rows in rows_of_sides] for index in range(start, stop)]


def join_columns(row: Row, widths: Sequence[int], anchored: bool = False) -> Line:
    """Join the columns of a row into one line with separators.

    Args:
        row: A line for each column.
        widths: Widths of the columns.
        anchored: Move the cursor to each separator with a terminal escape sequence, so that it is aligned even when the terminal draws an
            emoji wider or narrower than computed.
    """
    line: Line = []
    start = 0
    for column, (cell, column_width) in enumerate(zip(row, widths, strict=True)):
        if column:
            if anchored:
                line.append(("[ZeroWidthEscape]", f"\x1b[{start + 1}G"))
            line.append(("class:faint", RULE))
            start += len(RULE)
        line += pad(cell, column_width) if column < len(row) - 1 else cell
        start += column_width
    return line


def difference_note(titles: Sequence[str], texts: Sequence[str]) -> str:
    """Return a note that says whether the replies differ, from which character on, and how each goes on there."""
    index = first_difference([Side(text) for text in texts])
    if index is None:
        return "all say the same"
    excerpts = []
    for title, text in zip(titles, texts, strict=True):
        line, _, _ = text[index:].partition("\n")
        excerpts.append(f"{title} {clip(line, 16) or '(nothing)'}")
    return f"they differ from character {index + 1} on: " + " · ".join(excerpts)


def heading_row(titles: Sequence[str], widths: Sequence[int]) -> Row:
    """Return the column titles, cut to their widths."""
    return [[("bold", clip(title, column_width))] for title, column_width in zip(titles, widths, strict=True)]


def clip(text: str, columns: int) -> str:
    """Cut a one-line text to a width, with an ellipsis when it was cut."""
    text = _escape(text).replace("\n", " ")
    if line_width([("", text)]) <= columns:
        return text
    kept = ""
    for cluster in iter_graphemes(text):
        if line_width([("", kept + cluster)]) > columns - 1:
            break
        kept += cluster
    return kept + "…" if columns > 0 else ""


def _escape(text: str) -> str:
    return escape_controls(text).expandtabs(4)
