"""Continuous batching (Orca, Yu et al. 2022) within a measured memory budget: selects which requests are prefilled and which run together."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from math import isfinite
from typing import Any, TypeVar

from torch import Tensor

from sftchat._util.fallback import report_fallback
from sftchat.engine import Chunk
from sftchat.errors import EngineError, first_line, in_one_line
from sftchat.inference.batch import Batch, Prefill, Route, moves_into_gaps, unrouted
from sftchat.inference.kv_cache import GROWTH_COLUMNS
from sftchat.inference.memory import free_bytes, is_out_of_memory
from sftchat.inference.prompt_cache import Prefix, PromptCache, shared
from sftchat.inference.prompt_lookup import PromptLookupDecoder
from sftchat.inference.sampling import likeliest
from sftchat.inference.sequence import RunningRequest

PREFILL_TOKENS = 2048
"""Maximum number of tokens, padding included, prefilled in one forward pass; more is no faster and takes memory."""
PREFILL_CHUNK = 256
"""Number of columns of one prompt prefilled between two chances to cancel."""
REFILL = 8
"""Free slots are filled once they are at least 1/8 of all: prefilling few prompts at a time costs more than idle slots."""
CACHE_SHARE = 0.5
"""Share of free memory for keys and values; the rest is for activations and for moving buffers."""
LIBRARY_CHANGED_ERRORS = (AttributeError, TypeError, NotImplementedError, ImportError)
"""Exceptions raised when a library no longer has a name or accepts an argument."""

T = TypeVar("T")


class Scheduler:
    """Selects the requests of the running batch and samples their tokens.

    Waiting requests are sorted by length and the longest start first: prompts prefilled together then need little padding, and a lack of memory shows
    at once. When memory runs out, the budget is halved and all requests return to the queue; each is prefilled again with its reply so far, so that
    no token is lost or emitted twice.

    Args:
        name: Name of the model, for messages.
        model: A causal language model in eval mode.
        places: Maximum number of running requests.
        route: Called before each forward pass with the adapter of every row.
        mixes: Whether requests of different adapters can run together.
        kept: Prompt cache to read from and add to; None for no cache.
        merges: See ``Batch``.
    """

    def __init__(
        self,
        name: str,
        model: Any,
        places: int,
        *,
        route: Route = unrouted,
        mixes: bool = True,
        kept: PromptCache | None = None,
        merges: bool = True,
    ) -> None:
        self._name = name
        self._places = places
        self._mixes = mixes
        self._kept = kept
        self._merges = merges
        self._new_batch: Callable[[], Batch] = lambda: Batch(model, route, kept, whole=kept is not None, merges=self._merges)
        self._batch = self._new_batch()
        self._reading: tuple[list[RunningRequest], Prefill] | None = None
        self._lookup: tuple[RunningRequest, PromptLookupDecoder] | None = None
        self._budget: int | None = None
        self._waiting: list[RunningRequest] = []
        self._running: list[RunningRequest] = []

    @property
    def waiting(self) -> int:
        """Number of requests in the queue."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Number of running requests."""
        return len(self._running)

    @property
    def mergeable(self) -> bool:
        """Whether requests can join a running batch."""
        return self._batch.mergeable

    def add(self, row: RunningRequest) -> None:
        """Add a request to the queue."""
        insort(self._waiting, row, key=_length)

    def advance(self) -> Iterator[Chunk]:
        """Start waiting requests if slots are free, then generate one token for each running request.

        Raises:
            EngineError: When the model fails.
        """
        while group := self._next_group():
            yield from self._read(group)
        if self._running:
            self._shed()
            yield from self._step()

    def _next_group(self) -> list[RunningRequest]:
        """Take the requests to prefill next from the queue; empty if it is better to continue without them."""
        free = self._places - len(self._running)
        if not self._waiting or (self._running and (not self._batch.mergeable or free * REFILL < self._places)):
            return []
        longest = _length(self._waiting[-1])
        count = min(free, max(1, PREFILL_TOKENS // longest) if self._batch.mergeable else free)
        if self._budget is not None:
            count = min(count, self._budget // (max(self._batch.width, longest) + GROWTH_COLUMNS) - len(self._running))
        if count < 1:
            if self._running:
                return []
            count = 1
        group = self._waiting[-count:]
        if not self._mixes:
            adapter = (self._running or group[-1:])[0].adapter
            group = [row for row in self._waiting if row.adapter == adapter][-count:]
        self._waiting = [row for row in self._waiting if row not in group] if not self._mixes else self._waiting[:-count]
        return group

    def _read(self, group: list[RunningRequest]) -> Iterator[Chunk]:
        """Prefill prompts, add them to the batch, and sample their first tokens."""
        reading = yield from self._attempt(lambda: self._batch.begin([row.tokens for row in group], [row.adapter for row in group]), group)
        if reading is None:
            return
        self._reading = (group, reading)
        while not (read := (yield from self._attempt(lambda: self._batch.read(reading, PREFILL_CHUNK), group))):
            if read is None:
                return
            yield Chunk(group[0].request.id)  # empty chunk: gives the caller a chance to cancel
        if self._budget is None:
            self._budget = int(CACHE_SHARE * free_bytes(self._batch.device) / reading.bytes_per_token)
        joined = yield from self._attempt(lambda: self._batch.join(reading), group)
        if joined is None or reading.logits is None:
            return
        self._reading = None
        first = len(self._running)
        self._running += group
        for row in group:
            row.cached_tokens = row.cached_tokens or reading.cached
        yield from self._take(reading.logits, first)

    def _step(self) -> Iterator[Chunk]:
        """Generate one token for every running request, or several for a single one."""
        if (guess := self._guess()) and (yield from self._check(guess)):
            return
        logits = yield from self._attempt(lambda: self._batch.step([row.tokens[-1] for row in self._running]), [])
        if logits is not None:
            yield from self._take(logits)

    def _guess(self) -> list[int]:
        """Guess the next tokens of a single running request; empty if a guess cannot be verified."""
        if len(self._running) > 1 or not self._batch.mergeable or not self._running[0].sampler.plain:
            return []
        (row,) = self._running
        if self._lookup is None or self._lookup[0] is not row:
            self._lookup = (row, PromptLookupDecoder())
        return self._lookup[1].guess(row.tokens, row.limit - len(row.tokens) - 1)

    def _check(self, guess: list[int]) -> Generator[Chunk, None, bool]:
        """Verify a guess and take its correct tokens and the one after; returns whether the step is done."""
        assert self._lookup is not None
        row, lookup = self._lookup
        logits = yield from self._attempt(lambda: self._batch.check([row.tokens[-1], *guess]), [])
        if logits is None:
            return True
        said, best = likeliest(logits)
        right = shared(said, guess)
        lookup.learn(len(guess), right)
        self._batch.accept(right + 1)
        for token, logit in zip(said[: right + 1], best, strict=False):
            chunk = row.take(token) if isfinite(logit) else row.fail(logit)
            if chunk.finish_reason is not None:
                self._end({0: chunk})
                yield chunk
                break
            yield chunk
        return True

    def _take(self, logits: Tensor, first: int = 0) -> Iterator[Chunk]:
        """Sample a token for each running request from index ``first``; remove requests that finish."""
        greedy, best = likeliest(logits)
        rows = self._running[first:]
        chunks = []
        for index, row in enumerate(rows):
            if not isfinite(best[index]):
                chunks.append(row.fail(best[index]))
            else:
                chunks.append(row.take(greedy[index] if row.sampler.plain else row.sampler.choose(logits[index])))
        self._end({first + index: chunk for index, chunk in enumerate(chunks) if chunk.finish_reason is not None})
        yield from chunks

    def _end(self, last: Mapping[int, Chunk]) -> None:
        """Remove requests: cache the state of finished ones, clear that of failed ones, whose non-finite values would spread to later rows.

        Args:
            last: Last chunk of each request, by its index.
        """
        failed = {index for index, chunk in last.items() if chunk.finish_reason == "error"}
        for index in last.keys() - failed:
            self._keep(index)
        self._batch.clear(failed)
        self._leave(last.keys())

    def _leave(self, gone: Collection[int]) -> None:
        """Remove requests from the batch."""
        if gone:
            self._batch.leave(gone)
            moves_into_gaps(self._running, gone)

    def _shed(self) -> None:
        """Move the shortest requests back to the queue when the batch exceeds the memory budget."""
        width, count = self._batch.width + 1, len(self._running)
        if self._budget is None or count * width <= self._budget:
            return
        surplus = count - max(1, self._budget // (width + GROWTH_COLUMNS))
        gone = sorted(range(count), key=lambda index: _length(self._running[index]))[:surplus]
        for index in gone:
            self.add(self._running[index])
        self._leave(gone)

    def keep(self) -> None:
        """Add the state of unfinished requests to the prompt cache, that of a running prefill included."""
        for index in range(len(self._running)):
            self._keep(index)
        if self._kept is not None and self._reading is not None:
            group, reading = self._reading
            if len(group) == 1 and self._batch.mergeable and (count := reading.cache.get_seq_length()):
                self._kept.add(Prefix.of(group[0].tokens[:count], reading.cache, group[0].adapter))

    def _keep(self, index: int) -> None:
        """Add the state of a running request to the prompt cache."""
        if self._kept is not None and (prefix := self._batch.prefix_of(index, self._running[index].tokens)) is not None:
            self._kept.add(prefix)

    def _attempt(self, work: Callable[[], T], joining: list[RunningRequest]) -> Generator[Chunk, None, T | None]:
        """Return the result of ``work``; None if all requests were requeued because memory ran out or a library does not support continuous batching.

        If memory does not suffice for a single request, that request ends with an error.
        """
        fits = True
        try:
            return work()
        except Exception as error:  # third-party code may raise anything; it ends as an error of the engine
            reason = first_line(error)
            if is_out_of_memory(error):
                fits = False
            elif isinstance(error, LIBRARY_CHANGED_ERRORS) and (self._batch.mergeable or self._mixes):
                report_fallback("continuous batching", in_one_line(error))
                self._merges = self._mixes = False
            else:
                raise EngineError(f"model '{self._name}' failed while generating: {reason}") from error
        rows = [*self._running, *joining]
        if not fits:
            self._budget = len(rows) * max(map(_length, rows)) // 2
        if self._kept is not None:
            self._kept.clear()
        self._batch, self._running, self._reading = self._new_batch(), [], None
        if len(rows) == 1 and not fits:
            words = f"the memory does not hold the request, {_length(rows[0])} tokens long: {reason}"
            yield Chunk(rows[0].request.id, finish_reason="error", error=words)
            return None
        for row in rows:
            self.add(row)
        return None


def _length(row: RunningRequest) -> int:
    return len(row.tokens)
