"""``sftchat.evaluate``: score models on rows, compare them with a baseline, and return a report."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Literal, Unpack

from sftchat.api.judges import identify_judge, read_judge
from sftchat.api.loaded import LoadedModels
from sftchat.api.model import Model
from sftchat.api.options import EngineOptions, SamplingOptions, check_choice, check_count, check_engine_options, make_sampling
from sftchat.api.report import EvaluationReport
from sftchat.api.rows import Rows, to_rows
from sftchat.api.running import RunOptions, TaskInputs, plan_evaluation, run_evaluation
from sftchat.api.scoring import ScorerLike, to_scorer, with_labels
from sftchat.api.session import Session
from sftchat.api.wording import for_python, in_python
from sftchat.data.row_options import RowOptions, options_for_task
from sftchat.data.task_file import make_task
from sftchat.data.task_overrides import TaskOverrides
from sftchat.engine import Engine
from sftchat.errors import UsageError, in_one_line
from sftchat.evaluation.evalset import Evalset, evalset_from_rows, evalset_path, scores_texts
from sftchat.evaluation.gate_options import MIN_DROP, GateOptions
from sftchat.evaluation.judge import Judge
from sftchat.evaluation.report.files import ReportFiles
from sftchat.evaluation.task_run import Watch
from sftchat.models.manifest import trained_tasks
from sftchat.models.reference import expand_patterns
from sftchat.scorers.base import Scorer
from sftchat.scorers.consent import code_allowed
from sftchat.task import Task

ModelLike = str | os.PathLike[str] | Model | Engine
"""MODEL as on the command line, a run, a loaded model, or an engine."""


@for_python
def evaluate(
    models: ModelLike | Sequence[ModelLike] = (),
    evalset: str | os.PathLike[str] | Rows | None = None,
    *,
    task: str | os.PathLike[str] | Task | None = None,
    scorer: ScorerLike | None = None,
    baseline: ModelLike | None = None,
    replies: str | os.PathLike[str] | None = None,
    judge: str | os.PathLike[str] | None = None,
    rubric: str | os.PathLike[str] | None = None,
    against: ModelLike | None = None,
    system: str | None = None,
    prompt: str = "",
    columns: Mapping[str, str] | None = None,
    few_shot: int | None = None,
    samples: int | None = None,
    thinking: Literal["drop", "keep", "off"] | None = None,
    raw_prompt: bool = False,
    sampling: SamplingOptions | None = None,
    gate: Sequence[str] = (),
    min_drop: float = MIN_DROP,
    floors: Mapping[str, float] | None = None,
    lower_floors: Mapping[str, float] | None = None,
    must_pass: Sequence[str] = (),
    strict: bool = False,
    allow_code: bool = False,
    update_baseline: str | os.PathLike[str] | None = None,
    output: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    limit: int | None = None,
    seed: int = 0,
    cluster: str = "",
    self_check: bool = False,
    fresh: bool = False,
    ledger: bool = True,
    progress: bool | None = None,
    session: Session | None = None,
    **engine_options: Unpack[EngineOptions],
) -> EvaluationReport:
    """Score models on an evalset, compare them with a baseline, and decide as ``sftchat eval`` does.

    Args:
        models: One model or several with different names; empty to score ``replies``.
        evalset: File, name of one of the task's evalsets, or rows; the task's first evalset by default.
        task: Name of a task, task file or ``Task``; not needed with ``scorer``, nor for a model that was trained on a task.
        scorer: Scorer instead of the task's, see ``ScorerLike``; the labels of ``choice`` are by default the gold replies of the rows.
        baseline: Model or file to compare with.
        replies: File of stored replies to score instead of models.
        judge: Model that rates the replies by ``rubric``, or compares them with those of ``against``, instead of a scorer.
        rubric: File of the rubric.
        against: Model or file of replies to compare with, by the judge.
        system: System prompt of the rows that have none.
        prompt: Template of the prompt over the columns of a row, such as ``Summarise: {text}``.
        columns: The column to read under a name, such as ``{"gold": "label"}``.
        few_shot: Number of few-shot examples before each item.
        samples: Number of replies to each item; above 1 with a temperature.
        thinking: What the scorer gets of a reply with thoughts, see ``Task``.
        raw_prompt: Whether prompts are sent without a chat template.
        sampling: Sampling parameters, such as ``{"max_new_tokens": 32}``; those of the task, or greedy with at most 256 tokens, by default.
        gate: Metrics to compare, as ``METRIC`` or ``METRIC=MARGIN`` in points; the primary one by default.
        min_drop: A drop of fewer points is no regression; 0 or more.
        floors: Minimum value by metric.
        lower_floors: Minimum lower bound of the interval by metric.
        must_pass: Ids of items that must be right.
        strict: Whether an inconclusive comparison does not pass.
        allow_code: Whether a scorer may run code that the model wrote, see the scorer ``python_tests``.
        update_baseline: Baseline file to write.
        output: Folder for report and replies.
        overwrite: Whether to replace a report in that folder.
        limit: Maximum number of rows, at least 1.
        seed: Seed of resampling and sampling.
        cluster: Metadata key of rows that belong together.
        self_check: Whether to generate some replies again, to measure their variation.
        fresh: Whether to generate cached replies again.
        ledger: Whether to record the result for ``sftchat history``.
        progress: Whether to show progress on standard error; by default on a terminal and in a notebook.
        session: Plugins and engines; those that are installed by default.
        engine_options: Options for opening models, as for ``sftchat.load``.

    Raises:
        UsageError: When arguments contradict each other or do not fit the rows.
        DataError: When rows or a file are malformed.
        ModelError: When a model cannot be found or loaded.
        EngineError: When a model cannot generate any more.
        NotComparableError: When the baseline measured something else, or is missing.
        PluginError: When a scorer or a metric breaks its contract.
    """
    for name, value, minimum in (("limit", limit, 1), ("few_shot", few_shot, 0), ("samples", samples, 1), ("seed", seed, 0)):
        check_count(name, value, minimum)
    check_choice("thinking", thinking, (None, "drop", "keep", "off"))
    opening: dict[str, Any] = check_engine_options(engine_options)
    session = session or Session()
    single = isinstance(models, (str, os.PathLike, Model, Engine))
    loaded = LoadedModels(session)
    given = models if isinstance(models, Iterable) and not single else (models,)
    names = expand_patterns([loaded.name(model) for model in given])
    if repeated := [name for name in names if names.count(name) > 1]:
        raise UsageError(f"two models are named '{repeated[0]}'; evaluate each in a call of its own")
    baseline_name, against_name = (None if given is None else loaded.name(given) for given in (baseline, against))
    rater = _read_judge(judge, rubric, against_name, scorer, baseline)
    if opening and rater is None and loaded.serves({*names, *filter(None, [baseline_name])}):
        raise UsageError(f"the models are loaded already; give {', '.join(opening)} to sftchat.load")
    rows = to_rows(evalset) if evalset is not None and not isinstance(evalset, (str, os.PathLike)) else None
    row_options = RowOptions(columns=columns or {}, prompt=prompt)
    with code_allowed() if allow_code else nullcontext():
        chosen_scorer = None if scorer is None else to_scorer(with_labels(scorer, evalset if rows is None else rows, row_options))
    if rater is not None and task is None:
        chosen_scorer = rater.scorer
    overrides = TaskOverrides(
        system=system,
        prompt=prompt,
        columns=columns or {},
        few_shot=few_shot,
        samples=samples,
        thinking=thinking,
        raw_prompt=raw_prompt,
        sampling={name: getattr(make_sampling(sampling or {}), name) for name in sampling or {}},
        scorer=chosen_scorer,
    )
    with code_allowed() if allow_code else nullcontext():
        chosen = overrides.apply(_choose_task(session, task, overrides.scorer, names))
    if chosen.thinking == "off":
        opening["template_arguments"] = {"enable_thinking": False, **(opening.get("template_arguments") or {})}
    gate_options = GateOptions(
        gated=tuple(gate),
        min_drop=min_drop,
        floors=tuple(f"{name}={value}" for name, value in (floors or {}).items()),
        lower_floors=tuple(f"{name}={value}" for name, value in (lower_floors or {}).items()),
        must_pass=tuple(must_pass),
        strict=strict,
    )
    inputs = TaskInputs(
        chosen,
        () if evalset is None else (_to_evalset(chosen, evalset if rows is None else rows),),
        baseline_name or against_name,
        None if replies is None else Path(replies),
        gate_options,
        None if update_baseline is None else os.fspath(update_baseline),
        None if rater is None else identify_judge(session, rater, chosen.template, opening),
    )
    options = RunOptions(
        output=None if output is None else Path(output), overwrite=overwrite, files=ReportFiles(), limit=limit, seed=seed, cluster=cluster,
        self_check=self_check, fresh=fresh, ledger=ledger, engine=opening,
    )  # fmt: skip
    if bool(names) == (replies is not None):
        raise UsageError("give models to evaluate, or replies=FILE for stored replies" + (", not both" if names else ""))
    plans = plan_evaluation(session, names, [inputs], options)
    shown = _Lines(progress)
    for note in dict.fromkeys(note for plan in plans for read in plan.evalsets for note in read.notes):
        shown.add(note)
    warnings: list[str] = []
    try:
        finished = run_evaluation(loaded.session, plans, [inputs], options, watch=shown.watch, say=shown.add, warn=warnings.append)
    except BaseException as error:
        for line in warnings:
            error.add_note(in_python(line))
        raise
    if finished is None:
        raise UsageError("only the first process has the report; call sftchat.evaluate in one process")
    for line in (*warnings, *finished.lines, *map(in_one_line, finished.hook_errors)):
        shown.add(line)
    return EvaluationReport(finished.report, shown.lines)


def _read_judge(judge: Any, rubric: Any, against: str | None, scorer: Any, baseline: Any) -> Judge | None:
    """Return the judge, not identified yet; None without one.

    Raises:
        UsageError: When an argument is missing, or another excludes it.
        DataError: When the rubric cannot be read.
    """
    if judge is None:
        if rubric is not None or against is not None:
            raise UsageError(f"{'rubric' if rubric is not None else 'against'} is for a judge; give judge=MODEL")
        return None
    if scorer is not None or (against is not None and baseline is not None):
        raise UsageError("a judge takes the place of the scorer, and against that of the baseline; leave one of them out")
    return read_judge(os.fspath(judge), None if rubric is None else Path(rubric), against)


def _choose_task(session: Session, task: str | os.PathLike[str] | Task | None, scorer: Scorer | None, models: Sequence[str]) -> Task:
    if isinstance(task, Task):
        return task
    if task is not None:
        return session.registry.task(os.fspath(task))
    if scorer is not None:
        return make_task(scorer.name, scorer)
    trained = set(trained_tasks(models).values())
    if len(trained) == 1:
        return session.registry.task(trained.pop())
    raise UsageError("give a task or a scorer" + (": the models were trained on different tasks" if trained else ""))


def _to_evalset(task: Task, evalset: Any) -> Path | Evalset:
    if isinstance(evalset, (str, os.PathLike)):
        return evalset_path(task, os.fspath(evalset))
    return evalset_from_rows(evalset, row_options=options_for_task(task, RowOptions()), texts=scores_texts(task))


class _Lines:
    """The lines for the user of one evaluation; they are shown where progress is.

    Args:
        progress: See ``evaluate``.
    """

    def __init__(self, progress: bool | None) -> None:
        from sftchat._util.consoles import GuardedConsole, shows_progress

        self._console = GuardedConsole(sys.stderr)
        self._shown = shows_progress(self._console, progress)
        self.lines: list[str] = []

    def add(self, line: str) -> None:
        """Keep a line, and show it."""
        line = in_python(line)
        self.lines.append(line)
        if self._shown:
            self._console.print(line, soft_wrap=True)

    @property
    def watch(self) -> Watch | None:
        """How progress is shown; None for not at all."""
        from sftchat.evaluation.progress import show_progress

        return partial(show_progress, self._console) if self._shown else None
