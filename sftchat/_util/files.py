"""Folders for results: made when they are needed, gone again when nothing was put into them, or there as a whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, BinaryIO


@contextmanager
def made_folder(folder: Path, *, ours: bool = False) -> Iterator[None]:
    """Make a folder and those above it while the block runs; when it ends, those that were made and hold nothing are removed.

    Whatever fails before it has written anything, on a full disk too, so leaves nothing behind.

    Args:
        folder: May be there already, and then stays.
        ours: Remove the folder when it is empty though it was there before.

    Raises:
        OSError: When a folder cannot be made.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()] or ([folder] if ours else [])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        for path in made:
            with suppress(OSError):  # it holds results
                path.rmdir()


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """An empty folder under a temporary name, which becomes another that is missing when the block ends well, and is removed when it does not.

    What a killed process left under that name goes when the next one begins.

    Raises:
        OSError: When a folder cannot be made or renamed.
    """
    draft = folder.with_name(f".{folder.name}.partial")
    with made_folder(folder.parent):
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        try:
            yield draft
            draft.rename(folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def take_lock(file: IO[Any] | int) -> bool:
    """Take the lock of a file for as long as it is open; False when another process holds it. Without locks, as on Windows, nobody ever does."""
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def open_locked(path: Path) -> BinaryIO | None:
    """Open a file for reading and appending and take its lock; it is made when missing. None when another process holds the lock.

    Raises:
        OSError: When it cannot be opened.
    """
    while True:
        file = path.open("a+b")
        if not take_lock(file):
            file.close()
            return None
        with suppress(OSError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()  # the process that held it has deleted or moved the file meanwhile
