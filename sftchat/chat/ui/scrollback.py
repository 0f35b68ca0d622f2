"""Scrollback above the prompt, and the position of the prompt after the terminal was made narrower.

Many terminals then break the rows that have become too long, and the cursor moves down with them. prompt_toolkit would move up by the number
of rows that it drew, so stale copies of the upper rows would remain. The terminal can report the cursor position, but not how many rows it
broke; so ``row_of_cursor`` computes it.
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
        row: Cursor row as drawn.
        column: Cursor column as drawn, in cells.
        columns: The new width.
        width: Returns the width of a character in cells.
    """
    above = sum(len(break_at_margin(text, columns, width)) for text in drawn_rows[:row])
    return above + max(0, column - 1) // columns  # after a full row, the cursor stays in it until another character is drawn


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
        """Draw now; ``invalidate`` would draw later, and the prompt would flicker."""
        self._redraw()

    def _redraw(self, render_as_done: bool = False) -> None:
        if self.is_running and not self.away:
            self.before_drawing()
        super()._redraw(render_as_done)

    def _on_resize(self) -> None:
        if not self.away:  # while an editor has the terminal, it draws
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
        self._supports_escapes = isinstance(output, Vt100_Output)
        self._delays_flush = False
        write = output.write
        # prompt_toolkit removes the escape character, but not C1 control characters and bidirectional formatting characters
        output.write = lambda data: write(sanitize_lines(data, allowed="\t\r"))  # type: ignore[method-assign]
        if isinstance(output, Vt100_Output):
            output.enable_cpr = False
            flush = output.flush
            output.flush = lambda: None if self._delays_flush else flush()  # type: ignore[method-assign]
            if breaks_rows:
                # Keep autowrap on: when the terminal is made narrower during a drawing, its rows must be broken like the earlier ones. With
                # rows cut at the margin, the computed cursor row would be too large; prompt_toolkit would move up too far and erase scrollback.
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
        """Write complete lines, as one synchronized update where the terminal supports it; while an editor has the terminal, queue them."""
        app = self._app()
        if not app.is_running:
            self._print(fragments)
            return
        self._queued_fragments += fragments
        if app.away:
            return
        self._delays_flush = True  # erase, write and redraw in one output, otherwise the prompt flickers
        try:
            if self._supports_escapes:
                self._output.write_raw("\x1b[?2026h")  # begin a synchronized update
            app.redraw()
            if self._supports_escapes:
                self._output.write_raw("\x1b[?2026l")
        finally:
            self._delays_flush = False
            self._output.flush()

    def before_drawing(self) -> None:
        """Prepare drawing the screen: locate the prompt after a resize, and write queued text above it."""
        app = self._app()
        self._correct_cursor_row(app)
        if self._queued_fragments:
            fragments, self._queued_fragments = self._queued_fragments, []
            app.renderer.erase()
            self._print(fragments)

    def _correct_cursor_row(self, app: App) -> None:
        """Correct the renderer's cursor position, and erase the drawing, when the terminal was made narrower since the last drawing."""
        renderer = app.renderer
        screen, last_size, cursor = renderer.last_rendered_screen, renderer._last_size, renderer._cursor_pos
        if not self._breaks_rows or screen is None or last_size is None or self.columns >= last_size.columns:
            return
        drawn_rows = [_screen_row_text(screen.data_buffer[row]) for row in range(cursor.y)]
        renderer._cursor_pos = Point(x=cursor.x, y=row_of_cursor(drawn_rows, cursor.y, cursor.x, self.columns, get_cwidth))
        renderer.erase()

    def _erase_rows(self) -> None:
        """Erase from the cursor down, row by row: save the cursor, erase to the end of its row, erase each row below, restore the cursor."""
        rows_below = self._output.get_size().rows - 1
        self._output.write_raw("\x1b7\x1b[K" + "\x1b[B\x1b[2K" * rows_below + "\x1b8")

    def _print(self, fragments: StyleAndTextTuples) -> None:
        print_formatted_text(self._output, fragments, STYLE, color_depth=self._app().color_depth)


def _screen_row_text(row: Mapping[int, Char]) -> str:
    """Return a screen row as text without trailing blanks."""
    return "".join(row[column].char if column in row else " " for column in range(max(row, default=-1) + 1)).rstrip()


def wrap_note(text: str, style: str, columns: int) -> StyleAndTextTuples:
    """Wrap the lines of a note between words."""
    rows = [row for line in escape_controls(text).split("\n") for row in wrap_words(line, columns, get_cwidth)]
    return [(style, "".join(f"{row}\n" for row in rows))]


def format_output(text: Fragments, columns: int) -> StyleAndTextTuples:
    """Format command output: lines of notes are wrapped between words; the terminal breaks other lines, so that they can be copied."""
    fragments: StyleAndTextTuples = []
    for line in split_lines([(f"class:{style}" if style else "", escape_controls(piece)) for style, piece in text]):
        pairs = [(pair[0], pair[1]) for pair in line]  # fragments of prompt_toolkit may have a third member, a mouse handler
        is_note = all(style == "class:note" for style, piece in pairs if piece)
        for row in wrap_line(pairs, columns) if is_note else [pairs]:
            fragments += [*row, ("", "\n")]
    return fragments
