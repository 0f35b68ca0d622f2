"""Prompt cache: keys and values of common prompt prefixes, such as an instruction or the conversation so far, are computed once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from torch import Tensor
from transformers import DynamicCache

from sftchat.inference.kv_cache import layers
from sftchat.inference.memory import free_bytes

MIN_SHARED_TOKENS = 256
"""Minimum number of tokens that sharing a prefix must save; below that, a separate forward pass for it costs more."""


def common_prefix(prompts: Sequence[list[int]]) -> int:
    """Return the length of the prefix that all prompts share; at least one token of each prompt remains."""
    low, high = min(prompts), max(prompts)  # the common prefix of the smallest and the largest prompt is common to all
    return min(shared(low, high), min(map(len, prompts)) - 1)


def shared(one: Sequence[int], other: Sequence[int]) -> int:
    """Return the length of the common prefix of two sequences."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


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
        return cls(tuple(tokens), tuple((layer.keys, layer.values) for layer in layers(cache)), adapter)

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
        for (keys, values), layer in zip(self.states, layers(cache), strict=True):
            layer.update(keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1))

    def close_up(self, cache: DynamicCache, gaps: Sequence[int]) -> None:
        """Move the prefix next to the tokens that follow it, past the padding.

        Args:
            cache: Rows of prefix, padding and then the rest of each prompt.
            gaps: Number of padding columns of each row.
        """
        size = len(self.tokens)
        for (keys, values), layer in zip(self.states, layers(cache), strict=True):
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
        self._rows: list[Prefix] = []

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def bytes(self) -> int:
        """Memory in bytes."""
        return sum(row.bytes for row in self._rows)

    def add(self, new: Prefix) -> None:
        """Add a prefix; it replaces cached ones that it extends."""
        others = [row for row in self._rows if row.adapter != new.adapter or new.tokens[: len(row.tokens)] != row.tokens]
        self._rows = [*others, new][-MAX_CONVERSATIONS:]
        allowed = self._share * (free_bytes(new.states[0][0].device) + self.bytes)
        while self._rows and self.bytes > allowed:
            del self._rows[0]

    def find(self, adapter: str, prompts: Sequence[list[int]]) -> Prefix | None:
        """Return the longest cached prefix of all prompts for the adapter."""
        size = common_prefix(prompts)
        known = [(shared(row.tokens, prompts[0][:size]), place) for place, row in enumerate(self._rows) if row.adapter == adapter]
        longest, place = max(known, default=(0, 0))
        if not longest:
            return None
        self._rows.append(self._rows.pop(place))
        return self._rows[-1].cut(longest)

    def clear(self) -> None:
        """Remove all entries."""
        self._rows.clear()
