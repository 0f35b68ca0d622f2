"""Read rows from a file, each with its ``file:line`` or its error.

JSON is parsed here and not by ``datasets``, whose errors name neither file nor line and whose cache may be stale.
"""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from difflib import get_close_matches
from io import BufferedReader
from json import JSONDecodeError, JSONDecoder, dumps
from pathlib import Path
from typing import Any, BinaryIO

from sftchat._util.parsing import MAX_BYTES, MAX_DEPTH, UTF16_MARKS, iconv_command, is_too_deep, iter_bounded_lines, reject_duplicate_keys
from sftchat.data.tables import HUB, MODELSCOPE, PARQUET, delimited_rows, delimiter_of, hub_rows, parquet_rows
from sftchat.errors import DataError, os_reason

Row = tuple[str, dict[str, Any]]
"""Source and row: ``file:line``, with ``:column`` when an array element starts on the same line as the previous one."""

MAX_ARRAY_BYTES = 1 << 30
"""Maximum size in bytes of a JSON array, which is read into memory; JSONL has no such limit."""
UNREAD = "the rest of the array was not read"
EXPECTED_INPUT = "one JSON object a line (JSONL) or one JSON array of objects, in UTF-8"
PEEK_BYTES = 4096
"""Number of first bytes that are checked for being text."""
BLANKS = b" \t\r\n"
_BLANK_RUN = re.compile(r"[ \t\n\r]*")
BOM = b"\xef\xbb\xbf"
BINARY_FORMATS = {
    b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip", b"ARROW1": "Arrow", b"%PDF": "PDF", b"\x89PNG": "PNG", b"GGUF": "GGUF", b"\x28\xb5\x2f\xfd": "zstd",
    b"\xfd7zXZ": "xz", b"SQLite format 3": "SQLite",
}  # fmt: skip


class RowError(Exception):
    """Invalid content; the caller that has the file name converts it to a DataError.

    Args:
        message: The error.
        line: Its line, if it is not the current one.
    """

    def __init__(self, message: str, line: int = 0) -> None:
        super().__init__(message)
        self.line = line


def read_rows(path: str | os.PathLike[str]) -> Iterator[Row]:
    """Read the rows of a file one by one; stops at the first malformed row.

    Args:
        path: JSONL or one JSON array of objects, in UTF-8, with or without a byte order mark; ``-`` reads standard input. Also a CSV or TSV
            file (by suffix), a Parquet file, or ``hf://datasets/ORG/NAME[@REVISION][/CONFIG][#SPLIT]``.

    Raises:
        DataError: When the file is missing, a folder, empty, or of another format, or a row is malformed.
    """
    for row in iter_rows(path):
        if isinstance(row, DataError):
            raise row
        yield row


def iter_rows(path: str | os.PathLike[str]) -> Iterator[Row | DataError]:
    """Read all rows of a file; yields an error in place of a malformed row.

    Args:
        path: As for ``read_rows``.

    Raises:
        DataError: When nothing can be read: the file is missing, a folder, empty, or of another format.
    """
    name = "stdin" if os.fspath(path) == "-" else os.fspath(path)
    if name.startswith(MODELSCOPE):
        raise DataError("is a data set of ModelScope, from which no rows are read; download it and give its files", name)
    if name.startswith(HUB):
        yield from hub_rows(name)
        return
    try:
        # entered below, because these except clauses are for errors of opening only
        opened = nullcontext(sys.stdin.buffer) if os.fspath(path) == "-" else Path(path).open("rb")  # noqa: SIM115
    except ValueError as error:  # a NUL byte in the path
        raise DataError(f"cannot be opened: {error}", repr(name)) from None
    except FileNotFoundError:
        raise DataError(_describe_missing_file(Path(path)), name) from None
    except IsADirectoryError:
        raise DataError(_describe_folder(Path(path)), name) from None
    except OSError as error:
        raise DataError(f"cannot be opened: {os_reason(error)}", name) from None
    try:
        with opened as stream:
            delimiter = delimiter_of(name)
            yield from delimited_rows(stream, name, delimiter) if delimiter else _read_stream(stream, name)
    except OSError as error:
        raise DataError(f"cannot be read: {os_reason(error)}", name) from None


def parse_row(line: bytes, source: str, start: int, number: int) -> dict[str, Any]:
    """Parse one line of a file of rows, exactly as ``read_rows`` does.

    Args:
        line: With or without its line end; not blank, no byte order mark.
        source: ``file:line``.
        start: Byte offset of the line in the file.
        number: Line number, from 1.

    Raises:
        DataError: When it is malformed.
    """
    try:
        return _check_row(_parse_json(_decode_utf8(line.rstrip(b"\r\n"), start, number)), line)
    except RowError as error:
        raise DataError(str(error), source) from None


