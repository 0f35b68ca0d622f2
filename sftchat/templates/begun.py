"""Finds the text that the model has to generate when a template writes the start of a reply differently in the prompt and in the finished turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

from sftchat.errors import ModelError
from sftchat.templates.continuing import after_same_ending, after_same_words, shared_length
from sftchat.templates.coverage import THOUGHTS
from sftchat.templates.thought_marks import closing, is_closed, whole_tags, without_thought
from sftchat.thinking import THOUGHTS_BEGIN, THOUGHTS_END

MARK = "\u2063reply\u2063"
"""Placeholder for a reply; no template changes or contains it."""
THOUGHT = "\u2063thought\u2063"
"""Placeholder for a thought."""
NEXT = "\u2063next\u2063"
"""Placeholder for another turn."""


class Write(Protocol):
    """Runs a chat template on turns and tools, optionally with the generation prompt at the end; raises ModelError on failure."""

    def __call__(self, turns: Sequence[Any], tools: Sequence[Mapping[str, Any]], add_generation_prompt: bool = ..., /) -> str:
        """Return the text."""


@dataclass(frozen=True)
class BegunReply:
    """An assistant turn whose finished text does not start with its prompt.

    Attributes:
        write: Runs the template.
        past: The turns before it.
        turn: The assistant turn.
        tools: Functions that the model may call.
        prompt: The rendered ``past`` with the generation prompt.
        thought_end: Text that the template writes after a thought.
        tokens: Added tokens of the tokenizer.
    """

    write: Write
    past: Sequence[Mapping[str, Any]]
    turn: Mapping[str, Any]
    tools: Sequence[Mapping[str, Any]]
    prompt: str
    thought_end: str
    tokens: Sequence[str]

    @cached_property
    def opening(self) -> str:
        """The generation prompt, such as the header of the turn; empty if the template writes it in any case."""
        return self.prompt[shared_length(self.prompt, self.write(self.past, self.tools)) :] if self.past else self.prompt

    def own_text(self, finished: str) -> str:
        """Return what the model generates after the prompt; empty if it cannot be determined or is not what inference needs.

        Args:
            finished: The rendered text with the turn.
        """
        if not self.past:
            return self._after_opening(0)
        if own := self._after_last_turn(finished):
            return own
        where = len(self.prompt) - len(self.opening or self._unasked())
        return self._after_opening(where) if finished.startswith(self.prompt[:where]) else ""

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

    def _after_opening(self, where: int) -> str:
        """Return the reply's text after a prompt that contains more of the turn, or other whitespace, than the finished turn.

        A thought that the prompt opens is completed first, as an empty one if the reply has none.

        Args:
            where: Index in the prompt at which the reply begins.
        """
        thought, bare = without_thought(self.turn)
        lead = self._lead(bare)
        at = whole_tags(self.prompt, shared_length(self.prompt, lead))
        opening, lead = self.prompt[at:], lead[at:]
        if at < where:
            return ""
        if is_closed(self.prompt[where:], self.thought_end):
            repeated = bool(lead.strip()) and opening.rstrip().endswith(lead.strip())
            return "" if thought else self._finished(bare)[at:].removeprefix(lead if repeated else "")
        begun = self._begun_thought(bare)
        if begun or (end := closing(opening, lead)):
            start, end = begun or ("", end)
            said = thought.removeprefix(opening.strip()).lstrip() if thought else ""
            return (start + said if said else "") + end + self._finished(bare)[at:].removeprefix(lead)
        return "" if lead.strip() else self._finished(self.turn)[at:].removeprefix(lead)

    def _begun_thought(self, bare: Mapping[str, Any]) -> tuple[str, str] | None:
        """Return the text between prompt and thought, and between thought and reply; None if the prompt opens no thought."""
        plain = _without_calls(bare)
        written = {**plain, "content": f"{THOUGHTS_BEGIN}\n{THOUGHT}\n{THOUGHTS_END}\n\n{MARK}"}
        for turn in (*({**plain, key: THOUGHT} for key in THOUGHTS), written, *({**bare, key: THOUGHT} for key in THOUGHTS)):
            try:
                opened, found, after = self._finished(turn).partition(THOUGHT)
            except ModelError:
                continue
            end, complete, _ = after.partition(MARK)
            if not complete:  # a turn that calls a tool
                end, complete, _ = end.partition(self.thought_end)
                end += complete
            if found and complete and (self.prompt.startswith(opened.rstrip()) or opened.rstrip() == self.prompt.rstrip()):
                return opened.removeprefix(self.prompt) if opened.startswith(self.prompt) else "", end
        return None

    def _finished(self, turn: Mapping[str, Any]) -> str:
        return self.write([*self.past, turn], self.tools)

    def _lead(self, turn: Mapping[str, Any]) -> str:
        """Return the text before the content of the reply, without tool calls; empty if the content is not rendered."""
        lead, found, _ = self._finished(_without_calls(turn)).partition(MARK)
        return lead if found else ""

    def _unasked(self) -> str:
        """Return the generation prompt of a template that always writes it: the text after the last turn's content; empty without content."""
        text = self.write([*self.past[:-1], {**self.past[-1], "content": MARK}], self.tools, True)
        return text.rpartition(MARK)[2] if MARK in text else ""


def _without_calls(turn: Mapping[str, Any]) -> dict[str, Any]:
    """Return a turn with ``MARK`` as content and without tool calls."""
    return {**{key: value for key, value in turn.items() if key != "tool_calls"}, "content": MARK}
