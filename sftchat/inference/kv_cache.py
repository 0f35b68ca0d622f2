"""Caches of keys and values: ``BatchCache`` for the requests of a running batch, ``PromptCache`` for later requests that begin with the same tokens.

Models with recurrent, chunked or compressed layers use transformers' own cache and static batches.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from copy import copy
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache

try:
    from transformers.cache_utils import DummyLayer, DynamicLayer, DynamicSlidingWindowLayer

    MERGEABLE_LAYERS: tuple[type, ...] = (DynamicLayer, DynamicSlidingWindowLayer, DummyLayer)
    """Layer types that store one key and one value per token; empty if the installed transformers has other types."""
except ImportError:
    DummyLayer = DynamicLayer = DynamicSlidingWindowLayer = type("NoLayer", (), {})
    MERGEABLE_LAYERS = ()

GROWTH_COLUMNS = 64
"""Number of unused columns in newly allocated buffers; once they are used, the buffers are allocated again and copied."""


@dataclass
class _UsedArea:
    """The part of the buffers in use, the same in every layer: the first ``rows`` rows, columns ``start`` to ``end`` (exclusive)."""

    rows: int = 0
    start: int = 0
    end: int = 0


class _Layer(DynamicLayer):  # type: ignore[misc]  # transformers has no types
    """Keys and values of one layer; ``window`` is the size of its sliding window, None for full attention."""

    def __init__(self, used: _UsedArea, like: DynamicLayer) -> None:
        super().__init__()
        self.used = used
        self.window: int | None = like.sliding_window if like.is_sliding else None
        self.is_sliding = like.is_sliding
        self.keys = _zeros(like.keys, 0, 0)
        self.values = _zeros(like.values, 0, 0)
        self.dtype, self.device, self.is_initialized = like.keys.dtype, like.keys.device, True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write the newest columns and return all columns that the layer attends to."""
        rows, start = self.used.rows, self.used.end
        end = start + key_states.shape[-2]
        self.keys[:rows, :, start:end] = key_states
        self.values[:rows, :, start:end] = value_states
        width, _skipped = self.get_mask_sizes(end - start)
        return self.keys[:rows, :, end - width : end], self.values[:rows, :, end - width : end]

    def get_seq_length(self) -> int:
        """Number of columns in use."""
        return self.used.end - self.used.start

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return the number of columns that ``update`` will return, and the number of columns in use before them."""
        width = self.get_seq_length()
        attended = width if self.window is None else min(width, self.window - 1)
        return attended + query_length, width - attended

    def reallocate(self, rows: int, columns: int, end: int) -> None:
        """Move the columns in use into buffers of another size, so that they end before column ``end``."""
        width, used = self.get_seq_length(), self.used
        for name in ("keys", "values"):
            old = getattr(self, name)
            new = _zeros(old, rows, columns)
            new[: used.rows, :, end - width : end] = old[: used.rows, :, used.start : used.end]
            setattr(self, name, new)

    def copy_row(self, source: int, target: int) -> None:
        """Overwrite row ``target`` with row ``source``."""
        columns = slice(self.used.start, self.used.end)
        self.keys[target, :, columns] = self.keys[source, :, columns]
        self.values[target, :, columns] = self.values[source, :, columns]


class BatchCache(Cache):  # type: ignore[misc]
    """Keys and values of a running batch, in buffers in which rows are inserted and removed without moving the others.

    Rows are aligned on the right: the newest token of each is in the last column in use, so a step writes one column in place. A new row is written
    after the last one, a removed row is overwritten by the last one, and columns that no row needs are left out of the view. transformers'
    ``DynamicCache`` copies everything at every step and every change. Sliding windows use the same buffers, because the columns of a row have no gaps.

    Args:
        like: A filled cache of the same model, whose layers, sizes, dtype and device are copied, but not its rows.
    """

    def __init__(self, like: DynamicCache) -> None:
        self._used = _UsedArea()
        super().__init__(layers=[layer if isinstance(layer, DummyLayer) else _Layer(self._used, layer) for layer in like.layers])
        self._filled = [layer for layer in self.layers if isinstance(layer, _Layer)]

    @staticmethod
    def can_merge(cache: DynamicCache) -> bool:
        """Whether every layer stores one key and one value per token; recurrent, chunked and compressed layers do not."""
        return bool(MERGEABLE_LAYERS) and all(type(layer) in MERGEABLE_LAYERS for layer in cache.layers)

    def insert(self, other: DynamicCache, longest: int) -> None:
        """Append the rows of another cache, right-aligned.

        Args:
            other: A cache of the same model, with rows padded on the left.
            longest: Number of tokens of the longest row, at most the number of columns.
        """
        used, sources = self._used, _filled_layers(other)
        total_rows = used.rows + sources[0].keys.shape[0]
        if used.end < longest or any(layer.keys.shape[0] < total_rows for layer in self._filled):
            self._reallocate(total_rows, max(self.get_seq_length(), longest))
        for target, source in zip(self._filled, sources, strict=True):
            columns = source.keys.shape[2]
            copied = min(longest, columns)
            area = (slice(used.rows, total_rows), slice(None), slice(used.end - copied, used.end))
            target.keys[area] = source.keys[:, :, columns - copied :]
            target.values[area] = source.values[:, :, columns - copied :]
        used.rows = total_rows
        used.start = min(used.start, used.end - longest)

    def compact(self, moves: Sequence[tuple[int, int]], rows: int, longest: int) -> None:
        """Overwrite removed rows and truncate to the remaining ones.

        Args:
            moves: Pairs of a row and its new index.
            rows: Number of remaining rows.
            longest: Number of tokens of the longest row; columns before those are no longer in use.
        """
        for layer in self._filled:
            for row, new_row in moves:
                layer.copy_row(row, new_row)
        self._used.rows = rows
        self._used.start = self._used.end - longest

    def clear(self, rows: Collection[int]) -> None:
        """Set rows to zero: non-finite numbers would reach, as padding, the row that takes their place."""
        for layer in self._filled:
            for row in rows:
                layer.keys[row].zero_()
                layer.values[row].zero_()

    def reserve(self, columns: int = 1) -> None:
        """Grow the buffers if needed to fit ``columns`` more columns, at most ``GROWTH_COLUMNS``."""
        if self._used.end + columns > self._filled[0].keys.shape[2]:
            self._reallocate(self._used.rows, self.get_seq_length())

    def advance(self, columns: int = 1) -> None:
        """Extend the columns in use by those that a step has written."""
        self._used.end += columns

    def copy(self, row: int, length: int, count: int) -> tuple[tuple[Tensor, Tensor], ...]:
        """Copy the keys and values of the first tokens of a row, one pair per layer.

        Args:
            row: Index of the row.
            length: Number of tokens of the row.
            count: Number of tokens to copy.
        """
        start = self._used.end - length
        area = (slice(row, row + 1), slice(None), slice(start, start + count))
        return tuple((layer.keys[area].clone(), layer.values[area].clone()) for layer in self._filled)

    def _reallocate(self, rows: int, end: int) -> None:
        """Allocate new buffers, in which the columns in use end before ``end``."""
        width = self.get_seq_length()
        for layer in self._filled:
            layer.reallocate(rows, end + GROWTH_COLUMNS, end)
        self._used.start, self._used.end = end - width, end


def _filled_layers(cache: Any) -> list[Any]:
    """Return the layers that store keys and values; a ``DummyLayer`` uses those of another layer."""
    return [layer for layer in cache.layers if not isinstance(layer, DummyLayer)]


def copy_rows(cache: DynamicCache, rows: Sequence[int]) -> DynamicCache:
    """Return a cache with copies of some rows of another, whose layers store one key and one value per token; a row may be copied several times."""
    copied, index = DynamicCache(), None
    copied.layers = [copy(layer) for layer in cache.layers]
    for layer in _filled_layers(copied):
        index = torch.tensor(rows, device=layer.keys.device) if index is None or index.device != layer.keys.device else index
        layer.keys, layer.values = layer.keys.index_select(0, index), layer.values.index_select(0, index)
    return copied


def without_windows(cache: DynamicCache) -> None:
    """Make every layer of an empty cache store all tokens, including layers with a sliding window."""
    cache.layers = [DynamicLayer() if isinstance(layer, DynamicSlidingWindowLayer) else layer for layer in cache.layers]


def _zeros(like: Tensor, rows: int, columns: int) -> Tensor:
    """Allocate a buffer of zeros: padding must be finite, because it is multiplied by an attention weight of 0."""
    return like.new_zeros(rows, like.shape[1], columns, like.shape[3])


MIN_SHARED_TOKENS = 256
"""Minimum number of tokens that sharing a prefix must save; below that, a separate forward pass for it costs more."""


def common_prefix_length(prompts: Sequence[list[int]]) -> int:
    """Return the length of the longest prefix that all prompts share and that is shorter than each of them."""
    first, last = min(prompts), max(prompts)  # in lexicographic order: all prompts between them share their common prefix
    return min(shared_length(first, last), min(map(len, prompts)) - 1)


def shared_length(first: Sequence[int], second: Sequence[int]) -> int:
    """Return the length of the common prefix of two sequences."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))


