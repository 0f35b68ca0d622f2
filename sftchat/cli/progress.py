"""Progress of generation on standard error: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from sftchat.cli.session import stderr

PLAIN_INTERVAL = 10.0
"""Seconds between two lines where there is no terminal."""
T = TypeVar("T")


def with_progress(items: Iterable[T], total: int, *, title: str = "generating", hidden: bool = False) -> Iterator[T]:
    """Yield the items, and show how many of ``total`` have been yielded."""
    console = stderr()
    if hidden:
        yield from items
        return
    if console.is_terminal:
        from sftchat._util.consoles import progress_bars

        with progress_bars(console=console, transient=True) as bar:
            yield from bar.track(items, total=total, description=title)
        return
    shown_at = time.monotonic()
    for number, item in enumerate(items, 1):
        yield item
        if time.monotonic() - shown_at >= PLAIN_INTERVAL:
            shown_at = time.monotonic()
            console.print(f"{title} {number}/{total}", soft_wrap=True)
