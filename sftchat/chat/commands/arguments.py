"""Helpers of commands: parse arguments, shorten texts, complete paths."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from sftchat._util.parsing import expand_user
from sftchat.chat.context import ChatContext
from sftchat.errors import UsageError


def whole_number(argument: str, name: str, default: int | None = None, minimum: int = 1) -> int:
    """Parse an integer argument.

    Args:
        argument: The argument as typed.
        name: Name of the argument in error messages.
        default: Value of an empty argument; without a default, an empty argument is an error.
        minimum: Smallest valid value.

    Raises:
        UsageError: When it is not an integer, or less than ``minimum``.
    """
    typed = argument.strip()
    if not typed and default is not None:
        return default
    if not typed.isdecimal() or int(typed) < minimum:
        problem = f"{name} is '{typed}'" if typed else f"{name} is missing"
        raise UsageError(f"{problem}, must be a whole number from {minimum} on")
    return int(typed)


def shorten(text: str, max_length: int = 40) -> str:
    """Return the beginning of a text, on one line."""
    line = " ".join(text.split())
    return line if len(line) <= max_length else line[: max_length - 1] + "…"


def complete_path_argument(context: ChatContext, argument: str) -> Iterable[str]:
    """Return path completions."""
    return complete_path(argument)


def why_no_reply(context: ChatContext) -> str:
    """Return why a command about the last reply is unavailable; empty when it is available."""
    return "" if context.conversation.turns else "there is no reply yet"


def why_no_message(context: ChatContext) -> str:
    """Return why a command about the last message is unavailable; empty when it is available."""
    return "" if context.conversation.head else "nothing was asked yet"


MAX_PATH_COMPLETIONS = 200
"""Maximum number of paths offered as completions."""


def complete_path(typed: str) -> Iterator[str]:
    """Return completions of a path: folders end in a slash, ``~`` stays as typed, hidden files only after a dot."""
    folder, slash, name = typed.rpartition("/")
    folder += slash
    try:
        entries = sorted(os.scandir(expand_user(folder or ".")), key=lambda entry: entry.name)
    except (OSError, RuntimeError, ValueError):  # missing, not readable, unknown home directory, or an invalid path
        return
    matches = [entry for entry in entries if entry.name.startswith(name) and (name.startswith(".") or not entry.name.startswith("."))]
    for entry in matches[:MAX_PATH_COMPLETIONS]:
        yield f"{folder}{entry.name}{'/' if _is_folder(entry) else ''}"


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder or a link to one; False when it cannot be read."""
    try:
        return entry.is_dir()
    except OSError:
        return False
