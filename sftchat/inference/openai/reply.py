"""The text of a reply as it grows: whole characters, without keys, no longer than it may be, and ended by its stop strings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sftchat.engine import Chunk, Request
from sftchat.inference.openai.bounds import Bounds
from sftchat.inference.openai.events import Piece
from sftchat.inference.openai.logprobs import ReplyTokens
from sftchat.inference.openai.redaction import RedactedStream, Redaction
from sftchat.inference.stop_strings import released
from sftchat.thinking import Part, Thoughts
from sftchat.types import Choice


class GrowingText:
    """Takes the pieces of a reply and says what of them can be handed out.

    Args:
        redaction: What may not be in it.
        characters: The most that it may have.
        pieces: The most in which it may come.
        stop: Strings that end it and are not part of it, whether or not the server minds them.

    Attributes:
        full: Whether more came than it may have; what came beyond is left out.
        stopped: Whether a stop string has appeared; no more is handed out then.
        released: Characters that were handed out.
        altered: What was handed out has other characters than what came: a key was replaced, or half a character came alone.
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
        """Take a piece; returns what can be handed out."""
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
        """What still waited for more; none comes."""
        rest = self._redacted.feed("\ufffd" if self._half else "") + self._redacted.end()
        self._half = ""
        return self._until_stop(rest, final=True)

    def _until_stop(self, text: str, *, final: bool) -> str:
        """What comes before a stop string; an end that may be the beginning of one waits."""
        self.altered = self.altered or self._redacted.replaced
        if self.stopped:
            return ""
        if self._stop:
            text = self._waiting + text
            end, self.stopped = released(text, 0, self._stop, final=final)
            text, self._waiting = text[:end], text[end:]
        self.released += len(text)
        return text


def whole_characters(text: str) -> tuple[str, str]:
    """Cut half a surrogate pair off the end of a text: what can be handed out, and what waits for its other half.

    Servers that count in UTF-16 send such halves, each escaped in a JSON string of its own.
    """
    waiting = text[-1:] if "\ud800" <= text[-1:] <= "\udbff" else ""
    ready = text[: len(text) - len(waiting)]
    return ready.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace"), waiting


class StreamedReply:
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
        weighed: Whether any token came with its log-probability.
    """

    def __init__(self, request: Request, redaction: Redaction, bounds: Bounds) -> None:
        tokens = request.sampling.max_new_tokens
        self.begun = False
        self.refused = False
        self.called: tuple[str, ...] = ()
        self.weighed = False
        self._id = request.id
        self._split = Thoughts(bare=True) if request.prompt is None and not request.reply_prefix else None
        self._text = GrowingText(redaction, bounds.of_text(tokens), bounds.of_pieces(tokens), request.sampling.stop)
        self._thoughts = GrowingText(redaction, bounds.of_text(tokens), bounds.of_pieces(tokens))
        self._tokens = ReplyTokens() if request.logprobs is not None else None
        self._read = 0  # characters of the stream
        self._given = 0  # characters of the reply that went into its text
        self._places: list[tuple[int, int]] = []  # where in the stream the reply goes on, and how much of it came before

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
        self.weighed = self.weighed or bool(piece.choices)
        if self._tokens is not None:
            self._tokens.feed(piece.thoughts + piece.text, piece.choices)
        self._read += len(piece.thoughts)
        if piece.thoughts:
            yield from self._chunks([Part(piece.thoughts, True)])
        self._read += len(piece.text)
        if piece.text:
            yield from self._chunks([Part(piece.text, False)] if self._split is None else self._split.feed(piece.text))

    def end(self) -> tuple[str, str]:
        """The answer is over; returns what still waited of the reply and of the thoughts."""
        text = thoughts = ""
        for part in [] if self._split is None else self._split.end():
            if part.thought:
                thoughts += self._thoughts.feed(part.text)
            else:
                text += self._reply(part.text)
        return text + self._text.end(), thoughts + self._thoughts.end()

    def last_choices(self, *, ended: bool) -> tuple[Choice, ...]:
        """The tokens of the reply that were not given out yet; for after ``end``.

        Args:
            ended: Whether the model ended the reply.
        """
        if self._tokens is None or self._text.altered:
            return ()
        return self._tokens.rest(self._handed_out, ended=ended and not self.stopped)

    def _chunks(self, parts: list[Part]) -> Iterator[Chunk]:
        """What parts add."""
        for part in parts:
            if part.before:
                yield Chunk(self._id, self._text.end())
                yield Chunk(self._id, thoughts=self._thoughts.feed(part.text), revises="thought")
                self._places.clear()
                if self._tokens is not None:
                    self._tokens.void()
            elif part.thought:
                if ready := self._thoughts.feed(part.text):
                    yield Chunk(self._id, thoughts=ready)
            elif ready := self._reply(part.text):
                choices = self._tokens.until(self._handed_out) if self._tokens is not None and not self._text.altered else ()
                yield Chunk(self._id, ready, logprobs=tuple(choice.logprob for choice in choices) or None, choices=choices)

    def _reply(self, text: str) -> str:
        """More of the reply; returns what can be handed out. It is the last of what was read, but for what the splitting holds back."""
        if self._tokens is not None:
            end = self._read - (self._split.held if self._split is not None else 0)
            start = end - len(text)
            if not self._places or self._places[-1][0] + self._given - self._places[-1][1] != start:
                self._places.append((start, self._given))
            self._tokens.belongs(start, end)
        self._given += len(text)
        return self._text.feed(text)

    @property
    def _handed_out(self) -> int:
        """Where in the stream what was handed out of the reply ends."""
        done = self._text.released
        return next((start + done - before for start, before in reversed(self._places) if before < done), 0)
