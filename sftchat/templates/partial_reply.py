"""Finds the text that the model has to generate when a template writes the start of a reply differently in the prompt and in the finished turn."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from sftchat.errors import ModelError
from sftchat.templates.special_tokens import unmarked
from sftchat.templates.turn_parts import THOUGHTS, before_cut_tag, ends_with_thought, thought_closing, without_thought, without_whitespace
from sftchat.thinking import THOUGHTS_BEGIN, THOUGHTS_END

MARK = "\u2063reply\u2063"
"""Placeholder for a reply; no template changes or contains it."""
THOUGHT = "\u2063thought\u2063"
"""Placeholder for a thought."""
NEXT = "\u2063next\u2063"
"""Placeholder for another turn."""


@dataclass(frozen=True, kw_only=True)
class PrefixedReply:
    """An assistant turn whose finished text does not start with its prompt.

    Attributes:
        write: Renders turns and tools; the third argument adds the generation prompt. Raises ModelError when the template fails.
        past: The turns before it.
        turn: The assistant turn.
        tools: Functions that the model may call.
        prompt: The rendered ``past`` with the generation prompt.
        thought_end: Text that the template writes after a thought.
        tokens: Added tokens of the tokenizer.
    """

    write: Callable[[Sequence[Any], Sequence[Mapping[str, Any]], bool], str]
    past: Sequence[Mapping[str, Any]]
    turn: Mapping[str, Any]
    tools: Sequence[Mapping[str, Any]]
    prompt: str
    thought_end: str
    tokens: Sequence[str]

    @cached_property
    def opening(self) -> str:
        """The generation prompt, such as the header of the turn; empty if the template writes it in any case."""
        return self.prompt[shared_length(self.prompt, self.write(self.past, self.tools, False)) :] if self.past else self.prompt

    def own_text(self, finished: str) -> str:
        """Return what the model generates after the prompt; empty if it cannot be determined or is not what inference needs.

        Args:
            finished: The rendered text with the turn.
        """
        if not self.past:
            return self._after_opening(0)
        if own := self._after_last_turn(finished):
            return own
        start = len(self.prompt) - len(self.opening or self._constant_opening())
        return self._after_opening(start) if finished.startswith(self.prompt[:start]) else ""

    def _after_last_turn(self, finished: str) -> str:
        """Return the text after the last past turn and the reply's header; empty if their end cannot be located."""
        last = self.past[-1]
        # the end of an empty turn, such as a tool result, cannot be located, so a placeholder is used
        if not str(last.get("content") or "").strip():
            past = [*self.past[:-1], {**last, "content": NEXT}]
            try:
                other = replace(self, past=past, prompt=self.write(past, self.tools, True))
                text = other._finished(self.turn)
            except ModelError:
                return ""
            own = text.removeprefix(other.prompt) if text.startswith(other.prompt) else other._after_last_turn(text)
            return own if finished.endswith(own) else ""
        lead = self._lead(self.turn)
        before = lead if lead and finished.startswith(lead) else finished  # avoids a match within a reply that repeats the question
        start = after_same_ending(self.prompt, before, self.opening, last, self.tokens)
        start = after_same_words(self.prompt, before, self.opening) if start < 0 else start
        return finished[start:] if start >= 0 else ""

    def _after_opening(self, reply_start: int) -> str:
        """Return the reply's text after a prompt that contains more of the turn, or other whitespace, than the finished turn.

        A thought that the prompt opens is completed first, as an empty one if the reply has none.

        Args:
            reply_start: Index in the prompt at which the reply begins.
        """
        thought, bare = without_thought(self.turn)
        lead = self._lead(bare)
        shared = before_cut_tag(self.prompt, shared_length(self.prompt, lead))
        opening, lead = self.prompt[shared:], lead[shared:]
        if shared < reply_start:
            return ""
        if ends_with_thought(self.prompt[reply_start:], self.thought_end):
            repeated = bool(lead.strip()) and opening.rstrip().endswith(lead.strip())
            return "" if thought else self._finished(bare)[shared:].removeprefix(lead if repeated else "")
        around = self._around_thought(bare)
        if around or (end := thought_closing(opening, lead)):
            start, end = around or ("", end)
            rest = thought.removeprefix(opening.strip()).lstrip() if thought else ""
            return (start + rest if rest else "") + end + self._finished(bare)[shared:].removeprefix(lead)
        return "" if lead.strip() else self._finished(self.turn)[shared:].removeprefix(lead)

    def _around_thought(self, bare: Mapping[str, Any]) -> tuple[str, str] | None:
        """Return the text between prompt and thought, and between thought and reply; None if the prompt opens no thought."""
        plain = _without_calls(bare)
        written = {**plain, "content": f"{THOUGHTS_BEGIN}\n{THOUGHT}\n{THOUGHTS_END}\n\n{MARK}"}
        for turn in (*({**plain, key: THOUGHT} for key in THOUGHTS), written, *({**bare, key: THOUGHT} for key in THOUGHTS)):
            try:
                before, thought, after = self._finished(turn).partition(THOUGHT)
            except ModelError:
                continue
            end, complete, _ = after.partition(MARK)
            if not complete:  # a turn that calls a tool
                end, complete, _ = end.partition(self.thought_end)
                end += complete
            if thought and complete and (self.prompt.startswith(before.rstrip()) or before.rstrip() == self.prompt.rstrip()):
                return before.removeprefix(self.prompt) if before.startswith(self.prompt) else "", end
        return None

    def _finished(self, turn: Mapping[str, Any]) -> str:
        return self.write([*self.past, turn], self.tools, False)

    def _lead(self, turn: Mapping[str, Any]) -> str:
        """Return the text before the content of the reply, without tool calls; empty if the content is not rendered."""
        lead, mark, _ = self._finished(_without_calls(turn)).partition(MARK)
        return lead if mark else ""

    def _constant_opening(self) -> str:
        """Return the generation prompt of a template that always writes it: the text after the last turn's content; empty without content."""
        text = self.write([*self.past[:-1], {**self.past[-1], "content": MARK}], self.tools, True)
        return text.rpartition(MARK)[2] if MARK in text else ""


