"""``sftchat eval``: score models on evalsets, compare them with a baseline, and exit with what that means."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sftchat.cli.completing import complete_model, complete_task
from sftchat.cli.gating import check_updates, chosen_demands, chosen_selection, gate_options, show_plan, update_baselines
from sftchat.cli.reports import PAGE, chosen_files, refuse_folder, report_options, say_verdict, write_reports
from sftchat.cli.shared import Session, answering_options, stderr, stdout
from sftchat.cli.tasks import Addresses, chosen_tasks, is_model
from sftchat.errors import ModelError, PluginError, UsageError, in_one_line
from sftchat.text import pluralize, printable

if TYPE_CHECKING:
    from sftchat.evaluation.plan import Plan
    from sftchat.evaluation.report import Report
    from sftchat.evaluation.run import Progress
    from sftchat.plugins.manager import Registry
    from sftchat.task import Task


@click.command()
@click.argument("models", nargs=-1, metavar="MODEL…", shell_complete=complete_model)
@click.option(
    "--task",
    "names",
    multiple=True,
    metavar="TASK",
    shell_complete=complete_task,
    help="Task that scores, repeatable; by default the one of the training.",
)
@click.option("--evalset", "evalsets", multiple=True, metavar="[TASK=]FILE", help="Evalset, repeatable; by default the task's own.")
@click.option(
    "--baseline", "baselines", multiple=True, metavar="[TASK=]FILE|MODEL", help="What to compare with; exit 1 when significantly worse."
)
@click.option("--replies", multiple=True, metavar="[TASK=]FILE", help="Score stored replies instead of a model.")
@click.option("--partial", is_flag=True, help="Score the items that --replies FILE has replies to; no gate passes on a part.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="DIR", help="Write report.json, report.html and replies.jsonl here."
)
@report_options
@click.option("--overwrite", is_flag=True, help="Replace the report that DIR already holds.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Score only the first N rows of each evalset.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON instead of tables.")
@click.option("--fresh", is_flag=True, help="Ask everything again, also what these very weights have answered before.")
@click.option(
    "--self-check", is_flag=True, help="Ask 50 items again, alone and in other batches; no drop up to what changes is a regression."
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of resampling and sampling.")
@click.option("--quiet", is_flag=True, help="No progress.")
@gate_options
@answering_options
@click.pass_context
def command(
    ctx: click.Context,
    /,
    models: tuple[str, ...],
    names: tuple[str, ...],
    replies: tuple[str, ...],
    output: Path | None,
    overwrite: bool,
    as_json: bool,
    fresh: bool,
    self_check: bool,
    quiet: bool,
    evalsets: tuple[str, ...],
    baselines: tuple[str, ...],
    limit: int | None,
    seed: int,
    planning: bool,
    cluster: str,
    partial: bool,
    **options: Any,
) -> None:
    """Score models against gold replies, compare them with a baseline, and say by the exit code whether they are good enough.

    \b
    sftchat eval run
    sftchat eval 'run/checkpoint-*' run
    sftchat eval run --update-baseline baseline.jsonl
    sftchat eval run --baseline baseline.jsonl --min f1=0.8 -o eval
    sftchat eval --task relation --replies eval/replies.jsonl
    sftchat eval run --task relation --task general --baseline sftchat:nano

    What the same weights were asked before is not asked again; see 'sftchat cache'.

    Exit codes: 0 fine, 1 a regression, a floor missed or a must-pass item wrong, 2 wrong usage, 3 some items were not answered,
    4 not comparable with the baseline, which may also be missing, or inconclusive with --strict.
    """
    from sftchat.evaluation.gate import COULD_NOT, PASSED
    from sftchat.evaluation.plan import REPORT, check_output, make_plan
    from sftchat.models.reference import expand

    session: Session = ctx.obj
    files, updates = chosen_files(options), options.pop("update_baseline")
    demands = chosen_demands(options)
    selection = chosen_selection(options, demands)
    if not planning:
        _check_sources(models, replies)
    if self_check and replies:
        raise UsageError("--self-check asks a model again, and --replies asks none; leave one of them out")
    if output is not None:
        check_output(output, overwrite=overwrite)
    models = expand(models)
    tasks = chosen_tasks(session.registry, names, models)
    if selection is not None and len(tasks) > 1:
        raise UsageError("--ids and --only evaluate one --task at a time")
    words = Addresses(tasks, session.registry.tasks)
    sets, stored = words.by_task(evalsets, "--evalset"), words.one_each(replies, "--replies")
    beside, demanded = words.one_each(baselines, "--baseline", is_model), words.demands_of(demands)
    new_baselines = words.one_each(updates, "--update-baseline")
    if any(stored.values()) and not all(stored.values()):
        raise UsageError("--replies must be given for every --task, or for none")
    plans = [
        make_plan(
            task,
            models,
            evalsets=[Path(name) for name in sets[task.name]],
            baseline=beside[task.name],
            replies=Path(file) if (file := stored[task.name]) else None,
            limit=limit,
            seed=seed,
            output=output,
            demands=demanded[task.name],
            cluster=cluster,
            selection=selection,
            label=f".{task.name}" if len(tasks) > 1 else "",
            self_check=self_check,
            partial=partial,
            tasks=session.registry.tasks,
        )
        for task in tasks
    ]
    if planning:
        show_plan(plans, as_json)
        return
    if not baselines and demands.against_baseline:
        raise UsageError(f"{' and '.join(demands.against_baseline)} need{'' if len(demands.against_baseline) > 1 else 's'} --baseline FILE")
    check_updates(new_baselines, plans, limit)
    if partial and any(new_baselines.values()):
        raise UsageError("--update-baseline needs every item; leave out --partial")
    _check_models(session.registry, plans, options)
    inputs = [Path(word) for task in tasks for word in (*sets[task.name], stored[task.name], beside[task.name]) if word is not None]
    inputs += [path for task in tasks for path in task.evalsets.values()]
    ctx.with_resource(files.prepared(inputs))
    if output is not None:
        names = (REPORT, PAGE, *(source.file for plan in plans for source in (plan.baseline, *plan.sources) if source is not None))
        refuse_folder(output, names, inputs)

    report = _carry_out(session, plans, quiet, fresh, options)
    if report is None:
        return
    verdict = report.verdict
    assert verdict is not None
    write_reports(report, verdict, files, output, os.environ)  # before anything is printed: whoever reads that may leave
    updated = list(update_baselines(new_baselines, plans, report, verdict, session.registry, options))
    try:
        if as_json:
            click.echo(report.to_json(), nl=False)
        else:
            from sftchat.evaluation.report.terminal import show

            show(report, stdout())
        written = [f"report: {output / PAGE}"] if output is not None and not quiet else []
        kept = [
            f"{pluralize(_lines(path), 'reply', 'replies')} kept in {path}; the same command with --overwrite asks only for the others"
            for path in (_kept_files(plans) if models else ())
        ]
        for line in (*written, *updated, *kept):
            click.echo(printable(line), err=True)
        say_verdict(verdict, os.environ)
    finally:  # last, so that nothing of it can change the verdict, and also when the reader of the tables has left
        failed = session.registry.eval_finished(report, output)
        for error in failed:
            click.echo(f"sftchat: warning: {printable(in_one_line(error))}; the verdict is not affected", err=True)
    ctx.exit(COULD_NOT if failed and demands.strict and verdict.exit_code == PASSED else verdict.exit_code)


def _carry_out(session: Session, plans: Sequence[Plan], quiet: bool, fresh: bool, options: dict[str, Any]) -> Report | None:
    """Run the plans with progress on standard error; say what is kept when it breaks off. None in all but the first of several processes."""
    from sftchat.evaluation.cached_engine import CachedEngine, CacheOptions
    from sftchat.evaluation.distributed import answer_shard
    from sftchat.evaluation.pipeline import carry_out
    from sftchat.evaluation.progress import progress
    from sftchat.evaluation.reply_cache import ReplyCache, default_path
    from sftchat.inference.distributed import process_info, take_accelerator, wait_for_all
    from sftchat.inference.identity import OPTIONS_WITHOUT_EFFECT

    place = process_info()
    if fresh and place.count > 1:
        raise UsageError("--fresh asks everything in one process; set SFTCHAT_CACHE_DIR to a new folder to ask it again in several")
    quiet = quiet or place.rank > 0
    console = stderr()
    store = ReplyCache(default_path(), lambda words: click.echo(f"sftchat: {words}", err=True))
    memories: list[CacheOptions] = []
    load = session.sharing()

    def opener(task: Task) -> Callable[[str], CachedEngine]:
        def identify(model: str) -> str:
            return session.identify(model, hashed=store.file_hash, preferred=task.template, **options)

        def describe(model: str) -> str:
            asked = {name: value for name, value in options.items() if name not in OPTIONS_WITHOUT_EFFECT}
            return repr((model, task.template, sorted(asked.items())))

        def say(words: str) -> None:
            click.echo(f"sftchat: {printable(words)}", err=True)

        memory = CacheOptions(store, identify, fresh, describe=describe, say=say)
        memories.append(memory)
        return lambda name: CachedEngine(name, lambda model: load(model, preferred=task.template, **options), memory)

    def watch(title: str, total: int, remembered: Callable[[], int]) -> AbstractContextManager[Progress]:
        return nullcontext(lambda outcome: None) if quiet else progress(console, title, total, remembered)

    try:
        with closing(store), closing(load):
            if place.count > 1 and any(plan.models for plan in plans):
                take_accelerator()
                answer_shard(plans, opener, watch, place)
                wait_for_all()
            return carry_out(plans, opener, watch) if place.rank == 0 else None
    except BaseException as error:  # an interruption too: the words for the error itself are said elsewhere
        mended = ", once the plugin is mended" if isinstance(error, PluginError) else ""
        _say_kept(sum(memory.kept for memory in memories), store.path, fresh, mended)
        for path in _kept_files(plans):
            _say_kept(_lines(path), path, fresh, mended)
        if lost := sum(memory.lost for memory in memories):
            click.echo(
                f"{pluralize(lost, 'reply', 'replies')} lost: what a model answers that cannot be remembered is kept with -o only", err=True
            )
        raise


def _kept_files(plans: Sequence[Plan]) -> list[Path]:
    """Files with replies from which the same command goes on."""
    folder = plans[0].output
    return sorted(folder.glob("replies*.partial.jsonl")) if folder is not None else []


def _lines(path: Path) -> int:
    """How many replies a file holds."""
    with path.open("rb") as file:
        return sum(1 for _ in file)


def _say_kept(count: int, path: Path, fresh: bool, mended: str = "") -> None:
    """Say what is kept where, and how to go on from there."""
    if count:
        again = "without --fresh goes on" if fresh else "goes on"
        click.echo(
            f"{pluralize(count, 'reply', 'replies')} kept in {printable(str(path))}; the same command {again} from there{mended}", err=True
        )


def _check_sources(models: Sequence[str], replies: Sequence[str]) -> None:
    """Refuse no source of replies, and two."""
    if not replies and not models:
        raise UsageError("nothing to score: give a MODEL, or --replies FILE for stored replies")
    if replies and models:
        raise UsageError(f"--replies scores stored replies and would not ask MODEL '{models[0]}'; leave one of them out")


def _check_models(registry: Registry, plans: Sequence[Plan], options: dict[str, Any]) -> None:
    """Resolve every MODEL by name and files alone, so that a misspelt second one does not cost the first one's evaluation."""
    from sftchat.evaluation.baseline import nearest_file
    from sftchat.models.reference import resolve

    for plan in plans:
        for model in plan.models:
            try:
                resolve(model, base=options["base"], schemes=registry.engines, allow_pickle=options["allow_pickle"])
            except (UsageError, ModelError) as error:
                if plan.baseline is None or plan.baseline.name != model:
                    raise
                raise UsageError(f"--baseline '{model}' is no file{nearest_file(model)} and no MODEL: {error}") from error
