"""Rows of CSV and TSV files: the header names the columns, and every value is text."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from typing import Any, BinaryIO

from sftchat._util.parsing import MAX_BYTES, bounded_lines, not_utf_8
from sftchat.data.values import abbreviate
from sftchat.errors import DataError

DELIMITERS = {".csv": ",", ".tsv": "\t"}
"""What stands between two values, by the suffix of the file."""


def delimiter_of(name: str) -> str:
    """The delimiter of a file by its name; empty where the name is of no such file."""
    return next((delimiter for suffix, delimiter in DELIMITERS.items() if name.lower().endswith(suffix)), "")


def delimited_rows(stream: BinaryIO, name: str, delimiter: str) -> Iterator[tuple[str, dict[str, Any]] | DataError]:
    """Read the rows of a table one by one, each at the line where it begins; a row with too many or too few values is handed over as an error.

    Quotes are those of RFC 4180: a value in ``"`` may hold the delimiter, ends of lines, and ``""`` for a quote.

    Args:
        stream: UTF-8, with or without a byte order mark.
        name: Of the file, for sources.
        delimiter: What stands between two values.

    Raises:
        DataError: The header cannot be used, there are no rows, or the rest of the file cannot be read.
    """
    csv.field_size_limit(MAX_BYTES)  # of the whole process: the default of 128 KiB is less than a long conversation
    reader = csv.reader(_lines(stream, name), delimiter=delimiter, strict=True)
    begins = 1
    header: list[str] = []
    rows = 0
    while True:
        try:
            values = next(reader, None)
        except csv.Error as error:
            raise DataError(f"the table cannot be read from here: {error}", f"{name}:{begins}") from None
        if values is None:
            break
        source, begins = f"{name}:{begins}", reader.line_num + 1
        if not values:
            continue
        if not header:
            header = values
            _check_header(header, delimiter, source)
            continue
        rows += 1
        if len(values) == len(header):
            yield source, dict(zip(header, values, strict=True))
        else:
            yield DataError(
                f"the row has {len(values)} values and the header {len(header)}; put values with {abbreviate(delimiter)} into quotes",
                source,
            )
    if not rows:
        raise DataError("the table has no rows" if header else "the file is empty; give a table whose first line names the columns", name)


def _check_header(header: list[str], delimiter: str, source: str) -> None:
    """Refuse a header whose columns cannot be told apart."""
    twice = next((column for column in header if header.count(column) > 1), None)
    if twice is not None:
        raise DataError(f"the column {abbreviate(twice)} stands twice in the header; rename one", source)
    other = next((sign for sign in ";\t,|" if sign != delimiter and sign in header[0]), "")
    if len(header) == 1 and other:
        raise DataError(
            f"the header has no {abbreviate(delimiter)} but {abbreviate(other)}; a .csv has commas between its values, a .tsv has tabs",
            source,
        )


def _lines(stream: BinaryIO, name: str) -> Iterator[str]:
    """The lines as text.

    Raises:
        DataError: A line is not UTF-8, holds NUL bytes or is too long.
    """
    for number, line, cut_off in bounded_lines(stream):
        source = f"{name}:{number}"
        if cut_off:
            raise DataError(f"the line is longer than {MAX_BYTES >> 20} MiB", source)
        if b"\0" in line:
            raise DataError("the line holds NUL bytes; the file is damaged or not text", source)
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise DataError(not_utf_8(error), source) from None
