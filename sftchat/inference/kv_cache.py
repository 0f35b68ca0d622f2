"""Keys and values: the growing and shrinking cache of a running batch, and the prompt cache of what earlier requests computed.

Rows are aligned on the right in buffers with spare room: a step writes one column in place, a new row is appended, a removed row is overwritten by the
last, and columns that no row needs are dropped from the view. Sliding windows use the same buffers, because the columns of a row have no gaps.
Models with recurrent, chunked or compressed layers use transformers' own cache and static batches.

A call of up to eight requests counts as a chat: its keys and values stay in the prompt cache, matched by adapter and longest token prefix.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache

try:
    from transformers.cache_utils import DummyLayer, DynamicLayer, DynamicSlidingWindowLayer

    MERGEABLE: tuple[type, ...] = (DynamicLayer, DynamicSlidingWindowLayer, DummyLayer)
    """Layers that keep one key and one value a token; none where transformers has other ones."""
except ImportError:
    DummyLayer = DynamicLayer = DynamicSlidingWindowLayer = type("NoLayer", (), {})
    MERGEABLE = ()

GROWTH_COLUMNS = 64
"""Number of columns added when the buffers grow, i.e. steps between two copies."""


@dataclass
class _Frame:
    """The part of the buffers in use, the same in every layer: the first ``rows`` rows, columns ``start`` to ``end``."""

    rows: int = 0
    start: int = 0
    end: int = 0


class _Layer(DynamicLayer):  # type: ignore[misc]  # transformers has no types
    """Keys and values of one layer; ``window`` is the size of its sliding window, None for full attention."""

    def __init__(self, frame: _Frame, like: DynamicLayer) -> None:
        super().__init__()
        self.frame = frame
        self.window: int | None = like.sliding_window if like.is_sliding else None
        self.is_sliding = like.is_sliding
        self.keys = _buffer(like.keys, 0, 0)
        self.values = _buffer(like.values, 0, 0)
        self.dtype, self.device, self.is_initialized = like.keys.dtype, like.keys.device, True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write the newest columns and return all columns that the layer attends to."""
        rows, old, new = self.frame.rows, self.frame.end, self.frame.end + key_states.shape[-2]
        self.keys[:rows, :, old:new] = key_states
        self.values[:rows, :, old:new] = value_states
        first = new - self.get_mask_sizes(new - old)[0]
        return self.keys[:rows, :, first:new], self.values[:rows, :, first:new]

    def get_seq_length(self) -> int:
        """Number of columns in use."""
        return self.frame.end - self.frame.start

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return the number of columns that ``update`` will return and how many before them are left out."""
        width = self.get_seq_length()
        seen = width if self.window is None else min(width, self.window - 1)
        return seen + query_length, width - seen

    def rebuild(self, rows: int, columns: int, end: int) -> None:
        """Move the columns in use into buffers of another size, so that they end before column ``end``."""
        width, frame = self.get_seq_length(), self.frame
        for name in ("keys", "values"):
            old = getattr(self, name)
            new = _buffer(old, rows, columns)
            new[: frame.rows, :, end - width : end] = old[: frame.rows, :, frame.start : frame.end]
            setattr(self, name, new)

    def copy_row(self, row: int, to: int) -> None:
        """Overwrite one row with another."""
        used = slice(self.frame.start, self.frame.end)
        self.keys[to, :, used] = self.keys[row, :, used]
        self.values[to, :, used] = self.values[row, :, used]


class BatchCache(Cache):  # type: ignore[misc]
    """Keys and values of a running batch, in buffers in which rows are inserted and removed without moving the others.

    Rows are aligned on the right: the newest token of each is in the last column in use, so a step writes one column in place. A new row is written
    after the last one, a removed row is overwritten by the last one, and columns that no row needs are left out of the view. transformers'
    ``DynamicCache`` copies everything at every step and every change.

    Args:
        like: A filled cache of the same model, whose layers, sizes, dtype and device are copied, but not its rows.
    """

    def __init__(self, like: DynamicCache) -> None:
        self._frame = _Frame()
        super().__init__(layers=[layer if isinstance(layer, DummyLayer) else _Layer(self._frame, layer) for layer in like.layers])
        self._filled = [layer for layer in self.layers if isinstance(layer, _Layer)]

    @staticmethod
    def can_merge(cache: DynamicCache) -> bool:
        """Whether every layer stores one key and one value per token; recurrent, chunked and compressed layers do not."""
        return bool(MERGEABLE) and all(type(layer) in MERGEABLE for layer in cache.layers)

    def insert(self, other: DynamicCache, longest: int) -> None:
        """Append the rows of another cache, right-aligned.

        Args:
            other: A cache of the same model, with rows padded on the left.
            longest: Number of tokens of the longest row, at most the number of columns.
        """
        frame, sources = self._frame, _filled_layers(other)
        total = frame.rows + sources[0].keys.shape[0]
        if frame.end < longest or any(layer.keys.shape[0] < total for layer in self._filled):
            self._rebuild(total, max(self.get_seq_length(), longest))
        for target, source in zip(self._filled, sources, strict=True):
            columns = source.keys.shape[2]
            copied = min(longest, columns)
            into = (slice(frame.rows, total), slice(None), slice(frame.end - copied, frame.end))
            target.keys[into] = source.keys[:, :, columns - copied :]
            target.values[into] = source.values[:, :, columns - copied :]
        frame.rows = total
        frame.start = min(frame.start, frame.end - longest)

    def replace(self, moves: Sequence[tuple[int, int]], rows: int, longest: int) -> None:
        """Overwrite removed rows and truncate to the remaining ones.

        Args:
            moves: Pairs of a row and its new index.
            rows: Number of remaining rows.
            longest: Number of tokens of the longest row; columns before those are no longer in use.
        """
        for layer in self._filled:
            for row, to in moves:
                layer.copy_row(row, to)
        self._frame.rows = rows
        self._frame.start = self._frame.end - longest

    def clear(self, rows: Collection[int]) -> None:
        """Set rows to zero: non-finite numbers would reach, as padding, the row that takes their place."""
        for layer in self._filled:
            for row in rows:
                layer.keys[row].zero_()
                layer.values[row].zero_()

    def make_room(self, columns: int = 1) -> None:
        """Grow the buffers if needed to fit ``columns`` more columns, at most ``GROWTH_COLUMNS``."""
        if self._frame.end + columns > self._filled[0].keys.shape[2]:
            self._rebuild(self._frame.rows, self.get_seq_length())

    def advance(self, columns: int = 1) -> None:
        """Extend the columns in use by those that a step has written."""
        self._frame.end += columns

    def copy(self, row: int, length: int, count: int) -> tuple[tuple[Tensor, Tensor], ...]:
        """Copy the keys and values of a row, one pair per layer.

        Args:
            row: Index of the row.
            length: Number of tokens of the row.
            count: How many of them to copy, from the first.
        """
        start = self._frame.end - length
        part = (slice(row, row + 1), slice(None), slice(start, start + count))
        return tuple((layer.keys[part].clone(), layer.values[part].clone()) for layer in self._filled)

    def _rebuild(self, rows: int, end: int) -> None:
        """Allocate new buffers, the columns in use ending before ``end``."""
        width = self.get_seq_length()
        for layer in self._filled:
            layer.rebuild(rows, end + GROWTH_COLUMNS, end)
        self._frame.start, self._frame.end = end - width, end


def _filled_layers(cache: Any) -> list[Any]:
    """Return the layers with keys and values of their own; a layer that uses another's has none."""
    return [layer for layer in cache.layers if not isinstance(layer, DummyLayer)]


