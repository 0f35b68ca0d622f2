"""Rows from a file, each with its ``file:line``, or what is wrong with it.

JSON is read here rather than through ``datasets``, whose errors name neither file nor line and which keeps reading a stale cache.
"""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from difflib import get_close_matches
from io import BufferedReader
from itertools import chain
from json import JSONDecodeError, JSONDecoder, dumps
from pathlib import Path
from typing import Any, BinaryIO

from sftchat._util.parsing import MAX_BYTES, MAX_DEPTH, UTF16_MARKS, bounded_lines, iconv, one_of_each, too_deep
from sftchat.data.arrays import Refused, array_rows, reason
from sftchat.data.delimited import delimited_rows, delimiter_of
from sftchat.data.tables import HUB, PARQUET, hub_rows, parquet_rows
from sftchat.errors import DataError

Row = tuple[str, dict[str, Any]]
"""Where a row begins, and the row: ``file:line``, with ``:column`` where a row of an array begins on the line of the one before."""

PIECE = 1 << 20
"""Bytes of an array that are read at once."""
READ = "one JSON object a line (JSONL) or one JSON array of objects, in UTF-8"
PEEKED = 4096
"""Bytes at the beginning of a file that tell whether it is text."""
BLANKS = b" \t\r\n"
BOM = b"\xef\xbb\xbf"
BINARY_FORMATS = {
    b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip", b"ARROW1": "Arrow", b"%PDF": "PDF", b"\x89PNG": "PNG", b"GGUF": "GGUF", b"\x28\xb5\x2f\xfd": "zstd",
    b"\xfd7zXZ": "xz", b"SQLite format 3": "SQLite",
}  # fmt: skip


def read_rows(path: str | os.PathLike[str]) -> Iterator[Row]:
    """Read the rows of a file one by one, stopping at the first that is malformed.

    Args:
        path: A file of one JSON object a line, or of one JSON array of objects; UTF-8, with or without a byte order mark. ``-`` reads
            standard input. Or a CSV or TSV file, by its suffix, a Parquet file, or ``hf://datasets/ORG/NAME[@REVISION][/CONFIG][#SPLIT]``.

    Raises:
        DataError: The file is missing, a folder, empty, of another format, or a row of it is malformed.
    """
    for row in iter_rows(path):
        if isinstance(row, DataError):
            raise row
        yield row


def iter_rows(path: str | os.PathLike[str]) -> Iterator[Row | DataError]:
    """Read every row of a file, handing over what is wrong with a malformed one in its place and going on.

    Args:
        path: As for ``read_rows``.

    Raises:
        DataError: There is nothing to go on with: the file is missing, a folder, empty, or of another format.
    """
    name = "stdin" if os.fspath(path) == "-" else os.fspath(path)
    if name.startswith(HUB):
        yield from hub_rows(name)
        return
    try:
        # entered below, out of reach of these excepts
        stream = nullcontext(sys.stdin.buffer) if os.fspath(path) == "-" else Path(path).open("rb")  # noqa: SIM115
    except ValueError as error:  # a NUL byte in the path
        raise DataError(f"cannot be opened: {error}", repr(name)) from None
    except FileNotFoundError:
        raise DataError(_missing(Path(path)), name) from None
    except IsADirectoryError:
        raise DataError(_folder(Path(path)), name) from None
    except OSError as error:
        raise DataError(f"cannot be opened: {_reason(error)}", name) from None
    try:
        with stream as lines:
            delimiter = delimiter_of(name)
            yield from delimited_rows(lines, name, delimiter) if delimiter else _scan(lines, name)
    except OSError as error:
        raise DataError(f"cannot be read: {_reason(error)}", name) from None


def parse_row(line: bytes, source: str, start: int, number: int) -> dict[str, Any]:
    """Read one line of a file of rows, exactly as ``read_rows`` does.

    Args:
        line: With or without its end; not blank, no byte order mark.
        source: ``file:line``.
        start: At which byte of the file it begins.
        number: Of the line, from 1.

    Raises:
        DataError: It is malformed.
    """
    try:
        return _as_row(_parse(_decode(line.rstrip(b"\r\n"), start, number)), line)
    except Refused as error:
        raise DataError(str(error), source) from None


