"""Chat for tests: takes typed lines and returns the output of each."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sftchat.chat import commands as builtin
from sftchat.chat.commands import Commands
from sftchat.chat.context import Settings
from sftchat.chat.controller import ChatController, ChatServices
from sftchat.chat.pane import Opening
from sftchat.chat.rows import Rows
from sftchat.chat.scorer import GoldScorer
from sftchat.chat.ui.plain import Plain
from sftchat.engine import Engine
from sftchat.task import Task
from sftchat.testing.registry import plugin_manager_with


@dataclass(frozen=True)
class Shown:
    """Output of a chat after one line.

    Attributes:
        line: The typed line.
        replies: The model's replies, each with a line break at its end.
        notes: Other output: of commands, scores, and errors, which start with ``sftchat: error:``.
    """

    line: str
    replies: str = ""
    notes: str = ""


class _Typed(io.StringIO):
    """Input stream that records, at each read, the output since the previous one."""

    def __init__(self, lines: Sequence[str], replies: io.StringIO, notes: io.StringIO) -> None:
        super().__init__("".join(f"{line}\n" for line in lines))
        self.shown: list[tuple[str, str]] = []
        self._outputs = (replies, notes)

    def readline(self, size: int | None = -1, /) -> str:  # type: ignore[override]  # typeshed's base class reads bytes
        """Return the next line, after the previous one is fully processed."""
        self.take()
        return super().readline(-1 if size is None else size)

    def take(self) -> None:
        """Record the output and reset the buffers."""
        self.shown.append((self._outputs[0].getvalue(), self._outputs[1].getvalue()))
        for output in self._outputs:
            output.seek(0)
            output.truncate()


def chat_with(engine: Engine, lines: Sequence[str], *plugins: Any, task: Task | None = None, rows: Path | None = None) -> list[Shown]:
    """Type lines into a chat with an engine, each after the previous one is fully processed, and return the output of each.

    The chat is the one that ``sftchat chat`` runs on a pipe, with the same controller, commands and messages, but without a session on disk,
    and with no plugins other than the given and built-in ones.

        shown = chat_with(ScriptedEngine(["SEA", "KINDLY: SEA"]), ["sea", "/again kindly"], my_plugin)
        assert shown[1] == Shown("/again kindly", replies="KINDLY: SEA\\n")

    Args:
        engine: The engine, such as a ``ScriptedEngine``.
        lines: Messages and commands without line breaks. Lines after one that leaves the chat are not typed.
        plugins: Modules or objects with functions marked ``@hookimpl``, for their chat commands.
        task: Task that scores the replies and gives the sampling parameters.
        rows: Folder for the rows of ``/good`` and similar commands; None when these are refused.

    Raises:
        PluginError: When a plugin is invalid.
    """
    replies, notes = io.StringIO(), io.StringIO()
    typed = _Typed(lines, replies, notes)
    services = ChatServices(scorer=GoldScorer(task) if task is not None else None, rows=Rows(rows))
    settings = Settings(task.sampling) if task is not None else Settings()
    opening, commands = opening_of(engine), commands_of(*plugins)
    view = Plain(
        lambda shows: ChatController([opening], shows, commands=commands, services=services, settings=settings),
        stdin=typed,
        stdout=replies,
        stderr=notes,
    )
    view.run()
    typed.take()
    return [Shown(line, *shown) for line, shown in zip(lines, typed.shown[1:], strict=False)]


def opening_of(engine: Engine) -> Opening:
    """Return an ``Opening`` for an engine."""
    return Opening(lambda: engine, (str(getattr(engine, "name", "")) or "model",))


def commands_of(*plugins: Any) -> Commands:
    """Return the built-in chat commands and those of plugins.

    Raises:
        PluginError: When a plugin is invalid.
    """
    return Commands(tuple(plugin_manager_with(builtin, *plugins).commands.values()))
