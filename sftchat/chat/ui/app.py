"""The chat on a terminal: one long-lived prompt_toolkit application with the reply's unfinished line, the input and a status line."""

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

from sftchat._util.output import rendered
from sftchat.chat.context import Fragments
from sftchat.chat.controller import ChatController
from sftchat.chat.conversation import Mark
from sftchat.chat.render.columns import clip
from sftchat.chat.render.prompts import begins_with_thoughts
from sftchat.chat.render.status import Item, status_line
from sftchat.chat.render.width import Line
from sftchat.chat.safe_text import LineWriter, escape_controls
from sftchat.chat.ui.input import CommandCompleter, Pasted, edit_text, open_history
from sftchat.chat.ui.keys import chat_keys, prefers_vi
from sftchat.chat.ui.layout import STYLE, chat_layout
from sftchat.chat.ui.replies import Replies
from sftchat.chat.ui.scrollback import App, Scrollback, breaks_rows, broken, drawn
from sftchat.chat.ui.toolbar import activity, column_items, vi_mode
from sftchat.chat.view import View
from sftchat.errors import UsageError

ARMED_SECONDS = 2.0
"""A second Ctrl-C within this time leaves the chat."""
TICK_SECONDS = 0.5
"""How often the status line is drawn anew while something is under way."""


