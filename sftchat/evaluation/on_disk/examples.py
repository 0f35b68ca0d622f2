"""The examples of a gold set that is too large to be held: rows on disk, read and checked one by one."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from sftchat.data.formats import to_example
from sftchat.data.reading import BLANKS, parse_row
from sftchat.data.values import shown
from sftchat.errors import DataError
from sftchat.evaluation.evalset import check_example
from sftchat.evaluation.lazy import Lazy
from sftchat.evaluation.on_disk.lines import Lines
from sftchat.types import Example

_ID_FIRST = re.compile(rb'\{"id": ?"([^"\\\x00-\x1f]+)", ?"')
"""How the gold sets that sftchat writes begin their rows."""


class StoredExamples(Lazy[Example]):
    """Rows of a JSONL file as examples, read whenever one is asked for.

    Args:
        lines: The file.

    Attributes:
        ids: Of all of them, in the file's order.
        places: Where each id stands among them.

    Raises:
        DataError: When a row whose id cannot be told from its beginning is malformed, or two have one id.
    """

    def __init__(self, lines: Lines) -> None:
        self.lines = lines
        self.ids = lines.ids
        for place, identity in enumerate(self.ids):
            if not identity:
                self.ids[place] = self._parsed(place).id or f"row-{place + 1:06d}"
        self.places, again = lines.by_id()
        if again is not None:
            first = self.ids.index(self.ids[again])
            raise DataError(f"id {shown(self.ids[again])} is taken by {lines.source(first)}; give every row its own", lines.source(again))

    def __len__(self) -> int:
        """How many there are."""
        return len(self.ids)

    def at(self, place: int) -> Example:
        """One example.

        Raises:
            DataError: When its row is malformed or cannot be scored.
        """
        example = self._parsed(place)
        if example.id != self.ids[place]:
            example = replace(example, id=self.ids[place])
        check_example(example, example.source)
        return example

    def _parsed(self, place: int) -> Example:
        """A row, its id as it is."""
        source = self.lines.source(place)
        return to_example(parse_row(self.lines[place], source, self.lines.start(place), self.lines.number(place)), source)


def read_stored(path: Path, large: int) -> StoredExamples | None:
    """The rows of a file, left where they are; None when the file is small, or not of one row a line.

    Args:
        path: A file.
        large: Bytes from which on it is not small.

    Raises:
        DataError: When it cannot be read, or two rows have one id.
    """
    try:
        if path.stat().st_size < large:
            return None
        with path.open("rb") as file:
            if not file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip(BLANKS).startswith(b"{"):
                return None
        lines = Lines(path, _ID_FIRST)
    except OSError as error:
        raise DataError(f"cannot be read: {(error.strerror or str(error)).lower()}", str(path)) from None
    return StoredExamples(lines)
