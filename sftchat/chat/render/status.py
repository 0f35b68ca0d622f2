"""The status line: what matters most, as far as there is room."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sftchat.chat.render.columns import clip
from sftchat.chat.render.width import cells

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
    """The items in their order on one line of at most ``columns`` cells.

    Where they do not fit, the least important are shortened first, then left out; an item alone that is still too long is cut.
    """
    shown = [item for item in items if item.text]
    by_rank = sorted(range(len(shown)), key=lambda at: (-shown[at].rank, -at))
    for at in by_rank:
        if cells(_joined(shown)) > columns and shown[at].short:
            shown[at] = Item(shown[at].short, shown[at].rank)
    while len(shown) > 1 and cells(_joined(shown)) > columns:
        shown.remove(max(reversed(shown), key=lambda item: item.rank))
    return clip(_joined(shown), columns)


def _joined(items: Sequence[Item]) -> str:
    """The items as they stand on the line."""
    return SEPARATOR.join(item.text for item in items)
