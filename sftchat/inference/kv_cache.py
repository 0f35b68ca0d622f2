"""Keys and values of a running batch, in buffers that rows join and leave without moving the others.

Rows are aligned on the right: the newest token of each is in the last column in use, so a step writes one column in place. A new row is written after
the last one, a removed row is overwritten by the last one, and columns that no row needs are left out of the view. transformers' ``DynamicCache``
copies everything at every step and every change.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

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
    """A cache for decoding one token per step, with rows that join and leave.

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

    def join(self, other: DynamicCache, longest: int) -> None:
        """Append the rows of another cache, right-aligned.

        Args:
            other: A cache of the same model, with rows padded on the left.
            longest: Number of tokens of the longest row, at most the number of columns.
        """
        frame = self._frame
        ours = [layer for layer in other.layers if not isinstance(layer, DummyLayer)]
        total = frame.rows + ours[0].keys.shape[0]
        if frame.end < longest or any(layer.keys.shape[0] < total for layer in self._filled):
            self._rebuild(total, max(self.get_seq_length(), longest))
        for mine, theirs in zip(self._filled, ours, strict=True):
            kept = min(longest, theirs.keys.shape[2])
            into = (slice(frame.rows, total), slice(None), slice(frame.end - kept, frame.end))
            mine.keys[into] = theirs.keys[:, :, theirs.keys.shape[2] - kept :]
            mine.values[into] = theirs.values[:, :, theirs.values.shape[2] - kept :]
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


def layers(cache: Any) -> list[Any]:
    """Return the layers with keys and values of their own; a layer that uses another's has none."""
    return [layer for layer in cache.layers if not isinstance(layer, DummyLayer)]


def without_windows(cache: DynamicCache) -> None:
    """Make every layer of an empty cache store all tokens, including layers with a sliding window."""
    cache.layers = [DynamicLayer() if isinstance(layer, DynamicSlidingWindowLayer) else layer for layer in cache.layers]


def _buffer(like: Tensor, rows: int, columns: int) -> Tensor:
    """Allocate zeros: padding must be finite, because it is multiplied by an attention weight of 0."""
    return like.new_zeros(rows, like.shape[1], columns, like.shape[3])
