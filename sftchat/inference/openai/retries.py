"""Retries with backoff, and adaptive concurrency: fewer simultaneous requests after "too many requests", none after repeated failures."""

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
"""Number of consecutive failed requests, without a success between them, after which the server is given up."""


class AdaptiveConcurrencyLimit:
    """Concurrency limit with additive increase and multiplicative decrease (AIMD, Chiu and Jain 1989).

    Args:
        most: Maximum number of simultaneous requests, at least 1.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.places = CapacityLimiter(most)
        """An async context manager, held while a request is with the server, but not while it waits for a retry."""
        self.period = 0
        """Increases with every decrease of the limit. Refusals of requests from an earlier period are ignored."""
        self._size = float(most)
        self._given_up = 0

    def refused(self, period: int) -> None:
        """Handle "too many requests" for a request sent in the given period: halve the limit."""
        if period == self.period:
            self.period += 1
            self._resize(self._size / 2)

    def answered(self) -> None:
        """Handle a successful response: the limit grows by one after as many responses as its size."""
        self._given_up = 0
        self._resize(self._size + 1 / self._size)

    def given_up(self) -> bool:
        """Count a request that failed for good; returns whether to give up the server."""
        self._given_up += 1
        return self._given_up >= GIVEN_UP

    def _resize(self, size: float) -> None:
        """Change the limit; running requests continue."""
        self._size = min(float(self.most), max(1.0, size))
        self.places.total_tokens = int(self._size)


RETRYABLE_STATUSES = frozenset({408, 409, 429})
"""HTTP statuses worth a retry, as in the OpenAI library; so is every 5xx."""
LONGEST_WAIT = 1e9
"""Upper limit of a requested wait in seconds, 32 years."""
LONGEST_HEADER = 100
"""Maximum number of characters of a ``Retry-After`` header; longer ones are ignored."""


class RequestFailed(Exception):
    """A request that did not result in a complete reply.

    Attributes:
        words: Error message, one line.
        passing: Whether a retry may succeed.
        spent: Whether the request used up its limits: it is not retried although the server caused the error.
        everywhere: Whether all other requests will fail too, as when the server is unreachable.
        crowded: Whether the server wants fewer simultaneous requests.
        wait: Wait that the server requested, in seconds; None without one.
        otherwise: Whether the request is resent at once without what the server refused; the attempt is not counted.
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
    """Retry policy.

    Attributes:
        attempts: Maximum number of attempts, the first included.
        base: Maximum of the first wait, in seconds.
        cap: Maximum of every wait not requested by the server, in seconds.
        patience: Maximum wait that the server may request, in seconds; above it the request fails.
        sleep: Async sleep function; replaced in tests.
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
        """Return the seconds to wait after the given attempt, counted from 1; None if there is no retry.

        Exponential backoff with full jitter: uniform between 0 and ``min(cap, base * 2 ** n)`` (Brooker, "Exponential Backoff And Jitter", AWS
        Architecture Blog 2015). The jitter is added to the wait that the server requested, so that requests with the same requested wait are not
        resent together.
        """
        if not trouble.passing or attempt >= self.attempts or (trouble.wait or 0.0) > self.patience:
            return None
        return (trouble.wait or 0.0) + self.random() * min(self.cap, self.base * 2.0 ** (attempt - 1))


def retry_after(header: str | None, now: float) -> float | None:
    """Parse a ``Retry-After`` header, in seconds or as a date (RFC 9110, section 10.2.3); None for other values.

    Args:
        header: Value of the header; None if absent.
        now: Seconds since 1970.

    Returns:
        Seconds, between 0 and ``LONGEST_WAIT``.
    """
    if header is None or len(header) > LONGEST_HEADER:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = float(parsedate_to_datetime(header).timestamp()) - now
        except (ValueError, TypeError, OverflowError, OSError):  # invalid years and time zones
            return None
    return min(max(0.0, seconds), LONGEST_WAIT) if math.isfinite(seconds) else None
