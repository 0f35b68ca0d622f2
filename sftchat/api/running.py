"""Plan and run an evaluation of one or several tasks, with all its files; ``sftchat eval`` and ``sftchat.evaluate`` are made of these steps."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from sftchat.api.session import Session
from sftchat.errors import ModelError, PluginError, UsageError
from sftchat.evaluation.baseline import similar_file_hint
from sftchat.evaluation.evalset import Evalset
from sftchat.evaluation.gate import COULD_NOT_JUDGE, PASSED
from sftchat.evaluation.gate_options import GateOptions
from sftchat.evaluation.judge import Judge
from sftchat.evaluation.ledger import Ledger
from sftchat.evaluation.ledger_file import ledger_path
from sftchat.evaluation.pipeline import Evaluation, ignore_line
from sftchat.evaluation.plan import Plan, check_output, make_plan
from sftchat.evaluation.report.files import PAGE_NAME, ReportFiles, check_not_read, write_reports
from sftchat.evaluation.report.view import Report
from sftchat.evaluation.selection import REPORT, Selection
from sftchat.evaluation.task_run import Say, Watch
from sftchat.evaluation.update_baseline import check_updates, update_baselines
from sftchat.models.reference import resolve
from sftchat.task import Task
from sftchat.text import pluralize


@dataclass(frozen=True)
class TaskInputs:
    """What is evaluated with one task.

    Attributes:
        task: The task, with the changes for this evaluation.
        evalsets: Evalsets, as files or read; the task's first one when empty.
        baseline: MODEL, or a file of replies or a baseline, to compare with.
        replies: File of stored replies to score instead of models.
        gate_options: Gate options of this task.
        new_baseline: Baseline file to write.
        judge: Judge that scores instead of the task's scorer, or compares with the baseline's replies.
    """

    task: Task
    evalsets: tuple[Path | Evalset, ...] = ()
    baseline: str | None = None
    replies: Path | None = None
    gate_options: GateOptions = field(default_factory=GateOptions)
    new_baseline: str | None = None
    judge: Judge | None = None


@dataclass(frozen=True)
class RunOptions:
    """What all tasks of an evaluation have in common.

    Attributes:
        output: Folder of the report and the replies.
        overwrite: Whether a report in that folder is replaced.
        files: Further report files.
        limit: Maximum number of rows of each evalset.
        seed: Seed of resampling and sampling.
        cluster: Metadata key of items that belong together; empty for independent items.
        selection: Restriction to some items, without a gate.
        self_check: Whether some replies are generated again.
        partial: Whether only the items with a stored reply are scored.
        fresh: Whether cached replies are generated again.
        ledger: Whether the results are recorded in the ledger of ``sftchat history``.
        engine: Options of ``sftchat.inference.open.load_engine``.
    """

    output: Path | None = None
    overwrite: bool = False
    files: ReportFiles = field(default_factory=ReportFiles)
    limit: int | None = None
    seed: int = 0
    cluster: str = ""
    selection: Selection | None = None
    self_check: bool = False
    partial: bool = False
    fresh: bool = False
    ledger: bool = True
    engine: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Finished:
    """A finished evaluation.

    Attributes:
        report: The report, with a verdict.
        lines: Lines for the user on written and kept files.
        hook_errors: Errors of plugins that were told of the report.
        exit_code: Exit code of ``sftchat eval``: that of the verdict, or ``COULD_NOT_JUDGE`` when a plugin failed and ``--strict`` was given.
    """

    report: Report
    lines: tuple[str, ...]
    hook_errors: tuple[PluginError, ...]
    exit_code: int


def plan_evaluation(session: Session, models: Sequence[str], inputs: Sequence[TaskInputs], options: RunOptions) -> list[Plan]:
    """Read evalsets, baselines and replies, and check that they fit together; no model is opened.

    Args:
        session: Registry of the tasks.
        models: MODEL arguments; none when replies are given.
        inputs: One entry per task, at least one, with different names.
        options: Common options.

    Raises:
        UsageError: When options contradict each other or do not fit the items.
        DataError: When a file is missing, malformed, or does not fit.
        NotComparableError: When a baseline measured something else, or is missing.
    """
    has_replies = [task_inputs.replies is not None for task_inputs in inputs]
    if any(has_replies) and not all(has_replies):
        raise UsageError("--replies must be given for every --task, or for none")
    if options.self_check and any(has_replies):
        raise UsageError("--self-check asks a model again, and --replies asks none; leave one of them out")
    if options.selection is not None and len(inputs) > 1:
        raise UsageError("--ids and --only evaluate one --task at a time")
    for task_inputs in inputs:
        task_inputs.gate_options.check()
        if options.self_check and task_inputs.task.samples > 1:
            raise UsageError("--self-check repeats one reply to each item; leave out -k")
    if options.output is not None:
        check_output(options.output, overwrite=options.overwrite)
    return [
        make_plan(
            task_inputs.task,
            models,
            evalset_sources=task_inputs.evalsets,
            baseline=task_inputs.baseline,
            replies=task_inputs.replies,
            limit=options.limit,
            seed=options.seed,
            output=options.output,
            gate_options=task_inputs.gate_options,
            cluster=options.cluster,
            selection=options.selection,
            label=f".{task_inputs.task.name}" if len(inputs) > 1 else "",
            self_check=options.self_check,
            partial=options.partial,
            tasks=session.registry.tasks,
            judge=task_inputs.judge,
        )
        for task_inputs in inputs
    ]


def run_evaluation(
    session: Session,
    plans: Sequence[Plan],
    inputs: Sequence[TaskInputs],
    options: RunOptions,
    *,
    watch: Watch | None = None,
    say: Say = ignore_line,
    warn: Say = ignore_line,
) -> Finished | None:
    """Run planned evaluations: check files and models, generate, score, compare, write reports and baselines, and call the hooks of plugins.

    Args:
        session: Opens and identifies models.
        plans: Result of ``plan_evaluation``.
        inputs: As for ``plan_evaluation``.
        options: As for ``plan_evaluation``.
        watch: Shows progress; None shows nothing.
        say: Called with a line for the user on what happens now.
        warn: Called with a line on replies that are kept after an error, and on a file that could not be written.

    Returns:
        None in every process but the first, if there are several.

    Raises:
        UsageError: When an option needs a baseline, or a file cannot be written.
        ModelError: When a model cannot be found or loaded.
        EngineError: When a model cannot generate any more.
        NotComparableError: When a baseline was counted by another scorer.
        PluginError: When a scorer or a metric breaks its contract.
    """
    needing_baseline = tuple(dict.fromkeys(name for task_inputs in inputs for name in task_inputs.gate_options.baseline_options))
    if needing_baseline and all(task_inputs.baseline is None for task_inputs in inputs):
        raise UsageError(f"{' and '.join(needing_baseline)} need{'' if len(needing_baseline) > 1 else 's'} --baseline FILE")
    new_baselines = {task_inputs.task.name: task_inputs.new_baseline for task_inputs in inputs}
    updates = any(new_baselines.values())
    if updates:
        check_updates(new_baselines, plans, options.limit)
        if options.partial:
            raise UsageError("--update-baseline needs every item; leave out --partial")
    _resolve_models(session, plans, options.engine)
    read_files = _read_files(inputs)
    with options.files.prepare(read_files):
        if options.output is not None:
            sources = [source for plan in plans for source in (plan.baseline, *plan.sources) if source is not None]
            check_not_read(options.output, (REPORT, PAGE_NAME, *(source.file for source in sources)), read_files)
        engines = session.engine_pool()
        ledger = Ledger(ledger_path(), say) if options.ledger else None
        evaluation = Evaluation(plans, engines, session.identify, options.engine, fresh=options.fresh, watch=watch, say=say, ledger=ledger)
        try:
            with closing(engines):
                report = evaluation.run()
        except BaseException as error:  # the caller reports it; here only where the replies are
            for line in evaluation.kept_lines(error):
                warn(line)
            raise
        if report is None:
            return None
        assert report.verdict is not None
        write_reports(report, report.verdict, options.files, options.output, os.environ, warn)
    lines = [f"report: {options.output / PAGE_NAME}"] if options.output is not None else []
    if updates:
        engine = options.engine
        find = partial(resolve, base=engine.get("base"), schemes=session.registry.engines, allow_pickle=engine.get("allow_pickle", False))
        lines += update_baselines(new_baselines, plans, report, find)
    for path, count in evaluation.partial_files.items() if any(plan.models for plan in plans) else ():
        kept = pluralize(count, "reply", "replies")
        lines.append(f"{kept} kept in {path}; the same command with --overwrite asks only for the others")
    hook_errors = tuple(session.registry.eval_finished(report, options.output))
    exit_code = report.verdict.exit_code
    if hook_errors and exit_code == PASSED and any(task_inputs.gate_options.strict for task_inputs in inputs):
        exit_code = COULD_NOT_JUDGE
    return Finished(report, tuple(lines), hook_errors, exit_code)


def _read_files(inputs: Sequence[TaskInputs]) -> list[Path]:
    """Return the files that an evaluation reads, and must not write."""
    files: list[Path] = []
    for task_inputs in inputs:
        files += [evalset for evalset in task_inputs.evalsets if isinstance(evalset, Path)]
        files += task_inputs.task.evalsets.values()
        files += [Path(name) for name in (task_inputs.baseline, task_inputs.replies) if name is not None]
    return files


def _resolve_models(session: Session, plans: Sequence[Plan], engine: Mapping[str, Any]) -> None:
    """Resolve every MODEL by names and files only, so that a misspelt second model is reported before the first one is evaluated."""
    for plan in plans:
        for model in plan.models:
            try:
                session.check_model(model, base=engine.get("base"), allow_pickle=engine.get("allow_pickle", False))
            except (UsageError, ModelError) as error:
                if plan.baseline is None or plan.baseline.name != model:
                    raise
                option = "--against" if plan.judge is not None and plan.judge.pairwise else "--baseline"
                raise UsageError(f"{option} '{model}' is no file{similar_file_hint(model)} and no MODEL: {error}") from error