def without_windows(cache: DynamicCache) -> None:
    """Make every layer of an empty cache store all tokens, including layers with a sliding window."""
    cache.layers = [DynamicLayer() if isinstance(layer, DynamicSlidingWindowLayer) else layer for layer in cache.layers]


def _buffer(like: Tensor, rows: int, columns: int) -> Tensor:
    """Allocate zeros: padding must be finite, because it is multiplied by an attention weight of 0."""
    return like.new_zeros(rows, like.shape[1], columns, like.shape[3])


MIN_SHARED_TOKENS = 256
"""Minimum number of tokens that sharing a prefix must save; below that, a separate forward pass for it costs more."""


def common_prefix(prompts: Sequence[list[int]]) -> int:
    """Return the length of the prefix that all prompts share; at least one token of each prompt remains."""
    low, high = min(prompts), max(prompts)  # the common prefix of the smallest and the largest prompt is common to all
    return min(shared_length(low, high), min(map(len, prompts)) - 1)


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
    def of(cls, tokens: Sequence[int], cache: DynamicCache, adapter: str = "") -> Prefix:
        """Create a prefix from a cache of one row."""
        return cls(tuple(tokens), tuple((layer.keys, layer.values) for layer in _filled_layers(cache)), adapter)

    @property
    def bytes(self) -> int:
        """Memory in bytes."""
        return sum(int(keys.nbytes + values.nbytes) for keys, values in self.states)

    def begins(self, prompts: Sequence[list[int]]) -> bool:
        """Whether all prompts start with the prefix and are longer."""
        size = len(self.tokens)
        return all(len(prompt) > size and tuple(prompt[:size]) == self.tokens for prompt in prompts)

    def cut(self, size: int) -> Prefix:
        """Return the first ``size`` tokens as a view."""
        return Prefix(self.tokens[:size], tuple((keys[:, :, :size], values[:, :, :size]) for keys, values in self.states), self.adapter)

    def fill(self, cache: DynamicCache, rows: int) -> None:
        """Write the prefix into each of ``rows`` rows of an empty cache."""
        for (keys, values), layer in zip(self.states, _filled_layers(cache), strict=True):
            layer.update(keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1))

    def close_up(self, cache: DynamicCache, gaps: Sequence[int]) -> None:
        """Move the prefix next to the tokens that follow it, past the padding.

        Args:
            cache: Rows of prefix, padding and then the rest of each prompt.
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
    """LRU cache of keys and values of earlier requests to one model, matched by adapter and longest token prefix.

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
        allowed = self._share * (free_bytes(new.states[0][0].device) + self.bytes)
        while self._prefixes and self.bytes > allowed:
            del self._prefixes[0]

    def find(self, adapter: str, prompts: Sequence[list[int]]) -> Prefix | None:
        """Return the longest cached prefix of all prompts for the adapter."""
        common = prompts[0][: common_prefix(prompts)]
        matches = [
            (shared_length(prefix.tokens, common), index) for index, prefix in enumerate(self._prefixes) if prefix.adapter == adapter
        ]
        longest, index = max(matches, default=(0, 0))
        if not longest:
            return None
        self._prefixes.append(self._prefixes.pop(index))
        return self._prefixes[-1].cut(longest)

    def clear(self) -> None:
        """Remove all entries."""
        self._prefixes.clear()


OUT_OF_MEMORY_MESSAGES = ("out of memory", "can't allocate memory", "not enough memory")
"""Parts of the messages when torch and its backends raise a plain RuntimeError."""


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
