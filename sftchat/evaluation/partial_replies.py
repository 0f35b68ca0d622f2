"""``replies.partial.jsonl``: stores replies that cannot be cached, so that an interrupted evaluation can be resumed.

Files are append-only. A line matches a request by its key, a hash of everything known to affect the reply. A file that also has replies to other
requests is moved aside. A file is deleted only when the final files of replies contain all its replies.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from sftchat._util.files import open_locked, write_error
from sftchat.engine import Chunk, Request, assemble_reply, close_at_end
from sftchat.errors import DataError, UsageError
from sftchat.evaluation.cached_engine import CachedEngine
from sftchat.evaluation.replies import ESCAPE_SURROGATES, numbered_lines, parse_reply, thoughts_and_refusal
from sftchat.text import pluralize
from sftchat.types import Reply

PARTIAL_FILES = "replies*.partial*.jsonl"
"""Files of an output folder that may hold replies to resume from."""
MOVED_ASIDE = ".old-"
"""Part of the name of a file that ``--fresh`` moved aside, whose replies are not used again."""

RequestKey = tuple[str, str]
"""Id of the item, and key of the request, which several items may share."""


def partial_path(replies: Path) -> Path:
    """Return the path of the partial file for a file of replies."""
    return replies.with_suffix(".partial.jsonl")


class PartialReplies:
    """An ``Engine`` that serves the replies of an interrupted evaluation, and generates and stores the others; a context manager.

    A generated reply is handed to the operating system before it is scored, so it survives a killed process. When the block ends without an error
    and every request was answered, the partial files whose replies are all in the final files are deleted.

    Args:
        engine: Engine for the requests without a stored reply.
        path: Partial file; the other partial files in its folder are used too. None stores nothing.
        requests: All requests of the evaluation.

    Attributes:
        hits: Number of replies served from partial files.
    """

    def __init__(self, engine: CachedEngine, path: Path | None, requests: Iterable[Request]) -> None:
        self.engine = engine
        self.path = path
        self.hits = 0
        self._requested = {self._key_of(request) for request in requests} if path is not None else set()
        self._answered: set[RequestKey] = set()
        self._replies: dict[RequestKey, Reply] = {}
        self._file: BinaryIO | None = None

    @property
    def name(self) -> str:
        """Model name as typed by the user."""
        return self.engine.name

    def __enter__(self) -> PartialReplies:
        """Read the stored replies.

        Raises:
            SftchatError: When another evaluation writes to the file, or on an I/O error.
        """
        # an engine with a cache stores its replies there; it needs a partial file only to read an existing one
        if self.path is not None and (self.path.exists() or not self.engine.caches):
            try:
                self._load(self.path)
            except OSError as error:
                raise write_error(self.path, error) from error
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close the file; delete the partial files that are not needed any more."""
        if self.path is None or self._file is None:
            return
        if os.name == "nt":  # Windows cannot delete an open file
            self._file.close()
        complete = kind is None and self._requested <= self._answered
        other_files = _other_partial_files(self.path, moved_aside=True) if complete else []
        for path, replies in [(path, _read_partial(path)) for path in (self.path, *other_files)]:
            is_empty = path == self.path and not replies
            all_in_final_files = complete and bool(replies) and self._answered.issuperset(replies)
            if is_empty or all_in_final_files:
                path.unlink(missing_ok=True)
        self._file.close()

    def generate(self, requests: Iterable[Request]) -> Iterator[Chunk]:
        """Answer requests, those with a stored reply first; the engine is not called when all have one.

        Raises:
            EngineError: When the engine cannot generate any more.
            ModelError: When the model has to be opened and cannot be.
            SftchatError: When a reply cannot be stored.
        """
        missing: dict[str, Request] = {}
        for request in requests:
            reply = self._replies.get(self._key_of(request)) if self._replies else None  # computing a key takes time
            if reply is None:
                missing[request.id] = request
                continue
            self.hits += 1
            self._answered.add(self._key_of(request))
            yield Chunk(
                request.id, reply.text, (), reply.finish_reason, reply.prompt_tokens,
                unlisted_tokens=reply.completion_tokens, thoughts=reply.thoughts, refused=reply.refused,
            )  # fmt: skip
        if not missing:
            return
        chunks_by_id: dict[str, list[Chunk]] = {}
        with close_at_end(self.engine.generate(list(missing.values()))) as chunks:
            for chunk in chunks:
                chunks_by_id.setdefault(chunk.request_id, []).append(chunk)
                if chunk.finish_reason is not None:
                    reply_chunks = chunks_by_id.pop(chunk.request_id)
                    if chunk.request_id in missing and chunk.finish_reason in ("stop", "length"):
                        self._store(missing[chunk.request_id], reply_chunks)
                yield chunk

    def close(self) -> None:
        """Close the model if it was opened."""
        self.engine.close()

    def _key_of(self, request: Request) -> RequestKey:
        return request.id, self.engine.key_of(request).hex()

    def _load(self, path: Path) -> None:
        """Load the stored replies to the requests, and move aside a file that has others."""
        options = self.engine.options
        fresh = options is not None and options.fresh
        say = options.say if options is not None else (lambda line: None)
        self._file = _open_locked(path)
        own_replies = _read_partial(path)
        unusable = [key for key in own_replies if fresh or key not in self._requested]
        if unusable:
            new_path = self._move_aside(path, MOVED_ASIDE if fresh else ".")
            which = "" if fresh else " to other requests"
            say(f"{pluralize(len(unusable), 'reply', 'replies')}{which} in {path} moved to {new_path}")
            own_replies = {}
        if fresh:
            return
        other_files = _other_partial_files(path)  # with the file that was moved aside
        for replies in (own_replies, *map(_read_partial, other_files)):
            for key, reply in replies.items():
                if key in self._requested:
                    self._replies.setdefault(key, reply)
        for key, reply in self._replies.items():
            if key not in own_replies:
                self._write(key, reply)
        if self._replies:
            say(
                f"{pluralize(len(self._replies), 'reply', 'replies')} kept in {path} and not generated again; '{self.name}' may have changed since, "
                "--fresh asks everything again"
            )

    def _move_aside(self, path: Path, infix: str) -> Path:
        """Move the file to the first free name, with ``infix`` and a number, and start a new one; return the new path."""
        assert self._file is not None
        number = 1
        while (new_path := path.with_name(f"{path.stem}{infix}{number}.jsonl")).exists():
            number += 1
        if os.name == "nt":  # Windows cannot rename an open file
            self._file.close()
        path.rename(new_path)
        self._file.close()
        self._file = _open_locked(path)
        return new_path

    def _store(self, request: Request, chunks: Sequence[Chunk]) -> None:
        key = self._key_of(request)
        self._answered.add(key)
        if self.engine.caches:
            return
        if self.path is None:
            if self.engine.options is not None:
                self.engine.options.lost += 1
            return
        finish_reason = chunks[-1].finish_reason
        assert finish_reason is not None
        try:
            if self._file is None:
                self._file = _open_locked(self.path)
            self._write(key, assemble_reply(chunks, finish_reason))
        except OSError as error:
            raise write_error(self.path, error) from error

    def _write(self, key: RequestKey, reply: Reply) -> None:
        """Append a line and hand it to the operating system."""
        assert self._file is not None
        item_id, request_key = key
        row = {
            "id": item_id,
            "reply": reply.text,
            "finish_reason": reply.finish_reason,
            "prompt_tokens": reply.prompt_tokens,
            "completion_tokens": reply.completion_tokens,
            **thoughts_and_refusal(reply),
            "request": request_key,
        }
        self._file.write(json.dumps(row, ensure_ascii=False).encode("utf-8", ESCAPE_SURROGATES) + b"\n")
        self._file.flush()


