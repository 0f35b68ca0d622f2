"""Output of a demo, section by section, and the training in it."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.text import Text

from sftchat.cli.session import Session, stderr
from sftchat.errors import SftchatError

if TYPE_CHECKING:
    from rich.console import Console

    from sftchat.evaluation.gate import Verdict
    from sftchat.training.prepare import TrainingJob


class Story:
    """Prints numbered sections, facts and command lines.

    Args:
        session: Has the plugins' trainer callbacks.
        console: Console for the output.
    """

    def __init__(self, session: Session, console: Console) -> None:
        self.session = session
        self.console = console
        self._started = time.monotonic()
        self._sections = 0

    def title(self, text: str) -> None:
        """Print the title of the next section."""
        self._sections += 1
        self.console.print(Text(f"\n{self._sections}. {text}", "bold"))

    def fact(self, fact: str, remark: str) -> None:
        """Print a fact with a dimmed remark."""
        self.console.print(Text.assemble(f"  {fact}  ", (f"({remark})", "dim")), soft_wrap=True)

    def command_line(self, line: str) -> None:
        """Print a command that does what follows."""
        self.console.print(f"  $ {line}", soft_wrap=True)

    def run(self, words: Sequence[str]) -> None:
        """Print a command line and run it.

        Args:
            words: Words after ``sftchat``.

        Raises:
            SftchatError: When the command fails, or ends with another exit code than 0.
        """
        from sftchat.cli import program

        self.command_line(shlex.join(["sftchat", *words]))
        try:
            with program.make_context("sftchat", list(words), obj=self.session) as context:
                code = program.invoke(context)
        except click.exceptions.Exit as exit_request:
            code = exit_request.exit_code
        if code:
            raise SftchatError(f"'sftchat {words[0]}' ended with exit code {code}")

    def train(self, job: TrainingJob) -> None:
        """Train as ``sftchat train`` does, and print the command line of the job, its progress and its duration."""
        from sftchat.training.progress import TrainingProgress
        from sftchat.training.run import train

        self.command_line(job.command)
        with TrainingProgress(stderr(), indent="  ") as progress:
            manifest = train(job, progress.listener(job.model), plugin_callbacks=self.session.registry.trainer_callbacks)
        self.fact(f"{manifest.steps} steps in {manifest.seconds:.0f} s", "saved with its manifest, template and stop tokens")

    def verdict(self, command_line: str, verdict: Verdict) -> None:
        """Print the command line of a gate, its verdict and its exit code."""
        from sftchat.evaluation.gate import COLOURS

        self.command_line(command_line)
        for line in verdict.lines:
            self.console.print(f"  {line}", soft_wrap=True)
        colour = COLOURS[verdict.tone]
        self.console.print(f"  exit code [bold {colour}]{verdict.exit_code}[/bold {colour}]", markup=True)

    def next_commands(self, folder: Path, command_lines: Iterable[str]) -> None:
        """Print the duration of the demo and the commands to try next."""
        minutes, seconds = divmod(round(time.monotonic() - self._started), 60)
        self.console.print(
            Text.assemble(("\ndone", "bold"), f" in {minutes} min {seconds:02} s; everything is in {folder}. Go on with\n"), soft_wrap=True
        )
        for line in command_lines:
            self.console.print(f"  {line}", soft_wrap=True)


def on_one_line(text: str, limit: int = 120) -> str:
    """Return the text on one line, shortened to ``limit`` characters."""
    line = " / ".join(part for part in text.splitlines() if part)
    return line if len(line) <= limit else line[: limit - 1] + "…"
