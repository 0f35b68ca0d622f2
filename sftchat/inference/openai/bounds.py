"""Limits for a server's response: bytes after decompression, time, characters and pieces. All reading from a server goes through this module."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass

import httpx2
from anyio import current_time, fail_after
from anyio.lowlevel import checkpoint

from sftchat.inference.openai.retries import RequestFailed

KIB, MIB = 1 << 10, 1 << 20
INFLATED = 128 * KIB
"""Size in bytes above which a part must have been compressed: one network read returns at most half of it."""


class Overrun(RequestFailed):
    """A response that exceeds a limit; it is not requested again.

    Args:
        words: See ``RequestFailed``.
    """

    def __init__(self, words: str) -> None:
        super().__init__(words, spent=True)


class Overtime(Overrun):
    """A response that took too long."""


@dataclass(frozen=True)
class Bounds:
    """Upper limits for a server's response; those for a reply grow with the number of requested tokens.

    The limits are far above what a correct server sends: a token has about 4 characters and an event 300 bytes.

    Attributes:
        listing_bytes: Of the list of models.
        error_bytes: Of an error response; the rest is not read.
        event_bytes: Of one event of a stream, and of a response that is not streamed.
        event_bytes_per_token: In addition, per requested token.
        stream_bytes: Of a whole event stream, comments and thoughts included.
        stream_bytes_per_token: In addition, per requested token.
        characters: Of a reply.
        characters_per_token: In addition, per requested token.
        pieces: Of a reply; a server that streams token by token sends one piece per token.
        pieces_per_token: In addition, per requested token.
        most_characters: Of a reply, regardless of the number of requested tokens.
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
    most_characters: int = 16 * MIB

    def of_event(self, tokens: int) -> int:
        """Return the maximum bytes of one event, or of a response that is not streamed."""
        return self.event_bytes + self.event_bytes_per_token * tokens

    def of_stream(self, tokens: int) -> int:
        """Return the maximum bytes of an event stream."""
        return self.stream_bytes + self.stream_bytes_per_token * tokens

    def of_text(self, tokens: int) -> int:
        """Return the maximum characters of a reply."""
        return min(self.most_characters, self.characters + self.characters_per_token * tokens)

    def of_pieces(self, tokens: int) -> int:
        """Return the maximum pieces of a reply."""
        return self.pieces + self.pieces_per_token * tokens


class Meter:
    """Measures the time of one request and the bytes of its response; created in the event loop when the request begins.

    Args:
        seconds: Maximum duration of the request in seconds.
        option: Command line option that raises the limit.
    """

    def __init__(self, seconds: float, option: str = "--request-timeout") -> None:
        self._deadline = current_time() + seconds
        self._words = f"the request took longer than {seconds:g} s; {option} allows more"

    def shorten(self, seconds: float) -> None:
        """Reduce the remaining time to at most ``seconds``."""
        self._deadline = min(self._deadline, current_time() + seconds)

    @contextmanager
    def time(self) -> Iterator[None]:
        """Cancel the block when the time is over.

        Raises:
            Overtime: When the block was cancelled, or ended too late.
        """
        try:
            with fail_after(max(0.0, self._deadline - current_time())):
                yield
        except TimeoutError:
            raise Overtime(self._words) from None
        if current_time() > self._deadline:
            raise Overtime(self._words)

    async def parts(self, response: httpx2.Response, most: int) -> AsyncGenerator[bytes]:
        """Yield the content of a response, decompressed in parts of at most one mebibyte.

        Args:
            response: A response of which nothing has been read.
            most: Maximum bytes.

        Raises:
            Overrun: When the content is larger.
            Overtime: When it takes too long.
        """
        size = 0
        async with aclosing(response.aiter_bytes()) as parts:
            while True:
                with self.time():
                    part = await anext(parts, b"")
                if not part:
                    return
                if len(part) > INFLATED:
                    await checkpoint()  # little data from the network may decompress to much: let other tasks run, and the caller cancel
                yield part[: most - size]
                size += len(part)
                if size > most:
                    raise Overrun(f"the server sent more than {most:,} bytes")

    async def body(self, response: httpx2.Response, most: int, *, cut: bool = False) -> bytes:
        """Return the whole content of a response.

        Args:
            response: See ``parts``.
            most: See ``parts``.
            cut: Whether to return the beginning of a content that is too large.

        Raises:
            Overrun: See ``parts``; not raised with ``cut``.
            Overtime: See ``parts``.
        """
        body = bytearray()
        async with aclosing(self.parts(response, most)) as parts:
            try:
                async for part in parts:
                    body += part
            except Overrun as overrun:
                if isinstance(overrun, Overtime) or not cut:
                    raise
        return bytes(body)
