"""What the verbs of ``sftchat data`` share: options, and the way rows and their places are shown."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from typing import Any, TypeVar, cast

import click

from sftchat.cli.progress import PLAIN_INTERVAL
from sftchat.cli.shared import stderr
from sftchat.data.row_options import RowOptions, column_map
from sftchat.data.turns import ROLES
from sftchat.errors import UsageError, unknown

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

quiet_option = click.option("-q", "--quiet", is_flag=True, help="Only results and errors.")
overwrite_option = click.option("--overwrite", is_flag=True, help="Replace the output if it exists.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def rows_options(command: F) -> F:
    """Add the options that say how rows are read; the command gets them as one argument ``rows_read``, a ``RowOptions``."""

    @wraps(command)
    def reading(*words: Any, roles: tuple[str, ...], columns: tuple[str, ...], **given: Any) -> Any:
        """Make one argument of the options."""
        named = {name: given.pop(name) for name in ("label_column", "label_instruction", "merge_turns", "leading_assistant")}
        return command(*words, rows_read=RowOptions(role_map(roles), column_map(columns), **named), **given)

    for option in reversed(_ROWS):
        reading = option(reading)
    return cast(F, reading)


_ROWS = (
    click.option(
        "--map",
        "columns",
        multiple=True,
        metavar="NAME=COLUMN",
        help="Read COLUMN under NAME: prompt, completion, messages, text, instruction, input, output, system, tools, …. Repeatable.",
    ),
    click.option("--label-column", default="", metavar="COLUMN", help="Learn the value of COLUMN as the reply to the row's text."),
    click.option("--label-instruction", default="", metavar="TEXT", help="Instruction before such a text."),
    click.option(
        "--role-map",
        "roles",
        multiple=True,
        metavar="NAME=ROLE",
        help=f"What a role of the file stands for: {', '.join(ROLES)}. Repeatable.",
    ),
    click.option("--merge-turns", is_flag=True, help="Join consecutive turns of one role."),
    click.option(
        "--leading-assistant",
        type=click.Choice(["refuse", "drop"]),
        default="refuse",
        show_default=True,
        help="What is done about assistant turns before the first user turn.",
    ),
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
