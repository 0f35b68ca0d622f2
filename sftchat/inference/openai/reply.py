"""Text of a streamed reply: whole characters, redacted, limited in size, and cut at stop strings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sftchat.engine import Chunk, Request, emittable_length
from sftchat.inference.openai.limits import ResponseLimits
from sftchat.inference.openai.logprobs import ReplyTokens
from sftchat.inference.openai.protocol import Delta
from sftchat.inference.openai.server import RedactedStream, Redaction
from sftchat.thinking import ReplyPart, ThoughtSplitter
from sftchat.types import Choice


class TextFilter:
    """Filters the streamed text of a reply.

    Args:
        redaction: Redaction of API keys.
        characters: Maximum number of characters.
        pieces: Maximum number of pieces.
        stop: Strings that end the reply and are not part of it, whether or not the server applies them.

    Attributes:
        full: Whether a limit was exceeded; the excess is dropped.
        stopped: Whether a stop string has appeared; no more text is emitted then.
        released: Number of emitted characters.
        altered: Whether the emitted text differs from what was received: a key was replaced, or a piece ended within a character.
    """

    def __init__(self, redaction: Redaction, characters: int, pieces: int, stop: Sequence[str] = ()) -> None:
        self.full = False
        self.stopped = False
        self.released = 0
        self.altered = False
        self._stop = tuple(text for text in stop if text)
        self._waiting = ""
        self._redacted = RedactedStream(redaction)
        self._characters = characters
        self._pieces = pieces
        self._half = ""

    def feed(self, text: str) -> str:
        """Add a piece; returns the text that can be emitted."""
        if not text:
            return ""
        self.full = self.full or len(text) > self._characters or self._pieces == 0
        text = "" if self._pieces == 0 else text[: self._characters]
        self._pieces -= bool(self._pieces)
        self._characters -= len(text)
        text, self._half = whole_characters(self._half + text)
        self.altered = self.altered or bool(self._half)
        return self._until_stop(self._redacted.feed(text), final=False)

    def end(self) -> str:
        """Return the text still held back."""
        rest = self._redacted.feed("\ufffd" if self._half else "") + self._redacted.end()
        self._half = ""
        return self._until_stop(rest, final=True)

    def _until_stop(self, text: str, *, final: bool) -> str:
        """Return the text before a stop string; a suffix that may be the beginning of one is held back."""
        self.altered = self.altered or self._redacted.replaced
        if self.stopped:
            return ""
        if self._stop:
            text = self._waiting + text
            end, self.stopped = emittable_length(text, 0, self._stop, final=final)
            text, self._waiting = text[:end], text[end:]
        self.released += len(text)
        return text


def whole_characters(text: str) -> tuple[str, str]:
    """Split a trailing lone surrogate off a text; returns the text and the surrogate.

    Servers that count in UTF-16 send the halves of a pair escaped in separate JSON strings.
    """
    waiting = text[-1:] if "\ud800" <= text[-1:] <= "\udbff" else ""
    ready = text[: len(text) - len(waiting)]
    return ready.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace"), waiting


class StreamedReply:
    """Converts the pieces of one response to chunks, with thoughts separated from the reply.

    Thoughts come in separate fields, in parts of the content, or within the text: between ``<think>`` and ``</think>``, or before a lone ``</think>``
    if the template opened them. A raw prompt or a continued reply contains no thoughts.

    Args:
        request: The request.
        redaction: Redaction of API keys.
        limits: Limits of the response.

    Attributes:
        has_text: Whether any text was received.
        refused: Whether the server marked the reply as a refusal.
        called: Names of functions that the model calls.
        has_logprobs: Whether any token had a log-probability.
    """

    def __init__(self, request: Request, redaction: Redaction, limits: ResponseLimits) -> None:
        tokens = request.sampling.max_new_tokens
        self.has_text = False
        self.refused = False
        self.called: tuple[str, ...] = ()
        self.has_logprobs = False
        self._id = request.id
        self._split = ThoughtSplitter(allow_missing_opening=True) if request.prompt is None and not request.reply_prefix else None
        self._text = TextFilter(redaction, limits.of_text(tokens), limits.of_pieces(tokens), request.sampling.stop)
        self._thoughts = TextFilter(redaction, limits.of_text(tokens), limits.of_pieces(tokens))
        self._tokens = ReplyTokens() if request.logprobs is not None else None
        self._received = 0  # characters of the stream
        self._added = 0  # characters of the reply added to its text
        self._segments: list[tuple[int, int]] = []  # where the reply continues in the stream, and how much of it came before

    @property
    def stopped(self) -> bool:
        """Whether a stop string has appeared in the reply."""
        return self._text.stopped

    @property
    def full(self) -> bool:
        """Whether a limit was exceeded."""
        return self._text.full or self._thoughts.full

    def feed(self, delta: Delta) -> Iterator[Chunk]:
        """Add the content of an event; yields the chunks that can be emitted."""
        self.has_text = self.has_text or bool(delta.text)
        self.refused = self.refused or delta.refused
        self.called = self.called or delta.called
        self.has_logprobs = self.has_logprobs or bool(delta.choices)
        if self._tokens is not None:
            self._tokens.feed(delta.thoughts + delta.text, delta.choices)
        self._received += len(delta.thoughts)
        if delta.thoughts:
            yield from self._chunks([ReplyPart(delta.thoughts, True)])
        self._received += len(delta.text)
        if delta.text:
            yield from self._chunks([ReplyPart(delta.text, False)] if self._split is None else self._split.feed(delta.text))

    def end(self) -> tuple[str, str]:
        """Finish the reply; returns the chunk with the text and thoughts still held back."""
        text = thoughts = ""
        for part in [] if self._split is None else self._split.end():
            if part.is_thought:
                thoughts += self._thoughts.feed(part.text)
            else:
                text += self._reply(part.text)
        return text + self._text.end(), thoughts + self._thoughts.end()

    def last_choices(self, *, ended: bool) -> tuple[Choice, ...]:
        """Return the remaining tokens of the reply, after ``end``.

        Args:
            ended: Whether the model ended the reply.
        """
        if self._tokens is None or self._text.altered:
            return ()
        return self._tokens.take_rest(self._emitted_position, ended=ended and not self.stopped)

    def _chunks(self, parts: list[ReplyPart]) -> Iterator[Chunk]:
        for part in parts:
            if part.text_was_thoughts:
                yield Chunk(self._id, self._text.end())
                yield Chunk(self._id, thoughts=self._thoughts.feed(part.text), revises="thought")
                self._segments.clear()
                if self._tokens is not None:
                    self._tokens.discard()
            elif part.is_thought:
                if ready := self._thoughts.feed(part.text):
                    yield Chunk(self._id, thoughts=ready)
            elif ready := self._reply(part.text):
                choices = self._tokens.take_until(self._emitted_position) if self._tokens is not None and not self._text.altered else ()
                yield Chunk(self._id, ready, logprobs=tuple(choice.logprob for choice in choices) or None, choices=choices)

    def _reply(self, text: str) -> str:
        """Add text to the reply; returns the text that can be emitted. It is the last text read, except what the splitter holds back."""
        if self._tokens is not None:
            end = self._received - (self._split.pending_characters if self._split is not None else 0)
            start = end - len(text)
            if not self._segments or self._segments[-1][0] + self._added - self._segments[-1][1] != start:
                self._segments.append((start, self._added))
            self._tokens.add_range(start, end)
        self._added += len(text)
        return self._text.feed(text)

    @property
    def _emitted_position(self) -> int:
        """Position in the stream up to which the reply was emitted."""
        done = self._text.released
        return next((start + done - before for start, before in reversed(self._segments) if before < done), 0)
