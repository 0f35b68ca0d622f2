"""The chat on a terminal: one long-lived prompt_toolkit application with the reply's unfinished line, the input and a status line."""

from __future__ import annotations

import asyncio
import contextlib
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
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.input import Input
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.layout import BufferControl, CompletionsMenu, Dimension, FormattedTextControl, HSplit, Layout, Window
from prompt_toolkit.output import Output
from prompt_toolkit.output.defaults import create_output
from prompt_toolkit.styles import Style
from prompt_toolkit.widgets import SearchToolbar

from sftchat.chat.conversation import Mark
from sftchat.chat.lines import LineWriter, visible
from sftchat.chat.output import Scrollback
from sftchat.chat.talk import Talk, View
from sftchat.commands import Fragments

ARMED_SECONDS = 2.0
"""A second Ctrl-C within this time leaves the chat."""

STYLE = Style.from_dict(
    {
        "prompt": "bold ansicyan",
        "typed": "bold",
        "note": "ansibrightblack",
        "error": "ansired",
        "completion-menu": "bg:default fg:default",
        "completion-menu.completion": "bg:default fg:ansicyan",
        "completion-menu.completion.current": "bg:default fg:ansicyan reverse",
        "completion-menu.meta.completion": "bg:default fg:ansibrightblack",
        "completion-menu.meta.completion.current": "bg:default fg:default",
        "scrollbar.background": "bg:default",
        "scrollbar.button": "bg:ansibrightblack",
    }
)


