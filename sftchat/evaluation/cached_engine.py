"""The engine that serves cached replies and loads the model on the first cache miss.

The key of a reply is a hash of the request (without its id), every option, the type of the device, the versions of the libraries, and the source
code and model files that affect replies. Names of models and items are not part of it. The request is hashed with its messages, not with token
ids, so a second run needs no tokenizer. Some models have no certain identity: a branch on the Hub, a server, code that comes with a model. Their
replies are not cached but stored by ``partial_replies``.
"""

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

from sftchat.engine import Chunk, Engine, Request, assemble_reply, close_at_end
from sftchat.errors import EngineError
from sftchat.evaluation.reply_cache import CachedReply, ReplyCache


@dataclass
class CacheOptions:
    """Reply cache of an evaluation and its usage counters.

    Attributes:
        cache: The reply cache.
        identify: Maps a model name to a hash of everything but the request that affects its replies; empty when unknown.
        fresh: Whether to ignore cached replies and replace them.
        kept: Number of this evaluation's replies that are in the cache, served from it or added to it.
        describe: Maps a model name to a text of its name and options, which is hashed when the model has no identity.
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
    """Return the cache key of a reply: a hash of the model's identity, in hexadecimal, and the request without its id.

    The optional fields at the end are hashed only when they are set.
    """
    hashed: list[Any] = [identity, request.messages, request.prompt, asdict(request.sampling), request.adapter, request.reply_prefix]
    hashed += [dict(request.template_arguments)] if request.template_arguments else []
    hashed += [request.reply_ids] if request.reply_ids else []
    hashed += [["tools", *request.tools]] if request.tools else []
    hashed += [["logprobs", request.logprobs]] if request.logprobs is not None else []
    hashed += [["continuations", request.ended, *request.continuations]] if request.continuations else []
    return hashlib.sha256(json.dumps(hashed, sort_keys=True).encode()).digest()


class CachedEngine:
    """An ``Engine`` that serves cached replies and sends the other requests to a model, equal requests once.

    Args:
        name: Model name as typed by the user.
        open_engine: Opens the model by its name; called on the first cache miss.
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
        self._replaced_keys: set[bytes] = set()
        if options is not None and self._identity:
            options.cache.touch(self._identity, name)

    @property
    def identity(self) -> str:
        """Hash of everything but the request that affects a reply; empty when unknown."""
        return self._identity

    @property
    def caches(self) -> bool:
        """Whether generated replies are cached."""
        return self.options is not None and bool(self._identity) and not self.options.cache.broken

    def key_of(self, request: Request) -> bytes:
        """Return a hash of everything known to affect the reply; for a model without an identity, of its name and options."""
        return request_key(self._identity or self._description_hash, request)

    @cached_property
    def _description_hash(self) -> str:
        described = self.options.describe(self.name) if self.options is not None else self.name
        return hashlib.sha256(described.encode("utf-8", "surrogatepass")).hexdigest()

    def generate(self, requests: Iterable[Request]) -> Iterator[Chunk]:
        """Yield the replies to requests; the model is opened at the first reply that is not cached, or at once if it has no identity.

        Raises:
            EngineError: When the engine cannot generate any more, or the files of the model changed while it was opened.
            ModelError: When the model has to be opened and cannot be.
        """
        source = iter(requests)
        if not self._identity:
            yield from self.open_model().generate(source)
            return
        for request in source:
            hit = self._cached_chunk(request, self._cache_key(request))
            if hit is None:
                yield from self._generate_misses(chain([request], source))
                return
            yield hit

    def _generate_misses(self, requests: Iterable[Request]) -> Iterator[Chunk]:
        """Send the cache misses among the requests to the model; yield the cache hits in between."""
        hits: deque[Chunk] = deque()
        running_keys: dict[str, bytes] = {}  # key of each request that the model is answering, by request id
        received: dict[str, list[Chunk]] = {}  # chunks of its reply so far, by request id
        waiting: dict[bytes, list[str]] = {}  # ids of later requests with the same key, which get a copy of its reply

        def misses() -> Iterator[Request]:
            for request in requests:
                key = self._cache_key(request)
                if key is None:
                    yield request
                elif key in waiting:
                    waiting[key].append(request.id)
                elif (chunk := self._cached_chunk(request, key)) is not None:
                    hits.append(chunk)
                else:
                    running_keys[request.id], received[request.id], waiting[key] = key, [], []
                    yield request

        with close_at_end(self.open_model().generate(misses())) as chunks:
            for chunk in chunks:
                while hits:
                    yield hits.popleft()
                if chunk.request_id not in running_keys:
                    yield chunk  # without a key, or with an id that was not requested, which ``engine.collect`` reports
                    continue
                received[chunk.request_id].append(chunk)
                if chunk.finish_reason is None:
                    yield chunk
                    continue
                key, reply_chunks = running_keys.pop(chunk.request_id), received.pop(chunk.request_id)
                self._store(key, reply_chunks)
                yield chunk
                for request_id in waiting.pop(key):
                    yield from (replace(reply_chunk, request_id=request_id) for reply_chunk in reply_chunks)
        yield from hits

    def close(self) -> None:
        """Close the model if it was opened."""
        if self._engine is not None:
            self._engine.close()

    def _cache_key(self, request: Request) -> bytes | None:
        """Return the key of a request to a model with an identity; None with an adapter, whose weights are not part of the identity."""
        return None if request.adapter else request_key(self._identity, request)

    def _cached_chunk(self, request: Request, key: bytes | None) -> Chunk | None:
        """Return the cached reply as one chunk; None without one, and for replies of earlier evaluations with ``--fresh``."""
        options = self.options
        if options is None or key is None or (options.fresh and key not in self._replaced_keys):
            return None
        stored = options.cache.get(key)
        if stored is None:
            return None
        self.hits += 1
        options.kept += 1
        return Chunk(request.id, stored.text, stored.token_ids, stored.finish_reason, stored.prompt_tokens)

    def _store(self, key: bytes, chunks: Sequence[Chunk]) -> None:
        """Cache a reply, unless it failed or was cancelled."""
        options, last = self.options, chunks[-1]
        if options is None or last.finish_reason not in ("stop", "length"):
            return
        if any(chunk.thoughts or chunk.revises or chunk.refused or chunk.choices for chunk in chunks):
            return  # the cache stores text only, so such a reply could not be restored
        token_ids = tuple(token for chunk in chunks for token in chunk.token_ids)
        reply = CachedReply(assemble_reply(chunks, last.finish_reason).text, token_ids, last.finish_reason, last.prompt_tokens)
        options.kept += options.cache.put(key, self._identity, reply, replace=options.fresh)
        if options.fresh:
            self._replaced_keys.add(key)

    def open_model(self) -> Engine:
        """Return the model's engine, which is opened at the first call.

        Raises:
            EngineError: When the files of the model changed while it was opened.
            ModelError: When the model cannot be opened.
        """
        if self._engine is None:
            start = time.perf_counter()
            self._engine = self._open(self.name)
            self.opening_seconds = time.perf_counter() - start
            if self.options is not None and self.options.identify(self.name) != self._identity:
                raise EngineError(
                    f"the files of model '{self.name}' changed while it was opened; wait until they are complete and run again"
                )
        return self._engine
