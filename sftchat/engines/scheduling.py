"""Which request is read when, and how many run together: continuous batching (Orca, Yu et al. 2022) within a measured budget of memory."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Collection, Generator, Iterator
from typing import Any, TypeVar

from torch import Tensor

from sftchat.engines.base import Chunk
from sftchat.engines.batching import Batch, close_gaps
from sftchat.engines.cache import SLACK
from sftchat.engines.memory import free_bytes, is_out_of_memory
from sftchat.engines.row import Row
from sftchat.engines.sampling import likeliest
from sftchat.errors import EngineError, first_line

PREFILL_TOKENS = 2048
"""The most tokens, padding included, read in one forward pass; more is no faster and takes memory."""
REFILL = 8
"""Free places are filled once they are one in this many: reading few prompts at a time costs more than the empty places do."""
CACHE_SHARE = 0.5
"""Of the memory that is free, what keys and values may take; the rest is for activations and for moving buffers."""

T = TypeVar("T")


class Scheduler:
    """Decides who joins the running batch, and takes its tokens.

    Rows wait sorted by length and the longest go first: prompts read together then need little padding, and what does not fit into memory shows at
    once. When memory runs out the budget is halved, every row goes back to those that wait, and each is read again with what it has said so far:
    no token is lost or said twice.

    Args:
        name: What the user called the model, for messages.
        model: A causal language model in eval mode.
        stop_ids: Tokens that end a reply.
        places: The most rows that run together.
    """

    def __init__(self, name: str, model: Any, stop_ids: Collection[int], places: int) -> None:
        self._name = name
        self._model = model
        self._stop_ids = frozenset(stop_ids)
        self._places = places
        self._batch = Batch(model)
        self._budget: int | None = None
        self._waiting: list[Row] = []
        self._running: list[Row] = []

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

    def add(self, row: Row) -> None:
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

    def _next_group(self) -> list[Row]:
        """The rows to be read next, taken from those that wait; none when it is better to go on without them."""
        free = self._places - len(self._running)
        if not self._waiting or (self._running and (not self._batch.mergeable or free * REFILL < self._places)):
            return []
        longest = _length(self._waiting[-1])
        count = min(free, max(1, PREFILL_TOKENS // longest) if self._batch.mergeable else free)
        if self._budget is not None:
            count = min(count, self._budget // (max(self._batch.width, longest) + SLACK) - len(self._running))
        if count < 1:
            if self._running:
                return []
            count = 1
        group = self._waiting[-count:]
        del self._waiting[-count:]
        return group

    def _read(self, group: list[Row]) -> Iterator[Chunk]:
        """Read prompts and let them join, but for those that end with their first token."""
        prefilled = yield from self._attempt(lambda: self._batch.prefill([row.tokens for row in group]), group)
        if prefilled is None:
            return
        if self._budget is None:
            self._budget = int(CACHE_SHARE * free_bytes(self._batch.device) / prefilled.bytes_per_token)
        ended = yield from self._take(group, prefilled.logits)
        kept = [index for index in range(len(group)) if index not in ended]
        staying = [group[index] for index in kept]
        if staying and (yield from self._attempt(lambda: self._batch.join(prefilled, kept), staying)):
            self._running += staying

    def _step(self) -> Iterator[Chunk]:
        """One more token for every running row."""
        logits = yield from self._attempt(lambda: self._batch.step([row.tokens[-1] for row in self._running]), [])
        if logits is not None:
            ended = yield from self._take(self._running, logits)
            self._leave(ended)

    def _take(self, rows: list[Row], logits: Tensor) -> Generator[Chunk, None, set[int]]:
        """Choose a token for each row; returns the indices of the rows that end with it."""
        greedy = likeliest(logits)
        ended = set()
        for index, row in enumerate(rows):
            token = greedy[index] if row.sampler.plain else row.sampler.choose(logits[index])
            chunk = row.take(token, self._stop_ids)
            if chunk.finish_reason is not None:
                ended.add(index)
            yield chunk
        return ended

    def _leave(self, gone: Collection[int]) -> None:
        """Give the places of rows free."""
        if gone:
            self._batch.leave(gone)
            close_gaps(self._running, gone)

    def _shed(self) -> None:
        """Send the shortest rows back when the others have outgrown the budget."""
        width, count = self._batch.width + 1, len(self._running)
        if self._budget is None or count * width <= self._budget:
            return
        surplus = count - max(1, self._budget // (width + SLACK))
        gone = sorted(range(count), key=lambda index: _length(self._running[index]))[:surplus]
        for index in gone:
            self.add(self._running[index])
        self._leave(gone)

    def _attempt(self, work: Callable[[], T], joining: list[Row]) -> Generator[Chunk, None, T | None]:
        """What the work returns; when memory runs out None, and all rows wait again, or the only one ends with an error."""
        try:
            return work()
        except (RuntimeError, MemoryError, IndexError) as error:
            reason = first_line(error)
            if not is_out_of_memory(error):
                raise EngineError(f"model '{self._name}' failed while generating: {reason}") from error
        rows = [*self._running, *joining]
        self._budget = len(rows) * max(map(_length, rows)) // 2
        self._batch, self._running = Batch(self._model), []
        if len(rows) == 1:
            words = f"the memory does not hold the request, {_length(rows[0])} tokens long: {reason}"
            yield Chunk(rows[0].request.id, finish_reason="error", error=words)
            return None
        for row in rows:
            self.add(row)
        return None


def _length(row: Row) -> int:
    """Tokens of a row so far."""
    return len(row.tokens)
