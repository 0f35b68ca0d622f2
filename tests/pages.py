"""Follow a page of the documentation like a reader: write its files, run its commands in order, compare their output.

In a page that is followed,

- a block without a language holds commands; a line may end with a comment, and ``exits with N`` and ``needs …`` mean something:
  the exit code where it is not 0, and that the line can only be run where there is what it needs;
- a block ``text`` right after commands holds what they print, in order and with lines left out; ``…`` stands for any text within a line;
- a block with a ``title`` is a file of that name;
- every other block is shown and no more.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import venv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.distributions import ROOT

PROGRAMS = {"sftchat": "sftchat", "pytest": "pytest", "torchrun": "torch.distributed.run"}
"""What a page may start, and the module that it is."""

_FENCE = re.compile(r"^```([^\n`]*)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        language: Its first word; empty for commands.
        title: The file it shows, or empty.
        text: What is in it.
    """

    language: str
    title: str
    text: str


@dataclass(frozen=True)
class Command:
    """A line of commands.

    Attributes:
        line: For bash, without its comment, lines that end in a backslash joined.
        comment: What stands after it.
    """

    line: str
    comment: str

    @property
    def code(self) -> int:
        """The exit code that the page promises."""
        found = re.fullmatch(r"exits with (\d+)", self.comment)
        return int(found[1]) if found else 0

    @property
    def runs_here(self) -> bool:
        """Whether it needs nothing that this machine may lack."""
        return not self.comment.startswith("needs ")

    @property
    def sftchat(self) -> list[str] | None:
        """The words after ``sftchat``, also where a launcher starts it; None where the line does not run it."""
        words = shlex.split(self.line.split(" | ")[-1])
        words = words[: next((place for place, word in enumerate(words) if word in ("<", ">", "2>", "&&")), len(words))]
        if words[:1] == ["sftchat"]:
            return words[1:]
        found = re.search(r" -m sftchat ", self.line)
        return shlex.split(self.line[found.end() :]) if found else None


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page."""
    found = []
    for info, text in _FENCE.findall(page):
        title = re.search(r'title="([^"]+)"', info)
        found.append(Block(info.split(" ")[0], title[1] if title else "", text))
    return found


def commands(block: Block) -> Iterator[Command]:
    """The commands of a block, in order."""
    for line in block.text.replace("\\\n", " ").splitlines():
        command, *comment = re.split(r"(?:^|\s+)# ", line, maxsplit=1)
        if command.strip():
            yield Command(command.strip(), "".join(comment).strip())


def environment(folder: Path, smaller: Mapping[str, str] | None = None) -> dict[str, str]:
    """A virtual environment that finds what the tests run with, and installs on top of it without a network; returns the variables to run in.

    Args:
        folder: Where it is made.
        smaller: Options that commands of sftchat get besides, so that they take seconds: ``{"train": "--rows 16"}``.
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
        "PYTHONUNBUFFERED": "1",  # so that both outputs come in the order in which a terminal shows them
        "PIP_NO_BUILD_ISOLATION": "false",
        "PIP_NO_INDEX": "1",
        "PIP_NO_DEPS": "1",
    }


def follow(page: str, folder: Path, variables: Mapping[str, str]) -> None:
    """Do what a page says, from its first block to its last.

    Args:
        page: Its Markdown.
        folder: An empty one, where its files are written and its commands run.
        variables: The environment of the commands.

    Raises:
        AssertionError: A command exits otherwise, or prints otherwise, than the page says.
    """
    printed = ""
    for block in blocks(page):
        if block.title:
            path = folder / block.title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
        elif not block.language:
            printed = "".join(_run(command, folder, variables) for command in commands(block) if command.runs_here)
        elif block.language == "text":
            missing = _missing(block.text, printed)
            assert missing is None, f"not printed: {missing}\n{printed}"


def _run(command: Command, folder: Path, variables: Mapping[str, str]) -> str:
    """Run one command; returns what it printed, standard error too."""
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command.line],
        cwd=folder, env=variables, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    assert done.returncode == command.code, f"{command.line}\n{done.stdout}"
    return done.stdout


def _missing(shown: str, printed: str) -> str | None:
    """The first line shown that does not follow in what was printed."""
    lines = iter(line.rstrip() for line in printed.splitlines())
    for line in shown.splitlines():
        pattern = re.compile(".*".join(re.escape(piece) for piece in line.rstrip().split("…")))
        if line.strip() not in ("", "…") and not any(pattern.fullmatch(one) for one in lines):
            return line
    return None