def line_of(source: str) -> str:
    """The line of a source, or line and column, without the file; empty where it has none."""
    found = re.search(r":(\d+(?::\d+)?)$", source)
    return found[1] if found else ""


def _scan(stream: BinaryIO, name: str) -> Iterator[Row | DataError]:
    """Tell an array from lines by the first byte that is not blank, and read on accordingly; never seeks, so pipes work."""
    offset = 0
    found = False
    marked = 0
    for number, line, cut_off in bounded_lines(stream):
        start = offset
        offset += len(line)
        if number == 1:
            if line.startswith(PARQUET):
                yield from _parquet(name)
                return
            _refuse_other_formats(line, stream, name)
            if line.startswith(BOM):
                line, start, marked = line[len(BOM) :], len(BOM), len(BOM)
        if not line.strip(BLANKS):
            continue
        if not found and line.lstrip(BLANKS).startswith(b"["):
            yield from _array(chain([line], iter(lambda: stream.read(PIECE), b"")), name, number, start)
            return
        found = True
        source = f"{name}:{number}"
        if cut_off:
            what = (
                "holds NUL bytes; the file is damaged or not text"
                if b"\0" in line
                else f"is longer than {MAX_BYTES >> 20} MiB; give {READ}"
            )
            raise DataError(f"the line {what}", source)
        try:
            yield source, parse_row(line, source, start, number)
        except DataError as error:
            yield error
    if not found:
        what = "the file holds only blank lines" if offset > marked else "the file is empty"
        raise DataError(f"{what}; give {READ}", name)


def _parquet(name: str) -> Iterator[Row]:
    """Leave a Parquet file to the module that reads tables."""
    if name == "stdin":
        raise DataError("Parquet cannot be read from a pipe; give the file", name)
    yield from parquet_rows(name)


def _array(raw: Iterable[bytes], name: str, first_line: int, start: int) -> Iterator[Row | DataError]:
    """Read the rows of a JSON array, each at the line where it begins."""
    line = first_line
    try:
        empty = True
        before = 0
        for line, column, value, part in array_rows(_pieces(raw, start, first_line), _DECODER, first_line):
            empty = False
            source = f"{name}:{line}:{column}" if line == before else f"{name}:{line}"
            before = line
            try:
                yield source, _as_row(value, part.encode())
            except Refused as error:
                yield DataError(str(error), source)
        if empty:
            raise DataError(f"the array is empty; give {READ}", name)
    except Refused as error:
        yield DataError(str(error), f"{name}:{error.line or line}")


def _pieces(raw: Iterable[bytes], start: int, line: int) -> Iterator[str]:
    """Decode UTF-8 piece by piece, the bytes of a character that is cut in two kept for the next."""
    held = b""
    for piece in raw:
        held += piece
        # a character has at most four bytes, so that one of the last three may begin it
        end = next((len(held) - back for back in range(1, min(3, len(held)) + 1) if held[-back] >= 0xC0), len(held))
        whole, held = held[:end], held[end:]
        yield _decode(whole, start, line)
        start, line = start + len(whole), line + whole.count(b"\n")
    yield _decode(held, start, line)


def _decode(raw: bytes, start: int, line: int) -> str:
    """Decode UTF-8, saying at which byte of the file it stops being UTF-8."""
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        line += raw.count(b"\n", 0, error.start)
        raise Refused(f"not UTF-8 at byte {start + error.start}; convert it, such as with: {iconv('GB18030')}", line) from None
    if "\0" in text:
        at = text.index("\0")
        line += text.count("\n", 0, at)
        raise Refused(f"NUL byte at column {at - text.rfind(chr(10), 0, at)}; the file is damaged or not text", line)
    return text


