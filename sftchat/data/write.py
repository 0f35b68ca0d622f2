"""Rows to a file, whole or not at all."""

from __future__ import annotations

import glob
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from sftchat._util.files import open_locked, take_lock
from sftchat._util.output import data_handle, require_stdout
from sftchat.errors import DataError, SftchatError, UsageError
from sftchat.text import printable_json


def write_rows(path: str | os.PathLike[str], rows: Iterable[Mapping[str, Any]], *, overwrite: bool = False) -> int:
    """Write rows as JSONL in UTF-8, one object a line, and return how many.

    The file appears under its name only when the last row is written; if anything fails before, what was there stays as it was.

    Args:
        path: The file; ``-`` writes to standard output, row by row.
        rows: The rows; consumed as they are written.
        overwrite: Replace a file that is there.

    Raises:
        UsageError: The file exists, is a folder, or its folder does not exist.
        DataError: A row holds something that JSON has not.
        SftchatError: The system refused to write.
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
    """Write a small file of text, whole or not at all.

    Raises:
        SftchatError: The system refused to write.
    """
    try:
        with replacing(path) as stream:
            stream.write(text.encode())
    except OSError as error:
        raise SftchatError(f"{path}: cannot be written: {(error.strerror or str(error)).lower()}") from error


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file under a temporary name that takes the place of another when the block ends well, and goes when it does not.

    What a killed process has left under such a name is removed. A link stays a link: what it points to is replaced. A pipe or a device such as
    ``/dev/null`` is written into, never replaced.

    Raises:
        OSError: The system refused to write.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        with target.open("wb") as stream:
            yield stream
        return
    _remove_abandoned(target)
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    while (locked := open_locked(partial)) is None:
        time.sleep(0.01)  # a process that looks for abandoned files lets go of it at once
    try:
        with locked as stream:
            stream.truncate()
            yield stream
            stream.flush()
            if os.name != "nt":  # under the lock, so that no other process takes it for abandoned
                partial.replace(target)
        if os.name == "nt":  # an open file cannot be moved there
            partial.replace(target)
    finally:
        with suppress(OSError):
            partial.unlink()


def _remove_abandoned(target: Path) -> None:
    """Remove the temporary files of processes that were killed while they wrote a file: those that no process has locked."""
    for path in target.parent.glob(f".{glob.escape(target.name)}.*.part"):
        if path.name.removeprefix(f".{target.name}.").removesuffix(".part").isdecimal() and path.is_file():
            with suppress(OSError), path.open("rb") as file:
                if take_lock(file):
                    path.unlink()


def check_target(path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Refuse a place that cannot be written to, before any work is done for it.

    Args:
        path: The file; ``-`` is standard output.
        overwrite: A file that is there may be replaced.

    Raises:
        UsageError: The file exists, is a folder, or its folder does not exist.
        SftchatError: Standard output is closed.
    """
    target = Path(path)
    if os.fspath(path) == "-":
        require_stdout()
        return
    try:
        is_folder, is_file, has_folder = target.is_dir(), target.is_file(), target.parent.is_dir()
    except OSError as error:  # a name that is too long, a folder we may not look into
        raise UsageError(f"output '{path}' cannot be written: {(error.strerror or str(error)).lower()}") from None
    if is_folder:
        raise UsageError(f"output '{path}' is a folder; give a file, such as '{target / 'rows.jsonl'}'")
    if is_file and not overwrite:
        raise UsageError(f"output '{path}' exists; give --overwrite to replace it, or another name")
    if not has_folder:
        raise UsageError(f"output '{path}' is in a folder that does not exist; make it: mkdir -p '{target.parent}'")


def _write(stream: Any, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write every row to a binary stream."""
    count = 0
    for line in _lines(rows):
        stream.write(line)
        count += 1
    return count


def _write_stdout(rows: Iterable[Mapping[str, Any]]) -> int:
    """Write every row to standard output, as UTF-8 whatever the locale; a terminal gets the same rows with what it could obey escaped."""
    handle, count = data_handle(), 0
    handle.flush()
    for line in _lines(rows):
        count += 1
        handle.write_utf8(printable_json(line.decode()).encode() if handle.isatty() else line)
    handle.flush()
    return count


def _lines(rows: Iterable[Mapping[str, Any]]) -> Iterator[bytes]:
    """Every row as a line of UTF-8."""
    for number, row in enumerate(rows, 1):
        try:
            yield json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        except (TypeError, ValueError, RecursionError) as error:  # UnicodeEncodeError, of a lone surrogate, is a ValueError
            raise DataError(f"row {number} cannot be written as JSON: {error}") from error
