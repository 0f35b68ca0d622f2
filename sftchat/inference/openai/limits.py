"""Limits of requests to a server: retries with backoff, simultaneous requests, and the time, bytes and characters of a response."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import KW_ONLY, dataclass, field
from email.utils import parsedate_to_datetime

import httpx2
from anyio import CapacityLimiter, current_time, fail_after
from anyio.lowlevel import checkpoint

MAX_FAILURES = 3
"""Number of consecutive failed requests after which no more are sent to the server."""


class AdaptiveConcurrencyLimit:
    """Concurrency limit with additive increase and multiplicative decrease (AIMD, Chiu and Jain 1989).

    Args:
        maximum: Maximum number of simultaneous requests, at least 1.
    """

    def __init__(self, maximum: int) -> None:
        self.maximum = maximum
        self.slots = CapacityLimiter(maximum)
        """An async context manager, held from sending a request to the end of its response, but not while it waits for a retry."""
        self.decreases = 0
        """Number of decreases of the limit so far; read when a request is sent, for ``on_rate_limit``."""
        self._size = float(maximum)
        self._failures = 0

    def on_rate_limit(self, decreases: int) -> None:
        """Handle the response "too many requests": halve the limit, but only once for all requests that were sent since the last decrease.

        Args:
            decreases: ``self.decreases`` when the refused request was sent.
        """
        if decreases == self.decreases:
            self.decreases += 1
            self._resize(self._size / 2)

    def on_success(self) -> None:
        """Handle a successful response: the limit grows by one after as many responses as its size."""
        self._failures = 0
        self._resize(self._size + 1 / self._size)

    def on_failure(self) -> bool:
        """Count a request that failed after all retries; returns whether to stop sending requests."""
        self._failures += 1
        return self._failures >= MAX_FAILURES

    def _resize(self, size: float) -> None:
        self._size = min(float(self.maximum), max(1.0, size))
        self.slots.total_tokens = int(self._size)


RETRYABLE_STATUSES = frozenset({408, 409, 429})
"""HTTP statuses worth a retry, as in the OpenAI library; so is every 5xx."""
MAX_WAIT_SECONDS = 1e9
"""Upper limit of a requested wait in seconds, 32 years."""
MAX_HEADER_CHARACTERS = 100
"""Maximum number of characters of a ``Retry-After`` header; longer ones are ignored."""


@dataclass(eq=False)
class RequestFailed(Exception):
    """A request that did not result in a complete reply.

    Attributes:
        message: Error message; may contain text of the server that is not sanitized.
        retryable: Whether a retry may succeed.
        over_limit: Whether the response exceeded its limits; such a request is not retried.
        fatal: Whether all other requests will fail too, as when the server is unreachable.
        rate_limited: Whether the server wants fewer simultaneous requests.
        wait: Wait that the server requested, in seconds; None without one.
        resend: Whether the request is resent at once without what the server refused; the attempt is not counted.
    """

    message: str
    _: KW_ONLY
    retryable: bool = False
    over_limit: bool = False
    fatal: bool = False
    rate_limited: bool = False
    wait: float | None = None
    resend: bool = False

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True)
class Retries:
    """Retry policy.

    Attributes:
        attempts: Maximum number of attempts, the first included.
        base: Maximum of the first wait, in seconds.
        cap: Maximum of every wait, except the part that the server requested, in seconds.
        patience: Maximum wait that the server may request, in seconds; above it the request fails.
        sleep: Async sleep function; replaced in tests.
        random: Returns a random number, uniform in [0, 1).
        now: Returns the seconds since 1970.
    """

    attempts: int = 6
    base: float = 0.5
    cap: float = 30.0
    patience: float = 300.0
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    random: Callable[[], float] = random.random
    now: Callable[[], float] = time.time

    def delay(self, attempt: int, failure: RequestFailed) -> float | None:
        """Return the seconds to wait after attempt number ``attempt``, counted from 1; None if there is no retry.

        Exponential backoff with full jitter: uniform between 0 and ``min(cap, base * 2 ** n)`` (Brooker, "Exponential Backoff And Jitter", AWS
        Architecture Blog 2015). The jitter is added to the wait that the server requested, so that requests with the same requested wait are not
        resent together.
        """
        if not failure.retryable or attempt >= self.attempts or (failure.wait or 0.0) > self.patience:
            return None
        return (failure.wait or 0.0) + self.random() * min(self.cap, self.base * 2.0 ** (attempt - 1))


def parse_retry_after(header: str | None, now: float) -> float | None:
    """Parse a ``Retry-After`` header, in seconds or as a date (RFC 9110, section 10.2.3); None for other values.

    Args:
        header: Value of the header; None if absent.
        now: Seconds since 1970.

    Returns:
        Seconds, between 0 and ``MAX_WAIT_SECONDS``.
    """
    if header is None or len(header) > MAX_HEADER_CHARACTERS:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = float(parsedate_to_datetime(header).timestamp()) - now
        except (ValueError, TypeError, OverflowError, OSError):  # invalid years and time zones
            return None
    return min(max(0.0, seconds), MAX_WAIT_SECONDS) if math.isfinite(seconds) else None


KIB, MIB = 1 << 10, 1 << 20
MIN_INFLATED_BYTES = 128 * KIB
"""A part of a response with more bytes was compressed: one read from the network returns at most half as many."""


@dataclass(eq=False)
class LimitExceeded(RequestFailed):
    """A response that exceeds a limit; the request is not retried."""

    over_limit: bool = field(default=True, kw_only=True)


class RequestTimeout(LimitExceeded):
    """A response that took too long."""


@dataclass(frozen=True)
class ResponseLimits:
    """Upper limits for a server's response; those for a reply grow with the number of requested tokens (``max_tokens``).

    The limits are far above what a correct server sends: a token has about 4 characters and an event 300 bytes.

    Attributes:
        listing_bytes: Bytes of the list of models.
        error_bytes: Bytes of an error response; further bytes are not read.
        event_bytes: Bytes of one event of a stream, and of a response that is not streamed.
        event_bytes_per_token: Added to ``event_bytes`` per requested token.
        stream_bytes: Bytes of a whole event stream, comments and thoughts included.
        stream_bytes_per_token: Added to ``stream_bytes`` per requested token.
        characters: Characters of a reply.
        characters_per_token: Added to ``characters`` per requested token.
        pieces: Pieces of a reply; a server that streams token by token sends one piece per token.
        pieces_per_token: Added to ``pieces`` per requested token.
        max_characters: Maximum of the characters of a reply for any number of requested tokens.
    """

    listing_bytes: int = 8 * MIB
    error_bytes: int = 1 * MIB
    event_bytes: int = 4 * MIB
    event_bytes_per_token: int = 2 * KIB
    stream_bytes: int = 16 * MIB
    stream_bytes_per_token: int = 16 * KIB
    characters: int = 1 * KIB
    characters_per_token: int = 128
    pieces: int = 64
    pieces_per_token: int = 4
    max_characters: int = 16 * MIB

    def max_event_bytes(self, max_tokens: int) -> int:
        """Return the maximum bytes of one event, or of a response that is not streamed."""
        return self.event_bytes + self.event_bytes_per_token * max_tokens

    def max_stream_bytes(self, max_tokens: int) -> int:
        """Return the maximum bytes of an event stream."""
        return self.stream_bytes + self.stream_bytes_per_token * max_tokens

    def max_reply_characters(self, max_tokens: int) -> int:
        """Return the maximum characters of a reply."""
        return min(self.max_characters, self.characters + self.characters_per_token * max_tokens)

    def max_reply_pieces(self, max_tokens: int) -> int:
        """Return the maximum pieces of a reply."""
        return self.pieces + self.pieces_per_token * max_tokens


class LimitedReader:
    """Limits the time of one request, from the creation of the reader on, and the bytes of its response; all reading from a server uses it.

    Args:
        seconds: Maximum duration of the request in seconds.
        option: Command line option that raises the limit.
    """

    def __init__(self, seconds: float, option: str = "--request-timeout") -> None:
        self._deadline = current_time() + seconds
        self._timeout_message = f"the request took longer than {seconds:g} s; {option} allows more"

    def shorten(self, seconds: float) -> None:
        """Reduce the remaining time to at most ``seconds``."""
        self._deadline = min(self._deadline, current_time() + seconds)

    @contextmanager
    def within_time(self) -> Iterator[None]:
        """Cancel the block when the time is over.

        Raises:
            RequestTimeout: When the block was cancelled, or ended too late.
        """
        try:
            with fail_after(max(0.0, self._deadline - current_time())):
                yield
        except TimeoutError:
            raise RequestTimeout(self._timeout_message) from None
        if current_time() > self._deadline:
            raise RequestTimeout(self._timeout_message)

    async def parts(self, response: httpx2.Response, max_bytes: int) -> AsyncGenerator[bytes]:
        """Yield the content of a response, decompressed in parts of at most one mebibyte.

        Args:
            response: A response whose content has not been read.
            max_bytes: Maximum size of the content.

        Raises:
            LimitExceeded: When the content is larger.
            RequestTimeout: When it takes too long.
        """
        size = 0
        async with aclosing(response.aiter_bytes()) as parts:
            while True:
                with self.within_time():
                    part = await anext(parts, b"")
                if not part:
                    return
                if len(part) > MIN_INFLATED_BYTES:
                    await checkpoint()  # a small compressed response can keep this loop busy: let other tasks run, and the caller cancel
                yield part[: max_bytes - size]
                size += len(part)
                if size > max_bytes:
                    raise LimitExceeded(f"the server sent more than {max_bytes:,} bytes")

    async def body(self, response: httpx2.Response, max_bytes: int, *, truncate: bool = False) -> bytes:
        """Return the content of a response, with the arguments and exceptions of ``parts``.

        Args:
            truncate: Whether to return the first ``max_bytes`` of a content that is too large, instead of raising ``LimitExceeded``.
        """
        body = bytearray()
        async with aclosing(self.parts(response, max_bytes)) as parts:
            try:
                async for part in parts:
                    body += part
            except LimitExceeded as error:
                if isinstance(error, RequestTimeout) or not truncate:
                    raise
        return bytes(body)