def line_of(source: str) -> str:
    """Return the line, or line and column, of a source; empty when it has none."""
    match = re.search(r":(\d+(?::\d+)?)$", source)
    return match[1] if match else ""


def _read_stream(stream: BinaryIO, name: str) -> Iterator[Row | DataError]:
    """Read a JSON array if the first non-blank byte is ``[``, else one object per line; never seeks, so pipes work."""
    offset = 0
    has_rows = False
    bom_length = 0
    for number, line, cut_off in iter_bounded_lines(stream):
        start = offset
        offset += len(line)
        if number == 1:
            if line.startswith(PARQUET):
                if name == "stdin":
                    raise DataError("Parquet cannot be read from a pipe; give the file", name)
                yield from parquet_rows(name)
                return
            _reject_other_formats(line, stream, name)
            if line.startswith(BOM):
                line, start, bom_length = line[len(BOM) :], len(BOM), len(BOM)
        if not line.strip(BLANKS):
            continue
        if not has_rows and line.lstrip(BLANKS).startswith(b"["):
            raw = line + stream.read(MAX_ARRAY_BYTES - len(line) + 1)
            if len(raw) > MAX_ARRAY_BYTES:
                raise DataError(f"the array is longer than {MAX_ARRAY_BYTES >> 20} MiB; give one JSON object a line (JSONL)", name)
            yield from _read_array(raw, name, number, start)
            return
        has_rows = True
        source = f"{name}:{number}"
        if cut_off:
            problem = (
                "holds NUL bytes; the file is damaged or not text"
                if b"\0" in line
                else f"is longer than {MAX_BYTES >> 20} MiB; give {EXPECTED_INPUT}"
            )
            raise DataError(f"the line {problem}", source)
        try:
            yield source, parse_row(line, source, start, number)
        except DataError as error:
            yield error
    if not has_rows:
        problem = "the file holds only blank lines" if offset > bom_length else "the file is empty"
        raise DataError(f"{problem}; give {EXPECTED_INPUT}", name)


def _read_array(raw: bytes, name: str, first_line: int, start: int) -> Iterator[Row | DataError]:
    """Read the rows of a JSON array, each with its start line."""
    line = previous_line = 0
    try:
        for line, column, value, text in _iter_elements(_decode_utf8(raw, start, first_line), first_line):
            source = f"{name}:{line}:{column}" if line == previous_line else f"{name}:{line}"
            previous_line = line
            try:
                yield source, _check_row(value, text.encode())
            except RowError as error:
                yield DataError(str(error), source)
        if not line:
            raise DataError(f"the array is empty; give {EXPECTED_INPUT}", name)
    except RowError as error:
        yield DataError(str(error), f"{name}:{error.line or line}")


def _iter_elements(text: str, line: int) -> Iterator[tuple[int, int, Any, str]]:
    """Yield line, column, value and JSON text of each element of an array; ``line`` is the line number of the start of ``text``."""
    previous_position, last_newline = 0, -1

    def locate(position: int) -> tuple[int, int]:
        """Return line and column of a position; positions must not decrease between calls."""
        nonlocal line, previous_position, last_newline
        line += text.count("\n", previous_position, position)
        last_newline = max(last_newline, text.rfind("\n", previous_position, position))
        previous_position = position
        return line, position - last_newline

    def skip_blanks(position: int) -> int:
        return _BLANK_RUN.match(text, position).end()  # type: ignore[union-attr]  # matches the empty text too

    offset = skip_blanks(skip_blanks(0) + 1)  # after the opening bracket
    expects_element = text[offset : offset + 1] != "]"
    while expects_element and offset < len(text):
        start, (line, column) = offset, locate(offset)
        try:
            value, offset = _DECODER.raw_decode(text, offset)
        except JSONDecodeError as error:
            line, column = locate(error.pos)
            raise RowError(f"malformed JSON at column {column}: {_describe_json_error(error)}; {UNREAD}", line) from None
        except RecursionError:
            raise RowError(f"lists and objects lie too deep in one another; {UNREAD}", line) from None
        except RowError as error:  # from a hook of the decoder
            raise RowError(str(error), line) from None
        yield line, column, value, text[start:offset]
        offset = skip_blanks(offset)
        expects_element = text[offset : offset + 1] == ","
        if expects_element:
            offset = skip_blanks(offset + 1)
    line, column = locate(offset)
    if offset >= len(text):
        raise RowError("the array does not end; is the file cut off?", line)
    if text[offset] != "]":
        raise RowError(f"malformed JSON at column {column}: expecting ',' or ']'; {UNREAD}", line)
    array_end = skip_blanks(offset + 1)
    if array_end < len(text):
        line, column = locate(array_end)
        raise RowError(f"text after the end of the array at column {column}; give one array, or one object a line", line)


