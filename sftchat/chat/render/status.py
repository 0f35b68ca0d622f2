"""Status line: the most important items that fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sftchat.chat.render.columns import clip
from sftchat.chat.render.width import text_width

SEPARATOR = " · "


@dataclass(frozen=True)
class Item:
    """An item of the status line.

    Attributes:
        text: Text to show; empty for none.
        rank: Importance, 0 is highest; when space is short, items of the highest rank number are removed first.
        short: Shorter text to use before the item is removed.
    """

    text: str
    rank: int
    short: str = ""


def status_line(items: Sequence[Item], columns: int) -> str:
    """Return the items in order on one line of at most ``columns`` cells.

    When they do not fit, the least important items are shortened first, then removed; a single item that is still too long is cut.
    """
    shown = [item for item in items if item.text]
    by_rank = sorted(range(len(shown)), key=lambda at: (-shown[at].rank, -at))
    for at in by_rank:
        if text_width(_joined(shown)) > columns and shown[at].short:
            shown[at] = Item(shown[at].short, shown[at].rank)
    while len(shown) > 1 and text_width(_joined(shown)) > columns:
        shown.remove(max(reversed(shown), key=lambda item: item.rank))
    return clip(_joined(shown), columns)


def _joined(items: Sequence[Item]) -> str:
    return SEPARATOR.join(item.text for item in items)
