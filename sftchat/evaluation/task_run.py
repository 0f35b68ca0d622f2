"""The evaluation of one task: generate or read the replies of every model, score them or have them judged, compare."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass, field, replace

from sftchat._util.files import write_atomically
from sftchat.evaluation.baseline import check_counts
from sftchat.evaluation.cached_engine import CachedEngine
from sftchat.evaluation.checks import check_leaks, check_repeatability, rank_checkpoints
from sftchat.evaluation.evalset import Evalset
from sftchat.evaluation.evaluate import OnOutcome, Scorer, compare, generate_outcomes, score_stored, summarise
from sftchat.evaluation.judge import JudgeSummary
from sftchat.evaluation.judge_phase import JudgePhase
from sftchat.evaluation.judging import answering_task
from sftchat.evaluation.partial_replies import PartialReplies, partial_path
from sftchat.evaluation.plan import Plan, Source
from sftchat.evaluation.replies import outcome_line
from sftchat.evaluation.reply_cache import ReplyCache
from sftchat.evaluation.report.view import Report
from sftchat.evaluation.results import ModelResult, Ranked, SelfCheck
from sftchat.evaluation.samples import requests_of
from sftchat.evaluation.scored import ScoredItems, collect_outcomes
from sftchat.models.manifest import find_manifest

OpenEngine = Callable[[str], CachedEngine]
"""Opens a model by the name the user typed."""
Watch = Callable[[str, int, Callable[[], int]], AbstractContextManager[OnOutcome]]
"""Shows progress while a block runs. Called with a title, the number of items, and a function that returns how many replies so far were cached;
yields a callback for every outcome."""
Say = Callable[[str], None]
"""Called with a line for the user."""


@dataclass(frozen=True)
class _EvalsetReplies:
    """Scored replies of a model to one evalset; the fields are those of ``ModelResult``."""

    items: ScoredItems
    seconds: float | None = None
    cached: int = 0
    self_check: SelfCheck | None = None


@dataclass
class TaskRun:
    """The evaluation of one task.

    The contexts in ``stack`` stay open until the report is written. ``stored`` has the scored replies of the sources that are files, by
    ``Source.file``, one entry per evalset.
    """

    plan: Plan
    open_engine: OpenEngine
    watch: Watch
    cache: ReplyCache | None
    say: Say
    stack: ExitStack
    open_judge: OpenEngine | None = None
    stored: dict[str, list[_EvalsetReplies]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        plan = self.plan
        self.phase: JudgePhase | None = None
        self.task = plan.task
        if plan.judge is not None and self.open_judge is not None:
            self.phase = JudgePhase(plan.judge, plan.task, self.open_judge, self.watch, self.stack, plan.output, self.say)
            self.task = answering_task(plan.task)
        self.scorer = Scorer(self.task, caches=plan.baseline is not None and bool(plan.models))

    def run(self) -> Report:
        """Evaluate, compare and rank the models; the report has no gate results and no verdict yet."""
        plan = self.plan
        self._score_stored()
        judge = self._judge(self.phase) if self.phase is not None else None
        baselines = self._results(plan.baseline) if plan.baseline else ()
        results_by_source = [self._results(source) for source in plan.sources]
        comparisons = []
        for results in results_by_source:
            removed = plan.removed  # ids that belong to no evalset are reported with the first one
            for old, new in zip(baselines, results, strict=False):  # without a baseline there is nothing to compare
                comparisons.append(compare(old, new, plan.task, seed=plan.seed, removed=removed))
                removed = ()
        all_results = tuple(result for results in results_by_source for result in results)
        remarks = (*plan.remarks, *(judge.lines if judge is not None else ()))
        rankings = self._rankings(results_by_source)
        return Report(plan.task.name, all_results, baselines, tuple(comparisons), rankings=rankings, remarks=remarks, judge=judge)

    def _judge(self, phase: JudgePhase) -> JudgeSummary:
        """Generate the replies of all models, close them, ask the judge, and put the judged replies of every source into ``stored``."""
        plan = self.plan
        for source in plan.all_sources:
            if source.stored is None:
                self.stored[source.file] = self._generate(source)
        generated = {source.file: [replies.items.outcomes for replies in self.stored[source.file]] for source in plan.all_sources}
        outcomes_by_file, summary = phase.run(generated)
        for file, outcomes in outcomes_by_file.items():
            judged = [collect_outcomes(of_evalset, plan.cluster) for of_evalset in outcomes]
            self.stored[file] = [replace(replies, items=items) for replies, items in zip(self.stored[file], judged, strict=True)]
        if plan.baseline is not None and plan.baseline.baseline is not None:
            check_counts(plan.baseline.baseline, (item for replies in self.stored[plan.baseline.file] for item in replies.items))
        return summary

    def _score_stored(self) -> None:
        """Score the replies of all sources that are files, into ``stored``, in one pass over each evalset."""
        plan = self.plan
        replies_by_file = {source.file: source.stored for source in plan.all_sources if source.stored is not None}
        baseline = plan.baseline.baseline if plan.baseline is not None and self.phase is None else None
        for evalset in plan.evalsets:
            scored = score_stored(self.task, evalset.examples, list(replies_by_file.values()), baseline, plan.cluster)
            for file, items in zip(replies_by_file, scored, strict=True):
                self.stored.setdefault(file, []).append(_EvalsetReplies(items))

    def _rankings(self, results_by_source: Sequence[Sequence[ModelResult]]) -> tuple[tuple[Ranked, ...], ...]:
        """Rank the models on each evalset that all of them answered completely."""
        if len(results_by_source) < 2:
            return ()
        return tuple(
            rank_checkpoints(results, self.plan.task, seed=self.plan.seed)
            for results in zip(*results_by_source, strict=True)
            if all(result.metrics and not result.failures for result in results)
        )

    def _results(self, source: Source) -> tuple[ModelResult, ...]:
        """Evaluate one source on every evalset and write its replies."""
        plan = self.plan
        replies_by_evalset = self.stored[source.file] if source.file in self.stored else self._generate(source)
        if plan.output is not None:
            lines = (outcome_line(outcome) for replies in replies_by_evalset for outcome in replies.items.outcomes.values())
            write_atomically(plan.output / source.file, lines)
        manifest = find_manifest(source.name) if source.stored is None and source is not plan.baseline else None
        results = []
        for evalset, replies in zip(plan.evalsets, replies_by_evalset, strict=True):
            result = summarise(
                source.name,
                plan.task,
                replies.items,
                evalset.identity,
                seed=plan.seed,
                seconds=replies.seconds,
                replies=source.file if plan.output is not None else "",
                cached=replies.cached,
            )
            leaks = None
            if manifest is not None:
                leaks = check_leaks(result, manifest, plan.task, plan.tasks, seed=plan.seed, cache=self.cache, say=self.say)
            results.append(replace(result, leak_check=leaks, self_check=replies.self_check))
        return tuple(results)

    def _generate(self, source: Source) -> list[_EvalsetReplies]:
        plan = self.plan
        path = None if plan.output is None else partial_path(plan.output / source.file)
        with closing(self.open_engine(source.name)) as engine:
            if self.phase is not None:
                self.phase.check_model(source.name, engine.identity)
            requests = (request for evalset in plan.evalsets for request in requests_of(plan.task, evalset.examples, plan.sampling))
            partial = self.stack.enter_context(PartialReplies(engine, path, requests))
            return [self._generate_for_evalset(source, evalset, engine, partial) for evalset in plan.evalsets]

    def _generate_for_evalset(self, source: Source, evalset: Evalset, engine: CachedEngine, partial: PartialReplies) -> _EvalsetReplies:
        """Generate a model's replies to one evalset; ``partial`` is ``engine`` with the partial files."""
        plan = self.plan
        start, hits_before, opening_seconds_before = time.perf_counter(), engine.hits + partial.hits, engine.opening_seconds

        def cached() -> int:
            return engine.hits + partial.hits - hits_before

        with self.watch(f"{source.name} on {evalset.name}", len(evalset.examples), cached) as advance:
            outcomes = list(generate_outcomes(partial, self.task, evalset.examples, advance, sampling=plan.sampling, scorer=self.scorer))
        seconds = time.perf_counter() - start - (engine.opening_seconds - opening_seconds_before)
        items = collect_outcomes(outcomes, plan.cluster)
        check = None
        if plan.self_check:  # with the model itself, bypassing the cache
            check = check_repeatability(engine.open_model(), plan.task, items, sampling=plan.sampling, seed=plan.seed)
        return _EvalsetReplies(items, None if cached() else seconds, cached(), check)
