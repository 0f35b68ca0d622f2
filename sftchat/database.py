"""SQLite files that programs write at once and that a killed one leaves whole."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

from sftchat.errors import SftchatError


def open_database(path: Path, tables: str, version: int, wait: float, other: Callable[[int], str]) -> sqlite3.Connection:
    """Open a file in write-ahead mode, made when it is missing; every statement is a transaction.

    Args:
        path: The file; its folder is made too.
        tables: SQL that makes the tables of a new file.
        version: Of the tables, at least 1.
        wait: Seconds to wait for another program that writes.
        other: What to say of a file with another version.

    Raises:
        OSError, sqlite3.Error: When it cannot be used.
        SftchatError: When it has another version.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=wait, isolation_level=None)
    try:
        # after a power cut what was written last may be gone, the file is whole; a killed process loses nothing
        connection.execute("PRAGMA synchronous = NORMAL")
        found = connection.execute("PRAGMA user_version").fetchone()[0]
        if found == 0:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(f"BEGIN IMMEDIATE; {tables} PRAGMA user_version = {version}; COMMIT;")
        elif found != version:
            raise SftchatError(other(found))
    except BaseException:
        connection.close()
        raise
    return connection
