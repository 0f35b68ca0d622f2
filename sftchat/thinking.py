"""Separation of the thoughts at the beginning of a reply from its answer, in a stream or in a whole reply."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sftchat.text import strip_thinking
from sftchat.types import FinishReason, Reply

THOUGHTS_BEGIN, THOUGHTS_END = "<think>", "</think>"
LATE = f"what was shown before {THOUGHTS_END} are thoughts, no part of the reply: their opening tag is not sent"
"""Message when text that was already shown turns out to be thoughts."""
UP_TO_HERE = "thoughts up to here"
"""Line below such text, before the answer."""


def opens_thoughts(prompt: str) -> bool:
    """Return whether a rendered prompt ends with ``<think>``, as with models that always think.

    Args:
        prompt: Text of the prompt, or its end.
    """
    return prompt.rstrip().endswith(THOUGHTS_BEGIN)


def with_opening_tag(text: str, finish_reason: FinishReason) -> str:
    """Add the opening tag to a reply whose ``<think>`` is in the prompt, so that thoughts can be told from the answer.

    Args:
        text: Text as generated. A finished reply without a closing tag is all answer and is returned unchanged.
        finish_reason: Why it ended.
    """
    if finish_reason == "stop" and THOUGHTS_END not in text:
        return text
    return THOUGHTS_BEGIN + ("" if text.startswith("\n") else "\n") + text


@dataclass(frozen=True)
class Part:
    """A part of a streamed reply.

    Attributes:
        text: Text of the part.
        thought: Whether it belongs to the thoughts.
        before: Whether all earlier parts were thoughts too, although yielded as text: the closing tag came without an opening one.
    """

    text: str
    thought: bool
    before: bool = False


class Thoughts:
    """Splits a stream into thoughts and answer. Only thoughts at the beginning of a reply count; a later ``<think>`` is text.

    Args:
        opened: Whether the prompt ended with ``<think>``, so that the stream begins with thoughts.
        bare: Whether text before a closing tag without an opening one counts as thoughts; it was already yielded as text (``Part.before``).

    Attributes:
        thinking: Whether the stream is inside the thoughts.
        thought: Text of the thoughts so far.
    """

    def __init__(self, opened: bool = False, *, bare: bool = False) -> None:
        self.thinking = opened
        self.thought = ""
        self._settled = opened
        self._trimming = False
        self._bare = bare and not opened
        self._pending = ""

    @property
    def pending_characters(self) -> int:
        """Number of characters held back because they may begin a tag."""
        return len(self._pending)

    def feed(self, text: str) -> list[Part]:
        """Process the next text of the stream; text that may begin a tag is held back."""
        return self._split(self._pending + text, final=False)

    def end(self) -> list[Part]:
        """Finish the stream; return the text held back."""
        return self._split(self._pending, final=True)

    def _split(self, text: str, final: bool) -> list[Part]:
        """Split text that is not yet assigned to a part."""
        self._pending = ""
        if not self._settled:
            start = text.lstrip()
            if not final and THOUGHTS_BEGIN.startswith(start):  # also true for white space only
                self._pending = text
                return []
            self._settled = True
            if start.startswith(THOUGHTS_BEGIN):
                self.thinking, self._bare, text = True, False, start.removeprefix(THOUGHTS_BEGIN)
        if self.thinking:
            thought, close, rest = text.partition(THOUGHTS_END)
            if not close and not final:
                thought, self._pending = _split_off_tag(thought)
            self.thought += thought
            parts = [Part(thought, True)] if thought else []
            if not close:
                return parts
            self.thinking, self._trimming = False, True
            return [*parts, *self._reply(rest)]
        if self._bare:
            before, close, rest = text.partition(THOUGHTS_END)
            if close:
                self._bare, self._trimming = False, True
                return [Part(before, True, before=True), *self._reply(rest)]
            if not final:
                text, self._pending = _split_off_tag(text)
        return self._reply(text)

    def _reply(self, text: str) -> list[Part]:
        """Return the answer without the empty lines after the thoughts."""
        if self._trimming:
            text = text.lstrip("\n")
            self._trimming = not text
        return [Part(text, False)] if text else []


def begun_suffix(text: str, strings: Sequence[str]) -> int:
    """Return the length of the longest suffix of a text that may be the beginning of one of the strings."""
    return max((size for string in strings for size in range(1, len(string)) if text.endswith(string[:size])), default=0)


def _split_off_tag(text: str) -> tuple[str, str]:
    """Split off an ending that may begin the closing tag."""
    end = len(text) - begun_suffix(text, (THOUGHTS_END,))
    return text[:end], text[end:]


def apart(reply: Reply) -> Reply:
    """Return a reply with its thoughts moved from ``text`` to ``thoughts``.

    Args:
        reply: Reply of an engine; its text has both tags or only the closing one.
    """
    split = Thoughts(bare=True)
    parts = [*split.feed(reply.text), *split.end()]
    if not any(part.thought for part in parts):
        return reply
    thoughts = reply.thoughts + "".join(part.text for part in parts if part.thought)
    return replace(reply, text="".join(part.text for part in parts if not part.thought), thoughts=thoughts.strip("\n"))


def only_thoughts(reply: Reply) -> bool:
    """Return whether a reply has thoughts but no answer, because it was cut while the model thought."""
    if strip_thinking(reply.text).strip():
        return False
    return bool(reply.thoughts.strip() or reply.text.strip())