def _parse(text: str) -> Any:
    """Parse one line."""
    try:
        return _DECODER.decode(text)
    except JSONDecodeError as error:
        raise Refused(f"malformed JSON at column {error.colno}: {reason(error)}; give {READ}") from None
    except RecursionError:
        raise Refused(TOO_DEEP) from None


def _as_row(value: Any, raw: bytes) -> dict[str, Any]:
    """Refuse what parses but could not be a row, or could not be written again; ``raw`` saves looking where nothing can be wrong."""
    if not isinstance(value, dict):
        kind = {list: "a list", str: "text", bool: "true or false", type(None): "null"}.get(type(value), "a number")
        raise Refused(f'the row is {kind}, must be an object such as {{"messages": [...]}}')
    if too_deep(value, raw):
        raise Refused(TOO_DEEP)
    if b"\\u" in raw:
        try:
            dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            half = f"\\u{ord(error.object[error.start]):04x}"
            raise Refused(f"lone surrogate {half}, half of a character; remove it or write both halves") from None
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a key given twice."""
    try:
        return one_of_each(pairs)
    except ValueError as error:
        raise Refused(str(error)) from None


def _integer(text: str) -> int:
    """Refuse whole numbers that Python will not convert."""
    try:
        return int(text)
    except ValueError:
        raise Refused(f"number {text[:12]}… has {len(text.lstrip('-'))} digits, too large to read; write it as text") from None


def _real(text: str) -> float:
    """Refuse reals that would become infinite."""
    value = float(text)
    if math.isinf(value):
        raise Refused(f"number {text[:24]} is too large to read; the largest is about 1.8e308")
    return value


def _constant(text: str) -> Any:
    """Refuse the three names that Python reads and JSON has not."""
    raise Refused(f"{text} is not JSON; write null or a number")


_DECODER = JSONDecoder(object_pairs_hook=_object, parse_int=_integer, parse_float=_real, parse_constant=_constant)
TOO_DEEP = f"lists and objects lie more than {MAX_DEPTH} deep in one another; flatten the row"


def _refuse_other_formats(line: bytes, stream: BinaryIO, name: str) -> None:
    """Name the formats that people try, by their first bytes, and any other that is no text, by the bytes that follow."""
    for mark, kind in BINARY_FORMATS.items():
        if line.startswith(mark):
            raise DataError(f"the file is {kind}, which is not read; give {READ}", name)
    if line.startswith(UTF16_MARKS):
        raise DataError(f"the file is UTF-16, not UTF-8; convert it, such as with: {iconv('UTF-16')}", name)
    head = (line[:PEEKED] + (stream.peek(PEEKED) if isinstance(stream, BufferedReader) else b""))[:PEEKED]
    if b"\0" in head and not head.removeprefix(BOM).lstrip(BLANKS).startswith((b"{", b"[")):
        raise DataError(f"the file is binary or damaged: it holds NUL bytes; give {READ}", name)


def _missing(path: Path) -> str:
    """Word the error for a file that is not there, with the nearest name that is."""
    folder = path.parent
    if not folder.is_dir():
        return f"no such file: there is no folder '{folder}'"
    near = get_close_matches(path.name, _names(folder), n=1)
    return f"no such file; did you mean '{folder / near[0]}'?" if near else f"no such file in folder '{folder}'"


def _folder(path: Path) -> str:
    """Word the error for a folder, with a file of rows that is in it."""
    names = [name for name in _names(path) if name.endswith((".jsonl", ".json", ".csv", ".tsv", ".parquet"))]
    return f"is a folder; give a file, such as '{path / names[0]}'" if names else "is a folder without a file of rows in it; give a file"


def _names(folder: Path) -> list[str]:
    """What is in a folder, as far as we may look."""
    try:
        return sorted(entry.name for entry in folder.iterdir())
    except OSError:
        return []


def _reason(error: OSError) -> str:
    """The words of the operating system."""
    return (error.strerror or str(error)).lower()
