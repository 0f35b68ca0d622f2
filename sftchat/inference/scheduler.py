"""Which request is read when, and how many run together: continuous batching (Orca, Yu et al. 2022) within a measured budget of memory."""

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
"""The most tokens, padding included, read in one forward pass; more is no faster and takes memory."""
PREFILL_CHUNK = 256
"""Columns of one prompt that are read before whoever listens may leave."""
REFILL = 8
"""Free places are filled once they are one in this many: reading few prompts at a time costs more than the empty places do."""
CACHE_SHARE = 0.5
"""Of the memory that is free, what keys and values may take; the rest is for activations and for moving buffers."""
LIBRARY_CHANGED_ERRORS = (AttributeError, TypeError, NotImplementedError, ImportError)
"""What a library raises that no longer has, or takes, what it had."""

T = TypeVar("T")


class Scheduler:
    """Decides who joins the running batch, and takes its tokens.

    Rows wait sorted by length and the longest go first: prompts read together then need little padding, and what does not fit into memory shows at
    once. When memory runs out the budget is halved, every row goes back to those that wait, and each is read again with what it has said so far:
    no token is lost or said twice.

    Args:
        name: What the user called the model, for messages.
        model: A causal language model in eval mode.
        places: The most rows that run together.
        route: Called before each forward pass with the adapter of every row.
        mixes: Whether rows of different adapters can run together.
        kept: Keys and values of earlier requests, to which those of these rows are added; None for neither.
        merges: As of ``Batch``.
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
        """Rows that have no place yet."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Rows that have one."""
        return len(self._running)

    @property
    def mergeable(self) -> bool:
        """Whether rows can join while others run."""
        return self._batch.mergeable

    def add(self, row: RunningRequest) -> None:
        """Let a row wait for a place."""
        insort(self._waiting, row, key=_length)

    def advance(self) -> Iterator[Chunk]:
        """Let rows join where places are free, then continue each by one token.

        Raises:
            EngineError: When the model fails.
        """
        while group := self._next_group():
            yield from self._read(group)
        if self._running:
            self._shed()
            yield from self._step()

    def _next_group(self) -> list[RunningRequest]:
        """The rows to be read next, taken from those that wait; none when it is better to go on without them."""
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
        """Read prompts, let them join, and choose their first tokens."""
        reading = yield from self._attempt(lambda: self._batch.begin([row.tokens for row in group], [row.adapter for row in group]), group)
        if reading is None:
            return
        self._reading = (group, reading)
        while not (read := (yield from self._attempt(lambda: self._batch.read(reading, PREFILL_CHUNK), group))):
            if read is None:
                return
            yield Chunk(group[0].request.id)  # says nothing, so that whoever listens can leave
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
        """One more token for every running row, or several for the only one."""
        if (guess := self._guess()) and (yield from self._check(guess)):
            return
        logits = yield from self._attempt(lambda: self._batch.step([row.tokens[-1] for row in self._running]), [])
        if logits is not None:
            yield from self._take(logits)

    def _guess(self) -> list[int]:
        """What the only row may say next; nothing where that cannot be checked."""
        if len(self._running) > 1 or not self._batch.mergeable or not self._running[0].sampler.plain:
            return []
        (row,) = self._running
        if self._lookup is None or self._lookup[0] is not row:
            self._lookup = (row, PromptLookupDecoder())
        return self._lookup[1].guess(row.tokens, row.limit - len(row.tokens) - 1)

    def _check(self, guess: list[int]) -> Generator[Chunk, None, bool]:
        """Take the tokens of a guess as far as the model would have said them, and the one after; returns whether the step is done."""
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
        """Choose a token for each running row from the first given on; rows that end with it leave."""
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
        """Let rows go whose replies are complete, or failed: what those have left would spoil the rows that come after.

        Args:
            last: The last chunk of each, by its place.
        """
        failed = {index for index, chunk in last.items() if chunk.finish_reason == "error"}
        for index in last.keys() - failed:
            self._keep(index)
        self._batch.clear(failed)
        self._leave(last.keys())

    def _leave(self, gone: Collection[int]) -> None:
        """Give the places of rows free."""
        if gone:
            self._batch.leave(gone)
            moves_into_gaps(self._running, gone)

    def _shed(self) -> None:
        """Send the shortest rows back when the others have outgrown the budget."""
        width, count = self._batch.width + 1, len(self._running)
        if self._budget is None or count * width <= self._budget:
            return
        surplus = count - max(1, self._budget // (width + GROWTH_COLUMNS))
        gone = sorted(range(count), key=lambda index: _length(self._running[index]))[:surplus]
        for index in gone:
            self.add(self._running[index])
        self._leave(gone)

    def keep(self) -> None:
        """Keep what was read of rows that will not go on, one under way included."""
        for index in range(len(self._running)):
            self._keep(index)
        if self._kept is not None and self._reading is not None:
            group, reading = self._reading
            if len(group) == 1 and self._batch.mergeable and (count := reading.cache.get_seq_length()):
                self._kept.add(Prefix.of(group[0].tokens[:count], reading.cache, group[0].adapter))

    def _keep(self, index: int) -> None:
        """Keep what was read of a running row."""
        if self._kept is not None and (prefix := self._batch.prefix_of(index, self._running[index].tokens)) is not None:
            self._kept.add(prefix)

    def _attempt(self, work: Callable[[], T], joining: list[RunningRequest]) -> Generator[Chunk, None, T | None]:
        """What the work returns; None when all rows wait again: memory ran out, or the libraries do not take what continuous batching hands them.

        When memory does not hold the only row, that row ends with an error.
        """
        fits = True
        try:
            return work()
        except Exception as error:  # a library may raise anything; it ends as an error of the engine
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
    """Tokens of a row so far."""
    return len(row.tokens)
