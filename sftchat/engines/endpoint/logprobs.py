"""Log-probabilities in the protocol: how they are asked for, and the forms in which servers send them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from math import isfinite
from typing import Any

from sftchat.types import UNNUMBERED, Choice, Token

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