def _without_calls(turn: Mapping[str, Any]) -> dict[str, Any]:
    return {**{key: value for key, value in turn.items() if key != "tool_calls"}, "content": MARK}


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
    ending, content = prompt[len(prompt) - low :], without_whitespace(unmarked(str(last.get("content") or "")))
    holds_turn = low > len(opening) and content and content in without_whitespace(unmarked(ending))
    if not holds_turn or not any(token in ending for token in tokens):
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
    characters = iter(without_whitespace(prompt.removesuffix(opening)))
    following = next(characters, "")
    at = 0
    while following and at < len(finished):
        if finished[at] == following:
            following = next(characters, "")
        elif not finished[at].isspace():
            return -1
        at += 1
    start = finished.find(opening, at)
    if not opening or following or start < 0 or finished[at:start].strip():
        return -1
    return start + len(opening)


def describe_difference(index: int, opening: str, before: str, finished: str) -> str:
    """Describe why a finished turn does not continue its prompt.

    Args:
        index: Index of the turn.
        opening: The generation prompt.
        before: The prompt.
        finished: The rendered text with the reply.
    """
    where = len(before) - len(opening)
    if opening and finished.startswith(before[:where]):
        in_prompt, in_turn = unmarked(opening), unmarked(finished[where:])[: len(unmarked(opening)) + 12]
        difference = f"opens turn {index} with {in_prompt!r} in its prompt and with {in_turn!r} once it is finished"
    else:
        at = shared_length(before, finished)
        excerpt = slice(max(0, at - EXCERPT_CHARACTERS), at + EXCERPT_CHARACTERS)
        in_prompt, in_turn = unmarked(before[excerpt]), unmarked(finished[excerpt])
        difference = f"writes {in_prompt!r} before turn {index} in its prompt and {in_turn!r} once the turn is finished"
    return f"{difference}: what is trained would not begin with what inference sees"
