"""Write the generated references: commands from their help, and values from their docstrings.

    python scripts/update_docs.py

writes docs/commands.md and docs/values.md; tests check that they are up to date.
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
SHAPE: dict[str, Any] = {"terminal_width": 100, "max_content_width": 100, "help_option_names": ["-h", "--help"]}
INTRODUCTION = """\
# Commands

The `--help` text of every command, written by `scripts/update-docs`. Results go to standard output, everything else to standard error. The exit codes are
in the [README](../README.md).

To let the shell complete commands, options, tasks, models and files, add one line to its configuration: `eval "$(_SFTCHAT_COMPLETE=bash_source sftchat)"` in `~/.bashrc`,
`eval "$(_SFTCHAT_COMPLETE=zsh_source sftchat)"` in `~/.zshrc`, `_SFTCHAT_COMPLETE=fish_source sftchat | source` in fish's configuration.
"""


def commands() -> Iterator[tuple[str, str]]:
    """Yield every command with its help."""
    root = click.Context(program, info_name="sftchat", **SHAPE)
    yield "sftchat", program.get_help(root)
    for verb in VERBS:
        command = program.get_command(root, verb)
        assert command is not None
        yield from _with_children(root, verb, command)


def _with_children(parent: click.Context, name: str, command: click.Command) -> Iterator[tuple[str, str]]:
    """Yield a command and its subcommands."""
    context = click.Context(command, info_name=name, parent=parent, **SHAPE)
    yield context.command_path, command.get_help(context)
    if isinstance(command, click.Group):
        for below in command.list_commands(context):
            child = command.get_command(context, below)
            assert child is not None
            yield from _with_children(context, below, child)


VALUES = {
    "A task": ("Task", "Metric", "rate", "ratio", "TrainingDefaults", "DemoConfig"),
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
        parts += [f"## {title}\n", *(_value(name, getattr(sftchat, name)) for name in names)]
    told = "\n".join(
        f"| `{name}` | {_said(getattr(sftchat.text, name))} |" for name in sftchat.text.__all__ if callable(getattr(sftchat.text, name))
    )
    words = ", ".join(f"`{name}`" for name in sftchat.text.__all__ if not callable(getattr(sftchat.text, name)))
    return "\n".join(
        [
            *parts,
            f"## sftchat.text, for scorers\n\n| function | what it does |\n|---|---|\n{told}\n\nCharacters that models write for others: {words}.\n",
        ]
    )


def _value(name: str, value: Any) -> str:
    """Yield the section of a class with its fields and methods, or of a function."""
    if not inspect.isclass(value):
        return f"### {name}{_signature(value)}\n\n{_prose(inspect.getdoc(value) or '')}\n"
    documented = inspect.getdoc(value) or ""
    head = f"### {name}\n\n{_prose(documented)}\n"
    meanings = _attributes(documented)
    rows = []
    for field in fields(value) if is_dataclass(value) else ():
        default = "" if field.default is MISSING else f"`{_shown(field.default)}`"
        if field.default is MISSING and field.default_factory is not MISSING:
            default = f"`{_shown(field.default_factory())}`"
        rows.append(f"| `{field.name}` | `{_cell(str(field.type))}` | {default} | {_cell(meanings.get(field.name, ''))} |")
    if not is_dataclass(value):
        rows += [f"| `{key}` | | | {_cell(meaning)} |" for key, meaning in meanings.items()]
        for key, member in vars(value).items():
            if not key.startswith("_") and (isinstance(member, property) or inspect.isfunction(member)):
                written = "" if isinstance(member, property) else _signature(member)
                rows.append(f"| `{_cell(key + written)}` | | | {_said(member)} |")
    table = "\n| field | type | default | what it is |\n|---|---|---|---|\n" + "\n".join(rows) + "\n" if rows else ""
    return head + table


def _signature(function: Any) -> str:
    """Return the arguments of a function without those that Python adds."""
    written = re.sub(r"(: |-> )'([^']*)'", r"\1\2", str(inspect.signature(function)))  # annotations are strings
    return written.replace("(self, ", "(").replace("(self)", "()")


def _prose(documented: str) -> str:
    """Return a docstring up to its first section."""
    return _code(re.split(r"\n(?:Attributes|Args|Raises|Returns):", documented)[0].strip())


def _attributes(documented: str) -> dict[str, str]:
    """Return the descriptions in the section of attributes."""
    section = re.search(r"\nAttributes:\n((?:    .*\n?|\n)+)", documented)
    found: dict[str, str] = {}
    for line in section[1].splitlines() if section else ():
        begins = re.match(r"    (\w+): (.*)", line)
        if begins:
            found[begins[1]] = begins[2]
        elif line.strip() and found:
            found[next(reversed(found))] += f" {line.strip()}"
    return found


def _said(member: Any) -> str:
    """Return the first sentence of a docstring."""
    return _cell(_prose(inspect.getdoc(member) or "").split("\n\n")[0].replace("\n", " "))


def _code(text: str) -> str:
    """Convert double backticks to Markdown."""
    return text.replace("``", "`")


def _cell(text: str) -> str:
    """Escape text for a table."""
    return _code(text).replace("|", "\\|").replace("\n", " ")


def _shown(value: Any) -> str:
    """Format a default value; a function by its name."""
    return _cell(getattr(value, "__name__", None) or repr(value))


def page() -> str:
    """Return the text of docs/commands.md."""
    parts = [f"## {path}\n\n```text\n{help.rstrip()}\n```\n" for path, help in commands()]
    return "\n".join([INTRODUCTION, *parts])


if __name__ == "__main__":
    (DOCS / "commands.md").write_text(page(), encoding="utf-8")
    (DOCS / "values.md").write_text(values(), encoding="utf-8")
