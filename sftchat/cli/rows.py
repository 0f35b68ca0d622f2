"""Options for reading rows, the same on every command that reads rows."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

import click

from sftchat.data.row_options import RowOptions, parse_column_map
from sftchat.data.turns import ROLES
from sftchat.errors import UsageError, unknown

F = TypeVar("F", bound=Callable[..., Any])


def rows_options(command: F) -> F:
    """Add the options for reading rows; the command gets them as one argument ``row_options``, a ``RowOptions``."""

    @wraps(command)
    def reading(*words: Any, roles: tuple[str, ...], columns: tuple[str, ...], **given: Any) -> Any:
        named = {name: given.pop(name) for name in ("label_column", "label_instruction", "merge_turns", "leading_assistant")}
        return command(*words, row_options=RowOptions(role_map(roles), parse_column_map(columns), **named), **given)

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
        help=f"Role of a role name in the file: {', '.join(ROLES)}. Repeatable.",
    ),
    click.option("--merge-turns", is_flag=True, help="Join consecutive turns of one role."),
    click.option(
        "--leading-assistant",
        type=click.Choice(["refuse", "drop"]),
        default="refuse",
        show_default=True,
        help="How to handle assistant turns before the first user turn.",
    ),
)


def role_map(pairs: tuple[str, ...]) -> dict[str, str]:
    """Parse ``--role-map NAME=ROLE``.

    Raises:
        UsageError: When a pair has no ``=``, or a role does not exist.
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
