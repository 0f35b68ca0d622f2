"""Replies and baselines of a million items: the ids are in memory, what was said stays on disk until it is asked for."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from sftchat.errors import DataError
from sftchat.evaluation.baseline import Baseline, StoredItem, check_size, parse_header, parse_item
from sftchat.evaluation.on_disk.lines import ByLine, Lines
from sftchat.evaluation.replies import HEADER, parse_reply
from sftchat.evaluation.tools import another_filter
from sftchat.types import Reply

T = TypeVar("T")

_ID_FIRST = re.compile(rb'\{"id": ?"([^"\\\x00-\x1f]+)", ?"reply": ?"')
"""How the replies that sftchat writes begin; other programs have an ``id`` that means something else."""


def stored_replies(path: Path) -> Mapping[str, Reply | str]:
    """The replies of a file, as ``read_replies`` has them; a malformed one is noticed when it is asked for.

    Raises:
        DataError: When the file cannot be read or is empty, or an id occurs twice.
    """

    def is_header(number: int, line: bytes) -> bool:
        return number == 1 and _decoded(line, f"{path}:1").startswith(f'{{"{HEADER}"')

    replies = _by_line(path, is_header, _reply, "has two replies")
    if not replies:
        raise DataError("the file has no replies", str(path))
    return replies


def stored_baseline(path: Path) -> tuple[Baseline, Mapping[str, Reply | str]]:
    """A baseline, as ``read_baseline`` has it, and its replies alone.

    Raises:
        DataError: When it cannot be read, its header is malformed, an id stands twice, or it lacks items that its header counts.
        NotComparableError: When another version wrote it.
    """
    items = _by_line(path, lambda number, line: number == 1, _item, "stands twice")
    with path.open("rb") as file:
        header = parse_header(_decoded(file.readline(), f"{path}:1").removeprefix("\ufeff"), path)
    check_size(path, header, len(items))
    return Baseline(path, header, items), ByLine(items.lines, items.places, _reply)


def _by_line(path: Path, skip: Callable[[int, bytes], bool], read: Callable[[str, bytes, str], T], twice: str) -> ByLine[T]:
    """Rows of replies by id.

    Args:
        path: The file.
        skip: Whether a line, by its number and bytes, is no reply.
        read: Makes a value of an id, the line that has it, and where it stands.
        twice: What is wrong with an id that has two lines.
    """
    try:
        lines = Lines(path, _ID_FIRST, skip)
    except OSError as error:
        raise DataError(f"cannot read replies: {error.strerror or error}", str(path)) from error
    for place, identity in enumerate(lines.ids):
        if not identity:
            source = lines.source(place)
            lines.ids[place] = parse_reply(_decoded(lines[place], source), source)[0]
    places, again = lines.by_id()
    if again is not None:
        places = _one_of_each(lines, twice)
    lines.ids = []  # the keys are the same
    return ByLine(lines, places, read)


def _one_of_each(lines: Lines, twice: str) -> dict[str, int]:
    """The first line of each id, where all others are the same sample of lm-evaluation-harness under other filters.

    Raises:
        DataError: When they are not.
    """
    places: dict[str, int] = {}
    for place, identity in enumerate(lines.ids):
        first = places.setdefault(identity, place)
        if first == place:
            continue
        rows = [parse_reply(_decoded(lines[one], lines.source(one)), lines.source(one))[2] for one in (first, place)]
        if not another_filter(*rows):
            raise DataError(f"id '{identity}' {twice}", lines.source(place))
    return places


def _reply(identity: str, line: bytes, source: str) -> Reply | str:
    """The reply of a line."""
    return parse_reply(_decoded(line, source), source)[1]


def _item(identity: str, line: bytes, source: str) -> StoredItem:
    """The item of a line of a baseline."""
    return parse_item(_decoded(line, source), source)[1]


def _decoded(line: bytes, source: str) -> str:
    """A line as text."""
    try:
        return line.rstrip(b"\r\n").decode()
    except UnicodeDecodeError as error:
        raise DataError(f"cannot read replies: {error}", source) from error
