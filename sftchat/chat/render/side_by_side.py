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
        self._escapers = [ControlEscaper() for _ in titles]
        self._starts_in_thoughts = list(thinking) or [False for _ in titles]
        self._splitters = [ThoughtSplitter(opened) for opened in self._starts_in_thoughts]
        self._texts = ["" for _ in titles]
        self._done = [False for _ in titles]
        self._column_width = 0  # 0 before the first drawing
        self._returned_count = 0  # number of rows that ``lines`` has returned
        self._headings_returned = self._difference_returned = False
        self._rows_of_sides: list[list[Line]] = [[] for _ in titles]

    def feed(self, column: int, piece: str) -> None:
        """Add a piece of a reply."""
        self._add_parts(column, self._splitters[column].feed(piece))

    def retract(self, column: int) -> None:
        """Treat the reply of a column so far as thoughts: rows already returned stay, the others are removed unless thoughts are shown."""
        text = self._texts[column]
        if not self._returned_count and not self._show_thoughts:
            self._texts[column] = ""
        else:
            line_break = "\n" if text and not text.endswith("\n") else ""
            self._texts[column] = f"{text}{line_break}({THOUGHTS_END_NOTE})\n"

    def end(self, column: int) -> None:
        """Finish the reply of a column."""
        splitter = self._splitters[column]
        self._add_parts(column, splitter.end())
        if self._starts_in_thoughts[column] and splitter.in_thoughts and not self._show_thoughts:  # no closing tag came: may be the answer
            self._add_parts(column, [ReplyPart(splitter.thought_text, False)])
        self._texts[column] = (self._texts[column] + self._escapers[column].end()).removesuffix("\n")
        self._done[column] = True

    def _add_parts(self, column: int, parts: Iterable[ReplyPart]) -> None:
        """Add the visible parts of a reply."""
        for part in parts:
            if self._show_thoughts or not part.is_thought:
                self._texts[column] += self._escapers[column].feed(part.text).replace("\t", "    ")

    def lines(self, columns: int) -> list[Line]:
        """Draw all rows for a terminal width; return those that can no longer change and were not returned before."""
        column_width = max(MIN_STREAMED_WIDTH, (columns - len(RULE) * (len(self._titles) - 1)) // len(self._titles))
        if self._column_width and column_width != self._column_width:
            self._start_over()
        self._column_width = column_width
        # a newline at the end of an unfinished reply does not start a row until text follows
        sides = [Side(text if done else text.removesuffix("\n"), done) for text, done in zip(self._texts, self._done, strict=True)]
        difference = None if self._difference_returned else first_difference(sides)
        self._rows_of_sides = [side_rows(side, column_width, difference) for side in sides]
        final_count = max(self._returned_count, count_final_rows(sides, self._rows_of_sides))
        rows = rows_across(self._rows_of_sides, self._returned_count, final_count)
        widths = [column_width] * len(self._titles)
        if not self._headings_returned:
            rows.insert(0, heading_row(self._titles, widths))
        self._headings_returned, self._returned_count = True, final_count
        return [join_columns(row, widths, anchored=True) for row in rows]

    def tail(self, height: int) -> list[Line]:
        """Return the last rows that may still change, as drawn by the last call of ``lines``."""
        widths = [self._column_width] * len(self._titles)
        remaining = [rows[self._returned_count :][-height:] for rows in self._rows_of_sides]
        return [join_columns(row, widths, anchored=True) for row in rows_across(remaining)]

    def _start_over(self) -> None:
        """Handle a change of width: rows already returned stay, the remaining text starts on a new row."""
        returned_rows = [row for rows in self._rows_of_sides for row in rows[: self._returned_count]]
        if any(style == "class:difference" for row in returned_rows for style, _ in row):
            self._difference_returned = True
        self._texts = [text_after_rows(text, self._column_width, self._returned_count) for text in self._texts]
        self._returned_count = 0