class Terminal:
    """Shows a talk on a terminal; a ``View``.

    Args:
        make_talk: Makes the talk that this view shows; it is started after the prompt is on the screen.
        history: File of typed lines; None keeps them in memory.
        vi: Begin with vi keys; None asks the user's ``~/.inputrc``.
        input: Where keys come from; the terminal by default.
        output: Where to draw; the terminal by default.
        environment: Says what the terminal can do; the process's own by default.
        clock: Seconds that never run backwards.
    """

    def __init__(
        self,
        make_talk: Callable[[View], ChatController],
        *,
        history: Path | None = None,
        vi: bool | None = None,
        input: Input | None = None,
        output: Output | None = None,
        environment: Mapping[str, str] = os.environ,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.talk = make_talk(self)
        self._clock = clock
        self._begun = clock()
        self._armed_until = 0.0
        self._tick: asyncio.TimerHandle | None = None
        self._output = output if output is not None else create_output(rendered(sys.stdout))
        self._above = Scrollback(self._output, lambda: self._app, breaks_rows(environment), "TMUX" in environment)
        self._thinking: set[int] = set()
        self._replies = Replies(self._above, lambda: self._app, self.talk.display)
        self._notes: list[StyleAndTextTuples] = []
        self._pasted = Pasted()
        self._buffer = Buffer(
            completer=CommandCompleter(self.talk), complete_while_typing=True, history=open_history(history), multiline=True
        )
        vi = prefers_vi(environment) if vi is None else vi
        self._app = App(
            layout=chat_layout(self._buffer, self._pasted, self._tail, self._waiting, self._status, lambda: self._output.get_size().rows),
            key_bindings=chat_keys(self, self._buffer, self._pasted),
            style=STYLE,
            editing_mode=EditingMode.VI if vi else EditingMode.EMACS,
            input=input,
            output=self._output,
            erase_when_done=True,
        )
        self._app.before_drawing = self._above.before_drawing

    def run(self) -> None:
        """Talk until the user leaves.

        Raises:
            SftchatError: When the model could not be loaded.
        """
        # before anything is drawn: tmux copies to its history whatever is erased from the top of a screen
        self._above.note(f"talking to {' and '.join(self._names)}; /help says what can be typed, ctrl-d leaves")
        writer = LineWriter(lambda line: self.post(lambda: self.say(line)))  # a bare print would be eaten by the next redraw
        with contextlib.redirect_stdout(writer), contextlib.redirect_stderr(writer), contextlib.suppress(EOFError):
            try:
                self._app.run(pre_run=lambda: self.post(self._begin))
            finally:
                self.talk.close()

    @property
    def _names(self) -> list[str]:
        """What the user called the models, harmless."""
        return [escape_controls(column.name).replace("\n", " ") for column in self.talk.columns]

    def _begin(self) -> None:
        """The prompt is on the screen; now the model may take its time."""
        self.talk.start()
        self._keep_ticking()

    # the view of the talk

    def post(self, action: Callable[[], None]) -> None:
        """Have an action run on this view's thread; harmless after the view is gone."""

        def act() -> None:
            if self._app.is_done:  # the prompt is erased by then and must not be drawn again
                return
            before = self.talk.state
            action()
            if self.talk.state != before:
                self._app.invalidate()  # the status line says so now, not at its next tick

        loop = self._app.loop
        with contextlib.suppress(RuntimeError):  # the loop was closed in between
            if loop is not None:
                loop.call_soon_threadsafe(act)

    def show_typed(self, text: str) -> None:
        """A line the user typed has its turn: it moves above the prompt."""
        self._above.write([("", "\n"), ("class:prompt", "> "), ("class:typed", escape_controls(text).replace("\n", "\n  ") + "\n")])
        self._keep_ticking()

    def begin_reply(self, column: int, said: str) -> None:
        """A column begins to reply."""
        self._thinking.discard(column)
        asked = self.talk.columns[column]
        thinking = begins_with_thoughts(asked.engine, self.talk.settings.template_arguments, asked.adapter)
        self._replies.begin(column, self._names[column], said, thinking)

    def show_piece(self, text: str, column: int) -> None:
        """The reply of a column goes on."""
        over = "</think>" if column in self._thinking else ""
        self._thinking.discard(column)
        self._replies.feed(column, over + text)

    def show_thoughts(self, text: str, column: int) -> None:
        """The model of a column thinks; what is drawn is told by tags which part of it are thoughts."""
        begun = "" if column in self._thinking else "<think>"
        self._thinking.add(column)
        self._replies.feed(column, begun + text)

    def show_late_thoughts(self, column: int) -> None:
        """What was drawn of a reply are thoughts: what can still be taken back is, and a line says so below the rest."""
        self._replies.retract(column)

    def end_reply(self, column: int) -> None:
        """The reply of a column is over."""
        self._replies.end(column)
        if not self._replies.several:
            self._write_notes()

    def show_mark(self, mark: Mark, column: int) -> None:
        """What the task thinks of a reply."""
        who = f"{self._names[column]}: " if len(self._names) > 1 else ""
        style = "class:note" if mark.value is None else "class:good" if mark.right else "class:bad"
        self._note(broken(who + mark.text, style, self._above.columns))

    def say(self, text: str | Fragments) -> None:
        """Show lines that are not the model's."""
        if isinstance(text, str):
            self._note(broken(text, "class:note", self._above.columns))
        else:
            self._note(drawn(text, self._above.columns))

    def propose(self, text: str) -> bool:
        """Put text into the input line, where nothing is lost by it."""
        if self._buffer.text:
            return False
        self._buffer.insert_text(text)
        return True

    def complain(self, text: str) -> None:
        """Show that something went wrong, in one line."""
        self._note(broken("error: " + " ".join(text.split()), "class:error", self._above.columns))

    def _note(self, fragments: StyleAndTextTuples) -> None:
        """Write what is not the models', below the replies that are under way when there are several."""
        self._notes.append(fragments)
        if not self._replies.several:
            self._write_notes()

    def _write_notes(self) -> None:
        """Write what waited for the replies."""
        notes, self._notes = self._notes, []
        if notes:
            self._above.write([pair for note in notes for pair in note])

    def leave(self, error: Exception | None) -> None:
        """End the view; the part of a reply stays on the screen."""
        if not self._app.is_done:
            self._replies.end_all()
            self._write_notes()
            self._app.exit(exception=error) if error is not None else self._app.exit()

    # what keys do

    def send(self) -> None:
        """Send what is written."""
        text = self._pasted.expand(self._buffer.text)
        if not text.strip():
            return
        if [text] != self._buffer.history.get_strings()[-1:]:
            self._buffer.history.append_string(text)
        self._clear()
        self.talk.submit(text)

    def interrupt(self) -> None:
        """Clear the line, stop the reply, or arm the exit."""
        if self._buffer.text:
            self._clear()
        elif not self.talk.stop():
            if self._clock() < self._armed_until:
                self.leave(None)
            self._armed_until = self._clock() + ARMED_SECONDS
            self._keep_ticking()

    def toggle_thoughts(self) -> None:
        """Show thoughts, those of the last reply included, or fold them."""
        self.say("thoughts are shown" if self._replies.toggle_thoughts() else "thoughts are folded")

    def edit_input(self) -> None:
        """Write on in the editor of ``$VISUAL`` or ``$EDITOR``; what streams meanwhile waits."""

        def edited(text: str) -> None:
            self._pasted.clear()
            self._buffer.text = text
            self._buffer.cursor_position = len(text)

        self.edit(self._pasted.expand(self._buffer.text), edited)

    def edit(self, text: str, then: Callable[[str], None]) -> None:
        """Have the user edit a text in an editor.

        Args:
            text: What to begin with.
            then: Called with what was saved; not called when the editor failed.
        """
        self._app.create_background_task(self._edit(text, then))

    async def _edit(self, text: str, then: Callable[[str], None]) -> None:
        """Lend the terminal to an editor."""
        try:
            edited = await run_in_terminal(lambda: edit_text(text), in_executor=True)
        except UsageError as error:
            self.complain(str(error))
            return
        then(edited)

    def suspend(self) -> None:
        """Go to the background, as programs do; ``fg`` brings the chat back."""
        self._app.suspend_to_background()

    def _clear(self) -> None:
        """Empty the input."""
        self._buffer.reset()
        self._pasted.clear()

    # drawing

    def _keep_ticking(self) -> None:
        """Keep the seconds and the speed in the status line moving, as long as they move; a quiet chat draws nothing."""
        if self._tick is None and self._app.loop is not None:
            self._tick = self._app.loop.call_later(TICK_SECONDS, self._next_tick)

    def _next_tick(self) -> None:
        """Draw the status line anew."""
        self._tick = None
        self._app.invalidate()
        if self.talk.state != "ready" or self._armed_until:
            if self._clock() >= self._armed_until:
                self._armed_until = 0.0
            self._keep_ticking()

    def _tail(self) -> list[Line]:
        """The unfinished line of the reply, as far as there is room; one row of the screen stays free, see ``run``."""
        rows = self._output.get_size().rows
        others = 4 + self._buffer.text.count("\n") + len(self._waiting())
        return self._replies.tail(max(1, min(rows - others, rows // 2)))

    def _waiting(self) -> list[Line]:
        """The first lines that wait for their turn."""
        pending = list(self.talk.pending)
        shown = [clip(f"  waits: {line}", self._above.columns) for line in pending[:3]]
        more = [f"  and {len(pending) - 3} more"] if len(pending) > 3 else []
        return [[("class:note", line)] for line in [*shown, *more]]

    def _status(self) -> str:
        """Model, state and speed."""
        if self._clock() < self._armed_until:
            return "ctrl-c again leaves"
        doing = activity(self.talk, self._clock() - self._begun)
        columns = column_items(self._names, self.talk.columns)
        return status_line([*columns[:1], doing, *columns[1:], Item(vi_mode(self._app), 2)], self._output.get_size().columns)
