"""Layout of several replies side by side: texts in, rows out. The separators between columns stay aligned at any content."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from wcwidth import iter_graphemes

from sftchat.chat.render.width import Line, pad, text_of, width, wrap_line
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
        done: The reply is complete.
    """

    text: str
    done: bool = True


def column_widths(count: int, columns: int) -> list[int] | None:
    """Return the widths of ``count`` columns on a terminal; None for a single column, or when the terminal is too narrow."""
    each = (columns - len(RULE) * (count - 1)) // max(1, count)
    return [each] * count if count > 1 and each >= MIN_COLUMN_WIDTH else None  # equal widths, so that equal texts wrap equally


def first_difference(sides: Sequence[Side]) -> int | None:
    """Return the index of the first character at which replies differ; None when no difference is certain yet.

    A difference is certain once every reply is known up to it, and the last character of an unfinished reply can no longer be extended, as an
    emoji can. A reply that ends earlier than the others differs from them at its end. Grapheme clusters are not split: emoji that differ in their
    last member differ at their first character.
    """
    clusters_of_sides = [list(iter_graphemes(side.text)) for side in sides]
    character_index = 0
    for cluster_index in range(max(map(len, clusters_of_sides), default=0)):
        clusters_here: list[str] = []
        ended = may_grow = 0
        for clusters, side in zip(clusters_of_sides, sides, strict=True):
            if cluster_index < len(clusters):
                clusters_here.append(clusters[cluster_index])
                may_grow += not side.done and cluster_index == len(clusters) - 1 and clusters_here[-1] != "\n"
            elif side.done:
                ended += 1
            else:
                return None
        if ended or (len(set(clusters_here)) > 1 and not may_grow):
            return character_index
        if may_grow:
            return None
        character_index += len(clusters_here[0])
    return None


def side_rows(side: Side, columns: int, difference: int | None = None) -> list[Line]:
    """Wrap one reply to its column and mark the character at ``difference``: with ⏎ at the end of a line, with ∎ at the end of the
    reply.
    """
    rows: list[Line] = []
    line_start = 0
    lines = side.text.split("\n")
    for number, line in enumerate(lines):
        last = number == len(lines) - 1
        here = difference is not None and line_start <= difference < line_start + len(line) + (side.done or not last)
        rows += _wrap_marked(line, columns, difference - line_start if here and difference is not None else None, "∎" if last else "⏎")
        line_start += len(line) + 1
    return rows


@lru_cache(maxsize=2048)
def _wrap_marked(line: str, columns: int, mark: int | None, end: str) -> list[Line]:
    """Wrap a line and mark character ``mark``; add ``end`` when it is None. Cached, because most lines are requested repeatedly."""
    if mark is None:
        return wrap_line([("", _escape(line))], columns)
    before, from_mark = line[:mark], line[mark:]
    marked = next(iter_graphemes(from_mark), "")
    seen = "␣" if marked.isspace() else _escape(marked)  # a blank at the end of a row is invisible
    shown = [("", _escape(before)), ("class:difference", seen or end), ("", _escape(from_mark[len(marked) :]))]
    return wrap_line([pair for pair in shown if pair[1]], columns)


def count_final_rows(sides: Sequence[Side], drawn: Sequence[list[Line]]) -> int:
    """Return the number of rows, from the top, that no further text can change in any column."""
    growing = [len(rows) - 1 for side, rows in zip(sides, drawn, strict=True) if not side.done]
    return min(growing) if growing else max(map(len, drawn), default=0)


def text_after_rows(text: str, columns: int, count: int) -> str:
    """Return the text that remains after its first ``count`` rows, as ``side_rows`` wraps it.

    Args:
        text: Text of a side, without control characters.
        columns: Width of its column.
        count: Number of rows.
    """
    lines = text.split("\n")
    for number, line in enumerate(lines):
        rows = wrap_line([("", line)], columns)
        if count < len(rows):
            index = 0
            for row in rows[:count]:
                index += len(text_of(row))
                index += len(line[index:]) - len(line[index:].lstrip(" "))
            return "\n".join([line[index:], *lines[number + 1 :]])
        count -= len(rows)
    return ""


def rows_across(drawn: Sequence[list[Line]], first: int = 0, last: int | None = None) -> list[Row]:
    """Return rows ``first`` to ``last`` of all columns; columns that have ended are empty."""
    height = max(map(len, drawn), default=0) if last is None else last
    return [[rows[level] if level < len(rows) else [] for rows in drawn] for level in range(first, height)]


def join_columns(row: Row, widths: Sequence[int], anchored: bool = False) -> Line:
    """Join the columns of a row into one line with separators.

    Args:
        row: A line for each column.
        widths: Widths of the columns.
        anchored: Position each separator with a terminal escape sequence, so that it is aligned even when the terminal draws an emoji wider
            or narrower than computed.
    """
    line: Line = []
    start = 0
    for column, (cell, size) in enumerate(zip(row, widths, strict=True)):
        if column:
            line += [("[ZeroWidthEscape]", f"\x1b[{start + 1}G")] if anchored else []
            line.append(("class:faint", RULE))
            start += len(RULE)
        line += pad(cell, size) if column < len(row) - 1 else cell
        start += size
    return line


def difference_note(titles: Sequence[str], texts: Sequence[str]) -> str:
    """Describe in words whether and where the replies differ, for replies shown one below the other."""
    index = first_difference([Side(text) for text in texts])
    if index is None:
        return "all say the same"
    shown = [f"{title} {clip(text[index:].split(chr(10))[0], 16) or '(nothing)'}" for title, text in zip(titles, texts, strict=True)]
    return f"they differ from character {index + 1} on: " + " · ".join(shown)


def heading_row(titles: Sequence[str], widths: Sequence[int]) -> Row:
    """Return the column titles, cut to their widths."""
    return [[("bold", clip(title, size))] for title, size in zip(titles, widths, strict=True)]


def clip(text: str, columns: int) -> str:
    """Cut a one-line text to a width, with an ellipsis when it was cut."""
    text = _escape(text).replace("\n", " ")
    if width([("", text)]) <= columns:
        return text
    kept = ""
    for cluster in iter_graphemes(text):
        if width([("", kept + cluster)]) > columns - 1:
            break
        kept += cluster
    return kept + "…" if columns > 0 else ""


def _escape(text: str) -> str:
    return escape_controls(text).expandtabs(4)