def _decode_utf8(raw: bytes, start: int, line: int) -> str:
    """Decode UTF-8; errors name the byte offset in the file."""
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        line += raw.count(b"\n", 0, error.start)
        raise RowError(f"not UTF-8 at byte {start + error.start}; convert it, such as with: {iconv_command('GB18030')}", line) from None
    if "\0" in text:
        offset = text.index("\0")
        line += text.count("\n", 0, offset)
        column = offset - text.rfind("\n", 0, offset)
        raise RowError(f"NUL byte at column {column}; the file is damaged or not text", line)
    return text


def _describe_json_error(error: JSONDecodeError) -> str:
    return error.msg[:1].lower() + error.msg[1:]


def _parse_json(text: str) -> Any:
    try:
        return _DECODER.decode(text)
    except JSONDecodeError as error:
        raise RowError(f"malformed JSON at column {error.colno}: {_describe_json_error(error)}; give {EXPECTED_INPUT}") from None
    except RecursionError:
        raise RowError(TOO_DEEP) from None


def _check_row(value: Any, raw: bytes) -> dict[str, Any]:
    """Return the value if it is a row that can be written again; ``raw``, its JSON text, rules out most problems quickly."""
    if not isinstance(value, dict):
        type_name = {list: "a list", str: "text", bool: "true or false", type(None): "null"}.get(type(value), "a number")
        raise RowError(f'the row is {type_name}, must be an object such as {{"messages": [...]}}')
    if is_too_deep(value, raw):
        raise RowError(TOO_DEEP)
    if b"\\u" in raw:
        try:
            dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            surrogate = f"\\u{ord(error.object[error.start]):04x}"
            raise RowError(f"lone surrogate {surrogate}, half of a character; remove it or write both halves") from None
    return value


def _build_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    try:
        return reject_duplicate_keys(pairs)
    except ValueError as error:
        raise RowError(str(error)) from None


def _parse_integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise RowError(f"number {text[:12]}… has {len(text.lstrip('-'))} digits, too large to read; write it as text") from None


def _parse_float(text: str) -> float:
    """Reject floats that would become infinite."""
    value = float(text)
    if math.isinf(value):
        raise RowError(f"number {text[:24]} is too large to read; the largest is about 1.8e308")
    return value


def _reject_constant(text: str) -> Any:
    """Reject ``NaN``, ``Infinity`` and ``-Infinity``, which Python parses and JSON does not have."""
    raise RowError(f"{text} is not JSON; write null or a number")


_DECODER = JSONDecoder(object_pairs_hook=_build_object, parse_int=_parse_integer, parse_float=_parse_float, parse_constant=_reject_constant)
TOO_DEEP = f"lists and objects lie more than {MAX_DEPTH} deep in one another; flatten the row"


def _reject_other_formats(line: bytes, stream: BinaryIO, name: str) -> None:
    """Reject common other formats, by their first bytes, and other binary data."""
    for signature, format_name in BINARY_FORMATS.items():
        if line.startswith(signature):
            raise DataError(f"the file is {format_name}, which is not read; give {EXPECTED_INPUT}", name)
    if line.startswith(UTF16_MARKS):
        raise DataError(f"the file is UTF-16, not UTF-8; convert it, such as with: {iconv_command('UTF-16')}", name)
    next_bytes = stream.peek(PEEK_BYTES) if isinstance(stream, BufferedReader) else b""
    head = (line[:PEEK_BYTES] + next_bytes)[:PEEK_BYTES]
    # for damaged JSON, a later error names the line of the NUL byte
    if b"\0" in head and not head.removeprefix(BOM).lstrip(BLANKS).startswith((b"{", b"[")):
        raise DataError(f"the file is binary or damaged: it holds NUL bytes; give {EXPECTED_INPUT}", name)


def _describe_missing_file(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f"no such file: there is no folder '{folder}'"
    similar = get_close_matches(path.name, _list_folder(folder), n=1)
    return f"no such file; did you mean '{folder / similar[0]}'?" if similar else f"no such file in folder '{folder}'"


def _describe_folder(path: Path) -> str:
    names = [name for name in _list_folder(path) if name.endswith((".jsonl", ".json", ".csv", ".tsv", ".parquet"))]
    return f"is a folder; give a file, such as '{path / names[0]}'" if names else "is a folder without a file of rows in it; give a file"


def _list_folder(folder: Path) -> list[str]:
    """Return the names in a folder; empty when it is not readable."""
    try:
        return sorted(entry.name for entry in folder.iterdir())
    except OSError:
        return []
