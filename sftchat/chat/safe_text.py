"""Model output made safe to show: control characters become visible symbols, text becomes whole lines, long lines become rows.

A model can write any character, escape sequences that clear the screen or set the clipboard included. Nothing of it reaches the terminal
as a command.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable

_PICTURES = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\t\n"} | {0x7F: 0x2421}
# one-byte forms of escape sequences, then the marks that reorder or hide what follows them on the line
_ESCAPED = {code: f"\\x{code:02x}" for code in range(0x80, 0xA0)} | {
    code: f"\\u{code:04x}" for code in (*range(0x2028, 0x202F), *range(0x2066, 0x206A))
}
_VISIBLE = {**_PICTURES, **_ESCAPED}


def escape_controls(text: str) -> str:
    """The text with every control character but tab and newline shown as a symbol: ``␛[2J``, ``\\x9b``."""
    return text.translate(_VISIBLE)


class Printable:
    """A stream of text made visible piece by piece; ``\\r\\n`` is a newline even when a piece ends between the two."""

    def __init__(self) -> None:
        self._held = ""

    def feed(self, text: str) -> str:
        """What of the stream can be shown now."""
        text = self._held + text
        self._held = "\r" if text.endswith("\r") else ""
        return escape_controls(text.removesuffix("\r").replace("\r\n", "\n"))

    def end(self) -> str:
        """What was held back."""
        held, self._held = self._held, ""
        return escape_controls(held)


class LineBuffer:
    """Gathers a stream of pieces into complete lines.

    Attributes:
        tail: The line that is not complete yet.
    """

    def __init__(self) -> None:
        self.tail = ""
        self._printable = Printable()

    def feed(self, text: str) -> str:
        """Take a piece and return the lines it completed, each with its newline; empty when there is none."""
        lines, newline, self.tail = (self.tail + self._printable.feed(text)).rpartition("\n")
        return lines + newline

    def end(self) -> str:
        """Return the unfinished line, with a newline when it is not empty, and be empty."""
        last, self.tail = self.tail + self._printable.end(), ""
        return last + "\n" if last else ""


def rows(text: str, columns: int, width: Callable[[str], int]) -> list[str]:
    """Break a line into the rows that a terminal breaks it into: at the margin, a wide character moving down whole.

    Args:
        text: One line.
        columns: Width of the terminal.
        width: How many cells a character takes.
    """
    found, row, used = [], "", 0
    for character in text.expandtabs(8):
        cells = width(character)
        if used + cells > columns and row:
            found.append(row)
            row, used = "", 0
        row += character
        used += cells
    return [*found, row]


def wrap(line: str, columns: int, width: Callable[[str], int]) -> list[str]:
    """Break a line of ours between words where it can be; what is written without spaces is broken anywhere.

    What follows a break stands below what the line is about: below its text, or of a table of words and explanations below the explanation.

    Args:
        line: One line.
        columns: Width of the terminal.
        width: How many cells a text takes.
    """
    explained = re.match(r"\s*\S.*?\s{2,}(?=\S)|\s*", line)
    hanging = width(explained[0]) if explained is not None else 0
    indent = " " * (hanging if hanging <= columns // 2 else min(4, columns // 4))
    found, row = [], ""
    for word in re.findall(r"\s*\S+", line):
        if row and width(row + word) > columns:
            found.append(row)
            row = indent + word.lstrip()
        else:
            row += word
    return [*found, row]


class LineWriter(io.TextIOBase):
    """A text stream for ``sys.stderr``: complete lines go to a function; of a progress bar only its last state does.

    Args:
        write_line: Called with each complete line, from whatever thread wrote it.
    """

    def __init__(self, write_line: Callable[[str], None]) -> None:
        super().__init__()
        self._write_line = write_line
        self._pending = ""

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, text: str) -> int:
        """Take text and pass on the lines that are complete."""
        *lines, self._pending = (self._pending + text).split("\n")
        for line in lines:
            if shown := line.rstrip("\r").rpartition("\r")[2].rstrip():
                self._write_line(shown)
        return len(text)
