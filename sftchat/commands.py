"""What a chat command is: ``/name``, what it does, and what it may touch. Built-in commands are objects like those of plugins."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from sftchat.types import SamplingParams

if TYPE_CHECKING:
    from sftchat.chat.conversation import Conversation
    from sftchat.engines.base import Engine

_NAME = re.compile(r"[a-z][a-z0-9_-]*")


class ChatContext(Protocol):
    """What a command may see and do; all of it on the thread that runs the command.

    Attributes:
        conversation: What was said; assign a new one to change it.
        sampling: How the next reply is generated; assign a new one to change it.
    """

    conversation: Conversation
    sampling: SamplingParams

    @property
    def engine(self) -> Engine | None:
        """The loaded model; None while it loads, which only commands with ``while_generating`` can meet."""

    @property
    def commands(self) -> Mapping[str, ChatCommand]:
        """Every command by name."""

    def say(self, text: str) -> None:
        """Show lines to the user; the model does not see them."""

    def send(self, message: str) -> None:
        """Send a message to the model as if the user had typed it."""

    def exit(self) -> None:
        """Leave the chat."""


def no_completions(context: ChatContext, argument: str) -> Iterable[str]:
    """The completions of a command whose argument is free text."""
    return ()


@dataclass(frozen=True)
class ChatCommand:
    """A command of the chat.

    Attributes:
        name: What is typed after the slash: lower-case letters, digits, ``-`` and ``_``.
        summary: One line for ``/help``.
        run: Called with the context and the rest of the line. A ``UsageError`` becomes one line to the user; so does any other error.
        usage: The arguments as shown by ``/help``: ``[TEXT]``.
        complete: Words that could stand where the argument is; the chat keeps those that begin with what is typed.
        while_generating: It may run while the model loads or replies; otherwise it waits for its turn, as messages do.
    """

    name: str
    summary: str
    run: Callable[[ChatContext, str], None]
    usage: str = ""
    complete: Callable[[ChatContext, str], Iterable[str]] = no_completions
    while_generating: bool = False

    def __post_init__(self) -> None:
        """Refuse a name that could not be typed."""
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"command name '{self.name}' must be lower-case letters, digits, '-' and '_', starting with a letter")
