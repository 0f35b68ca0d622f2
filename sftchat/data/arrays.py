"""Incremental parser of a JSON array: yields its elements with their line numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from json import JSONDecodeError, JSONDecoder
from typing import Any

from sftchat._util.parsing import MAX_BYTES

BLANK = re.compile(r"[ \t\n\r]*")
FORGET = 1 << 20
"""Minimum number of parsed characters to drop at once."""
LONGEST_WORD = 12
"""Length of the longest JSON token that is malformed when truncated: a surrogate pair of two escapes."""


class Refused(Exception):
    """Invalid input; converted to a DataError where the file name is known.

    Args:
        message: The error.
        line: Its line, if it is not the current one.
    """

    def __init__(self, message: str, line: int = 0) -> None:
        super().__init__(message)
        self.line = line


def reason(error: JSONDecodeError) -> str:
    """Return the parser's message in lower case."""
    return error.msg[:1].lower() + error.msg[1:]


class _Window:
    """Sliding window over a text: reads more at its end and drops what was parsed.

    Args:
        pieces: The text.
        first_line: Line number of its start.
    """

    def __init__(self, pieces: Iterable[str], first_line: int) -> None:
        self.text = ""
        self._pieces = iter(pieces)
        self._line, self._counted = first_line, 0
        self._before = 0  # characters of the current line that were dropped

    def more(self) -> bool:
        """Read more text; False at the end."""
        piece = next(self._pieces, None)
        self.text += piece or ""
        return piece is not None

    def skip(self, at: int) -> int:
        """Return the position of the next non-blank character."""
        while True:
            match = BLANK.match(self.text, at)
            at = self.forget(match.end() if match else at)
            if at < len(self.text) or not self.more():
                return at

    def element(self, decoder: JSONDecoder, at: int) -> tuple[Any, int]:
        """Parse a value, reading more while it may be incomplete; return it and its end position.

        Raises:
            JSONDecodeError: When it is malformed.
            Refused: When its end is not found within the limit.
        """
        while True:
            if len(self.text) - at > MAX_BYTES:
                raise Refused(f"an element of the array is longer than {MAX_BYTES >> 20} MiB; the rest was not read")
            try:
                value, end = decoder.raw_decode(self.text, at)
            except JSONDecodeError as error:
                # an unterminated string is reported at its start; other truncated values close to the end of the text
                cut = error.msg.startswith("Unterminated") or error.pos >= len(self.text) - LONGEST_WORD
                if not cut or not self.more():
                    raise
                continue
            rest = self.text[end : end + len("e+0")]
            whole = rest and (rest[0] not in ".eE" or len(rest) == len("e+0"))
            if whole or not self.more():  # a number may continue, also after "." or "e"
                return value, end

    def forget(self, at: int) -> int:
        """Drop the text before a position when there is enough of it; return the new position."""
        if at < FORGET:
            return at
        self.line(at)
        self._before = self.column(at) - 1
        self.text, self._counted = self.text[at:], 0
        return 0

    def line(self, position: int) -> int:
        """Return the line of a position; positions must not decrease between calls."""
        self._line += self.text.count("\n", self._counted, position)
        self._counted = position
        return self._line

    def column(self, position: int) -> int:
        """Return the column of a position, from 1."""
        newline = self.text.rfind("\n", 0, position)
        return position - newline if newline >= 0 else self._before + position + 1


def array_rows(pieces: Iterable[str], decoder: JSONDecoder, first_line: int = 1) -> Iterator[tuple[int, int, Any, str]]:
    """Yield line, column, value and source text of each element, in bounded memory.

    Args:
        pieces: A JSON array in pieces of any size; blanks around it are allowed.
        decoder: Parses one element; may raise ``Refused``.
        first_line: Line number of the start of the text.

    Raises:
        Refused: When the text is not a valid array; earlier elements have been yielded.
    """
    window = _Window(pieces, first_line)
    at = window.skip(window.skip(0) + 1)
    if window.text[at : at + 1] != "]":
        while True:
            at = window.forget(at)
            if at >= len(window.text):
                break
            line, start = window.line(at), at
            try:
                value, at = window.element(decoder, at)
            except JSONDecodeError as error:
                what = f"malformed JSON at column {window.column(error.pos)}: {reason(error)}"
                raise Refused(f"{what}; the rest of the array was not read", window.line(error.pos)) from None
            except RecursionError:
                raise Refused("lists and objects lie too deep in one another; the rest of the array was not read", line) from None
            yield line, window.column(start), value, window.text[start:at]
            at = window.skip(at)
            if window.text[at : at + 1] != ",":
                break
            at = window.skip(at + 1)
    if at >= len(window.text):
        raise Refused("the array does not end; is the file cut off?", window.line(at))
    if window.text[at] != "]":
        column = window.column(at)
        raise Refused(f"malformed JSON at column {column}: expecting ',' or ']'; the rest of the array was not read", window.line(at))
    rest = window.skip(at + 1)
    if rest < len(window.text):
        column = window.column(rest)
        raise Refused(f"text after the end of the array at column {column}; give one array, or one object a line", window.line(rest))
