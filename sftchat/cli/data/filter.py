"""``sftchat data filter``: select rows, and report why each other row was removed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from sftchat._util.files import check_output_file
from sftchat.cli.data.options import json_option, overwrite_option, quiet_option
from sftchat.cli.data.provenance import write_provenance
from sftchat.cli.options import allow_code_option, complete_file, complete_model, complete_task, rows_options, tokenizer_options
from sftchat.cli.session import Session
from sftchat.data.check import remaining_rows
from sftchat.data.filter import FilterOptions, RemovedRow, Rule, find_removed
from sftchat.data.formats import read_examples
from sftchat.data.read import line_of
from sftchat.data.row_options import RowOptions, options_for_task
from sftchat.data.write import write_rows
from sftchat.errors import DataError, UsageError
from sftchat.text import pluralize

if TYPE_CHECKING:
    from sftchat.task import Task
    from sftchat.types import Example


@click.command("filter", short_help="select rows: fewer and better ones")
@click.argument("source", metavar="IN", shell_complete=complete_file)
@click.argument("output", metavar="OUT")
@click.option(
    "--near", type=click.FloatRange(0, 1), default=0.8, show_default=True, metavar="X", help="Similarity of near duplicates; 0 keeps them."
)
@click.option("--min-chars", type=click.IntRange(min=0), metavar="N", help="Minimum number of characters of a row, all turns together.")
@click.option("--max-chars", type=click.IntRange(min=1), metavar="N", help="Maximum number of characters of a row.")
@click.option(
    "--model", metavar="MODEL", shell_complete=complete_model, help="Model whose tokenizer and template count the tokens of a row."
)
@click.option("--max-length", type=click.IntRange(min=8), metavar="N", help="Maximum number of tokens of a row, with --model.")
@tokenizer_options
@click.option("--task", metavar="TASK", shell_complete=complete_task, help="Remove rows in which this task finds problems.")
@allow_code_option
@click.option(
    "--samples", metavar="FILE", help="Replies of a model to these prompts, from 'data best-of'; the score of a row is then their mean."
)
@click.option(
    "--min-score", type=float, metavar="X", help="Minimum score by the task's first metric, of the samples or else of the row's own reply."
)
@click.option("--max-score", type=float, metavar="X", help="Maximum score; removes rows that the model has learned already.")
@click.option("--keep", type=click.IntRange(min=1), metavar="N", help="Keep the N remaining rows that differ most from one another.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of --keep.")
@click.option("--removed", "list_file", metavar="FILE", help="Write the removed rows, with reasons, to FILE.")
@json_option
@rows_options
@overwrite_option
@quiet_option
@click.pass_obj
def filter_rows(
    session: Session, /, source: str, output: str, near: float, task: str | None, samples: str | None, min_score: float | None,
    max_score: float | None, keep: int | None, seed: int, list_file: str | None, as_json: bool, row_options: RowOptions, overwrite: bool,
    quiet: bool, **length_options: Any,
) -> None:  # fmt: skip
    """Write selected rows of IN to OUT, unchanged and in order, and report how many were removed and why.

    Exact duplicates are always removed, near ones unless --near 0. Rules apply in this order, and the first that a row breaks removes it: task,
    length, score, duplicate, near-duplicate, diversity. OUT.provenance.json records how OUT was made.

    \b
    sftchat data filter train.jsonl fewer.jsonl
    sftchat data filter train.jsonl fewer.jsonl --task relation --model sftchat:nano --max-length 512
    sftchat data filter train.jsonl hard.jsonl --task relation --samples best.jsonl.samples.jsonl --max-score 0.9
    sftchat data filter train.jsonl thousand.jsonl --keep 1000 --removed gone.jsonl
    """
    if source == "-" or output == "-":
        raise UsageError("filter reads IN twice and writes a sidecar beside OUT; give files")
    for target in filter(None, (output, list_file)):
        check_output_file(target, overwrite=overwrite)
    chosen_task = session.registry.task(task) if task else None
    rules = {
        **_task_rule(chosen_task),
        **_length_rules(chosen_task, **length_options),
        **_score_rule(chosen_task, samples, min_score, max_score),
    }
    rows, removed = find_removed(read_examples(source, options_for_task(chosen_task, row_options)), FilterOptions(rules, near, keep, seed))
    if len(removed) == rows:
        raise DataError(f"no row is left of {rows}: {_format_counts(removed)}; nothing is written", source)
    if list_file is not None:
        write_rows(list_file, _removed_rows(source, removed), overwrite=overwrite)
    kept_count = write_rows(output, remaining_rows(source, frozenset(row.source for row in removed)), overwrite=overwrite)
    counts = {"rows": rows, "kept": kept_count, **Counter(row.reason for row in removed)}
    settings = {
        "near": near,
        "task": task,
        "min_score": min_score,
        "max_score": max_score,
        "keep": keep,
        "seed": seed,
        **({"rows": row_options.non_default} if row_options.non_default else {}),
        **length_options,
    }
    write_provenance(output, "data filter", [source, *filter(None, [samples])], settings, counts)
    if as_json:
        click.echo(json.dumps(counts))
    if not quiet:
        click.echo(f"kept {kept_count} of {pluralize(rows, 'row')} in {output}", err=True)
        for reason, count in Counter(row.reason for row in removed).most_common():
            example = next(row for row in removed if row.reason == reason)
            click.echo(f"  {count} {reason}, first at line {line_of(example.source)}: {example.message}", err=True)


def _format_counts(removed: Sequence[RemovedRow]) -> str:
    """Format the number of removed rows by reason."""
    return ", ".join(f"{count} {reason}" for reason, count in Counter(row.reason for row in removed).most_common())


def _removed_rows(source: str, removed: Sequence[RemovedRow]) -> Any:
    """Yield the removed rows with their reasons, in the order of the file."""
    from sftchat.data.read import read_rows

    reasons = {row.source: row for row in removed}
    for position, row in read_rows(source):
        if position in reasons:
            yield {"source": position, "reason": reasons[position].reason, "message": reasons[position].message, "row": row}


def _task_rule(task: Task | None) -> dict[str, Rule]:
    """Return the rule that removes rows in which the task finds a problem; empty without a task."""
    from sftchat.data.check import task_problems

    if task is None:
        return {}
    return {"task": lambda example: next((message for _, message in task_problems(task, example)), "")}


def _length_rules(task: Task | None, *, min_chars: int | None, max_chars: int | None, **token_options: Any) -> dict[str, Rule]:
    """Return the rule on the number of characters and tokens, or nothing if no limit is given; ``token_options`` are those of ``token_check_for``."""
    from sftchat.cli.data.check import token_check_for

    check_tokens = token_check_for(task, **token_options)
    if check_tokens is None and min_chars is None and max_chars is None:
        return {}

    def rule(example: Example) -> str:
        characters = sum(len(turn["content"]) for turn in example.conversation)
        if min_chars is not None and characters < min_chars:
            return f"{characters} characters, fewer than {min_chars}"
        if max_chars is not None and characters > max_chars:
            return f"{characters} characters, more than {max_chars}"
        return next((message for _, message in check_tokens(example)), "") if check_tokens is not None else ""

    return {"length": rule}


def _score_rule(task: Task | None, samples: str | None, min_score: float | None, max_score: float | None) -> dict[str, Rule]:
    """Return the rule on the score; empty without a limit."""
    if min_score is None and max_score is None:
        if samples is not None:
            raise UsageError("--samples is what --min-score and --max-score go by; give one of them")
        return {}
    if task is None:
        raise UsageError(f"{'--min-score' if min_score is not None else '--max-score'} needs --task, which scores")
    if min_score is not None and max_score is not None and min_score > max_score:
        raise UsageError(f"--min-score is {min_score:g} and --max-score {max_score:g}: no row could stay")
    score = _choose_scorer(task, samples)

    def rule(example: Example) -> str:
        value = score(example)
        if min_score is not None and value < min_score:
            return f"score {value:.3f}, below {min_score:g}"
        return f"score {value:.3f}, above {max_score:g}" if max_score is not None and value > max_score else ""

    return {"score": rule}


def _choose_scorer(task: Task, samples: str | None) -> Callable[[Example], float]:
    """Return a function that scores a row: the mean over a model's samples, or without samples the score of the row's own reply."""
    from pathlib import Path

    from sftchat.data.best_of import mean_reward
    from sftchat.data.samples import SampleFile

    if samples is not None and not Path(samples).is_file():
        raise UsageError(f"--samples '{samples}' is no file; 'sftchat data best-of' writes one beside its output")
    return partial(mean_reward, task, None if samples is None else SampleFile(Path(samples)))
