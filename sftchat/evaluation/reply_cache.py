"""Reply cache: generated replies under a hash of everything that affects them, in one SQLite file.

SQLite in WAL mode, one transaction per reply: safe for concurrent writers, crash-safe. A cache that cannot be used never stops an evaluation:
it warns once and is then disabled.
"""

from __future__ import annotations

import os
import sqlite3
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sftchat._util.parsing import expand_user, from_json
from sftchat._util.sqlite import open_database
from sftchat.errors import SftchatError, first_line
from sftchat.models.fingerprint import file_hash
from sftchat.types import FinishReason

FILE = "replies.sqlite"
VARIABLE = "SFTCHAT_CACHE_DIR"
VERSION = 1
WAIT_SECONDS = 30.0
"""How long to wait for another process that is writing."""
SETTLED_SECONDS = 2.0
"""Minimum age of a file's last change, when it is hashed, for its hash to be cached. Timestamps of file systems are coarse: a younger file may
change again within the same tick and with the same size (git calls such an entry racily clean).
"""

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


@dataclass(frozen=True)
class Stored:
    """A cached reply.

    Attributes:
        text: Generated text.
        token_ids: Its tokens without the stop token.
        finish_reason: ``stop`` or ``length``; other replies are not cached.
        prompt_tokens: Length of the rendered prompt in tokens.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    prompt_tokens: int


def default_path() -> Path:
    """Return the path of the cache: in ``$SFTCHAT_CACHE_DIR``, else in the user's cache folder."""
    given = os.environ.get(VARIABLE)
    if given:
        return expand_user(given) / FILE
    from platformdirs import user_cache_path

    return user_cache_path("sftchat", appauthor=False) / FILE


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

    def get(self, key: bytes) -> Stored | None:
        """Return the reply with a key, or None."""
        rows = self._do("SELECT text, tokens, finish_reason, prompt_tokens FROM replies WHERE key = ?", (key,))
        if not rows:
            return None
        text, tokens, finish_reason, prompt_tokens = rows[0]
        try:
            return from_json(
                Stored, Stored(text.decode("utf-8", "surrogatepass"), _unpacked(tokens), finish_reason, prompt_tokens).__dict__
            )
        except (ValueError, TypeError, AttributeError) as error:
            self._give_up(error)
            return None

    def put(self, key: bytes, identity: str, reply: Stored, *, replace: bool = False) -> bool:
        """Store a reply; it is on disk when this returns. An existing reply stays unless ``replace`` is set.

        Returns:
            Whether the cache now holds a reply with that key.
        """
        row = (key, bytes.fromhex(identity), reply.text.encode("utf-8", "surrogatepass"), _packed(reply.token_ids))
        word = "REPLACE" if replace else "IGNORE"
        self._do(f"INSERT OR {word} INTO replies VALUES (?, ?, ?, ?, ?, ?)", (*row, reply.finish_reason, reply.prompt_tokens))
        return not self.broken

    def touch(self, identity: str, name: str) -> None:
        """Record that a model is in use, and its name."""
        readable = name.encode("utf-8", "backslashreplace").decode()
        self._do("INSERT OR REPLACE INTO models VALUES (?, ?, ?)", (bytes.fromhex(identity), readable, time.time()))

    def file_hash(self, path: Path) -> str:
        """SHA-256 of a file; the cached hash is returned when path, size, timestamps, inode and device are unchanged.

        The time of the last status change is included because, unlike the modification time, no program can set it back.

        Raises:
            OSError: When the file cannot be read.
        """
        name, facts = os.fsencode(path.absolute()), _facts(path)
        known = self._do("SELECT size, mtime_ns, ctime_ns, inode, device, sha256 FROM files WHERE path = ?", (name,))
        if known and known[0][:-1] == facts:
            return str(known[0][-1])
        found = file_hash(path)
        settled = time.time() - max(facts[1], facts[2]) / 1e9 > self.settled_seconds
        if settled and _facts(path) == facts:
            self._do("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?)", (name, *facts, found))
        return found

    def close(self) -> None:
        """Close the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _do(self, statement: str, values: tuple[object, ...]) -> list[tuple[Any, ...]]:
        """Execute a statement; on an error, disable the cache."""
        if self.broken:
            return []
        try:
            if self._connection is None:
                self._connection = connect(self.path)
            return self._connection.execute(statement, values).fetchall()
        except (OSError, sqlite3.Error, SftchatError) as error:
            self._give_up(error)
            return []

    def _give_up(self, error: Exception) -> None:
        """Disable the cache and warn with the reason."""
        self.broken = True
        self.close()
        self._warn(f"replies are not remembered: {reason(self.path, error)}")


def connect(path: Path) -> sqlite3.Connection:
    """Open a cache file, creating it when missing; every statement is a transaction.

    Raises:
        OSError, sqlite3.Error, SftchatError: When it cannot be used; ``reason`` turns them into a message.
    """
    return open_database(
        path,
        TABLES,
        VERSION,
        WAIT_SECONDS,
        lambda found: f"'{path}' has format {found}, this sftchat reads {VERSION}; 'sftchat cache prune --all' empties it",
    )


def reason(path: Path, error: Exception) -> str:
    """Return one line with the path and the reason why a cache cannot be used."""
    if isinstance(error, SftchatError):
        return str(error)
    said = getattr(error, "strerror", None) or first_line(error)
    return f"cannot use '{path}': {said.lower()}; ${VARIABLE} chooses another folder, 'sftchat cache prune --all' empties this one"


def _facts(path: Path) -> tuple[int, int, int, int, int]:
    """Return what identifies an unchanged file: size, times of modification and status change, inode, device."""
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, stat.st_dev


def _packed(token_ids: tuple[int, ...]) -> bytes:
    """Encode token ids with four bytes each, in this machine's byte order: a cache is not moved between machines."""
    return array("I", token_ids).tobytes()


