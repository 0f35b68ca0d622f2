"""Terminal view of a chat: one prompt_toolkit application with the unfinished reply line, the input and a status line."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from prompt_toolkit.application import run_in_terminal
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.enums import EditingMode
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.input import Input
from prompt_toolkit.output import Output
from prompt_toolkit.output.defaults import create_output

from sftchat._util.output import for_renderer
from sftchat.chat.context import Fragments, View
from sftchat.chat.controller import ChatController
from sftchat.chat.render.columns import clip
from sftchat.chat.render.width import Line
from sftchat.chat.safe_text import LineWriter, escape_controls
from sftchat.chat.ui.input import CommandCompleter, Pasted, edit_text, open_history
from sftchat.chat.ui.keys import chat_keys, prefers_vi
from sftchat.chat.ui.layout import STYLE, chat_layout
from sftchat.chat.ui.replies import Replies
from sftchat.chat.ui.scrollback import App, Scrollback, breaks_rows, format_output, wrap_note
from sftchat.chat.ui.status import StatusItem, activity, pane_items, status_line, vi_mode
from sftchat.errors import UsageError
from sftchat.task import ReplyScore
from sftchat.thinking import THOUGHTS_BEGIN, THOUGHTS_END

EXIT_ARMED_SECONDS = 2.0
"""A second Ctrl-C within this time leaves the chat."""
TICK_SECONDS = 0.5
"""Interval of status line redraws while something is running."""
MAX_PENDING_SHOWN = 3
"""Maximum number of pending lines shown above the input; the others are counted."""


class Terminal:
    """Shows a chat on a terminal; a ``View``.

    Args:
        make_chat: Creates the chat controller for this view; it is started after the prompt is drawn.
        history: File of typed lines; None keeps them in memory.
        vi: Start with vi keys; None follows the user's ``~/.inputrc``.
        input: Source of keys; the terminal by default.
        output: Drawing target; the terminal by default.
        environment: Environment variables that describe the terminal; those of the process by default.
        clock: Monotonic clock in seconds.
    """

    def __init__(
        self,
        make_chat: Callable[[View], ChatController],
        *,
        history: Path | None = None,
        vi: bool | None = None,
        input: Input | None = None,
        output: Output | None = None,
        environment: Mapping[str, str] = os.environ,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.chat = make_chat(self)
        self._clock = clock
        self._started = clock()
        self._exit_armed_until = 0.0
        self._tick: asyncio.TimerHandle | None = None
        self._output = output if output is not None else create_output(for_renderer(sys.stdout))
        self._scrollback = Scrollback(self._output, lambda: self._app, breaks_rows(environment), "TMUX" in environment)
        self._replies = Replies(self._scrollback, lambda: self._app, self.chat.display)
        self._panes_in_thoughts: set[int] = set()  # whose opening tag was passed to the replies and the closing one was not
        self._delayed_notes: list[StyleAndTextTuples] = []
        self._pasted = Pasted()
        self._buffer = Buffer(
            completer=CommandCompleter(self.chat), complete_while_typing=True, history=open_history(history), multiline=True
        )
        vi = prefers_vi(environment) if vi is None else vi
        self._app = App(
            layout=chat_layout(
                self._buffer, self._pasted, self._tail, self._pending_lines, self._status, lambda: self._output.get_size().rows
            ),
            key_bindings=chat_keys(self, self._buffer, self._pasted),
            style=STYLE,
            editing_mode=EditingMode.VI if vi else EditingMode.EMACS,
            input=input,
            output=self._output,
            erase_when_done=True,
        )
        self._app.before_drawing = self._scrollback.before_drawing

    def run(self) -> None:
        """Run the chat until the user leaves.

        Raises:
            SftchatError: When a model could not be loaded.
        """
        # before the first drawing: tmux copies text erased from the top of the screen to its history
        self._scrollback.note(f"chat with {' and '.join(self._names)}; /help lists the commands, ctrl-d leaves")
        writer = LineWriter(lambda line: self.post(lambda: self.info(line)))  # a redraw would overwrite what print writes to the terminal
        with contextlib.redirect_stdout(writer), contextlib.redirect_stderr(writer), contextlib.suppress(EOFError):
            try:
                self._app.run(pre_run=lambda: self.post(self._begin))
            finally:
                self.chat.close()

    @property
    def _names(self) -> list[str]:
        """Model names as typed, with control characters escaped."""
        return [escape_controls(pane.name).replace("\n", " ") for pane in self.chat.panes]

    def _begin(self) -> None:
        self.chat.start()
        self._keep_ticking()

    # View interface

    def post(self, action: Callable[[], None]) -> None:
        """Run an action on the UI thread; does nothing after the view has ended."""

        def act() -> None:
            if self._app.is_done:  # the prompt is erased by then and must not be drawn again
                return
            before = self.chat.state
            action()
            if self.chat.state != before:
                self._app.invalidate()  # update the status line now, not at the next tick

        loop = self._app.loop
        with contextlib.suppress(RuntimeError):  # the loop was closed in the meantime
            if loop is not None:
                loop.call_soon_threadsafe(act)

    def show_typed(self, text: str) -> None:
        """Show a typed line above the prompt when it is processed."""
        self._scrollback.write([("", "\n"), ("class:prompt", "> "), ("class:typed", escape_controls(text).replace("\n", "\n  ") + "\n")])
        self._keep_ticking()

    def begin_reply(self, pane: int, text: str) -> None:
        """Begin the reply of a pane."""
        self._panes_in_thoughts.discard(pane)
        thinking = self.chat.panes[pane].template_opens_thoughts(self.chat.settings.template_arguments)
        self._replies.begin(pane, self._names[pane], text, thinking)

    def show_piece(self, text: str, pane: int) -> None:
        """Show more text of a pane's reply."""
        closing_tag = THOUGHTS_END if pane in self._panes_in_thoughts else ""
        self._panes_in_thoughts.discard(pane)
        self._replies.feed(pane, closing_tag + text)

    def show_thoughts(self, text: str, pane: int) -> None:
        """Show thoughts of a pane's model; the replies recognise them by tags around them."""
        opening_tag = "" if pane in self._panes_in_thoughts else THOUGHTS_BEGIN
        self._panes_in_thoughts.add(pane)
        self._replies.feed(pane, opening_tag + text)

    def text_was_thoughts(self, pane: int, more_thoughts: str) -> None:
        """Treat the text shown so far as thoughts, with ``more_thoughts`` after it; see ``Replies.retract``."""
        if more_thoughts:
            self._replies.feed(pane, more_thoughts)
        self._replies.retract(pane)

    def end_reply(self, pane: int) -> None:
        """End the reply of a pane."""
        self._replies.end(pane)
        if not self._replies.several_are_streaming:
            self._write_notes()

    def show_score(self, score: ReplyScore, pane: int) -> None:
        """Show the score of a reply."""
        model_prefix = f"{self._names[pane]}: " if len(self._names) > 1 else ""
        right_or_wrong = "class:good" if score.right else "class:bad"
        style = "class:note" if score.value is None else right_or_wrong
        self._note(wrap_note(model_prefix + score.text, style, self._scrollback.columns))

    def info(self, text: str | Fragments) -> None:
        """Show lines that are not from a model."""
        if isinstance(text, str):
            self._note(wrap_note(text, "class:note", self._scrollback.columns))
        else:
            self._note(format_output(text, self._scrollback.columns))

    def prefill_input(self, text: str) -> bool:
        """Put text into the input line, if it is empty."""
        if self._buffer.text:
            return False
        self._buffer.insert_text(text)
        return True

    def error(self, text: str) -> None:
        """Show a one-line error."""
        self._note(wrap_note("error: " + " ".join(text.split()), "class:error", self._scrollback.columns))

    def _note(self, fragments: StyleAndTextTuples) -> None:
        """Write a note; while several replies stream, delay it until they end."""
        self._delayed_notes.append(fragments)
        if not self._replies.several_are_streaming:
            self._write_notes()

    def _write_notes(self) -> None:
        notes, self._delayed_notes = self._delayed_notes, []
        if notes:
            self._scrollback.write([pair for note in notes for pair in note])

    def leave(self, error: Exception | None) -> None:
        """End the view; partial replies stay on the screen."""
        if not self._app.is_done:
            self._replies.end_all()
            self._write_notes()
            self._app.exit(exception=error) if error is not None else self._app.exit()

    # key actions

    def send(self) -> None:
        """Submit the input."""
        text = self._pasted.expand(self._buffer.text)
        if not text.strip():
            return
        if [text] != self._buffer.history.get_strings()[-1:]:
            self._buffer.history.append_string(text)
        self._clear()
        self.chat.submit(text)

    def interrupt(self) -> None:
        """Clear the input, stop the reply, or arm the exit."""
        if self._buffer.text:
            self._clear()
        elif not self.chat.stop():
            if self._clock() < self._exit_armed_until:
                self.leave(None)
            self._exit_armed_until = self._clock() + EXIT_ARMED_SECONDS
            self._keep_ticking()

    def toggle_thoughts(self) -> None:
        """Show or hide thoughts, including those of the last reply."""
        self.info("thoughts are shown" if self._replies.toggle_thoughts() else "thoughts are folded")

    def edit_input(self) -> None:
        """Edit the input in ``$VISUAL`` or ``$EDITOR``; streamed output waits meanwhile."""
        self._app.create_background_task(self._edit_in_terminal(self._pasted.expand(self._buffer.text)))

    async def _edit_in_terminal(self, text: str) -> None:
        """Replace the input by an edited text; the editor takes over the terminal."""
        try:
            edited = await run_in_terminal(lambda: edit_text(text), in_executor=True)
        except UsageError as error:
            self.error(str(error))
            return
        self._pasted.clear()
        self._buffer.text = edited
        self._buffer.cursor_position = len(edited)

    def suspend(self) -> None:
        """Suspend the process (ctrl-z); ``fg`` resumes it."""
        self._app.suspend_to_background()

    def _clear(self) -> None:
        self._buffer.reset()
        self._pasted.clear()

    # drawing

    def _keep_ticking(self) -> None:
        """Schedule the next redraw of the status line, unless one is scheduled; an idle chat draws nothing."""
        if self._tick is None and self._app.loop is not None:
            self._tick = self._app.loop.call_later(TICK_SECONDS, self._next_tick)

    def _next_tick(self) -> None:
        self._tick = None
        self._app.invalidate()
        if self.chat.state != "ready" or self._exit_armed_until:
            if self._clock() >= self._exit_armed_until:
                self._exit_armed_until = 0.0
            self._keep_ticking()

    def _tail(self) -> list[Line]:
        """Return the unfinished part of the replies, as far as it fits."""
        rows = self._output.get_size().rows
        # input, status line, an empty line between, and a row at the top that stays free: see ``run``
        other_rows = 4 + self._buffer.text.count("\n") + len(self._pending_lines())
        return self._replies.tail(max(1, min(rows - other_rows, rows // 2)))

    def _pending_lines(self) -> list[Line]:
        pending = list(self.chat.pending)
        lines = [clip(f"  waits: {line}", self._scrollback.columns) for line in pending[:MAX_PENDING_SHOWN]]
        if len(pending) > MAX_PENDING_SHOWN:
            lines.append(f"  and {len(pending) - MAX_PENDING_SHOWN} more")
        return [[("class:note", line)] for line in lines]

    def _status(self) -> str:
        """Return the status line.

        With one pane, its items are: model, activity, adapter, score, context, speed, time to first token, vi mode. With several panes: the first model
        with its speed, activity, the other models with their speeds, vi mode. For two seconds after a ctrl-c that had nothing to clear or to stop, the
        line is "ctrl-c again leaves".
        """
        if self._clock() < self._exit_armed_until:
            return "ctrl-c again leaves"
        first_item, *other_items = pane_items(self._names, self.chat.panes)
        current_activity = activity(self.chat, self._clock() - self._started)
        items = [first_item, current_activity, *other_items, StatusItem(vi_mode(self._app), rank=2)]
        return status_line(items, self._output.get_size().columns)
