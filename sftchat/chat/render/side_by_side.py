"""Several replies that stream at once, side by side: rows leave from the top as soon as no further text can change them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sftchat.chat.render.columns import RULE, Side, first_difference, headings, join, rest, settled, side_rows, table
from sftchat.chat.render.width import Line
from sftchat.chat.safe_text import Printable
from sftchat.thinking import UP_TO_HERE, Part, Thoughts

MIN_STREAMED_WIDTH = 6
"""Columns do not get narrower than this when the terminal is made narrower while they stream."""


class Beside:
    """The replies to one message in columns, as they come.

    Args:
        titles: What stands above each column.
        show_thoughts: Show what the models think before they answer.
        thinking: Of each model, whether the prompt opened its thoughts; none, when empty.
    """

    def __init__(self, titles: Sequence[str], show_thoughts: bool = False, thinking: Sequence[bool] = ()) -> None:
        self._titles = titles
        self._show_thoughts = show_thoughts
        self._printable = [Printable() for _ in titles]
        self._begun = list(thinking) or [False for _ in titles]
        self._thoughts = [Thoughts(begun) for begun in self._begun]
        self._texts = ["" for _ in titles]
        self._done = [False for _ in titles]
        self._given = 0
        self._width = 0
        self._headed = self._marked = False
        self._sides: list[Side] = []
        self._drawn: list[list[Line]] = [[] for _ in titles]

    def feed(self, column: int, piece: str) -> None:
        """Take a piece of a column's reply."""
        self._take(column, self._thoughts[column].feed(piece))

    def retract(self, column: int) -> None:
        """What a column said so far are thoughts: rows that stand above already stay, the others go unless thoughts are shown."""
        if self._given or self._show_thoughts:
            text = self._texts[column]
            self._texts[column] = text + ("" if text.endswith("\n") or not text else "\n") + f"({UP_TO_HERE})\n"
        else:
            self._texts[column] = ""

    def end(self, column: int) -> None:
        """A column's reply is over."""
        thoughts = self._thoughts[column]
        self._take(column, thoughts.end())
        if self._begun[column] and thoughts.thinking and not self._show_thoughts:  # it never said that they are over: this may be the reply
            self._take(column, [Part(thoughts.thought, False)])
        self._texts[column] = (self._texts[column] + self._printable[column].end()).removesuffix("\n")
        self._done[column] = True

    def _take(self, column: int, parts: Iterable[Part]) -> None:
        """Keep what is shown of a reply."""
        for part in parts:
            if self._show_thoughts or not part.thought:
                self._texts[column] += self._printable[column].feed(part.text).replace("\t", "    ")

    def lines(self, columns: int) -> list[Line]:
        """Draw everything for a terminal of this width, and return the rows that will not change any more and were not returned before."""
        each = max(MIN_STREAMED_WIDTH, (columns - len(RULE) * (len(self._titles) - 1)) // len(self._titles))
        if self._width and each != self._width:
            self._begin_anew()
        self._width = each
        # a line feed may be the end of the reply, where it is no row: it is shown with what follows it
        shown = [text if done else text.removesuffix("\n") for text, done in zip(self._texts, self._done, strict=True)]
        self._sides = [Side(text, done) for text, done in zip(shown, self._done, strict=True)]
        difference = None if self._marked else first_difference(self._sides)
        self._drawn = [side_rows(side, each, difference) for side in self._sides]
        widths = [each] * len(self._titles)
        found = [] if self._headed else [join(headings(self._titles, widths), widths, anchored=True)]
        self._headed = True
        end = max(self._given, settled(self._sides, self._drawn))
        found += [join(row, widths, anchored=True) for row in table(self._drawn, self._given, end)]
        self._given = end
        return found

    def tail(self, height: int) -> list[Line]:
        """The last rows of those that may still change, drawn with the last ``lines``."""
        widths = [self._width] * len(self._titles)
        left = [rows[self._given :][-height:] for rows in self._drawn]
        return [join(row, widths, anchored=True) for row in table(left)] if any(left) else []

    def _begin_anew(self) -> None:
        """The width changes: what was returned stays as it is, the rest begins on a row of its own."""
        self._marked = self._marked or any(
            style == "class:difference" for rows in self._drawn for row in rows[: self._given] for style, _ in row
        )
        self._texts = [rest(text, self._width, self._given) for text in self._texts]
        self._given = 0
