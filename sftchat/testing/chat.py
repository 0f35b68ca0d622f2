"""A chat for tests: lines go in as somebody types them, and what each of them shows comes out."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sftchat.chat import commands as builtin
from sftchat.chat.command_line import Commands
from sftchat.chat.controller import ChatController
from sftchat.chat.pane import Opening
from sftchat.chat.rows import Rows
from sftchat.chat.scorer import GoldScorer
from sftchat.chat.services import ChatServices
from sftchat.chat.settings import Settings
from sftchat.chat.ui.plain import Plain
from sftchat.engine import Engine
from sftchat.task import Task
from sftchat.testing.registry import plugin_manager_with


@dataclass(frozen=True)
class Shown:
    """What a chat showed after a line.

    Attributes:
        line: What was typed.
        replies: What the model said, each reply with a line break at its end.
        notes: Everything else: what commands print, marks, and errors, which begin with ``sftchat: error:``.
    """

    line: str
    replies: str = ""
    notes: str = ""


class _Typed(io.StringIO):
    """An input that is read line by line, and notes at every reading what was shown since the one before."""

    def __init__(self, lines: Sequence[str], replies: io.StringIO, notes: io.StringIO) -> None:
        super().__init__("".join(f"{line}\n" for line in lines))
        self.shown: list[tuple[str, str]] = []
        self._outputs = (replies, notes)

    def readline(self, size: int | None = -1, /) -> str:  # type: ignore[override]  # typeshed's base class reads bytes
        """The next line, once all that the one before it caused is over."""
        self.take()
        return super().readline(-1 if size is None else size)

    def take(self) -> None:
        """Note what was shown, and be ready for more."""
        self.shown.append((self._outputs[0].getvalue(), self._outputs[1].getvalue()))
        for output in self._outputs:
            output.seek(0)
            output.truncate()


def chat_with(engine: Engine, lines: Sequence[str], *plugins: Any, task: Task | None = None, rows: Path | None = None) -> list[Shown]:
    """Type lines into a chat with an engine, one after the other, each when the one before is done with, and say what each of them showed.

    It is the chat that ``sftchat chat`` holds with a pipe: the same talk, commands and messages, without a terminal, a session on disk or other
    plugins than those given and the built-in one.

        shown = chat_with(ScriptedEngine(["SEA", "KINDLY: SEA"]), ["sea", "/again kindly"], my_plugin)
        assert shown[1] == Shown("/again kindly", replies="KINDLY: SEA\\n")

    Args:
        engine: What answers, such as a ``ScriptedEngine``.
        lines: Messages and commands; none holds a line break. After a line that leaves the chat nothing is typed.
        plugins: Modules or objects with functions marked ``@hookimpl``, for their chat commands.
        task: Marks the replies, and says how they are sampled.
        rows: Folder in which ``/good`` and its like write rows; None where they are refused.

    Raises:
        PluginError: When a plugin breaks the rules.
    """
    replies, notes = io.StringIO(), io.StringIO()
    typed = _Typed(lines, replies, notes)
    desk = ChatServices(judge=GoldScorer(task) if task is not None else None, rows=Rows(rows))
    settings = Settings(task.sampling) if task is not None else Settings()
    opening, commands = opening_of(engine), commands_of(*plugins)
    view = Plain(
        lambda shows: ChatController([opening], shows, commands=commands, desk=desk, settings=settings),
        stdin=typed,
        stdout=replies,
        stderr=notes,
    )
    view.run()
    typed.take()
    return [Shown(line, *shown) for line, shown in zip(lines, typed.shown[1:], strict=False)]


def opening_of(engine: Engine) -> Opening:
    """An engine as a talk opens it."""
    return Opening(lambda: engine, (str(getattr(engine, "name", "")) or "model",))


def commands_of(*plugins: Any) -> Commands:
    """The chat commands that are built in, and those of plugins.

    Raises:
        PluginError: When a plugin breaks the rules.
    """
    return Commands(tuple(plugin_manager_with(builtin, *plugins).commands.values()))
