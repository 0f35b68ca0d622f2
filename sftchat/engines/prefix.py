"""What prompts begin with alike, such as an instruction, is read once for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from transformers import DynamicCache

SAVED = 256
"""Least tokens that sharing must save: fewer are read with the rest sooner than in a pass of their own."""


def common_prefix(prompts: Sequence[list[int]]) -> int:
    """Tokens that all prompts begin with, at least one of each prompt left over to be read."""
    low, high = min(prompts), max(prompts)  # what the first and the last in order share, all between them share
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(low, high, strict=False)))
    return min(same, min(map(len, prompts)) - 1)


class Prefix:
    """Keys and values of the beginning that prompts share.

    Args:
        tokens: The beginning.
        cache: Its keys and values, one row.
    """

    def __init__(self, tokens: Sequence[int], cache: DynamicCache) -> None:
        self.tokens = tuple(tokens)
        self.cache = cache

    def begins(self, prompts: Sequence[list[int]]) -> bool:
        """Whether all prompts begin with it and go on."""
        size = len(self.tokens)
        return all(len(prompt) > size and tuple(prompt[:size]) == self.tokens for prompt in prompts)

    def expanded(self, rows: int, config: Any) -> DynamicCache:
        """A cache whose rows all hold it."""
        cache = DynamicCache(config=config)
        for mine, theirs in zip(self._layers(self.cache), self._layers(cache), strict=True):
            theirs.update(mine.keys.expand(rows, -1, -1, -1), mine.values.expand(rows, -1, -1, -1))
        return cache

    def close_up(self, cache: DynamicCache, gaps: Sequence[int]) -> None:
        """Put it right before the tokens that follow it.

        Args:
            cache: Rows of the prefix, padding and then the rest of each prompt.
            gaps: Columns of padding of each row.
        """
        size = len(self.tokens)
        for mine, theirs in zip(self._layers(self.cache), self._layers(cache), strict=True):
            for gap in set(gaps) - {0}:
                rows = [row for row, columns in enumerate(gaps) if columns == gap]
                theirs.keys[rows, :, gap : gap + size] = mine.keys
                theirs.values[rows, :, gap : gap + size] = mine.values

    @staticmethod
    def _layers(cache: DynamicCache) -> list[Any]:
        """Layers that hold anything: a layer that uses another's keys has none."""
        return [layer for layer in cache.layers if hasattr(layer, "keys")]
