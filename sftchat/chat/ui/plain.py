"""Plain view of a chat: one message per input line, replies on stdout, everything else on stderr, no escape sequences."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterable
from typing import TextIO

from sftchat.chat.context import Fragments, View
from sftchat.chat.controller import ChatController
from sftchat.chat.safe_text import ControlEscaper, escape_controls
from sftchat.errors import UsageError
from sftchat.task import ReplyScore
from sftchat.thinking import ReplyPart, ThoughtSplitter


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
        self._is_interactive = stdin.isatty()
        self._escaper = ControlEscaper() if stdout.isatty() else None
        self._actions: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._replies: dict[int, str] = {}  # text by pane
        self._running: set[int] = set()  # panes whose reply has not ended
        self._splitters: dict[int, ThoughtSplitter] = {}  # by pane, when the template opened the thoughts
        self._ended = False
        self._exit_armed = False
        self._load_error: Exception | None = None

    def run(self) -> None:
        """Process all input lines.

        Raises:
            SftchatError: When a model could not be loaded.
            UsageError: When the input is not UTF-8.
        """
        self.chat.start()
        try:
            self._work_until(lambda: self.chat.settled)  # a resumed session may have a message without a reply
            while not self._ended and (line := self._read_line()):
                self._submit_line(line.removesuffix("\n").removesuffix("\r"))
                self._work_until(lambda: self.chat.settled)
        finally:
            self.chat.close()
        if self._load_error is not None:
            raise self._load_error

    def _submit_line(self, line: str) -> None:
        self.chat.submit(line)

    def _read_line(self) -> str:
        """Read the next line with its newline; empty at the end of the input."""
        if self._is_interactive:
            self._stderr.write("> ")
            self._stderr.flush()
        try:
            line = self._stdin.readline()
        except UnicodeDecodeError as error:
            raise UsageError(f"standard input is not {error.encoding}: {error.reason} at byte {error.start}") from None
        except KeyboardInterrupt:
            self._handle_interrupt()
            return "\n"
        self._exit_armed = False
        return line

    def _work_until(self, done: Callable[[], bool]) -> None:
        """Run posted actions until ``done`` returns True."""
        while not self._ended and not done():
            try:
                action = self._actions.get()
                action()
            except KeyboardInterrupt:
                self._handle_interrupt()

    def _handle_interrupt(self) -> None:
        """Handle Ctrl-C: on a terminal, stop the reply, or leave at the second time; otherwise raise ``KeyboardInterrupt``."""
        if not self._is_interactive or self._exit_armed:
            raise KeyboardInterrupt
        if not self.chat.stop():
            self._exit_armed = True
            self.info("ctrl-c again leaves")

    # View interface

    def post(self, action: Callable[[], None]) -> None:
        """Queue an action for ``run``."""
        self._actions.put(action)

    def show_typed(self, text: str) -> None:
        """Do nothing: the typed line is already visible."""

    def begin_reply(self, pane: int, text: str) -> None:
        """Begin the reply of a pane; the text of a continued reply is written again, so that the output has complete replies."""
        self._replies[pane] = ""
        self._running.add(pane)
        if self.chat.panes[pane].template_opens_thoughts(self.chat.settings.template_arguments):
            self._splitters[pane] = ThoughtSplitter(True)
        self.show_piece(text, pane)

    def show_piece(self, text: str, pane: int) -> None:
        """Write the text without thoughts that the template opened: at once, or with several models when all replies are complete."""
        splitter = self._splitters.get(pane)
        self._add_text(text if splitter is None else _answer_text(splitter.feed(text)), pane)

    def _add_text(self, text: str, pane: int) -> None:
        self._replies[pane] += text
        if len(self.chat.panes) == 1:
            self._write(text if self._escaper is None else self._escaper.feed(text))

    def show_thoughts(self, text: str, pane: int) -> None:
        """Do nothing: the output has replies only."""

    def text_was_thoughts(self, pane: int, more_thoughts: str) -> None:
        """Discard the thoughts; with one model they are already written, and their last line is ended."""
        thoughts, self._replies[pane] = self._replies[pane], ""
        if len(self.chat.panes) == 1 and thoughts and not thoughts.endswith("\n"):
            self._end_line()

    def end_reply(self, pane: int) -> None:
        """End the reply of a pane; with the last one, end the line or write all replies."""
        self._running.discard(pane)
        if self._running:
            return
        for index, splitter in self._splitters.items():
            end_of_answer = _answer_text(splitter.end())
            reply = self.chat.conversation.node(self.chat.conversation.head).answers[index].reply
            only_thoughts = splitter.in_thoughts and reply.finish_reason == "stop"  # no closing tag came: they are the answer
            self._add_text(splitter.thought_text if only_thoughts else end_of_answer, index)
        self._splitters.clear()
        replies, self._replies = self._replies, {}
        if len(replies) == 1:
            self._end_line()
            return
        for index, text in replies.items():
            line = f"{self.chat.panes[index].name}: {text}\n"
            self._write(line if self._escaper is None else escape_controls(line))

    def show_score(self, score: ReplyScore, pane: int) -> None:
        """Write the score as a note."""
        self.info(score.text)

    def info(self, text: str | Fragments) -> None:
        """Write a note to stderr."""
        note = text if isinstance(text, str) else "".join(piece for _, piece in text)
        self._stderr.write(f"{escape_controls(note) if self._stderr.isatty() else note}\n")
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
        self._ended, self._load_error = True, error

    def _end_line(self) -> None:
        self._write((self._escaper.end() if self._escaper is not None else "") + "\n")

    def _write(self, text: str) -> None:
        if text:
            self._stdout.write(text)
            self._stdout.flush()


def _answer_text(parts: Iterable[ReplyPart]) -> str:
    return "".join(part.text for part in parts if not part.is_thought)
