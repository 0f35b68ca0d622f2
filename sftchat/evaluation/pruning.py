"""What the reply store holds, and how to make it hold less."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sftchat.errors import SftchatError
from sftchat.evaluation.store import connect, reason

DAY = 86_400
BY_MODEL = """
SELECT CAST(coalesce(name, '') AS TEXT), lower(hex(replies.identity)), count(*), CAST(coalesce(used, 0) AS REAL)
FROM replies LEFT JOIN models ON replies.identity = models.identity
GROUP BY replies.identity ORDER BY coalesce(used, 0) DESC, replies.identity
"""


@dataclass(frozen=True)
class Kept:
    """What is kept of one model.

    Attributes:
        name: What the user called it last.
        identity: Hash of everything that decides its replies, in hexadecimal.
        replies: How many are kept.
        used: When it was last asked, in seconds since 1970.
    """

    name: str
    identity: str
    replies: int
    used: float


def summary(path: Path) -> list[Kept]:
    """What is kept of each model, the last used first; nothing when there is no store.

    Raises:
        SftchatError: When the file cannot be used.
    """
    if not path.exists():
        return []
    with _opened(path) as connection:
        return [Kept(*row) for row in connection.execute(BY_MODEL)]


def prune(path: Path, *, identity: str = "", older_than: float = 0) -> int:
    """Forget replies, and the hashes of files that are no more; returns how many replies.

    Args:
        path: The store; nothing happens when there is none.
        identity: Only of models whose identity begins with this, in hexadecimal; empty for any.
        older_than: Only of models last asked this many days ago or earlier; 0 for any.

    Raises:
        SftchatError: When the file cannot be used.
    """
    latest = time.time() - older_than * DAY
    gone = [model for model in summary(path) if model.identity.startswith(identity.lower()) and model.used <= latest]
    if path.exists():
        with _opened(path) as connection:
            for model in gone:
                for table in ("replies", "models"):
                    connection.execute(f"DELETE FROM {table} WHERE identity = ?", (bytes.fromhex(model.identity),))
            connection.execute("DELETE FROM files WHERE typeof(path) != 'blob'")  # of a damaged store
            for (file,) in connection.execute("SELECT path FROM files").fetchall():
                if not os.path.exists(file):  # noqa: PTH110 - bytes, which pathlib does not take
                    connection.execute("DELETE FROM files WHERE path = ?", (file,))
            connection.execute("VACUUM")
    return sum(model.replies for model in gone)


def clear(path: Path) -> int:
    """Forget everything; a file that is damaged or no store is deleted. Returns how many replies are known to have gone.

    Raises:
        SftchatError: When the file is in use, or cannot be deleted.
    """
    if not path.exists():
        return 0
    try:
        with _opened(path) as connection:
            count = int(connection.execute("SELECT count(*) FROM replies").fetchone()[0])
            connection.executescript("DELETE FROM replies; DELETE FROM models; DELETE FROM files; VACUUM;")
            return count
    except SftchatError as error:
        if isinstance(error.__cause__, sqlite3.OperationalError):  # locked or not to be written: not damaged
            raise
    for file in files(path):
        try:
            file.unlink(missing_ok=True)
        except OSError as error:
            raise SftchatError(reason(path, error)) from error
    return 0


def size(path: Path) -> int:
    """Bytes on disk."""
    return sum(file.stat().st_size for file in files(path) if file.is_file())


def files(path: Path) -> tuple[Path, ...]:
    """The database and what SQLite keeps beside it."""
    return tuple(path.with_name(path.name + end) for end in ("", "-wal", "-shm"))


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection whose errors are ours."""
    try:
        with closing(connect(path)) as connection:
            yield connection
    except (OSError, sqlite3.Error) as error:
        raise SftchatError(reason(path, error)) from error
