"""A sequence whose elements are made when they are asked for, because all of them together would not fit into memory."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TypeVar, overload

T = TypeVar("T", covariant=True)


class Lazy(Sequence[T]):
    """Indexes and slices of what ``at`` makes."""

    @abstractmethod
    def at(self, place: int) -> T:
        """Make one element; ``place`` is one that exists, from 0."""

    @overload
    def __getitem__(self, place: int) -> T: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[T, ...]: ...
    def __getitem__(self, place: int | slice) -> T | tuple[T, ...]:
        """One element, or some of them."""
        places = range(len(self))[place]
        return tuple(map(self.at, places)) if isinstance(places, range) else self.at(places)
