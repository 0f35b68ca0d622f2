"""Finds the text that the model generates after a prompt when the template writes the start of the finished turn differently than in the prompt."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from sftchat.errors import ModelError
from sftchat.templates.special_tokens import unmark
from sftchat.templates.turn_parts import (
    THOUGHT_KEYS,
    avoid_cut_tag,
    ends_with_thought,
    extract_thought,
    missing_thought_end,
    without_whitespace,
)
from sftchat.thinking import THOUGHTS_BEGIN, THOUGHTS_END

REPLY_PLACEHOLDER = "\u2063reply\u2063"
"""Placeholder for a reply; no template changes or contains it."""
THOUGHT_PLACEHOLDER = "\u2063thought\u2063"
"""Placeholder for a thought."""
NEXT_PLACEHOLDER = "\u2063next\u2063"
"""Placeholder for another turn."""


@dataclass(frozen=True, kw_only=True)
class PrefixedReply:
    """An assistant turn whose rendered text, together with the turns before it, does not start with its prompt.

    Attributes:
        write: Renders turns and tools; the third argument adds the generation prompt. Raises ModelError when the template fails.
        past: The turns before the assistant turn.
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
        if not self.past:
            return self.prompt
        return self.prompt[shared_length(self.prompt, self.write(self.past, self.tools, False)) :]

    def find_text(self, finished: str) -> str:
        """Return what the model generates after the prompt; empty if it cannot be determined.

        Args:
            finished: The rendered text with the turn.
        """
        if not self.past:
            return self._text_after_opening(0)
        if text := self._text_after_last_turn(finished):
            return text
        start = len(self.prompt) - len(self.opening or self._constant_opening())
        return self._text_after_opening(start) if finished.startswith(self.prompt[:start]) else ""

    def _text_after_last_turn(self, finished: str) -> str:
        """Return the text after the last past turn and the reply's header; empty if their end cannot be located."""
        last = self.past[-1]
        # the end of an empty turn, such as a tool result, cannot be located, so a placeholder is used
        if not str(last.get("content") or "").strip():
            past = [*self.past[:-1], {**last, "content": NEXT_PLACEHOLDER}]
            try:
                with_placeholder = replace(self, past=past, prompt=self.write(past, self.tools, True))
                other_finished = with_placeholder._render_with(self.turn)
            except ModelError:
                return ""
            if other_finished.startswith(with_placeholder.prompt):
                text = other_finished.removeprefix(with_placeholder.prompt)
            else:
                text = with_placeholder._text_after_last_turn(other_finished)
            return text if finished.endswith(text) else ""
        start_of_turn = self._text_before_content(self.turn)
        # searched only up to the content, which may repeat the question
        searched = start_of_turn if start_of_turn and finished.startswith(start_of_turn) else finished
        start = find_end_of_shared_ending(self.prompt, searched, self.opening, last, self.tokens)
        if start < 0:
            start = find_end_of_same_words(self.prompt, searched, self.opening)
        return finished[start:] if start >= 0 else ""

    def _text_after_opening(self, reply_start: int) -> str:
        """Return the reply's text after a prompt that contains more of the turn, or other whitespace, than the finished turn.

        A thought that the prompt opens is completed first, as an empty one if the reply has none.

        Args:
            reply_start: Index in the prompt at which the reply begins.
        """
        thought, answer = extract_thought(self.turn)
        before_content = self._text_before_content(answer)
        shared = avoid_cut_tag(self.prompt, shared_length(self.prompt, before_content))
        # what only the prompt has before the content, and what only the finished turn has
        opening, lead = self.prompt[shared:], before_content[shared:]
        if shared < reply_start:
            return ""
        if ends_with_thought(self.prompt[reply_start:], self.thought_end):
            if thought:
                return ""
            is_repeated = bool(lead.strip()) and opening.rstrip().endswith(lead.strip())
            return self._render_with(answer)[shared:].removeprefix(lead if is_repeated else "")
        around_thought = self._text_around_thought(answer)
        if around_thought is None and (end := missing_thought_end(opening, lead)):
            around_thought = "", end
        if around_thought is not None:
            thought_start, thought_end = around_thought
            rest_of_thought = thought.removeprefix(opening.strip()).lstrip() if thought else ""
            completed_thought = (thought_start + rest_of_thought if rest_of_thought else "") + thought_end
            return completed_thought + self._render_with(answer)[shared:].removeprefix(lead)
        return "" if lead.strip() else self._render_with(self.turn)[shared:].removeprefix(lead)

    def _text_around_thought(self, answer: Mapping[str, Any]) -> tuple[str, str] | None:
        """Return the text between prompt and thought, and between thought and answer; None if the prompt opens no thought."""
        plain = _replace_content(answer)
        in_content = {**plain, "content": f"{THOUGHTS_BEGIN}\n{THOUGHT_PLACEHOLDER}\n{THOUGHTS_END}\n\n{REPLY_PLACEHOLDER}"}
        plain_turns = [{**plain, key: THOUGHT_PLACEHOLDER} for key in THOUGHT_KEYS]
        turns_with_calls = [{**answer, key: THOUGHT_PLACEHOLDER} for key in THOUGHT_KEYS]
        for turn in (*plain_turns, in_content, *turns_with_calls):
            try:
                before, thought, after = self._render_with(turn).partition(THOUGHT_PLACEHOLDER)
            except ModelError:
                continue
            between, separator, _ = after.partition(REPLY_PLACEHOLDER)
            if not separator:  # a turn that calls a tool
                between, separator, _ = after.partition(self.thought_end)
                between += separator
            if thought and separator and (self.prompt.startswith(before.rstrip()) or before.rstrip() == self.prompt.rstrip()):
                return before.removeprefix(self.prompt) if before.startswith(self.prompt) else "", between
        return None

    def _render_with(self, turn: Mapping[str, Any]) -> str:
        return self.write([*self.past, turn], self.tools, False)

    def _text_before_content(self, turn: Mapping[str, Any]) -> str:
        """Return the rendered text before the content of the reply, without tool calls; empty if the content is not rendered."""
        text, separator, _ = self._render_with(_replace_content(turn)).partition(REPLY_PLACEHOLDER)
        return text if separator else ""

    def _constant_opening(self) -> str:
        """Return the generation prompt of a template that always writes it: the text after the last turn's content; empty without content."""
        text = self.write([*self.past[:-1], {**self.past[-1], "content": REPLY_PLACEHOLDER}], self.tools, True)
        return text.rpartition(REPLY_PLACEHOLDER)[2] if REPLY_PLACEHOLDER in text else ""


