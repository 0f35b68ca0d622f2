"""SQLite files in WAL mode: safe for concurrent opening and writing, crash-safe."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from sftchat.errors import SftchatError

PAUSE_SECONDS = 0.01
"""Seconds between two attempts to open a locked file."""
LOCKED_ERRORS = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def open_database(path: Path, tables: str, version: int, wait: float, version_message: Callable[[int], str]) -> sqlite3.Connection:
    """Open a database in WAL mode, creating it if missing; the connection commits every statement.

    Several programs may open a missing file at the same time: one creates the tables, the others wait.

    Args:
        path: The file; its folder is created too.
        tables: SQL statements that create the tables, each ended by a semicolon; none contains another semicolon.
        version: Version of the tables, at least 1.
        wait: Maximum wait for another program that writes, in seconds.
        version_message: Returns the error message for a file with another version, which it gets.

    Raises:
        OSError, sqlite3.Error: When it cannot be used.
        SftchatError: When it has another version.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=wait, isolation_level=None)
    try:
        # after a power cut the last writes may be lost, but the file is intact; a killed process loses nothing
        connection.execute("PRAGMA synchronous = NORMAL")
        actual_version = _retry_while_locked(lambda: _create_tables(connection, tables, version), wait)
        if actual_version != version:
            raise SftchatError(version_message(actual_version))
    except BaseException:
        connection.close()
        raise
    return connection


def _create_tables(connection: sqlite3.Connection, tables: str, version: int) -> int:
    """Return the version of the tables; if there are none, create them in one transaction."""
    if current := _read_version(connection):
        return current
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("BEGIN IMMEDIATE")
    try:
        current = _read_version(connection)  # another program may have created them since
        if not current:
            for statement in tables.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {version}")
            current = version
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return current


def _read_version(connection: sqlite3.Connection) -> int:
    """Return the version of the tables; 0 for a new file."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _retry_while_locked(step: Callable[[], int], wait: float) -> int:
    """Retry a step while another program locks the file: SQLite does not wait when two programs switch to WAL mode."""
    deadline = time.monotonic() + wait
    while True:
        try:
            return step()
        except sqlite3.OperationalError as error:
            primary_code = error.sqlite_errorcode & 0xFF  # without the bits of an extended code
            if primary_code not in LOCKED_ERRORS or time.monotonic() > deadline:
                raise
            time.sleep(PAUSE_SECONDS)
