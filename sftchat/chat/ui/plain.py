"""Plain view of a chat: one message per input line, replies on stdout, everything else on stderr, no escape sequences."""

from __future__ import annotations

import queue
from collections.abc import Callable
from typing import TextIO

from sftchat.chat.context import Fragments, View
from sftchat.chat.controller import ChatController
from sftchat.chat.safe_text import ControlEscaper, escape_controls
from sftchat.errors import UsageError
from sftchat.task import ReplyScore
from sftchat.thinking import ThoughtSplitter


class Plain:
    """Shows a chat line by line; a ``View``.

    Args:
        make_chat: Creates the chat controller for this view.
        stdin: Messages, one per line; empty lines are skipped.
        stdout: Replies.
        stderr: Notes and errors.

    Attributes:
        failures: Number of messages without a reply and of failed commands.
    """

    def __init__(self, make_chat: Callable[[View], ChatController], *, stdin: TextIO, stdout: TextIO, stderr: TextIO) -> None:
        self.chat = make_chat(self)
        self.failures = 0
        self._stdin = stdin
        self._stdout = stdout
        self._stderr = stderr
        self._person = stdin.isatty()
        self._printable = ControlEscaper() if stdout.isatty() else None
        self._actions: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._replies: dict[int, str] = {}
        self._running: set[int] = set()
        self._opened: dict[int, ThoughtSplitter] = {}
        self._left = False
        self._armed = False
        self._problem: Exception | None = None

    def run(self) -> None:
        """Process all input lines.

        Raises:
            SftchatError: When a model could not be loaded.
            UsageError: When the input is not UTF-8.
        """
        self.chat.start()
        try:
            self._work_until(lambda: self.chat.settled)  # a resumed session may have a message without a reply
            while not self._left and (line := self._read()):
                self._take(line.removesuffix("\n").removesuffix("\r"))
                self._work_until(lambda: self.chat.settled)
        finally:
            self.chat.close()
        if self._problem is not None:
            raise self._problem

    def _take(self, line: str) -> None:
        self.chat.submit(line)

    def _read(self) -> str:
        """Read the next line; empty at the end."""
        if self._person:
            self._stderr.write("> ")
            self._stderr.flush()
        try:
            line = self._stdin.readline()
        except UnicodeDecodeError as error:
            raise UsageError(f"standard input is not {error.encoding}: {error.reason} at byte {error.start}") from None
        except KeyboardInterrupt:
            self._interrupted()
            return "\n"
        self._armed = False
        return line

    def _work_until(self, done: Callable[[], bool]) -> None:
        """Run posted actions until ``done`` returns True."""
        while not self._left and not done():
            try:
                self._actions.get()()
            except KeyboardInterrupt:
                self._interrupted()

    def _interrupted(self) -> None:
        """Handle Ctrl-C: on a terminal, stop the reply, and leave at the second time; otherwise raise ``KeyboardInterrupt`` as usual."""
        if not self._person or self._armed:
            raise KeyboardInterrupt
        if not self.chat.stop():
            self._armed = True
            self.info("ctrl-c again leaves")

    # View interface

    def post(self, action: Callable[[], None]) -> None:
        """Queue an action for ``run``."""
        self._actions.put(action)

    def show_typed(self, text: str) -> None:
        """Do nothing: the typed line is already visible."""

    def begin_reply(self, pane: int, text: str) -> None:
        """Begin the reply of a pane; of several, later ones wait for the earlier ones."""
        self._replies[pane] = ""
        self._running.add(pane)
        if self.chat.panes[pane].template_opens_thoughts(self.chat.settings.template_arguments):
            self._opened[pane] = ThoughtSplitter(True)
        self.show_piece(text, pane)  # a line contains a whole reply, even when it was continued

    def show_piece(self, text: str, pane: int) -> None:
        """Write text immediately; replies of several models are written when all are complete. Thoughts that the template opened are left
        out.
        """
        opened = self._opened.get(pane)
        self._show(text if opened is None else "".join(part.text for part in opened.feed(text) if not part.is_thought), pane)

    def _show(self, text: str, pane: int) -> None:
        self._replies[pane] += text
        if len(self.chat.panes) == 1:
            self._write(text if self._printable is None else self._printable.feed(text))

    def show_thoughts(self, text: str, pane: int) -> None:
        """Do nothing: the output has replies only."""

    def text_was_thoughts(self, pane: int) -> None:
        """Discard thoughts that were not written yet; end the line of those that were."""
        written, self._replies[pane] = self._replies[pane], ""
        if len(self.chat.panes) == 1 and written and not written.endswith("\n"):
            self._write((self._printable.end() if self._printable is not None else "") + "\n")

    def end_reply(self, pane: int) -> None:
        """End a reply with a newline."""
        self._running.discard(pane)
        if self._running:
            return
        for number, opened in self._opened.items():
            rest = "".join(part.text for part in opened.end() if not part.is_thought)
            reply = self.chat.conversation.node(self.chat.conversation.head).answers[number].reply
            never_ended = opened.in_thoughts and reply.finish_reason == "stop"
            self._show(
                opened.thought_text if never_ended else rest, number
            )  # thoughts that never ended, in a reply that did, are the reply
        self._opened.clear()
        replies, self._replies = self._replies, {}
        if len(replies) == 1:
            self._write((self._printable.end() if self._printable is not None else "") + "\n")
            return
        for number, text in replies.items():
            shown = f"{self.chat.panes[number].name}: {text}\n"
            self._write(shown if self._printable is None else escape_controls(shown))

    def show_score(self, score: ReplyScore, pane: int) -> None:
        """Write the score as a note."""
        self.info(score.text)

    def info(self, text: str | Fragments) -> None:
        """Write a note to stderr."""
        words = text if isinstance(text, str) else "".join(piece for _, piece in text)
        self._stderr.write(f"{escape_controls(words) if self._stderr.isatty() else words}\n")
        self._stderr.flush()

    def error(self, text: str) -> None:
        """Write an error to stderr and count it."""
        self.failures += 1
        self.info(f"sftchat: error: {' '.join(text.split())}")

    def prefill_input(self, text: str) -> bool:
        """Return False: there is no input line."""
        return False

    def leave(self, error: Exception | None) -> None:
        """End the view; with an error when a model could not be loaded."""
        self._left, self._problem = True, error

    def _write(self, text: str) -> None:
        if text:
            self._stdout.write(text)
            self._stdout.flush()
