"""``sftchat.evaluate``: score models on rows, compare them with a baseline, and return a report."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from sftchat.api.judges import identify_judge, read_judge
from sftchat.api.model import Model, make_sampling
from sftchat.api.report import EvaluationReport
from sftchat.api.rows import Rows, to_rows
from sftchat.api.running import RunOptions, TaskInputs, plan_evaluation, run_evaluation
from sftchat.api.session import Session
from sftchat.data.row_options import RowOptions, options_for_task
from sftchat.data.task_file import make_task
from sftchat.data.task_overrides import TaskOverrides
from sftchat.engine import Engine
from sftchat.errors import EngineError, UsageError
from sftchat.evaluation.evalset import Evalset, evalset_from_rows, evalset_path
from sftchat.evaluation.gate_options import MIN_DROP, GateOptions
from sftchat.evaluation.judge import Judge
from sftchat.evaluation.report.files import ReportFiles
from sftchat.evaluation.task_run import Watch
from sftchat.inference.open import AdapterEngine
from sftchat.models.manifest import trained_tasks
from sftchat.models.reference import expand_patterns
from sftchat.scorers import make_scorer
from sftchat.scorers.base import Scorer
from sftchat.scorers.combine import function
from sftchat.scorers.consent import code_allowed
from sftchat.task import Task
from sftchat.types import Example, Reply

ModelLike = str | os.PathLike[str] | Model | Engine
"""MODEL as on the command line, a run, a loaded model, or an engine."""
ScorerLike = str | Mapping[str, Any] | Scorer | Callable[[Example, Reply], Any]
"""Name of a scorer, its name and arguments, a scorer, or a function of an example and a reply that returns a bool, a number or a ``Score``."""


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
    allow_code: bool = False,
    system: str | None = None,
    prompt: str = "",
    columns: Mapping[str, str] | None = None,
    few_shot: int | None = None,
    samples: int | None = None,
    thinking: Literal["drop", "keep", "off"] | None = None,
    raw_prompt: bool = False,
    sampling: Mapping[str, Any] | None = None,
    gate: Sequence[str] = (),
    min_drop: float = MIN_DROP,
    floors: Mapping[str, float] | None = None,
    lower_floors: Mapping[str, float] | None = None,
    must_pass: Sequence[str] = (),
    strict: bool = False,
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
    **engine_options: Any,
) -> EvaluationReport:
    """Score models on an evalset, compare them with a baseline, and decide as ``sftchat eval`` does.

    Args:
        models: One model or several; empty to score ``replies``.
        evalset: File, name of one of the task's evalsets, or rows; the task's first evalset by default.
        task: Name of a task, task file or ``Task``; not needed with ``scorer``, nor for a model that was trained on a task.
        scorer: Scorer instead of the task's.
        baseline: Model or file to compare with.
        replies: File of stored replies to score instead of models.
        judge: Model that rates the replies by ``rubric``, or compares them with those of ``against``, instead of a scorer.
        rubric: File of the rubric.
        against: Model or file of replies to compare with, by the judge.
        allow_code: Whether a scorer may run code that the models wrote.
        system: System prompt of the rows that have none.
        prompt: Template of the prompt over the columns of a row, such as ``Summarise: {text}``.
        columns: The column to read under a name, such as ``{"gold": "label"}``.
        few_shot: Number of few-shot examples before each item.
        samples: Number of replies to each item; above 1 with a temperature.
        thinking: What the scorer gets of a reply with thoughts, see ``Task``.
        raw_prompt: Whether prompts are sent without a chat template.
        sampling: Sampling parameters by their names in ``SamplingParams``, such as ``{"max_new_tokens": 32}``.
        gate: Metrics to compare, as ``METRIC`` or ``METRIC=MARGIN`` in points; the primary one by default.
        min_drop: A drop of fewer points is no regression.
        floors: Minimum value by metric.
        lower_floors: Minimum lower bound of the interval by metric.
        must_pass: Ids of items that must be right.
        strict: Whether an inconclusive comparison does not pass.
        update_baseline: Baseline file to write.
        output: Folder for report and replies.
        overwrite: Whether to replace a report in that folder.
        limit: Maximum number of rows.
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
    session = session or Session()
    single = isinstance(models, (str, os.PathLike, Model, Engine))
    loaded = _LoadedModels(session)
    given = models if isinstance(models, Iterable) and not single else (models,)
    names = expand_patterns([loaded.name(model) for model in given])
    rater = _read_judge(judge, rubric, None if against is None else loaded.name(against), scorer, baseline)
    overrides = TaskOverrides(
        system=system,
        prompt=prompt,
        columns=columns or {},
        few_shot=few_shot,
        samples=samples,
        thinking=thinking,
        raw_prompt=raw_prompt,
        sampling=vars_of_sampling(sampling or {}),
        scorer=_scorer_of(scorer, None if rater is None or task is not None else rater.scorer, allow_code),
    )
    with code_allowed() if allow_code else nullcontext():
        chosen = overrides.apply(_choose_task(session, task, overrides.scorer, names))
    if chosen.thinking == "off":
        engine_options["template_arguments"] = {"enable_thinking": False, **engine_options.get("template_arguments", {})}
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
        () if evalset is None else (_to_evalset(chosen, evalset),),
        None if (reference := baseline if against is None else against) is None else loaded.name(reference),
        None if replies is None else Path(replies),
        gate_options,
        None if update_baseline is None else os.fspath(update_baseline),
        None if rater is None else identify_judge(session, rater, chosen.template, engine_options),
    )
    options = RunOptions(
        output=None if output is None else Path(output), overwrite=overwrite, files=ReportFiles(), limit=limit, seed=seed, cluster=cluster,
        self_check=self_check, fresh=fresh, ledger=ledger, engine=engine_options,
    )  # fmt: skip
    if bool(names) == (replies is not None):
        raise UsageError("give models to evaluate, or replies=FILE for stored replies" + (", not both" if names else ""))
    plans = plan_evaluation(session, names, [inputs], options)
    finished = run_evaluation(loaded.session, plans, [inputs], options, watch=_watch(progress))
    if finished is None:
        raise UsageError("only the first process has the report; call sftchat.evaluate in one process")
    return EvaluationReport(finished.report)


