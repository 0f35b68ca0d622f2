"""Finds where a reply's own text begins when the text before it differs between the prompt and the finished turn; pure functions on texts."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from sftchat.templates.coverage import squashed
from sftchat.templates.special_tokens import unmarked

EXCERPT_CHARACTERS = 24
"""Number of characters that an excerpt shows before and after the first difference."""


def shared_length(first: str, second: str) -> int:
    """Return the length of the common prefix of two texts."""
    return len(os.path.commonprefix([first, second]))  # noqa: RUF071 - of texts, not of paths


def after_same_ending(prompt: str, finished: str, opening: str, last: Mapping[str, Any], tokens: Iterable[str]) -> int:
    """Return where the reply begins in a finished text that shares only the end of the prompt with it.

    Mistral's templates render the system prompt in the last user turn only while that is the last turn, and gpt-oss drops a thought once the final
    answer is present; the reply follows the same last turn nevertheless.

    Args:
        prompt: The prompt of the reply.
        finished: The rendered text with the reply.
        opening: The generation prompt, such as the header of the turn.
        last: The turn before the reply; the shared ending must contain its whole text, which must not be empty.
        tokens: Added tokens of the tokenizer; the shared ending must contain one.

    Returns:
        The index in ``finished``; -1 if there is no such ending.
    """
    low, high = 0, len(prompt)
    while low < high:  # a longer ending can match only if each shorter one does
        middle = (low + high + 1) // 2
        low, high = (middle, high) if prompt[-middle:] in finished else (low, middle - 1)
    ending, said = prompt[len(prompt) - low :], squashed(unmarked(str(last.get("content") or "")))
    whole = low > len(opening) and said and said in squashed(unmarked(ending))
    if not whole or not any(token in ending for token in tokens):
        return -1
    return finished.rfind(ending) + low


def after_same_words(prompt: str, finished: str, opening: str) -> int:
    """Return where the reply begins in a finished text that differs from the prompt only in whitespace before the generation prompt.

    Hermes 3 writes a newline after a tool result only if a turn follows.

    Args:
        prompt: The prompt of the reply.
        finished: The rendered text with the reply.
        opening: The generation prompt; must be the same in both.

    Returns:
        The index in ``finished``; -1 if there are other differences.
    """
    wanted = iter(squashed(prompt.removesuffix(opening)))
    following = next(wanted, "")
    at = 0
    while following and at < len(finished):
        if finished[at] == following:
            following = next(wanted, "")
        elif not finished[at].isspace():
            return -1
        at += 1
    start = finished.find(opening, at)
    if not opening or following or start < 0 or finished[at:start].strip():
        return -1
    return start + len(opening)


def parting(prompt: str, finished: str) -> tuple[str, str]:
    """Return two excerpts, without markers, around the first difference between a prompt and the text with its reply."""
    at = shared_length(prompt, finished)
    begin = max(0, at - EXCERPT_CHARACTERS)
    return unmarked(prompt[begin : at + EXCERPT_CHARACTERS]), unmarked(finished[begin : at + EXCERPT_CHARACTERS])


def not_continued(index: int, opening: str, before: str, finished: str) -> str:
    """Describe why a finished turn does not continue its prompt.

    Args:
        index: Index of the turn.
        opening: The generation prompt.
        before: The prompt.
        finished: The rendered text with the reply.
    """
    asked, written = parting(before, finished)
    where = len(before) - len(opening)
    if opening and finished.startswith(before[:where]):
        asked, written = unmarked(opening), unmarked(finished[where:])[: len(unmarked(opening)) + 12]
        what = f"opens turn {index} with {asked!r} in its prompt and with {written!r} once it is finished"
    else:
        what = f"writes {asked!r} before turn {index} in its prompt and {written!r} once the turn is finished"
    return f"{what}: what is trained would not begin with what inference sees"
