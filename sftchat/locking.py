"""The system's lock on an open file, which ends with its process however that ends."""

from __future__ import annotations

from typing import IO, Any


def take_lock(file: IO[Any]) -> bool:
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
