"""Stop strings in a text that grows: what can be handed out before one is complete, and where one ends the reply."""

from __future__ import annotations

from collections.abc import Sequence


def released(text: str, sent: int, stops: Sequence[str], *, final: bool) -> tuple[int, bool]:
    """How much of a text no stop string can take back any more.

    Args:
        text: The reply so far.
        sent: Characters of it that were handed out.
        stops: Strings that end the reply and are not part of it; none is empty.
        final: Whether the text has come to its end.

    Returns:
        The number of characters that can be handed out in all, and whether a stop string has appeared behind them.
    """
    found = [at for at in (text.find(stop, max(0, sent - len(stop) + 1)) for stop in stops) if at >= 0]
    if found:
        return max(sent, min(found)), True
    return len(text) - (0 if final else _held(text, stops)), False


def _held(text: str, stops: Sequence[str]) -> int:
    """Length of the longest end of the text that may be the beginning of a stop string."""
    return max((size for stop in stops for size in range(1, len(stop)) if text.endswith(stop[:size])), default=0)
