"""What prompts begin with alike, such as an instruction or the talk so far, is read once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from torch import Tensor
from transformers import DynamicCache

from sftchat.inference.kv_cache import layers
from sftchat.inference.memory import free_bytes

MIN_SHARED_TOKENS = 256
"""Least tokens that sharing must save: fewer are read with the rest sooner than in a pass of their own."""


def common_prefix(prompts: Sequence[list[int]]) -> int:
    """Tokens that all prompts begin with, at least one of each prompt left over to be read."""
    low, high = min(prompts), max(prompts)  # what the first and the last in order share, all between them share
    return min(shared(low, high), min(map(len, prompts)) - 1)


def shared(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two sequences begin with alike."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


@dataclass(frozen=True)
class Prefix:
    """Keys and values of what was read.

    Attributes:
        tokens: What was read.
        states: Keys and values of each layer that has any, shape ``(1, heads, tokens, size)``.
        adapter: What it was read with.
    """

    tokens: tuple[int, ...]
    states: tuple[tuple[Tensor, Tensor], ...]
    adapter: str = ""

    @classmethod
    def of(cls, tokens: Sequence[int], cache: DynamicCache, adapter: str = "") -> Prefix:
        """What a cache of one row holds."""
        return cls(tuple(tokens), tuple((layer.keys, layer.values) for layer in layers(cache)), adapter)

    @property
    def bytes(self) -> int:
        """Memory that it takes."""
        return sum(int(keys.nbytes + values.nbytes) for keys, values in self.states)

    def begins(self, prompts: Sequence[list[int]]) -> bool:
        """Whether all prompts begin with it and go on."""
        size = len(self.tokens)
        return all(len(prompt) > size and tuple(prompt[:size]) == self.tokens for prompt in prompts)

    def cut(self, size: int) -> Prefix:
        """Its first tokens; nothing is copied."""
        return Prefix(self.tokens[:size], tuple((keys[:, :, :size], values[:, :, :size]) for keys, values in self.states), self.adapter)

    def fill(self, cache: DynamicCache, rows: int) -> None:
        """Let each row of an empty cache begin with it."""
        for (keys, values), layer in zip(self.states, layers(cache), strict=True):
            layer.update(keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1))

    def close_up(self, cache: DynamicCache, gaps: Sequence[int]) -> None:
        """Put it right before the tokens that follow it.

        Args:
            cache: Rows of the prefix, padding and then the rest of each prompt.
            gaps: Columns of padding of each row.
        """
        size = len(self.tokens)
        for (keys, values), layer in zip(self.states, layers(cache), strict=True):
            for gap in set(gaps) - {0}:
                rows = [row for row, columns in enumerate(gaps) if columns == gap]
                layer.keys[rows, :, gap : gap + size] = keys
                layer.values[rows, :, gap : gap + size] = values


FREE_MEMORY_SHARE = 0.125
"""Of the memory that is free, what may be kept between requests."""
MAX_CONVERSATIONS = 16
"""Talks, or branches of one, that are kept."""


class PromptCache:
    """Keys and values of earlier rows of one model, found again by adapter and token ids; the least recently used give way.

    Args:
        share: Of the memory that is free, what they may take.
    """

    def __init__(self, share: float = FREE_MEMORY_SHARE) -> None:
        self._share = share
        self._rows: list[Prefix] = []

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def bytes(self) -> int:
        """Memory they take."""
        return sum(row.bytes for row in self._rows)

    def add(self, new: Prefix) -> None:
        """Keep a row, in place of those that it continues."""
        others = [row for row in self._rows if row.adapter != new.adapter or new.tokens[: len(row.tokens)] != row.tokens]
        self._rows = [*others, new][-MAX_CONVERSATIONS:]
        allowed = self._share * (free_bytes(new.states[0][0].device) + self.bytes)
        while self._rows and self.bytes > allowed:
            del self._rows[0]

    def find(self, adapter: str, prompts: Sequence[list[int]]) -> Prefix | None:
        """The longest beginning of all the prompts that was read before with the adapter."""
        size = common_prefix(prompts)
        known = [(shared(row.tokens, prompts[0][:size]), place) for place, row in enumerate(self._rows) if row.adapter == adapter]
        longest, place = max(known, default=(0, 0))
        if not longest:
            return None
        self._rows.append(self._rows.pop(place))
        return self._rows[-1].cut(longest)

    def clear(self) -> None:
        """Keep nothing."""
        self._rows.clear()
