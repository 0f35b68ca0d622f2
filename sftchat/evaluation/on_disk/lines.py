"""Files of a million lines: where each line begins and whose it is is in memory, what it says stays on disk until it is asked for."""

from __future__ import annotations

import errno
import os
import re
import weakref
from array import array
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Generic, TypeVar

from sftchat.data.reading import BLANKS, BOM
from sftchat.parsing import LARGEST, bounded_lines

T = TypeVar("T")


def _seek_and_read(file: BinaryIO, length: int, start: int) -> bytes:
    """Some bytes of a file, where there is no better way."""
    file.seek(start)
    return file.read(length)


def _read_at(file: BinaryIO, length: int, start: int) -> bytes:
    """Some bytes of a file; unlike seeking, not in the way of other processes that read the same open file."""
    return os.pread(file.fileno(), length, start)


_read = _read_at if hasattr(os, "pread") else _seek_and_read


class Lines:
    """The lines of a file that are not blank, each read from disk when it is asked for; processes may share it.

    Args:
        path: A file that nobody changes meanwhile.
        identity: How a line begins whose id, the first group, need not be looked for in the whole of it.
        skip: Whether to leave a line out, by its number in the file and its bytes.

    Attributes:
        ids: The id that each line begins with; empty for those that begin otherwise.

    Raises:
        OSError: When the file cannot be read.
    """

    def __init__(self, path: Path, identity: re.Pattern[bytes], skip: Callable[[int, bytes], bool] | None = None) -> None:
        self._name = str(path)
        self.ids: list[str] = []
        self._starts, self._lengths, self._numbers = array("q"), array("q"), array("q")
        self._file = path.open("rb")  # open as long as anybody may ask for a line
        weakref.finalize(self, self._file.close)
        end = 0
        for number, line, cut_off in bounded_lines(self._file):
            start, end = end, end + len(line)
            if cut_off:
                raise OSError(errno.EFBIG, f"line {number} is longer than {LARGEST >> 20} MiB")
            if number == 1 and line.startswith(BOM):
                start, line = len(BOM), line[len(BOM) :]
            if not line.strip(BLANKS) or (skip is not None and skip(number, line)):
                continue
            self._starts.append(start)
            self._lengths.append(end - start)
            self._numbers.append(number)
            found = identity.match(line)
            self.ids.append(found[1].decode(errors="replace") if found else "")

    def __len__(self) -> int:
        """How many there are."""
        return len(self._starts)

    def __getitem__(self, place: int) -> bytes:
        """One line with its end."""
        start, length = self._starts[place], self._lengths[place]
        return _read(self._file, length, start)

    def by_id(self) -> tuple[dict[str, int], int | None]:
        """Which line each id has, and the first line whose id an earlier one has; None where there is none."""
        places = dict(zip(self.ids, range(len(self.ids)), strict=True))
        if len(places) == len(self.ids):
            return places, None
        seen: set[str] = set()
        for place, identity in enumerate(self.ids):
            if identity in seen:
                return places, place
            seen.add(identity)
        return places, None

    def start(self, place: int) -> int:
        """At which byte of the file a line begins."""
        return self._starts[place]

    def number(self, place: int) -> int:
        """The number of a line in the file, from 1."""
        return self._numbers[place]

    def source(self, place: int) -> str:
        """Where a line stands, as ``file:line``."""
        return f"{self._name}:{self._numbers[place]}"


class ByLine(Mapping[str, T], Generic[T]):
    """What lines say by id, each read when it is asked for.

    Args:
        lines: Where they are.
        places: Which line an id has.
        read: Makes a value of the id, its line and the line's source.
    """

    def __init__(self, lines: Lines, places: Mapping[str, int], read: Callable[[str, bytes, str], T]) -> None:
        self.lines, self.places, self.read = lines, places, read

    def __len__(self) -> int:
        """How many there are."""
        return len(self.places)

    def __iter__(self) -> Iterator[str]:
        """The ids in the file's order."""
        return iter(self.places)

    def __contains__(self, identity: object) -> bool:
        """Whether there is a line of that id; reads nothing."""
        return identity in self.places

    def __getitem__(self, identity: str) -> T:
        """What the line of an id says."""
        place = self.places[identity]
        return self.read(identity, self.lines[place], self.lines.source(place))
