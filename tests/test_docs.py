"""Documented means tested: what README and docs show is what there is."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from sftchat.cli import VERBS, program
from sftchat.data.formats import FORMATS
from sftchat.data.problems import KINDS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands(text: str) -> list[str]:
    """Every ``sftchat …`` line of the code blocks, without its comment."""
    blocks = re.findall(r"```\w*\n(.*?)```", text, flags=re.DOTALL)
    lines = [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line.split("| ")[-1] for line in lines if re.match(r"(echo .*\| )?sftchat ", line)]


def test_the_plugin_in_the_readme_is_the_one_that_is_tested() -> None:
    source = (ROOT / "tests" / "example_plugin" / "sftchat_example_plugin.py").read_text(encoding="utf-8")

    assert source.strip() in README


PAGES = [README, *(path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md")))]


@pytest.mark.parametrize("line", sorted({line for page in PAGES for line in commands(page)}))
def test_every_command_shown_is_one_the_program_understands(line: str) -> None:
    verb, *rest = shlex.split(line.replace("…", "x"))[1:]
    command = program.get_command(click.Context(program), verb)
    assert command is not None, f"{verb} is no command"
    while isinstance(command, click.Group) and (rest or not command.invoke_without_command):
        command = command.commands[rest.pop(0)]
    known = {name for parameter in command.params for name in parameter.opts}
    assert [word for word in rest if word.startswith("-") and word != "-" and word.split("=")[0] not in known] == []


def test_every_verb_is_in_the_readme_or_its_table() -> None:
    shown = {line.split()[1] for line in commands(README)}

    assert set(VERBS) - shown <= {"demo", "plugins"}


def test_every_room_of_the_map_exists() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    listed = re.findall(r"^  (\w+(?:\.py|/)) ", text, flags=re.MULTILINE)
    there = {path.name + ("/" if path.is_dir() else "") for path in (ROOT / "sftchat").iterdir()} - {
        "__pycache__/",
        "__main__.py",
        "py.typed",
    }

    assert set(listed) == there


def test_the_page_on_data_lists_every_class_of_problems_with_its_policy() -> None:
    page = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `([\w-]+)` \| .* \| (fail|drop|keep) \|$", page, flags=re.MULTILINE)

    assert listed == [(name, kind.policy) for name, kind in KINDS.items()]


def test_the_page_on_data_lists_every_format() -> None:
    page = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")

    assert sorted(re.findall(r"^\| `([\w-]+)` \| `\{", page, flags=re.MULTILINE)) == sorted(FORMATS)
