"""Write docs/commands.md from the help texts and docs/values.md from the docstrings.

    python scripts/update_docs.py

Tests check that both are up to date.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any

import click

import sftchat
import sftchat.text
from sftchat.cli import VERBS, program

DOCS = Path(__file__).parent.parent / "docs"
CONTEXT_SETTINGS: dict[str, Any] = {"terminal_width": 100, "max_content_width": 100, "help_option_names": ["-h", "--help"]}
INTRODUCTION = """\
# Commands

The `--help` text of every command, written by `scripts/update-docs`. Results go to standard output, everything else to standard error. The exit codes are
in the [README](../README.md).

To let the shell complete commands, options, tasks, models and files, add one line to its configuration: `eval "$(_SFTCHAT_COMPLETE=bash_source sftchat)"` in `~/.bashrc`,
`eval "$(_SFTCHAT_COMPLETE=zsh_source sftchat)"` in `~/.zshrc`, `_SFTCHAT_COMPLETE=fish_source sftchat | source` in fish's configuration.
"""


def commands() -> Iterator[tuple[str, str]]:
    """Yield the path of every command, such as ``sftchat data check``, and its help."""
    root = click.Context(program, info_name="sftchat", **CONTEXT_SETTINGS)
    yield "sftchat", program.get_help(root)
    for verb in VERBS:
        command = program.get_command(root, verb)
        assert command is not None
        yield from _with_subcommands(root, verb, command)


def _with_subcommands(parent: click.Context, name: str, command: click.Command) -> Iterator[tuple[str, str]]:
    context = click.Context(command, info_name=name, parent=parent, **CONTEXT_SETTINGS)
    yield context.command_path, command.get_help(context)
    if isinstance(command, click.Group):
        for subcommand in command.list_commands(context):
            child = command.get_command(context, subcommand)
            assert child is not None
            yield from _with_subcommands(context, subcommand, child)


VALUES = {
    "A task": ("Task", "Metric", "rate", "ratio", "TrainingDefaults", "DemoConfig", "ForgettingConfig"),
    "Examples, replies and scores": ("Example", "Message", "Reply", "Score", "SamplingParams"),
    "A chat command": ("ChatCommand", "ChatContext"),
    "An engine": ("EngineType", "Engine", "Request", "Chunk"),
}
VALUES_INTRODUCTION = """\
# Classes for plugins

The fields of the classes that plugins import from `sftchat`. `scripts/update-docs` writes this page from the docstrings. [hooks.md](hooks.md) shows how the classes are
used, and the [tutorial](tutorial.md) has a whole task.
"""


def values() -> str:
    """Return the text of docs/values.md."""
    parts = [VALUES_INTRODUCTION]
    for title, names in VALUES.items():
        parts += [f"## {title}\n", *(_section(name, getattr(sftchat, name)) for name in names)]
    functions = [name for name in sftchat.text.__all__ if callable(getattr(sftchat.text, name))]
    constants = ", ".join(f"`{name}`" for name in sftchat.text.__all__ if name not in functions)
    parts += ["## sftchat.text, for scorers\n", "| function | what it does |\n|---|---|"]
    parts += [f"| `{name}` | {_first_sentence(getattr(sftchat.text, name))} |" for name in functions]
    return "\n".join([*parts, f"\nCharacters that models write in place of a colon, a dash or a middle dot: {constants}.\n"])


def _section(name: str, value: Any) -> str:
    """Return the section of a class with its fields and methods, or of a function."""
    docstring = inspect.getdoc(value) or ""
    if not inspect.isclass(value):
        return f"### {name}{_signature(value)}\n\n{_introduction(docstring)}\n"
    meanings = _attribute_meanings(docstring)
    rows = list(_field_rows(value, meanings) if is_dataclass(value) else _member_rows(value, meanings))
    table = "\n| field | type | default | what it is |\n|---|---|---|---|\n" + "\n".join(rows) + "\n" if rows else ""
    return f"### {name}\n\n{_introduction(docstring)}\n{table}"


def _field_rows(dataclass: Any, meanings: dict[str, str]) -> Iterator[str]:
    for field in fields(dataclass):
        default = ""
        if field.default is not MISSING:
            default = f"`{_format_default(field.default)}`"
        elif field.default_factory is not MISSING:
            default = f"`{_format_default(field.default_factory())}`"
        yield f"| `{field.name}` | `{_cell(str(field.type))}` | {default} | {_cell(meanings.get(field.name, ''))} |"


def _member_rows(interface: type, meanings: dict[str, str]) -> Iterator[str]:
    for name, meaning in meanings.items():
        yield f"| `{name}` | | | {_cell(meaning)} |"
    for name, member in vars(interface).items():
        if not name.startswith("_") and (isinstance(member, property) or inspect.isfunction(member)):
            signature = "" if isinstance(member, property) else _signature(member)
            yield f"| `{_cell(name + signature)}` | | | {_first_sentence(member)} |"


def _signature(function: Any) -> str:
    """Return the arguments and the return type of a function, without ``self``."""
    signature = re.sub(r"(: |-> )'([^']*)'", r"\1\2", str(inspect.signature(function)))  # without the quotes of annotations
    return signature.replace("(self, ", "(").replace("(self)", "()")


def _introduction(docstring: str) -> str:
    """Return a docstring up to its first section, as Markdown."""
    return _code(re.split(r"\n(?:Attributes|Args|Raises|Returns):", docstring)[0].strip())


def _attribute_meanings(docstring: str) -> dict[str, str]:
    """Return the descriptions in the section ``Attributes`` by name; further lines of a description are joined."""
    section = re.search(r"\nAttributes:\n((?:    .*\n?|\n)+)", docstring)
    meanings: dict[str, str] = {}
    for line in section[1].splitlines() if section else ():
        first_line = re.match(r"    (\w+): (.*)", line)
        if first_line:
            meanings[first_line[1]] = first_line[2]
        elif line.strip() and meanings:
            meanings[next(reversed(meanings))] += f" {line.strip()}"
    return meanings


def _first_sentence(member: Any) -> str:
    """Return the first sentence of a docstring."""
    return _cell(_introduction(inspect.getdoc(member) or "").split("\n\n")[0].replace("\n", " "))


def _code(text: str) -> str:
    """Convert double backticks to Markdown."""
    return text.replace("``", "`")


def _cell(text: str) -> str:
    """Escape text for a table."""
    return _code(text).replace("|", "\\|").replace("\n", " ")


def _format_default(value: Any) -> str:
    return _cell(getattr(value, "__name__", None) or repr(value))


def page() -> str:
    """Return the text of docs/commands.md."""
    parts = [f"## {path}\n\n```text\n{help.rstrip()}\n```\n" for path, help in commands()]
    return "\n".join([INTRODUCTION, *parts])


if __name__ == "__main__":
    (DOCS / "commands.md").write_text(page(), encoding="utf-8")
    (DOCS / "values.md").write_text(values(), encoding="utf-8")
