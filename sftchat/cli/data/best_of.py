"""``sftchat data best-of``: best of k replies by the task's scorer, as rows and as preference pairs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sftchat.cli.data.options import json_option, overwrite_option, quiet_option
from sftchat.cli.data.provenance import write_provenance
from sftchat.cli.data.synthesis import SynthesisRun, no_rows_error, read_prompts, report_outcome, synthesis_options
from sftchat.cli.options import allow_code_option, complete_model, complete_task, take_sampling
from sftchat.cli.session import Session
from sftchat.data.best_of import OUTCOMES, Selection, check_prompts, score_samples, select
from sftchat.data.formats import FORMATS, to_rows
from sftchat.data.samples import SampleFile, missing_requests
from sftchat.data.write import write_rows
from sftchat.errors import SftchatError, UsageError

if TYPE_CHECKING:
    from sftchat.data.row_options import RowOptions
    from sftchat.types import Example, SamplingParams

DEFAULT_TEMPERATURE = 0.8
"""Minimum default temperature, so that samples differ."""


@click.command("best-of", short_help="keep the best of k replies by the task's scorer")
@click.argument("task", shell_complete=complete_task)
@click.argument("model", shell_complete=complete_model)
@synthesis_options
@click.option("-k", "k", type=click.IntRange(min=1), default=4, show_default=True, metavar="K", help="Replies per prompt.")
@allow_code_option
@click.option("--pairs", metavar="FILE", help="Also write best and worst as prompt, chosen, rejected, for TRL's DPOTrainer and others.")
@click.option("--score-only", is_flag=True, help="Generate nothing: score the replies in the file of samples.")
@click.option("--solved-threshold", type=float, metavar="X", help="Leave out prompts whose replies have this mean score or more.")
@click.option("--min-score", type=float, metavar="X", help="Minimum score of the best reply.  [default: above 0]")
@click.option("--format", "row_format", type=click.Choice(FORMATS), default="messages", show_default=True, help="Shape of the rows.")
@json_option
@overwrite_option
@quiet_option
@click.pass_context
def best_of(
    ctx: click.Context, /, task: str, model: str, prompts: str, output: str, limit: int | None, row_options: RowOptions,
    samples: str | None, fresh: bool, k: int, pairs: str | None, score_only: bool, solved_threshold: float | None,
    min_score: float | None, row_format: str, as_json: bool, overwrite: bool, quiet: bool, **options: Any,
) -> None:  # fmt: skip
    """Generate K replies of MODEL to every prompt and keep the one that TASK scores best, as a training row.

    The score is the task's first metric. The gold reply of a prompt is the scorer's reference, not a candidate. Replies are saved in
    OUT.samples.jsonl as they arrive: after an interruption the same command generates only the missing ones, and --score-only scores them again.

    \b
    sftchat data best-of relation run --prompts more.jsonl -k 4 -o best.jsonl
    sftchat data best-of relation run --prompts more.jsonl -k 8 -o best.jsonl --pairs pairs.jsonl --solved-threshold 0.95
    sftchat data best-of relation run --prompts more.jsonl -k 8 -o best.jsonl --score-only --min-score 1 --overwrite
    """
    from sftchat.data.row_options import options_for_task

    session: Session = ctx.obj
    chosen_task = session.registry.task(task)
    if score_only and fresh:
        raise UsageError("--fresh makes replies again and --score-only makes none; give one of them")
    if options["temperature"] is None:
        options["temperature"] = max(chosen_task.sampling.temperature, DEFAULT_TEMPERATURE)
    sampling = take_sampling(chosen_task, options)
    if k > 1 and sampling.temperature == 0:
        raise UsageError(f"temperature 0 gives the same reply {k} times; give --temperature above 0, or -k 1")
    run = SynthesisRun(
        session=session,
        model=model,
        engine_options={**options, "preferred": chosen_task.template},
        output=output,
        samples_file=Path(samples or f"{output}.samples.jsonl"),
        fresh=fresh,
        overwrite=overwrite,
        quiet=quiet,
    )
    run.check(pairs)
    examples = read_prompts(prompts, limit, check_prompts, options_for_task(chosen_task, row_options), chosen_task.system)
    sample_file, failures = (_open_complete_samples(run, examples, k, sampling), []) if score_only else run.generate(examples, k, sampling)
    selections = [
        select(scored, solved=solved_threshold, min_reward=min_score) for scored in score_samples(chosen_task, examples, sample_file, k)
    ]
    counts = _count_outcomes(len(examples), selections)
    if not counts["kept"]:
        raise no_rows_error(run, prompts, len(examples), _format_counts(counts), failures)
    if pairs is not None:
        write_rows(pairs, (selection.pair for selection in selections if selection.pair is not None), overwrite=overwrite)
    write_rows(output, to_rows((selection.row for selection in selections if selection.row is not None), row_format), overwrite=overwrite)
    settings = {
        **(sample_file.settings or {}),
        "task": task,
        "metric": chosen_task.metric.name,
        "k": k,
        "solved_threshold": solved_threshold,
        "min_score": min_score,
        "limit": limit,
    }
    for file in filter(None, (output, pairs)):
        write_provenance(file, "data best-of", [prompts, str(run.samples_file)], settings, counts)
    ctx.exit(report_outcome(counts, _format_counts(counts), output, failures, as_json=as_json, quiet=quiet))


def _open_complete_samples(run: SynthesisRun, examples: list[Example], k: int, sampling: SamplingParams) -> SampleFile:
    """Open the file of samples; raise ``UsageError`` if there is none, and ``SftchatError`` if samples of the prompts are missing in it."""
    if not run.samples_file.is_file():
        raise UsageError(f"there are no samples in '{run.samples_file}'; leave --score-only out to make them, or give --samples FILE")
    samples = SampleFile(run.samples_file)
    missing = missing_requests(examples, k, sampling, samples)
    if missing:
        raise SftchatError(f"{run.samples_file} lacks {len(missing)} of the samples; leave --score-only out to ask for those")
    return samples


def _count_outcomes(prompts: int, selections: list[Selection]) -> dict[str, int]:
    outcome_counts = Counter(selection.outcome for selection in selections)
    return {
        "prompts": prompts,
        **{outcome: outcome_counts[outcome] for outcome in OUTCOMES},
        "unanswered": prompts - len(selections),
        "pairs": sum(selection.pair is not None for selection in selections),
    }


def _format_counts(counts: dict[str, int]) -> str:
    outcome_counts = [f"{counts[name]} {name}" for name in (*OUTCOMES, "unanswered") if counts[name] or name == "kept"]
    return f"{', '.join(outcome_counts)}; best and worst differ in {counts['pairs']}"
