"""The elements of a JSON array one by one, each with the line where it begins."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from json import JSONDecodeError, JSONDecoder
from typing import Any

from sftchat._util.parsing import MAX_BYTES

BLANK = re.compile(r"[ \t\n\r]*")
FORGET = 1 << 20
"""Characters read that are worth being forgotten."""
LONGEST_WORD = 12
"""Characters of the longest thing in JSON that is malformed when it is cut in two: a surrogate pair of two escapes."""


class Refused(Exception):
    """Text that is not rows; becomes a DataError where the name of the file is known.

    Args:
        message: What is wrong.
        line: The line, where it is not the one being read.
    """

    def __init__(self, message: str, line: int = 0) -> None:
        super().__init__(message)
        self.line = line


def reason(error: JSONDecodeError) -> str:
    """What the parser says, in lower case."""
    return error.msg[:1].lower() + error.msg[1:]


class _Window:
    """The part of a text that is being read: grows at its end, and forgets what lies behind.

    Args:
        pieces: The text.
        first_line: The line of the file where it begins.
    """

    def __init__(self, pieces: Iterable[str], first_line: int) -> None:
        self.text = ""
        self._pieces = iter(pieces)
        self._line, self._counted = first_line, 0
        self._before = 0  # characters of the line that were forgotten

    def more(self) -> bool:
        """Read on; False at the end of the text."""
        piece = next(self._pieces, None)
        self.text += piece or ""
        return piece is not None

    def skip(self, at: int) -> int:
        """The position of the next character that is not blank."""
        while True:
            match = BLANK.match(self.text, at)
            at = self.forget(match.end() if match else at)
            if at < len(self.text) or not self.more():
                return at

    def element(self, decoder: JSONDecoder, at: int) -> tuple[Any, int]:
        """Parse a value, reading on as long as it may be cut off; returns it and where it ends.

        Raises:
            JSONDecodeError: It is malformed.
            Refused: It does not end for too long.
        """
        while True:
            if len(self.text) - at > MAX_BYTES:
                raise Refused(f"an element of the array is longer than {MAX_BYTES >> 20} MiB; the rest was not read")
            try:
                value, end = decoder.raw_decode(self.text, at)
            except JSONDecodeError as error:
                # a string that does not end is reported where it begins; all else that is cut off, close to the end
                cut = error.msg.startswith("Unterminated") or error.pos >= len(self.text) - LONGEST_WORD
                if not cut or not self.more():
                    raise
                continue
            rest = self.text[end : end + len("e+0")]
            whole = rest and (rest[0] not in ".eE" or len(rest) == len("e+0"))
            if whole or not self.more():  # a number may go on, also after what is not one yet
                return value, end

    def forget(self, at: int) -> int:
        """Let go of what lies before a position, once it is worth it; returns where the position is now."""
        if at < FORGET:
            return at
        self.line(at)
        self._before = self.column(at) - 1
        self.text, self._counted = self.text[at:], 0
        return 0

    def line(self, position: int) -> int:
        """The line of a position not before the last one asked for."""
        self._line += self.text.count("\n", self._counted, position)
        self._counted = position
        return self._line

    def column(self, position: int) -> int:
        """The column of a position, counted from 1."""
        newline = self.text.rfind("\n", 0, position)
        return position - newline if newline >= 0 else self._before + position + 1


def array_rows(pieces: Iterable[str], decoder: JSONDecoder, first_line: int = 1) -> Iterator[tuple[int, int, Any, str]]:
    """Yield the line, the column, the value and the text of every element, holding no more than some of them at once.

    Args:
        pieces: A JSON array in pieces of any size, blanks around it allowed.
        decoder: Parses one element; may raise ``Refused``.
        first_line: The line of the file where the text begins.

    Raises:
        Refused: The text stops being an array; what came before has been yielded.
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
