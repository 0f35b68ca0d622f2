"""Output folders: created when needed, removed if they stay empty, or written atomically."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, BinaryIO


@contextmanager
def create_folder(folder: Path, *, ours: bool = False) -> Iterator[None]:
    """Create a folder and its parents for the block; at its end those that were created and are empty are removed.

    A failure before the first write, e.g. on a full disk, therefore leaves nothing behind.

    Args:
        folder: An existing folder is kept.
        ours: Whether to remove the folder if it is empty even if it existed before.

    Raises:
        OSError: When a folder cannot be created.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()] or ([folder] if ours else [])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        for path in made:
            with suppress(OSError):  # not empty
                path.rmdir()


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty temporary folder; it is renamed to ``folder`` if the block succeeds, and removed otherwise.

    Remains of a killed process are removed at the next call.

    Raises:
        OSError: When a folder cannot be created or renamed.
    """
    draft = folder.with_name(f".{folder.name}.partial")
    with create_folder(folder.parent):
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        try:
            yield draft
            draft.rename(folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def try_lock(file: IO[Any] | int) -> bool:
    """Lock a file until it is closed; False if another process holds the lock. Without support for locks, as on Windows, always True."""
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
    """Open a file for reading and appending, creating it if missing, and lock it; None if another process holds the lock.

    Raises:
        OSError: When it cannot be opened.
    """
    while True:
        file = path.open("a+b")
        if not try_lock(file):
            file.close()
            return None
        with suppress(OSError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()  # the previous holder of the lock has deleted or moved the file meanwhile
