"""Selects the tokens of the reply from a server's list.

The list may include tokens of thoughts, tags and the end of the reply, and may arrive before or after the text of the tokens.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from math import isfinite
from typing import Any, NamedTuple

from sftchat.types import UNNUMBERED, Choice, Token

INCOMPLETE = "\ufffd"
"""Decoded form of an incomplete character."""
VOCABULARY_SPACES = str.maketrans({"Ġ": " ", "▁": " ", "Ċ": "\n"})
"""Whitespace in the notation of vocabularies, which some servers send, to ordinary whitespace."""


@dataclass(frozen=True)
class AlignedToken:
    """A token and the position of its text in the stream, in characters; ``absent`` if its text is not in the stream, such as a hidden tag."""

    choice: Choice
    start: int
    end: int
    absent: bool = False


class _Span(NamedTuple):
    """A part of the stream's text, in characters; ``end`` is exclusive."""

    start: int
    end: int


class Alignment:
    """Aligns tokens with the text of a stream; either may arrive first.

    Each token is searched from the end of the previous one. Tokens that are part of a character have no text of their own: the text between the
    previous and the next match belongs to them. A token that is not found is absent.
    """

    def __init__(self) -> None:
        self._text = ""  # text that is not aligned yet
        self._position = 0  # where that text begins in the stream
        self._queue: deque[Choice] = deque()

    def feed(self, text: str, choices: Sequence[Choice] = ()) -> None:
        """Add new text and its tokens."""
        self._text += text
        self._queue += choices

    def take_aligned(self, *, final: bool = False) -> Iterator[AlignedToken]:
        """Yield the tokens whose position is known, in order; with ``final`` all remaining ones."""
        while self._queue:
            textless = list(takewhile(_has_no_text, self._queue))
            if len(textless) == len(self._queue):
                characters = _decode_bytes(textless)
                size = len(characters) if self._text.startswith(characters) else 0
                if not size and final and any(choice.token.text for choice in textless):
                    size = len(self._text)
                if size or final:
                    yield from self._pop(textless, size)
                return
            next_choice = self._queue[len(textless)]
            max_gap = sum(len(choice.token.text) for choice in textless)  # characters that may belong to the tokens before it
            match = self._find(next_choice.token.text, max_gap, final)
            if match is None and not final and self._may_come(next_choice.token.text, max_gap):
                return
            gap, length = match or (0, 0)
            yield from self._pop(textless, gap)
            if match is None:
                self._queue.popleft()
                yield AlignedToken(next_choice, self._position, self._position, absent=True)
            else:
                yield from self._pop([next_choice], length)

    def _find(self, text: str, max_gap: int, final: bool) -> tuple[int, int] | None:
        """Return the offset (at most ``max_gap``) and the length of a token's text; with ``final`` the text may be cut."""
        for spelling in _spellings(text):
            for gap in range(max_gap + 1):
                candidate = self._text[gap : gap + len(spelling)]
                if candidate and (candidate == spelling or (final and spelling.startswith(candidate))):
                    return gap, len(candidate)
        return None

    def _may_come(self, text: str, max_gap: int) -> bool:
        """Whether the token may still be found in later text."""
        gaps = range(max_gap + 1)
        return any(spelling.startswith(self._text[gap : gap + len(spelling)]) for spelling in _spellings(text) for gap in gaps)

    def _pop(self, choices: Sequence[Choice], size: int) -> Iterator[AlignedToken]:
        """Remove the first tokens together with the next ``size`` characters, which belong to them."""
        for choice in choices:
            self._queue.popleft()
            yield AlignedToken(choice, self._position, self._position + size)
        self._text, self._position = self._text[size:], self._position + size


