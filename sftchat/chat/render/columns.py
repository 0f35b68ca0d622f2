"""Several replies to one prompt, side by side: texts in, rows out. The column rule stands where it stands, whatever is beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from wcwidth import iter_graphemes

from sftchat.chat.render.width import Line, pad, plain, width, wrap_line
from sftchat.chat.safe_text import escape_controls

RULE = " │ "
MIN_COLUMN_WIDTH = 48
"""Replies narrower than this are easier to read one below the other: two side by side want a terminal of 99 columns."""

Row = list[Line]
"""One line for each column, no wider than the column."""


@dataclass(frozen=True)
class Side:
    """One of several replies.

    Attributes:
        text: The reply so far.
        done: It is over.
    """

    text: str
    done: bool = True


def column_widths(count: int, columns: int) -> list[int] | None:
    """Widths of ``count`` columns on a terminal; None when they stand alone or must stand one below the other."""
    each = (columns - len(RULE) * (count - 1)) // max(1, count)
    return [each] * count if count > 1 and each >= MIN_COLUMN_WIDTH else None  # all the same, so that what is alike breaks alike


def first_difference(sides: Sequence[Side]) -> int | None:
    """Index of the first character at which replies differ, once all are known up to there; None before, and when they are the same.

    A reply that goes on where another has ended differs there. Clusters are kept whole: an emoji that differs in its last member differs
    at its first character.
    """
    whole = [list(iter_graphemes(side.text)) for side in sides]
    at = 0
    for position in range(max(map(len, whole), default=0)):
        here: list[str] = []
        ended = growing = 0
        for clusters, side in zip(whole, sides, strict=True):
            if position < len(clusters):
                here.append(clusters[position])
                growing += not side.done and position == len(clusters) - 1 and here[-1] != "\n"
            elif side.done:
                ended += 1
            else:
                return None
        if ended or (len(set(here)) > 1 and not growing):
            return at
        if growing:
            return None
        at += len(here[0])
    return None


def side_rows(side: Side, columns: int, difference: int | None = None) -> list[Line]:
    """One reply as rows no wider than its column, the character at ``difference`` marked: a line that ends there with ⏎, the reply's end with ∎."""
    rows: list[Line] = []
    at = 0
    lines = side.text.split("\n")
    for number, line in enumerate(lines):
        last = number == len(lines) - 1
        here = difference is not None and at <= difference < at + len(line) + (side.done or not last)
        rows += _wrapped(line, columns, difference - at if here and difference is not None else None, "∎" if last else "⏎")
        at += len(line) + 1
    return rows


@lru_cache(maxsize=2048)
def _wrapped(line: str, columns: int, mark: int | None, end: str) -> list[Line]:
    """A line in rows, with a mark before the character ``mark``, or ``end`` when there is none; most lines are asked for again and again."""
    if mark is None:
        return wrap_line([("", _shown(line))], columns)
    before, rest = line[:mark], line[mark:]
    marked = next(iter_graphemes(rest), "")
    seen = "␣" if marked.isspace() else _shown(marked)  # a blank at the end of a row would not be seen
    shown = [("", _shown(before)), ("class:difference", seen or end), ("", _shown(rest[len(marked) :]))]
    return wrap_line([pair for pair in shown if pair[1]], columns)


def settled(sides: Sequence[Side], drawn: Sequence[list[Line]]) -> int:
    """How many rows, from the top, no further text can change in any column."""
    growing = [len(rows) - 1 for side, rows in zip(sides, drawn, strict=True) if not side.done]
    return min(growing) if growing else max(map(len, drawn), default=0)


def rest(text: str, columns: int, count: int) -> str:
    """What is left of a text when its first rows, as ``side_rows`` breaks it, are taken away.

    Args:
        text: Of a side, without control characters.
        columns: Width of its column.
        count: How many rows.
    """
    lines = text.split("\n")
    for number, line in enumerate(lines):
        rows = wrap_line([("", line)], columns)
        if count < len(rows):
            at = 0
            for row in rows[:count]:
                at += len(plain(row))
                at += len(line[at:]) - len(line[at:].lstrip(" "))
            return "\n".join([line[at:], *lines[number + 1 :]])
        count -= len(rows)
    return ""


def table(drawn: Sequence[list[Line]], first: int = 0, last: int | None = None) -> list[Row]:
    """Rows ``first`` to ``last`` of all columns together; a column that has ended is empty."""
    height = max(map(len, drawn), default=0) if last is None else last
    return [[rows[level] if level < len(rows) else [] for rows in drawn] for level in range(first, height)]


def join(row: Row, widths: Sequence[int], anchored: bool = False) -> Line:
    """The columns of a row as one line with rules between them.

    Args:
        row: A line for each column.
        widths: Of the columns.
        anchored: Have the terminal itself move to where each rule stands, so that it stands there even when the terminal draws an emoji
            wider or narrower than we think.
    """
    line: Line = []
    start = 0
    for at, (cell, size) in enumerate(zip(row, widths, strict=True)):
        if at:
            line += [("[ZeroWidthEscape]", f"\x1b[{start + 1}G")] if anchored else []
            line.append(("class:faint", RULE))
            start += len(RULE)
        line += pad(cell, size) if at < len(row) - 1 else cell
        start += size
    return line


def difference_note(titles: Sequence[str], texts: Sequence[str]) -> str:
    """Whether the replies differ, and from where on, in words: for terminals where they stand one below the other."""
    at = first_difference([Side(text) for text in texts])
    if at is None:
        return "all say the same"
    shown = [f"{title} {clip(text[at:].split(chr(10))[0], 16) or '(nothing)'}" for title, text in zip(titles, texts, strict=True)]
    return f"they differ from character {at + 1} on: " + " · ".join(shown)


def headings(titles: Sequence[str], widths: Sequence[int]) -> Row:
    """The names above the columns, cut where they are too long."""
    return [[("bold", clip(title, size))] for title, size in zip(titles, widths, strict=True)]


def clip(text: str, columns: int) -> str:
    """A text of one line cut to a width, with an ellipsis where something is missing."""
    text = _shown(text).replace("\n", " ")
    if width([("", text)]) <= columns:
        return text
    kept = ""
    for cluster in iter_graphemes(text):
        if width([("", kept + cluster)]) > columns - 1:
            break
        kept += cluster
    return kept + "…" if columns > 0 else ""


def _shown(text: str) -> str:
    """Text that can be drawn in cells."""
    return escape_controls(text).expandtabs(4)
