"""Incremental rendering of one reply: chunks in, complete styled lines out, and the unfinished rest."""

from __future__ import annotations

from collections.abc import Iterable

from sftchat.chat.context import Display
from sftchat.chat.render.markdown import Markdown
from sftchat.chat.render.width import Line
from sftchat.chat.safe_text import LineBuffer
from sftchat.thinking import THOUGHTS_END_NOTE, ReplyPart, ThoughtSplitter

THOUGHT = "class:thought"


class ReplyText:
    """Renders the chunks of one reply as lines; lines that were returned never change.

    Args:
        display: Display options; the option for thoughts may change at any time, see ``unseen``.
        thinking: True when the prompt opened the thoughts.
    """

    def __init__(self, display: Display, thinking: bool = False) -> None:
        self._display = display
        self._markdown = Markdown() if display.markdown else None
        self._opened = thinking
        self._thoughts = ThoughtSplitter(thinking)
        self._thinking = self._said_a_thought = False
        self._returned_lines = self._text_was_thoughts = False
        self._waiting: list[Line] = []
        self._thought_lines = LineBuffer()
        self._unseen: list[str] = []
        self._lines = LineBuffer()

    def feed(self, piece: str, columns: int) -> list[Line]:
        """Add a piece of text and return the lines that it completes.

        Args:
            piece: Any part of the reply.
            columns: Width of the terminal; tables are fitted to it.
        """
        lines = self._take(self._thoughts.feed(piece), columns)
        self._returned_lines = self._returned_lines or bool(lines)
        return lines

    def retract(self, piece: str = "") -> None:
        """Treat the reply so far as thoughts.

        Lines already returned cannot be taken back: a line after them says that they were thoughts. The text not yet returned is shown like thoughts.

        Args:
            piece: More of the thoughts.
        """
        pending_lines = self._markdown.pending_lines if self._markdown is not None else []
        not_returned = "".join(f"{line}\n" for line in pending_lines) + self._lines.tail + piece
        self._markdown = Markdown() if self._display.markdown else None
        self._lines = LineBuffer()
        self._opened, self._thoughts = False, ThoughtSplitter()
        self._thoughts.thought_text = not_returned
        self._thinking, self._text_was_thoughts = True, self._returned_lines
        self._waiting = self._think(self._thought_lines.feed(not_returned))

    def end(self, columns: int) -> list[Line]:
        """Finish the reply; its last line is complete with or without a newline."""
        lines = self._take(self._thoughts.end(), columns) + self._end_thoughts() + self._render(self._lines.end(), columns)
        return lines + (self._markdown.end(columns) if self._markdown is not None else [])

    def unseen(self) -> list[Line]:
        """Return complete lines of thoughts that were not shown, and mark them as shown."""
        lines, self._unseen = self._unseen, []
        return [[(THOUGHT, line)] if line else [] for line in lines]

    def tail(self) -> list[Line]:
        """Return the unfinished part: the last line, and a table before it; for hidden thoughts, their length."""
        if self._thinking and not self._display.thoughts:
            return [[(THOUGHT, f"thinking, {len(self._thoughts.thought_text)} characters; f2 shows them")]]
        if self._thinking:
            return [[(THOUGHT, self._thought_lines.tail)]] if self._thought_lines.tail else []
        pending_lines = self._markdown.pending_lines if self._markdown is not None else []
        return [[("", line)] for line in [*pending_lines, *([self._lines.tail] if self._lines.tail else [])]]

    def _take(self, parts: Iterable[ReplyPart], columns: int) -> list[Line]:
        """Return the lines that the parts complete."""
        lines, self._waiting = self._waiting, []
        for part in parts:
            if part.is_thought:
                self._thinking = True
                lines += self._think(self._thought_lines.feed(part.text))
            else:
                lines += self._end_thoughts() + self._render(self._lines.feed(part.text), columns)
        return lines

    def _think(self, text: str) -> list[Line]:
        """Return complete lines of thoughts, without leading empty lines."""
        for line in text.split("\n")[:-1]:
            self._said_a_thought = self._said_a_thought or bool(line)
            if self._said_a_thought:
                self._unseen.append(line)
        return self.unseen() if self._display.thoughts else []

    def _end_thoughts(self) -> list[Line]:
        """End the thoughts; add a line that says so when they were not shown."""
        if not self._thinking:
            return []
        lines = self._think(self._thought_lines.end())
        self._thinking = False
        if self._opened and self._thoughts.in_thoughts:  # the end of the thoughts never came, so this may be the reply
            lines += self.unseen()
        if any(self._unseen):
            lines.append([(THOUGHT, f"thought {len(self._thoughts.thought_text)} characters; f2 shows them")])
        if self._text_was_thoughts:
            self._text_was_thoughts = False
            lines.append([(THOUGHT, f"({THOUGHTS_END_NOTE})")])
        return lines

    def _render(self, text: str, columns: int) -> list[Line]:
        lines = text.split("\n")[:-1]
        if self._markdown is None:
            return [[("", line)] if line else [] for line in lines]
        return [shown for line in lines for shown in self._markdown.feed(line, columns)]
