"""Reply cache, and the engine that serves cached replies and loads the model on the first cache miss.

The cache holds generated replies, and results of leak checks, under a hash of everything that affects them, in one SQLite file in WAL mode: safe
for concurrent writers, crash-safe. A cache that cannot be used never stops an evaluation: it warns once and is then disabled.

The key of a reply contains the request (without its id), every option, the type of the device, the versions of the libraries, the source of the
code that affects replies, and every file of the model that does (``models.model_files.files_of``). Names of models and items are not part of it.
The key contains messages, not token ids: equal files, code and messages give equal ids, so a second run needs no tokenizer. Replies of models
without a certain identity (a branch on the Hub, a server, code that comes with a model) are not cached but kept by ``partial_replies``.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import time
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

from sftchat._util.parsing import expand_user, from_json
from sftchat._util.sqlite import open_database
from sftchat.engine import Chunk, Engine, Request, assemble_reply, close_at_end
from sftchat.errors import EngineError, SftchatError, first_line
from sftchat.models.fingerprint import file_hash
from sftchat.types import FinishReason

FILE_NAME = "replies.sqlite"
FOLDER_VARIABLE = "SFTCHAT_CACHE_DIR"
VERSION = 1
WAIT_SECONDS = 30.0
"""How long to wait for another process that is writing."""
SETTLED_SECONDS = 2.0
"""Minimum age of a file's last change, when it is hashed, for its hash to be cached: within a tick of the file system's clock the file may
change again without a new timestamp (git calls such an entry racily clean)."""

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
"""Added to existing files too; other versions of sftchat ignore it."""
LEAK_BYTES = 32 << 20
"""Maximum size of all results of leak checks; those that were not used for the longest time are deleted."""
DELETE_OLDEST_LEAKS = """
DELETE FROM leak_checks WHERE key IN (
    SELECT key FROM (SELECT key, sum(length(leaks)) OVER (ORDER BY used DESC, key) AS size FROM leak_checks) WHERE size > ?
)
"""


@dataclass(frozen=True)
class CachedReply:
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
    if folder := os.environ.get(FOLDER_VARIABLE):
        return expand_user(folder) / FILE_NAME
    from platformdirs import user_cache_path

    return user_cache_path("sftchat", appauthor=False) / FILE_NAME


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
        """Return the reply with a key, or None."""
        rows = self._do("SELECT text, tokens, finish_reason, prompt_tokens FROM replies WHERE key = ?", (key,))
        if not rows:
            return None
        text, tokens, finish_reason, prompt_tokens = rows[0]
        try:
            stored = CachedReply(text.decode("utf-8", "surrogatepass"), tuple(array("I", tokens)), finish_reason, prompt_tokens)
            return from_json(CachedReply, vars(stored))
        except (ValueError, TypeError, AttributeError) as error:
            self._give_up(error)
            return None

    def put(self, key: bytes, identity: str, reply: CachedReply, *, replace: bool = False) -> bool:
        """Store a reply; it is on disk when this returns. An existing reply stays unless ``replace`` is set.

        Returns:
            Whether the cache now holds a reply with that key.
        """
        row = (
            key,
            bytes.fromhex(identity),
            reply.text.encode("utf-8", "surrogatepass"),
            array("I", reply.token_ids).tobytes(),
        )  # in this machine's byte order: a cache is not moved
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
        name, signature = os.fsencode(path.absolute()), _file_signature(path)
        rows = self._do("SELECT size, mtime_ns, ctime_ns, inode, device, sha256 FROM files WHERE path = ?", (name,))
        if rows and rows[0][:-1] == signature:
            return str(rows[0][-1])
        sha256 = file_hash(path)
        settled = time.time() - max(signature[1], signature[2]) / 1e9 > self.settled_seconds
        if settled and _file_signature(path) == signature:
            self._do("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?)", (name, *signature, sha256))
        return sha256

    def get_leaks(self, key: bytes) -> str | None:
        """Return the result of a leak check as stored by ``put_leaks``, or None."""
        rows = self._do("SELECT leaks FROM leak_checks WHERE key = ?", (key,))
        if not rows:
            return None
        self._do("UPDATE leak_checks SET used = ? WHERE key = ?", (time.time(), key))
        return bytes(rows[0][0]).decode("utf-8", "replace")

    def put_leaks(self, key: bytes, leaks: str) -> None:
        """Store the result of a leak check; old ones are deleted when all of them together exceed ``LEAK_BYTES``."""
        data = leaks.encode("utf-8", "surrogatepass")
        self._do("INSERT OR REPLACE INTO leak_checks VALUES (?, ?, ?)", (key, data, time.time()))
        self._do(DELETE_OLDEST_LEAKS, (LEAK_BYTES,))

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
    return (
        f"cannot use '{path}': {message.lower()}; ${FOLDER_VARIABLE} chooses another folder, 'sftchat cache prune --all' empties this one"
    )


def _file_signature(path: Path) -> tuple[int, int, int, int, int]:
    """Return what changes when a file does: size, times of modification and status change, inode and device."""
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, stat.st_dev


@dataclass
class CacheOptions:
    """Reply cache of an evaluation and its usage counters.

    Attributes:
        cache: The reply cache.
        identify: Maps a model name to a hash of everything but the request that affects its replies; empty when unknown.
        fresh: Whether to ignore cached replies and replace them.
        kept: Number of this evaluation's replies that are in the cache, found or stored.
        describe: Maps the name of a model without an identity to its name and options.
        say: Called with a line for the user.
        lost: Number of this evaluation's replies that are stored nowhere.
    """

    cache: ReplyCache
    identify: Callable[[str], str]
    fresh: bool = False
    kept: int = 0
    describe: Callable[[str], str] = str
    say: Callable[[str], None] = lambda _: None
    lost: int = 0


def request_key(identity: str, request: Request) -> bytes:
    """Return the cache key of a reply: a hash of the model's identity, in hexadecimal, and the request without its id."""
    hashed: list[Any] = [identity, request.messages, request.prompt, asdict(request.sampling), request.adapter, request.reply_prefix]
    hashed += [dict(request.template_arguments)] if request.template_arguments else []
    hashed += [request.reply_ids] if request.reply_ids else []
    hashed += [["tools", *request.tools]] if request.tools else []
    hashed += [["logprobs", request.logprobs]] if request.logprobs is not None else []
    return hashlib.sha256(json.dumps(hashed, sort_keys=True).encode()).digest()


