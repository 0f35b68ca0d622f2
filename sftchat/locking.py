"""The system's lock on an open file or folder, which ends with its process however that ends."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, BinaryIO


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
