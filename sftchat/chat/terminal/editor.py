"""The user's own editor."""

from __future__ import annotations

from sftchat.errors import UsageError


def edit_text(text: str) -> str:
    """Have the user edit a text in ``$VISUAL``, ``$EDITOR`` or whatever editor there is; blocks until it is closed.

    Raises:
        UsageError: When there is no editor, or it failed.
    """
    import click

    try:
        edited = click.edit(text, extension=".md", require_save=False)
    except click.ClickException as error:
        command, _, reason = error.message.partition(": ")
        raise UsageError(f"editor '{command}' failed: {reason.removeprefix('Editing failed: ')}; set VISUAL or EDITOR") from None
    return (edited or "").removesuffix("\n")