class CachedEngine:
    """An ``Engine`` that serves cached replies and sends the other requests to a model; equal requests are generated once.

    Args:
        name: Model name as typed by the user.
        open_engine: Opens the model; called on the first cache miss.
        options: Cache options; None disables the cache.

    Attributes:
        hits: Number of replies served from the cache.
        opening_seconds: Time taken to open the model.
    """

    def __init__(self, name: str, open_engine: Callable[[str], Engine], options: CacheOptions | None = None) -> None:
        self.name = name
        self.hits = 0
        self.opening_seconds = 0.0
        self._open = open_engine
        self.options = options
        self._identity = options.identify(name) if options is not None else ""
        self._engine: Engine | None = None
        self._renewed: set[bytes] = set()
        if options is not None and self._identity:
            options.cache.touch(self._identity, name)

    @property
    def caches(self) -> bool:
        """Whether generated replies are cached."""
        return self.options is not None and bool(self._identity) and not self.options.cache.broken

    def key_of(self, request: Request) -> bytes:
        """Return the key of a request to this model; without an identity, by the model's name and options."""
        return request_key(self._identity or self._described, request)

    @cached_property
    def _described(self) -> str:
        described = self.options.describe(self.name) if self.options is not None else self.name
        return hashlib.sha256(described.encode("utf-8", "surrogatepass")).hexdigest()

    def generate(self, requests: Iterable[Request]) -> Iterator[Chunk]:
        """Answer requests; the model is not opened while every reply is cached.

        Raises:
            EngineError: When the engine cannot generate any more, or the files of the model changed while it was opened.
            ModelError: When the model has to be opened and cannot be.
        """
        source = iter(requests)
        if not self._identity:
            yield from self.opened().generate(source)
            return
        for request in source:
            hit = self._recall(request, self._key(request))
            if hit is None:
                yield from self._generate_misses(chain([request], source))
                return
            yield hit

    def _generate_misses(self, requests: Iterable[Request]) -> Iterator[Chunk]:
        """Send cache misses to the model and yield cache hits in between."""
        hits: deque[Chunk] = deque()
        keys: dict[str, bytes] = {}
        waiting: dict[bytes, list[str]] = {}
        received: dict[str, list[Chunk]] = {}

        def misses() -> Iterator[Request]:
            for request in requests:
                key = self._key(request)
                if key is None:
                    yield request
                elif key in waiting:
                    waiting[key].append(request.id)
                elif (chunk := self._recall(request, key)) is not None:
                    hits.append(chunk)
                else:
                    keys[request.id], waiting[key], received[request.id] = key, [], []
                    yield request

        with close_at_end(self.opened().generate(misses())) as chunks:
            for chunk in chunks:
                while hits:
                    yield hits.popleft()
                if chunk.request_id not in keys:
                    yield chunk  # no key, or an id that was not requested, which the collector of the replies reports
                    continue
                received[chunk.request_id].append(chunk)
                if chunk.finish_reason is None:
                    yield chunk
                    continue
                key, parts = keys.pop(chunk.request_id), received.pop(chunk.request_id)
                self._store(key, parts)
                yield chunk
                for request_id in waiting.pop(key):
                    yield from (replace(part, request_id=request_id) for part in parts)
        yield from hits

    def close(self) -> None:
        """Close the model if it was opened."""
        if self._engine is not None:
            self._engine.close()

    def _key(self, request: Request) -> bytes | None:
        """Return the key of a request to this model; None with an adapter, whose weights are not part of the identity."""
        return None if request.adapter else request_key(self._identity, request)

    def _recall(self, request: Request, key: bytes | None) -> Chunk | None:
        """Return the cached reply as one chunk, or None."""
        options = self.options
        if options is None or key is None or (options.fresh and key not in self._renewed):
            return None
        stored = options.cache.get(key)
        if stored is None:
            return None
        self.hits += 1
        options.kept += 1
        return Chunk(request.id, stored.text, stored.token_ids, stored.finish_reason, stored.prompt_tokens)

    def _store(self, key: bytes, parts: Sequence[Chunk]) -> None:
        """Cache a reply, unless it failed or was cancelled."""
        options, last = self.options, parts[-1]
        if options is None or last.finish_reason not in ("stop", "length"):
            return
        if any(part.thoughts or part.revises or part.refused or part.choices for part in parts):
            return  # the cache stores text only, so such a reply could not be restored
        token_ids = tuple(token for part in parts for token in part.token_ids)
        reply = CachedReply(assemble_reply(parts, last.finish_reason).text, token_ids, last.finish_reason, last.prompt_tokens)
        options.kept += options.cache.put(key, self._identity, reply, replace=options.fresh)
        if options.fresh:
            self._renewed.add(key)

    def opened(self) -> Engine:
        """Return the model's engine, opening it at the first call."""
        if self._engine is None:
            start = time.perf_counter()
            self._engine = self._open(self.name)
            self.opening_seconds = time.perf_counter() - start
            if self.options is not None and self.options.identify(self.name) != self._identity:
                raise EngineError(
                    f"the files of model '{self.name}' changed while it was opened; wait until they are complete and run again"
                )
        return self._engine