@dataclass(frozen=True)
class Prefix:
    """Keys and values of a token prefix.

    Attributes:
        tokens: Token ids of the prefix.
        states: Keys and values of each layer that has any, shape ``(1, heads, tokens, size)``.
        adapter: Adapter that the states were computed with.
    """

    tokens: tuple[int, ...]
    states: tuple[tuple[Tensor, Tensor], ...]
    adapter: str = ""

    @classmethod
    def from_cache(cls, tokens: Sequence[int], cache: DynamicCache, adapter: str = "") -> Prefix:
        """Create a prefix from a cache of one row."""
        return cls(tuple(tokens), tuple((layer.keys, layer.values) for layer in _filled_layers(cache)), adapter)

    @property
    def bytes(self) -> int:
        """Memory in bytes."""
        return sum(int(keys.nbytes + values.nbytes) for keys, values in self.states)

    def begins_all(self, prompts: Sequence[list[int]]) -> bool:
        """Whether all prompts start with the prefix and are longer."""
        size = len(self.tokens)
        return all(len(prompt) > size and tuple(prompt[:size]) == self.tokens for prompt in prompts)

    def truncated(self, size: int) -> Prefix:
        """Return the first ``size`` tokens with their keys and values, which are not copied."""
        return Prefix(self.tokens[:size], tuple((keys[:, :, :size], values[:, :, :size]) for keys, values in self.states), self.adapter)

    def write_to(self, cache: DynamicCache, rows: int) -> None:
        """Write the prefix into each of ``rows`` rows of an empty cache."""
        for (keys, values), layer in zip(self.states, _filled_layers(cache), strict=True):
            layer.update(keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1))

    def move_past_padding(self, cache: DynamicCache, gaps: Sequence[int]) -> None:
        """Move the prefix from the first columns to those after the padding, next to the tokens that follow it.

        Args:
            cache: Rows of prefix, padding and further tokens, in this order.
            gaps: Number of padding columns of each row.
        """
        size = len(self.tokens)
        for (keys, values), layer in zip(self.states, _filled_layers(cache), strict=True):
            for gap in set(gaps) - {0}:
                rows = [row for row, columns in enumerate(gaps) if columns == gap]
                layer.keys[rows, :, gap : gap + size] = keys
                layer.values[rows, :, gap : gap + size] = values