class ReplyTokens:
    """Yields the tokens of a reply in step with its text.

    Positions refer to the stream: all text from the server, thoughts and tags included, in order.
    """

    def __init__(self) -> None:
        self._alignment = Alignment()
        self._aligned: deque[AlignedToken] = deque()
        self._reply_spans: list[_Span] = []
        self._trailing: list[AlignedToken] = []  # tokens without text, after the last one with text

    def feed(self, text: str, choices: Sequence[Choice]) -> None:
        """Add text of the stream and its tokens."""
        self._alignment.feed(text, choices)

    def mark_as_reply(self, start: int, end: int) -> None:
        """Mark the text between two positions as part of the reply."""
        if self._reply_spans and self._reply_spans[-1].end == start:
            start = self._reply_spans.pop().start
        self._reply_spans.append(_Span(start, end))

    def discard(self) -> None:
        """Exclude all earlier text from the reply."""
        self._reply_spans.clear()
        self._trailing.clear()

    def take_until(self, end: int) -> tuple[Choice, ...]:
        """Return the tokens of the reply that end at or before a position and were not returned before."""
        return tuple(self._take(end, self._reply_spans, final=False))

    def take_rest(self, end: int, *, ended: bool) -> tuple[Choice, ...]:
        """Return the last tokens of the reply.

        Args:
            end: Position of the end of the reply; a token that extends beyond it is cut.
            ended: Whether the model, and not the token limit, ended the reply. A single token without text at the end is then the stop token; it
                is included and marked special.
        """
        spans = [_Span(span.start, min(span.end, end)) for span in self._reply_spans if span.start < end]
        choices = list(self._take(end, spans, final=True))
        if ended and len(self._trailing) == 1:
            choice = self._trailing[0].choice
            choices.append(with_token(choice, replace(choice.token, special=True)))
        return tuple(choices)

    def _take(self, end: int, spans: Sequence[_Span], *, final: bool) -> Iterator[Choice]:
        """Yield the next tokens that lie in a span; tokens without text are included if another token of the same span follows."""
        self._aligned += self._alignment.take_aligned(final=final)
        while self._aligned and (final or self._aligned[0].end <= end):
            token = self._aligned.popleft()
            if token.start == token.end:
                if not spans or token.start >= spans[0].start:
                    self._trailing.append(token)
                continue
            span = next((span for span in spans if token.start < span.end and token.end > span.start), None)
            if span is not None:
                yield from (trailing.choice for trailing in self._trailing if not trailing.absent and trailing.start >= span.start)
                yield _cut(token, span)
            self._trailing.clear()


def _cut(aligned: AlignedToken, span: _Span) -> Choice:
    """Cut the text of a token to the part in a span."""
    token = aligned.choice.token
    is_inside = aligned.start >= span.start and aligned.end <= span.end and aligned.end - aligned.start == len(token.text)
    if is_inside or token.data or INCOMPLETE in token.text:
        return aligned.choice
    return with_token(aligned.choice, replace(token, text=token.text[max(0, span.start - aligned.start) : span.end - aligned.start]))


def _spellings(text: str) -> tuple[str, ...]:
    """Return a token's text, and the same with ordinary whitespace if that differs."""
    return tuple(dict.fromkeys((text, text.translate(VOCABULARY_SPACES))))


def _has_no_text(choice: Choice) -> bool:
    """Whether a token has no text to search for: part of a character, or empty."""
    return not choice.token.text or INCOMPLETE in choice.token.text


def _decode_bytes(choices: Sequence[Choice]) -> str:
    """Decode tokens that together make whole characters; empty if they are incomplete or their bytes are unknown."""
    if not all(choice.token.data for choice in choices):
        return ""
    try:
        return bytes(byte for choice in choices for byte in choice.token.data).decode()
    except UnicodeDecodeError:
        return ""


Redact = Callable[[str], str]
"""Removes API keys from a text; ``str`` removes none."""


def logprobs_fields(alternatives: int | None, *, chat: bool) -> dict[str, Any]:
    """Return the fields of a request that enable log-probabilities; empty if ``alternatives`` is None.

    Args:
        alternatives: Number of top alternatives per token, at least 0.
        chat: Whether the request goes to ``/chat/completions``, whose format differs from that of ``/completions``.
    """
    if alternatives is None:
        return {}
    if not chat:
        return {"logprobs": alternatives}
    return {"logprobs": True, **({"top_logprobs": alternatives} if alternatives else {})}


