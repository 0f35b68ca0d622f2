"""What the verbs of ``sftchat data`` share: options, and the way rows and their places are shown."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

import click

from sftchat.cli.progress import PLAIN_INTERVAL
from sftchat.cli.shared import stderr
from sftchat.data.turns import ROLES
from sftchat.errors import UsageError, unknown

T = TypeVar("T")

quiet_option = click.option("-q", "--quiet", is_flag=True, help="Only results and errors.")
overwrite_option = click.option("--overwrite", is_flag=True, help="Replace the output if it exists.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
role_option = click.option(
    "--role-map", "roles", multiple=True, metavar="NAME=ROLE", help=f"What a role of the file stands for: {', '.join(ROLES)}. Repeatable."
)


def role_map(pairs: tuple[str, ...]) -> dict[str, str]:
    """Read ``--role-map NAME=ROLE``.

    Raises:
        UsageError: For a pair without ``=``, or a role that does not exist.
    """
    roles = {}
    for pair in pairs:
        name, equals, role = pair.rpartition("=")
        if not equals or not name:
            raise UsageError(f"role map '{pair}' must be NAME=ROLE, such as narrator=user")
        if role not in ROLES:
            raise UsageError(unknown("role", role, ROLES))
        roles[name] = role
    return roles


def place(output: str) -> str:
    """The output as a reader would call it."""
    return "stdout" if output == "-" else output


def watched(items: Iterable[T], total: int, *, title: str = "generating", hidden: bool = False) -> Iterator[T]:
    """Show how far it is: a bar on a terminal, a line now and then elsewhere."""
    console = stderr()
    if hidden:
        yield from items
        return
    if console.is_terminal:
        from sftchat.consoles import bars

        with bars(console=console, transient=True) as shown:
            yield from shown.track(items, total=total, description=title)
        return
    said = time.monotonic()
    for number, item in enumerate(items, 1):
        yield item
        if time.monotonic() - said >= PLAIN_INTERVAL:
            said = time.monotonic()
            console.print(f"{title} {number}/{total}", soft_wrap=True)
