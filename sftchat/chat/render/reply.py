"""Incremental rendering of one reply: chunks in, complete styled lines out, and the unfinished part."""

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
        self._starts_in_thoughts = thinking
        self._splitter = ThoughtSplitter(thinking)
        self._in_thoughts = False  # the last part that arrived belongs to the thoughts
        self._has_thought_line = False
        self._has_returned_lines = False
        self._needs_end_note = False  # lines that turned out to be thoughts were returned as answer
        self._next_lines: list[Line] = []  # to return with the next piece
        self._thought_buffer = LineBuffer()
        self._unseen: list[str] = []
        self._answer_buffer = LineBuffer()

    def feed(self, piece: str, columns: int) -> list[Line]:
        """Add a piece of text and return the lines that it completes.

        Args:
            piece: Any part of the reply.
            columns: Width of the terminal; tables are fitted to it.
        """
        lines = self._render_parts(self._splitter.feed(piece), columns)
        self._has_returned_lines = self._has_returned_lines or bool(lines)
        return lines

    def retract(self, piece: str = "") -> None:
        """Treat the reply so far as thoughts.

        Lines already returned cannot be taken back: a line after them says that they were thoughts. The other text is shown like thoughts.

        Args:
            piece: More of the thoughts.
        """
        not_returned = "".join(f"{line}\n" for line in self._pending_lines) + self._answer_buffer.tail + piece
        self._markdown = Markdown() if self._display.markdown else None
        self._answer_buffer = LineBuffer()
        self._starts_in_thoughts, self._splitter = False, ThoughtSplitter()
        self._splitter.thought_text = not_returned
        self._in_thoughts, self._needs_end_note = True, self._has_returned_lines
        self._next_lines = self._add_thought_lines(self._thought_buffer.feed(not_returned))

    def end(self, columns: int) -> list[Line]:
        """Finish the reply; its last line is complete with or without a newline."""
        lines = self._render_parts(self._splitter.end(), columns)
        lines += self._end_thoughts()
        lines += self._render_answer_lines(self._answer_buffer.end(), columns)
        return lines + (self._markdown.end(columns) if self._markdown is not None else [])

    def unseen(self) -> list[Line]:
        """Return complete lines of thoughts that were not shown, and mark them as shown."""
        lines, self._unseen = self._unseen, []
        return [[(THOUGHT, line)] if line else [] for line in lines]

    def tail(self) -> list[Line]:
        """Return the unfinished part: the last line, and a table before it; for hidden thoughts, their length."""
        if self._in_thoughts and not self._display.thoughts:
            return [[(THOUGHT, f"thinking, {len(self._splitter.thought_text)} characters; f2 shows them")]]
        if self._in_thoughts:
            return [[(THOUGHT, self._thought_buffer.tail)]] if self._thought_buffer.tail else []
        last_line = [self._answer_buffer.tail] if self._answer_buffer.tail else []
        return [[("", line)] for line in self._pending_lines + last_line]

    @property
    def _pending_lines(self) -> list[str]:
        return self._markdown.pending_lines if self._markdown is not None else []

    def _render_parts(self, parts: Iterable[ReplyPart], columns: int) -> list[Line]:
        """Return the lines that the parts complete."""
        lines, self._next_lines = self._next_lines, []
        for part in parts:
            if part.is_thought:
                self._in_thoughts = True
                lines += self._add_thought_lines(self._thought_buffer.feed(part.text))
            else:
                lines += self._end_thoughts()
                lines += self._render_answer_lines(self._answer_buffer.feed(part.text), columns)
        return lines

    def _add_thought_lines(self, text: str) -> list[Line]:
        """Add complete lines of thoughts, without leading empty lines; return the unseen lines when thoughts are shown."""
        for line in text.split("\n")[:-1]:
            self._has_thought_line = self._has_thought_line or bool(line)
            if self._has_thought_line:
                self._unseen.append(line)
        return self.unseen() if self._display.thoughts else []

    def _end_thoughts(self) -> list[Line]:
        """Return the last line of the thoughts, and a line that says how long they were when they were not shown."""
        if not self._in_thoughts:
            return []
        lines = self._add_thought_lines(self._thought_buffer.end())
        self._in_thoughts = False
        if self._starts_in_thoughts and self._splitter.in_thoughts:  # no closing tag came, so these thoughts may be the answer
            lines += self.unseen()
        if any(self._unseen):
            lines.append([(THOUGHT, f"thought {len(self._splitter.thought_text)} characters; f2 shows them")])
        if self._needs_end_note:
            self._needs_end_note = False
            lines.append([(THOUGHT, f"({THOUGHTS_END_NOTE})")])
        return lines

    def _render_answer_lines(self, text: str, columns: int) -> list[Line]:
        """Render complete lines; ``text`` is empty or ends with a newline."""
        lines = text.split("\n")[:-1]
        if self._markdown is None:
            return [[("", line)] if line else [] for line in lines]
        return [rendered for line in lines for rendered in self._markdown.feed(line, columns)]
