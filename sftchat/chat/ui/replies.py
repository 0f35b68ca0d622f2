"""Streaming replies on a terminal: drawn in frames; complete lines go to the scrollback, the unfinished part to the layout."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from sftchat.chat.context import Display
from sftchat.chat.render.columns import column_widths, difference_note
from sftchat.chat.render.reply import ReplyText
from sftchat.chat.render.side_by_side import SideBySide
from sftchat.chat.render.stacked import Stacked
from sftchat.chat.render.width import Line, break_line
from sftchat.chat.ui.scrollback import App, Scrollback

FRAME_SECONDS = 0.04
"""Drawing interval; pieces that arrive within it are drawn together, because an engine may be faster than a terminal."""


@dataclass(frozen=True)
class _StartedReply:
    """A reply that has begun; fields as the arguments of ``Replies.begin``."""

    name: str
    text: str
    thinking: bool


class Replies:
    """The replies to the last message: a single one, several side by side, or stacked when the terminal is narrow.

    Args:
        scrollback: Takes the complete lines.
        app: Returns the application, once it exists.
        display: Display options.
    """

    def __init__(self, scrollback: Scrollback, app: Callable[[], App], display: Display) -> None:
        self._scrollback = scrollback
        self._app = app
        self._display = display
        # the keys of all dicts are pane indices, and the set holds pane indices
        self._started: dict[int, _StartedReply] = {}
        self._running: set[int] = set()
        self._numbers: dict[int, int] = {}  # number of the pane's reply in the renderer, from 0; empty until the renderer is made
        self._texts: dict[int, str] = {}  # text drawn so far, without text that turned out to be thoughts
        self._renderer: SideBySide | Stacked = Stacked([], [])
        self._undrawn: list[tuple[int, str]] = []  # (pane, piece) since the last frame
        self._frame: asyncio.TimerHandle | None = None
        self._tail_cache: tuple[object, list[Line]] = (None, [])  # arguments and result of the last wrapping in ``tail``

    @property
    def several_are_streaming(self) -> bool:
        """True with several replies, until all of them are complete."""
        return len(self._numbers) > 1 and bool(self._running)

    def begin(self, pane: int, name: str, text: str, thinking: bool = False) -> None:
        """Begin the reply of a pane; called for all panes before the first chunk.

        Args:
            pane: Index of the pane.
            name: Name of its model.
            text: Existing text of a reply that is continued; empty for a new one.
            thinking: True when the chat template opens the thoughts.
        """
        if not self._running:  # the first reply to a new message
            self._started, self._numbers = {}, {}
        self._started[pane] = _StartedReply(name, text, thinking)
        self._running.add(pane)

    def feed(self, pane: int, piece: str) -> None:
        """Add a piece of a reply; drawn with the next frame."""
        self._make_renderer()
        self._undrawn.append((pane, piece))
        loop = self._app().loop
        if self._frame is None and loop is not None:
            self._frame = loop.call_later(FRAME_SECONDS, self._draw)

    def retract(self, pane: int) -> None:
        """Treat the reply so far as thoughts."""
        self._make_renderer()
        self._feed_renderer()
        self._renderer.retract(self._numbers[pane])
        self._texts[pane] = ""
        self._draw()

    def end(self, pane: int) -> None:
        """End a reply."""
        if pane not in self._running:
            return
        self._make_renderer()
        self._feed_renderer()
        self._running.discard(pane)
        self._renderer.end(self._numbers[pane])
        self._draw()
        if not self._running and len(self._numbers) > 1:
            titles = [reply.name for reply in self._started.values()]
            self._scrollback.note(difference_note(titles, list(self._texts.values())))

    def end_all(self) -> None:
        """End all replies because the chat ends."""
        for pane in list(self._running):
            self.end(pane)

    def toggle_thoughts(self) -> bool:
        """Show or hide thoughts, including those of the last reply; return whether they are shown."""
        self._display.thoughts = not self._display.thoughts
        if self._display.thoughts and isinstance(self._renderer, Stacked):
            self._scrollback.lines(self._renderer.unseen())
        return self._display.thoughts

    def tail(self, height: int) -> list[Line]:
        """Return the unfinished part in rows as the terminal breaks them; only the last ones when there are more than ``height``."""
        columns = self._scrollback.columns
        if isinstance(self._renderer, SideBySide):
            return self._renderer.tail(height)
        tail = self._renderer.tail(columns)
        key = (tail, columns, height)
        cached_key, rows = self._tail_cache
        if key != cached_key:  # the layout calls this several times per frame
            rows = [row for line in tail for row in break_line(line, columns)][-height:]
            self._tail_cache = key, rows
        return rows

    def _make_renderer(self) -> None:
        """Make the renderer once all replies have begun: side by side if the terminal is wide enough."""
        if self._numbers:
            return
        self._numbers = {pane: number for number, pane in enumerate(self._started)}
        self._texts = dict.fromkeys(self._started, "")
        replies = list(self._started.values())
        titles = [reply.name for reply in replies]
        if column_widths(len(titles), self._scrollback.columns) is not None:
            self._renderer = SideBySide(titles, self._display.thoughts, [reply.thinking for reply in replies])
        else:
            renderers = [ReplyText(self._display, reply.thinking) for reply in replies]
            self._renderer = Stacked(titles if len(titles) > 1 else [""], renderers)
        self._undrawn += [(pane, reply.text) for pane, reply in self._started.items() if reply.text]

    def _feed_renderer(self) -> None:
        for pane, piece in self._undrawn:
            self._renderer.feed(self._numbers[pane], piece)
            self._texts[pane] += piece
        self._undrawn.clear()

    def _draw(self) -> None:
        if self._frame is not None:
            self._frame.cancel()
            self._frame = None
        self._feed_renderer()
        complete_lines = self._renderer.lines(self._scrollback.columns)
        if complete_lines:
            self._scrollback.lines(complete_lines)
        else:
            self._app().invalidate()
