"""The file of the ledger: one SQLite database in the cache folder, beside the reply cache; ``ledger`` reads and writes results."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sftchat._util.files import CACHE_VARIABLE, cache_folder
from sftchat._util.sqlite import open_database
from sftchat.errors import SftchatError, first_line

FILE_NAME = "ledger.sqlite"
VERSION = 1
WAIT_SECONDS = 10.0
"""Maximum time to wait for another process that is writing."""
TABLES = """
CREATE TABLE IF NOT EXISTS results (
    number INTEGER PRIMARY KEY AUTOINCREMENT, evaluation TEXT, time REAL, role TEXT, model TEXT, identity TEXT, weights TEXT, step INTEGER,
    task TEXT, evalset TEXT, evalset_sha256 TEXT, evalset_size INTEGER, settings_hash TEXT, settings TEXT, sampling TEXT, metrics TEXT,
    requested INTEGER, answered INTEGER, right_items INTEGER, truncated INTEGER, failed INTEGER, replies TEXT, git_commit TEXT, verdict TEXT,
    higher_is_better INTEGER, per_item_rate INTEGER
);
CREATE TABLE IF NOT EXISTS items (
    result INTEGER, id TEXT, content TEXT, is_right INTEGER, value REAL, errors TEXT, reply TEXT, stats TEXT, PRIMARY KEY (result, id)
) WITHOUT ROWID;
"""


def ledger_path() -> Path:
    """Return the path of the ledger, in the cache folder."""
    return cache_folder() / FILE_NAME


def connect(path: Path, wait: float = WAIT_SECONDS) -> sqlite3.Connection:
    """Open a ledger, creating it when missing; every statement is a transaction.

    Raises:
        OSError, sqlite3.Error, SftchatError: When it cannot be used; ``ledger_failure`` turns them into a message.
    """
    return open_database(
        path,
        TABLES,
        VERSION,
        wait,
        lambda other: f"'{path}' has format {other}, this sftchat reads {VERSION}; 'sftchat cache prune --ledger --all' empties it",
    )


@contextmanager
def open_ledger(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a connection; errors in the block, also of malformed content, are raised as ``SftchatError``."""
    try:
        with closing(connect(path)) as connection:
            yield connection
    except (OSError, sqlite3.Error, ValueError, TypeError) as error:
        raise SftchatError(ledger_failure(path, error)) from error


def ledger_failure(path: Path, error: Exception) -> str:
    """Return one line with the path and the reason why a ledger cannot be used."""
    if isinstance(error, SftchatError):
        return str(error)
    message = getattr(error, "strerror", None) or first_line(error)
    return (
        f"cannot use '{path}': {message.lower()}; ${CACHE_VARIABLE} chooses another folder, "
        "'sftchat cache prune --ledger --all' empties this one"
    )


def count_results(path: Path) -> int:
    """Count the results; 0 when there is no ledger.

    Raises:
        SftchatError: When the file cannot be used.
    """
    if not path.exists():
        return 0
    with open_ledger(path) as connection:
        return int(connection.execute("SELECT count(*) FROM results").fetchone()[0])


def delete_results(path: Path, before: float | None = None) -> int:
    """Delete results with their items; return the number of results.

    Args:
        path: SQLite file; nothing happens when it does not exist.
        before: Delete only results of this time or earlier, in seconds since 1970; None deletes all.

    Raises:
        SftchatError: When the file cannot be used.
    """
    if not path.exists():
        return 0
    with open_ledger(path) as connection:
        connection.execute("BEGIN IMMEDIATE")
        cursor = connection.execute("DELETE FROM results WHERE time <= coalesce(?, time)", (before,))
        connection.execute("DELETE FROM items WHERE result NOT IN (SELECT number FROM results)")
        connection.execute("COMMIT")
        connection.execute("VACUUM")
        return cursor.rowcount
