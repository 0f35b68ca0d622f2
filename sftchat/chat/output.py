"""The sink above a live prompt: text streams in by pieces, leaves for the scrollback by lines, and nothing is lost.

Only complete lines leave the application, written by this module itself between erasing the prompt and drawing it again; the unfinished
rest is drawn inside the application, so that no redraw can eat it. Not by ``run_in_terminal``: that leaves raw mode for a moment, in which
typed keys echo and Ctrl-C is a signal. And the terminal is never asked where its cursor is, so that no answer can come late and end up in
the prompt.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from sftchat.chat.lines import LineBuffer, rows, visible, wrap

if TYPE_CHECKING:
    from prompt_toolkit.application import Application
    from prompt_toolkit.formatted_text import StyleAndTextTuples
    from prompt_toolkit.output import Output
    from prompt_toolkit.styles import Style

FRAME_SECONDS = 0.04
"""Pieces of a reply are drawn together at this pace; an engine may be faster than a terminal."""


class Scrollback:
    """What stands above the prompt of an application. Its methods run on the application's thread.

    Args:
        output: The terminal.
        style: Names the styles of ``write``.
        application: Gives the application, once there is one.
    """

    def __init__(self, output: Output, style: Style, application: Callable[[], Application[None]]) -> None:
        from prompt_toolkit.output.vt100 import Vt100_Output

        self._output = output
        self._style = style
        self._application = application
        self._lines = LineBuffer()
        self._fresh: list[str] = []
        self._frame: asyncio.TimerHandle | None = None
        self._drawn: tuple[tuple[str, int, int], list[str]] = (("", 0, 0), [])
        self._escapes = isinstance(output, Vt100_Output)
        if isinstance(output, Vt100_Output):
            output.enable_cpr = False

    def write(self, fragments: StyleAndTextTuples) -> None:
        """Write complete lines; on terminals that know synchronized updates, in one stroke."""
        app = self._application()
        if not app.is_running:
            self._print(fragments)
            return
        if self._escapes:
            self._output.write_raw("\x1b[?2026h")
        app.renderer.erase()
        self._print(fragments)
        app._redraw()  # not `invalidate`, which draws later and would let the prompt blink
        if self._escapes:
            self._output.write_raw("\x1b[?2026l")
            self._output.flush()

    def note(self, text: str, style: str = "class:note") -> None:
        """Write lines that are not the model's, broken between words."""
        from prompt_toolkit.utils import get_cwidth

        columns = self._output.get_size().columns
        broken = [row for line in visible(text).split("\n") for row in wrap(line, columns, get_cwidth)]
        self.write([(style, "".join(f"{row}\n" for row in broken))])

    def feed(self, piece: str) -> None:
        """Take a piece of a reply; it is drawn with the next frame."""
        self._fresh.append(piece)
        loop = self._application().loop
        if self._frame is None and loop is not None:
            self._frame = loop.call_later(FRAME_SECONDS, self._draw)

    def end(self) -> None:
        """The reply is over: its last line is complete, newline or not."""
        self._draw()
        if last := self._lines.end():
            self.write([("", last)])

    def tail(self, height: int) -> list[str]:
        """The unfinished line in rows as the terminal will break it; the last ones, when it is higher than there is room."""
        from prompt_toolkit.utils import get_cwidth

        key = (self._lines.tail, self._output.get_size().columns, height)
        if key != self._drawn[0]:  # a layout asks several times a frame
            self._drawn = key, rows(self._lines.tail, key[1], get_cwidth)[-height:] if self._lines.tail else []
        return self._drawn[1]

    def _draw(self) -> None:
        """Draw what came since the last frame."""
        if self._frame is not None:
            self._frame.cancel()
            self._frame = None
        lines = self._lines.feed("".join(self._fresh))
        self._fresh.clear()
        if lines:
            self.write([("", lines)])
        else:
            self._application().invalidate()

    def _print(self, fragments: StyleAndTextTuples) -> None:
        """Write where the cursor is."""
        from prompt_toolkit.renderer import print_formatted_text

        print_formatted_text(self._output, fragments, self._style, color_depth=self._application().color_depth)
