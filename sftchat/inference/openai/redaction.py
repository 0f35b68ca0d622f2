"""Removes API keys from server responses before anything is stored or shown."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

MARK = "***"
"""Replacement for a key."""
MIN_KEY_CHARACTERS = 8
"""Keys with fewer characters are placeholders such as ``EMPTY`` or ``none``, which replies may contain."""


class Redaction:
    """Replaces known keys by ``***``, both literal and percent-encoded.

    Args:
        keys: API keys; those with fewer than ``MIN_KEY_CHARACTERS`` characters are ignored.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        found = {form for key in keys if len(key) >= MIN_KEY_CHARACTERS for form in _forms(key)}
        self.forms = tuple(sorted(found, key=lambda form: (-len(form), form)))
        """The strings to replace, longest first."""
        self.pattern = re.compile("|".join(map(re.escape, self.forms))) if self.forms else None

    def __repr__(self) -> str:
        """Return a representation that does not contain the keys."""
        return f"<Redaction of {len(self.forms)} forms>"

    def text(self, text: str) -> str:
        """Return a text without the keys."""
        return text if self.pattern is None else self.pattern.sub(MARK, text)

    def value(self, value: Any) -> Any:
        """Return a JSON value without the keys in strings and names of members."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self.value(one) for one in value]
        if isinstance(value, dict):
            return {self.text(name): self.value(one) for name, one in value.items()}
        return value


class RedactedStream:
    """Replaces keys in a streamed text; a suffix that may be the beginning of a key is held back.

    Args:
        redaction: The redaction.

    Attributes:
        replaced: Whether a key was replaced.
    """

    def __init__(self, redaction: Redaction) -> None:
        self.replaced = False
        self._redaction = redaction
        self._held = ""

    def feed(self, text: str) -> str:
        """Add a piece; returns the text that can be emitted."""
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
        """Return the text still held back; a partial key of at least ``MIN_KEY_CHARACTERS`` characters is replaced too."""
        held, self._held = self._held, ""
        self.replaced = self.replaced or len(held) >= MIN_KEY_CHARACTERS
        return MARK if len(held) >= MIN_KEY_CHARACTERS else held

    def _begun(self, text: str, done: int) -> int:
        """Return the start of the longest suffix that may be the beginning of a key; the length of the text if there is none."""
        forms = self._redaction.forms
        for place in range(max(done, len(text) - len(forms[0]) + 1), len(text)):
            if any(form.startswith(text[place]) and len(form) > len(text) - place and form.startswith(text[place:]) for form in forms):
                return place
        return len(text)


def _forms(key: str) -> set[str]:
    """Return a key literally and percent-encoded, with and without escaped slashes, in upper and lower case."""
    encoded = {quote(key, safe=safe) for safe in ("", "/")}
    return {key, *encoded, *(re.sub("%..", lambda escape: escape[0].lower(), form) for form in encoded)}
