"""Write rows to a file atomically."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sftchat._util.files import atomic_file, check_output_file, write_error
from sftchat._util.output import raw_stdout
from sftchat.errors import DataError
from sftchat.text import sanitize_json


def write_rows(path: str | os.PathLike[str], rows: Iterable[Mapping[str, Any]], *, overwrite: bool = False) -> int:
    """Write rows as JSONL in UTF-8, one object per line, and return their number.

    The file is replaced after the last row is written; on any failure the previous file stays unchanged.

    Args:
        path: The file; ``-`` writes to standard output, row by row.
        rows: The rows; consumed while writing.
        overwrite: Replace an existing file.

    Raises:
        UsageError: When the file exists, is a folder, or its folder does not exist.
        DataError: When a row has a value that JSON cannot represent.
        SftchatError: When writing fails.
    """
    if os.fspath(path) == "-":
        return _write_stdout(rows)
    check_output_file(path, overwrite=overwrite)
    try:
        with atomic_file(Path(path)) as stream:
            return _write(stream, rows)
    except OSError as error:
        raise write_error(path, error) from error


def _write(stream: Any, rows: Iterable[Mapping[str, Any]]) -> int:
    count = 0
    for line in _to_lines(rows):
        stream.write(line)
        count += 1
    return count


def _write_stdout(rows: Iterable[Mapping[str, Any]]) -> int:
    """Write all rows to standard output, as UTF-8 in any locale; control characters are escaped on a terminal."""
    handle, count = raw_stdout(), 0
    handle.flush()
    for line in _to_lines(rows):
        count += 1
        handle.write_utf8(sanitize_json(line.decode()).encode() if handle.isatty() else line)
    handle.flush()
    return count


def _to_lines(rows: Iterable[Mapping[str, Any]]) -> Iterator[bytes]:
    for number, row in enumerate(rows, 1):
        try:
            yield json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        except (TypeError, ValueError, RecursionError) as error:  # UnicodeEncodeError, raised for a lone surrogate, is a ValueError
            raise DataError(f"row {number} cannot be written as JSON: {error}") from error
