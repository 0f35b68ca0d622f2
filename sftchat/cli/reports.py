"""Reports for machines and colleagues: the files that ``sftchat eval`` is asked for, and what GitHub shows of a workflow."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sftchat._util.files import create_folder
from sftchat._util.output import write_workflow_command
from sftchat.errors import UsageError
from sftchat.text import printable

if TYPE_CHECKING:
    from sftchat.evaluation.gate import Verdict
    from sftchat.evaluation.report import Report

F = TypeVar("F", bound=Callable[..., Any])
PAGE = "report.html"
"""The page in an output folder."""


@dataclass(frozen=True)
class ReportFiles:
    """Where reports go; None for those nobody asked for.

    Attributes:
        junit: For CI servers.
        markdown: For a comment on a pull request.
        html: For a browser.
    """

    junit: Path | None = None
    markdown: Path | None = None
    html: Path | None = None

    @contextmanager
    def prepared(self, inputs: Iterable[Path] = ()) -> Iterator[None]:
        """Make the folders while the block runs, and refuse what cannot be written while failing is still cheap.

        Args:
            inputs: Files that are read, and must not be written over.

        Raises:
            UsageError: When a path is a folder, lies in something that is none, is given twice, or is an input.
        """
        read = {path.resolve() for path in inputs}
        given = {f"--{name}": path for name, path in vars(self).items() if path is not None}
        seen: dict[Path, str] = {}
        with ExitStack() as stack:
            for option, path in given.items():
                self._prepare(option, path, read, seen, stack)
            yield

    def _prepare(self, option: str, path: Path, read: set[Path], seen: dict[Path, str], stack: ExitStack) -> None:
        """One of them."""
        if path.is_dir():
            raise UsageError(f"{option} '{path}' is a folder; give a file")
        if path.resolve() in read:
            raise UsageError(f"{option} '{path}' is read by this very command; give another file")
        first = seen.setdefault(path.resolve(), option)
        if first != option:
            raise UsageError(f"{first} and {option} are both '{path}'; give each a file of its own")
        try:
            stack.enter_context(create_folder(path.parent))
        except OSError as error:
            raise UsageError(f"cannot make the folder of {option} '{path}': {error.strerror}") from error
        if not os.access(path if path.exists() else path.parent, os.W_OK):
            raise UsageError(f"{option} '{path}' may not be written; give another file")


def refuse_folder(folder: Path, names: Iterable[str], inputs: Iterable[Path]) -> None:
    """Refuse a folder whose files would be written over what is read.

    Args:
        folder: Of the results.
        names: What is written there.
        inputs: Files that are read.

    Raises:
        UsageError: Naming the first such file.
    """
    read = {path.resolve() for path in inputs}
    for name in names:
        if (folder / name).resolve() in read:
            raise UsageError(f"-o '{folder}' would write over '{folder / name}', which is read by this very command; give another folder")


def report_options(command: F) -> F:
    """Add the options that name files of reports."""
    file = click.Path(path_type=Path)
    for option in (
        click.option("--html", type=file, metavar="FILE", help="Write the report as one HTML page; -o writes one too."),
        click.option("--markdown", type=file, metavar="FILE", help="Write a report that fits into a GitHub comment."),
        click.option("--junit", type=file, metavar="FILE", help="Write JUnit XML: newly broken items are failures."),
    ):
        command = option(command)
    return command


def chosen_files(options: dict[str, Any]) -> ReportFiles:
    """Take the values of ``report_options`` out of the options of a command."""
    return ReportFiles(**{name: options.pop(name) for name in ("junit", "markdown", "html")})


def write_reports(report: Report, verdict: Verdict, files: ReportFiles, output: Path | None, environment: Mapping[str, str]) -> None:
    """Write the files, and tell GitHub when it is GitHub that runs us.

    Args:
        report: What was measured.
        verdict: What it means.
        files: Where to, prepared.
        output: Folder of the results, which gets a page too.
        environment: With ``GITHUB_STEP_SUMMARY`` the summary is appended to that file, with ``GITHUB_ACTIONS`` newly broken items are
            annotated on standard error.
    """
    from sftchat._util.files import write_atomically

    pages = [*filter(None, (files.html,)), *([output / PAGE] if output is not None else [])]
    if pages:
        from sftchat.evaluation.report.html import to_html

        page = to_html(report, verdict)
        for path in pages:
            write_atomically(path, page)
    if files.junit is not None:
        from sftchat.evaluation.report.junit import to_junit

        write_atomically(files.junit, to_junit(report, verdict))
    if files.markdown is not None:
        from sftchat.evaluation.report.markdown import to_markdown

        write_atomically(files.markdown, to_markdown(report, verdict))
    if summary := environment.get("GITHUB_STEP_SUMMARY"):
        _append_summary(report, verdict, Path(summary))
    if environment.get("GITHUB_ACTIONS") == "true":
        from sftchat.evaluation.report.github import annotate

        for line in annotate(report, verdict):
            write_workflow_command(line)


def say_verdict(verdict: Verdict, environment: Mapping[str, str]) -> None:
    """Print the reasons and the verdict on standard error, the verdict last and on a terminal in its colour.

    Args:
        verdict: What to print.
        environment: With ``NO_COLOR`` (https://no-color.org) nothing is coloured.
    """
    from sftchat.evaluation.gate import COLOURS

    for line in verdict.reasons:
        click.echo(printable(line), err=True)
    for line in verdict.lines[len(verdict.reasons) :]:
        click.secho(printable(line), err=True, fg=COLOURS[verdict.tone], color=False if environment.get("NO_COLOR") else None)


def _append_summary(report: Report, verdict: Verdict, path: Path) -> None:
    """Add the report to what the step has written already; GitHub drops the whole summary when it gets too long."""
    from sftchat.evaluation.replies import UNPAIRED
    from sftchat.evaluation.report.markdown import SUMMARY_BYTES, to_markdown

    try:
        room = SUMMARY_BYTES - (path.stat().st_size if path.exists() else 0)
        text = to_markdown(report, verdict, room)
        if len(text.encode("utf-8", UNPAIRED)) <= room:
            with path.open("a", encoding="utf-8", errors=UNPAIRED, newline="\n") as file:
                file.write(text)
    except OSError as error:  # the verdict is worth more than its summary
        click.echo(f"cannot write the step summary '{path}': {error.strerror}", err=True)