class Terminal:
    """Shows a talk on a terminal; a ``View``.

    Args:
        make_talk: Makes the talk that this view shows; it is started after the prompt is on the screen.
        history: File of typed lines; None keeps them in memory.
        input: Where keys come from; the terminal by default.
        output: Where to draw; the terminal by default.
        clock: Seconds that never run backwards.
    """

    def __init__(
        self,
        make_talk: Callable[[View], Talk],
        *,
        history: Path | None = None,
        input: Input | None = None,
        output: Output | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.talk = make_talk(self)
        self._name = visible(" · ".join(column.name for column in self.talk.columns))
        self._clock = clock
        self._begun = clock()
        self._armed_until = 0.0
        self._tick: asyncio.TimerHandle | None = None
        self._output = output if output is not None else create_output()
        self._above = Scrollback(self._output, STYLE, lambda: self._app)
        completer = _CommandCompleter(self.talk)
        self._buffer = Buffer(completer=completer, complete_while_typing=True, history=_open_history(history), multiline=True)
        self._app: Application[None] = Application(
            layout=self._layout(), key_bindings=self._keys(), style=STYLE, input=input, output=self._output, erase_when_done=True
        )

    def run(self) -> None:
        """Talk until the user leaves.

        Raises:
            SftchatError: When the model could not be loaded.
        """
        # before anything is drawn: tmux copies to its history whatever is erased from the top of a screen
        self._above.note(f"talking to {self._name}; /help says what can be typed, ctrl-d leaves")
        writer = LineWriter(lambda line: self.post(lambda: self.say(line)))  # a bare print would be eaten by the next redraw
        with contextlib.redirect_stdout(writer), contextlib.redirect_stderr(writer), contextlib.suppress(EOFError):
            try:
                self._app.run(pre_run=lambda: self.post(self._begin))
            finally:
                self.talk.close()

    def _begin(self) -> None:
        """The prompt is on the screen; now the model may take its time."""
        self.talk.start()
        self._keep_ticking()

    # the view of the talk

    def post(self, action: Callable[[], None]) -> None:
        """Have an action run on this view's thread; harmless after the view is gone."""

        def act() -> None:
            if not self._app.is_done:  # the prompt is erased by then and must not be drawn again
                action()

        loop = self._app.loop
        with contextlib.suppress(RuntimeError):  # the loop was closed in between
            if loop is not None:
                loop.call_soon_threadsafe(act)

    def show_typed(self, text: str) -> None:
        """A line the user typed has its turn: it moves above the prompt."""
        self._above.write([("", "\n"), ("class:prompt", "> "), ("class:typed", visible(text).replace("\n", "\n  ") + "\n")])
        self._keep_ticking()

    def begin_reply(self, column: int, said: str) -> None:
        """A column begins to reply."""

    def show_piece(self, text: str, column: int) -> None:
        """The reply goes on."""
        self._above.feed(text)

    def end_reply(self, column: int) -> None:
        """The reply is over."""
        self._above.end()

    def show_mark(self, mark: Mark, column: int) -> None:
        """What the task thinks of a reply."""
        self.say(mark.text)

    def say(self, text: str | Fragments) -> None:
        """Show lines that are not the model's."""
        self._above.note(text if isinstance(text, str) else "".join(piece for _, piece in text))

    def propose(self, text: str) -> bool:
        """Put text into the input line, where nothing is lost by it."""
        if self._buffer.text:
            return False
        self._buffer.insert_text(text)
        return True

    def complain(self, text: str) -> None:
        """Show that something went wrong, in one line."""
        self._above.note("error: " + " ".join(text.split()), "class:error")

    def leave(self, error: Exception | None) -> None:
        """End the view; the part of a reply stays on the screen."""
        if not self._app.is_done:
            self._above.end()
            self._app.exit(exception=error) if error is not None else self._app.exit()

    # drawing

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

    def _layout(self) -> Layout:
        """Tail of the reply, lines that wait, input, completions, status; whatever is empty takes no room."""
        search = SearchToolbar()
        written = Window(
            BufferControl(self._buffer, search_buffer_control=search.control),
            height=lambda: Dimension(min=1, max=max(1, self._output.get_size().rows // 2)),
            dont_extend_height=True,
            wrap_lines=True,
            get_line_prefix=lambda line, wrapped: [("class:prompt", "> " if line == wrapped == 0 else "  ")],
        )
        return Layout(
            HSplit(
                [
                    _as_high_as(self._tail),
                    _as_high_as(self._waiting, "class:note"),
                    Window(height=Dimension(min=0, preferred=1, max=1)),  # what is typed stands apart, here and later above
                    written,
                    search,
                    CompletionsMenu(max_height=6),
                    Window(FormattedTextControl(self._status), height=1, style="class:note"),
                ]
            ),
            focused_element=written,
        )

    def _tail(self) -> list[str]:
        """The unfinished line of the reply, as far as there is room; one row of the screen stays free, see ``run``."""
        others = 4 + self._buffer.text.count("\n") + len(self._waiting())
        return self._above.tail(max(1, self._output.get_size().rows - others))

    def _waiting(self) -> list[str]:
        """The first lines that wait for their turn."""
        return ["  waits: " + visible(line).replace("\n", " ") for line in self.talk.pending][:3]

    def _status(self) -> str:
        """Model, state and speed."""
        if self._clock() < self._armed_until:
            return "ctrl-c again leaves"
        state = self.talk.state
        if state == "loading":
            return f"{self._name} · loading, {self._clock() - self._begun:.0f} s"
        speed = f" · {self.talk.tokens_per_second:.1f} tokens/s" if self.talk.tokens_per_second else ""
        return f"{self._name} · {'replying, ctrl-c stops' if state == 'generating' else 'ready'}{speed}"

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

        @keys.add("c-d", filter=writing & Condition(lambda: not self._buffer.text))
        def _(event: KeyPressEvent) -> None:
            self.leave(None)

        @keys.add("c-z")
        def _(event: KeyPressEvent) -> None:
            self._app.suspend_to_background()

        return keys


def _as_high_as(lines: Callable[[], list[str]], style: str = "") -> Window:
    """A window that shows lines and is no higher than they are; the last ones, when there is less room."""
    control = FormattedTextControl(
        lambda: "\n".join(lines()), show_cursor=False, get_cursor_position=lambda: Point(0, max(0, len(lines()) - 1))
    )
    return Window(control, height=lambda: Dimension(min=0, preferred=len(lines()), max=len(lines())), style=style)


class _CommandCompleter(Completer):
    """Completes what the commands know how to complete."""

    def __init__(self, talk: Talk) -> None:
        self._talk = talk

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        for found in self._talk.commands.complete(self._talk, document.text_before_cursor):
            yield Completion(found.text, -found.length, display_meta=found.summary)


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
