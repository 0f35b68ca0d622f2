"""A reply whose prompt writes its beginning otherwise than the finished turn does: what the model has to write after that prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

from sftchat.errors import ModelError
from sftchat.templates.continuing import after_same_ending, after_same_words, shared_length
from sftchat.templates.coverage import THOUGHTS
from sftchat.templates.thought_marks import ENDS, OPENS, closing, is_closed, whole_tags, without_thought

MARK = "\u2063reply\u2063"
"""Text that no template changes and none contains."""
THOUGHT = "\u2063thought\u2063"
"""The same in the place of a thought."""
NEXT = "\u2063next\u2063"
"""The same in the place of another turn."""


class Write(Protocol):
    """Runs a chat template on turns and tools; the text ends where the next reply begins when the third is true. Raises ModelError when it refuses them."""

    def __call__(self, turns: Sequence[Any], tools: Sequence[Mapping[str, Any]], add_generation_prompt: bool = ..., /) -> str:
        """The text."""


@dataclass(frozen=True)
class BegunReply:
    """An assistant turn after a prompt with which its finished text does not begin.

    Attributes:
        write: Runs the template.
        past: The turns before it.
        turn: The turn.
        tools: Functions that the model may call.
        prompt: What the template writes for ``past``, up to where the reply begins.
        thought_end: What the template writes after a thought.
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
        """What the prompt adds for the reply, such as the header of its turn; empty where a template adds it unasked."""
        return self.prompt[shared_length(self.prompt, self.write(self.past, self.tools)) :] if self.past else self.prompt

    def own_text(self, finished: str) -> str:
        """What the model writes after the prompt; empty when it cannot be told, or would not be what inference has to write.

        Args:
            finished: The text with the turn.
        """
        if not self.past:
            return self._after_opening(0)
        if own := self._after_last_turn(finished):
            return own
        where = len(self.prompt) - len(self.opening or self._unasked())
        return self._after_opening(where) if finished.startswith(self.prompt[:where]) else ""

    def _after_last_turn(self, finished: str) -> str:
        """What a finished text adds after the last turn of the past and the header of the reply; empty where these are not told from what is before."""
        last = self.past[-1]
        if not str(
            last.get("content") or ""
        ).strip():  # nothing tells where an empty turn ends, such as the result of a tool: some text stands in for it
            past = [*self.past[:-1], {**last, "content": NEXT}]
            try:
                other = replace(self, past=past, prompt=self.write(past, self.tools, True))
                text = other._finished(self.turn)
            except ModelError:
                return ""
            own = text.removeprefix(other.prompt) if text.startswith(other.prompt) else other._after_last_turn(text)
            return own if finished.endswith(own) else ""
        lead = self._lead(self.turn)
        before = lead if lead and finished.startswith(lead) else finished  # so that a reply that repeats the question is not taken for it
        start = after_same_ending(self.prompt, before, self.opening, last, self.tokens)
        start = after_same_words(self.prompt, before, self.opening) if start < 0 else start
        return finished[start:] if start >= 0 else ""

    def _after_opening(self, where: int) -> str:
        """What a reply adds to a prompt that writes more of the turn, or other white space, than the finished turn has.

        An open thought of the prompt is written to its end first, an empty one where the reply has none.

        Args:
            where: Where in the prompt the reply begins.
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
        """What the template writes between the prompt and a thought, and between the thought and the reply; None where the prompt opens no thought."""
        plain = _without_calls(bare)
        written = {**plain, "content": f"{OPENS}\n{THOUGHT}\n{ENDS}\n\n{MARK}"}
        for turn in (*({**plain, key: THOUGHT} for key in THOUGHTS), written, *({**bare, key: THOUGHT} for key in THOUGHTS)):
            try:
                opened, found, after = self._finished(turn).partition(THOUGHT)
            except ModelError:
                continue
            end, complete, _ = after.partition(MARK)
            if not complete:  # of a turn that calls a tool
                end, complete, _ = end.partition(self.thought_end)
                end += complete
            if found and complete and (self.prompt.startswith(opened.rstrip()) or opened.rstrip() == self.prompt.rstrip()):
                return opened.removeprefix(self.prompt) if opened.startswith(self.prompt) else "", end
        return None

    def _finished(self, turn: Mapping[str, Any]) -> str:
        """The text with a turn in the place of this one."""
        return self.write([*self.past, turn], self.tools)

    def _lead(self, turn: Mapping[str, Any]) -> str:
        """All that the template writes before the content of the reply, its calls of tools left out; empty where it does not write it."""
        lead, found, _ = self._finished(_without_calls(turn)).partition(MARK)
        return lead if found else ""

    def _unasked(self) -> str:
        """What a template that begins a reply without being asked to writes after the content of the last turn; empty where that has none."""
        text = self.write([*self.past[:-1], {**self.past[-1], "content": MARK}], self.tools, True)
        return text.rpartition(MARK)[2] if MARK in text else ""


def _without_calls(turn: Mapping[str, Any]) -> dict[str, Any]:
    """A turn that says ``MARK`` and calls no tool."""
    return {**{key: value for key, value in turn.items() if key != "tool_calls"}, "content": MARK}
