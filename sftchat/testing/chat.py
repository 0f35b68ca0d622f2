"""Chat for tests: types lines and returns the output after each."""

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
        notes: All other output: scores, output of commands, and errors, which start with ``sftchat: error:``.
    """

    line: str
    replies: str = ""
    notes: str = ""


class _RecordingInput(io.StringIO):
    """Input stream that records, at each read, what the chat has written since the previous read."""

    def __init__(self, lines: Sequence[str], replies: io.StringIO, notes: io.StringIO) -> None:
        super().__init__("".join(f"{line}\n" for line in lines))
        self.outputs: list[tuple[str, str]] = []
        self._streams = (replies, notes)

    def readline(self, size: int | None = -1, /) -> str:  # type: ignore[override]  # typeshed's base class reads bytes
        """Record the output for the previous line, and return the next one; the chat reads it only when the previous one is fully processed."""
        self.record_output()
        return super().readline(-1 if size is None else size)

    def record_output(self) -> None:
        """Record the output and reset the buffers."""
        self.outputs.append((self._streams[0].getvalue(), self._streams[1].getvalue()))
        for output in self._streams:
            output.seek(0)
            output.truncate()


def chat_with(engine: Engine, lines: Sequence[str], *plugins: Any, task: Task | None = None, rows: Path | None = None) -> list[Shown]:
    """Type lines into a chat with an engine, each after the previous one is fully processed, and return the output after each.

    The chat is that of ``sftchat chat`` on a pipe, but without a session on disk, and with the commands of the given plugins and the built-in ones
    only.

        shown = chat_with(ScriptedEngine(["SEA", "KINDLY: SEA"]), ["sea", "/again kindly"], my_plugin)
        assert shown[1] == Shown("/again kindly", replies="KINDLY: SEA\\n")

    Args:
        engine: The engine, such as a ``ScriptedEngine``.
        lines: Messages and commands without line breaks. Lines after one that leaves the chat are not typed.
        plugins: Modules or objects with functions marked ``@hookimpl`` that register chat commands.
        task: Task that scores the replies and gives the sampling parameters.
        rows: Folder for the rows of ``/good`` and similar commands; None to refuse these commands.

    Raises:
        PluginError: When a plugin is invalid.
    """
    replies, notes = io.StringIO(), io.StringIO()
    stdin = _RecordingInput(lines, replies, notes)
    services = ChatServices(scorer=GoldScorer(task) if task is not None else None, rows=Rows(rows))
    settings = Settings(task.sampling) if task is not None else Settings()
    opening, commands = opening_of(engine), commands_of(*plugins)
    view = Plain(
        lambda shows: ChatController([opening], shows, commands=commands, services=services, settings=settings),
        stdin=stdin,
        stdout=replies,
        stderr=notes,
    )
    view.run()
    stdin.record_output()
    return [Shown(line, *shown) for line, shown in zip(lines, stdin.outputs[1:], strict=False)]


def opening_of(engine: Engine) -> Opening:
    """Return the ``Opening`` of an engine, as if its model were opened."""
    return Opening(lambda: engine, (str(getattr(engine, "name", "")) or "model",))


def commands_of(*plugins: Any) -> Commands:
    """Return the built-in chat commands and those of plugins.

    Raises:
        PluginError: When a plugin is invalid.
    """
    return Commands(tuple(plugin_manager_with(builtin, *plugins).commands.values()))
