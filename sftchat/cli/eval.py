"""``sftchat eval``: score models on gold sets, compare them with a baseline, and exit with what that means."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sftchat.cli.shared import Session, concurrency_option, engine_options, stderr, stdout, timeout_option
from sftchat.errors import UsageError

if TYPE_CHECKING:
    from sftchat.engines.base import Engine
    from sftchat.evaluation.items import Progress
    from sftchat.evaluation.plan import Plan
    from sftchat.evaluation.report import Report
    from sftchat.plugins import Registry
    from sftchat.task import Task


@click.command()
@click.argument("models", nargs=-1, metavar="MODEL…")
@click.option("--task", "task_name", metavar="TASK", help="Task that scores; by default the one that the model was trained on.")
@click.option("--evalset", "evalsets", multiple=True, type=click.Path(path_type=Path), metavar="FILE", help="Gold set, repeatable.")
@click.option("--baseline", metavar="MODEL|FILE", help="Model, or a replies.jsonl, to compare with; exit 1 when significantly worse.")
@click.option("--min", "floors", multiple=True, metavar="METRIC=X", help="Smallest acceptable value, repeatable; exit 1 when missed.")
@click.option("--replies", type=click.Path(path_type=Path), metavar="FILE", help="Score stored replies instead of a model.")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="DIR", help="Write report.json and replies.jsonl here.")
@click.option("--overwrite", is_flag=True, help="Replace the report that DIR already holds.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Score only the first N rows of each evalset.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON instead of tables.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of resampling and sampling.")
@click.option("--quiet", is_flag=True, help="No progress.")
@engine_options
@concurrency_option
@timeout_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    models: tuple[str, ...],
    task_name: str | None,
    floors: tuple[str, ...],
    replies: Path | None,
    output: Path | None,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
    evalsets: tuple[Path, ...],
    baseline: str | None,
    limit: int | None,
    seed: int,
    **options: Any,
) -> None:
    """Score models against gold replies.

    \b
    sftchat eval run
    sftchat eval run --baseline sftchat:nano --min f1=0.8 -o eval
    sftchat eval --task relation --replies eval/replies.jsonl

    Exit codes: 0 fine, 1 a floor missed or worse than the baseline, 2 wrong usage, 3 some items were not answered.
    """
    from sftchat.evaluation.plan import check_output, make_plan
    from sftchat.evaluation.verdict import judge, parse_floors

    session: Session = ctx.obj
    _check_sources(models, replies)
    if output is not None:
        check_output(output, overwrite=overwrite)
    task = _task(session.registry, task_name, models)
    least = parse_floors(floors, task)
    plan = make_plan(task, models, evalsets=evalsets, baseline=baseline, replies=replies, limit=limit, seed=seed, output=output)
    _check_models(session.registry, plan.models, options)

    report = _carry_out(session, plan, quiet, options)
    session.registry.eval_finished(report, output)
    if as_json:
        click.echo(report.to_json(), nl=False)
    else:
        from sftchat.evaluation.tables import show

        show(report, stdout())
    verdict = judge(report, least)
    for line in verdict.lines:
        click.echo(line, err=True)
    ctx.exit(verdict.exit_code)


def _carry_out(session: Session, plan: Plan, quiet: bool, options: dict[str, Any]) -> Report:
    """Run the plan with progress on standard error; say where partial replies are when it breaks off."""
    from sftchat.evaluation.pipeline import carry_out
    from sftchat.evaluation.progress import progress

    console = stderr()

    def open_engine(model: str) -> Engine:
        return session.load_engine(model, preferred=plan.task.template, **options)

    def watch(title: str, total: int) -> AbstractContextManager[Progress]:
        return nullcontext(lambda outcome: None) if quiet else progress(console, title, total)

    try:
        return carry_out(plan, open_engine, watch)
    except BaseException:  # an interruption too: the words for the error itself are said elsewhere
        kept = sorted(plan.output.glob("replies*.partial.jsonl")) if plan.output is not None else []
        for path in kept:
            click.echo(f"replies so far are kept in {path}", err=True)
        raise


def _check_sources(models: Sequence[str], replies: Path | None) -> None:
    """Refuse no source of replies, and two."""
    if replies is None and not models:
        raise UsageError("nothing to score: give a MODEL, or --replies FILE for stored replies")
    if replies is not None and models:
        raise UsageError(f"--replies scores stored replies and would not ask MODEL '{models[0]}'; leave one of them out")


def _task(registry: Registry, name: str | None, models: Sequence[str]) -> Task:
    """The task asked for, else the one the models were trained on, else the only one there is."""
    if name is not None:
        return registry.task(name)
    trained = {model: task for model in models if (task := _trained_on(model))}
    if len(set(trained.values())) > 1:
        told = ", ".join(f"{model} on {task}" for model, task in trained.items())
        raise UsageError(f"the models were trained on different tasks ({told}); choose one with --task")
    if trained:
        return registry.task(next(iter(trained.values())))
    if len(registry.tasks) == 1:
        return next(iter(registry.tasks.values()))
    known = ", ".join(sorted(registry.tasks)) or "none; see 'sftchat plugins'"
    raise UsageError(f"no model says which task it was trained on; choose one with --task (available: {known})")


def _trained_on(model: str) -> str:
    """The task in the manifest of a local model, or of the run that a checkpoint belongs to; empty when there is none."""
    from sftchat.models.manifest import read_manifest

    folder = Path(model).expanduser()
    places = [folder, folder.resolve().parent] if folder.name.startswith("checkpoint-") else [folder]
    for place in places:
        manifest = read_manifest(place)
        if manifest is not None:
            return manifest.task
    return ""


def _check_models(registry: Registry, models: Sequence[str], options: dict[str, Any]) -> None:
    """Resolve every MODEL by name and files alone, so that a misspelt second one does not cost the first one's evaluation."""
    from sftchat.models.references import resolve

    for model in models:
        resolve(model, base=options["base"], schemes=registry.engines, allow_pickle=options["allow_pickle"])
