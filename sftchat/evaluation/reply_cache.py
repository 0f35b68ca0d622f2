"""The reply store: what models answered, by the weights that answered it, in one SQLite file.

Every reply is a transaction of its own in write-ahead mode, so a killed process loses none that it had, and two processes may write at once.
A store that cannot be used is never in the way of an evaluation: it says so once, and remembers nothing.
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

from sftchat._util.parsing import from_json, path_of
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
"""A file changed later than this before it was hashed is hashed again: clocks of file systems are so coarse that it may change once more
within the same tick and with the same size (git calls such an entry racily clean)."""

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
    """A reply as it is kept.

    Attributes:
        text: As generated.
        token_ids: Its tokens, the stop token not among them.
        finish_reason: ``stop`` or ``length``; others are not kept.
        prompt_tokens: Length of the rendered prompt.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    prompt_tokens: int


def default_path() -> Path:
    """Where replies are kept: in ``$SFTCHAT_CACHE_DIR``, else in the user's cache folder."""
    given = os.environ.get(VARIABLE)
    if given:
        return path_of(given) / FILE
    from platformdirs import user_cache_path

    return user_cache_path("sftchat", appauthor=False) / FILE


class ReplyCache:
    """Replies by key; opened at its first use.

    Args:
        path: The file; made with its folder when missing.
        warn: Told once, in one line, when nothing can be remembered any more.
        settled_seconds: How long a file must have been left alone for its hash to be remembered.

    Attributes:
        broken: It could not be used; nothing is found or kept.
    """

    def __init__(self, path: Path, warn: Callable[[str], None], settled_seconds: float = SETTLED_SECONDS) -> None:
        self.path = path
        self.settled_seconds = settled_seconds
        self.broken = False
        self._warn = warn
        self._connection: sqlite3.Connection | None = None

    def get(self, key: bytes) -> Stored | None:
        """The reply of a key."""
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
        """Keep a reply; on disk when this returns. The first one of a key stays unless it is to be replaced.

        Returns:
            Whether there is a reply of that key now.
        """
        row = (key, bytes.fromhex(identity), reply.text.encode("utf-8", "surrogatepass"), _packed(reply.token_ids))
        word = "REPLACE" if replace else "IGNORE"
        self._do(f"INSERT OR {word} INTO replies VALUES (?, ?, ?, ?, ?, ?)", (*row, reply.finish_reason, reply.prompt_tokens))
        return not self.broken

    def touch(self, identity: str, name: str) -> None:
        """Note that a model is in use, and what it is called."""
        readable = name.encode("utf-8", "backslashreplace").decode()
        self._do("INSERT OR REPLACE INTO models VALUES (?, ?, ?)", (bytes.fromhex(identity), readable, time.time()))

    def file_hash(self, path: Path) -> str:
        """SHA-256 of a file, from memory when path, size, both times and inode are those of the last time.

        The time of the last status change is among them because, unlike that of the last modification, no program can set it back.

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
        """Carry out a statement, or give up on the store for good."""
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
        """Say why nothing can be remembered any more."""
        self.broken = True
        self.close()
        self._warn(f"replies are not remembered: {reason(self.path, error)}")


def connect(path: Path) -> sqlite3.Connection:
    """Open a store, made when it is missing; every statement is a transaction.

    Raises:
        OSError, sqlite3.Error, SftchatError: When it cannot be used; ``reason`` puts them into words.
    """
    return open_database(
        path,
        TABLES,
        VERSION,
        WAIT_SECONDS,
        lambda found: f"'{path}' has format {found}, this sftchat reads {VERSION}; 'sftchat cache prune --all' empties it",
    )


def reason(path: Path, error: Exception) -> str:
    """Why a store cannot be used, with its path, in one line."""
    if isinstance(error, SftchatError):
        return str(error)
    said = getattr(error, "strerror", None) or first_line(error)
    return f"cannot use '{path}': {said.lower()}; ${VARIABLE} chooses another folder, 'sftchat cache prune --all' empties this one"


def _facts(path: Path) -> tuple[int, int, int, int, int]:
    """By what a file is known again: size, times of modification and status change, inode, device."""
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, stat.st_dev


def _packed(token_ids: tuple[int, ...]) -> bytes:
    """Token ids, four bytes each, in the byte order of this machine, which a cache folder does not leave."""
    return array("I", token_ids).tobytes()


def _unpacked(data: bytes) -> tuple[int, ...]:
    """Token ids from their bytes."""
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
    latest = time.time() - older_than * SECONDS_A_DAY
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
