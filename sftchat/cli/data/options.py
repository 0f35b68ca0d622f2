"""Options and progress display shared by the commands of ``sftchat data``."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

import click

from sftchat.cli.progress import PLAIN_INTERVAL
from sftchat.cli.shared import stderr

T = TypeVar("T")

quiet_option = click.option("-q", "--quiet", is_flag=True, help="Only results and errors.")
overwrite_option = click.option("--overwrite", is_flag=True, help="Replace the output if it exists.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def output_name(output: str) -> str:
    """Return the name of an output for messages."""
    return "stdout" if output == "-" else output


def track_progress(items: Iterable[T], total: int, *, title: str = "generating", hidden: bool = False) -> Iterator[T]:
    """Yield the items and show progress: a bar on a terminal, otherwise a line every few seconds."""
    console = stderr()
    if hidden:
        yield from items
        return
    if console.is_terminal:
        from sftchat._util.consoles import bars

        with bars(console=console, transient=True) as progress:
            yield from progress.track(items, total=total, description=title)
        return
    last_line = time.monotonic()
    for number, item in enumerate(items, 1):
        yield item
        if time.monotonic() - last_line >= PLAIN_INTERVAL:
            last_line = time.monotonic()
            console.print(f"{title} {number}/{total}", soft_wrap=True)
