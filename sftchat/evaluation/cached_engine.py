"""An engine that asks a model nothing twice: the reply store in front of a model that is opened at the first question it was never asked."""

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
    """Tell no one."""


@dataclass
class CacheOptions:
    """What an evaluation remembers, and how much it has used of that.

    Attributes:
        store: Where replies are.
        identify: From the name of a model to a hash of everything but the request that decides its replies; empty when unknown.
        fresh: Ask everything anew; the new replies take the place of the old ones.
        kept: Replies of this evaluation that lie in the store, found there or put there.
        describe: From the name of a model to all that is known of it where its identity is not: its name and options.
        say: Told a line for the user.
        lost: Replies of this evaluation that are kept nowhere.
    """

    store: ReplyCache
    identify: Identify
    fresh: bool = False
    kept: int = 0
    describe: Callable[[str], str] = str
    say: Callable[[str], None] = _silent
    lost: int = 0


def request_key(identity: str, request: Request) -> bytes:
    """The key of a reply: hash of what decides it, all of the request but its id.

    Args:
        identity: Hash of everything else, in hexadecimal.
        request: What is asked.
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
    """An ``Engine`` that answers what it can from the store and asks a model the rest; equal requests are asked once.

    Args:
        name: What the user calls the model.
        open_engine: Opens it; called when something has to be asked.
        memory: None remembers nothing.

    Attributes:
        memory: None remembers nothing.
        found: How many replies came from the store.
        opening_seconds: How long opening took.
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
        """Whether what the model answers is kept."""
        return self.memory is not None and bool(self._identity) and not self.memory.store.broken

    def key_of(self, request: Request) -> bytes:
        """The key of a request to this model; by its name and options where its identity is unknown."""
        if self._identity:
            return request_key(self._identity, request)
        return request_key(self._described, request)

    @cached_property
    def _described(self) -> str:
        """Hash of what is known of a model without an identity."""
        described = self.memory.describe(self.name) if self.memory is not None else self.name
        return hashlib.sha256(described.encode("utf-8", "surrogatepass")).hexdigest()

    def generate(self, requests: Iterable[Request]) -> Iterator[Chunk]:
        """Answer requests; nothing is opened as long as every reply is in the store.

        Raises:
            EngineError: When nothing more can be generated, or the files of the model changed while it was opened.
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
        """Pass on what is not known, and put in between what is."""
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
                    yield chunk  # it has no key, or nobody asked for it, which whoever collects the replies will say
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
        """The key of a request to this model; none where another adapter answers, whose bytes are not in the identity."""
        return None if request.adapter else request_key(self._identity, request)

    def _recall(self, request: Request, key: bytes | None) -> Chunk | None:
        """The whole reply as one chunk, if it is in the store and may be used."""
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
        """Put a reply into the store; what failed or was cancelled is no reply."""
        memory, last = self.memory, parts[-1]
        if memory is None or last.finish_reason not in ("stop", "length"):
            return
        if any(part.thoughts or part.revises or part.refused or part.choices for part in parts):
            return  # the store has text alone, and such a reply would come back as another one
        text, token_ids = reply_of(parts, last.finish_reason).text, tuple(token for part in parts for token in part.token_ids)
        reply = Stored(text, token_ids, last.finish_reason, last.prompt_tokens)
        memory.kept += memory.store.put(key, self._identity, reply, replace=memory.fresh)
        if memory.fresh:
            self._renewed.add(key)

    def opened(self) -> Engine:
        """The model, opened once."""
        if self._engine is None:
            start = time.perf_counter()
            self._engine = self._open(self.name)
            self.opening_seconds = time.perf_counter() - start
            if self.memory is not None and self.memory.identify(self.name) != self._identity:
                raise EngineError(
                    f"the files of model '{self.name}' changed while it was opened; wait until they are complete and run again"
                )
        return self._engine
