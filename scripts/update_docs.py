"""The command reference, written from the help of every command.

    python scripts/update_docs.py

writes docs/commands.md; a test holds it equal to the program.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from sftchat.cli import VERBS, program

PAGE = Path(__file__).parent.parent / "docs" / "commands.md"
SHAPE: dict[str, Any] = {"terminal_width": 100, "max_content_width": 100, "help_option_names": ["-h", "--help"]}
INTRODUCTION = """\
# Commands

What `--help` says of every command; this page is written by `scripts/update-docs`. Results go to standard output, everything else to standard error. The exit codes are
in the [README](../README.md).

The shell completes commands, options, tasks, models and files once it has been told to: `eval "$(_SFTCHAT_COMPLETE=bash_source sftchat)"` in `~/.bashrc`,
`eval "$(_SFTCHAT_COMPLETE=zsh_source sftchat)"` in `~/.zshrc`, `_SFTCHAT_COMPLETE=fish_source sftchat | source` in fish's configuration.
"""


def commands() -> Iterator[tuple[str, str]]:
    """Every command that can be typed, with its help."""
    root = click.Context(program, info_name="sftchat", **SHAPE)
    yield "sftchat", program.get_help(root)
    for verb in VERBS:
        command = program.get_command(root, verb)
        assert command is not None
        yield from _with_children(root, verb, command)


def _with_children(parent: click.Context, name: str, command: click.Command) -> Iterator[tuple[str, str]]:
    """A command and those below it."""
    context = click.Context(command, info_name=name, parent=parent, **SHAPE)
    yield context.command_path, command.get_help(context)
    if isinstance(command, click.Group):
        for below in command.list_commands(context):
            child = command.get_command(context, below)
            assert child is not None
            yield from _with_children(context, below, child)


def page() -> str:
    """The page as it should be."""
    parts = [f"## {path}\n\n```text\n{help.rstrip()}\n```\n" for path, help in commands()]
    return "\n".join([INTRODUCTION, *parts])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
