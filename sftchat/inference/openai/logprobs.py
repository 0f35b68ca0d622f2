"""Selects the tokens of the reply from a server's list, which may include tokens of thoughts, tags and the end, before or after their text."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from math import isfinite
from typing import Any

from sftchat.types import UNNUMBERED, Choice, Token

BROKEN = "\ufffd"
"""Decoded form of an incomplete character."""
SPACES = str.maketrans({"Ġ": " ", "▁": " ", "Ċ": "\n"})
"""Whitespace in the notation of vocabularies, as some servers send it."""


@dataclass(frozen=True)
class AlignedToken:
    """A token and the position of its text in the stream, in characters; ``absent`` if its text is not in the stream, such as a hidden tag."""

    choice: Choice
    start: int
    end: int
    absent: bool = False


class Alignment:
    """Aligns tokens with the text of a stream; either may arrive first.

    Each token is searched from the end of the previous one. Tokens that are part of a character have no text of their own: the text between the
    previous and the next match belongs to them. A token that is not found is absent.
    """

    def __init__(self) -> None:
        self._text = ""  # text without a token so far
        self._at = 0  # position of its beginning
        self._queue: deque[Choice] = deque()

    def feed(self, text: str, choices: Sequence[Choice] = ()) -> None:
        """Add new text and its tokens."""
        self._text += text
        self._queue += choices

    def aligned(self, *, final: bool = False) -> Iterator[AlignedToken]:
        """Yield the tokens whose position is known, in order; with ``final`` all remaining ones."""
        while self._queue:
            run = list(takewhile(_has_no_text, self._queue))
            following = self._queue[len(run)] if len(run) < len(self._queue) else None
            if following is None:
                whole = _decode_bytes(run)
                size = len(whole) if whole and self._text.startswith(whole) else 0
                if not size and final and any(choice.token.text for choice in run):
                    size = len(self._text)
                if not final and not size:
                    return
                yield from self._pop(run, size)
                continue
            most = sum(len(choice.token.text) for choice in run)
            match = self._find(following.token.text, most, final)
            if match is None and not final and self._may_come(following.token.text, most):
                return
            gap, length = match or (0, 0)
            yield from self._pop(run, gap)
            if match is None:
                self._queue.popleft()
                yield AlignedToken(following, self._at, self._at, absent=True)
            else:
                yield from self._pop([following], length)

    def _find(self, text: str, most: int, final: bool) -> tuple[int, int] | None:
        """Return the offset (at most ``most``) and length of a token's text; with ``final`` the text may be cut."""
        for form in _forms(text):
            for gap in range(most + 1):
                rest = self._text[gap : gap + len(form)]
                if rest and (rest == form or (final and form.startswith(rest))):
                    return gap, len(rest)
        return None

    def _may_come(self, text: str, most: int) -> bool:
        """Whether the token may still be found in later text."""
        return any(form.startswith(self._text[gap : gap + len(form)]) for form in _forms(text) for gap in range(most + 1))

    def _pop(self, choices: Sequence[Choice], size: int) -> Iterator[AlignedToken]:
        """Remove the first tokens together with the next ``size`` characters, which belong to them."""
        for choice in choices:
            self._queue.popleft()
            yield AlignedToken(choice, self._at, self._at + size)
        self._text, self._at = self._text[size:], self._at + size


class ReplyTokens:
    """Yields the tokens of a reply in step with its text.

    Positions refer to the stream: all text from the server, thoughts and tags included, in order.
    """

    def __init__(self) -> None:
        self._alignment = Alignment()
        self._waiting: deque[AlignedToken] = deque()
        self._ranges: list[tuple[int, int]] = []
        self._trailing: list[AlignedToken] = []  # tokens without text, after the last one with text

    def feed(self, text: str, choices: Sequence[Choice]) -> None:
        """Add text of the stream and its tokens."""
        self._alignment.feed(text, choices)

    def add_range(self, start: int, end: int) -> None:
        """Mark the text between two positions as part of the reply."""
        if self._ranges and self._ranges[-1][1] == start:
            start = self._ranges.pop()[0]
        self._ranges.append((start, end))

    def discard(self) -> None:
        """Exclude all earlier text from the reply."""
        self._ranges.clear()
        self._trailing.clear()

    def take_until(self, end: int) -> tuple[Choice, ...]:
        """Return the tokens of the reply up to a position that were not returned before."""
        return tuple(self._take(end, self._ranges, final=False))

    def take_rest(self, end: int, *, ended: bool) -> tuple[Choice, ...]:
        """Return the last tokens of the reply.

        Args:
            end: Position of the end of the reply; a token that extends beyond it is cut.
            ended: Whether the model, and not the token limit, ended the reply. A single token without text at the end is then the stop token; it
                is included and marked special.
        """
        ranges = [(start, min(stop, end)) for start, stop in self._ranges if start < end]
        choices = list(self._take(end, ranges, final=True))
        if ended and len(self._trailing) == 1:
            choice = self._trailing[0].choice
            choices.append(with_token(choice, replace(choice.token, special=True)))
        return tuple(choices)

    def _take(self, end: int, ranges: Sequence[tuple[int, int]], *, final: bool) -> Iterator[Choice]:
        """Yield tokens in the ranges; tokens without text are included if another token of the reply follows."""
        self._waiting += self._alignment.aligned(final=final)
        while self._waiting and (final or self._waiting[0].end <= end):
            token = self._waiting.popleft()
            if token.start == token.end:
                if not ranges or token.start >= ranges[0][0]:
                    self._trailing.append(token)
                continue
            inside = next(((low, high) for low, high in ranges if token.start < high and token.end > low), None)
            if inside is not None:
                yield from (trailing.choice for trailing in self._trailing if not trailing.absent and trailing.start >= inside[0])
                yield _cut(token, *inside)
            self._trailing.clear()


