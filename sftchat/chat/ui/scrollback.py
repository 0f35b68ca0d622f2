"""Scrollback above the prompt, and the position of the prompt after the terminal was made narrower.

Many terminals then break rows that have become too long, and the cursor moves down with them. prompt_toolkit moves up by the number of rows
it drew, so stale copies of the upper rows remain. Querying the cursor position would not help, because it does not tell how many rows were
broken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from prompt_toolkit.application import Application
from prompt_toolkit.data_structures import Point
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.formatted_text.utils import split_lines
from prompt_toolkit.input import DummyInput
from prompt_toolkit.output import DummyOutput
from prompt_toolkit.output.vt100 import Vt100_Output
from prompt_toolkit.renderer import print_formatted_text
from prompt_toolkit.utils import get_cwidth

from sftchat.chat.context import Fragments
from sftchat.chat.render.width import Line, wrap_line
from sftchat.chat.safe_text import break_at_margin, escape_controls, wrap_words
from sftchat.chat.ui.layout import STYLE
from sftchat.text import sanitize_lines

if TYPE_CHECKING:
    from prompt_toolkit.layout.screen import Char
    from prompt_toolkit.output import Output


_BREAKING_VARIABLES = (
    "VTE_VERSION",
    "TMUX",
    "KITTY_WINDOW_ID",
    "WEZTERM_PANE",
    "ALACRITTY_WINDOW_ID",
    "WT_SESSION",
    "KONSOLE_VERSION",
    "GHOSTTY_RESOURCES_DIR",
)
_BREAKING_PROGRAMS = ("iTerm.app", "Apple_Terminal", "WezTerm", "vscode", "ghostty", "tmux", "rio", "WarpTerminal", "Hyper")
_BREAKING_TERMS = ("tmux", "xterm-kitty", "alacritty", "foot", "xterm-ghostty", "wezterm", "contour", "rio")


def breaks_rows(environment: Mapping[str, str]) -> bool:
    """Return whether the terminal is known to break rows when it is made narrower.

    False when unsure: a wrong False leaves a stale copy of the prompt's upper rows, a wrong True erases a line of the scrollback.
    """
    if "STY" in environment:  # GNU screen, in any outer terminal
        return False
    return (
        any(name in environment for name in _BREAKING_VARIABLES)
        or environment.get("TERM_PROGRAM") in _BREAKING_PROGRAMS
        or environment.get("TERM", "").startswith(_BREAKING_TERMS)
    )


def row_of_cursor(drawn_rows: Sequence[str], row: int, column: int, columns: int, width: Callable[[str], int]) -> int:
    """Return the cursor's row, counted from the top of the drawing, after the terminal broke the rows.

    Args:
        drawn_rows: The rows as drawn, without trailing blanks.
        row: Cursor row before.
        column: Cursor column before, in cells.
        columns: The new width.
        width: Returns the width of a character in cells.
    """
    above = sum(len(break_at_margin(text, columns, width)) for text in drawn_rows[:row])
    return above + max(0, column - 1) // columns


class App(Application[None]):
    """Application that lets the scrollback adjust the terminal before each drawing.

    Attributes:
        before_drawing: Called before each redraw, while the application has the terminal.
    """

    before_drawing: Callable[[], None]

    @property
    def away(self) -> bool:
        """True while another program, such as an editor, has the terminal."""
        return self._running_in_terminal

    def redraw(self) -> None:
        """Draw now; ``invalidate`` would draw later, so that the prompt flickers."""
        self._redraw()

    def _redraw(self, render_as_done: bool = False) -> None:
        if self.is_running and not self.away:
            self.before_drawing()
        super()._redraw(render_as_done)

    def _on_resize(self) -> None:
        if not self.away:  # an editor draws itself
            self.before_drawing()
            super()._on_resize()


def missing_parts() -> tuple[str, ...]:
    """Return the names of prompt_toolkit internals that this module uses and the installed version lacks."""
    app = Application[None](input=DummyInput(), output=DummyOutput())
    needed: tuple[tuple[object, tuple[str, ...]], ...] = (
        (app, ("_redraw", "_on_resize", "_running_in_terminal")),
        (app.renderer, ("last_rendered_screen", "_last_size", "_cursor_pos")),
    )
    return tuple(f"{type(owner).__name__}.{name}" for owner, names in needed for name in names if not hasattr(owner, name))


class Scrollback:
    """Text above the prompt of an application. Thread: UI.

    Args:
        output: The terminal.
        app: Returns the application, once it exists.
        breaks_rows: True when the terminal breaks rows when it is made narrower.
        keeps_erased: True when the terminal copies text erased from the top of the screen to its history, as tmux does.
    """

    def __init__(self, output: Output, app: Callable[[], App], breaks_rows: bool, keeps_erased: bool = False) -> None:
        self._output = output
        self._app = app
        self._breaks_rows = breaks_rows
        self._queued_fragments: StyleAndTextTuples = []
        self._escapes = isinstance(output, Vt100_Output)
        self._composing = False
        write = output.write
        # prompt_toolkit removes the escape character, but not C1 control characters and bidirectional formatting characters
        output.write = lambda data: write(sanitize_lines(data, allowed="\t\r"))  # type: ignore[method-assign]
        if isinstance(output, Vt100_Output):
            output.enable_cpr = False
            flush = output.flush
            output.flush = lambda: None if self._composing else flush()  # type: ignore[method-assign]
            if breaks_rows:
                # Keep autowrap on: a drawing in progress when the terminal is made narrower must be broken like existing rows. If its rows
                # were cut at the margin, we would move up too far and erase the scrollback.
                output.disable_autowrap = lambda: None  # type: ignore[method-assign]
            if keeps_erased:
                output.erase_down = self._erase_rows  # type: ignore[method-assign]

    @property
    def columns(self) -> int:
        """Width of the terminal."""
        return self._output.get_size().columns

    def lines(self, lines: Iterable[Line]) -> None:
        """Write complete lines."""
        fragments = [pair for line in lines for pair in (*line, ("", "\n"))]
        if fragments:
            self.write([*fragments])

    def note(self, text: str, style: str = "class:note") -> None:
        """Write lines that are not from a model."""
        self.write(wrap_note(text, style, self.columns))

    def write(self, fragments: StyleAndTextTuples) -> None:
        """Write whole lines, as one synchronized update where the terminal supports it. While an editor has the terminal, they are
        queued.
        """
        app = self._app()
        if not app.is_running:
            self._print(fragments)
            return
        self._queued_fragments += fragments
        if app.away:
            return
        self._composing = True  # erase, write and redraw in one output, otherwise the prompt flickers
        try:
            if self._escapes:
                self._output.write_raw("\x1b[?2026h")
            app.redraw()
            if self._escapes:
                self._output.write_raw("\x1b[?2026l")
        finally:
            self._composing = False
            self._output.flush()

    def before_drawing(self) -> None:
        """Prepare drawing the screen: locate the prompt after a resize, and write queued text above it."""
        app = self._app()
        self._find_top(app)
        if self._queued_fragments:
            fragments, self._queued_fragments = self._queued_fragments, []
            app.renderer.erase()
            self._print(fragments)

    def _find_top(self, app: App) -> None:
        """Correct the renderer's cursor position when the terminal was made narrower since the last drawing."""
        renderer = app.renderer
        screen, size = renderer.last_rendered_screen, renderer._last_size
        if not self._breaks_rows or screen is None or size is None or self.columns >= size.columns:
            return
        drawn_rows = [_screen_row_text(screen.data_buffer[row]) for row in range(renderer._cursor_pos.y)]
        row = row_of_cursor(drawn_rows, renderer._cursor_pos.y, renderer._cursor_pos.x, self.columns, get_cwidth)
        renderer._cursor_pos = Point(x=renderer._cursor_pos.x, y=row)
        renderer.erase()

    def _erase_rows(self) -> None:
        """Erase from the cursor down, row by row."""
        below = self._output.get_size().rows - 1
        self._output.write_raw("\x1b7\x1b[K" + "\x1b[B\x1b[2K" * below + "\x1b8")

    def _print(self, fragments: StyleAndTextTuples) -> None:
        print_formatted_text(self._output, fragments, STYLE, color_depth=self._app().color_depth)


def _screen_row_text(row: Mapping[int, Char]) -> str:
    """Return a screen row as text without trailing blanks."""
    return "".join(row[column].char if column in row else " " for column in range(max(row, default=-1) + 1)).rstrip()


def wrap_note(text: str, style: str, columns: int) -> StyleAndTextTuples:
    """Wrap lines that are not from a model between words."""
    return [(style, "".join(f"{row}\n" for line in escape_controls(text).split("\n") for row in wrap_words(line, columns, get_cwidth)))]


def format_output(text: Fragments, columns: int) -> StyleAndTextTuples:
    """Format command output: pure notes are wrapped between words; other text, which may be copied, is left to the terminal."""
    shown: StyleAndTextTuples = []
    for line in split_lines([(f"class:{style}" if style else "", escape_controls(piece)) for style, piece in text]):
        pairs = [(pair[0], pair[1]) for pair in line]
        break_at_margin = wrap_line(pairs, columns) if all(style == "class:note" for style, piece in pairs if piece) else [pairs]
        shown += [pair for row in break_at_margin or [pairs] for pair in (*row, ("", "\n"))]
    return shown
