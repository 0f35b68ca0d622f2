"""Which of the tokens that a server lists make up the reply: servers list those of thoughts, tags and the end too, before or after their text."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from math import isfinite
from typing import Any

from sftchat.types import UNNUMBERED, Choice, Token

BROKEN = "\ufffd"
"""What a part of a character decodes to."""
SPACES = str.maketrans({"Ġ": " ", "▁": " ", "Ċ": "\n"})
"""How some servers write blanks: as the vocabulary has them."""


@dataclass(frozen=True)
class Placed:
    """A token and where its text stands in the stream, in characters; ``absent`` when it stands nowhere, as a tag that the server keeps to itself."""

    choice: Choice
    start: int
    end: int
    absent: bool = False


class Alignment:
    """Finds where in a stream of text its tokens stand, whichever of the two comes first.

    A token is looked for where the last one ended. Tokens that are a part of a character have no text of their own: what lies between the token
    before and the next one that is found is theirs. A token that is not there is absent.
    """

    def __init__(self) -> None:
        self._text = ""  # what no token has been found for yet
        self._at = 0  # where that begins
        self._queue: deque[Choice] = deque()

    def feed(self, text: str, choices: Sequence[Choice] = ()) -> None:
        """Take new text and the tokens that came with it."""
        self._text += text
        self._queue += choices

    def placed(self, *, final: bool = False) -> Iterator[Placed]:
        """The tokens whose place is known now, in order; all that are left when no more text comes (``final``)."""
        while self._queue:
            run = list(takewhile(_textless, self._queue))
            following = self._queue[len(run)] if len(run) < len(self._queue) else None
            if following is None:
                whole = _together(run)
                size = (
                    len(whole)
                    if whole and self._text.startswith(whole)
                    else len(self._text)
                    if final and any(c.token.text for c in run)
                    else 0
                )
                if not final and not size:
                    return
                yield from self._pop(run, size)
                continue
            most = sum(len(choice.token.text) for choice in run)
            found = self._find(following.token.text, most, final)
            if found is None and not final and self._may_come(following.token.text, most):
                return
            gap, length = found or (0, 0)
            yield from self._pop(run, gap)
            if found is None:
                self._queue.popleft()
                yield Placed(following, self._at, self._at, absent=True)
            else:
                yield from self._pop([following], length)

    def _find(self, text: str, most: int, final: bool) -> tuple[int, int] | None:
        """How far ahead a token stands, no farther than ``most`` characters, and how long it is; the end of the text may cut it."""
        for form in _forms(text):
            for gap in range(most + 1):
                rest = self._text[gap : gap + len(form)]
                if rest and (rest == form or (final and form.startswith(rest))):
                    return gap, len(rest)
        return None

    def _may_come(self, text: str, most: int) -> bool:
        """Whether a token may be found when more text has come."""
        return any(form.startswith(self._text[gap : gap + len(form)]) for form in _forms(text) for gap in range(most + 1))

    def _pop(self, choices: Sequence[Choice], size: int) -> Iterator[Placed]:
        """Take the first tokens, to which the next ``size`` characters belong."""
        for choice in choices:
            self._queue.popleft()
            yield Placed(choice, self._at, self._at + size)
        self._text, self._at = self._text[size:], self._at + size


class ReplyTokens:
    """Gives out the tokens of a reply as its text is handed out.

    Positions are those of the stream: all text that the server sent, thoughts and tags included, in order.
    """

    def __init__(self) -> None:
        self._alignment = Alignment()
        self._waiting: deque[Placed] = deque()
        self._ranges: list[tuple[int, int]] = []
        self._behind: list[Placed] = []  # without a place in the text, behind the last one that has one

    def feed(self, text: str, choices: Sequence[Choice]) -> None:
        """Take text of the stream and the tokens that came with it."""
        self._alignment.feed(text, choices)

    def belongs(self, start: int, end: int) -> None:
        """Text between these positions is the reply's."""
        if self._ranges and self._ranges[-1][1] == start:
            start = self._ranges.pop()[0]
        self._ranges.append((start, end))

    def void(self) -> None:
        """What came before is no part of the reply after all."""
        self._ranges.clear()
        self._behind.clear()

    def until(self, end: int) -> tuple[Choice, ...]:
        """The tokens of the reply that end at this position or before it, without those that were given out."""
        return tuple(self._given(end, self._ranges, final=False))

    def rest(self, end: int, *, ended: bool) -> tuple[Choice, ...]:
        """The last tokens of the reply, which ends at a position.

        Args:
            end: The position; a token that goes beyond it is cut there.
            ended: Whether the model ended the reply: a single token behind its text is then the one that did, and special.
        """
        ranges = [(start, min(stop, end)) for start, stop in self._ranges if start < end]
        found = list(self._given(end, ranges, final=True))
        if ended and len(self._behind) == 1:
            choice = self._behind[0].choice
            found.append(renamed(choice, replace(choice.token, special=True)))
        return tuple(found)

    def _given(self, end: int, ranges: Sequence[tuple[int, int]], *, final: bool) -> Iterator[Choice]:
        """Tokens in these ranges; of those that have no place of their own, the ones that another follows in the reply."""
        self._waiting += self._alignment.placed(final=final)
        while self._waiting and (final or self._waiting[0].end <= end):
            token = self._waiting.popleft()
            if token.start == token.end:
                if not ranges or token.start >= ranges[0][0]:
                    self._behind.append(token)
                continue
            inside = next(((low, high) for low, high in ranges if token.start < high and token.end > low), None)
            if inside is not None:
                yield from (one.choice for one in self._behind if not one.absent and one.start >= inside[0])
                yield _cut(token, *inside)
            self._behind.clear()


