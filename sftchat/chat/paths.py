"""Paths as completions of a command's argument."""

from __future__ import annotations

import os
from collections.abc import Iterator

from sftchat.parsing import path_of

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
