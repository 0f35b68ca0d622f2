"""The elements of a JSON array one by one, each with the line where it begins."""

from __future__ import annotations

import re
from collections.abc import Iterator
from json import JSONDecodeError, JSONDecoder
from typing import Any

BLANK = re.compile(r"[ \t\n\r]*")


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


class _Place:
    """Counts lines forward through a text, so that each newline is counted once."""

    def __init__(self, text: str, first_line: int) -> None:
        self.text, self.line, self.at = text, first_line, 0

    def __call__(self, position: int) -> int:
        """The line of a position not before the last one asked for."""
        self.line += self.text.count("\n", self.at, position)
        self.at = position
        return self.line

    def column(self, position: int) -> int:
        """The column of a position, counted from 1."""
        return position - self.text.rfind("\n", 0, position)


def array_rows(text: str, decoder: JSONDecoder, first_line: int = 1) -> Iterator[tuple[int, int, Any, str]]:
    """Yield the line, the column, the value and the text of every element.

    Args:
        text: A JSON array, blanks around it allowed.
        decoder: Parses one element; may raise ``Refused``.
        first_line: The line of the file where the text begins.

    Raises:
        Refused: The text stops being an array; what came before has been yielded.
    """
    place = _Place(text, first_line)
    at = _skip(text, _skip(text, 0) + 1)
    if text[at : at + 1] != "]":
        while True:
            if at >= len(text):
                break
            line, start = place(at), at
            try:
                value, at = decoder.raw_decode(text, at)
            except JSONDecodeError as error:
                column = place.column(error.pos)
                what = f"malformed JSON at column {column}: {reason(error)}"
                raise Refused(f"{what}; the rest of the array was not read", place(error.pos)) from None
            except RecursionError:
                raise Refused("lists and objects lie too deep in one another; the rest of the array was not read", line) from None
            yield line, place.column(start), value, text[start:at]
            at = _skip(text, at)
            if text[at : at + 1] != ",":
                break
            at = _skip(text, at + 1)
    if at >= len(text):
        raise Refused("the array does not end; is the file cut off?", place(at))
    if text[at] != "]":
        raise Refused(f"malformed JSON at column {place.column(at)}: expecting ',' or ']'; the rest of the array was not read", place(at))
    rest = _skip(text, at + 1)
    if rest < len(text):
        raise Refused(f"text after the end of the array at column {place.column(rest)}; give one array, or one object a line", place(rest))


def _skip(text: str, at: int) -> int:
    """The position of the next character that is not blank."""
    match = BLANK.match(text, at)
    return match.end() if match else at
