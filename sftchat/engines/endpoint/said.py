"""What a server said to one request so far: the reply and, apart from it, what it thought."""

from __future__ import annotations

from collections.abc import Iterator

from sftchat.engines.base import Chunk, Request
from sftchat.engines.endpoint.bounds import Bounds
from sftchat.engines.endpoint.growing import GrowingText
from sftchat.engines.endpoint.redaction import Redaction
from sftchat.engines.endpoint.wire import Piece
from sftchat.thinking import Part, Thoughts


class Said:
    """Takes the pieces of one answer and makes chunks of them, thoughts apart from the reply.

    Thoughts come in fields of their own, in parts of the content, or within the text: between ``<think>`` and ``</think>``, or before a
    ``</think>`` alone where the template has opened them. A raw prompt, or a reply that is continued, is text throughout.

    Args:
        request: What was asked.
        redaction: What may not be in an answer.
        bounds: What an answer may take.

    Attributes:
        begun: Whether any text came.
        refused: Whether the reply is a refusal by the server's own word.
        called: Names of functions that the model calls.
    """

    def __init__(self, request: Request, redaction: Redaction, bounds: Bounds) -> None:
        tokens = request.sampling.max_new_tokens
        self.begun = False
        self.refused = False
        self.called: tuple[str, ...] = ()
        self._id = request.id
        self._split = Thoughts(bare=True) if request.prompt is None and not request.reply_prefix else None
        self._text = GrowingText(redaction, bounds.of_text(tokens), bounds.of_pieces(tokens), request.sampling.stop)
        self._thoughts = GrowingText(redaction, bounds.of_text(tokens), bounds.of_pieces(tokens))

    @property
    def stopped(self) -> bool:
        """Whether a stop string has appeared in the reply."""
        return self._text.stopped

    @property
    def full(self) -> bool:
        """Whether more came than may."""
        return self._text.full or self._thoughts.full

    def feed(self, piece: Piece) -> Iterator[Chunk]:
        """Take a piece; yields what can be handed out."""
        self.begun = self.begun or bool(piece.text)
        self.refused = self.refused or piece.refused
        self.called = self.called or piece.called
        if piece.thoughts:
            yield from self._chunks([Part(piece.thoughts, True)])
        if piece.text:
            yield from self._chunks([Part(piece.text, False)] if self._split is None else self._split.feed(piece.text))

    def end(self) -> tuple[str, str]:
        """The answer is over; returns what still waited of the reply and of the thoughts."""
        text = thoughts = ""
        for part in [] if self._split is None else self._split.end():
            if part.thought:
                thoughts += self._thoughts.feed(part.text)
            else:
                text += self._text.feed(part.text)
        return text + self._text.end(), thoughts + self._thoughts.end()

    def _chunks(self, parts: list[Part]) -> Iterator[Chunk]:
        """What parts add."""
        for part in parts:
            if part.before:
                yield Chunk(self._id, self._text.end())
                yield Chunk(self._id, thoughts=self._thoughts.feed(part.text), revises="thought")
            elif ready := (self._thoughts if part.thought else self._text).feed(part.text):
                yield Chunk(self._id, thoughts=ready) if part.thought else Chunk(self._id, ready)
