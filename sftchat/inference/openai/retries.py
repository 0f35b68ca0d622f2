"""How many requests may be under way: as many as asked for, fewer while the server says that it is too many, none when it is of no use."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from anyio import CapacityLimiter

GIVEN_UP = 3
"""Requests given up in a row, none answered between them, after which the server is given up too."""


class AdaptiveConcurrencyLimit:
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


RETRYABLE_STATUSES = frozenset({408, 409, 429})
"""Refusals that another attempt may turn, as the OpenAI library has them; every 5xx is one too."""
LONGEST_WAIT = 1e9
"""Seconds, 32 years: a server that asks to wait longer is understood to ask for this."""
LONGEST_HEADER = 100
"""Characters of a ``Retry-After`` header that is read."""


class RequestFailed(Exception):
    """An attempt that brought no whole reply.

    Attributes:
        words: What went wrong, in one line.
        passing: Whether another attempt may do better.
        spent: Whether it cost all that the request may take: it is not sent again, though the trouble is the server's.
        everywhere: Whether every other request must meet it too, as when the server is gone.
        crowded: Whether the server wants fewer requests at once.
        wait: Seconds that the server asked to wait; None when it did not.
        otherwise: The request will be another one, without what the server refused: it is sent at once, and the attempt does not count.
    """

    def __init__(
        self,
        words: str,
        *,
        passing: bool = False,
        spent: bool = False,
        everywhere: bool = False,
        crowded: bool = False,
        wait: float | None = None,
        otherwise: bool = False,
    ) -> None:
        super().__init__(words)
        self.words = words
        self.passing = passing
        self.spent = spent
        self.everywhere = everywhere
        self.crowded = crowded
        self.wait = wait
        self.otherwise = otherwise


@dataclass(frozen=True)
class Retries:
    """How often and after how long a request is sent again.

    Attributes:
        attempts: The most there are, the first one included.
        base: Seconds that the first wait may last.
        cap: Seconds that no wait of our own exceeds.
        patience: Seconds that the server may ask to wait; a request is given up rather than wait longer.
        sleep: Waits; tests pass one that only takes note.
        random: Uniform in [0, 1).
        now: Seconds since 1970.
    """

    attempts: int = 6
    base: float = 0.5
    cap: float = 30.0
    patience: float = 300.0
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    random: Callable[[], float] = random.random
    now: Callable[[], float] = time.time

    def delay(self, attempt: int, trouble: RequestFailed) -> float | None:
        """Seconds to wait after the given attempt, counted from 1; None when there is no point in another one.

        Exponential backoff with full jitter: uniform between nothing and ``min(cap, base * 2 ** n)`` (Brooker, "Exponential Backoff And
        Jitter", AWS Architecture Blog 2015). What the server asked for comes first and the jitter on top, so that requests which were told
        the same time do not come back together.
        """
        if not trouble.passing or attempt >= self.attempts or (trouble.wait or 0.0) > self.patience:
            return None
        return (trouble.wait or 0.0) + self.random() * min(self.cap, self.base * 2.0 ** (attempt - 1))


def retry_after(header: str | None, now: float) -> float | None:
    """Seconds that a ``Retry-After`` header asks for, as a number or as a date (RFC 9110, section 10.2.3); None for any other text.

    Args:
        header: What the server sent; None when it sent none.
        now: Seconds since 1970.

    Returns:
        Between 0 and ``LONGEST_WAIT``.
    """
    if header is None or len(header) > LONGEST_HEADER:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = float(parsedate_to_datetime(header).timestamp()) - now
        except (ValueError, TypeError, OverflowError, OSError):  # years and zones that no calendar has
            return None
    return min(max(0.0, seconds), LONGEST_WAIT) if math.isfinite(seconds) else None
