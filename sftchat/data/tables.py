"""Rows of tables: CSV and TSV files, and through ``datasets`` Parquet files and data sets on the Hugging Face Hub.

Only this module of the package imports ``datasets``. Streaming always reads the current data; nothing is cached.
"""

from __future__ import annotations

import csv
import logging
import os
import re
from collections.abc import Iterator
from datetime import date, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

from sftchat._util.parsing import MAX_BYTES, iter_bounded_lines, not_utf8_message
from sftchat.errors import DataError, MissingExtraError, first_line
from sftchat.text import abbreviate

MODELSCOPE = "ms://"
"""Prefix of what is on ModelScope."""
HUB = "hf://datasets/"
"""Prefix of a data set on the Hub."""
PARQUET = b"PAR1"
"""First bytes of a Parquet file."""

_REFERENCE = re.compile(r"(?P<name>[\w.-]+(?:/[\w.-]+)?)(?:@(?P<revision>[\w.-]+))?(?:/(?P<config>[\w.-]+))?(?:#(?P<split>[\w.-]+))?")


def parquet_rows(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read a Parquet file row by row; the source of a row is ``file:N``, from 1.

    Raises:
        DataError: When the file is damaged.
        MissingExtraError: When ``datasets`` is not installed.
    """
    yield from _stream_dataset(path, "the Parquet file cannot be read", "parquet", data_files=str(Path(path).absolute()), split="train")


def hub_rows(reference: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read a data set from the Hub row by row; the source of a row is ``reference:N``, from 1.

    Args:
        reference: ``hf://datasets/ORG/NAME[@REVISION][/CONFIG][#SPLIT]``; the default split is ``train``.

    Raises:
        DataError: When the reference is malformed, or the data set cannot be fetched.
        MissingExtraError: When ``datasets`` is not installed.
    """
    match = _REFERENCE.fullmatch(reference.removeprefix(HUB))
    if match is None:
        raise DataError(f"is no data set of the Hub; write {HUB}ORG/NAME[@REVISION][/CONFIG][#SPLIT]", reference)
    failure, split = "the data set cannot be fetched from the Hub", match["split"] or "train"
    yield from _stream_dataset(reference, failure, match["name"], match["config"], revision=match["revision"], split=split)


def _stream_dataset(source: str, failure: str, *arguments: str | None, **options: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the rows of ``load_dataset(*arguments, **options)`` as JSON values, with their sources; errors start with ``failure``."""
    if find_spec("datasets") is None:
        raise MissingExtraError(f"reading '{source}'")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import datasets
    import pyarrow

    for name in ("datasets", "huggingface_hub"):  # errors are reported here, on one line
        logging.getLogger(name).setLevel(logging.CRITICAL)
    rows = 0
    try:
        for row in datasets.load_dataset(*arguments, streaming=True, **options):
            rows += 1
            yield f"{source}:{rows}", {key: _to_json(value) for key, value in row.items()}
    except (ValueError, OSError, pyarrow.ArrowException, datasets.exceptions.DatasetsError) as error:
        raise DataError(f"{failure}: {first_line(error).rstrip('.')}", f"{source}:{rows + 1}" if rows else source) from error
    if not rows:
        raise DataError("the table has no rows", source)


def _to_json(value: Any) -> Any:
    """Convert a value to JSON types; dates and times become text."""
    if isinstance(value, dict):
        return {key: _to_json(member) for key, member in value.items()}
    if isinstance(value, list):
        return [_to_json(element) for element in value]
    return value.isoformat() if isinstance(value, (date, datetime)) else value


DELIMITERS = {".csv": ",", ".tsv": "\t"}
"""Delimiter by file suffix."""


def delimiter_of(name: str) -> str:
    """Return the delimiter for a file name; empty when it is not a delimited file."""
    return next((delimiter for suffix, delimiter in DELIMITERS.items() if name.lower().endswith(suffix)), "")


def delimited_rows(stream: BinaryIO, name: str, delimiter: str) -> Iterator[tuple[str, dict[str, Any]] | DataError]:
    """Yield rows with their start line; a row with too many or too few values is yielded as an error.

    Quoting follows RFC 4180: a value in ``"`` may contain the delimiter, line ends, and ``""`` for a quote.

    Args:
        stream: UTF-8, with or without a byte order mark.
        name: File name for sources.
        delimiter: Separator of values.

    Raises:
        DataError: When the header is invalid, there are no rows, or the rest of the file cannot be read.
    """
    csv.field_size_limit(MAX_BYTES)  # process-wide setting: the default of 128 KiB is less than a long conversation
    reader = csv.reader(_decode_lines(stream, name), delimiter=delimiter, strict=True)
    start_line = 1
    header: list[str] = []
    rows = 0
    while True:
        try:
            values = next(reader, None)
        except csv.Error as error:
            raise DataError(f"the table cannot be read from here: {error}", f"{name}:{start_line}") from None
        if values is None:
            break
        source = f"{name}:{start_line}"
        start_line = reader.line_num + 1
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
    duplicate = next((column for column in header if header.count(column) > 1), None)
    if duplicate is not None:
        raise DataError(f"the column {abbreviate(duplicate)} is twice in the header; rename one", source)
    other_delimiter = next((sign for sign in ";\t,|" if sign != delimiter and sign in header[0]), "")
    if len(header) == 1 and other_delimiter:
        raise DataError(
            f"the header has no {abbreviate(delimiter)} but {abbreviate(other_delimiter)}; a .csv has commas between its values, a .tsv has tabs",
            source,
        )


def _decode_lines(stream: BinaryIO, name: str) -> Iterator[str]:
    """Yield the lines as text.

    Raises:
        DataError: When a line is not UTF-8, contains NUL bytes or is too long.
    """
    for number, line, cut_off in iter_bounded_lines(stream):
        source = f"{name}:{number}"
        if cut_off:
            raise DataError(f"the line is longer than {MAX_BYTES >> 20} MiB", source)
        if b"\0" in line:
            raise DataError("the line holds NUL bytes; the file is damaged or not text", source)
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise DataError(not_utf8_message(error), source) from None
