"""Engine that serves cached replies and loads the model on the first cache miss."""

from __future__ import annotations

import hashlib
import json
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import chain
from typing import Any

from sftchat.engine import Chunk, Engine, Request, cancelling, reply_of
from sftchat.errors import EngineError
from sftchat.evaluation.reply_cache import ReplyCache, Stored

Identify = Callable[[str], str]


def _silent(_: str) -> None:
    """Ignore a message."""


@dataclass
class CacheOptions:
    """Reply cache of an evaluation and its usage counters.

    Attributes:
        store: The reply cache.
        identify: Maps a model name to a hash of everything but the request that affects its replies; empty when unknown.
        fresh: Whether to ignore cached replies and replace them.
        kept: Number of this evaluation's replies that are in the cache, found or stored.
        describe: Maps the name of a model without an identity to its name and options.
        say: Called with a line for the user.
        lost: Number of this evaluation's replies that are stored nowhere.
    """

    store: ReplyCache
    identify: Identify
    fresh: bool = False
    kept: int = 0
    describe: Callable[[str], str] = str
    say: Callable[[str], None] = _silent
    lost: int = 0


def request_key(identity: str, request: Request) -> bytes:
    """Return the cache key of a reply: a hash of the model's identity and the request without its id.

    Args:
        identity: Hash of everything else that affects the reply, in hexadecimal.
        request: The request.
    """
    facts: list[Any] = [identity, request.messages, request.prompt, asdict(request.sampling), request.adapter, request.reply_prefix]
    if request.template_arguments:
        facts.append(dict(request.template_arguments))
    if request.reply_ids:
        facts.append(request.reply_ids)
    if request.tools:
        facts.append(["tools", *request.tools])
    if request.logprobs is not None:
        facts.append(["logprobs", request.logprobs])
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).digest()


class CachedEngine:
    """An ``Engine`` that serves cached replies and sends the other requests to a model; equal requests are generated once.

    Args:
        name: Model name as typed by the user.
        open_engine: Opens the model; called on the first cache miss.
        memory: Cache options; None disables the cache.

    Attributes:
        memory: Cache options; None disables the cache.
        found: Number of replies served from the cache.
        opening_seconds: Time taken to open the model.
    """

    def __init__(self, name: str, open_engine: Callable[[str], Engine], memory: CacheOptions | None = None) -> None:
        self.name = name
        self.found = 0
        self.opening_seconds = 0.0
        self._open = open_engine
        self.memory = memory
        self._identity = memory.identify(name) if memory is not None else ""
        self._engine: Engine | None = None
        self._renewed: set[bytes] = set()
        if memory is not None and self._identity:
            memory.store.touch(self._identity, name)

    @property
    def remembers(self) -> bool:
        """Whether generated replies are cached."""
        return self.memory is not None and bool(self._identity) and not self.memory.store.broken

    def key_of(self, request: Request) -> bytes:
        """Return the key of a request to this model; without an identity, by the model's name and options."""
        if self._identity:
            return request_key(self._identity, request)
        return request_key(self._described, request)

    @cached_property
    def _described(self) -> str:
        """Hash of the name and options of a model without an identity."""
        described = self.memory.describe(self.name) if self.memory is not None else self.name
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
            known = self._recall(request, self._key(request))
            if known is None:
                yield from self._ask(chain([request], source))
                return
            yield known

    def _ask(self, requests: Iterable[Request]) -> Iterator[Chunk]:
        """Send cache misses to the model and yield cache hits in between."""
        known: deque[Chunk] = deque()
        keys: dict[str, bytes] = {}
        waiting: dict[bytes, list[str]] = {}
        said: dict[str, list[Chunk]] = {}

        def unknown() -> Iterator[Request]:
            for request in requests:
                key = self._key(request)
                if key is None:
                    yield request
                elif key in waiting:
                    waiting[key].append(request.id)
                elif (chunk := self._recall(request, key)) is not None:
                    known.append(chunk)
                else:
                    keys[request.id], waiting[key], said[request.id] = key, [], []
                    yield request

        with cancelling(self.opened().generate(unknown())) as chunks:
            for chunk in chunks:
                while known:
                    yield known.popleft()
                if chunk.request_id not in keys:
                    yield chunk  # no key, or an id that was not requested, which the collector of the replies reports
                    continue
                said[chunk.request_id].append(chunk)
                if chunk.finish_reason is None:
                    yield chunk
                    continue
                key, parts = keys.pop(chunk.request_id), said.pop(chunk.request_id)
                self._keep(key, parts)
                yield chunk
                for request_id in waiting.pop(key):
                    yield from (replace(part, request_id=request_id) for part in parts)
        yield from known

    def close(self) -> None:
        """Close the model if it was opened."""
        if self._engine is not None:
            self._engine.close()

    def _key(self, request: Request) -> bytes | None:
        """Return the key of a request to this model; None with an adapter, whose weights are not part of the identity."""
        return None if request.adapter else request_key(self._identity, request)

    def _recall(self, request: Request, key: bytes | None) -> Chunk | None:
        """Return the cached reply as one chunk, or None."""
        memory = self.memory
        if memory is None or key is None or (memory.fresh and key not in self._renewed):
            return None
        stored = memory.store.get(key)
        if stored is None:
            return None
        self.found += 1
        memory.kept += 1
        return Chunk(request.id, stored.text, stored.token_ids, stored.finish_reason, stored.prompt_tokens)

    def _keep(self, key: bytes, parts: Sequence[Chunk]) -> None:
        """Cache a reply, unless it failed or was cancelled."""
        memory, last = self.memory, parts[-1]
        if memory is None or last.finish_reason not in ("stop", "length"):
            return
        if any(part.thoughts or part.revises or part.refused or part.choices for part in parts):
            return  # the cache stores text only, so such a reply could not be restored
        text, token_ids = reply_of(parts, last.finish_reason).text, tuple(token for part in parts for token in part.token_ids)
        reply = Stored(text, token_ids, last.finish_reason, last.prompt_tokens)
        memory.kept += memory.store.put(key, self._identity, reply, replace=memory.fresh)
        if memory.fresh:
            self._renewed.add(key)

    def opened(self) -> Engine:
        """Return the model's engine, opening it at the first call."""
        if self._engine is None:
            start = time.perf_counter()
            self._engine = self._open(self.name)
            self.opening_seconds = time.perf_counter() - start
            if self.memory is not None and self.memory.identify(self.name) != self._identity:
                raise EngineError(
                    f"the files of model '{self.name}' changed while it was opened; wait until they are complete and run again"
                )
        return self._engine
