"""Prompts in, logits out: the rows of a running batch, which join and leave between any two tokens."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor
from transformers import DynamicCache

from sftchat.engines.cache import RowCache
from sftchat.engines.prefix import SAVED, Prefix, common_prefix
from sftchat.models.weights import unwrapped

T = TypeVar("T")


@dataclass(frozen=True)
class Prefilled:
    """Prompts that have been read and can join a batch.

    Attributes:
        cache: Their keys and values, padded on the left.
        lengths: Tokens of each.
        logits: Of the first token of each reply, shape ``(rows, vocabulary)``.
    """

    cache: DynamicCache
    lengths: tuple[int, ...]
    logits: Tensor

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
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self.device: torch.device = model.device
        accepted = inspect.signature(unwrapped(model).forward).parameters
        self._extra = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}
        self._positions = "position_ids" in accepted
        self._cache: RowCache | DynamicCache | None = None
        self.lengths: list[int] = []
        """Tokens of each row, prompt and reply."""
        empty = DynamicCache(config=model.config)
        self.mergeable = RowCache.can_merge(empty)
        """Whether prompts may join while others run; otherwise only when the batch is empty."""
        self._prefix: Prefix | None = None
        # padding between a prefix and the rest of a prompt moves neither positions nor, up to its size, a window
        self._shares = self.mergeable and self._positions
        self._window = min((layer.sliding_window for layer in empty.layers if layer.is_sliding), default=sys.maxsize)

    @property
    def width(self) -> int:
        """Columns that every row takes."""
        columns: int = 0 if self._cache is None else self._cache.get_seq_length()
        return columns

    @torch.inference_mode()
    def prefill(self, prompts: Sequence[list[int]]) -> Prefilled:
        """Read prompts, without touching the rows that run.

        Args:
            prompts: Token ids, none empty.
        """
        lengths = tuple(map(len, prompts))
        prefix = self._shared_prefix(prompts)
        skipped = 0 if prefix is None else len(prefix.tokens)
        gaps = [max(lengths) - length for length in lengths]
        ids = torch.tensor([[0] * gap + prompt[skipped:] for gap, prompt in zip(gaps, prompts, strict=True)], device=self.device)
        config = self._model.config
        cache = DynamicCache(config=config) if prefix is None else prefix.expanded(len(prompts), config)
        logits = self._forward(ids, cache, lengths, max(lengths), prefix=skipped)
        if prefix is not None:
            prefix.close_up(cache, gaps)
        return Prefilled(cache, lengths, logits)

    def _shared_prefix(self, prompts: Sequence[list[int]]) -> Prefix | None:
        """What the prompts begin with, read now or before; None when sharing it is not possible or does not pay."""
        if not self._shares or max(map(len, prompts)) > self._window:
            return None
        size = common_prefix(prompts)
        if self._prefix is not None and 2 * len(self._prefix.tokens) >= size and self._prefix.begins(prompts):
            return self._prefix
        if (len(prompts) - 1) * size < SAVED:
            return None
        cache = DynamicCache(config=self._model.config)
        self._forward(torch.tensor([prompts[0][:size]], device=self.device), cache, (size,), size)
        self._prefix = Prefix(prompts[0][:size], cache)
        return self._prefix

    @torch.inference_mode()
    def join(self, prefilled: Prefilled, kept: Sequence[int]) -> bool:
        """Let prompts join behind the rows that run; always true.

        Args:
            prefilled: What ``prefill`` returned.
            kept: Which of its rows go on; the others ended with their first token.
        """
        lengths = [prefilled.lengths[index] for index in kept]
        if self.mergeable:
            if not isinstance(self._cache, RowCache):
                self._cache = RowCache(prefilled.cache)
            self._cache.join(prefilled.cache, kept, max(lengths))
        else:
            self._cache = prefilled.cache
            self._cache.reorder_cache(torch.tensor(kept, device=self.device))
        self.lengths += lengths
        return True

    @torch.inference_mode()
    def step(self, tokens: Sequence[int]) -> Tensor:
        """Feed one token to each row; returns the logits of the next, shape ``(rows, vocabulary)``."""
        cache = self._cache
        if isinstance(cache, RowCache):
            cache.make_room()
        lengths = [length + 1 for length in self.lengths]
        ids = torch.tensor(tokens, device=self.device)[:, None]
        logits = self._forward(ids, cache, lengths, self.width + 1)
        if isinstance(cache, RowCache):
            cache.advance()
        self.lengths = lengths
        return logits

    @torch.inference_mode()
    def leave(self, gone: Collection[int]) -> None:
        """Let rows go; the last ones take their places, as ``close_gaps`` does it to a list."""
        order = list(range(len(self.lengths)))
        close_gaps(order, gone)
        self.lengths = [self.lengths[row] for row in order]
        if not order:
            self._cache = None
        elif isinstance(self._cache, RowCache):
            self._cache.replace([(row, place) for place, row in enumerate(order) if row != place], len(order), max(self.lengths))
        elif self._cache is not None:
            self._cache.reorder_cache(torch.tensor(order, device=self.device))

    def _forward(self, ids: Tensor, cache: Any, lengths: Sequence[int], width: int, prefix: int = 0) -> Tensor:
        """Run the model and return the logits of the last column.

        Args:
            ids: The newest columns, shape ``(rows, columns)``.
            cache: Holds the columns before them.
            lengths: Tokens of each row, the newest included.
            width: Columns, the newest included.
            prefix: Tokens of each row that stand in the first columns, before its padding.
        """
        places = torch.arange(width, device=self.device) - (width - torch.tensor(lengths, device=self.device))[:, None]
        seen = places >= prefix
        seen[:, :prefix] = True
        # a batch without padding needs no mask, and attention without a mask takes the faster kernel
        mask = None if min(lengths) == width else seen.long()
        arguments = {**self._extra, **({"position_ids": places[:, -ids.shape[1] :].clamp(min=0)} if self._positions else {})}
        logits: Tensor = self._model(input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, **arguments).logits
        return logits[:, -1]


def close_gaps(items: list[T], gone: Collection[int]) -> None:
    """Take items out of a list, each gap filled by what is then the last."""
    for index in sorted(gone, reverse=True):
        last = items.pop()
        if index < len(items):
            items[index] = last
