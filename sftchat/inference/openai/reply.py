"""Text of a streamed reply, with its tool calls: whole characters, redacted, limited in size, and cut at stop strings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sftchat.engine import Chunk, Request, emittable_length
from sftchat.inference.openai.limits import ResponseLimits
from sftchat.inference.openai.logprobs import ReplyTokens
from sftchat.inference.openai.protocol import Delta, usable_finish_reason
from sftchat.inference.openai.server import RedactedStream, Redaction
from sftchat.protocol import ToolCalls, with_calls
from sftchat.thinking import ReplyPart, ThoughtSplitter
from sftchat.types import Choice, FinishReason


class TextFilter:
    """Filters a streamed text, of a reply or of its thoughts, and keeps it within limits.

    Args:
        redaction: Redaction of API keys.
        characters: Maximum number of characters.
        pieces: Maximum number of pieces.
        stop: Strings that end the reply and are not part of it, whether or not the server applies them.

    Attributes:
        truncated: Whether a limit was exceeded; the excess is dropped.
        stopped: Whether a stop string has appeared; no more text is emitted then.
        emitted_characters: Number of emitted characters.
        altered: Whether the emitted text differs from what was received: a key was replaced, or a piece ended within a character.
    """

    def __init__(self, redaction: Redaction, characters: int, pieces: int, stop: Sequence[str] = ()) -> None:
        self.truncated = False
        self.stopped = False
        self.emitted_characters = 0
        self.altered = False
        self._stop = tuple(text for text in stop if text)
        self._pending = ""  # text that may be the beginning of a stop string
        self._redacted = RedactedStream(redaction)
        self._characters_left = characters
        self._pieces_left = pieces
        self._surrogate = ""  # first half of a character

    def feed(self, text: str) -> str:
        """Add a piece; returns the text that can be emitted."""
        if not text:
            return ""
        if len(text) > self._characters_left or self._pieces_left == 0:
            self.truncated = True
        if self._pieces_left == 0:
            text = ""
        else:
            self._pieces_left -= 1
            text = text[: self._characters_left]
        self._characters_left -= len(text)
        text, self._surrogate = split_off_surrogate(self._surrogate + text)
        self.altered = self.altered or bool(self._surrogate)
        return self._before_stop(self._redacted.feed(text), final=False)

    def end(self) -> str:
        """Return the text still held back."""
        text = self._redacted.feed("\ufffd" if self._surrogate else "") + self._redacted.end()
        self._surrogate = ""
        return self._before_stop(text, final=True)

    def _before_stop(self, text: str, *, final: bool) -> str:
        """Return the text before a stop string; a suffix that may be the beginning of one is held back."""
        self.altered = self.altered or self._redacted.replaced
        if self.stopped:
            return ""
        if self._stop:
            text = self._pending + text
            end, self.stopped = emittable_length(text, 0, self._stop, final=final)
            text, self._pending = text[:end], text[end:]
        self.emitted_characters += len(text)
        return text


def split_off_surrogate(text: str) -> tuple[str, str]:
    """Return a text without the high surrogate that ends it, and that surrogate; the text's other surrogates become characters or U+FFFD.

    Servers that count in UTF-16 send the two surrogates of a character in separate JSON strings.
    """
    surrogate = text[-1:] if "\ud800" <= text[-1:] <= "\udbff" else ""
    text = text[: len(text) - len(surrogate)]
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace"), surrogate


class StreamedReply:
    """Converts the pieces of one response to chunks, with thoughts separated from the reply.

    Thoughts come in separate fields, in parts of the content, or within the text: between ``<think>`` and ``</think>``, or before a lone ``</think>``
    if the template opened them. A raw prompt or a continued reply contains no thoughts. Tool calls become the end of the text if the request had tools.

    Args:
        redaction: Redaction of API keys.
        limits: Limits of the response.

    Attributes:
        server_reason: The server's finish reason; empty until it is received.
        has_text: Whether any text was received.
        has_logprobs: Whether any token had a log-probability.
    """

    def __init__(self, request: Request, redaction: Redaction, limits: ResponseLimits) -> None:
        self.server_reason = ""
        self.has_text = False
        self.has_logprobs = False
        self._refused = False
        self._calls = ToolCalls()
        self._wants_calls = bool(request.tools)
        self._redaction = redaction
        self._prompt_tokens = self._completion_tokens = 0
        self._id = request.id
        self._splitter = ThoughtSplitter(allow_missing_opening=True) if request.prompt is None and not request.reply_prefix else None
        self._max_characters = characters = limits.max_reply_characters(request.sampling.max_new_tokens)
        pieces = limits.max_reply_pieces(request.sampling.max_new_tokens)
        self._text = TextFilter(redaction, characters, pieces, request.sampling.stop)
        self._thoughts = TextFilter(redaction, characters, pieces)
        self._tokens = ReplyTokens() if request.logprobs is not None else None
        self._stream_characters = 0  # received so far, thoughts included
        self._reply_characters = 0  # those of them that belong to the reply
        # for each uninterrupted part of the reply: its position in the stream, and the number of characters of the reply before it
        self._segments: list[tuple[int, int]] = []

    @property
    def stopped(self) -> bool:
        """Whether a stop string has appeared in the reply."""
        return self._text.stopped

    @property
    def truncated(self) -> bool:
        """Whether a limit was exceeded."""
        return self._text.truncated or self._thoughts.truncated or self._calls.characters > self._max_characters

    @property
    def is_complete(self) -> bool:
        """Whether nothing is missing at the end of the reply, even if the stream is interrupted."""
        return bool(self.server_reason) or self.stopped or self.truncated

    def mark_done(self) -> None:
        """Handle the event ``DONE``; without a finish reason it ends a reply that has text or tool calls."""
        if (self.has_text or (self._wants_calls and self._calls)) and not self.server_reason:
            self.server_reason = "stop"

    def feed(self, delta: Delta) -> Iterator[Chunk]:
        """Add the content of an event; yields the chunks that can be emitted."""
        self.server_reason = delta.finish_reason or self.server_reason or ("stop" if delta.complete else "")
        self.has_text = self.has_text or bool(delta.text)
        self.has_logprobs = self.has_logprobs or bool(delta.choices)
        self._refused = self._refused or delta.refused
        if not self.truncated:
            self._calls.add(delta.calls)
        self._prompt_tokens = delta.prompt_tokens or self._prompt_tokens
        self._completion_tokens = delta.completion_tokens or self._completion_tokens
        if self._tokens is not None:
            self._tokens.feed(delta.thoughts + delta.text, delta.choices)
        # each text is counted before it is added, because ``_add_to_reply`` takes the count as the end of its text
        self._stream_characters += len(delta.thoughts)
        if delta.thoughts:
            yield from self._chunks([ReplyPart(delta.thoughts, is_thought=True)])
        self._stream_characters += len(delta.text)
        if delta.text:
            yield from self._chunks(
                [ReplyPart(delta.text, is_thought=False)] if self._splitter is None else self._splitter.feed(delta.text)
            )

    def finish(self) -> Chunk:
        """Return the last chunk, with the text and thoughts still held back.

        Raises:
            RequestFailed: When the server's finish reason means that there is no usable reply.
        """
        text = thoughts = ""
        for part in [] if self._splitter is None else self._splitter.end():
            if part.is_thought:
                thoughts += self._thoughts.feed(part.text)
            else:
                text += self._add_to_reply(part.text)
        text += self._text.end()
        thoughts += self._thoughts.end()
        finish_reason: FinishReason = "stop"
        if not self.stopped:
            reason, names = self.server_reason, self._calls.names
            finish_reason = "length" if self.truncated else usable_finish_reason(reason, names, wants_calls=self._wants_calls)
        calls = self._calls.text if self._wants_calls and not self.stopped else ""
        choices: tuple[Choice, ...] = ()
        if self._tokens is not None and not self._text.altered and not calls:  # the tokens of calls are not those of their text
            choices = self._tokens.take_rest(self._emitted_position, ended=finish_reason == "stop" and not self.stopped)
        if calls:
            calls, _ = split_off_surrogate(self._redaction.text(calls))
            text = with_calls(text, calls) if text or not self._text.emitted_characters else f"\n{calls}"
        return Chunk(
            self._id, text, (), finish_reason, self._prompt_tokens, _logprobs(choices), unlisted_tokens=self._completion_tokens,
            thoughts=thoughts, refused=self._refused, choices=choices,
        )  # fmt: skip

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
            elif ready := self._add_to_reply(part.text):
                choices = self._tokens.take_until(self._emitted_position) if self._tokens is not None and not self._text.altered else ()
                yield Chunk(self._id, ready, logprobs=_logprobs(choices), choices=choices)

    def _add_to_reply(self, text: str) -> str:
        """Add the latest text of the stream to the reply; returns the text that can be emitted."""
        if self._tokens is not None:
            held_back = self._splitter.pending_characters if self._splitter is not None else 0
            end = self._stream_characters - held_back
            start = end - len(text)
            if not self._segments or start != self._position_of(self._reply_characters):
                self._segments.append((start, self._reply_characters))
            self._tokens.mark_as_reply(start, end)
        self._reply_characters += len(text)
        return self._text.feed(text)

    @property
    def _emitted_position(self) -> int:
        """Position in the stream up to which the reply was emitted."""
        return self._position_of(self._text.emitted_characters)

    def _position_of(self, reply_characters: int) -> int:
        """Return the position in the stream at which the reply has a number of characters; 0 for none."""
        for start, previous_characters in reversed(self._segments):
            if previous_characters < reply_characters:
                return start + reply_characters - previous_characters
        return 0


def _logprobs(choices: Sequence[Choice]) -> tuple[float, ...] | None:
    return tuple(choice.logprob for choice in choices) or None
