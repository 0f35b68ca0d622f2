"""``sftchat eval``: score models on evalsets, compare them with a baseline, and exit with what that means."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sftchat.cli.judging import judging_options, take_judge
from sftchat.cli.options import add_options, answering_options, complete_model, complete_task
from sftchat.cli.policy import choose_policy
from sftchat.cli.rescoring import check_rescore
from sftchat.cli.rescoring import rescore as show_rescored
from sftchat.cli.session import Session, json_text, stderr, stdout
from sftchat.cli.tasks import TaskOptions, choose_tasks, is_model, override_options, take_overrides
from sftchat.errors import UsageError, in_one_line
from sftchat.text import printable

if TYPE_CHECKING:
    from sftchat.evaluation.gate import Verdict
    from sftchat.evaluation.gate_options import GateOptions
    from sftchat.evaluation.plan import Plan
    from sftchat.evaluation.policy import Policy
    from sftchat.evaluation.selection import Selection

F = TypeVar("F", bound=Callable[..., Any])
FILE = click.Path(path_type=Path)

_GATE_OPTIONS = (
    click.option("--gate", "gated", multiple=True, metavar="METRIC[=MARGIN]", help="Metric to compare, margin in points; repeatable."),
    click.option(
        "--min-drop",
        type=click.FloatRange(min=0),
        default=0.5,
        show_default=True,
        metavar="X",
        help="A drop of fewer points is no regression.",
    ),
    click.option("--min", "floors", multiple=True, metavar="METRIC=X", help="Minimum value, repeatable; exit 1 when missed."),
    click.option(
        "--min-lower",
        "lower_floors",
        multiple=True,
        metavar="METRIC=X",
        help="Minimum lower bound of the 95 % interval, repeatable; exit 1 when missed.",
    ),
    click.option("--must-pass", multiple=True, metavar="FILE|ID", help="Items that must be right, repeatable; exit 1 when one is not."),
    click.option(
        "--strict", is_flag=True, help="Exit 4 when a drop beyond the margin cannot be excluded, or items differ from the baseline's."
    ),
    click.option("--require-baseline", is_flag=True, help="Exit 4 when the baseline file is missing (the default)."),
    click.option("--allow-missing-baseline", is_flag=True, help="Continue when the baseline file is missing: for the first run."),
)
_OTHER_OPTIONS = (
    click.option(
        "--policy",
        "policy_file",
        type=FILE,
        metavar="FILE",
        help="Models, tasks and rules from a policy file; other options replace its values.",
    ),
    click.option("--update-baseline", multiple=True, metavar="[TASK=]FILE", help="Write the model's replies as the new baseline."),
    click.option("--plan", "plan_only", is_flag=True, help="Load no model; print the smallest drop that the evalset can detect."),
    click.option(
        "--rescore",
        is_flag=True,
        help="Ask no model: apply the present scorer to the replies of earlier evaluations, of MODEL or of all, and list what changes.",
    ),
    click.option("--cluster", default="", metavar="KEY", help="Metadata key of items that belong together, such as one document's."),
    click.option("--ids", multiple=True, metavar="FILE|ID", help="Evaluate these items alone, without a gate; repeatable."),
    click.option(
        "--only",
        type=click.Choice(["newly-broken", "failing"]),
        help="Evaluate the items that failed in an earlier evaluation, without a gate.",
    ),
    click.option("--from", "previous", type=FILE, metavar="DIR", help="Output folder of that evaluation.  [default: the baseline file]"),
)
_REPORT_OPTIONS = (
    click.option("--junit", type=FILE, metavar="FILE", help="Write JUnit XML: newly broken items are failures."),
    click.option("--markdown", type=FILE, metavar="FILE", help="Write a report that fits into a GitHub comment."),
    click.option("--html", type=FILE, metavar="FILE", help="Write the report as one HTML page; -o writes one too."),
)
GATE_OPTIONS = ("gated", "min_drop", "floors", "lower_floors", "must_pass", "strict", "require_baseline", "allow_missing_baseline")


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
@click.option(
    "--evalset",
    "evalsets",
    multiple=True,
    metavar="[TASK=]FILE|NAME",
    help="Evalset, repeatable: a file, or a NAME of the task's evalsets; by default its first.",
)
@click.option(
    "--baseline", "baselines", multiple=True, metavar="[TASK=]FILE|MODEL", help="Baseline to compare with; exit 1 when significantly worse."
)
@click.option("--replies", multiple=True, metavar="[TASK=]FILE", help="Score stored replies instead of a model.")
@click.option(
    "--partial", "partial_replies", is_flag=True, help="Score the items that --replies FILE has replies to; no gate passes on a part."
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="DIR", help="Write report.json, report.html and replies.jsonl here."
)
@add_options(*_REPORT_OPTIONS)
@click.option("--overwrite", is_flag=True, help="Replace the report that DIR already holds.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Score only the first N rows of each evalset.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON instead of tables.")
@click.option("--fresh", is_flag=True, help="Generate all replies again, also cached ones.")
@click.option(
    "--self-check",
    is_flag=True,
    help="Generate 50 replies again, alone and in other batches; a drop within that variation is no regression.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of resampling and sampling.")
@click.option("--quiet", is_flag=True, help="No progress.")
@click.option(
    "--no-ledger",
    is_flag=True,
    envvar="SFTCHAT_NO_LEDGER",
    help="Do not record the results for 'sftchat history' (also SFTCHAT_NO_LEDGER=1).",
)
@add_options(*_GATE_OPTIONS, *_OTHER_OPTIONS)
@judging_options
@override_options
@answering_options
@click.pass_context
def command(
    ctx: click.Context, /, models: tuple[str, ...], names: tuple[str, ...], replies: tuple[str, ...], output: Path | None,
    overwrite: bool, as_json: bool, fresh: bool, self_check: bool, quiet: bool, evalsets: tuple[str, ...], baselines: tuple[str, ...],
    limit: int | None, seed: int, plan_only: bool, cluster: str, partial_replies: bool, no_ledger: bool, rescore: bool,
    policy_file: Path | None, **options: Any,
) -> None:  # fmt: skip
    """Score models against gold replies, compare them with a baseline, and report by the exit code whether they are good enough.

    \b
    sftchat eval run
    sftchat eval 'run/checkpoint-*' run
    sftchat eval run --update-baseline baseline.jsonl
    sftchat eval run --baseline baseline.jsonl --min f1=0.8 -o eval
    sftchat eval --task relation --replies eval/replies.jsonl
    sftchat eval run --task relation --task general --baseline sftchat:nano
    sftchat eval --policy gate.toml
    sftchat eval --task relation --rescore
    sftchat eval run --evalset gold.jsonl --judge MODEL --rubric rubric.toml

    Replies of the same weights are cached and not generated again; see 'sftchat cache'. Results are recorded; see 'sftchat history'.

    Exit codes: 0 fine, 1 a regression, a floor missed or a must-pass item wrong, 2 wrong usage, 3 some items were not answered,
    4 not comparable with the baseline, baseline missing, or inconclusive with --strict.
    """
    from sftchat.api.running import RunOptions, TaskInputs, plan_evaluation, run_evaluation
    from sftchat.evaluation.evalset import evalset_path
    from sftchat.evaluation.progress import show_progress
    from sftchat.evaluation.report.files import ReportFiles
    from sftchat.models.reference import expand_patterns

    session: Session = ctx.obj
    if rescore:
        check_rescore(ctx)
    files = ReportFiles(**{name: options.pop(name) for name in ("junit", "markdown", "html")})
    baseline_updates = options.pop("update_baseline")
    gate_options = _take_gate_options(options)
    selection = _take_selection(options, gate_options)
    policy = None if policy_file is None else _read_policy(policy_file, selection)
    uses_stored = policy is not None and not models and not replies and any(entry.replies for entry in policy.content.tasks)
    if policy is not None and not (models or replies or uses_stored):
        models = policy.models
    if not (plan_only or rescore or uses_stored):
        _require_one_source(models, replies)
    models = expand_patterns(models)
    overrides = take_overrides(options, [path for word in evalsets if (path := Path(word)).is_file()])
    excluded = {"--scorer": overrides.scorer is not None, "--self-check": self_check, "--baseline": baselines, "--plan": plan_only}
    excluded |= {"--policy": policy_file is not None, "--update-baseline": baseline_updates, "-k": (overrides.samples or 1) > 1}
    judge, against = take_judge(options, excluded, models)
    if judge is not None and not names:
        overrides = replace(overrides, scorer=judge.scorer)
    chosen = None if policy is None else choose_policy(policy, session.registry, names, overrides, uses_replies=uses_stored)
    tasks = choose_tasks(session.registry, names, models, overrides) if chosen is None else chosen.tasks
    if judge is not None and len(tasks) > 1:
        raise UsageError("--judge rates the replies of one --task at a time")
    if judge is not None and plan_only and replies:
        raise UsageError("--plan asks no judge; give --baseline FILE, written with this judge, instead of --replies")
    if any(task.thinking == "off" for task in tasks):
        options["template_arguments"] = {"enable_thinking": False, **options["template_arguments"]}
    task_options = TaskOptions(tasks, session.registry.tasks)
    evalsets_of, replies_of = task_options.by_task(evalsets, "--evalset"), task_options.one_each(replies, "--replies")
    baseline_of, gate_options_of = task_options.one_each(baselines, "--baseline", is_model), task_options.gate_options_of(gate_options)
    new_baseline_of = task_options.one_each(baseline_updates, "--update-baseline")
    if judge is not None:
        from sftchat.api.judges import identify_judge

        judge = identify_judge(session, judge, tasks[0].template, options)
    evalset_paths = {task.name: tuple(evalset_path(task, word) for word in evalsets_of[task.name]) for task in tasks}
    if chosen is not None:
        evalset_paths = {task.name: chosen.evalsets_of(task, evalset_paths[task.name]) for task in tasks}
        replies_of = {task.name: chosen.replies_of(task, replies_of[task.name]) for task in tasks}
        baseline_of = {task.name: chosen.baseline_of(task, baseline_of[task.name]) for task in tasks}
        gate_options_of = {task.name: chosen.gate_options_of(task, gate_options_of[task.name], baseline_of[task.name]) for task in tasks}
    inputs = [
        TaskInputs(
            task,
            evalset_paths[task.name],
            baseline_of[task.name] if against is None else against,
            Path(file) if (file := replies_of[task.name]) is not None else None,
            gate_options_of[task.name],
            new_baseline_of[task.name],
            judge,
        )
        for task in tasks
    ]
    run_options = RunOptions(
        output, overwrite, files, limit, seed, cluster, selection, self_check, partial_replies, fresh, not no_ledger, options
    )
    plans = plan_evaluation(session, models, inputs, run_options)
    for note in dict.fromkeys(note for plan in plans for evalset in plan.evalsets for note in evalset.notes):
        _echo(f"sftchat: {note}")
    if plan_only:
        _print_power(plans, as_json)
        return
    if rescore:
        ctx.exit(show_rescored(session, plans, options, as_json=as_json))
    watch = None if quiet else partial(show_progress, stderr())
    finished = run_evaluation(session, plans, inputs, run_options, watch=watch, say=lambda line: _echo(f"sftchat: {line}"), warn=_echo)
    if finished is None:
        return
    report, verdict = finished.report, finished.report.verdict
    assert verdict is not None
    if as_json:
        click.echo(report.to_json(), nl=False)
    else:
        from sftchat.evaluation.report.terminal import print_report

        print_report(report, stdout())
    for line in finished.lines:
        if not (quiet and line.startswith("report: ")):
            _echo(line)
    show_verdict(verdict, os.environ)
    for hook_error in finished.hook_errors:
        _echo(f"sftchat: warning: {in_one_line(hook_error)}; the verdict is not affected")
    ctx.exit(finished.exit_code)


def _echo(line: str) -> None:
    """Print a line on standard error."""
    click.echo(printable(line), err=True)


def _take_gate_options(options: dict[str, Any]) -> GateOptions:
    """Remove the gate options from a command's options and return them; raise ``UsageError`` when they contradict each other."""
    from sftchat.evaluation.gate_options import GateOptions

    gate_options = GateOptions(**{name: options.pop(name) for name in GATE_OPTIONS})
    gate_options.check()
    return gate_options


