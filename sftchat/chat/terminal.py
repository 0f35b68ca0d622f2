"""The chat on a terminal: one long-lived prompt_toolkit application with the reply's unfinished line, the input and a status line.

Text leaves the application upwards in complete lines only, written by this module itself between erasing and redrawing. Not by
``run_in_terminal``: that leaves raw mode for a moment, in which typed keys echo and Ctrl-C is a signal. And cursor positions are never
asked for, so that no answer can come late and be typed into the prompt.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from prompt_toolkit.application import Application
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.data_structures import Point
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Condition, has_focus
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.input import Input
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.layout import (
    BufferControl,
    CompletionsMenu,
    ConditionalContainer,
    Dimension,
    FormattedTextControl,
    HSplit,
    Layout,
    Window,
)
from prompt_toolkit.output import Output
from prompt_toolkit.output.defaults import create_output
from prompt_toolkit.output.vt100 import Vt100_Output
from prompt_toolkit.renderer import print_formatted_text
from prompt_toolkit.styles import Style
from prompt_toolkit.utils import get_cwidth
from prompt_toolkit.widgets import SearchToolbar

from sftchat.chat.commands import Commands
from sftchat.chat.output import LineBuffer, LineWriter, rows, visible, wrap
from sftchat.chat.talk import Talk
from sftchat.engines.base import Engine
from sftchat.types import SamplingParams

FRAME_SECONDS = 0.04
"""Pieces of a reply are drawn together at this pace; an engine may be faster than a terminal."""

ARMED_SECONDS = 2.0
"""A second Ctrl-C within this time leaves the chat."""

STYLE = Style.from_dict(
    {
        "prompt": "bold ansicyan",
        "typed": "bold",
        "note": "ansibrightblack",
        "error": "ansired",
        "status": "ansibrightblack",
        "completion-menu": "bg:default fg:default",
        "completion-menu.completion": "bg:default fg:ansicyan",
        "completion-menu.completion.current": "bg:default fg:ansicyan reverse",
        "completion-menu.meta.completion": "bg:default fg:ansibrightblack",
        "completion-menu.meta.completion.current": "bg:default fg:default",
        "scrollbar.background": "bg:default",
        "scrollbar.button": "bg:ansibrightblack",
    }
)


class _TolerantHistory(FileHistory):
    """A history file that a full disk or a read-only home cannot turn into a crash."""

    def load_history_strings(self) -> Iterable[str]:
        try:
            return list(super().load_history_strings())
        except OSError:
            return []

    def store_string(self, string: str) -> None:
        with contextlib.suppress(OSError):
            super().store_string(string)


class _CommandCompleter(Completer):
    """Completes what the commands know how to complete."""

    def __init__(self, talk: Talk) -> None:
        self._talk = talk

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        for found in self._talk.commands.complete(self._talk, document.text_before_cursor):
            yield Completion(found.text, -found.length, display_meta=found.summary)


class Terminal:
    """Shows a talk on a terminal; a ``View``.

    Args:
        load: Opens the model, after the prompt is on the screen.
        name: What the user called the model.
        commands: What may be typed after a slash.
        system: System prompt to begin with.
        sampling: Sampling parameters to begin with.
        history: File of typed lines; None keeps them in memory.
        input: Where keys come from; the terminal by default.
        output: Where to draw; the terminal by default.
        clock: Seconds that never run backwards.
    """

    def __init__(
        self,
        load: Callable[[], Engine],
        *,
        name: str,
        commands: Commands,
        system: str = "",
        sampling: SamplingParams | None = None,
        history: Path | None = None,
        input: Input | None = None,
        output: Output | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.talk = Talk(load, self, commands=commands, system=system, sampling=sampling, clock=clock)
        self._name = name
        self._clock = clock
        self._begun = clock()
        self._armed_until = 0.0
        self._lines = LineBuffer()
        self._fresh: list[str] = []
        self._frame: asyncio.TimerHandle | None = None
        self._tick: asyncio.TimerHandle | None = None
        self._drawn: tuple[tuple[str, int, int], list[str]] = (("", 0, 0), [])
        self._context: contextvars.Context | None = None
        self._output = output if output is not None else create_output()
        if isinstance(self._output, Vt100_Output):
            self._output.enable_cpr = False
        self._buffer = Buffer(
            completer=_CommandCompleter(self.talk), complete_while_typing=True, history=_open_history(history), multiline=True
        )
        self._app: Application[None] = Application(
            layout=self._layout(), key_bindings=self._keys(), style=STYLE, input=input, output=self._output, erase_when_done=True
        )

    def run(self) -> None:
        """Talk until the user leaves.

        Raises:
            SftchatError: When the model could not be loaded.
        """
        writer = LineWriter(lambda line: self.post(lambda: self.say(line)))  # a bare print would be eaten by the next redraw
        with contextlib.redirect_stdout(writer), contextlib.redirect_stderr(writer), contextlib.suppress(EOFError):
            try:
                # before the first drawing: tmux copies to its history what is erased from the top of a screen
                hello = self._wrapped(f"talking to {self._name}; /help says what can be typed, ctrl-d leaves")
                print_formatted_text(self._output, [("class:note", hello)], STYLE, color_depth=self._app.color_depth)
                self._app.run(pre_run=self._start)
            finally:
                self.talk.close()

    # the view of the talk

    def post(self, action: Callable[[], None]) -> None:
        """Have an action run on this view's thread; harmless after the view is gone."""
        loop = self._app.loop
        with contextlib.suppress(RuntimeError):  # the loop was closed in between
            if loop is not None:
                loop.call_soon_threadsafe(action, context=self._context)

    def show_typed(self, text: str) -> None:
        """A line the user typed has its turn: it moves above the prompt."""
        self._print([("", "\n"), ("class:prompt", "> "), ("class:typed", visible(text).replace("\n", "\n  ") + "\n")])
        self._keep_ticking()

    def show_piece(self, text: str) -> None:
        """The reply goes on; drawn with the next frame."""
        self._fresh.append(text)
        if self._frame is None and self._app.loop is not None:
            self._frame = self._app.loop.call_later(FRAME_SECONDS, self._draw_frame)

    def end_reply(self) -> None:
        """The reply is over: its last line moves above the prompt."""
        self._draw_frame()
        self._print([("", self._lines.end())])

    def say(self, text: str) -> None:
        """Show lines that are not the model's."""
        self._print([("class:note", self._wrapped(text))])

    def complain(self, text: str) -> None:
        """Show that something went wrong, in one line."""
        self._print([("class:error", self._wrapped("error: " + " ".join(text.split())))])

    def leave(self, error: Exception | None) -> None:
        """End the view."""
        if not self._app.is_done:
            self._draw_frame()
            if self._lines.tail:
                self._print([("", self._lines.end())])
            self._app.exit(exception=error) if error is not None else self._app.exit()

    # drawing

    def _start(self) -> None:
        """The loop is there and the prompt about to be drawn; the rest follows when it is."""
        self._context = contextvars.copy_context()
        self.post(self._begin)

    def _begin(self) -> None:
        """The prompt is on the screen; now the model may take its time."""
        self.talk.start()
        self._keep_ticking()

    def _keep_ticking(self) -> None:
        """Keep the seconds and the speed in the status line moving, as long as they move; a quiet chat draws nothing."""
        if self._tick is None and self._app.loop is not None:
            self._tick = self._app.loop.call_later(0.5, self._next_tick)

    def _next_tick(self) -> None:
        """Draw the status line anew."""
        self._tick = None
        self._app.invalidate()
        if self.talk.state != "ready" or self._armed_until:
            if self._clock() >= self._armed_until:
                self._armed_until = 0.0
            self._keep_ticking()

    def _wrapped(self, text: str) -> str:
        """Lines of our own, broken between words."""
        columns = self._output.get_size().columns
        return "".join(f"{row}\n" for line in visible(text).split("\n") for row in wrap(line, columns, get_cwidth))

    def _draw_frame(self) -> None:
        """Draw what came since the last frame: complete lines above the prompt, the rest as its tail."""
        if self._frame is not None:
            self._frame.cancel()
            self._frame = None
        lines = self._lines.feed("".join(self._fresh))
        self._fresh.clear()
        if lines:
            self._print([("", lines)])
        else:
            self._app.invalidate()

    def _print(self, fragments: StyleAndTextTuples) -> None:
        """Write complete lines above the prompt, in one stroke for terminals that know synchronized updates."""
        app = self._app
        synchronized = isinstance(self._output, Vt100_Output)
        if synchronized:
            self._output.write_raw("\x1b[?2026h")
        app.renderer.erase()
        print_formatted_text(self._output, fragments, STYLE, color_depth=app.color_depth)
        app.renderer.render(app, app.layout)
        if synchronized:
            self._output.write_raw("\x1b[?2026l")
            self._output.flush()

    def _layout(self) -> Layout:
        """Tail of the reply, waiting lines, input, completions, status: whatever is empty takes no room."""
        search = SearchToolbar()
        tail = Window(
            FormattedTextControl(
                lambda: "\n".join(self._tail_rows()),
                show_cursor=False,
                get_cursor_position=lambda: Point(0, max(0, len(self._tail_rows()) - 1)),
            ),
            height=lambda: Dimension(min=0, preferred=len(self._tail_rows()), max=len(self._tail_rows())),
        )
        waiting = Window(
            FormattedTextControl(lambda: "\n".join("  waits: " + visible(line).replace("\n", " ") for line in self.talk.pending)),
            height=lambda: Dimension(min=0, preferred=len(self.talk.pending), max=min(3, len(self.talk.pending))),
            style="class:note",
        )
        written = Window(
            BufferControl(self._buffer, search_buffer_control=search.control),
            height=lambda: Dimension(min=1, max=max(1, self._output.get_size().rows // 2)),
            dont_extend_height=True,
            wrap_lines=True,
            get_line_prefix=lambda line, wrapped: [("class:prompt", "> " if line == wrapped == 0 else "  ")],
        )
        status = Window(FormattedTextControl(self._status), height=1, style="class:status")
        return Layout(
            HSplit(
                [
                    ConditionalContainer(tail, Condition(lambda: bool(self._lines.tail))),
                    ConditionalContainer(waiting, Condition(lambda: bool(self.talk.pending))),
                    Window(height=Dimension(min=0, preferred=1, max=1)),  # what is typed stands apart, here and later above
                    written,
                    search,
                    CompletionsMenu(max_height=6),
                    status,
                ]
            ),
            focused_element=written,
        )

    def _tail_rows(self) -> list[str]:
        """The unfinished line as the terminal will break it; the last rows only, when it is higher than the screen."""
        size = self._output.get_size()
        others = 4 + self._buffer.text.count("\n") + min(3, len(self.talk.pending))
        key = (self._lines.tail, size.columns, max(1, size.rows - others))
        if key != self._drawn[0]:  # the layout asks several times a frame
            self._drawn = key, rows(self._lines.tail, size.columns, get_cwidth)[-key[2] :]
        return self._drawn[1]

    def _status(self) -> str:
        """Model, state and speed."""
        talk = self.talk
        if self._clock() < self._armed_until:
            return "ctrl-c again leaves"
        if talk.state == "loading":
            return f"{visible(self._name)} · loading, {self._clock() - self._begun:.0f} s"
        speed = f" · {talk.tokens_per_second:.1f} tokens/s" if talk.tokens_per_second else ""
        state = "replying, ctrl-c stops" if talk.state == "generating" else "ready"
        return f"{visible(self._name)} · {state}{speed}"

    # keys

    def _keys(self) -> KeyBindings:
        """Enter sends; Ctrl-C clears, stops or arms; Ctrl-D leaves."""
        keys = KeyBindings()
        writing = has_focus(self._buffer)

        @keys.add("enter", filter=writing)
        def _(event: KeyPressEvent) -> None:
            text = self._buffer.text
            if text.strip():
                self._buffer.append_to_history()
                self._buffer.reset()
                self.talk.submit(text)

        @keys.add("escape", "enter", filter=writing)
        @keys.add("c-j", filter=writing)
        def _(event: KeyPressEvent) -> None:
            self._buffer.insert_text("\n")

        @keys.add("c-c", filter=writing)
        @keys.add("<sigint>")
        def _(event: KeyPressEvent) -> None:
            if self._buffer.text:
                self._buffer.reset()
            elif not self.talk.stop():
                if self._clock() < self._armed_until:
                    self.leave(None)
                self._armed_until = self._clock() + ARMED_SECONDS
                self._keep_ticking()

        @keys.add("c-z")
        def _(event: KeyPressEvent) -> None:
            self._app.suspend_to_background()

        @keys.add("c-d", filter=writing & Condition(lambda: not self._buffer.text))
        def _(event: KeyPressEvent) -> None:
            self.leave(None)

        return keys


def _open_history(path: Path | None) -> History:
    """The history file, readable by its owner only; memory where there can be none."""
    if path is None:
        return InMemoryHistory()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600))
    except OSError:
        return InMemoryHistory()
    return _TolerantHistory(str(path))
