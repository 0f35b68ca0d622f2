"""Stop strings in streamed text: what can be emitted before one is complete, and where one ends the reply."""

from __future__ import annotations

from collections.abc import Sequence


def released(text: str, sent: int, stops: Sequence[str], *, final: bool) -> tuple[int, bool]:
    """Return how much of a text can no longer become part of a stop string.

    Args:
        text: The reply so far.
        sent: Number of characters already emitted.
        stops: Strings that end the reply and are not part of it; none is empty.
        final: Whether the text is complete.

    Returns:
        The total number of characters that can be emitted, and whether a stop string follows them.
    """
    found = [at for at in (text.find(stop, max(0, sent - len(stop) + 1)) for stop in stops) if at >= 0]
    if found:
        return max(sent, min(found)), True
    return len(text) - (0 if final else _held(text, stops)), False


def _held(text: str, stops: Sequence[str]) -> int:
    """Length of the longest suffix of the text that may be the beginning of a stop string."""
    return max((size for stop in stops for size in range(1, len(stop)) if text.endswith(stop[:size])), default=0)