def _cut(placed: Placed, low: int, high: int) -> Choice:
    """A token with no text beyond the reply."""
    token = placed.choice.token
    if token.data or BROKEN in token.text or (placed.start >= low and placed.end <= high and placed.end - placed.start == len(token.text)):
        return placed.choice
    return renamed(placed.choice, replace(token, text=token.text[max(0, low - placed.start) : high - placed.start]))


def _forms(text: str) -> tuple[str, ...]:
    """A token's text as it is, and with the blanks that some servers write otherwise."""
    return tuple(dict.fromkeys((text, text.translate(SPACES))))


def _textless(choice: Choice) -> bool:
    """Whether a token has no text that could be looked for: a part of a character, or nothing."""
    return not choice.token.text or BROKEN in choice.token.text


def _together(run: Sequence[Choice]) -> str:
    """The text of parts of a character that are all there; empty when they are not, or their bytes are not known."""
    if not all(choice.token.data for choice in run):
        return ""
    try:
        return bytes(byte for choice in run for byte in choice.token.data).decode()
    except UnicodeDecodeError:
        return ""


Redact = Callable[[str], str]
"""Makes a text without keys."""


def asked_for(alternatives: int | None, *, chat: bool) -> dict[str, Any]:
    """The members of a request that ask for log-probabilities; none when ``alternatives`` is None.

    Args:
        alternatives: How many of the likeliest tokens to name at each place, from 0.
        chat: Whether the request goes to ``/chat/completions``, which takes another form than ``/completions``.
    """
    if alternatives is None:
        return {}
    if not chat:
        return {"logprobs": alternatives}
    return {"logprobs": True, **({"top_logprobs": alternatives} if alternatives else {})}


def choices_of(logprobs: Any, redact: Redact = str) -> tuple[Choice, ...]:
    """The tokens in a ``logprobs`` member with their log-probabilities, in order; what has another form than the two below is left out.

    Chats have ``{"content": [{"token", "logprob", "bytes", "top_logprobs"}]}``, ``refusal`` in place of ``content`` for a refusal.
    ``/completions`` has ``{"tokens": […], "token_logprobs": […], "top_logprobs": [{TEXT: LOGPROB}]}``. Any member may be null.

    Args:
        logprobs: The member, as JSON; None and other values have no tokens.
        redact: Makes a text without keys.
    """
    if not isinstance(logprobs, Mapping):
        return ()
    content = logprobs.get("content") or logprobs.get("refusal")
    found = [_entry(one, redact) for one in content] if isinstance(content, list) else _columns(logprobs, redact)
    return tuple(choice for choice in found if choice is not None)


def choice_of(token: Token, logprob: float, others: Iterable[tuple[Token, float]], rank: int | None = None) -> Choice:
    """A token with its alternatives, the likeliest first.

    Args:
        token: The token that stands there.
        logprob: Natural logarithm of its probability; what rounding makes of a certain one may be above 0.
        others: The alternatives with theirs.
        rank: How many tokens were likelier, where the server says so.
    """
    alternatives = tuple(sorted(others, key=lambda other: -other[1]))
    likelier = sum(value > logprob for _, value in alternatives)
    return Choice(token, min(logprob, 0.0), likelier if rank is None else rank, alternatives)


def token_of(text: Any, data: Any = None, redact: Redact = str) -> Token | None:
    """A token of a server; None when it has no text.

    Args:
        text: Its text.
        data: Its bytes as a list of numbers, where the server gives them: they count, because the text of a part of a character differs
            between servers.
        redact: Makes a text without keys.
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


def renamed(choice: Choice, token: Token) -> Choice:
    """A choice whose token is described otherwise, among the alternatives too."""
    if token == choice.token:
        return choice
    return replace(
        choice, token=token, alternatives=tuple((token if other == choice.token else other, value) for other, value in choice.alternatives)
    )


def number(value: Any) -> float | None:
    """A log-probability; None for anything that is none, such as null, text and NaN."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value) else None


def _entry(entry: Any, redact: Redact) -> Choice | None:
    """A token of a chat."""
    if (found := _pair(entry, redact)) is None:
        return None
    top = entry.get("top_logprobs")
    others = [_pair(other, redact) for other in top] if isinstance(top, list) else []
    return choice_of(*found, [other for other in others if other is not None])


def _pair(entry: Any, redact: Redact) -> tuple[Token, float] | None:
    """A token and its log-probability."""
    if not isinstance(entry, Mapping):
        return None
    token, logprob = token_of(entry.get("token"), entry.get("bytes"), redact), number(entry.get("logprob"))
    return None if token is None or logprob is None else (token, logprob)


def _columns(logprobs: Mapping[str, Any], redact: Redact) -> list[Choice | None]:
    """The tokens of ``/completions``, which come in lists of equal length; None for one without a log-probability, as the first of a text."""
    texts, values, tops = (logprobs.get(name) for name in ("tokens", "token_logprobs", "top_logprobs"))
    if not isinstance(texts, list) or not isinstance(values, list) or len(texts) != len(values):
        return []
    each = tops if isinstance(tops, list) and len(tops) == len(texts) else [None] * len(texts)
    found: list[Choice | None] = []
    for text, value, top in zip(texts, values, each, strict=True):
        token, logprob = token_of(text, redact=redact), number(value)
        if token is None or logprob is None:
            found.append(None)
            continue
        named = [(token_of(other, redact=redact), number(one)) for other, one in top.items()] if isinstance(top, Mapping) else []
        found.append(choice_of(token, logprob, [(other, one) for other, one in named if other is not None and one is not None]))
    return found
