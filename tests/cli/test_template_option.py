"""``--template`` means the same in every command: a name or a file, also with ``~`` in its path; anything else is refused at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from sftchat.cli import program
from sftchat.errors import UsageError
from tests.test_import_layers import HEAVY, run_light

COMMANDS = {"ask", "chat", "compare", "eval", "export", "inspect", "merge", "train", "best-of", "distill", "check", "filter", "show"}


def options(group: click.Group, context: click.Context) -> Iterator[tuple[str, click.Option]]:
    """Every ``--template`` that takes a file, with its command."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from options(command, context)
        for option in command.params if command is not None else ():
            if option.name == "template" and isinstance(option, click.Option) and option.metavar == "NAME|FILE":
                yield name, option


def test_every_command_resolves_a_template_in_the_same_way() -> None:
    context = click.Context(program, **program.context_settings)
    (Path.home() / "mine.jinja").write_text("", encoding="utf-8")
    found = dict(options(program, context))

    assert set(found) >= COMMANDS
    for option in found.values():
        assert option.process_value(context, "~/mine.jinja") == str(Path.home() / "mine.jinja")
        assert option.process_value(context, "chatml") == "chatml"
        with pytest.raises(UsageError, match="unknown chat template '~/yours.jinja' "):
            option.process_value(context, "~/yours.jinja")


def test_every_command_that_takes_a_template_takes_a_name_and_arguments_too() -> None:
    context = click.Context(program, **program.context_settings)

    def commands(group: click.Group) -> Iterator[click.Command]:
        """Every command below a group."""
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            if isinstance(command, click.Group):
                yield from commands(command)
            elif command is not None:
                yield command

    found = [
        {"--template", "--template-name", "--template-argument"} & {word for one in command.params for word in one.opts}
        for command in commands(program)
    ]

    assert {len(names) for names in found if names - {"--template"}} == {3}
    assert sum(len(names) == 3 for names in found) == len(dict(options(program, context)))


def test_an_unknown_template_is_refused_before_any_library_is_loaded() -> None:
    code, line = run_light(["ask", "sftchat:nano", "hi", "--template", "chatmll"], *HEAVY)

    assert (code, line.splitlines()) == (
        2,
        [
            "sftchat: error: unknown chat template 'chatmll'; did you mean 'chatml'? (available: alpaca, chatml, instruction, llama3, plain, prompt), "
            "or the path of a Jinja file"
        ],
    )
