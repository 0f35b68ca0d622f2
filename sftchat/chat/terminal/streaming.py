"""A reply as it streams: frames instead of tokens, complete lines to the scrollback, the rest to the layout."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from prompt_toolkit.utils import get_cwidth

from sftchat.chat.lines import rows
from sftchat.chat.rendering.cells import Line
from sftchat.chat.rendering.reply import ReplyText
from sftchat.chat.terminal.scrollback import App, Scrollback

FRAME_SECONDS = 0.04
"""Pieces of a reply are drawn together at this pace; an engine may be faster than a terminal."""


class ReplyAbove:
    """The reply under way, or the last one.

    Args:
        above: Where complete lines go.
        app: Gives the application, once there is one.

    Attributes:
        markdown: Whether the next reply's Markdown is rendered.
        show_thoughts: Whether thoughts are shown.
    """

    def __init__(self, above: Scrollback, app: Callable[[], App]) -> None:
        self.markdown = True
        self.show_thoughts = False
        self._above = above
        self._app = app
        self._text = ReplyText()
        self._fresh: list[str] = []
        self._frame: asyncio.TimerHandle | None = None
        self._drawn: tuple[object, list[Line]] = (None, [])

    def begin(self, thinking: bool = False) -> None:
        """A reply is to come; the prompt may already have opened its thoughts."""
        self._text = ReplyText(self.markdown, self.show_thoughts, thinking)

    def feed(self, piece: str) -> None:
        """Take a piece of the reply; it is drawn with the next frame."""
        self._fresh.append(piece)
        loop = self._app().loop
        if self._frame is None and loop is not None:
            self._frame = loop.call_later(FRAME_SECONDS, self._draw)

    def end(self) -> None:
        """The reply is over."""
        self._draw()
        self._above.lines(self._text.end(self._above.columns))

    def toggle_thoughts(self) -> bool:
        """Show thoughts, those of this reply included, or fold them; returns whether they are shown."""
        self.show_thoughts = self._text.show_thoughts = not self.show_thoughts
        if self.show_thoughts:
            self._above.lines(self._text.unseen())
        return self.show_thoughts

    def tail(self, height: int) -> list[Line]:
        """What is not complete, in rows as the terminal will break them; the last ones, when there are more than there is room for."""
        tail, columns = self._text.tail(), self._above.columns
        key = (tail, columns, height)
        if key != self._drawn[0]:  # a layout asks several times a frame
            found = [[(style, row)] for line in tail for style, text in line for row in rows(text, columns, get_cwidth)]
            self._drawn = key, found[-height:]
        return self._drawn[1]

    def _draw(self) -> None:
        """Draw what came since the last frame."""
        if self._frame is not None:
            self._frame.cancel()
            self._frame = None
        lines = self._text.feed("".join(self._fresh), self._above.columns)
        self._fresh.clear()
        if lines:
            self._above.lines(lines)
        else:
            self._app().invalidate()
