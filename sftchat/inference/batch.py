"""Prompts in, logits out: the rows of a running batch, which join and leave between any two tokens."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor
from transformers import DynamicCache

from sftchat.inference.kv_cache import BatchCache, without_windows
from sftchat.inference.prompt_cache import MIN_SHARED_TOKENS, Prefix, PromptCache, common_prefix
from sftchat.models.loading import unwrapped

T = TypeVar("T")
Route = Callable[[Sequence[str]], None]


def unrouted(adapters: Sequence[str]) -> None:
    """The route of a model that has no adapters to choose from."""


@dataclass
class Prefill:
    """Prompts that are being read and can then join a batch.

    Attributes:
        prompts: Token ids of each.
        adapters: What each is read with.
        cache: Keys and values of what was read, padded on the left.
        ids: What is still to be read, shape ``(rows, columns)``.
        prefix: Tokens of each that were known, in the first columns.
        gaps: Columns of padding of each, behind the prefix until all is read.
        cached: Tokens of each that were known from earlier requests.
        logits: Of the first token of each reply, shape ``(rows, vocabulary)``; None until all is read.
    """

    prompts: Sequence[list[int]]
    adapters: Sequence[str]
    cache: DynamicCache
    ids: Tensor
    prefix: Prefix | None
    gaps: tuple[int, ...]
    cached: int = 0
    logits: Tensor | None = None

    @property
    def lengths(self) -> tuple[int, ...]:
        """Tokens of each prompt."""
        return tuple(map(len, self.prompts))

    @property
    def bytes_per_token(self) -> int:
        """Memory that one row takes for one column, over all layers."""
        parts = [part for layer in self.cache.layers for part in (getattr(layer, "keys", None), getattr(layer, "values", None))]
        sizes = [int(part.shape[1] * part.shape[3] * part.element_size()) for part in parts if part is not None]
        return max(1, sum(sizes))


class Batch:
    """The state of a running batch.

    Left padding puts every row's newest token in the last column. Padding is masked and positions count real tokens, so a row's logits are those it
    would have alone, up to the rounding of the matrix products.

    Args:
        model: A causal language model in eval mode.
        route: Called before each forward pass with the adapter of every row.
        kept: Keys and values of earlier requests.
        whole: Keep what layers with a window no longer look at, so that rows can be cut anywhere and kept.
        merges: Whether ``BatchCache`` may be used; without it rows keep transformers' own cache and no row joins while others run.
    """

    def __init__(
        self, model: Any, route: Route = unrouted, kept: PromptCache | None = None, whole: bool = False, merges: bool = True
    ) -> None:
        self._model = model
        self._merges = merges
        self._route = route
        self._kept = kept
        self.device: torch.device = model.device
        self._keeps = "logits_to_keep" in (accepted := inspect.signature(unwrapped(model).forward).parameters)
        self._positions = "position_ids" in accepted
        self._cache: BatchCache | DynamicCache | None = None
        self.lengths: list[int] = []
        """Tokens of each row, prompt and reply."""
        self.adapters: list[str] = []
        """What each row is answered with."""
        self._whole = whole
        empty = self._empty()
        self.mergeable = merges and BatchCache.can_merge(empty)
        """Whether prompts may join while others run; otherwise only when the batch is empty."""
        self._prefix: Prefix | None = None
        self._window = min((layer.sliding_window for layer in empty.layers if getattr(layer, "is_sliding", False)), default=sys.maxsize)

    def _empty(self) -> DynamicCache:
        """A cache for prompts."""
        cache = DynamicCache(config=self._model.config)
        if self._whole and self._merges and BatchCache.can_merge(cache):
            without_windows(cache)
        return cache

    @property
    def width(self) -> int:
        """Columns that every row takes."""
        columns: int = 0 if self._cache is None else self._cache.get_seq_length()
        return columns

    @torch.inference_mode()
    def begin(self, prompts: Sequence[list[int]], adapters: Sequence[str]) -> Prefill:
        """Prepare prompts to be read, without touching the rows that run.

        Args:
            prompts: Token ids, none empty.
            adapters: What each is to be read with.
        """
        known = self._known(prompts, adapters)
        prefix = known or self._shared(prompts, adapters)
        skipped = 0 if prefix is None else len(prefix.tokens)
        longest = max(map(len, prompts))
        gaps = tuple(longest - len(prompt) for prompt in prompts)
        ids = torch.tensor([[0] * gap + prompt[skipped:] for gap, prompt in zip(gaps, prompts, strict=True)], device=self.device)
        cache = self._empty()
        if prefix is not None:
            prefix.fill(cache, len(prompts))
        return Prefill(prompts, adapters, cache, ids, prefix, gaps, skipped if known else 0)

    @torch.inference_mode()
    def read(self, reading: Prefill, columns: int = sys.maxsize) -> bool:
        """Read on, at most so many columns where that is possible; returns whether all is read."""
        if any(reading.gaps) or not self.mergeable:
            columns = sys.maxsize  # a column that is padding alone has nothing to look at, a recurrent state begins anew
        part, reading.ids = reading.ids[:, :columns], reading.ids[:, columns:]
        left = reading.ids.shape[1]
        skipped = 0 if reading.prefix is None else len(reading.prefix.tokens)
        lengths = [length - left for length in reading.lengths]
        logits = self._forward(part, reading.cache, lengths, max(lengths), reading.adapters, prefix=skipped)
        if left:
            return False
        if reading.prefix is not None:
            reading.prefix.close_up(reading.cache, reading.gaps)
        reading.logits = logits[:, -1]
        return True

    def _known(self, prompts: Sequence[list[int]], adapters: Sequence[str]) -> Prefix | None:
        """What the prompts begin with, where an earlier request has left it."""
        if self._kept is None or not self._can_share(prompts, adapters):
            return None
        return self._kept.find(adapters[0], prompts)

    def _shared(self, prompts: Sequence[list[int]], adapters: Sequence[str]) -> Prefix | None:
        """What the prompts begin with, read now or before; None when sharing it is not possible or does not pay."""
        if not self._can_share(prompts, adapters):
            return None
        size, adapter = common_prefix(prompts), adapters[0]
        if (
            self._prefix is not None
            and self._prefix.adapter == adapter
            and 2 * len(self._prefix.tokens) >= size
            and self._prefix.begins(prompts)
        ):
            return self._prefix
        if (len(prompts) - 1) * size < MIN_SHARED_TOKENS:
            return None
        cache = self._empty()
        self._forward(torch.tensor([prompts[0][:size]], device=self.device), cache, (size,), size, [adapter])
        self._prefix = Prefix.of(prompts[0][:size], cache, adapter)
        return self._prefix

    def _can_share(self, prompts: Sequence[list[int]], adapters: Sequence[str]) -> bool:
        """Whether prompts can begin with the same keys and values.

        Padding between a prefix and the rest of a prompt moves neither positions nor, up to its size, a window.
        """
        moved = len(set(map(len, prompts))) > 1
        return self.mergeable and (self._positions or not moved) and max(map(len, prompts)) <= self._window and len(set(adapters)) == 1

    @torch.inference_mode()
    def join(self, reading: Prefill) -> bool:
        """Let prompts that have been read join behind the rows that run; always true."""
        if self.mergeable:
            if not isinstance(self._cache, BatchCache):
                self._cache = BatchCache(reading.cache)
            self._cache.join(reading.cache, max(reading.lengths))
        else:
            self._cache = reading.cache
        self.lengths += reading.lengths
        self.adapters += reading.adapters
        return True

    @torch.inference_mode()
    def step(self, tokens: Sequence[int]) -> Tensor:
        """Feed one token to each row; returns the logits of the next, shape ``(rows, vocabulary)``."""
        cache = self._cache
        if isinstance(cache, BatchCache):
            cache.make_room()
        lengths = [length + 1 for length in self.lengths]
        ids = torch.tensor(tokens, device=self.device)[:, None]
        logits = self._forward(ids, cache, lengths, self.width + 1, self.adapters)
        if isinstance(cache, BatchCache):
            cache.advance()
        self.lengths = lengths
        return logits[:, -1]

    @torch.inference_mode()
    def check(self, tokens: Sequence[int]) -> Tensor:
        """Feed several tokens to the only row, without taking them in; returns the logits after each, shape ``(tokens, vocabulary)``."""
        assert isinstance(self._cache, BatchCache)
        self._cache.make_room(len(tokens))
        length = self.lengths[0] + len(tokens)
        ids = torch.tensor([tokens], device=self.device)
        return self._forward(ids, self._cache, [length], self.width + len(tokens), self.adapters, keep=len(tokens))[0]

    def accept(self, count: int) -> None:
        """Take in the first of the tokens that were checked."""
        assert isinstance(self._cache, BatchCache)
        self._cache.advance(count)
        self.lengths = [self.lengths[0] + count]

    def prefix_of(self, row: int, tokens: Sequence[int]) -> Prefix | None:
        """A copy of what a row holds of its tokens; None where it cannot be taken out."""
        if not isinstance(self._cache, BatchCache):
            return None
        count = min(len(tokens), self.lengths[row])
        if self.lengths[row] >= self._window:
            return None
        return Prefix(tuple(tokens[:count]), self._cache.copy(row, self.lengths[row], count), self.adapters[row])

    @torch.inference_mode()
    def clear(self, rows: Collection[int]) -> None:
        """Overwrite what is held of rows with zeros, and forget the prefix that rows share, where any is given."""
        if rows:
            self._prefix = None
            if isinstance(self._cache, BatchCache):
                self._cache.clear(rows)

    @torch.inference_mode()
    def leave(self, gone: Collection[int]) -> None:
        """Let rows go; the last ones take their places, as ``moves_into_gaps`` does it to a list."""
        order = list(range(len(self.lengths)))
        moves_into_gaps(order, gone)
        self.lengths = [self.lengths[row] for row in order]
        self.adapters = [self.adapters[row] for row in order]
        if not order:
            self._cache = None
        elif isinstance(self._cache, BatchCache):
            self._cache.replace([(row, place) for place, row in enumerate(order) if row != place], len(order), max(self.lengths))
        elif self._cache is not None:
            self._cache.reorder_cache(torch.tensor(order, device=self.device))

    def _forward(
        self, ids: Tensor, cache: Any, lengths: Sequence[int], width: int, adapters: Sequence[str], prefix: int = 0, keep: int = 1
    ) -> Tensor:
        """Run the model and return the logits of the last columns, shape ``(rows, keep, vocabulary)``.

        Args:
            ids: The newest columns, shape ``(rows, columns)``.
            cache: Holds the columns before them.
            lengths: Tokens of each row, the newest included.
            width: Columns, the newest included.
            adapters: What each row is read with.
            prefix: Tokens of each row that stand in the first columns, before its padding.
            keep: How many columns.
        """
        places = torch.arange(width, device=self.device) - (width - torch.tensor(lengths, device=self.device))[:, None]
        seen = places >= prefix
        seen[:, :prefix] = True
        # a batch without padding needs no mask, and attention without a mask takes the faster kernel
        mask = None if min(lengths) == width else seen.long()
        arguments: dict[str, Any] = {"position_ids": places[:, -ids.shape[1] :].clamp(min=0)} if self._positions else {}
        if self._keeps:
            arguments["logits_to_keep"] = keep
        self._route(adapters)
        logits: Tensor = self._model(input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, **arguments).logits
        return logits[:, -keep:]


def moves_into_gaps(items: list[T], gone: Collection[int]) -> None:
    """Take items out of a list, each gap filled by what is then the last."""
    for index in sorted(gone, reverse=True):
        last = items.pop()
        if index < len(items):
            items[index] = last
