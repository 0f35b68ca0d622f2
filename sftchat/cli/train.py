"""``sftchat train``: fine-tune a model on a task."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sftchat.cli.config_file import apply_config
from sftchat.cli.options import (
    allow_code_option,
    complete_model,
    complete_task,
    device_option,
    rows_options,
    template_options,
    trust_remote_code_option,
)
from sftchat.cli.session import Session, stderr
from sftchat.data.row_options import RowOptions
from sftchat.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sftchat.models.manifest import Manifest
    from sftchat.plugins.manager import Registry
    from sftchat.training.prepare import TrainingJob


@click.command()
@click.argument("task_name", metavar="[TASK]", required=False, shell_complete=complete_task)
@click.option("--model", default="sftchat:nano", show_default=True, metavar="MODEL", shell_complete=complete_model, help="The base model.")
@click.option(
    "--data",
    "files",
    multiple=True,
    metavar="FILE",
    help="Training rows: JSONL, JSON, CSV, TSV, Parquet, - for standard input, or hf://datasets/ORG/NAME; several may be given. Default: the task's generator.",
)
@rows_options
@click.option("-n", "--rows", type=click.IntRange(1), metavar="N", help="Rows to draw from the generator.  [default: the task's]")
@click.option("--option", "options", multiple=True, metavar="NAME=VALUE", help="Option of the generator.")
@click.option(
    "--replay",
    "replay_arguments",
    multiple=True,
    metavar="SOURCE=SHARE",
    help="Add rows of another task's generator, or of a file, until they are SHARE of all rows, such as general=0.2: the model keeps what it could do. Repeatable.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, metavar="RUN", help="Folder for the run.")
@allow_code_option
@click.option("--validation", metavar="FILE", help="Items to score during training.  [default: split off from the rows]")
@click.option("--validation-items", type=int, metavar="N", help="Number of validation items.  [default: 100]")
@click.option("--eval-steps", type=int, metavar="N", help="Steps between scorings of generated replies; 0: never.  [default: 0]")
@click.option("--patience", type=int, metavar="N", help="End training after N scorings without improvement; 0: never.  [default: 0]")
@click.option(
    "--method",
    type=click.Choice(["full", "lora", "dora", "qlora"]),
    default="full",
    show_default=True,
    help="Train all weights, or an adapter; qlora: on a base in 4 bits.",
)
@click.option("--learning-rate", type=float, metavar="X", help="Peak learning rate.  [default: by method and size]")
@click.option("--epochs", type=float, metavar="X", help="Passes over the rows.  [default: the task's, else 3]")
@click.option("--max-steps", type=click.IntRange(min=1), metavar="N", help="Optimiser steps, instead of epochs.")
@click.option("--batch-size", type=int, metavar="N", help="Rows of one forward pass.  [default: the task's, else 16]")
@click.option("--accumulation", type=int, metavar="N", help="Forward passes in one step.  [default: 1]")
@click.option(
    "--max-length",
    type=int,
    metavar="N",
    help="Maximum length of a row in tokens; longer rows are left out and counted.  [default: the task's, else 1024]",
)
@click.option("--warmup", type=float, metavar="X", help="Share of the steps with rising learning rate.  [default: 0.05]")
@click.option(
    "--schedule",
    type=click.Choice(["cosine", "linear", "constant", "constant_with_warmup"]),
    help="How the learning rate falls.  [default: cosine]",
)
@click.option(
    "--optimizer", metavar="NAME", help="Name of the optimizer in transformers, such as paged_adamw_8bit.  [default: adamw_torch_fused]"
)
@click.option("--weight-decay", type=float, metavar="X", help="Weight decay of the optimizer.  [default: 0]")
@click.option("--max-grad-norm", type=float, metavar="X", help="Gradients are clipped to this norm.  [default: 1]")
@click.option("--lora-rank", type=int, metavar="N", help="Rank of the adapter.  [default: the task's, else 16]")
@click.option("--lora-alpha", type=int, metavar="N", help="Scale of the adapter.  [default: 32]")
@click.option("--lora-dropout", type=float, metavar="X", help="Dropout of the adapter.  [default: 0]")
@click.option("--neftune-alpha", type=float, metavar="X", help="Noise on embeddings.  [default: 0]")
@click.option(
    "--train-on",
    type=click.Choice(["assistant", "all"]),
    help="Compute the loss on assistant turns, or on every token.  [default: assistant]",
)
@click.option("--packing", type=click.Choice(["auto", "on", "off"]), help="Compute a batch as one row without padding.  [default: auto]")
@click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "bfloat16"]),
    help="Full precision, or mixed precision (bfloat16).  [default: auto]",
)
@click.option("--gradient-checkpointing", is_flag=True, default=None, help="Recompute activations: less memory, slower.")
@click.option("--save-steps", type=int, metavar="N", help="Steps between checkpoints; 0 keeps only the final weights.  [default: 0]")
@click.option("--save-limit", type=int, metavar="N", help="Maximum number of checkpoints kept.  [default: 2]")
@click.option("--logging-steps", type=int, metavar="N", help="Steps between reports of the loss.  [default: 10]")
@click.option("--report-to", multiple=True, metavar="TRACKER", help="tensorboard (under RUN/runs), wandb, mlflow, …; may be repeated.")
@click.option("--seed", type=int, metavar="N", help="Seed of the generator, shuffling and initialisation.  [default: 0]")
@device_option(None)
@template_options()
@click.option("--force", is_flag=True, help="Train even when the parity proof fails: inference may then see other tokens.")
@trust_remote_code_option
@click.option("--resume", is_flag=True, help="Continue from the last checkpoint of RUN.")
@click.option("--dry-run", is_flag=True, help="Print what would be trained, and the memory and time it takes; write nothing.")
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    is_eager=True,
    callback=apply_config,
    expose_value=False,
    help="TOML or YAML file with these options by name; typed flags take precedence.",
)
@click.option("-q", "--quiet", is_flag=True, help="Print errors only.")
@click.pass_obj
def command(
    session: Session, /, task_name: str | None, model: str, files: tuple[str, ...], rows: int | None, options: tuple[str, ...], replay_arguments: tuple[str, ...], output: Path, template: str,
    template_name: str, template_arguments: dict[str, Any], row_options: RowOptions, force: bool, validation: str | None, trust_remote_code: bool, resume: bool, dry_run: bool, quiet: bool,
    **hyperparameters: Any,
) -> None:  # fmt: skip
    """Fine-tune a model on a task, or on the rows of --data alone, and write it to RUN, which can be used as MODEL.

    Without TASK the settings are those of the task general.

    \b
    sftchat train relation -o runs/first
    sftchat train relation --eval-steps 100 --patience 3 -o runs/best
    sftchat train --data rows.csv --map prompt=question --map completion=answer -o runs/plain
    sftchat train relation --model org/name --data rows.jsonl --method lora -o runs/second
    sftchat train relation --model org/name --replay general=0.2 -o runs/third
    """
    from sftchat.api.training import TrainingInputs, make_job
    from sftchat.data.row_options import ReadingNotes
    from sftchat.inference.distributed import is_main_process
    from sftchat.text import printable
    from sftchat.training.progress import TrainingProgress

    registry = session.registry
    task = registry.task(task_name or _default_task(files, registry))
    hyperparameters["report_to"] = hyperparameters["report_to"] or None
    others = {
        "template": template, "template_name": template_name, "template_arguments": template_arguments, "force": force, "resume": resume,
        "trust_remote_code": trust_remote_code, "command": "sftchat " + shlex.join(sys.argv[1:]),
    }  # fmt: skip
    notes = ReadingNotes()
    inputs = TrainingInputs(
        task, model, output, files, None, rows, options, replay_arguments, row_options, validation, hyperparameters, others
    )
    job = make_job(inputs, session, notes)
    silent = quiet or not is_main_process()  # of several training processes only one prints
    for line in () if silent else notes.lines():
        click.echo(printable(f"note: {line}"), err=True)
    if dry_run:
        _dry_run(job, registry, model, quiet)
        return
    from sftchat.training.run import train

    with TrainingProgress(stderr(), quiet=silent) as progress:
        manifest = train(job, progress.listener(model), engine_types=registry.engines, plugin_callbacks=registry.trainer_callbacks)
    for line in () if silent else _summary_lines(manifest, output, model, task_name or ""):
        click.echo(line, err=True)


def _default_task(files: tuple[str, ...], registry: Registry) -> str:
    """Return the task to use when none is named; raise ``UsageError`` if there are no files of rows either."""
    if not files:
        raise UsageError(
            f"give a TASK that generates rows ({', '.join(sorted(registry.tasks)) or 'none is installed'}), or rows with --data FILE"
        )
    from sftchat.api.training import DEFAULT_TASK

    return DEFAULT_TASK


def _dry_run(job: TrainingJob, registry: Registry, model: str, quiet: bool) -> None:
    """Measure a few steps and print the memory and time that the training would take, to standard output."""
    from sftchat.training.dry_run import perform_dry_run
    from sftchat.training.prepare import prepare
    from sftchat.training.progress import TrainingProgress, clock

    with TrainingProgress(stderr(), quiet=quiet) as progress:
        setup = prepare(job, registry.engines, progress.message)
        progress.describe(setup, model)
    measured = perform_dry_run(setup)
    size = setup.config.batch_size
    fits = "fits"
    if measured.rows_at_once < min(size, len(setup.rows.ids)):
        fits = f"does not fit at once; {measured.rows_at_once} rows at a time do"
    click.echo(
        f"the longest batch ({size} rows, up to {measured.longest} tokens each) {fits}; peak memory {measured.peak_bytes / 2**30:.2f} GiB"
    )
    click.echo(
        f"{measured.tokens_per_second:,.0f} tokens/s; {measured.steps:,} steps would take about {clock(measured.seconds)}, without scoring and saving"
    )


def _summary_lines(manifest: Manifest, output: Path, model: str, task_name: str) -> Iterator[str]:
    """Yield the result of a training, and the commands to try next; a task file is named again, because the run knows the name of its task only."""
    loss = "" if manifest.final_loss is None else f", loss {manifest.final_loss:.3f}"
    yield f"{manifest.steps} steps in {manifest.seconds:.0f} s{loss}; saved to {output}"
    if manifest.scores:
        metric, step = manifest.validation["metric"], str(manifest.chosen_step)
        base = manifest.scores.get("0", {}).get(metric)
        base_note = "" if base is None else f", base model {base:.3f}"
        yield f"the weights are those of step {step}: {metric} {manifest.scores[step][metric]:.3f}{base_note}"
        sign = 1 if manifest.validation["higher_is_better"] else -1
        if base is not None and sign * manifest.scores[step][metric] <= sign * base:
            yield f"warning: no step scored better than the base model; {model} as it is may be the better choice"
    task = f" --task {task_name}" if task_name.lower().endswith(".toml") else ""
    yield f"next: sftchat eval {output}{task} --baseline {model}   sftchat chat {output}{task}"
