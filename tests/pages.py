"""Follow a page of the documentation like a reader: write its files, run its commands in order, compare their output.

In such a page,

- a block without a language holds commands; a line may end with a comment: ``exits with N`` gives an exit code other than 0, and
  ``needs …`` means that the line is not run;
- a block ``text`` after commands holds their output, in order, possibly with lines left out; ``…`` stands for any text within a line;
- a block with a ``title`` is a file of that name;
- every other block is ignored.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.distributions import ROOT

PROGRAMS = {"sftchat": "sftchat", "pytest": "pytest", "torchrun": "torch.distributed.run"}
"""Programs that a page may start, with their modules."""

_FENCE = re.compile(r"^```([^\n`]*)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        language: First word after the fence; empty for commands.
        title: Name of the file that it shows, or empty.
        text: Its content.
    """

    language: str
    title: str
    text: str


@dataclass(frozen=True)
class Command:
    """A line of commands.

    Attributes:
        line: The line for bash, without its comment, with continued lines joined.
        comment: Its comment.
    """

    line: str
    comment: str

    @property
    def code(self) -> int:
        """The exit code that the page states."""
        found = re.fullmatch(r"exits with (\d+)", self.comment)
        return int(found[1]) if found else 0

    @property
    def runs_here(self) -> bool:
        """Whether the line is run in tests."""
        return not self.comment.startswith("needs ")

    @property
    def sftchat(self) -> list[str] | None:
        """The words after ``sftchat``, also under a launcher; None for lines without it."""
        words = shlex.split(self.line.split(" | ")[-1])
        words = words[: next((place for place, word in enumerate(words) if word in ("<", ">", "2>", "&&")), len(words))]
        if words[:1] == ["sftchat"]:
            return words[1:]
        found = re.search(r" -m sftchat ", self.line)
        return shlex.split(self.line[found.end() :]) if found else None


def blocks(page: str) -> list[Block]:
    """Return the fenced blocks of a page."""
    found = []
    for info, text in _FENCE.findall(page):
        title = re.search(r'title="([^"]+)"', info)
        found.append(Block(info.split(" ")[0], title[1] if title else "", text))
    return found


def commands(block: Block) -> Iterator[Command]:
    """Yield the commands of a block, in order."""
    for line in block.text.replace("\\\n", " ").splitlines():
        command, *comment = re.split(r"(?:^|\s+)# ", line, maxsplit=1)
        if command.strip():
            yield Command(command.strip(), "".join(comment).strip())


def environment(folder: Path, smaller: Mapping[str, str] | None = None) -> dict[str, str]:
    """Create a virtual environment on top of the tests' own, which installs without a network; returns the environment variables.

    Args:
        folder: Folder of the environment.
        smaller: Additional options of sftchat commands, so that they take seconds: ``{"train": "--rows 16"}``.
    """
    venv.create(folder, with_pip=True, symlinks=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    ours = [str(Path(pytest.__file__).parent.parent), str(ROOT), str(ROOT / "plugins")]
    (folder / "lib" / version / "site-packages" / "ours.pth").write_text("\n".join(ours) + "\n", encoding="utf-8")
    cases = "".join(f'{verb}) set -- "$@" {options};;' for verb, options in (smaller or {}).items())
    for name, module in PROGRAMS.items():
        script = folder / "bin" / name
        first = f'case "$1" in {cases} esac\n' if name == "sftchat" and cases else ""
        script.write_text(f'#!/bin/sh\n{first}exec "{folder}/bin/python" -m {module} "$@"\n', encoding="utf-8")
        script.chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONUNBUFFERED": "1",  # so that both outputs have the order of a terminal
        "PIP_NO_BUILD_ISOLATION": "false",
        "PIP_NO_INDEX": "1",
        "PIP_NO_DEPS": "1",
    }


def follow(page: str, folder: Path, variables: Mapping[str, str]) -> None:
    """Follow a page from its first block to its last.

    Args:
        page: Its Markdown.
        folder: Empty folder for its files and commands.
        variables: The environment of the commands.

    Raises:
        AssertionError: A command has another exit code or another output than the page.
    """
    follow_with(page, folder, lambda command: _run(command, folder, variables))


def follow_with(page: str, folder: Path, run: Callable[[Command], str]) -> None:
    """Follow a page with another way to run a command, which returns what it prints."""
    printed = ""
    for block in blocks(page):
        if block.title:
            path = folder / block.title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
        elif not block.language:
            printed = "".join(run(command) for command in commands(block) if command.runs_here)
        elif block.language == "text":
            missing = _missing(block.text, printed)
            assert missing is None, f"not printed: {missing}\n{printed}"


def _run(command: Command, folder: Path, variables: Mapping[str, str]) -> str:
    """Run one command; returns standard output and standard error."""
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command.line],
        cwd=folder, env=variables, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    assert done.returncode == command.code, f"{command.line}\n{done.stdout}"
    return done.stdout


def _missing(shown: str, printed: str) -> str | None:
    """Return the first shown line that is missing from the output, in order."""
    lines = iter(line.rstrip() for line in printed.splitlines())
    for line in shown.splitlines():
        pattern = re.compile(".*".join(re.escape(piece) for piece in line.rstrip().split("…")))
        if line.strip() not in ("", "…") and not any(pattern.fullmatch(one) for one in lines):
            return line
    return None
