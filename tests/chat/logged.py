"""View that records all calls, with a chat behind it, for tests without a terminal."""

from __future__ import annotations

import queue
from collections.abc import Callable
from typing import Any

from sftchat.chat.command_line import Commands
from sftchat.chat.commands import BUILTINS
from sftchat.chat.context import Fragments
from sftchat.chat.controller import ChatController
from sftchat.chat.conversation import Conversation, Mark
from sftchat.chat.pane import Opening
from sftchat.chat.settings import Settings
from sftchat.types import SamplingParams


class Log:
    """View that records all calls."""

    def __init__(self, load: Callable[[], Any], **options: Any) -> None:
        self.log: list[str] = []
        self.problem: Exception | None = None
        self._actions: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        commands = Commands((*BUILTINS, *options.pop("more", ())))
        conversation = Conversation(options.pop("system", ""))
        settings = Settings(options.pop("sampling", SamplingParams()))
        openings = options.pop("openings", None) or [Opening(load, ("scripted",))]
        self.talk = ChatController(openings, self, commands=commands, conversation=conversation, settings=settings, **options)
        self.talk.start()

    def until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            self._actions.get(timeout=60)()

    def ready(self) -> list[str]:
        """Run pending work; returns the calls recorded since the last time."""
        self.until(lambda: self.talk.settled)
        log, self.log = self.log, []
        return log

    def type(self, *lines: str) -> list[str]:
        """Type lines, each when the chat is ready; returns the calls recorded meanwhile, without the lines."""
        found: list[str] = []
        for line in lines:
            self.ready()
            self.talk.submit(line)
            found += [said for said in self.ready() if not said.startswith("> ")]
        return found

    def post(self, action: Callable[[], None]) -> None:
        self._actions.put(action)

    def show_typed(self, text: str) -> None:
        self.log.append(f"> {text}")

    def begin_reply(self, column: int, said: str) -> None:
        pass

    def show_thoughts(self, text: str, column: int) -> None:
        self.log.append(f"thoughts: {text}" if column == 0 else f"{column}: thoughts: {text}")

    def show_piece(self, text: str, column: int) -> None:
        self.log.append(text if column == 0 else f"{column}: {text}")

    def show_late_thoughts(self, column: int) -> None:
        self.log.append("late thoughts" if column == 0 else f"{column}: late thoughts")

    def end_reply(self, column: int) -> None:
        self.log.append("|" if column == 0 else f"{column}: |")

    def show_mark(self, mark: Mark, column: int) -> None:
        self.log.append(f"mark: {mark.text}")

    def say(self, text: str | Fragments) -> None:
        self.log.append("note: " + (text if isinstance(text, str) else "".join(piece for _, piece in text)))

    def propose(self, text: str) -> bool:
        self.log.append(f"proposed: {text}")
        return True

    def complain(self, text: str) -> None:
        self.log.append(f"error: {text}")

    def leave(self, error: Exception | None) -> None:
        self.log.append("left")
        self.problem = error
