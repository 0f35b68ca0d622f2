"""Terminal emulator that, unlike pyte, rewraps rows when the width changes, as common terminals do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyte
import pyte.modes
from wcwidth import wcwidth


class Emulator(pyte.HistoryScreen):
    """Screen with a scrollback that tracks which rows belong to one line, as VTE, kitty, tmux and others do.

    Wide characters that do not fit at the end of a row move down whole; characters without width join the one before.
    """

    def __init__(self, columns: int, lines: int) -> None:
        self._goes_on: set[int] = set()
        self._drawing = False
        super().__init__(columns, lines, history=100_000, ratio=0.5)

    def draw(self, data: str) -> None:
        for character in data:
            size = wcwidth(character)
            if size == 0:
                self._join(character)
                continue
            if size == 2 and self.cursor.x == self.columns - 1 and pyte.modes.DECAWM in self.mode:
                self.buffer[self.cursor.y].pop(self.cursor.x, None)  # the cell stays empty, which is not a blank
                self.cursor.x = self.columns
            self._drawing = True
            super().draw(character)
            self._drawing = False

    def linefeed(self) -> None:
        if self._drawing:
            self._goes_on.add(id(self._row(self.cursor.y)))
        super().linefeed()

    def erase_in_line(self, how: int = 0, private: bool = False) -> None:
        super().erase_in_line(how, private)
        self._goes_on.discard(id(self._row(self.cursor.y)))

    def erase_in_display(self, how: int = 0, *arguments: Any, **options: Any) -> None:
        super().erase_in_display(how, *arguments, **options)
        for y in range(self.cursor.y if how == 0 else 0, self.lines):
            self._goes_on.discard(id(self._row(y)))

    def written(self) -> Iterator[list[tuple[str, int]]]:
        """Return the written lines, joined from rows, as characters with their widths."""
        line: list[tuple[str, int]] = []
        for row in self._rows():
            line += self._characters(row)
            if id(row) not in self._goes_on:
                yield line
                line = []
        if line:
            yield line

    def resize(self, lines: int | None = None, columns: int | None = None) -> None:
        lines, columns = lines or self.lines, columns or self.columns
        if (lines, columns) == (self.lines, self.columns):
            return
        rows = self._rows()
        above = len(self.history.top) + self.cursor.y
        first = above
        while first and id(rows[first - 1]) in self._goes_on:
            first -= 1
        offset = sum(size for row in rows[first:above] for _, size in self._characters(row)) + self.cursor.x
        at = sum(id(row) not in self._goes_on for row in rows[:first])
        fresh: list[Any] = []
        cursor = (0, 0)
        written = list(self.written())
        self._goes_on.clear()
        for number, line in enumerate(written):
            begun = len(fresh)
            broken = list(_break(line, columns))
            for level, part in enumerate(broken):
                row = type(self.buffer[0])(self.default_char)
                x = 0
                for character, size in part:
                    row[x] = self.default_char._replace(data=character)
                    if size == 2:
                        row[x + 1] = self.default_char._replace(data="")
                    x += size
                fresh.append(row)
                if level < len(broken) - 1:
                    self._goes_on.add(id(row))
            if number == at:
                level, left = 0, offset
                while level < len(broken) - 1 and left >= sum(size for _, size in broken[level]):
                    left -= sum(size for _, size in broken[level])
                    level += 1
                cursor = (begun + level + left // columns, left % columns)
        while len(fresh) <= cursor[0]:
            fresh.append(type(self.buffer[0])(self.default_char))
        top = max(0, len(fresh) - lines)
        self.history.top.clear()
        self.history.top.extend(fresh[:top])
        self.buffer.clear()
        for y, row in enumerate(fresh[top:]):
            self.buffer[y] = row
        self.lines, self.columns = lines, columns
        self.set_margins()
        self.cursor.y, self.cursor.x = max(0, cursor[0] - top), cursor[1]
        self.dirty.update(range(lines))

    def _row(self, y: int) -> Any:
        """Return a row of the screen, identified by its object."""
        return self.buffer[y]

    def _rows(self) -> list[Any]:
        """Return the rows of scrollback and screen, down to the cursor or the last row that is not empty."""
        rows = [*self.history.top, *(self.buffer[y] for y in range(self.lines))]
        last = len(self.history.top) + self.cursor.y
        return rows[: max([last] + [at for at, row in enumerate(rows) if self._characters(row)]) + 1]

    def _characters(self, row: Any) -> list[tuple[str, int]]:
        """Return the characters of a row, with trailing blanks only when the line continues."""
        found = []
        x = 0
        for x in range(max(row, default=-1) + 1):
            data = row[x].data
            if data:
                found.append((data, 2 if x + 1 in row and row[x + 1].data == "" else 1))
        while found and found[-1] == (" ", 1) and id(row) not in self._goes_on:
            found.pop()
        return found

    def _join(self, character: str) -> None:
        """Append a character without width to the previous one."""
        row = self.buffer[self.cursor.y]
        x = self.cursor.x - 1
        while x > 0 and row[x].data == "":
            x -= 1
        if x >= 0:
            row[x] = row[x]._replace(data=row[x].data + character)


def _break(line: list[tuple[str, int]], columns: int) -> Iterator[list[tuple[str, int]]]:
    """The rows of a line."""
    row: list[tuple[str, int]] = []
    used = 0
    for character, size in line:
        if used + size > columns and row:
            yield row
            row, used = [], 0
        row.append((character, size))
        used += size
    yield row
