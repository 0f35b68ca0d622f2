"""Reply cache: generated replies and results of leak checks, stored under a hash of everything that affects them.

It is one SQLite file in WAL mode: safe for concurrent writers, crash-safe. A cache that cannot be used never stops an evaluation: it warns once and
is then disabled.
"""

from __future__ import annotations

import os
import sqlite3
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sftchat._util.files import CACHE_VARIABLE, cache_folder
from sftchat._util.parsing import from_json
from sftchat._util.sqlite import open_database
from sftchat.errors import SftchatError, first_line
from sftchat.models.fingerprint import file_hash
from sftchat.types import FinishReason

FILE_NAME = "replies.sqlite"
VERSION = 1
WAIT_SECONDS = 30.0
"""Maximum time to wait for another process that is writing."""
SETTLED_SECONDS = 2.0
"""A file's hash is cached only when its last change is older than this: a file that changes twice within a tick of the file system's clock keeps
its timestamp (git calls such an entry racily clean)."""

TABLES = """
CREATE TABLE IF NOT EXISTS replies (
    key BLOB PRIMARY KEY, identity BLOB, text BLOB, tokens BLOB, finish_reason TEXT, prompt_tokens INTEGER
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS replies_of_identity ON replies (identity);
CREATE TABLE IF NOT EXISTS models (identity BLOB PRIMARY KEY, name TEXT, used REAL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS files (
    path BLOB PRIMARY KEY, size INTEGER, mtime_ns INTEGER, ctime_ns INTEGER, inode INTEGER, device INTEGER, sha256 TEXT
) WITHOUT ROWID;
"""
LEAK_TABLE = "CREATE TABLE IF NOT EXISTS leak_checks (key BLOB PRIMARY KEY, leaks BLOB, used REAL) WITHOUT ROWID"
"""Also created in cache files of earlier versions of sftchat, which ignore it."""
LEAK_BYTES = 32 << 20
"""Maximum size of all results of leak checks together; the least recently used ones are deleted."""
DELETE_OLDEST_LEAKS = """
DELETE FROM leak_checks WHERE key IN (
    SELECT key FROM (SELECT key, sum(length(leaks)) OVER (ORDER BY used DESC, key) AS size FROM leak_checks) WHERE size > ?
)
"""


@dataclass(frozen=True)
class CachedReply:
    """A cached reply; the fields are those of ``Chunk``, and ``finish_reason`` is ``stop`` or ``length``."""

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    prompt_tokens: int


def default_path() -> Path:
    """Return the path of the cache, in the cache folder."""
    return cache_folder() / FILE_NAME


