"""What one answer of a server may take: bytes after decompression, seconds, characters and pieces; all that is read of a server is read here."""

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
"""Bytes above which a part of an answer was compressed: a read from the network brings no more than half of them."""


class Overrun(RequestFailed):
    """An answer that is larger than it may be; another attempt would take as much.

    Args:
        words: As of ``RequestFailed``.
    """

    def __init__(self, words: str) -> None:
        super().__init__(words, spent=True)


class Overtime(Overrun):
    """An answer that took longer than it may."""


@dataclass(frozen=True)
class Bounds:
    """The most of everything that a server's answer may have; what belongs to a reply grows with the tokens that were asked for.

    The numbers are far above those of any honest server: a token has about 4 characters and an event 300 bytes.

    Attributes:
        listing_bytes: Of the list of models.
        error_bytes: Of an answer that is an error; the rest is not read.
        event_bytes: Of one event of a stream, and of an answer that is not streamed.
        event_bytes_per_token: In addition, for each token asked for.
        stream_bytes: Of a whole event stream with comments, thoughts and all.
        stream_bytes_per_token: In addition, for each token asked for.
        characters: Of a reply.
        characters_per_token: In addition, for each token asked for.
        pieces: Of a reply; a server that streams token by token sends one for each.
        pieces_per_token: In addition, for each token asked for.
        most_characters: Of a reply, however many tokens were asked for.
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
        """The most bytes of one event, or of an answer that is not streamed, to a request for so many tokens."""
        return self.event_bytes + self.event_bytes_per_token * tokens

    def of_stream(self, tokens: int) -> int:
        """The most bytes of an event stream that answers a request for so many tokens."""
        return self.stream_bytes + self.stream_bytes_per_token * tokens

    def of_text(self, tokens: int) -> int:
        """The most characters of a reply to a request for so many tokens."""
        return min(self.most_characters, self.characters + self.characters_per_token * tokens)

    def of_pieces(self, tokens: int) -> int:
        """The most pieces of a reply to a request for so many tokens."""
        return self.pieces + self.pieces_per_token * tokens


class Meter:
    """Counts the seconds of one request and the bytes of its answer. To be made in the event loop, when the request begins.

    Args:
        seconds: How long the request may take in all.
        option: The option of the command line that allows more.
    """

    def __init__(self, seconds: float, option: str = "--request-timeout") -> None:
        self._deadline = current_time() + seconds
        self._words = f"the request took longer than {seconds:g} s; {option} allows more"

    def shorten(self, seconds: float) -> None:
        """Leave no more than so many seconds from now."""
        self._deadline = min(self._deadline, current_time() + seconds)

    @contextmanager
    def time(self) -> Iterator[None]:
        """End what is awaited in this block when the time is over.

        Raises:
            Overtime: When that happened, or the block ended too late.
        """
        try:
            with fail_after(max(0.0, self._deadline - current_time())):
                yield
        except TimeoutError:
            raise Overtime(self._words) from None
        if current_time() > self._deadline:
            raise Overtime(self._words)

    async def parts(self, response: httpx2.Response, most: int) -> AsyncGenerator[bytes]:
        """The content of an answer, decompressed in parts of at most a mebibyte each.

        Args:
            response: An answer of which nothing has been read.
            most: Bytes that it may have.

        Raises:
            Overrun: When it has more.
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
                    await checkpoint()  # a little from the network may be much; others have their turn, and the caller may cancel
                yield part[: most - size]
                size += len(part)
                if size > most:
                    raise Overrun(f"the server sent more than {most:,} bytes")

    async def body(self, response: httpx2.Response, most: int, *, cut: bool = False) -> bytes:
        """The whole content of an answer.

        Args:
            response: As for ``parts``.
            most: As for ``parts``.
            cut: Whether to return the beginning of what is too large.

        Raises:
            Overrun: As of ``parts``, unless it is cut.
            Overtime: As of ``parts``.
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
