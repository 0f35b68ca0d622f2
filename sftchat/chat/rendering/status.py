"""The status line: what matters most, as far as there is room."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sftchat.chat.rendering.cells import cells
from sftchat.chat.rendering.columns import clip

SEPARATOR = " · "


@dataclass(frozen=True)
class Item:
    """A part of the status line.

    Attributes:
        text: What is shown; empty for nothing.
        rank: How much it matters, 0 most; where there is no room, the highest rank goes first.
        short: What is shown when the text is too long, before the item goes.
    """

    text: str
    rank: int
    short: str = ""


def status_line(items: Sequence[Item], columns: int) -> str:
    """The items in their order on one line of at most ``columns`` cells; of a line that is still too long, the most important item is cut."""
    shown = [item for item in items if item.text]
    while len(shown) > 1 and cells(_joined(shown)) > columns:
        least = max(range(len(shown)), key=lambda at: (shown[at].rank, at))
        item = shown[least]
        if item.short and item.short != item.text:
            shown[least] = Item(item.short, item.rank)
        else:
            del shown[least]
    return clip(_joined(shown), columns)


def _joined(items: Sequence[Item]) -> str:
    """The items as they stand on the line."""
    return SEPARATOR.join(item.text for item in items)
