"""Chat on an emulated terminal for tests: accepts keys as a terminal sends them, and returns the text of the screen."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from prompt_toolkit.application import create_app_session
from prompt_toolkit.data_structures import Size
from prompt_toolkit.input import PipeInput, create_pipe_input
from prompt_toolkit.output.vt100 import Vt100_Output

from sftchat.chat.context import Settings
from sftchat.chat.controller import ChatController
from sftchat.chat.pane import Opening
from sftchat.chat.ui.app import Terminal
from sftchat.engine import Engine
from sftchat.errors import MissingExtraError
from sftchat.testing.chat import commands_of, opening_of

__all__ = ["ChatOnScreen", "Screen", "chat_on_screen"]

TIMEOUT_SECONDS = 60.0
"""Timeout of all waits; long, because the machine may be busy."""
SCROLLBACK = 100_000


class Screen:
    """Emulated screen with scrollback; written by one thread, read by another.

    Args:
        columns: Width.
        lines: Height.
        emulator: Creates a ``pyte.HistoryScreen`` from width and height; None for pyte's own class.

    Attributes:
        raw: All output, including escape sequences.
        ended: Whether the program has ended its output.

    Raises:
        MissingExtraError: When pyte is not installed.
    """

    encoding = "utf-8"

    def __init__(self, columns: int = 80, lines: int = 24, emulator: Callable[[int, int], Any] | None = None) -> None:
        if find_spec("pyte") is None:
            raise MissingExtraError("a chat on a screen", "testing")
        import pyte

        self.columns, self.lines = columns, lines
        self.emulator = emulator(columns, lines) if emulator else pyte.HistoryScreen(columns, lines, history=SCROLLBACK, ratio=0.5)
        self._stream = pyte.Stream(self.emulator)
        self.changed = threading.Condition()
        self.raw = ""
        self.ended = False

    def feed(self, text: str) -> None:
        """Process output of a program."""
        with self.changed:
            self.raw += text
            self._stream.feed(text)
            self.changed.notify_all()

    def end(self) -> None:
        """Mark the output as ended."""
        with self.changed:
            self.ended = True
            self.changed.notify_all()

    def text(self) -> str:
        """Return the text of scrollback and screen, without blanks at the ends of lines."""
        with self.changed:
            rows = [*self.emulator.history.top, *(self.emulator.buffer[y] for y in range(self.lines))]
            screen_lines = ["".join(row[x].data for x in range(self.columns)).rstrip() for row in rows]
        return "\n".join(screen_lines).rstrip("\n")

    def wait(self, expected: str | Callable[[str], bool]) -> str:
        """Wait until the text contains ``expected``, or the function returns True, and return the text.

        Raises:
            AssertionError: On timeout; the message shows the screen.
        """
        is_met = (lambda text: expected in text) if isinstance(expected, str) else expected
        with self.changed:
            if not self.changed.wait_for(lambda: is_met(self.text()) or self.ended, TIMEOUT_SECONDS) or not is_met(self.text()):
                raise AssertionError(f"never saw {expected!r}; the screen:\n{self.text()}")
        return self.text()

    # the methods of stdout that prompt_toolkit calls

    def write(self, text: str) -> int:
        """Process output."""
        self.feed(text)
        return len(text)

    def flush(self) -> None:
        """Do nothing: output is not buffered."""

    def isatty(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Raise an error: there is no file descriptor."""
        raise OSError("no file")


class ChatOnScreen:
    """The chat of ``sftchat chat`` in a terminal, run in a thread of this process.

    Args:
        openings: The models.
        keys: Pipe from which the chat reads keys.
        screen: Screen to which the chat writes.
        chat: Arguments of ``ChatController``.
        view: Arguments of ``Terminal``.

    Attributes:
        problem: The exception that ended the chat, if any.
    """

    def __init__(
        self, openings: Sequence[Opening], keys: PipeInput, screen: Screen, chat: Mapping[str, Any], view: Mapping[str, Any]
    ) -> None:
        output = Vt100_Output(screen, lambda: Size(rows=screen.lines, columns=screen.columns), term="xterm")  # type: ignore[arg-type]
        self.terminal = Terminal(lambda shows: ChatController(openings, shows, **chat), input=keys, output=output, **view)
        self.chat = self.terminal.chat
        self.screen = screen
        self.problem: BaseException | None = None
        self._keys = keys
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        screen.wait("\n>")

    def _run(self) -> None:
        """Run the chat until it ends."""
        try:
            with create_app_session():  # prompt_toolkit has one current application per session
                self.terminal.run()
        except BaseException as error:
            self.problem = error
        finally:
            self.screen.end()

    def type(self, keys: str) -> None:
        r"""Press keys, as a terminal sends them: ``\r`` is enter, ``\t`` tab, ``\x03`` ctrl-c, ``\x1b[A`` up."""
        self._keys.send_text(keys)

    def say(self, message: str) -> None:
        """Type a message, press enter, and wait until the reply is complete."""
        self.until(lambda: self.chat.state == "ready")
        turns_before = len(self.chat.conversation.turns)
        self.type(message + "\r")
        self.until(lambda: len(self.chat.conversation.turns) > turns_before and not self.chat.conversation.waiting)

    def until(self, holds: Callable[[], bool]) -> None:
        """Wait, by polling, until a condition is true; for conditions that do not change the screen, otherwise see ``Screen.wait``.

        Raises:
            AssertionError: On timeout; the message shows the screen.
        """
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while not holds():
            if time.monotonic() > deadline or self.screen.ended:
                raise AssertionError(f"waited in vain; the screen:\n{self.screen.text()}")
            time.sleep(0.002)

    def leave(self) -> str:
        """Press ctrl-d and return the remaining screen text."""
        self.type("\x04")
        return self.left()

    def left(self) -> str:
        """Wait until the chat has ended and return the remaining screen text."""
        self._thread.join(TIMEOUT_SECONDS)
        if self._thread.is_alive():
            raise AssertionError(f"the chat did not end; the screen:\n{self.screen.text()}")
        return self.screen.text()


@contextmanager
def chat_on_screen(engine: Engine, *plugins: Any, columns: int = 80, lines: int = 24) -> Iterator[ChatOnScreen]:
    r"""Run a chat with an engine on an emulated screen; requires ``pip install 'sftchat[testing]'``.

        with chat_on_screen(ScriptedEngine(["SEA"]), my_plugin) as chat:
            chat.say("sea")
            chat.type("/ag\t")
            chat.screen.wait("> /again")

    Args:
        engine: The engine, such as a ``ScriptedEngine``.
        plugins: Modules or objects with functions marked ``@hookimpl``, for their chat commands.
        columns: Width of the screen.
        lines: Height of the screen.

    Raises:
        PluginError: When a plugin is invalid.
        MissingExtraError: When the emulator (pyte) is not installed.
    """
    arguments: dict[str, Any] = {"commands": commands_of(*plugins), "settings": Settings()}
    with create_pipe_input() as keys:
        chat = ChatOnScreen([opening_of(engine)], keys, Screen(columns, lines), arguments, {"environment": {}})
        try:
            yield chat
        finally:
            close(chat)


def close(chat: ChatOnScreen) -> None:
    """End a chat in any state."""
    if not chat.screen.ended:
        chat.type("\x03\x04\x04")
        chat.left()
