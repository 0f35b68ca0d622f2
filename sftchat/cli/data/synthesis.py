"""The phase that ``best-of`` and ``distill`` share: prompts from a file, replies from a model into a file of samples, resumed where it stopped."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sftchat._util.files import check_output_file
from sftchat.cli.progress import with_progress
from sftchat.cli.rows import rows_options
from sftchat.cli.shared import Session, answering_options, sampling_options
from sftchat.data.formats import read_examples
from sftchat.data.row_options import RowOptions
from sftchat.data.samples import SampleFile, generate_samples, missing_requests, settings_of
from sftchat.errors import DataError, EngineError, SftchatError, UsageError, listed
from sftchat.text import pluralize

if TYPE_CHECKING:
    from sftchat.types import Example, SamplingParams

F = TypeVar("F", bound=Callable[..., Any])


def synthesis_options(command: F) -> F:
    """Add the options of everything that lets a model answer the prompts of a file."""
    for option in reversed(
        (
            click.option(
                "--prompts", required=True, metavar="FILE", help="Rows whose prompts are asked; their replies are not shown to the model."
            ),
            click.option("-o", "--output", required=True, metavar="OUT", help="Where to."),
            click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N prompts."),
            click.option("--samples", metavar="FILE", help="What the model says, kept as it comes.  [default: OUT.samples.jsonl]"),
            click.option("--fresh", is_flag=True, help="Ask everything again, also what is in the file of samples."),
        )
    ):
        command = option(command)
    return rows_options(sampling_options(answering_options(command)))


@dataclass
class SynthesisRun:
    """What is asked of whom.

    Attributes:
        session: Opens the model.
        model: As typed.
        engine: Options of the model.
        output: Where rows will go.
        samples_file: Where replies are kept.
        fresh: Forget what is there.
        overwrite: The output may be replaced.
        quiet: Show nothing.
    """

    session: Session
    model: str
    engine: dict[str, Any]
    output: str
    samples_file: Path
    fresh: bool
    overwrite: bool
    quiet: bool

    def check(self, *more: str | None) -> None:
        """Refuse outputs that could not be written, before anything is read or asked.

        Raises:
            UsageError: One is standard output, exists, or is given twice.
        """
        targets = [self.output, *(name for name in more if name is not None)]
        if "-" in targets:
            raise UsageError("the output is a file with samples and provenance beside it; give a name, not -")
        for target in targets:
            check_output_file(target, overwrite=self.overwrite)
        paths = [Path(name).resolve() for name in [*targets, str(self.samples_file)]]
        if len(set(paths)) < len(paths):
            raise UsageError("two of the outputs are one file; give each a name of its own")
        check_output_file(self.samples_file, overwrite=True)

    def ask(self, examples: Sequence[Example], k: int, sampling: SamplingParams) -> tuple[SampleFile, list[EngineError]]:
        """Have every prompt answered ``k`` times; the model is opened only when something is left to ask.

        Returns:
            The samples, and why some requests were not answered.

        Raises:
            UsageError: The samples that are there were made with other settings.
            EngineError: When the engine can generate nothing more; what came before is kept.
        """
        settings = settings_of(self.model, self.session.identify(self.model, **self.engine), sampling)
        samples = SampleFile(self.samples_file, settings, fresh=self.fresh)
        missing = missing_requests(examples, k, sampling, samples)
        if not missing:
            return samples, []
        if len(samples) and not self.quiet:
            click.echo(f"{pluralize(len(samples), 'reply', 'replies')} in {self.samples_file}; {len(missing)} to go", err=True)
        with samples, closing(self.session.load_engine(self.model, **self.engine)) as engine:
            answers = with_progress(generate_samples(engine, missing, samples), len(missing), hidden=self.quiet)
            failures = [answer for answer in answers if answer is not None]
        return samples, failures


def read_prompts(
    file: str, limit: int | None, check_rows: Callable[[Iterable[Example]], Iterable[Example]], row_options: RowOptions
) -> list[Example]:
    """The prompts of a file, looked at one and all before a model is opened.

    Raises:
        DataError: A row is malformed or cannot be used, or ends with a turn that cannot be answered.
    """
    examples = list(check_rows(islice(read_examples(file, row_options), limit)))
    for example in examples:
        if example.messages[-1]["role"] not in ("user", "tool"):
            raise DataError(
                f"the prompt ends with the {example.messages[-1]['role']}'s turn; it must end with a user's or a tool's", example.source
            )
    return examples


def no_rows_error(asking: SynthesisRun, prompts: str, number: int, summary: str, failures: Sequence[EngineError]) -> SftchatError:
    """The error when no prompt gave a row: the model's own reason where it did not answer, else what became of the replies.

    Args:
        asking: What was asked.
        prompts: Name of the file of prompts.
        number: How many there are.
        summary: What became of them.
        failures: Of requests without an answer.
    """
    written = f"nothing is written but {asking.samples_file}" if asking.samples_file.exists() else "nothing is written"
    if failures:
        return EngineError(f"no prompt of {number} gave a row: {summary} ({_list_reasons(failures)}); {written}")
    return DataError(f"no prompt of {number} gave a row: {summary}; {written}", prompts)


def _list_reasons(failures: Sequence[EngineError]) -> str:
    """Why requests had no answer, each reason once, the first two in full."""
    return listed(sorted({str(failure) for failure in failures}), 2)


def report_outcome(
    counts: Mapping[str, int], summary: str, output: str, failures: Sequence[EngineError], *, as_json: bool, quiet: bool
) -> int:
    """Say what became of the prompts, and that some requests failed; returns the exit code.

    Args:
        counts: By what became of them, ``prompts`` and ``kept`` among them.
        summary: The same for a person.
        output: Where the rows are.
        failures: Of requests without an answer.
        as_json: Print the counts.
        quiet: Say nothing but errors.
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
