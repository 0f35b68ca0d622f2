"""What a reply copies from its prompt is guessed and checked many tokens at a time (prompt lookup decoding, Saxena 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

NGRAM_SIZES = (3, 2, 1)
"""Tokens that must have stood there before, for what followed them to be the guess; the most that are found decide.

One is enough where a name is copied: its first token tells which."""
MIN_GUESSED_TOKENS = 4
"""The fewest tokens of a guess: a pass over five takes hardly longer than one over two."""
MAX_GUESSED_TOKENS = 16
"""The most tokens of a guess."""
PAUSE_TOKENS = 32
"""Tokens said without guesses of an order once they have gone wrong ``MAX_WRONG_GUESSES`` times in a row."""
MAX_WRONG_GUESSES = 12


@dataclass
class _Order:
    """Guesses from so many tokens: where each such run of tokens stood last, and how the guesses have fared."""

    size: int
    after: dict[tuple[int, ...], int] = field(default_factory=dict)
    indexed: int = 0
    length: int = MIN_GUESSED_TOKENS
    wrong: int = 0
    rest: int = 0

    def find(self, tokens: Sequence[int]) -> int | None:
        """Where what followed the last tokens begins; it must have stood there earlier, so they are looked up before they are indexed."""
        for end in range(max(self.indexed, self.size), len(tokens)):
            self.after[tuple(tokens[end - self.size : end])] = end
        self.indexed = max(self.indexed, len(tokens))
        if self.rest:
            self.rest -= 1
            return None
        return self.after.get(tuple(tokens[-self.size :]))


class PromptLookupDecoder:
    """Guesses how a text of tokens goes on from what stood after the same few tokens before.

    A guess is as long as guesses have lately been right, and guessing rests when they are not, so that a text without repetition costs little more
    than without guesses.
    """

    def __init__(self) -> None:
        self._orders = [_Order(size) for size in NGRAM_SIZES]
        self._last = self._orders[0]

    def guess(self, tokens: Sequence[int], room: int) -> list[int]:
        """The tokens that may follow; often none.

        Args:
            tokens: Prompt and reply so far; each call's begins with the last call's.
            room: How many may follow.
        """
        found = [(order, at) for order in self._orders if (at := order.find(tokens)) is not None]
        if not found:
            return []
        self._last, at = found[0]
        return list(tokens[at : at + min(self._last.length, room)])

    def learn(self, guessed: int, right: int) -> None:
        """Be told how much of a guess was right."""
        order = self._last
        if right == guessed:
            order.length, order.wrong = min(2 * order.length, MAX_GUESSED_TOKENS), 0
        elif right:
            order.length, order.wrong = max(MIN_GUESSED_TOKENS, right + 1), 0
        else:
            order.length, order.wrong = MIN_GUESSED_TOKENS, order.wrong + 1
        if order.wrong == MAX_WRONG_GUESSES:
            order.wrong, order.rest = 0, PAUSE_TOKENS
