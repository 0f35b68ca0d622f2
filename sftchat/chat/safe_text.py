"""Safe display of model output: escape control characters, split text into lines, wrap lines into rows.

A model can generate any character, including control characters that clear the screen or set the clipboard.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable

_VISIBLE: dict[int, int | str] = {
    **{code: 0x2400 + code for code in range(0x20) if chr(code) not in "\t\n"},  # ASCII control characters: their Unicode pictures
    0x7F: 0x2421,
    **{code: f"\\x{code:02x}" for code in range(0x80, 0xA0)},  # C1 control characters: escape sequences of one byte
    # line separators and bidirectional formatting characters
    **{code: f"\\u{code:04x}" for code in (*range(0x2028, 0x202F), *range(0x2066, 0x206A))},
}


def escape_controls(text: str) -> str:
    """Replace each control character, except tab and newline, with a visible symbol: ``␛[2J``, ``\\x9b``."""
    return text.translate(_VISIBLE)


class ControlEscaper:
    """Escapes control characters of a stream; ``\\r\\n`` is a newline even when it is split between two pieces."""

    def __init__(self) -> None:
        self._pending = ""

    def feed(self, text: str) -> str:
        """Return the text that can be shown now."""
        text = self._pending + text
        self._pending = "\r" if text.endswith("\r") else ""
        return escape_controls(text.removesuffix("\r").replace("\r\n", "\n"))

    def end(self) -> str:
        """Return the text that ``feed`` held back: a carriage return, or nothing."""
        pending, self._pending = self._pending, ""
        return escape_controls(pending)


class LineBuffer:
    """Splits a stream of pieces into complete lines.

    Attributes:
        tail: The unfinished line.
    """

    def __init__(self) -> None:
        self.tail = ""
        self._escaper = ControlEscaper()

    def feed(self, text: str) -> str:
        """Add a piece and return the lines it completes, with their newlines; may be empty."""
        lines, newline, self.tail = (self.tail + self._escaper.feed(text)).rpartition("\n")
        return lines + newline

    def end(self) -> str:
        """Return the unfinished line, with a newline unless it is empty, and clear the buffer."""
        last, self.tail = self.tail + self._escaper.end(), ""
        return last + "\n" if last else ""


def break_at_margin(text: str, columns: int, width: Callable[[str], int]) -> list[str]:
    """Break a line into rows as a terminal does: wherever the margin is, without splitting wide characters.

    Args:
        text: One line.
        columns: Width of the terminal.
        width: Returns the width of a character in cells.
    """
    rows, row, used = [], "", 0
    for character in text.expandtabs(8):
        size = width(character)
        if used + size > columns and row:
            rows.append(row)
            row, used = "", 0
        row += character
        used += size
    return [*rows, row]


def wrap_words(line: str, columns: int, width: Callable[[str], int]) -> list[str]:
    """Wrap a line of a note between words; a single word may be wider than the terminal.

    Continuation rows are indented as the line is. In a line of two columns, such as a command and its summary, they are indented to the
    second column.

    Args:
        line: One line.
        columns: Width of the terminal.
        width: Returns the width of a text in cells.
    """
    before_text = re.match(r"\s*\S.*?\s{2,}(?=\S)|\s*", line)  # a first column and at least two spaces; otherwise the leading spaces
    text_start = width(before_text[0]) if before_text is not None else 0
    indent = " " * (text_start if text_start <= columns // 2 else min(4, columns // 4))
    rows, row = [], ""
    for word in re.findall(r"\s*\S+", line):
        if row and width(row + word) > columns:
            rows.append(row)
            row = indent + word.lstrip()
        else:
            row += word
    return [*rows, row]


class LineWriter(io.TextIOBase):
    """Text stream that passes each complete line to a function; of a line overwritten with carriage returns, its last state.

    Args:
        write_line: Called with each complete line, on the thread that wrote it.
    """

    def __init__(self, write_line: Callable[[str], None]) -> None:
        super().__init__()
        self._write_line = write_line
        self._pending = ""

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, text: str) -> int:
        """Write text and pass on the complete lines."""
        *lines, self._pending = (self._pending + text).split("\n")
        for line in lines:
            last_state = line.rstrip("\r").rpartition("\r")[2].rstrip()
            if last_state:
                self._write_line(last_state)
        return len(text)
