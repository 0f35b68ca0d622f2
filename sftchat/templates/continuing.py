"""Where a reply's own text begins when the text before it differs between the prompt and the finished turn; pure functions over texts."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from sftchat.templates.coverage import squashed
from sftchat.templates.special_tokens import unmarked

EXCERPT_CHARACTERS = 24
"""Characters of each text that an excerpt shows before and after the place where they part."""


def shared_length(first: str, second: str) -> int:
    """The length of the longest beginning that two texts share."""
    return len(os.path.commonprefix([first, second]))  # noqa: RUF071 - of texts, not of paths


def after_same_ending(prompt: str, finished: str, opening: str, last: Mapping[str, Any], tokens: Iterable[str]) -> int:
    """Where a finished conversation goes on after text that ends as its prompt does, although what is further back differs.

    Mistral's templates write the system prompt into the last user turn only while it is the last turn, and gpt-oss drops a thought once the final
    answer is there: the reply follows the same last turn all the same.

    Args:
        prompt: The prompt of the reply.
        finished: The text with the reply.
        opening: What the prompt adds for the reply, such as the header of its turn.
        last: The turn before the reply; the shared ending must hold the whole of its text, and there must be some.
        tokens: Added tokens of the tokenizer; the shared ending must hold one.

    Returns:
        The index in ``finished``; -1 when the texts share no such ending.
    """
    low, high = 0, len(prompt)
    while low < high:  # a longer ending is in the text only if each shorter one is
        middle = (low + high + 1) // 2
        low, high = (middle, high) if prompt[-middle:] in finished else (low, middle - 1)
    ending, said = prompt[len(prompt) - low :], squashed(unmarked(str(last.get("content") or "")))
    whole = low > len(opening) and said and said in squashed(unmarked(ending))
    if not whole or not any(token in ending for token in tokens):
        return -1
    return finished.rfind(ending) + low


def after_same_words(prompt: str, finished: str, opening: str) -> int:
    """Where a finished conversation goes on after its prompt where only white space before the reply's opening differs.

    Hermes 3 writes a new line after the result of a tool only once a turn follows it.

    Args:
        prompt: The prompt of the reply.
        finished: The text with the reply.
        opening: What the prompt adds for the reply; it must be the same in both.

    Returns:
        The index in ``finished``; -1 when more differs than white space.
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
    """Two excerpts, without markers, around the place where a prompt and the text with its reply part."""
    at = shared_length(prompt, finished)
    begin = max(0, at - EXCERPT_CHARACTERS)
    return unmarked(prompt[begin : at + EXCERPT_CHARACTERS]), unmarked(finished[begin : at + EXCERPT_CHARACTERS])


def not_continued(index: int, opening: str, before: str, finished: str) -> str:
    """Why a finished turn is no continuation of its prompt, in words.

    Args:
        index: Of the turn.
        opening: What the prompt adds for the reply.
        before: The prompt.
        finished: The text with the reply.
    """
    asked, written = parting(before, finished)
    where = len(before) - len(opening)
    if opening and finished.startswith(before[:where]):
        asked, written = unmarked(opening), unmarked(finished[where:])[: len(unmarked(opening)) + 12]
        what = f"opens turn {index} with {asked!r} in its prompt and with {written!r} once it is finished"
    else:
        what = f"writes {asked!r} before turn {index} in its prompt and {written!r} once the turn is finished"
    return f"{what}: what is trained would not begin with what inference sees"
