"""Thoughts at the beginning of a reply, told from the reply itself as both stream in, or in a whole reply."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sftchat.text import strip_thinking
from sftchat.types import FinishReason, Reply

THOUGHTS_BEGIN, THOUGHTS_END = "<think>", "</think>"
LATE = f"what was shown before {THOUGHTS_END} are thoughts, no part of the reply: their opening tag is not sent"
"""Said when text that was shown turns out to be thoughts."""
UP_TO_HERE = "thoughts up to here"
"""Stands below such text, before the answer."""


def opens_thoughts(prompt: str) -> bool:
    """Whether a templated prompt ends within ``<think>``, as those of models that always think do.

    Args:
        prompt: Its text, or the end of it.
    """
    return prompt.rstrip().endswith(THOUGHTS_BEGIN)


def with_opening_tag(text: str, finish_reason: FinishReason) -> str:
    """The text of a reply whose thoughts the template opened, with the tag that it lacks, so that every reader tells thoughts from the answer.

    Args:
        text: As generated. A finished reply that never closes its thoughts is all answer, and stays as it is.
        finish_reason: Why it ended.
    """
    if finish_reason == "stop" and THOUGHTS_END not in text:
        return text
    return THOUGHTS_BEGIN + ("" if text.startswith("\n") else "\n") + text


@dataclass(frozen=True)
class Part:
    """A piece of a stream.

    Attributes:
        text: What came.
        thought: It belongs to the thoughts.
        before: All parts before were thoughts too, though they were given as text: their end tag came without an opening one.
    """

    text: str
    thought: bool
    before: bool = False


class Thoughts:
    """Splits a stream into thoughts and reply. Only what a reply begins with is a thought: ``<think>`` further on is text.

    Args:
        begun: The prompt ended within ``<think>``, as some templates do, so that the stream begins with thoughts.
        bare: Take what stands before an end tag without an opening one for thoughts; they were given as text by then (``Part.before``).

    Attributes:
        thinking: The thoughts go on.
        thought: Them, so far.
    """

    def __init__(self, begun: bool = False, *, bare: bool = False) -> None:
        self.thinking = begun
        self.thought = ""
        self._settled = begun
        self._trimming = False
        self._bare = bare and not begun
        self._held = ""

    @property
    def held(self) -> int:
        """Characters that wait, because they may be the beginning of a tag."""
        return len(self._held)

    def feed(self, text: str) -> list[Part]:
        """Take a piece; what may be a part of a tag is held back."""
        return self._split(self._held + text, final=False)

    def end(self) -> list[Part]:
        """The stream is over; what was held."""
        return self._split(self._held, final=True)

    def _split(self, text: str, final: bool) -> list[Part]:
        """Tell the parts of a text that is not settled yet."""
        self._held = ""
        if not self._settled:
            start = text.lstrip()
            if not final and THOUGHTS_BEGIN.startswith(start):  # also while there is nothing but blanks
                self._held = text
                return []
            self._settled = True
            if start.startswith(THOUGHTS_BEGIN):
                self.thinking, self._bare, text = True, False, start.removeprefix(THOUGHTS_BEGIN)
        if self.thinking:
            thought, close, rest = text.partition(THOUGHTS_END)
            if not close and not final:
                thought, self._held = _without_begun_tag(thought)
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
                text, self._held = _without_begun_tag(text)
        return self._reply(text)

    def _reply(self, text: str) -> list[Part]:
        """The reply itself, without the empty lines that part it from the thoughts."""
        if self._trimming:
            text = text.lstrip("\n")
            self._trimming = not text
        return [Part(text, False)] if text else []


def _without_begun_tag(text: str) -> tuple[str, str]:
    """Cut off an end that may be the beginning of the end tag."""
    kept = max((size for size in range(1, len(THOUGHTS_END)) if text.endswith(THOUGHTS_END[:size])), default=0)
    return text[: len(text) - kept], text[len(text) - kept :]


def apart(reply: Reply) -> Reply:
    """A reply whose thoughts are in ``thoughts`` and no more in its text.

    Args:
        reply: As an engine gave it, its text with both tags or the closing one alone.
    """
    split = Thoughts(bare=True)
    parts = [*split.feed(reply.text), *split.end()]
    if not any(part.thought for part in parts):
        return reply
    thoughts = reply.thoughts + "".join(part.text for part in parts if part.thought)
    return replace(reply, text="".join(part.text for part in parts if not part.thought), thoughts=thoughts.strip("\n"))


def only_thoughts(reply: Reply) -> bool:
    """Whether a reply has thoughts and no answer: it was cut while the model thought."""
    if strip_thinking(reply.text).strip():
        return False
    return bool(reply.thoughts.strip() or reply.text.strip())