def _other_partial_files(path: Path, moved_aside: bool = False) -> list[Path]:
    """List the folder's other partial files; with ``moved_aside``, including those that ``--fresh`` moved aside."""
    return sorted(file for file in path.parent.glob(PARTIAL_FILES) if file != path and (moved_aside or MOVED_ASIDE not in file.name))


def _read_partial(path: Path) -> dict[RequestKey, Reply]:
    """Read the replies of a file; a malformed line gets a key that no request has."""
    replies: dict[RequestKey, Reply] = {}
    for number, line in numbered_lines(path, "replies"):
        try:
            item_id, reply, row = parse_reply(line, f"{path}:{number}")
        except DataError:
            item_id, reply, row = "", Reply(line), {}
        request_key = row.get("request")
        if isinstance(reply, Reply):
            key = (item_id, request_key) if isinstance(request_key, str) else ("", f"{path}:{number}")
            replies.setdefault(key, reply)
    return replies


def _open_locked(path: Path) -> BinaryIO:
    """Open a file for appending, with an exclusive lock; an incomplete last line, which a killed process may leave, is removed.

    Raises:
        UsageError: When another evaluation holds the lock.
        OSError: When the file cannot be opened.
    """
    file = open_locked(path)
    if file is None:
        raise UsageError(f"another evaluation writes to {path}; wait for it, or give another folder with -o")
    file.seek(0)
    file.truncate(file.read().rfind(b"\n") + 1)
    return file