def vars_of_sampling(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return sampling parameters after checking their names and values; raise ``UsageError`` for a wrong one."""
    make_sampling(values)
    return dict(values)


def to_scorer(scorer: ScorerLike) -> Scorer:
    """Return a scorer.

    Args:
        scorer: See ``ScorerLike``.

    Raises:
        UsageError: When there is no such scorer, an argument of it is wrong, or it is something else.
    """
    if isinstance(scorer, Scorer):
        return scorer
    if isinstance(scorer, str):
        return make_scorer(scorer)
    if isinstance(scorer, Mapping):
        arguments = dict(scorer)
        return make_scorer(str(arguments.pop("name", "")), arguments)
    if callable(scorer):
        return function(scorer)
    raise UsageError(f"scorer is {type(scorer).__name__}, must be a name, a dict with name and arguments, a scorer or a function")


def _scorer_of(scorer: ScorerLike | None, judged: Scorer | None, allow_code: bool) -> Scorer | None:
    """Return the scorer of the replies, or that of the verdicts of a judge."""
    if scorer is None:
        return judged
    with code_allowed() if allow_code else nullcontext():
        return to_scorer(scorer)


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
    return evalset_from_rows(to_rows(evalset), row_options=options_for_task(task, RowOptions()))


@dataclass
class _LoadedModels:
    """Names the models of an evaluation, and serves those that are loaded already from memory.

    Attributes:
        given: Session that opens the others.
        loaded: Loaded models by name.
    """

    given: Session
    loaded: dict[str, Model] = field(default_factory=dict)

    def name(self, model: Any) -> str:
        """Return the name of a model for the report, and remember it if it is loaded."""
        if isinstance(model, (str, os.PathLike)):
            return os.fspath(model)
        if not isinstance(model, Model) and not isinstance(model, Engine):
            raise UsageError(f"model is {type(model).__name__}, must be a MODEL, a run, a loaded model or an engine")
        self.loaded[model.name] = model if isinstance(model, Model) else Model(model.name, model, {})
        return model.name

    @property
    def session(self) -> Session:
        """The session, or one that serves the loaded models from memory."""
        return _SessionWithLoaded(self.given, self.loaded) if self.loaded else self.given


class _SessionWithLoaded(Session):
    """A session in which some models are loaded already; they stay open.

    Args:
        given: Session for the other models.
        loaded: Loaded models by name.
    """

    def __init__(self, given: Session, loaded: Mapping[str, Model]) -> None:
        super().__init__(given.open_engine, given.registry, given.identify_engine)
        self._given = given
        self._loaded = loaded

    def engine_pool(self) -> Any:
        """Return a pool that serves the loaded models, and opens the others."""
        return _PoolWithLoaded(self._given.engine_pool(), self._loaded)

    def check_model(self, model: str, **options: Any) -> None:
        """Check models that are not loaded."""
        if model not in self._loaded:
            self._given.check_model(model, **options)

    def identify(self, model: str, **options: Any) -> str:
        """Identify a loaded model by the options with which it was opened; an engine without a MODEL has no identity."""
        loaded = self._loaded.get(model)
        if loaded is None:
            return self._given.identify(model, **options)
        kept = {name: options[name] for name in ("hashed", "preferred") if name in options}
        try:
            self._given.check_model(model)
        except Exception as error:
            if not isinstance(error, (UsageError, EngineError)):
                raise
            return ""
        return self._given.identify(model, **kept, **loaded.options)


@dataclass
class _PoolWithLoaded:
    pool: Any
    loaded: Mapping[str, Model]

    def __call__(self, model: str, **options: Any) -> Engine:
        loaded = self.loaded.get(model)
        return AdapterEngine(model, loaded.engine, "") if loaded is not None else self.pool(model, **options)

    def close(self) -> None:
        self.pool.close()


def _watch(progress: bool | None) -> Watch | None:
    """Return how progress is shown; None for not at all."""
    from sftchat._util.consoles import GuardedConsole, shows_progress

    console = GuardedConsole(sys.stderr)
    if not shows_progress(console, progress):
        return None
    from sftchat.evaluation.progress import show_progress

    return partial(show_progress, console)
