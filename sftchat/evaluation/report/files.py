"""Files of a report: checks their paths before anything is evaluated, and writes them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sftchat._util.files import create_folder, write_atomically
from sftchat._util.output import write_workflow_command
from sftchat.errors import UsageError
from sftchat.evaluation.gate import Verdict
from sftchat.evaluation.replies import ESCAPE_SURROGATES
from sftchat.evaluation.report.view import Report

PAGE_NAME = "report.html"
"""Name of the HTML page in an output folder."""


@dataclass(frozen=True)
class ReportFiles:
    """Paths of reports; None for those that are not requested.

    Attributes:
        junit: JUnit XML, for CI servers.
        markdown: Markdown, for a comment on a pull request.
        html: One HTML page.
    """

    junit: Path | None = None
    markdown: Path | None = None
    html: Path | None = None

    @contextmanager
    def prepare(self, inputs: Iterable[Path] = ()) -> Iterator[None]:
        """Check the paths and create their folders, before any work is done; a new folder that stays empty is removed after the block.

        Args:
            inputs: Files that are read, and must not be overwritten.

        Raises:
            UsageError: When a path is a folder, is given twice, is an input, or cannot be written.
        """
        input_paths = {path.resolve() for path in inputs}
        option_by_path: dict[Path, str] = {}
        with ExitStack() as stack:
            for name, path in vars(self).items():
                if path is None:
                    continue
                option = f"--{name}"
                if path.is_dir():
                    raise UsageError(f"{option} '{path}' is a folder; give a file")
                if path.resolve() in input_paths:
                    raise UsageError(f"{option} '{path}' is read by this very command; give another file")
                first_option = option_by_path.setdefault(path.resolve(), option)
                if first_option != option:
                    raise UsageError(f"{first_option} and {option} are both '{path}'; give each a file of its own")
                try:
                    stack.enter_context(create_folder(path.parent))
                except OSError as error:
                    raise UsageError(f"cannot make the folder of {option} '{path}': {error.strerror}") from error
                if not os.access(path if path.exists() else path.parent, os.W_OK):
                    raise UsageError(f"{option} '{path}' may not be written; give another file")
            yield


def check_not_read(folder: Path, names: Iterable[str], inputs: Iterable[Path]) -> None:
    """Refuse an output folder whose files would overwrite an input.

    Args:
        folder: Output folder.
        names: Names of the files that are written there.
        inputs: Files that are read.

    Raises:
        UsageError: Names the first such file.
    """
    input_paths = {path.resolve() for path in inputs}
    for name in names:
        if (folder / name).resolve() in input_paths:
            raise UsageError(f"-o '{folder}' would write over '{folder / name}', which is read by this very command; give another folder")


def write_reports(
    report: Report, verdict: Verdict, files: ReportFiles, output: Path | None, environment: Mapping[str, str], warn: Callable[[str], None]
) -> None:
    """Write the files, and the step summary and annotations of a GitHub workflow.

    Args:
        report: Measurements.
        verdict: Verdict on them.
        files: Paths, checked by ``prepare``.
        output: Output folder, into which an HTML page is written too; None without one.
        environment: The summary is appended to the file in ``GITHUB_STEP_SUMMARY``, if it is set. If ``GITHUB_ACTIONS`` is ``true``, newly broken
            items are annotated on standard error.
        warn: Called with a line when the summary cannot be written.
    """
    page_paths = [path for path in (files.html, output / PAGE_NAME if output is not None else None) if path is not None]
    if page_paths:
        from sftchat.evaluation.report.html import to_html

        page = to_html(report, verdict)
        for path in page_paths:
            write_atomically(path, page)
    if files.junit is not None:
        from sftchat.evaluation.report.junit import to_junit

        write_atomically(files.junit, to_junit(report, verdict))
    if files.markdown is not None:
        from sftchat.evaluation.report.markdown import to_markdown

        write_atomically(files.markdown, to_markdown(report, verdict))
    if summary := environment.get("GITHUB_STEP_SUMMARY"):
        try:
            _append_summary(report, verdict, Path(summary))
        except OSError as error:  # the verdict is worth more than its summary
            warn(f"cannot write the step summary '{summary}': {error.strerror}")
    if environment.get("GITHUB_ACTIONS") == "true":
        from sftchat.evaluation.report.github import annotate

        for line in annotate(report, verdict):
            write_workflow_command(line)


def _append_summary(report: Report, verdict: Verdict, path: Path) -> None:
    """Append the report to the summary, shortened so that the file does not become too long: GitHub would drop it as a whole."""
    from sftchat.evaluation.report.markdown import SUMMARY_BYTES, to_markdown

    bytes_left = SUMMARY_BYTES - (path.stat().st_size if path.exists() else 0)
    text = to_markdown(report, verdict, bytes_left)
    if len(text.encode("utf-8", ESCAPE_SURROGATES)) <= bytes_left:
        with path.open("a", encoding="utf-8", errors=ESCAPE_SURROGATES, newline="\n") as file:
            file.write(text)
