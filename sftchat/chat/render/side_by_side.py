"""Several replies streamed side by side; rows are emitted from the top once no further text can change them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sftchat.chat.render.columns import RULE, Side, first_difference, headings, join, rest, settled, side_rows, table
from sftchat.chat.render.width import Line
from sftchat.chat.safe_text import Printable
from sftchat.thinking import UP_TO_HERE, Part, Thoughts

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
        self._printable = [Printable() for _ in titles]
        self._opened = list(thinking) or [False for _ in titles]
        self._thoughts = [Thoughts(opened) for opened in self._opened]
        self._texts = ["" for _ in titles]
        self._done = [False for _ in titles]
        self._emitted = 0
        self._width = 0
        self._headed = self._marked = False
        self._sides: list[Side] = []
        self._drawn: list[list[Line]] = [[] for _ in titles]

    def feed(self, column: int, piece: str) -> None:
        """Add a piece of a reply."""
        self._take(column, self._thoughts[column].feed(piece))

    def retract(self, column: int) -> None:
        """Treat the reply of a column so far as thoughts: emitted rows stay, the others are removed unless thoughts are shown."""
        if self._emitted or self._show_thoughts:
            text = self._texts[column]
            self._texts[column] = text + ("" if text.endswith("\n") or not text else "\n") + f"({UP_TO_HERE})\n"
        else:
            self._texts[column] = ""

    def end(self, column: int) -> None:
        """Finish the reply of a column."""
        thoughts = self._thoughts[column]
        self._take(column, thoughts.end())
        if self._opened[column] and thoughts.thinking and not self._show_thoughts:  # no end of thoughts: may be the reply
            self._take(column, [Part(thoughts.thought, False)])
        self._texts[column] = (self._texts[column] + self._printable[column].end()).removesuffix("\n")
        self._done[column] = True

    def _take(self, column: int, parts: Iterable[Part]) -> None:
        """Add the visible parts of a reply."""
        for part in parts:
            if self._show_thoughts or not part.thought:
                self._texts[column] += self._printable[column].feed(part.text).replace("\t", "    ")

    def lines(self, columns: int) -> list[Line]:
        """Draw all rows for a terminal width and return those that are final and were not returned before."""
        each = max(MIN_STREAMED_WIDTH, (columns - len(RULE) * (len(self._titles) - 1)) // len(self._titles))
        if self._width and each != self._width:
            self._begin_anew()
        self._width = each
        # a final line feed may start no row: it is shown with the next text
        shown = [text if done else text.removesuffix("\n") for text, done in zip(self._texts, self._done, strict=True)]
        self._sides = [Side(text, done) for text, done in zip(shown, self._done, strict=True)]
        difference = None if self._marked else first_difference(self._sides)
        self._drawn = [side_rows(side, each, difference) for side in self._sides]
        widths = [each] * len(self._titles)
        rows = [] if self._headed else [join(headings(self._titles, widths), widths, anchored=True)]
        self._headed = True
        end = max(self._emitted, settled(self._sides, self._drawn))
        rows += [join(row, widths, anchored=True) for row in table(self._drawn, self._emitted, end)]
        self._emitted = end
        return rows

    def tail(self, height: int) -> list[Line]:
        """Return the last rows that may still change, as drawn by the last call of ``lines``."""
        widths = [self._width] * len(self._titles)
        left = [rows[self._emitted :][-height:] for rows in self._drawn]
        return [join(row, widths, anchored=True) for row in table(left)] if any(left) else []

    def _begin_anew(self) -> None:
        """Handle a change of width: emitted rows stay, the rest starts on a new row."""
        self._marked = self._marked or any(
            style == "class:difference" for rows in self._drawn for row in rows[: self._emitted] for style, _ in row
        )
        self._texts = [rest(text, self._width, self._emitted) for text in self._texts]
        self._emitted = 0
