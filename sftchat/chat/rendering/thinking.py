"""Thoughts at the beginning of a reply, told from the reply itself as both stream in."""

from __future__ import annotations

from dataclasses import dataclass

_OPEN, _CLOSE = "<think>", "</think>"


@dataclass(frozen=True)
class Part:
    """A piece of a stream.

    Attributes:
        text: What came.
        thought: It belongs to the thoughts.
    """

    text: str
    thought: bool


class Thoughts:
    """Splits a stream into thoughts and reply. Only what a reply begins with is a thought: ``<think>`` further on is text.

    Args:
        begun: The prompt ended within ``<think>``, as some templates do, so that the stream begins with thoughts.

    Attributes:
        thinking: The thoughts go on.
        thought: Them, so far.
    """

    def __init__(self, begun: bool = False) -> None:
        self.thinking = begun
        self.thought = ""
        self._settled = begun
        self._trimming = False
        self._held = ""

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
            if not final and _OPEN.startswith(start):  # also while there is nothing but blanks
                self._held = text
                return []
            self._settled = True
            if not start.startswith(_OPEN):
                return [Part(text, False)] if text else []
            self.thinking, text = True, start.removeprefix(_OPEN)
        if self.thinking:
            thought, close, rest = text.partition(_CLOSE)
            if not close and not final:
                kept = max((size for size in range(1, len(_CLOSE)) if thought.endswith(_CLOSE[:size])), default=0)
                thought, self._held = thought[: len(thought) - kept], thought[len(thought) - kept :]
            self.thought += thought
            parts = [Part(thought, True)] if thought else []
            if not close:
                return parts
            self.thinking, self._trimming = False, True
            return [*parts, *self._reply(rest)]
        return self._reply(text)

    def _reply(self, text: str) -> list[Part]:
        """The reply itself, without the empty lines that part it from the thoughts."""
        if self._trimming:
            text = text.lstrip("\n")
            self._trimming = not text
        return [Part(text, False)] if text else []
