"""How commands read their arguments and show texts."""

from __future__ import annotations

from collections.abc import Iterable

from sftchat.chat.paths import complete_path
from sftchat.commands import ChatContext
from sftchat.errors import UsageError


def whole_number(argument: str, name: str, default: int | None = None, least: int = 1) -> int:
    """A number that was typed.

    Args:
        argument: What was typed.
        name: What the usage calls it.
        default: For an empty argument; without one it is refused.
        least: The smallest that is allowed.

    Raises:
        UsageError: When it is none, or too small.
    """
    typed = argument.strip()
    if not typed and default is not None:
        return default
    if not typed.isdecimal() or int(typed) < least:
        said = f"{name} is '{typed}'" if typed else f"{name} is missing"
        raise UsageError(f"{said}, must be a whole number from {least} on")
    return int(typed)


def shortened(text: str, most: int = 40) -> str:
    """The beginning of a text in one line."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"


def paths(context: ChatContext, argument: str) -> Iterable[str]:
    """Completions of a path."""
    return complete_path(argument)


def no_reply(context: ChatContext) -> str:
    """Why a command about the last reply makes no sense."""
    return "" if context.conversation.turns else "there is no reply yet"