def _take_selection(options: dict[str, Any], gate_options: GateOptions) -> Selection | None:
    """Remove the options that select items and return the selection; None when all items are evaluated.

    Raises:
        UsageError: When a gate option is given too, because no gate is computed on a selection.
    """
    from sftchat.evaluation.selection import Selection

    ids, only, previous = (options.pop(name) for name in ("ids", "only", "previous"))
    if previous is not None and only is None:
        raise UsageError("--from says where --only looks; add --only newly-broken or --only failing")
    if (ids or only) and gate_options.options_in_use:
        raise UsageError(
            f"{'--ids' if ids else '--only'} evaluates a selection without a gate, and {gate_options.options_in_use[0]} demands one; "
            "leave one of them out"
        )
    return Selection(ids, only, previous) if ids or only else None


def _read_policy(path: Path, selection: Selection | None) -> Policy:
    """Read a policy file; raise ``UsageError`` when only selected items are evaluated, for which there is no gate."""
    from sftchat.evaluation.policy import load_policy

    if selection is not None:
        raise UsageError("--policy states a gate, and --ids and --only evaluate a selection without one; leave one of them out")
    return load_policy(path)


def _print_power(plans: Sequence[Plan], as_json: bool) -> None:
    """Print the smallest drop that each evalset can detect; raise ``UsageError`` when there are no stored replies to compute it from."""
    from sftchat.evaluation.power import effect_lines, minimum_detectable_effects

    effects = minimum_detectable_effects(plans)
    if as_json:
        click.echo(json_text([vars(effect) for effect in effects], sort_keys=True))
        return
    for effect in effects:
        for line in effect_lines(effect):
            click.echo(line)


def show_verdict(verdict: Verdict, environment: Mapping[str, str]) -> None:
    """Print the reasons and then the verdict on standard error, the verdict in its colour.

    Args:
        verdict: The verdict.
        environment: Environment variables; ``NO_COLOR`` (https://no-color.org) turns colours off.
    """
    from sftchat.evaluation.gate import COLOURS

    for line in verdict.reasons:
        _echo(line)
    for line in verdict.lines[len(verdict.reasons) :]:
        click.secho(printable(line), err=True, fg=COLOURS[verdict.tone], color=False if environment.get("NO_COLOR") else None)


def _require_one_source(models: Sequence[str], replies: Sequence[str]) -> None:
    """Raise ``UsageError`` unless replies come from either models or files."""
    if not replies and not models:
        raise UsageError("nothing to score: give a MODEL, or --replies FILE for stored replies")
    if replies and models:
        raise UsageError(f"--replies scores stored replies and would not ask MODEL '{models[0]}'; leave one of them out")
