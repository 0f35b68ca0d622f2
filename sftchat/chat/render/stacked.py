"""Several replies streamed one below the other: the first unfinished one streams, the others show their last words."""

from __future__ import annotations

from collections.abc import Sequence

from sftchat.chat.render.columns import clip
from sftchat.chat.render.reply import ReplyText
from sftchat.chat.render.width import Line, text_width
from sftchat.chat.safe_text import escape_controls
from sftchat.thinking import THOUGHTS_BEGIN, THOUGHTS_END


class Stacked:
    """Streams the replies to one message one below the other.

    Args:
        titles: Title of each reply; empty for none, as for a single reply.
        renderers: Renderer of each reply.
    """

    def __init__(self, titles: Sequence[str], renderers: Sequence[ReplyText]) -> None:
        self._titles = titles
        self._renderers = renderers
        self._waiting = ["" for _ in titles]  # text of each reply that was not passed to its renderer yet
        self._done = [False for _ in titles]
        self._current = 0  # number of the reply that streams
        self._title_done = False

    def feed(self, number: int, piece: str) -> None:
        """Add a piece of a reply."""
        self._waiting[number] += piece

    def retract(self, number: int) -> None:
        """Treat a reply so far as thoughts."""
        if number == self._current:
            self._renderers[number].retract(self._waiting[number])
            self._waiting[number] = ""
        else:  # nothing was passed to its renderer
            self._waiting[number] = f"{THOUGHTS_BEGIN}{self._waiting[number]}{THOUGHTS_END}"

    def end(self, number: int) -> None:
        """Finish a reply."""
        self._done[number] = True

    def lines(self, columns: int) -> list[Line]:
        """Return the lines that became complete, in order."""
        lines: list[Line] = []
        while self._current < len(self._titles):
            if not self._title_done and self._titles[self._current]:
                lines.append([("bold", clip(self._titles[self._current], columns))])
            self._title_done = True
            renderer = self._renderers[self._current]
            lines += renderer.feed(self._waiting[self._current], columns)
            self._waiting[self._current] = ""
            if not self._done[self._current]:
                break
            lines += renderer.end(columns)
            self._current, self._title_done = self._current + 1, False
        return lines

    def unseen(self) -> list[Line]:
        """Return hidden thoughts of the replies that are shown."""
        return [line for renderer in self._renderers[: self._current + 1] for line in renderer.unseen()]

    def tail(self, columns: int) -> list[Line]:
        """Return the unfinished part of the streaming reply, then one line for each waiting reply."""
        if self._current == len(self._titles):
            return []
        lines = self._renderers[self._current].tail()
        for number in range(self._current + 1, len(self._titles)):
            title = clip(self._titles[number], max(1, columns // 3)) + ": "
            text = escape_controls(self._waiting[number]).replace("\n", " ").replace("\t", " ")
            lines.append([("class:faint", title + _fitting_end(text, columns - text_width(title)))])
        return lines


def _fitting_end(text: str, columns: int) -> str:
    """Return the longest end of a text that fits into a width, with an ellipsis when the text does not fit."""
    if text_width(text) <= columns:
        return text
    start = max(0, len(text) - columns)
    while text_width(text[start:]) > columns - 1:
        start += 1
    return "…" + text[start:]
