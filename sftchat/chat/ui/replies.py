"""Streaming replies on a terminal: drawn in frames, complete lines go to the scrollback, the rest to the layout."""

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
        above: Scrollback for complete lines.
        app: Returns the application, once it exists.
        display: Display options.
    """

    def __init__(self, above: Scrollback, app: Callable[[], App], display: Display) -> None:
        self._above = above
        self._app = app
        self._display = display
        self._started: dict[int, _StartedReply] = {}
        self._running: set[int] = set()
        self._numbers: dict[int, int] = {}
        self._said: dict[int, str] = {}
        self._shown: SideBySide | Stacked = Stacked([], [])
        self._fresh: list[tuple[int, str]] = []
        self._frame: asyncio.TimerHandle | None = None
        self._drawn: tuple[object, list[Line]] = (None, [])

    @property
    def several(self) -> bool:
        """True while more than one reply streams; notes must wait until all are complete."""
        return len(self._numbers) > 1 and bool(self._running)

    def begin(self, pane: int, name: str, text: str, thinking: bool = False) -> None:
        """Begin the reply of a pane; called for all panes before the first chunk.

        Args:
            pane: Index of the pane.
            name: Name of its model.
            text: Existing text of a reply that is continued.
            thinking: True when the chat template opens the thoughts.
        """
        if not self._running:
            self._started, self._numbers = {}, {}
        self._started[pane] = _StartedReply(name, text, thinking)
        self._running.add(pane)

    def feed(self, pane: int, piece: str) -> None:
        """Add a piece of a reply; drawn with the next frame."""
        self._choose()
        self._fresh.append((pane, piece))
        loop = self._app().loop
        if self._frame is None and loop is not None:
            self._frame = loop.call_later(FRAME_SECONDS, self._draw)

    def retract(self, pane: int) -> None:
        """Treat the reply so far as thoughts."""
        self._choose()
        self._take_fresh()
        self._shown.retract(self._numbers[pane])
        self._said[pane] = ""
        self._draw()

    def end(self, pane: int) -> None:
        """End a reply."""
        if pane not in self._running:
            return
        self._choose()
        self._take_fresh()
        self._running.discard(pane)
        self._shown.end(self._numbers[pane])
        self._draw()
        if not self._running and len(self._numbers) > 1:
            titles = [self._started[pane].name for pane in self._numbers]
            self._above.note(difference_note(titles, [self._said[pane] for pane in self._numbers]))

    def end_all(self) -> None:
        """End all replies because the chat ends."""
        for pane in list(self._running):
            self.end(pane)

    def toggle_thoughts(self) -> bool:
        """Show or hide thoughts, including those of the last reply; return whether they are shown."""
        self._display.thoughts = not self._display.thoughts
        if self._display.thoughts and isinstance(self._shown, Stacked):
            self._above.lines(self._shown.unseen())
        return self._display.thoughts

    def tail(self, height: int) -> list[Line]:
        """Return the unfinished part in rows as the terminal breaks them; only the last ones when there are more than ``height``."""
        columns = self._above.columns
        if isinstance(self._shown, SideBySide):
            return self._shown.tail(height)
        tail = self._shown.tail(columns)
        key = (tail, columns, height)
        if key != self._drawn[0]:  # the layout calls this several times per frame
            self._drawn = key, [row for line in tail for row in break_line(line, columns)][-height:]
        return self._drawn[1]

    def _choose(self) -> None:
        if self._numbers:
            return
        self._numbers = {pane: number for number, pane in enumerate(self._started)}
        self._said = dict.fromkeys(self._started, "")
        started = list(self._started.values())
        titles = [reply.name for reply in started]
        if column_widths(len(titles), self._above.columns) is not None:
            self._shown = SideBySide(titles, self._display.thoughts, [reply.thinking for reply in started])
        else:
            self._shown = Stacked(titles if len(titles) > 1 else [""], [ReplyText(self._display, reply.thinking) for reply in started])
        self._fresh += [(pane, reply.text) for pane, reply in self._started.items() if reply.text]

    def _take_fresh(self) -> None:
        """Pass on the text that arrived since the last frame."""
        for pane, piece in self._fresh:
            self._shown.feed(self._numbers[pane], piece)
            self._said[pane] += piece
        self._fresh.clear()

    def _draw(self) -> None:
        if self._frame is not None:
            self._frame.cancel()
            self._frame = None
        self._take_fresh()
        complete_lines = self._shown.lines(self._above.columns)
        if complete_lines:
            self._above.lines(complete_lines)
        else:
            self._app().invalidate()
