"""What a talk has read stays in memory: after the next message, a new try, a step back or a branch only unseen tokens are read."""

from __future__ import annotations

from collections.abc import Sequence

from sftchat.engines.memory import free_bytes
from sftchat.engines.prefix import Prefix, common_prefix, shared

SHARE = 0.125
"""Of the memory that is free, what may be kept between requests."""
MOST = 16
"""Talks, or branches of one, that are kept."""


class Kept:
    """Keys and values of earlier rows of one model, found again by adapter and token ids; the least recently used give way.

    Args:
        share: Of the memory that is free, what they may take.
    """

    def __init__(self, share: float = SHARE) -> None:
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
        self._rows = [*others, new][-MOST:]
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
