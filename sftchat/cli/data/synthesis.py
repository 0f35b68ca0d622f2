"""Generation shared by ``best-of`` and ``distill``: replies of a model to the prompts of a file, saved as samples so that a run can be resumed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sftchat._util.files import check_output_file
from sftchat.cli.options import add_options, answering_options, rows_options, sampling_options
from sftchat.cli.progress import with_progress
from sftchat.cli.session import Session
from sftchat.data.formats import read_examples
from sftchat.data.row_options import RowOptions
from sftchat.data.samples import SampleFile, generate_samples, missing_requests, settings_of
from sftchat.errors import DataError, EngineError, SftchatError, UsageError, list_quoted
from sftchat.text import pluralize

if TYPE_CHECKING:
    from sftchat.types import Example, SamplingParams

synthesis_options = add_options(
    rows_options,
    sampling_options,
    answering_options,
    click.option("--prompts", required=True, metavar="FILE", help="Rows with the prompts; their replies are not shown to the model."),
    click.option("-o", "--output", required=True, metavar="OUT", help="Output file."),
    click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N prompts."),
    click.option("--samples", metavar="FILE", help="File in which replies are saved as they arrive.  [default: OUT.samples.jsonl]"),
    click.option("--fresh", is_flag=True, help="Generate all replies again, also those in the file of samples."),
)
"""The options of commands that generate replies to the prompts of a file."""


@dataclass(frozen=True, kw_only=True)
class SynthesisRun:
    """One run of ``best-of`` or ``distill``: model and files.

    Attributes:
        session: Opens the model.
        model: MODEL as typed.
        engine_options: Options of the model.
        output: File of the rows.
        samples_file: File of the replies.
        fresh: Whether to discard existing replies.
        overwrite: Whether to replace an existing output.
        quiet: Whether to hide the progress.
    """

    session: Session
    model: str
    engine_options: dict[str, Any]
    output: str
    samples_file: Path
    fresh: bool
    overwrite: bool
    quiet: bool

    def check(self, *more_outputs: str | None) -> None:
        """Check that all outputs can be written, before any file is read or reply generated.

        Raises:
            UsageError: When an output is standard output, exists, or is given twice.
        """
        targets = [self.output, *(name for name in more_outputs if name is not None)]
        if "-" in targets:
            raise UsageError("the output is a file with samples and provenance beside it; give a name, not -")
        for target in targets:
            check_output_file(target, overwrite=self.overwrite)
        paths = [Path(name).resolve() for name in [*targets, str(self.samples_file)]]
        if len(set(paths)) < len(paths):
            raise UsageError("two of the outputs are one file; give each a name of its own")
        check_output_file(self.samples_file, overwrite=True)

    def generate(self, examples: Sequence[Example], k: int, sampling: SamplingParams) -> tuple[SampleFile, list[EngineError]]:
        """Generate ``k`` replies per prompt; the model is loaded only when replies are missing.

        Returns:
            The samples, and the errors of failed requests.

        Raises:
            UsageError: When the existing samples have other settings.
            EngineError: When the engine fails as a whole; earlier replies are saved.
        """
        settings = settings_of(self.model, self.session.identify(self.model, **self.engine_options), sampling)
        samples = SampleFile(self.samples_file, settings, fresh=self.fresh)
        missing = missing_requests(examples, k, sampling, samples)
        if not missing:
            return samples, []
        if len(samples) and not self.quiet:
            click.echo(f"{pluralize(len(samples), 'reply', 'replies')} in {self.samples_file}; {len(missing)} to go", err=True)
        with samples, closing(self.session.load_engine(self.model, **self.engine_options)) as engine:
            answers = with_progress(generate_samples(engine, missing, samples), len(missing), hidden=self.quiet)
            failures = [answer for answer in answers if answer is not None]
        return samples, failures


def read_prompts(
    file: str,
    limit: int | None,
    check_rows: Callable[[Iterable[Example]], Iterable[Example]],
    row_options: RowOptions,
    system: str = "",
) -> list[Example]:
    """Return the prompts of a file, at most ``limit``, with a system prompt if they have none and ``system`` is not empty.

    Raises:
        DataError: When a row is malformed, ``check_rows`` refuses it, or its prompt does not end with a user or tool turn.
    """
    examples = [example.with_system(system) for example in check_rows(islice(read_examples(file, row_options), limit))]
    for example in examples:
        if example.messages[-1]["role"] not in ("user", "tool"):
            raise DataError(
                f"the prompt ends with the {example.messages[-1]['role']}'s turn; it must end with a user's or a tool's", example.source
            )
    return examples


def no_rows_error(run: SynthesisRun, prompts: str, number: int, summary: str, failures: Sequence[EngineError]) -> SftchatError:
    """Return the error for a run that gave no row, with the errors of the requests if any.

    Args:
        run: The run.
        prompts: Name of the file of prompts.
        number: Number of prompts.
        summary: Number of prompts by outcome, as text.
        failures: Errors of failed requests.
    """
    written_note = f"nothing is written but {run.samples_file}" if run.samples_file.exists() else "nothing is written"
    if failures:
        return EngineError(f"no prompt of {number} gave a row: {summary} ({_list_reasons(failures)}); {written_note}")
    return DataError(f"no prompt of {number} gave a row: {summary}; {written_note}", prompts)


def _list_reasons(failures: Sequence[EngineError]) -> str:
    """Format the distinct errors, at most two."""
    return list_quoted(sorted({str(failure) for failure in failures}), 2)


def report_outcome(
    counts: Mapping[str, int], summary: str, output: str, failures: Sequence[EngineError], *, as_json: bool, quiet: bool
) -> int:
    """Print the outcomes and failed requests; return the exit code.

    Args:
        counts: Number of prompts by outcome, with ``prompts`` and ``kept``.
        summary: The same as text.
        output: File of the rows.
        failures: Errors of failed requests.
        as_json: Print the counts as JSON.
        quiet: Print errors only.
    """
    if as_json:
        click.echo(json.dumps(counts))
    if not quiet:
        click.echo(f"wrote {pluralize(counts['kept'], 'row')} to {output} of {pluralize(counts['prompts'], 'prompt')}: {summary}", err=True)
    if not failures:
        return 0
    reasons = _list_reasons(failures)
    remedy = "the same command with --overwrite asks those again"
    click.echo(f"sftchat: error: {pluralize(len(failures), 'request')} had no answer ({reasons}); {remedy}", err=True)
    return 3
