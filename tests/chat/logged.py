"""View that records all calls, with a chat behind it, for tests without a terminal."""

from __future__ import annotations

import queue
from collections.abc import Callable
from typing import Any

from sftchat.chat.commands import BUILTINS, Commands
from sftchat.chat.context import Fragments, Settings
from sftchat.chat.controller import ChatController
from sftchat.chat.conversation import Conversation
from sftchat.chat.pane import Opening
from sftchat.task import ReplyScore
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
        self.chat = ChatController(openings, self, commands=commands, conversation=conversation, settings=settings, **options)
        self.chat.start()

    def until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            self._actions.get(timeout=60)()

    def ready(self) -> list[str]:
        """Run pending work; returns the calls recorded since the last time."""
        self.until(lambda: self.chat.settled)
        log, self.log = self.log, []
        return log

    def type(self, *lines: str) -> list[str]:
        """Type lines, each when the chat is ready; returns the calls recorded meanwhile, without the lines."""
        found: list[str] = []
        for line in lines:
            self.ready()
            self.chat.submit(line)
            found += [said for said in self.ready() if not said.startswith("> ")]
        return found

    def post(self, action: Callable[[], None]) -> None:
        self._actions.put(action)

    def show_typed(self, text: str) -> None:
        self.log.append(f"> {text}")

    def begin_reply(self, pane: int, text: str) -> None:
        pass

    def show_thoughts(self, text: str, pane: int) -> None:
        self.log.append(f"thoughts: {text}" if pane == 0 else f"{pane}: thoughts: {text}")

    def show_piece(self, text: str, pane: int) -> None:
        self.log.append(text if pane == 0 else f"{pane}: {text}")

    def text_was_thoughts(self, pane: int, more_thoughts: str) -> None:
        self.log.append(f"late thoughts{more_thoughts}" if pane == 0 else f"{pane}: late thoughts{more_thoughts}")

    def end_reply(self, pane: int) -> None:
        self.log.append("|" if pane == 0 else f"{pane}: |")

    def show_score(self, score: ReplyScore, pane: int) -> None:
        self.log.append(f"mark: {score.text}")

    def info(self, text: str | Fragments) -> None:
        self.log.append("note: " + (text if isinstance(text, str) else "".join(piece for _, piece in text)))

    def prefill_input(self, text: str) -> bool:
        self.log.append(f"proposed: {text}")
        return True

    def error(self, text: str) -> None:
        self.log.append(f"error: {text}")

    def leave(self, error: Exception | None) -> None:
        self.log.append("left")
        self.problem = error
