"""Continuous batching (Orca, Yu et al. 2022) within a measured memory budget: selects which requests are prefilled and which run together.

Waiting requests are sorted by length and the longest start first: prompts that are prefilled together then need little padding, and a lack of memory
shows at once. Prompts that begin with the same tokens share the prefill of that prefix. A single chat request passes through the same loop.

Keys and values may take half of the memory that was free after the first prefill. When the running requests grow beyond this budget, the shortest
return to the queue. When memory runs out, the budget is halved and all running requests return to the queue. A request that returned is later
prefilled again with its reply so far, so no token is lost or emitted twice. A request that does not fit into memory alone ends with an error.

In float32 a reply does not depend on the other requests of the batch; in bfloat16, rounding may change the choice between two almost equally likely
tokens.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from math import isfinite
from typing import Any, TypeVar

from torch import Tensor

from sftchat._util.fallback import report_fallback
from sftchat.engine import Chunk
from sftchat.errors import EngineError, first_line, in_one_line
from sftchat.inference.batch import Batch, Prefill, SelectAdapters, swap_remove
from sftchat.inference.kv_cache import GROWTH_COLUMNS, Prefix, PromptCache, free_bytes, is_out_of_memory, shared_length
from sftchat.inference.sequence import PromptLookupDecoder, RunningRequest, most_likely_tokens
from sftchat.models.loading import unwrapped

MAX_PREFILL_TOKENS = 2048
"""Maximum number of tokens, padding included, prefilled in one forward pass; more is no faster and takes memory."""
MIN_PREFILL_COLUMNS = 256
"""Minimum number of tokens of one prompt that are prefilled before the caller gets an empty chunk and can cancel."""
PREFILL_WORK = 2.5e11
"""Number of tokens times parameters that are prefilled before the caller can cancel: about two seconds on a CPU with two cores. Fewer and longer passes are
faster, because a pass without earlier tokens needs no attention mask; measuring the time instead would make rounding depend on it."""
REFILL_DIVISOR = 8
"""Free slots are filled once they are at least 1/8 of all: prefilling few prompts at a time costs more than idle slots."""
CACHE_SHARE = 0.5
"""Share of free memory for keys and values; the rest is for activations and for moving buffers."""
LIBRARY_CHANGED_ERRORS = (AttributeError, TypeError, NotImplementedError, ImportError)
"""Exceptions raised when a library no longer has a name or accepts an argument."""

T = TypeVar("T")


class Scheduler:
    """Selects the requests of the running batch and samples their tokens.

    Args:
        name: Name of the model, for messages.
        model: A causal language model in eval mode.
        slots: Maximum number of running requests.
        select_adapters: See ``Batch``.
        mixes_adapters: Whether requests of different adapters can run together.
        prompt_cache: Prompt cache to read from and add to; None for no cache.
        merges: See ``Batch``.
    """

    def __init__(
        self, name: str, model: Any, slots: int, *, select_adapters: SelectAdapters, mixes_adapters: bool, prompt_cache: PromptCache | None,
        merges: bool,
    ) -> None:  # fmt: skip
        self._name = name
        self._model = model
        self._slots = slots
        self._mixes_adapters = mixes_adapters
        self._prompt_cache = prompt_cache
        self._merges = merges
        self._new_batch: Callable[[], Batch] = lambda: Batch(model, select_adapters, prompt_cache, self._merges)
        self._batch = self._new_batch()
        self._prefill: tuple[list[RunningRequest], Prefill] | None = None
        self._lookup: tuple[RunningRequest, PromptLookupDecoder] | None = None
        self._budget: int | None = None  # maximum number of rows times columns; None until the first prefill has shown their memory
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

    def add(self, request: RunningRequest) -> None:
        """Add a request to the queue."""
        insort(self._waiting, request, key=_token_count)

    def advance(self) -> Iterator[Chunk]:
        """Start waiting requests if slots are free, then generate one token for each running request.

        Raises:
            EngineError: When the model fails.
        """
        while group := self._next_group():
            yield from self._start(group)
        if self._running:
            self._preempt()
            yield from self._step()

    def save_prompts(self) -> None:
        """Add the keys and values of unfinished requests to the prompt cache, also those of an unfinished prefill."""
        for index in range(len(self._running)):
            self._save_prompt(index)
        if self._prompt_cache is not None and self._prefill is not None:
            group, prefill = self._prefill
            if len(group) == 1 and self._batch.mergeable and (count := prefill.cache.get_seq_length()):
                self._prompt_cache.add(Prefix.from_cache(group[0].tokens[:count], prefill.cache, group[0].adapter))

    def _next_group(self) -> list[RunningRequest]:
        """Take the requests to prefill next from the queue; empty if the running ones should continue without them."""
        free_slots = self._slots - len(self._running)
        if not self._waiting or (self._running and (not self._batch.mergeable or free_slots * REFILL_DIVISOR < self._slots)):
            return []
        longest = _token_count(self._waiting[-1])
        count = min(free_slots, max(1, MAX_PREFILL_TOKENS // longest)) if self._batch.mergeable else free_slots
        if self._budget is not None:
            count = min(count, self._budget // (max(self._batch.width, longest) + GROWTH_COLUMNS) - len(self._running))
        if count < 1:
            if self._running:
                return []
            count = 1
        if self._mixes_adapters:
            group = self._waiting[-count:]
            del self._waiting[-count:]
        else:
            adapter = self._running[0].adapter if self._running else self._waiting[-1].adapter
            group = [request for request in self._waiting if request.adapter == adapter][-count:]
            self._waiting = [request for request in self._waiting if request not in group]
        return group

    def _start(self, group: list[RunningRequest]) -> Iterator[Chunk]:
        """Prefill prompts, insert them into the batch, and sample their first tokens."""
        tokens, adapters = [request.tokens for request in group], [request.adapter for request in group]
        prefill = yield from self._run_or_requeue(lambda: self._batch.prepare(tokens, adapters), group)
        if prefill is None:
            return
        self._prefill = (group, prefill)
        columns = self._prefill_columns(max(map(len, tokens)))
        while prefill.logits is None:
            is_complete = yield from self._run_or_requeue(lambda: self._batch.prefill(prefill, columns), group)
            if is_complete is None:
                return
            if not is_complete:
                yield Chunk(group[0].request.id)  # empty chunk: gives the caller a chance to cancel
        if self._budget is None:
            self._budget = int(CACHE_SHARE * free_bytes(self._batch.device) / prefill.bytes_per_token)
        if (yield from self._run_or_requeue(lambda: self._batch.insert(prefill), group)) is None:
            return
        self._prefill = None
        first = len(self._running)
        self._running += group
        for request in group:
            request.cached_tokens = request.cached_tokens or prefill.cached_tokens
        yield from self._sample_tokens(prefill.logits, first)

    def _prefill_columns(self, longest: int) -> int:
        """Return the number of columns to prefill at a time, given the number of tokens of the longest prompt."""
        if longest <= MIN_PREFILL_COLUMNS:
            return MIN_PREFILL_COLUMNS
        return max(MIN_PREFILL_COLUMNS, min(MAX_PREFILL_TOKENS, int(PREFILL_WORK / unwrapped(self._model).num_parameters())))

    def _step(self) -> Iterator[Chunk]:
        """Generate one token for every running request, or several for a single one."""
        if guess := self._guess_tokens():
            yield from self._verify(guess)
            return
        logits = yield from self._run_or_requeue(lambda: self._batch.step([request.tokens[-1] for request in self._running]), [])
        if logits is not None:
            yield from self._sample_tokens(logits)

    def _guess_tokens(self) -> list[int]:
        """Guess the next tokens of a single greedy request; empty if there is no guess or it could not be verified."""
        if len(self._running) > 1 or not self._batch.mergeable or not self._running[0].sampler.is_argmax:
            return []
        request = self._running[0]
        if self._lookup is None or self._lookup[0] is not request:
            self._lookup = (request, PromptLookupDecoder())
        return self._lookup[1].guess(request.tokens, request.limit - len(request.tokens) - 1)

    def _verify(self, guess: list[int]) -> Iterator[Chunk]:
        """Append the correct tokens of a guess and the one after them."""
        assert self._lookup is not None
        request, lookup = self._lookup
        logits = yield from self._run_or_requeue(lambda: self._batch.verify([request.tokens[-1], *guess]), [])
        if logits is None:
            return
        tokens, max_logits = most_likely_tokens(logits)
        correct = shared_length(tokens, guess)
        lookup.learn(len(guess), correct)
        self._batch.accept(correct + 1)
        for token, logit in zip(tokens[: correct + 1], max_logits, strict=False):
            chunk = request.append(token) if isfinite(logit) else request.fail(logit)
            if chunk.finish_reason is not None:
                self._finish({0: chunk})
                yield chunk
                break
            yield chunk

    def _sample_tokens(self, logits: Tensor, first: int = 0) -> Iterator[Chunk]:
        """Sample a token for each running request from index ``first``; remove requests that finish."""
        greedy_tokens, max_logits = most_likely_tokens(logits)
        chunks = []
        for row, request in enumerate(self._running[first:]):
            if not isfinite(max_logits[row]):
                chunks.append(request.fail(max_logits[row]))
            else:
                chunks.append(request.append(greedy_tokens[row] if request.sampler.is_argmax else request.sampler.choose(logits[row])))
        self._finish({first + row: chunk for row, chunk in enumerate(chunks) if chunk.finish_reason is not None})
        yield from chunks

    def _finish(self, last_chunks: Mapping[int, Chunk]) -> None:
        """Remove requests: cache the keys and values of finished ones, clear those of failed ones, which may not be finite.

        Args:
            last_chunks: Last chunk of each request, by its index.
        """
        failed = {index for index, chunk in last_chunks.items() if chunk.finish_reason == "error"}
        for index in last_chunks.keys() - failed:
            self._save_prompt(index)
        self._batch.clear(failed)
        self._remove(last_chunks.keys())

    def _remove(self, indices: Collection[int]) -> None:
        if indices:
            self._batch.remove(indices)
            swap_remove(self._running, indices)

    def _preempt(self) -> None:
        """Move the shortest requests back to the queue when the batch exceeds the memory budget."""
        width, count = self._batch.width + 1, len(self._running)
        if self._budget is None or count * width <= self._budget:
            return
        surplus = count - max(1, self._budget // (width + GROWTH_COLUMNS))
        shortest = sorted(range(count), key=lambda index: _token_count(self._running[index]))[:surplus]
        for index in shortest:
            self.add(self._running[index])
        self._remove(shortest)

    def _save_prompt(self, index: int) -> None:
        if self._prompt_cache is not None and (prefix := self._batch.copy_prefix(index, self._running[index].tokens)) is not None:
            self._prompt_cache.add(prefix)

    def _run_or_requeue(self, work: Callable[[], T], starting: list[RunningRequest]) -> Generator[Chunk, None, T | None]:
        """Return the result of ``work``; None if all requests were requeued because memory ran out or a library does not support continuous batching.

        If memory does not suffice for a single request, that request ends with an error.

        Args:
            work: A step of the batch; does not return None.
            starting: Requests in prefill, which are not among the running ones.
        """
        out_of_memory = False
        try:
            return work()
        except Exception as error:  # third-party code may raise anything; it ends as an error of the engine
            reason = first_line(error)
            if is_out_of_memory(error):
                out_of_memory = True
            elif isinstance(error, LIBRARY_CHANGED_ERRORS) and (self._batch.mergeable or self._mixes_adapters):
                report_fallback("continuous batching", in_one_line(error))
                self._merges = self._mixes_adapters = False
            else:
                raise EngineError(f"model '{self._name}' failed while generating: {reason}") from error
        requests = [*self._running, *starting]
        if out_of_memory:
            self._budget = len(requests) * max(map(_token_count, requests)) // 2
        if self._prompt_cache is not None:
            self._prompt_cache.clear()
        self._batch, self._running, self._prefill = self._new_batch(), [], None
        if len(requests) == 1 and out_of_memory:
            error_message = f"the memory does not hold the request, {_token_count(requests[0])} tokens long: {reason}"
            yield Chunk(requests[0].request.id, finish_reason="error", error=error_message)
            return None
        for request in requests:
            self.add(request)
        return None


def _token_count(request: RunningRequest) -> int:
    return len(request.tokens)
