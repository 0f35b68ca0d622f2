"""Helpers of commands: parse arguments, shorten texts, complete paths."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from sftchat._util.parsing import expand_user
from sftchat.chat.context import ChatContext
from sftchat.errors import UsageError


def whole_number(argument: str, name: str, default: int | None = None, least: int = 1) -> int:
    """Parse an integer argument.

    Args:
        argument: The argument as typed.
        name: Name of the argument in error messages.
        default: Value of an empty argument; without a default, an empty argument is an error.
        least: Minimum.

    Raises:
        UsageError: When it is not an integer, or less than ``least``.
    """
    typed = argument.strip()
    if not typed and default is not None:
        return default
    if not typed.isdecimal() or int(typed) < least:
        said = f"{name} is '{typed}'" if typed else f"{name} is missing"
        raise UsageError(f"{said}, must be a whole number from {least} on")
    return int(typed)


def shorten(text: str, most: int = 40) -> str:
    """Return the beginning of a text, on one line."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"


def path_completions(context: ChatContext, argument: str) -> Iterable[str]:
    """Return path completions."""
    return complete_path(argument)


def why_no_reply(context: ChatContext) -> str:
    """Return why a command about the last reply is unavailable."""
    return "" if context.conversation.turns else "there is no reply yet"


def why_no_message(context: ChatContext) -> str:
    """Return why a command about the last message is unavailable."""
    return "" if context.conversation.head else "nothing was asked yet"


MAX_PATH_COMPLETIONS = 200
"""Maximum number of paths offered as completions."""


def complete_path(typed: str, suffixes: tuple[str, ...] = (), folders_only: bool = False) -> Iterator[str]:
    """Return completions of a path: folders end in a slash, ``~`` stays as typed, hidden files only after a dot.

    Args:
        typed: The argument so far.
        suffixes: File suffixes to include, such as ``(".json", ".jsonl")``; empty for all. Folders are always included.
        folders_only: Leave out files.
    """
    name = typed.rpartition("/")[2]
    before = typed[: len(typed) - len(name)]
    try:
        entries = sorted(os.scandir(expand_user(before or ".")), key=lambda entry: entry.name)
    except (OSError, RuntimeError, ValueError):  # missing, not readable, unknown home directory, or an invalid path
        return
    offered = 0
    for entry in entries:
        if not entry.name.startswith(name) or (entry.name.startswith(".") and not name.startswith(".")):
            continue
        folder = _is_folder(entry)
        if not folder and (folders_only or (suffixes and not entry.name.endswith(suffixes))):
            continue
        offered += 1
        if offered > MAX_PATH_COMPLETIONS:
            return
        yield f"{before}{entry.name}{'/' if folder else ''}"


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or a link to one; False when it cannot be read."""
    try:
        return entry.is_dir()
    except OSError:
        return False
