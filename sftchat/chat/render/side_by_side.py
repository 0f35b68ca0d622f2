"""Several replies streamed side by side; rows are emitted from the top once no further text can change them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sftchat.chat.render.columns import (
    RULE,
    Side,
    count_final_rows,
    first_difference,
    heading_row,
    join_columns,
    rows_across,
    side_rows,
    text_after_rows,
)
from sftchat.chat.render.width import Line
from sftchat.chat.safe_text import ControlEscaper
from sftchat.thinking import THOUGHTS_END_NOTE, ReplyPart, ThoughtSplitter

MIN_STREAMED_WIDTH = 6
"""Minimum column width when the terminal is made narrower during streaming."""


class SideBySide:
    """Streams the replies to one message in columns.

    Args:
        titles: Column titles.
        show_thoughts: Show the models' thoughts.
        thinking: For each model, whether the prompt opened its thoughts; empty when none did.
    """

    def __init__(self, titles: Sequence[str], show_thoughts: bool = False, thinking: Sequence[bool] = ()) -> None:
        self._titles = titles
        self._show_thoughts = show_thoughts
        self._printable = [ControlEscaper() for _ in titles]
        self._opened = list(thinking) or [False for _ in titles]
        self._thoughts = [ThoughtSplitter(opened) for opened in self._opened]
        self._texts = ["" for _ in titles]
        self._done = [False for _ in titles]
        self._returned_rows = 0
        self._width = 0
        self._has_headings = self._difference_returned = False
        self._sides: list[Side] = []
        self._drawn: list[list[Line]] = [[] for _ in titles]

    def feed(self, column: int, piece: str) -> None:
        """Add a piece of a reply."""
        self._take(column, self._thoughts[column].feed(piece))

    def retract(self, column: int) -> None:
        """Treat the reply of a column so far as thoughts: rows already returned stay, the others are removed unless thoughts are shown."""
        if self._returned_rows or self._show_thoughts:
            text = self._texts[column]
            self._texts[column] = text + ("" if text.endswith("\n") or not text else "\n") + f"({THOUGHTS_END_NOTE})\n"
        else:
            self._texts[column] = ""

    def end(self, column: int) -> None:
        """Finish the reply of a column."""
        thoughts = self._thoughts[column]
        self._take(column, thoughts.end())
        if self._opened[column] and thoughts.in_thoughts and not self._show_thoughts:  # no end of thoughts: may be the reply
            self._take(column, [ReplyPart(thoughts.thought_text, False)])
        self._texts[column] = (self._texts[column] + self._printable[column].end()).removesuffix("\n")
        self._done[column] = True

    def _take(self, column: int, parts: Iterable[ReplyPart]) -> None:
        """Add the visible parts of a reply."""
        for part in parts:
            if self._show_thoughts or not part.is_thought:
                self._texts[column] += self._printable[column].feed(part.text).replace("\t", "    ")

    def lines(self, columns: int) -> list[Line]:
        """Draw all rows for a terminal width; return those that can no longer change and were not returned before."""
        column_width = max(MIN_STREAMED_WIDTH, (columns - len(RULE) * (len(self._titles) - 1)) // len(self._titles))
        if self._width and column_width != self._width:
            self._start_over()
        self._width = column_width
        # a newline at the end of an unfinished reply does not start a row until text follows
        shown = [text if done else text.removesuffix("\n") for text, done in zip(self._texts, self._done, strict=True)]
        self._sides = [Side(text, done) for text, done in zip(shown, self._done, strict=True)]
        difference = None if self._difference_returned else first_difference(self._sides)
        self._drawn = [side_rows(side, column_width, difference) for side in self._sides]
        widths = [column_width] * len(self._titles)
        rows = [] if self._has_headings else [join_columns(heading_row(self._titles, widths), widths, anchored=True)]
        self._has_headings = True
        settled_rows = max(self._returned_rows, count_final_rows(self._sides, self._drawn))
        rows += [join_columns(row, widths, anchored=True) for row in rows_across(self._drawn, self._returned_rows, settled_rows)]
        self._returned_rows = settled_rows
        return rows

    def tail(self, height: int) -> list[Line]:
        """Return the last rows that may still change, as drawn by the last call of ``lines``."""
        widths = [self._width] * len(self._titles)
        left = [rows[self._returned_rows :][-height:] for rows in self._drawn]
        return [join_columns(row, widths, anchored=True) for row in rows_across(left)] if any(left) else []

    def _start_over(self) -> None:
        """Handle a change of width: rows already returned stay, the remaining text starts on a new row."""
        self._difference_returned = self._difference_returned or any(
            style == "class:difference" for rows in self._drawn for row in rows[: self._returned_rows] for style, _ in row
        )
        self._texts = [text_after_rows(text, self._width, self._returned_rows) for text in self._texts]
        self._returned_rows = 0
