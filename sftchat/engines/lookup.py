"""What a reply copies from its prompt is guessed and checked many tokens at a time (prompt lookup decoding, Saxena 2023)."""

from __future__ import annotations

from collections.abc import Sequence

NGRAM = 3
"""Tokens that must have stood there before, for what followed them to be the guess."""
MOST = 16
"""The most tokens of a guess."""
REST = 32
"""Tokens said without a guess once guesses have gone wrong ``PATIENCE`` times in a row."""
PATIENCE = 4


class Lookup:
    """Guesses how a text of tokens goes on from what stood after the same few tokens before.

    A guess is as long as guesses have lately been right, and guessing rests when they are not, so that a text without repetition costs little more
    than without guesses.
    """

    def __init__(self) -> None:
        self._after: dict[tuple[int, ...], int] = {}
        self._indexed = 0
        self._length = 4
        self._wrong = 0
        self._rest = 0

    def guess(self, tokens: Sequence[int], room: int) -> list[int]:
        """The tokens that may follow; often none.

        Args:
            tokens: Prompt and reply so far; each call's begins with the last call's.
            room: How many may follow.
        """
        if self._rest:
            self._rest -= 1
            return []
        # the last n-gram is looked up before it is indexed: it must have stood there earlier
        for end in range(max(self._indexed, NGRAM), len(tokens)):
            self._after[tuple(tokens[end - NGRAM : end])] = end
        self._indexed = max(self._indexed, len(tokens))
        found = self._after.get(tuple(tokens[-NGRAM:]))
        return [] if found is None else list(tokens[found : found + min(self._length, room)])

    def learn(self, guessed: int, right: int) -> None:
        """Be told how much of a guess was right."""
        if right == guessed:
            self._length, self._wrong = min(2 * self._length, MOST), 0
        elif right:
            self._length, self._wrong = max(2, right + 1), 0
        else:
            self._length, self._wrong = max(1, self._length // 2), self._wrong + 1
        if self._wrong == PATIENCE:
            self._wrong, self._rest = 0, REST
