"""Prompt lookup decoding (Saxena 2023): text that a reply copies from its prompt is guessed and verified several tokens at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

NGRAM_SIZES = (3, 2, 1)
"""n-gram sizes: a guess is what followed an earlier occurrence of the last n tokens; the largest n with a match wins.

One token is enough when a name is copied: its first token identifies it.
"""
MIN_GUESSED_TOKENS = 4
"""Minimum length of a guess in tokens: a forward pass over five tokens is hardly slower than one over two."""
MAX_GUESSED_TOKENS = 16
"""Maximum length of a guess in tokens."""
PAUSE_TOKENS = 32
"""Number of tokens without guesses from an n-gram size after ``MAX_WRONG_GUESSES`` wrong guesses in a row."""
MAX_WRONG_GUESSES = 12


@dataclass
class _Order:
    """Guesses from n-grams of one size: the last position of each n-gram, and the success of recent guesses."""

    size: int
    after: dict[tuple[int, ...], int] = field(default_factory=dict)
    indexed: int = 0
    length: int = MIN_GUESSED_TOKENS
    wrong: int = 0
    rest: int = 0

    def find(self, tokens: Sequence[int]) -> int | None:
        """Return the position after the last earlier occurrence of the final n tokens; looks up before indexing them."""
        for end in range(max(self.indexed, self.size), len(tokens)):
            self.after[tuple(tokens[end - self.size : end])] = end
        self.indexed = max(self.indexed, len(tokens))
        if self.rest:
            self.rest -= 1
            return None
        return self.after.get(tuple(tokens[-self.size :]))


class PromptLookupDecoder:
    """Guesses the next tokens from what followed an earlier occurrence of the last few tokens.

    The length of a guess adapts to how many tokens were right lately, and guessing pauses after repeated failures, so that a text without repetition
    costs little extra.
    """

    def __init__(self) -> None:
        self._orders = [_Order(size) for size in NGRAM_SIZES]
        self._last = self._orders[0]

    def guess(self, tokens: Sequence[int], room: int) -> list[int]:
        """Return the guessed next tokens; often empty.

        Args:
            tokens: Token ids of prompt and reply so far; extends those of the previous call.
            room: Maximum number of guessed tokens.
        """
        found = [(order, at) for order in self._orders if (at := order.find(tokens)) is not None]
        if not found:
            return []
        self._last, at = found[0]
        return list(tokens[at : at + min(self._last.length, room)])

    def learn(self, guessed: int, right: int) -> None:
        """Update the guess length from how many tokens of the last guess were right."""
        order = self._last
        if right == guessed:
            order.length, order.wrong = min(2 * order.length, MAX_GUESSED_TOKENS), 0
        elif right:
            order.length, order.wrong = max(MIN_GUESSED_TOKENS, right + 1), 0
        else:
            order.length, order.wrong = MIN_GUESSED_TOKENS, order.wrong + 1
        if order.wrong == MAX_WRONG_GUESSES:
            order.wrong, order.rest = 0, PAUSE_TOKENS
