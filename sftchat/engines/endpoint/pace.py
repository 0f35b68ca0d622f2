"""How many requests may be under way: as many as asked for, fewer while the server says that it is too many, none when it is of no use."""

from __future__ import annotations

from anyio import CapacityLimiter

GIVEN_UP = 3
"""Requests given up in a row, none answered between them, after which the server is given up too."""


class Pace:
    """Places for requests, their number additively increased and multiplicatively decreased (Chiu and Jain 1989).

    Args:
        most: Places there are when the server never complains, at least 1.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.places = CapacityLimiter(most)
        """An async context manager: a request holds a place while it is with the server, not while it waits for its next attempt."""
        self.period = 0
        """Grows with every decrease. A refusal of a request from an earlier period says nothing about the present number."""
        self._size = float(most)
        self._given_up = 0

    def refused(self, period: int) -> None:
        """The server answered "too many requests" to one that was sent in the given period."""
        if period == self.period:
            self.period += 1
            self._resize(self._size / 2)

    def answered(self) -> None:
        """The server answered a request: one place more after as many answers as there are places."""
        self._given_up = 0
        self._resize(self._size + 1 / self._size)

    def given_up(self) -> bool:
        """A request was given up though its trouble might have passed; returns whether there is no point in asking for any other."""
        self._given_up += 1
        return self._given_up >= GIVEN_UP

    def _resize(self, size: float) -> None:
        """Open or close places; whoever holds one keeps it."""
        self._size = min(float(self.most), max(1.0, size))
        self.places.total_tokens = int(self._size)
