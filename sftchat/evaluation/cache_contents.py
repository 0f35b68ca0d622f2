"""Contents of the reply cache, for ``sftchat cache``: summarise and delete; deletes results of the ledger too."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sftchat.errors import SftchatError
from sftchat.evaluation.ledger_file import delete_results, ledger_failure
from sftchat.evaluation.reply_cache import connect, failure_reason

SECONDS_A_DAY = 86_400
BY_MODEL = """
SELECT CAST(coalesce(name, '') AS TEXT), lower(hex(replies.identity)), count(*), CAST(coalesce(used, 0) AS REAL)
FROM replies LEFT JOIN models ON replies.identity = models.identity
GROUP BY replies.identity ORDER BY coalesce(used, 0) DESC, replies.identity
"""


@dataclass(frozen=True)
class ModelSummary:
    """Summary of one model's cached replies.

    Attributes:
        name: Latest name of the model, as typed by the user.
        identity: Hash of everything that affects its replies, in hexadecimal.
        replies: Number of cached replies.
        used: Time of last use, in seconds since 1970.
    """

    name: str
    identity: str
    replies: int
    used: float


def summarise_models(path: Path) -> list[ModelSummary]:
    """Summarise the cached replies by model, the last used first; empty when there is no cache.

    Raises:
        SftchatError: When the file cannot be used.
    """
    if not path.exists():
        return []
    with _open_cache(path) as connection:
        return [ModelSummary(*row) for row in connection.execute(BY_MODEL)]


def count_leak_checks(path: Path) -> int:
    """Count the stored results of leak checks.

    Raises:
        SftchatError: When the file cannot be used.
    """
    if not path.exists():
        return 0
    with _open_cache(path) as connection:
        return int(connection.execute("SELECT count(*) FROM leak_checks").fetchone()[0])


def prune(path: Path, *, identity: str = "", older_than: float = 0) -> int:
    """Delete cached replies, and the hashes of files that no longer exist; return the number of replies deleted.

    Args:
        path: SQLite file; nothing happens when it does not exist.
        identity: Start of the identity, in hexadecimal, of the models whose replies are deleted; empty for all models and the leak checks.
        older_than: Minimum time since the last use, in days; 0 for everything.

    Raises:
        SftchatError: When the file cannot be used.
    """
    latest = time.time() - older_than * SECONDS_A_DAY
    deleted = [model for model in summarise_models(path) if model.identity.startswith(identity.lower()) and model.used <= latest]
    if path.exists():
        with _open_cache(path) as connection:
            for model in deleted:
                for table in ("replies", "models"):
                    connection.execute(f"DELETE FROM {table} WHERE identity = ?", (bytes.fromhex(model.identity),))
            if not identity:
                connection.execute("DELETE FROM leak_checks WHERE used <= ?", (latest,))
            connection.execute("DELETE FROM files WHERE typeof(path) != 'blob'")  # from a damaged file
            for (file,) in connection.execute("SELECT path FROM files").fetchall():
                if not os.path.exists(file):  # noqa: PTH110 - bytes, which pathlib does not take
                    connection.execute("DELETE FROM files WHERE path = ?", (file,))
            connection.execute("VACUUM")
    return sum(model.replies for model in deleted)


def clear(path: Path) -> int:
    """Delete all content; a file that is damaged or no cache is deleted itself. Return the number of replies, 0 for such a file.

    Raises:
        SftchatError: When the file is in use, or cannot be deleted.
    """
    if not path.exists():
        return 0
    try:
        with _open_cache(path) as connection:
            count = int(connection.execute("SELECT count(*) FROM replies").fetchone()[0])
            connection.executescript("DELETE FROM replies; DELETE FROM models; DELETE FROM files; DELETE FROM leak_checks; VACUUM;")
            return count
    except SftchatError as error:
        if isinstance(error.__cause__, sqlite3.OperationalError):  # locked or read-only, not damaged
            raise
    _unlink(path, failure_reason)
    return 0


def prune_ledger(path: Path, older_than: float | None) -> int:
    """Delete results of the ledger; a file that is damaged or no ledger is deleted itself when everything is. Return the number of results.

    Args:
        path: SQLite file; nothing happens when it does not exist.
        older_than: Minimum age in days; None for everything.

    Raises:
        SftchatError: When the file is in use, cannot be deleted, or is damaged and ``older_than`` is given.
    """
    try:
        return delete_results(path, None if older_than is None else time.time() - older_than * SECONDS_A_DAY)
    except SftchatError as error:
        if older_than is not None or isinstance(error.__cause__, sqlite3.OperationalError):  # locked or read-only, not damaged
            raise
    _unlink(path, ledger_failure)
    return 0


def _unlink(path: Path, reason: Callable[[Path, Exception], str]) -> None:
    """Delete a database; raise ``SftchatError`` with the reason when a file cannot be deleted."""
    for file in database_files(path):
        try:
            file.unlink(missing_ok=True)
        except OSError as error:
            raise SftchatError(reason(path, error)) from error


def disk_size(path: Path) -> int:
    """Return the size of the cache on disk in bytes."""
    return sum(file.stat().st_size for file in database_files(path) if file.is_file())


def database_files(path: Path) -> tuple[Path, ...]:
    """Return the database file and the files that SQLite keeps next to it."""
    return tuple(path.with_name(path.name + suffix) for suffix in ("", "-wal", "-shm"))


@contextmanager
def _open_cache(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a connection; errors in the block are raised as ``SftchatError``."""
    try:
        with closing(connect(path)) as connection:
            yield connection
    except (OSError, sqlite3.Error) as error:
        raise SftchatError(failure_reason(path, error)) from error
