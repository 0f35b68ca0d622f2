"""Keys in what a server says: replaced before anything is stored or shown."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

MARK = "***"
"""What stands in place of a key."""
MIN_KEY_CHARACTERS = 8
"""Characters below which a key is no secret but a word such as ``EMPTY`` or ``none``, which replies may contain."""


class Redaction:
    """Replaces known keys by ``***``: as they are, and percent-encoded as in an address.

    Args:
        keys: Those of fewer than ``MIN_KEY_CHARACTERS`` characters are left alone.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        found = {form for key in keys if len(key) >= MIN_KEY_CHARACTERS for form in _forms(key)}
        self.forms = tuple(sorted(found, key=lambda form: (-len(form), form)))
        """What is replaced, the longest first."""
        self.pattern = re.compile("|".join(map(re.escape, self.forms))) if self.forms else None

    def __repr__(self) -> str:
        """Says nothing of the keys."""
        return f"<Redaction of {len(self.forms)} forms>"

    def text(self, text: str) -> str:
        """A text without the keys."""
        return text if self.pattern is None else self.pattern.sub(MARK, text)

    def value(self, value: Any) -> Any:
        """What JSON said, without the keys in any text of it, names of members included."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self.value(one) for one in value]
        if isinstance(value, dict):
            return {self.text(name): self.value(one) for name, one in value.items()}
        return value


class RedactedStream:
    """Replaces keys in a text that comes in pieces; an end that may be the beginning of a key waits for what follows.

    Args:
        redaction: What is replaced.

    Attributes:
        replaced: Whether a key was found.
    """

    def __init__(self, redaction: Redaction) -> None:
        self.replaced = False
        self._redaction = redaction
        self._held = ""

    def feed(self, text: str) -> str:
        """Take a piece; returns what can be handed out."""
        pattern = self._redaction.pattern
        if pattern is None:
            return text
        text, ready, done = self._held + text, "", 0
        while True:
            match, begun = pattern.search(text, done), self._begun(text, done)
            if match is None or begun <= match.start():
                break
            ready += text[done : match.start()] + MARK
            self.replaced = True
            done = match.end()
        self._held = text[begun:]
        return ready + text[done:begun]

    def end(self) -> str:
        """What still waited; no more comes. So much of a key that it would be one by its length is replaced as a whole one is."""
        held, self._held = self._held, ""
        self.replaced = self.replaced or len(held) >= MIN_KEY_CHARACTERS
        return MARK if len(held) >= MIN_KEY_CHARACTERS else held

    def _begun(self, text: str, done: int) -> int:
        """Where the longest end of the text begins that is the beginning of a key and no whole one; its length when there is none."""
        forms = self._redaction.forms
        for place in range(max(done, len(text) - len(forms[0]) + 1), len(text)):
            if any(form.startswith(text[place]) and len(form) > len(text) - place and form.startswith(text[place:]) for form in forms):
                return place
        return len(text)


def _forms(key: str) -> set[str]:
    """A key as it is and as an address has it, slashes escaped or not, escapes in capitals or not."""
    encoded = {quote(key, safe=safe) for safe in ("", "/")}
    return {key, *encoded, *(re.sub("%..", lambda escape: escape[0].lower(), form) for form in encoded)}