def _replace_content(turn: Mapping[str, Any]) -> dict[str, Any]:
    """Return a turn with a placeholder as content and without tool calls."""
    return {**{key: value for key, value in turn.items() if key != "tool_calls"}, "content": REPLY_PLACEHOLDER}


EXCERPT_CHARACTERS = 24
"""Number of characters that an excerpt shows before and after the first difference."""


def shared_length(first: str, second: str) -> int:
    """Return the length of the common prefix of two texts."""
    return len(os.path.commonprefix([first, second]))  # noqa: RUF071 - of texts, not of paths


def find_end_of_shared_ending(prompt: str, finished: str, opening: str, last: Mapping[str, Any], tokens: Iterable[str]) -> int:
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
    while low < high:  # binary search: a longer ending can match only if each shorter one does
        middle = (low + high + 1) // 2
        if prompt[-middle:] in finished:
            low = middle
        else:
            high = middle - 1
    ending, content = prompt[len(prompt) - low :], without_whitespace(unmark(str(last.get("content") or "")))
    contains_turn = low > len(opening) and content and content in without_whitespace(unmark(ending))
    if not contains_turn or not any(token in ending for token in tokens):
        return -1
    return finished.rfind(ending) + low


def find_end_of_same_words(prompt: str, finished: str, opening: str) -> int:
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
    expected = next(characters, "")
    index = 0
    while expected and index < len(finished):
        if finished[index] == expected:
            expected = next(characters, "")
        elif not finished[index].isspace():
            return -1
        index += 1
    start = finished.find(opening, index)
    if not opening or expected or start < 0 or finished[index:start].strip():
        return -1
    return start + len(opening)


def describe_difference(index: int, opening: str, prompt: str, finished: str) -> str:
    """Describe why a finished turn does not continue its prompt.

    Args:
        index: Index of the turn.
        opening: The generation prompt.
        prompt: The prompt, which ends with ``opening``.
        finished: The rendered text with the reply.
    """
    opening_start = len(prompt) - len(opening)
    if opening and finished.startswith(prompt[:opening_start]):
        in_prompt, in_turn = unmark(opening), unmark(finished[opening_start:])[: len(unmark(opening)) + 12]
        difference = f"opens turn {index} with {in_prompt!r} in its prompt and with {in_turn!r} once it is finished"
    else:
        position = shared_length(prompt, finished)
        excerpt = slice(max(0, position - EXCERPT_CHARACTERS), position + EXCERPT_CHARACTERS)
        in_prompt, in_turn = unmark(prompt[excerpt]), unmark(finished[excerpt])
        difference = f"writes {in_prompt!r} before turn {index} in its prompt and {in_turn!r} once the turn is finished"
    return f"{difference}: what is trained would not begin with what inference sees"
