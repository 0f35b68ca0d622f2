"""Layout below the scrollback: unfinished reply, pending lines, input, completions, status; empty parts take no space."""

from __future__ import annotations

from collections.abc import Callable

from prompt_toolkit.buffer import Buffer
from prompt_toolkit.data_structures import Point
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.layout import AnyContainer, BufferControl, CompletionsMenu, Dimension, FormattedTextControl, HSplit, Layout, Window
from prompt_toolkit.styles import Style
from prompt_toolkit.widgets import SearchToolbar

from sftchat.chat.render.width import Line
from sftchat.chat.ui.input import Pasted, PastedLexer


def chat_layout(
    buffer: Buffer,
    pasted: Pasted,
    tail: Callable[[], list[Line]],
    pending: Callable[[], list[Line]],
    status: Callable[[], str],
    height: Callable[[], int],
) -> Layout:
    """Build the layout of a chat.

    Args:
        buffer: The input.
        pasted: Long pastes in the input.
        tail: Returns the unfinished part of the replies, in rows.
        pending: Returns the pending lines.
        status: Returns the status line.
        height: Returns the number of terminal rows.
    """
    search = SearchToolbar()
    input_window = Window(
        BufferControl(buffer, lexer=PastedLexer(pasted), search_buffer_control=search.control),
        height=lambda: Dimension(min=1, max=max(1, height() // 2)),
        dont_extend_height=True,
        wrap_lines=True,
        get_line_prefix=lambda line, wrapped: [("class:prompt", "> " if line == wrapped == 0 else "  ")],
    )
    rows: list[AnyContainer] = [
        _window_for_lines(tail),
        _window_for_lines(pending),
        Window(height=Dimension(min=0, preferred=1, max=1)),  # an empty line before the input, as in the scrollback
        input_window,
        search,
        CompletionsMenu(max_height=6),
        Window(FormattedTextControl(status), height=1, style="class:note"),
    ]
    return Layout(HSplit(rows), focused_element=input_window)


def _window_for_lines(lines: Callable[[], list[Line]]) -> Window:
    """Return a window as high as the lines; it shows the last ones when space is short, because its hidden cursor is there."""

    def text() -> StyleAndTextTuples:
        fragments = [pair for line in lines() for pair in (*line, ("", "\n"))]
        return [*fragments[:-1]]

    control = FormattedTextControl(text, show_cursor=False, get_cursor_position=lambda: Point(0, max(0, len(lines()) - 1)))
    return Window(control, height=lambda: Dimension(min=0, preferred=len(lines()), max=len(lines())))


STYLE = Style.from_dict(
    {
        "prompt": "bold ansicyan",
        "typed": "bold",
        "note": "ansibrightblack",
        "error": "ansired",
        "faint": "ansibrightblack",
        "thought": "ansibrightblack italic",
        "difference": "reverse",
        "special": "ansimagenta",
        "trained": "ansigreen",
        "good": "ansigreen",
        "bad": "ansired",
        "likely": "ansigreen",
        "unlikely": "ansiyellow",
        "rare": "ansired",
        "bullet": "ansicyan",
        "quote": "italic",
        "link": "underline",
        "code": "ansiyellow",
        "code.keyword": "ansimagenta",
        "code.string": "ansigreen",
        "code.comment": "ansibrightblack",
        "code.number": "ansicyan",
        "code.name": "ansiblue",
        "pasted": "ansicyan",
        "completion-menu": "bg:default fg:default",
        "completion-menu.completion": "bg:default fg:ansicyan",
        "completion-menu.completion.current": "bg:default fg:ansicyan reverse",
        "completion-menu.meta.completion": "bg:default fg:ansibrightblack",
        "completion-menu.meta.completion.current": "bg:default fg:default",
        "scrollbar.background": "bg:default",
        "scrollbar.button": "bg:ansibrightblack",
    }
)
