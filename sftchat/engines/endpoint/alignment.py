"""Which of the tokens that a server lists make up the reply: servers list those of thoughts, tags and the end too, before or after their text."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

from sftchat.engines.endpoint.logprobs import renamed
from sftchat.types import Choice

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