class ReplyCache:
    """Replies by key; the file is opened at first use.

    Args:
        path: SQLite file; created with its folder when missing.
        warn: Called once, with one line, when the cache becomes unusable.
        settled_seconds: Minimum age of a file's last change for its hash to be cached.

    Attributes:
        broken: Whether the cache is unusable; then nothing is found or stored.
    """

    def __init__(self, path: Path, warn: Callable[[str], None], settled_seconds: float = SETTLED_SECONDS) -> None:
        self.path = path
        self.settled_seconds = settled_seconds
        self.broken = False
        self._warn = warn
        self._connection: sqlite3.Connection | None = None

    def get(self, key: bytes) -> CachedReply | None:
        """Return the reply with a key; None when there is none or the cache is unusable."""
        rows = self._execute("SELECT text, tokens, finish_reason, prompt_tokens FROM replies WHERE key = ?", (key,))
        if not rows:
            return None
        text, tokens, finish_reason, prompt_tokens = rows[0]
        try:
            stored = CachedReply(text.decode("utf-8", "surrogatepass"), tuple(array("I", tokens)), finish_reason, prompt_tokens)
            return from_json(CachedReply, vars(stored))
        except (ValueError, TypeError, AttributeError) as error:
            self._disable(error)
            return None

    def put(self, key: bytes, identity: str, reply: CachedReply, *, replace: bool = False) -> bool:
        """Store a reply; it is on disk when this returns. An existing reply stays unless ``replace`` is set.

        Returns:
            Whether the cache now holds a reply with that key.
        """
        text = reply.text.encode("utf-8", "surrogatepass")
        tokens = array("I", reply.token_ids).tobytes()  # in this machine's byte order: a cache is not moved
        row = (key, bytes.fromhex(identity), text, tokens, reply.finish_reason, reply.prompt_tokens)
        self._execute(f"INSERT OR {'REPLACE' if replace else 'IGNORE'} INTO replies VALUES (?, ?, ?, ?, ?, ?)", row)
        return not self.broken

    def touch(self, identity: str, name: str) -> None:
        """Record the name of a model and that it is used now."""
        storable_name = name.encode("utf-8", "backslashreplace").decode()
        self._execute("INSERT OR REPLACE INTO models VALUES (?, ?, ?)", (bytes.fromhex(identity), storable_name, time.time()))

    def file_hash(self, path: Path) -> str:
        """Return the SHA-256 of a file: the cached one when path, size, timestamps, inode and device are unchanged.

        The timestamps include that of the last status change because, unlike the modification time, no program can set it back.

        Raises:
            OSError: When the file cannot be read.
        """
        name, signature = os.fsencode(path.absolute()), _file_signature(path)
        rows = self._execute("SELECT size, mtime_ns, ctime_ns, inode, device, sha256 FROM files WHERE path = ?", (name,))
        if rows:
            *cached_signature, cached_sha256 = rows[0]
            if tuple(cached_signature) == signature:
                return str(cached_sha256)
        sha256 = file_hash(path)
        _, mtime_ns, ctime_ns, *_ = signature
        settled = time.time() - max(mtime_ns, ctime_ns) / 1e9 > self.settled_seconds
        if settled and _file_signature(path) == signature:
            self._execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?)", (name, *signature, sha256))
        return sha256

    def get_leaks(self, key: bytes) -> str | None:
        """Return the result of a leak check as stored by ``put_leaks``; None when there is none or the cache is unusable."""
        rows = self._execute("SELECT leaks FROM leak_checks WHERE key = ?", (key,))
        if not rows:
            return None
        self._execute("UPDATE leak_checks SET used = ? WHERE key = ?", (time.time(), key))
        (leaks,) = rows[0]
        return bytes(leaks).decode("utf-8", "replace")

    def put_leaks(self, key: bytes, leaks: str) -> None:
        """Store the result of a leak check; delete the least recently used ones when all together exceed ``LEAK_BYTES``."""
        data = leaks.encode("utf-8", "surrogatepass")
        self._execute("INSERT OR REPLACE INTO leak_checks VALUES (?, ?, ?)", (key, data, time.time()))
        self._execute(DELETE_OLDEST_LEAKS, (LEAK_BYTES,))

    def close(self) -> None:
        """Close the file; it is opened again at the next use."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _execute(self, statement: str, values: tuple[object, ...]) -> list[tuple[Any, ...]]:
        """Execute a statement and return its rows; on an error, disable the cache and return no rows."""
        if self.broken:
            return []
        try:
            if self._connection is None:
                self._connection = connect(self.path)
            return self._connection.execute(statement, values).fetchall()
        except (OSError, sqlite3.Error, SftchatError) as error:
            self._disable(error)
            return []

    def _disable(self, error: Exception) -> None:
        self.broken = True
        self.close()
        self._warn(f"replies are not cached: {failure_reason(self.path, error)}")


def connect(path: Path) -> sqlite3.Connection:
    """Open a cache file, creating it when missing; every statement is a transaction.

    Raises:
        OSError, sqlite3.Error, SftchatError: When it cannot be used; ``failure_reason`` turns them into a message.
    """
    connection = open_database(
        path,
        TABLES,
        VERSION,
        WAIT_SECONDS,
        lambda other: f"'{path}' has format {other}, this sftchat reads {VERSION}; 'sftchat cache prune --all' empties it",
    )
    try:
        connection.execute(LEAK_TABLE)
    except BaseException:
        connection.close()
        raise
    return connection


def failure_reason(path: Path, error: Exception) -> str:
    """Return one line with the path and the reason why a cache cannot be used."""
    if isinstance(error, SftchatError):
        return str(error)
    message = getattr(error, "strerror", None) or first_line(error)
    return f"cannot use '{path}': {message.lower()}; ${CACHE_VARIABLE} chooses another folder, 'sftchat cache prune --all' empties this one"


def _file_signature(path: Path) -> tuple[int, int, int, int, int]:
    """Return values of which at least one changes with the file: size, times of modification and status change, inode and device."""
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, stat.st_dev