FREE_MEMORY_SHARE = 0.125
"""Share of free memory for the prompt cache."""
MAX_CONVERSATIONS = 16
"""Maximum number of cached conversations or branches."""


class PromptCache:
    """LRU cache of the keys and values of earlier chat requests to one model, matched by adapter and longest token prefix.

    Args:
        share: Share of free memory that the cache may take.
    """

    def __init__(self, share: float = FREE_MEMORY_SHARE) -> None:
        self._share = share
        self._prefixes: list[Prefix] = []

    def __len__(self) -> int:
        return len(self._prefixes)

    @property
    def bytes(self) -> int:
        """Memory in bytes."""
        return sum(prefix.bytes for prefix in self._prefixes)

    def add(self, new: Prefix) -> None:
        """Add a prefix; it replaces cached ones that it extends."""
        others = [old for old in self._prefixes if old.adapter != new.adapter or new.tokens[: len(old.tokens)] != old.tokens]
        self._prefixes = [*others, new][-MAX_CONVERSATIONS:]
        keys, _ = new.states[0]
        max_bytes = self._share * (free_bytes(keys.device) + self.bytes)
        while self._prefixes and self.bytes > max_bytes:
            del self._prefixes[0]

    def find(self, adapter: str, prompts: Sequence[list[int]]) -> Prefix | None:
        """Return the longest cached prefix that all prompts share; None if there is none for the adapter."""
        common = prompts[0][: common_prefix_length(prompts)]
        matches = [(shared_length(old.tokens, common), index) for index, old in enumerate(self._prefixes) if old.adapter == adapter]
        longest, index = max(matches, default=(0, 0))
        if not longest:
            return None
        prefix = self._prefixes.pop(index)
        self._prefixes.append(prefix)
        return prefix.truncated(longest)

    def clear(self) -> None:
        """Remove all entries."""
        self._prefixes.clear()


OUT_OF_MEMORY_MESSAGES = ("out of memory", "can't allocate memory", "not enough memory")
"""Parts of error messages, in lower case, for backends of torch that raise a plain RuntimeError."""


def free_bytes(device: torch.device) -> int:
    """Return the free memory of a device in bytes, including what torch has reserved but not allocated."""
    if device.type == "cpu":
        import psutil

        return int(psutil.virtual_memory().available)
    free, _ = torch.accelerator.get_memory_info(device)
    return int(free + torch.accelerator.memory_reserved(device) - torch.accelerator.memory_allocated(device))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch, a backend or Python means that memory ran out."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(words in str(error).lower() for words in OUT_OF_MEMORY_MESSAGES)
