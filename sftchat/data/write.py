"""Write rows to a file atomically."""

from __future__ import annotations

import glob
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from sftchat._util.files import open_locked, try_lock
from sftchat._util.output import data_handle, require_stdout
from sftchat.errors import DataError, SftchatError, UsageError
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
    check_target(path, overwrite=overwrite)
    try:
        with replacing(Path(path)) as stream:
            return _write(stream, rows)
    except OSError as error:
        raise SftchatError(f"{path}: cannot be written: {(error.strerror or str(error)).lower()}") from error


def replace_file(path: Path, text: str) -> None:
    """Write a small text file atomically.

    Raises:
        SftchatError: When writing fails.
    """
    try:
        with replacing(path) as stream:
            stream.write(text.encode())
    except OSError as error:
        raise SftchatError(f"{path}: cannot be written: {(error.strerror or str(error)).lower()}") from error


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Write to a temporary file that replaces ``path`` when the block succeeds and is removed when it fails.

    Temporary files of killed processes are removed. The target of a symbolic link is replaced, not the link. A pipe or device such as
    ``/dev/null`` is written to directly.

    Raises:
        OSError: When writing fails.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        with target.open("wb") as stream:
            yield stream
        return
    _remove_abandoned(target)
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    while (locked := open_locked(partial)) is None:
        time.sleep(0.01)  # a process that checks for abandoned files releases the lock at once
    try:
        with locked as stream:
            stream.truncate()
            yield stream
            stream.flush()
            if os.name != "nt":  # while the lock is held, so that no other process removes it as abandoned
                partial.replace(target)
        if os.name == "nt":  # Windows cannot move an open file
            partial.replace(target)
    finally:
        with suppress(OSError):
            partial.unlink()


def _remove_abandoned(target: Path) -> None:
    """Remove temporary files of killed processes: those that no process has locked."""
    for path in target.parent.glob(f".{glob.escape(target.name)}.*.part"):
        if path.name.removeprefix(f".{target.name}.").removesuffix(".part").isdecimal() and path.is_file():
            with suppress(OSError), path.open("rb") as file:
                if try_lock(file):
                    path.unlink()


def check_target(path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Check that a path can be written to, before any work is done.

    Args:
        path: The file; ``-`` is standard output.
        overwrite: Allow an existing file.

    Raises:
        UsageError: When the file exists, is a folder, or its folder does not exist.
        SftchatError: When standard output is closed.
    """
    target = Path(path)
    if os.fspath(path) == "-":
        require_stdout()
        return
    try:
        is_folder, is_file, has_folder = target.is_dir(), target.is_file(), target.parent.is_dir()
    except OSError as error:  # a name that is too long, or a folder without permission
        raise UsageError(f"output '{path}' cannot be written: {(error.strerror or str(error)).lower()}") from None
    if is_folder:
        raise UsageError(f"output '{path}' is a folder; give a file, such as '{target / 'rows.jsonl'}'")
    if is_file and not overwrite:
        raise UsageError(f"output '{path}' exists; give --overwrite to replace it, or another name")
    if not has_folder:
        raise UsageError(f"output '{path}' is in a folder that does not exist; make it: mkdir -p '{target.parent}'")


def _write(stream: Any, rows: Iterable[Mapping[str, Any]]) -> int:
    count = 0
    for line in _lines(rows):
        stream.write(line)
        count += 1
    return count


def _write_stdout(rows: Iterable[Mapping[str, Any]]) -> int:
    """Write all rows to standard output, as UTF-8 in any locale; control characters are escaped on a terminal."""
    handle, count = data_handle(), 0
    handle.flush()
    for line in _lines(rows):
        count += 1
        handle.write_utf8(sanitize_json(line.decode()).encode() if handle.isatty() else line)
    handle.flush()
    return count


def _lines(rows: Iterable[Mapping[str, Any]]) -> Iterator[bytes]:
    """Serialize each row to a line of UTF-8."""
    for number, row in enumerate(rows, 1):
        try:
            yield json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        except (TypeError, ValueError, RecursionError) as error:  # UnicodeEncodeError, raised for a lone surrogate, is a ValueError
            raise DataError(f"row {number} cannot be written as JSON: {error}") from error
