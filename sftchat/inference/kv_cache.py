"""The keys and values of a running batch, in buffers that rows join and leave without the others being moved.

Rows are aligned on the right: the newest token of each is in the last column in use, so a step writes one column, in place. A new row is written
behind the last one, a row that leaves is overwritten by the last one, and columns that no row needs any more are simply not looked at. transformers'
own ``DynamicCache`` copies everything at every step and at every change.
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
"""Columns added when the buffers grow: steps until they are copied again."""


@dataclass
class _Frame:
    """The part of the buffers that is in use, the same in every layer: the first ``rows`` rows, columns ``start`` to ``end``."""

    rows: int = 0
    start: int = 0
    end: int = 0


class _Layer(DynamicLayer):  # type: ignore[misc]  # transformers has no types
    """Keys and values of one layer; ``window`` is how far back it looks, None for all the way."""

    def __init__(self, frame: _Frame, like: DynamicLayer) -> None:
        super().__init__()
        self.frame = frame
        self.window: int | None = like.sliding_window if like.is_sliding else None
        self.is_sliding = like.is_sliding
        self.keys = _buffer(like.keys, 0, 0)
        self.values = _buffer(like.values, 0, 0)
        self.dtype, self.device, self.is_initialized = like.keys.dtype, like.keys.device, True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write the newest columns and return all that the layer looks at."""
        rows, old, new = self.frame.rows, self.frame.end, self.frame.end + key_states.shape[-2]
        self.keys[:rows, :, old:new] = key_states
        self.values[:rows, :, old:new] = value_states
        first = new - self.get_mask_sizes(new - old)[0]
        return self.keys[:rows, :, first:new], self.values[:rows, :, first:new]

    def get_seq_length(self) -> int:
        """Columns in use."""
        return self.frame.end - self.frame.start

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Columns that ``update`` will return, and how many before them it leaves out."""
        width = self.get_seq_length()
        seen = width if self.window is None else min(width, self.window - 1)
        return seen + query_length, width - seen

    def rebuild(self, rows: int, columns: int, end: int) -> None:
        """Move what is in use into buffers of another size, its last column before ``end``."""
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
    """A cache for decoding one token a step, whose rows come and go.

    Args:
        like: A filled cache of the same model: its layers, sizes, dtype and device are copied, its rows are not.
    """

    def __init__(self, like: DynamicCache) -> None:
        self._frame = _Frame()
        super().__init__(layers=[layer if isinstance(layer, DummyLayer) else _Layer(self._frame, layer) for layer in like.layers])
        self._filled = [layer for layer in self.layers if isinstance(layer, _Layer)]

    @staticmethod
    def can_merge(cache: DynamicCache) -> bool:
        """Whether every layer keeps one key and one value a token; recurrent, chunked and compressed layers do not."""
        return bool(MERGEABLE) and all(type(layer) in MERGEABLE for layer in cache.layers)

    def join(self, other: DynamicCache, longest: int) -> None:
        """Add the rows of another cache, right-aligned, behind those that are here.

        Args:
            other: A cache of the same model, its rows padded on the left.
            longest: Tokens of the longest of them, at most its columns.
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
        """Overwrite rows that have left, and cut off the others.

        Args:
            moves: Pairs of a row and the place it takes.
            rows: Rows that remain.
            longest: Tokens of the longest of them: columns before those are no longer in use.
        """
        for layer in self._filled:
            for row, to in moves:
                layer.copy_row(row, to)
        self._frame.rows = rows
        self._frame.start = self._frame.end - longest

    def clear(self, rows: Collection[int]) -> None:
        """Overwrite rows with zeros: numbers that are not finite would reach the row that takes their place, as padding."""
        for layer in self._filled:
            for row in rows:
                layer.keys[row].zero_()
                layer.values[row].zero_()

    def make_room(self, columns: int = 1) -> None:
        """See to it that more columns fit, at most ``GROWTH_COLUMNS``."""
        if self._frame.end + columns > self._filled[0].keys.shape[2]:
            self._rebuild(self._frame.rows, self.get_seq_length())

    def advance(self, columns: int = 1) -> None:
        """Count the columns that a step has written."""
        self._frame.end += columns

    def copy(self, row: int, length: int, count: int) -> tuple[tuple[Tensor, Tensor], ...]:
        """Keys and values of a row, one pair a layer.

        Args:
            row: Which.
            length: Tokens that it has.
            count: How many of them to copy, from the first.
        """
        start = self._frame.end - length
        part = (slice(row, row + 1), slice(None), slice(start, start + count))
        return tuple((layer.keys[part].clone(), layer.values[part].clone()) for layer in self._filled)

    def _rebuild(self, rows: int, end: int) -> None:
        """New buffers, the columns in use ending before ``end``."""
        width = self.get_seq_length()
        for layer in self._filled:
            layer.rebuild(rows, end + GROWTH_COLUMNS, end)
        self._frame.start, self._frame.end = end - width, end


def layers(cache: Any) -> list[Any]:
    """Layers that hold anything: a layer that uses another's keys has none."""
    return [layer for layer in cache.layers if not isinstance(layer, DummyLayer)]


def without_windows(cache: DynamicCache) -> None:
    """Make every layer of an empty cache keep all tokens, those with a sliding window too."""
    cache.layers = [DynamicLayer() if isinstance(layer, DynamicSlidingWindowLayer) else layer for layer in cache.layers]


def _buffer(like: Tensor, rows: int, columns: int) -> Tensor:
    """Zeros, because padding must be finite: it is multiplied by a weight of 0."""
    return like.new_zeros(rows, like.shape[1], columns, like.shape[3])
