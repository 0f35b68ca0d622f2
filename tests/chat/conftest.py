"""Terminals for tests: a pyte screen with its scrollback, for an in-process chat or a real pty."""

from __future__ import annotations

import codecs
import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prompt_toolkit.input import create_pipe_input

from sftchat.chat.commands import BUILTINS, Commands
from sftchat.chat.context import Settings
from sftchat.chat.pane import Opening
from sftchat.testing import terminal as terminal_kit
from sftchat.testing.terminal import TIMEOUT_SECONDS, ChatOnScreen, close
from sftchat.types import SamplingParams
from tests.chat.emulator import Emulator
from tests.chat.logged import Log


class Screen(terminal_kit.Screen):
    """Screen that can be resized and rewraps rows."""

    def __init__(self, columns: int = 60, lines: int = 20) -> None:
        super().__init__(columns, lines, Emulator)

    def cursor(self) -> tuple[int, int]:
        with self.changed:
            return self.emulator.cursor.y, self.emulator.cursor.x

    def written(self) -> list[str]:
        """Return the written lines, joined from the terminal's rows."""
        with self.changed:
            return ["".join(character for character, _ in line) for line in self.emulator.written()]

    def resize(self, columns: int, lines: int) -> None:
        with self.changed:
            self.columns, self.lines = columns, lines
            self.emulator.resize(lines, columns)


class Chat(ChatOnScreen):
    """Chat under test, with a screen that can be resized."""

    screen: Screen

    def __init__(self, engine: Any, keys: Any, screen: Screen, **options: Any) -> None:
        engines = engine if isinstance(engine, list) else [engine]
        names = options.pop("names", ["scripted"])
        views = {name: options.pop(name) for name in ("history", "clock", "environment", "vi") if name in options}
        options = {"commands": Commands(BUILTINS), "settings": Settings(options.pop("sampling", SamplingParams()))} | options
        openings = [Opening(_loader(one), (name,)) for one, name in zip(engines, names, strict=True)]
        super().__init__(openings, keys, screen, options, {"environment": {}} | views)


def _loader(engine: Any) -> Callable[[], Any]:
    """Return a function that loads the engine."""
    return engine if callable(engine) else lambda: engine


@pytest.fixture
def chat() -> Iterator[Callable[..., Chat]]:
    """Return a function that opens chats in this process; its argument is an engine or a loader."""
    with contextlib.ExitStack() as stack:
        opened: list[Chat] = []

        def start(engine: Any, columns: int = 60, lines: int = 20, **options: Any) -> Chat:
            keys = stack.enter_context(create_pipe_input())
            opened.append(Chat(engine, keys, Screen(columns, lines), **options))
            return opened[-1]

        yield start
        for one in opened:
            close(one)


class Pty:
    """The driver script in a real terminal."""

    def __init__(self, arguments: list[str], columns: int, lines: int, keep: tuple[int, ...], environment: dict[str, str]) -> None:
        self.screen = Screen(columns, lines)
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        paths = os.pathsep.join(filter(None, sys.path))
        plain = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=plain | {"PYTHONPATH": paths, "TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"} | environment,
            start_new_session=True,
            pass_fds=keep,
        )
        os.close(slave)
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._reading = threading.Lock()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def resize(self, columns: int, lines: int) -> None:
        """Change the size between two drawings."""
        for _ in range(1000):
            self.process.send_signal(signal.SIGSTOP)
            with self._reading:
                done = self._drained()
                if done:
                    self.screen.resize(columns, lines)
                    fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
            self.process.send_signal(signal.SIGCONT)
            if done:
                self.process.send_signal(signal.SIGWINCH)
                return
            time.sleep(0.002)  # during a drawing
        raise AssertionError("the chat never stopped drawing")

    def _drained(self) -> bool:
        """Process the output; returns whether it ended with a complete drawing."""
        while select.select([self._master], [], [], 0.003)[0]:
            self._feed(os.read(self._master, 65536))
        return self.screen.raw.endswith(("\x1b[?25h", "\x1b[?2026l"))

    def _read(self) -> None:
        """Process the output until the program ends."""
        while True:
            select.select([self._master], [], [], 0.2)
            with self._reading:
                try:
                    if not select.select([self._master], [], [], 0)[0]:
                        continue
                    data = os.read(self._master, 65536)
                except OSError:  # Linux: the other side has closed the terminal
                    data = b""
                if not data:
                    break
                self._feed(data)
        self.screen.end()

    def _feed(self, data: bytes) -> None:
        """Draw output, and answer a cursor position request after all earlier output is drawn."""
        for at, part in enumerate(self._decoder.decode(data).split("\x1b[6n")):
            if at:
                row, column = self.screen.cursor()
                self.type(f"\x1b[{row + 1};{column + 1}R")
            self.screen.feed(part)

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def left(self) -> str:
        """Wait until the program ends; returns the screen."""
        self.process.wait(TIMEOUT_SECONDS)
        self._reader.join(TIMEOUT_SECONDS)
        return self.screen.text()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(TIMEOUT_SECONDS)
        self._reader.join(TIMEOUT_SECONDS)
        os.close(self._master)


@pytest.fixture
def terminal() -> Iterator[Callable[..., Pty]]:
    """Run the driver script, or another program of this Python, in a real terminal."""
    opened: list[Pty] = []

    def start(*arguments: str, columns: int = 60, lines: int = 20, keep: tuple[int, ...] = (), **environment: str) -> Pty:
        script = str(Path(__file__).with_name("driver.py"))
        opened.append(Pty([script, *arguments], columns, lines, keep, environment))
        opened[-1].screen.wait("\n>")  # before that, the terminal is in cooked mode and enter is a line feed
        return opened[-1]

    yield start
    for one in opened:
        one.close()


@pytest.fixture
def view() -> Iterator[Callable[..., Log]]:
    """Return a function that starts chats without a terminal; its argument is an engine or a loader."""
    opened: list[Log] = []

    def start(engine: Any = None, **options: Any) -> Log:
        opened.append(Log(engine if callable(engine) else lambda: engine, **options))
        return opened[-1]

    yield start
    for one in opened:
        one.chat.close()