def parse_choices(logprobs: Any, redact: Redact = str) -> tuple[Choice, ...]:
    """Return the tokens of a ``logprobs`` field with their log-probabilities, in order; invalid entries are skipped.

    Format of chats: ``{"content": [{"token", "logprob", "bytes", "top_logprobs"}]}``, with ``refusal`` instead of ``content`` for a refusal. Format
    of ``/completions``: ``{"tokens": […], "token_logprobs": […], "top_logprobs": [{TEXT: LOGPROB}]}``. Any field may be null.

    Args:
        logprobs: The field, as parsed JSON; None and other types have no tokens.
        redact: See ``Redact``.
    """
    if not isinstance(logprobs, Mapping):
        return ()
    content = logprobs.get("content") or logprobs.get("refusal")
    if not isinstance(content, list):
        return tuple(_parse_columns(logprobs, redact))
    choices = [_parse_entry(entry, redact) for entry in content]
    return tuple(choice for choice in choices if choice is not None)


def make_choice(token: Token, logprob: float, alternatives: Iterable[tuple[Token, float]], rank: int | None = None) -> Choice:
    """Return a token with its alternatives, most likely first.

    Args:
        token: The token of the reply.
        logprob: Natural logarithm of its probability; may exceed 0 by rounding.
        alternatives: Alternatives with their log-probabilities.
        rank: Number of more likely tokens; None to count the more likely alternatives, if the server does not report a rank.
    """
    ordered = tuple(sorted(alternatives, key=lambda alternative: -alternative[1]))
    if rank is None:
        rank = sum(value > logprob for _, value in ordered)
    return Choice(token, min(logprob, 0.0), rank, ordered)


def parse_token(text: Any, data: Any = None, redact: Redact = str) -> Token | None:
    """Return a token; None if its text is not a string.

    Args:
        text: Its text.
        data: Its bytes as a list of numbers, if the server provides them; they take precedence, because the text of a part of a character differs
            between servers.
        redact: See ``Redact``.
    """
    if not isinstance(text, str):
        return None
    partial_character: tuple[int, ...] = ()
    if isinstance(data, list) and data and all(isinstance(byte, int) and 0 <= byte < 256 for byte in data):
        try:
            text = bytes(data).decode()
        except UnicodeDecodeError:
            text = bytes(data).decode(errors="replace")
            partial_character = tuple(map(int, data))
    return Token(UNNUMBERED, redact(text), data=partial_character)


def with_token(choice: Choice, token: Token) -> Choice:
    """Return a copy of a choice with another token, also where its own token is among its alternatives."""
    if token == choice.token:
        return choice
    alternatives = tuple((token if other == choice.token else other, value) for other, value in choice.alternatives)
    return replace(choice, token=token, alternatives=alternatives)


def parse_logprob(value: Any) -> float | None:
    """Return a log-probability; None for null, text, NaN and other invalid values."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value) else None


def _parse_entry(entry: Any, redact: Redact) -> Choice | None:
    token_and_logprob = _parse_token_and_logprob(entry, redact)
    if token_and_logprob is None:
        return None
    top = entry.get("top_logprobs")
    alternatives = [_parse_token_and_logprob(alternative, redact) for alternative in top] if isinstance(top, list) else []
    return make_choice(*token_and_logprob, [alternative for alternative in alternatives if alternative is not None])


def _parse_token_and_logprob(entry: Any, redact: Redact) -> tuple[Token, float] | None:
    if not isinstance(entry, Mapping):
        return None
    token, logprob = parse_token(entry.get("token"), entry.get("bytes"), redact), parse_logprob(entry.get("logprob"))
    return None if token is None or logprob is None else (token, logprob)


def _parse_columns(logprobs: Mapping[str, Any], redact: Redact) -> Iterator[Choice]:
    """Yield the tokens of ``/completions``, which come as lists of equal length; skips those without log-probability, such as the first."""
    texts, values, tops = (logprobs.get(name) for name in ("tokens", "token_logprobs", "top_logprobs"))
    if not isinstance(texts, list) or not isinstance(values, list) or len(texts) != len(values):
        return
    if not isinstance(tops, list) or len(tops) != len(texts):
        tops = [None] * len(texts)
    for text, value, top in zip(texts, values, tops, strict=True):
        token, logprob = parse_token(text, redact=redact), parse_logprob(value)
        if token is None or logprob is None:
            continue
        alternatives = []
        for other_text, other_value in top.items() if isinstance(top, Mapping) else ():
            other, other_logprob = parse_token(other_text, redact=redact), parse_logprob(other_value)
            if other is not None and other_logprob is not None:
                alternatives.append((other, other_logprob))
        yield make_choice(token, logprob, alternatives)