def _cut(aligned: AlignedToken, low: int, high: int) -> Choice:
    """Cut the text of a token to the reply."""
    token = aligned.choice.token
    if (
        token.data
        or BROKEN in token.text
        or (aligned.start >= low and aligned.end <= high and aligned.end - aligned.start == len(token.text))
    ):
        return aligned.choice
    return with_token(aligned.choice, replace(token, text=token.text[max(0, low - aligned.start) : high - aligned.start]))


def _forms(text: str) -> tuple[str, ...]:
    """Return a token's text, and its form with the usual whitespace."""
    return tuple(dict.fromkeys((text, text.translate(SPACES))))


def _has_no_text(choice: Choice) -> bool:
    """Whether a token has no text to search for: part of a character, or empty."""
    return not choice.token.text or BROKEN in choice.token.text


def _decode_bytes(run: Sequence[Choice]) -> str:
    """Decode tokens that together make whole characters; empty if they are incomplete or their bytes are unknown."""
    if not all(choice.token.data for choice in run):
        return ""
    try:
        return bytes(byte for choice in run for byte in choice.token.data).decode()
    except UnicodeDecodeError:
        return ""


Redact = Callable[[str], str]
"""Removes keys from a text."""


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


def choices_of(logprobs: Any, redact: Redact = str) -> tuple[Choice, ...]:
    """Return the tokens of a ``logprobs`` field with their log-probabilities, in order; entries in other formats are skipped.

    Format of chats: ``{"content": [{"token", "logprob", "bytes", "top_logprobs"}]}``, with ``refusal`` instead of ``content`` for a refusal. Format
    of ``/completions``: ``{"tokens": […], "token_logprobs": […], "top_logprobs": [{TEXT: LOGPROB}]}``. Any field may be null.

    Args:
        logprobs: The field, as parsed JSON; None and other types have no tokens.
        redact: Removes keys from a text.
    """
    if not isinstance(logprobs, Mapping):
        return ()
    content = logprobs.get("content") or logprobs.get("refusal")
    choices = [_entry(entry, redact) for entry in content] if isinstance(content, list) else _columns(logprobs, redact)
    return tuple(choice for choice in choices if choice is not None)


def choice_of(token: Token, logprob: float, others: Iterable[tuple[Token, float]], rank: int | None = None) -> Choice:
    """Return a token with its alternatives, most likely first.

    Args:
        token: The token of the reply.
        logprob: Natural logarithm of its probability; may exceed 0 by rounding.
        others: Alternatives with their log-probabilities.
        rank: Number of more likely tokens, if the server reports it.
    """
    alternatives = tuple(sorted(others, key=lambda other: -other[1]))
    likelier = sum(value > logprob for _, value in alternatives)
    return Choice(token, min(logprob, 0.0), likelier if rank is None else rank, alternatives)


def token_of(text: Any, data: Any = None, redact: Redact = str) -> Token | None:
    """Return a token; None if its text is not a string.

    Args:
        text: Its text.
        data: Its bytes as a list of numbers, if the server provides them; they take precedence, because the text of a part of a character differs
            between servers.
        redact: Removes keys from a text.
    """
    if not isinstance(text, str):
        return None
    part: tuple[int, ...] = ()
    if isinstance(data, list) and data and all(isinstance(byte, int) and 0 <= byte < 256 for byte in data):
        try:
            text = bytes(data).decode()
        except UnicodeDecodeError:
            text, part = bytes(data).decode(errors="replace"), tuple(map(int, data))
    return Token(UNNUMBERED, redact(text), data=part)


def with_token(choice: Choice, token: Token) -> Choice:
    """Return a copy with another token, replaced among the alternatives too."""
    if token == choice.token:
        return choice
    return replace(
        choice, token=token, alternatives=tuple((token if other == choice.token else other, value) for other, value in choice.alternatives)
    )


def number(value: Any) -> float | None:
    """Return a log-probability; None for null, text, NaN and other invalid values."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value) else None


def _entry(entry: Any, redact: Redact) -> Choice | None:
    if (pair := _pair(entry, redact)) is None:
        return None
    top = entry.get("top_logprobs")
    others = [_pair(other, redact) for other in top] if isinstance(top, list) else []
    return choice_of(*pair, [other for other in others if other is not None])


def _pair(entry: Any, redact: Redact) -> tuple[Token, float] | None:
    if not isinstance(entry, Mapping):
        return None
    token, logprob = token_of(entry.get("token"), entry.get("bytes"), redact), number(entry.get("logprob"))
    return None if token is None or logprob is None else (token, logprob)


def _columns(logprobs: Mapping[str, Any], redact: Redact) -> list[Choice | None]:
    """Return the tokens of ``/completions``, which come as lists of equal length; None for one without log-probability, such as the first."""
    texts, values, tops = (logprobs.get(name) for name in ("tokens", "token_logprobs", "top_logprobs"))
    if not isinstance(texts, list) or not isinstance(values, list) or len(texts) != len(values):
        return []
    each = tops if isinstance(tops, list) and len(tops) == len(texts) else [None] * len(texts)
    choices: list[Choice | None] = []
    for text, value, top in zip(texts, values, each, strict=True):
        token, logprob = token_of(text, redact=redact), number(value)
        if token is None or logprob is None:
            choices.append(None)
            continue
        listed = top.items() if isinstance(top, Mapping) else ()
        others = [(token_of(other, redact=redact), number(value)) for other, value in listed]
        choices.append(choice_of(token, logprob, [(other, value) for other, value in others if other is not None and value is not None]))
    return choices
