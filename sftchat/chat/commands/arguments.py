"""How commands read their arguments and show texts."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from sftchat._util.parsing import path_of
from sftchat.chat.context import ChatContext
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


MOST = 200
"""No more paths than this are offered at a time."""


def complete_path(typed: str, suffixes: tuple[str, ...] = (), folders_only: bool = False) -> Iterator[str]:
    """Paths that begin with what is typed, folders with a slash at their end, ``~`` kept as typed; hidden ones only when asked for by a dot.

    Args:
        typed: The argument so far.
        suffixes: Kinds of files to offer, such as ``(".json", ".jsonl")``; empty for all. Folders are always offered.
        folders_only: Offer no files.
    """
    name = typed.rpartition("/")[2]
    before = typed[: len(typed) - len(name)]
    try:
        entries = sorted(os.scandir(path_of(before or ".")), key=lambda entry: entry.name)
    except (OSError, RuntimeError, ValueError):  # not there, not ours, a home nobody has, or no path at all
        return
    found = 0
    for entry in entries:
        if not entry.name.startswith(name) or (entry.name.startswith(".") and not name.startswith(".")):
            continue
        folder = _is_folder(entry)
        if not folder and (folders_only or (suffixes and not entry.name.endswith(suffixes))):
            continue
        found += 1
        if found > MOST:
            return
        yield f"{before}{entry.name}{'/' if folder else ''}"


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder, or a link to one; of what cannot be looked at, no."""
    try:
        return entry.is_dir()
    except OSError:
        return False
