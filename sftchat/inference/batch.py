"""State and forward passes of a running batch, in which rows are inserted and removed between any two tokens."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor
from transformers import DynamicCache

from sftchat.inference.kv_cache import MIN_SHARED_TOKENS, BatchCache, Prefix, PromptCache, common_prefix_length, copy_rows, without_windows
from sftchat.models.loading import unwrapped

T = TypeVar("T")
SelectAdapters = Callable[[Sequence[str]], None]
"""Called before each forward pass with the adapter of every row."""


@dataclass
class Prefill:
    """Prompts in prefill; once it is complete, they can be inserted into a batch.

    Attributes:
        prompts: Token ids of each prompt.
        adapters: Adapter of each prompt.
        cache: Keys and values so far, padded on the left; until prefill is complete, the padding is between the prefix and the other tokens.
        ids: Tokens not yet prefilled, shape ``(rows, columns)``.
        prefix: Cached or shared prefix of all prompts; None if there is none.
        gaps: Number of padding columns of each row.
        cached_tokens: Number of tokens of each prompt that came from the prompt cache.
        logits: Logits of the first token of each reply, shape ``(rows, vocabulary)``; None until prefill is complete.
    """

    prompts: Sequence[list[int]]
    adapters: Sequence[str]
    cache: DynamicCache
    ids: Tensor
    prefix: Prefix | None
    gaps: tuple[int, ...]
    cached_tokens: int = 0
    logits: Tensor | None = None

    @property
    def lengths(self) -> tuple[int, ...]:
        """Number of tokens of each prompt."""
        return tuple(map(len, self.prompts))

    @property
    def bytes_per_token(self) -> int:
        """Memory of one row and column in bytes, over all layers."""
        states = [getattr(layer, name, None) for layer in self.cache.layers for name in ("keys", "values")]
        return max(1, sum(int(state.shape[1] * state.shape[3] * state.element_size()) for state in states if state is not None))


class Batch:
    """The state of a running batch.

    Left padding puts every row's newest token in the last column. Padding is masked and positions count real tokens, so a row's logits are those of
    the row alone, up to the rounding of matrix products.

    Args:
        model: A causal language model in eval mode.
        select_adapters: See ``SelectAdapters``.
        prompt_cache: Prompt cache; None for no cache. With one, tokens outside a sliding window are stored too, so that any prefix of a row can be
            cached.
        merges: Whether ``BatchCache`` may be used; otherwise rows use transformers' own cache and none is inserted into a running batch.

    Attributes:
        lengths: Number of tokens of each row, prompt and reply.
        adapters: Adapter of each row.
        mergeable: Whether prompts may be inserted into a running batch; otherwise only into an empty one.
    """

    def __init__(self, model: Any, select_adapters: SelectAdapters, prompt_cache: PromptCache | None, merges: bool) -> None:
        self._model = model
        self._merges = merges
        self._select_adapters = select_adapters
        self._prompt_cache = prompt_cache
        self.device: torch.device = model.device
        parameters = inspect.signature(unwrapped(model).forward).parameters
        self._takes_logits_to_keep = "logits_to_keep" in parameters
        self._takes_positions = "position_ids" in parameters
        self._cache: BatchCache | DynamicCache | None = None
        self.lengths: list[int] = []
        self.adapters: list[str] = []
        empty_cache = self._new_cache()
        self.mergeable = merges and BatchCache.can_merge(empty_cache)
        self._prefix: Prefix | None = None  # the last prefix that prompts shared
        windows = (layer.sliding_window for layer in empty_cache.layers if getattr(layer, "is_sliding", False))
        self._window = min(windows, default=sys.maxsize)

    def _new_cache(self) -> DynamicCache:
        cache = DynamicCache(config=self._model.config)
        if self._prompt_cache is not None and self._merges and BatchCache.can_merge(cache):
            without_windows(cache)
        return cache

    @property
    def width(self) -> int:
        """Number of columns in use."""
        columns: int = 0 if self._cache is None else self._cache.get_seq_length()
        return columns

    @torch.inference_mode()
    def prepare(self, prompts: Sequence[list[int]], adapters: Sequence[str]) -> Prefill:
        """Prepare a prefill without changing the running rows.

        Args:
            prompts: Token ids; none is empty.
            adapters: Adapter of each prompt.
        """
        cached_prefix = prefix = None
        if self.can_share(prompts, adapters):
            cached_prefix = self._prompt_cache.find(adapters[0], prompts) if self._prompt_cache is not None else None
            prefix = cached_prefix or self._prefill_shared_prefix(prompts, adapters[0])
        prefix_length = 0 if prefix is None else len(prefix.tokens)
        longest = max(map(len, prompts))
        gaps = tuple(longest - len(prompt) for prompt in prompts)
        rows = [[0] * gap + prompt[prefix_length:] for gap, prompt in zip(gaps, prompts, strict=True)]
        cache = self._new_cache()
        if prefix is not None:
            prefix.write_to(cache, len(prompts))
        cached_tokens = prefix_length if cached_prefix else 0
        return Prefill(prompts, adapters, cache, torch.tensor(rows, device=self.device), prefix, gaps, cached_tokens)

    @torch.inference_mode()
    def prefill(self, prefill: Prefill, columns: int = sys.maxsize) -> bool:
        """Prefill at most ``columns`` more columns, or all where a split is impossible; returns whether prefill is complete."""
        if any(prefill.gaps) or not self.mergeable:
            columns = sys.maxsize  # a column of padding alone has nothing to attend to, and a recurrent state would restart
        next_ids, prefill.ids = prefill.ids[:, :columns], prefill.ids[:, columns:]
        columns_left = prefill.ids.shape[1]
        prefix_length = 0 if prefill.prefix is None else len(prefill.prefix.tokens)
        lengths = [length - columns_left for length in prefill.lengths]
        logits = self._forward(next_ids, prefill.cache, lengths, max(lengths), prefill.adapters, prefix_length=prefix_length)
        if columns_left:
            return False
        if prefill.prefix is not None:
            prefill.prefix.move_past_padding(prefill.cache, prefill.gaps)
        prefill.logits = logits[:, -1]
        return True

    def _prefill_shared_prefix(self, prompts: Sequence[list[int]], adapter: str) -> Prefix | None:
        """Return the common prefix of the prompts, prefilled now or before; None if a separate prefill costs more than it saves."""
        size, previous = common_prefix_length(prompts), self._prefix
        if previous is not None and previous.adapter == adapter and 2 * len(previous.tokens) >= size and previous.begins_all(prompts):
            return previous
        if (len(prompts) - 1) * size < MIN_SHARED_TOKENS:
            return None
        cache = self._new_cache()
        self._forward(torch.tensor([prompts[0][:size]], device=self.device), cache, (size,), size, [adapter])
        self._prefix = Prefix.from_cache(prompts[0][:size], cache, adapter)
        return self._prefix

    def can_share(self, prompts: Sequence[list[int]], adapters: Sequence[str]) -> bool:
        """Whether the prompts can share the keys and values of a prefix.

        Padding after a prefix is harmless if the model takes positions, and if no prompt is longer than the sliding window.
        """
        padded = len(set(map(len, prompts))) > 1
        fits_window = max(map(len, prompts)) <= self._window
        return self.mergeable and (self._takes_positions or not padded) and fits_window and len(set(adapters)) == 1

    @torch.inference_mode()
    def continue_prompts(self, prefill: Prefill, rows: Sequence[int], tokens: Sequence[Sequence[int]]) -> Tensor:
        """Feed tokens to copies of prefilled prompts, which stay unchanged; requires ``mergeable``.

        Args:
            prefill: A complete prefill.
            rows: The prompt of each copy; a prompt may be copied several times.
            tokens: Tokens that follow each copy, at least one.

        Returns:
            The logits after each token, shape ``(copies, columns, vocabulary)``; those after the last token of a copy have no meaning.
        """
        longest = max(map(len, tokens))
        ids = torch.tensor([[*row_tokens, *[0] * (longest - len(row_tokens))] for row_tokens in tokens], device=self.device)
        prompt_lengths = [prefill.lengths[row] for row in rows]
        last = max(length + len(row_tokens) for length, row_tokens in zip(prompt_lengths, tokens, strict=True)) - 1
        return self._forward(
            ids, copy_rows(prefill.cache, rows), [length + longest for length in prompt_lengths], prefill.cache.get_seq_length() + longest,
            [prefill.adapters[row] for row in rows], logit_columns=longest, last_position=last,
        )  # fmt: skip

    @torch.inference_mode()
    def sequence_logits(self, sequences: Sequence[Sequence[int]], adapter: str, columns: int) -> Tensor:
        """Return the logits after the last ``columns`` tokens of whole sequences, shape ``(sequences, columns, vocabulary)``."""
        longest = max(map(len, sequences))
        ids = torch.tensor([[*[0] * (longest - len(sequence)), *sequence] for sequence in sequences], device=self.device)
        return self._forward(
            ids, None, [len(sequence) for sequence in sequences], longest, [adapter] * len(sequences), logit_columns=columns
        )

    @torch.inference_mode()
    def logits_in_parts(self, sequence: Sequence[int], adapter: str, count: int, columns: int) -> Iterator[Tensor]:
        """Yield the logits after the last ``count`` tokens of one sequence, ``columns`` at a time; requires ``mergeable``."""
        cache, start = self._new_cache(), 0
        for end in [*range(len(sequence) - count + columns, len(sequence), columns), len(sequence)]:
            ids = torch.tensor([sequence[start:end]], device=self.device)
            wanted = min(columns, end - max(start, len(sequence) - count))
            yield self._forward(ids, cache, [end], end, [adapter], logit_columns=wanted)
            start = end

    @torch.inference_mode()
    def insert(self, prefill: Prefill) -> bool:
        """Append prefilled prompts to the running rows; always returns True."""
        if self.mergeable:
            if not isinstance(self._cache, BatchCache):
                self._cache = BatchCache(prefill.cache)
            self._cache.insert(prefill.cache, max(prefill.lengths))
        else:
            self._cache = prefill.cache
        self.lengths += prefill.lengths
        self.adapters += prefill.adapters
        return True

    @torch.inference_mode()
    def step(self, tokens: Sequence[int]) -> Tensor:
        """Feed one token to each row; returns the logits of the next one, shape ``(rows, vocabulary)``."""
        cache = self._cache
        if isinstance(cache, BatchCache):
            cache.reserve()
        lengths = [length + 1 for length in self.lengths]
        ids = torch.tensor(tokens, device=self.device)[:, None]
        logits = self._forward(ids, cache, lengths, self.width + 1, self.adapters)
        if isinstance(cache, BatchCache):
            cache.advance()
        self.lengths = lengths
        return logits[:, -1]

    @torch.inference_mode()
    def verify(self, tokens: Sequence[int]) -> Tensor:
        """Return the logits after each of several tokens, shape ``(tokens, vocabulary)``; ``accept`` then adds some of them to the only row."""
        assert isinstance(self._cache, BatchCache)
        count = len(tokens)
        self._cache.reserve(count)
        ids = torch.tensor([tokens], device=self.device)
        return self._forward(ids, self._cache, [self.lengths[0] + count], self.width + count, self.adapters, logit_columns=count)[0]

    def accept(self, count: int) -> None:
        """Add the first ``count`` of the tokens of the last ``verify`` to the row."""
        assert isinstance(self._cache, BatchCache)
        self._cache.advance(count)
        self.lengths = [self.lengths[0] + count]

    def copy_prefix(self, row: int, tokens: Sequence[int]) -> Prefix | None:
        """Copy the keys and values of a row whose tokens are given; None if the cache does not support it."""
        length = self.lengths[row]
        if not isinstance(self._cache, BatchCache) or length >= self._window:
            return None
        count = min(len(tokens), length)
        return Prefix(tuple(tokens[:count]), self._cache.copy(row, length, count), self.adapters[row])

    @torch.inference_mode()
    def clear(self, rows: Collection[int]) -> None:
        """Set the keys and values of rows to zero and drop the shared prefix; does nothing without rows."""
        if rows:
            self._prefix = None
            if isinstance(self._cache, BatchCache):
                self._cache.clear(rows)

    @torch.inference_mode()
    def remove(self, rows: Collection[int]) -> None:
        """Remove rows; the last rows take their places, as in ``swap_remove``."""
        remaining = list(range(len(self.lengths)))
        swap_remove(remaining, rows)
        self.lengths = [self.lengths[row] for row in remaining]
        self.adapters = [self.adapters[row] for row in remaining]
        if not remaining:
            self._cache = None
        elif isinstance(self._cache, BatchCache):
            moves = [(row, new_row) for new_row, row in enumerate(remaining) if row != new_row]
            self._cache.compact(moves, len(remaining), max(self.lengths))
        elif self._cache is not None:
            self._cache.reorder_cache(torch.tensor(remaining, device=self.device))

    def _forward(
        self, ids: Tensor, cache: Any, lengths: Sequence[int], width: int, adapters: Sequence[str],
        *, prefix_length: int = 0, logit_columns: int = 1, last_position: int | None = None,
    ) -> Tensor:  # fmt: skip
        """Run the model and return the logits of the last columns, shape ``(rows, logit_columns, vocabulary)``.

        Args:
            ids: The newest columns, shape ``(rows, columns)``.
            cache: Keys and values of the columns before; None to keep none.
            lengths: Number of tokens of each row, the newest included.
            width: Number of columns, the newest included.
            adapters: Adapter of each row.
            prefix_length: Number of tokens in the first columns of each row, before its padding.
            logit_columns: Number of columns whose logits are returned.
            last_position: Maximum position; columns of padding on the right must not exceed the positions that the model knows.
        """
        positions = torch.arange(width, device=self.device) - (width - torch.tensor(lengths, device=self.device))[:, None]
        is_token = positions >= prefix_length
        is_token[:, :prefix_length] = True
        # a batch without padding needs no mask, and attention without a mask takes the faster kernel
        mask = None if min(lengths) == width else is_token.long()
        arguments: dict[str, Any] = {"position_ids": positions[:, -ids.shape[1] :].clamp(0, last_position)} if self._takes_positions else {}
        if self._takes_logits_to_keep:
            arguments["logits_to_keep"] = logit_columns
        self._select_adapters(adapters)
        logits: Tensor = self._model(
            input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=cache is not None, **arguments
        ).logits
        return logits[:, -logit_columns:]


def swap_remove(items: list[T], indices: Collection[int]) -> None:
    """Remove items from a list; each gap is filled with the last item."""
    for index in sorted(indices, reverse=True):
        last = items.pop()
        if index < len(items):
            items[index] = last
