"""Separates the thoughts at the beginning of a reply from its answer, in a stream or in a complete reply."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sftchat.text import strip_thinking
from sftchat.types import FinishReason, Reply

THOUGHTS_BEGIN, THOUGHTS_END = "<think>", "</think>"
LATE_THOUGHTS_NOTE = f"what was shown before {THOUGHTS_END} are thoughts, no part of the reply: their opening tag is not sent"
"""Message when the closing tag shows that the text so far was thoughts."""
THOUGHTS_END_NOTE = "thoughts up to here"
"""Line between thoughts that were shown as text and the answer."""


def opens_thoughts(prompt: str) -> bool:
    """Return whether a rendered prompt ends with ``<think>``, as with models that always think.

    Args:
        prompt: Text of the prompt, or its end.
    """
    return prompt.rstrip().endswith(THOUGHTS_BEGIN)


def with_opening_tag(text: str, finish_reason: FinishReason) -> str:
    """Add the opening tag to a reply whose ``<think>`` is in the prompt.

    Args:
        text: Text as generated. If it ended with a stop token and has no closing tag, it is an answer without thoughts and is returned unchanged.
        finish_reason: Why it ended.
    """
    if finish_reason == "stop" and THOUGHTS_END not in text:
        return text
    return THOUGHTS_BEGIN + ("" if text.startswith("\n") else "\n") + text


@dataclass(frozen=True)
class ReplyPart:
    """A part of a streamed reply.

    Attributes:
        text: Text of the part.
        is_thought: Whether it belongs to the thoughts; otherwise it belongs to the answer.
        text_was_thoughts: Whether all earlier parts were thoughts too, although they were returned as answer: a closing tag without an opening one
            followed them.
    """

    text: str
    is_thought: bool
    text_was_thoughts: bool = False


class ThoughtSplitter:
    """Splits a stream into thoughts and answer. Only thoughts at the beginning of a reply count; a later ``<think>`` is text.

    Args:
        opened: Whether the prompt ended with ``<think>``, so that the stream begins with thoughts.
        allow_missing_opening: Whether text before a closing tag without an opening one counts as thoughts. It was already returned as answer, so
            the next part has ``text_was_thoughts`` set.

    Attributes:
        in_thoughts: Whether the stream is inside the thoughts.
        thought_text: Text of the thoughts so far.
    """

    def __init__(self, opened: bool = False, *, allow_missing_opening: bool = False) -> None:
        self.in_thoughts = opened
        self.thought_text = ""
        self._start_checked = opened
        self._skipping_empty_lines = False
        self._allow_missing_opening = allow_missing_opening and not opened
        self._pending = ""

    @property
    def pending_characters(self) -> int:
        """Number of characters held back because they may begin a tag."""
        return len(self._pending)

    def feed(self, text: str) -> list[ReplyPart]:
        """Process the next text of the stream; text that may begin a tag is held back."""
        return self._split(self._pending + text, final=False)

    def end(self) -> list[ReplyPart]:
        """Finish the stream; return the text held back."""
        return self._split(self._pending, final=True)

    def _split(self, text: str, final: bool) -> list[ReplyPart]:
        """Return the parts of the text; what may begin a tag stays in ``_pending`` unless the text is final."""
        self._pending = ""
        if not self._start_checked:
            stripped = text.lstrip()
            if not final and THOUGHTS_BEGIN.startswith(stripped):  # also true for white space only
                self._pending = text
                return []
            self._start_checked = True
            if stripped.startswith(THOUGHTS_BEGIN):
                self.in_thoughts, self._allow_missing_opening, text = True, False, stripped.removeprefix(THOUGHTS_BEGIN)
        if self.in_thoughts:
            thought, closing_tag, answer = text.partition(THOUGHTS_END)
            if not closing_tag and not final:
                thought, self._pending = _split_off_tag(thought)
            self.thought_text += thought
            parts = [ReplyPart(thought, True)] if thought else []
            if not closing_tag:
                return parts
            self.in_thoughts, self._skipping_empty_lines = False, True
            return [*parts, *self._answer_parts(answer)]
        if self._allow_missing_opening:
            thought, closing_tag, answer = text.partition(THOUGHTS_END)
            if closing_tag:
                self._allow_missing_opening, self._skipping_empty_lines = False, True
                return [ReplyPart(thought, True, text_was_thoughts=True), *self._answer_parts(answer)]
            if not final:
                text, self._pending = _split_off_tag(text)
        return self._answer_parts(text)

    def _answer_parts(self, text: str) -> list[ReplyPart]:
        """Return the answer without the empty lines after the thoughts."""
        if self._skipping_empty_lines:
            text = text.lstrip("\n")
            self._skipping_empty_lines = not text
        return [ReplyPart(text, False)] if text else []


def partial_match_length(text: str, strings: Sequence[str]) -> int:
    """Return the length of the longest suffix of a text that is an incomplete beginning of one of the strings; 0 if there is none."""
    return max((size for string in strings for size in range(1, len(string)) if text.endswith(string[:size])), default=0)


def _split_off_tag(text: str) -> tuple[str, str]:
    """Return the text without the ending that may begin the closing tag, and that ending."""
    end = len(text) - partial_match_length(text, (THOUGHTS_END,))
    return text[:end], text[end:]


def separate_thoughts(reply: Reply) -> Reply:
    """Return a reply with its thoughts moved from ``text`` to ``thoughts``; the text may have both tags or only the closing one."""
    splitter = ThoughtSplitter(allow_missing_opening=True)
    parts = [*splitter.feed(reply.text), *splitter.end()]
    if not any(part.is_thought for part in parts):
        return reply
    thoughts = reply.thoughts + "".join(part.text for part in parts if part.is_thought)
    return replace(reply, text="".join(part.text for part in parts if not part.is_thought), thoughts=thoughts.strip("\n"))


def has_only_thoughts(reply: Reply) -> bool:
    """Return whether a reply has thoughts but no answer, because it was cut while the model thought."""
    if strip_thinking(reply.text).strip():
        return False
    return bool(reply.thoughts.strip() or reply.text.strip())
