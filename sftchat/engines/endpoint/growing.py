"""The text of a reply as it grows: whole characters, without keys, and no longer than it may be."""

from __future__ import annotations

from sftchat.engines.endpoint.redaction import RedactedStream, Redaction


class GrowingText:
    """Takes the pieces of a reply and says what of them can be handed out.

    Args:
        redaction: What may not be in it.
        characters: The most that it may have.
        pieces: The most in which it may come.

    Attributes:
        full: Whether more came than it may have; what came beyond is left out.
    """

    def __init__(self, redaction: Redaction, characters: int, pieces: int) -> None:
        self.full = False
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
        return self._redacted.feed(text)

    def end(self) -> str:
        """What still waited for more; none comes."""
        rest = self._redacted.feed("\ufffd" if self._half else "") + self._redacted.end()
        self._half = ""
        return rest


def whole_characters(text: str) -> tuple[str, str]:
    """Cut half a surrogate pair off the end of a text: what can be handed out, and what waits for its other half.

    Servers that count in UTF-16 send such halves, each escaped in a JSON string of its own.
    """
    waiting = text[-1:] if "\ud800" <= text[-1:] <= "\udbff" else ""
    ready = text[: len(text) - len(waiting)]
    return ready.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace"), waiting
