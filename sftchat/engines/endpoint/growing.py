"""The text of a reply as it grows: whole characters, without keys, no longer than it may be, and ended by its stop strings."""

from __future__ import annotations

from collections.abc import Sequence

from sftchat.engines.endpoint.redaction import RedactedStream, Redaction
from sftchat.engines.stopping import released


class GrowingText:
    """Takes the pieces of a reply and says what of them can be handed out.

    Args:
        redaction: What may not be in it.
        characters: The most that it may have.
        pieces: The most in which it may come.
        stop: Strings that end it and are not part of it, whether or not the server minds them.

    Attributes:
        full: Whether more came than it may have; what came beyond is left out.
        stopped: Whether a stop string has appeared; no more is handed out then.
        released: Characters that were handed out.
        altered: What was handed out has other characters than what came: a key was replaced, or half a character came alone.
    """

    def __init__(self, redaction: Redaction, characters: int, pieces: int, stop: Sequence[str] = ()) -> None:
        self.full = False
        self.stopped = False
        self.released = 0
        self.altered = False
        self._stop = tuple(text for text in stop if text)
        self._waiting = ""
        self._redacted = RedactedStream(redaction)
        self._characters = characters
        self._pieces = pieces
        self._half = ""

    def feed(self, text: str) -> str:
        """Take a piece; returns what can be handed out."""
        if not text:
            return ""
        self.full = self.full or len(text) > self._characters or self._pieces == 0
        text = "" if self._pieces == 0 else text[: self._characters]
        self._pieces -= bool(self._pieces)
        self._characters -= len(text)
        text, self._half = whole_characters(self._half + text)
        self.altered = self.altered or bool(self._half)
        return self._until_stop(self._redacted.feed(text), final=False)

    def end(self) -> str:
        """What still waited for more; none comes."""
        rest = self._redacted.feed("\ufffd" if self._half else "") + self._redacted.end()
        self._half = ""
        return self._until_stop(rest, final=True)

    def _until_stop(self, text: str, *, final: bool) -> str:
        """What comes before a stop string; an end that may be the beginning of one waits."""
        self.altered = self.altered or self._redacted.replaced
        if self.stopped:
            return ""
        if self._stop:
            text = self._waiting + text
            end, self.stopped = released(text, 0, self._stop, final=final)
            text, self._waiting = text[:end], text[end:]
        self.released += len(text)
        return text


def whole_characters(text: str) -> tuple[str, str]:
    """Cut half a surrogate pair off the end of a text: what can be handed out, and what waits for its other half.

    Servers that count in UTF-16 send such halves, each escaped in a JSON string of its own.
    """
    waiting = text[-1:] if "\ud800" <= text[-1:] <= "\udbff" else ""
    ready = text[: len(text) - len(waiting)]
    return ready.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace"), waiting