def _unpacked(data: bytes) -> tuple[int, ...]:
    """Decode token ids."""
    ids = array("I")
    ids.frombytes(data)
    return tuple(ids)


SECONDS_A_DAY = 86_400
BY_MODEL = """
SELECT CAST(coalesce(name, '') AS TEXT), lower(hex(replies.identity)), count(*), CAST(coalesce(used, 0) AS REAL)
FROM replies LEFT JOIN models ON replies.identity = models.identity
GROUP BY replies.identity ORDER BY coalesce(used, 0) DESC, replies.identity
"""


@dataclass(frozen=True)
class Kept:
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


def summary(path: Path) -> list[Kept]:
    """Summarise the cached replies by model, the last used first; empty when there is no cache.

    Raises:
        SftchatError: When the file cannot be used.
    """
    if not path.exists():
        return []
    with _opened(path) as connection:
        return [Kept(*row) for row in connection.execute(BY_MODEL)]


def prune(path: Path, *, identity: str = "", older_than: float = 0) -> int:
    """Delete cached replies, and the hashes of files that no longer exist; return the number of replies deleted.

    Args:
        path: SQLite file; nothing happens when it does not exist.
        identity: Only models whose identity starts with this, in hexadecimal; empty for all.
        older_than: Only models last used at least this many days ago; 0 for all.

    Raises:
        SftchatError: When the file cannot be used.
    """
    latest = time.time() - older_than * SECONDS_A_DAY
    gone = [model for model in summary(path) if model.identity.startswith(identity.lower()) and model.used <= latest]
    if path.exists():
        with _opened(path) as connection:
            for model in gone:
                for table in ("replies", "models"):
                    connection.execute(f"DELETE FROM {table} WHERE identity = ?", (bytes.fromhex(model.identity),))
            connection.execute("DELETE FROM files WHERE typeof(path) != 'blob'")  # from a damaged file
            for (file,) in connection.execute("SELECT path FROM files").fetchall():
                if not os.path.exists(file):  # noqa: PTH110 - bytes, which pathlib does not take
                    connection.execute("DELETE FROM files WHERE path = ?", (file,))
            connection.execute("VACUUM")
    return sum(model.replies for model in gone)


def clear(path: Path) -> int:
    """Delete all content; a damaged file, or one that is no cache, is deleted. Return the number of replies known to be deleted.

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
        if isinstance(error.__cause__, sqlite3.OperationalError):  # locked or read-only, not damaged
            raise
    for file in files(path):
        try:
            file.unlink(missing_ok=True)
        except OSError as error:
            raise SftchatError(reason(path, error)) from error
    return 0


def size(path: Path) -> int:
    """Return the size on disk in bytes."""
    return sum(file.stat().st_size for file in files(path) if file.is_file())


def files(path: Path) -> tuple[Path, ...]:
    """Return the database file and the files that SQLite keeps next to it."""
    return tuple(path.with_name(path.name + end) for end in ("", "-wal", "-shm"))


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a connection that raises ``SftchatError``."""
    try:
        with closing(connect(path)) as connection:
            yield connection
    except (OSError, sqlite3.Error) as error:
        raise SftchatError(reason(path, error)) from error
