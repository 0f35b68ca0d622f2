"""Run a plan: evaluate the models one after the other, store replies, compare, report."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from sftchat._util.files import create_folder, write_atomically
from sftchat._util.parsing import load_json, read_text
from sftchat.errors import UsageError
from sftchat.evaluation.cached_engine import CachedEngine
from sftchat.evaluation.checks import check_leaks, rank, self_check
from sftchat.evaluation.comparison import Ranked
from sftchat.evaluation.evalset import Evalset
from sftchat.evaluation.evaluate import compare, summarise, versions
from sftchat.evaluation.gate import decide, gate
from sftchat.evaluation.partial_replies import PartialReplies, partial_of
from sftchat.evaluation.plan import REPORT, Plan, Source
from sftchat.evaluation.replies import reply_line
from sftchat.evaluation.report import Report
from sftchat.evaluation.results import ModelResult, SelfCheck
from sftchat.evaluation.run import Progress, Scorer, requests_of, run
from sftchat.evaluation.scored import ScoredItems, score_stored, scored_items
from sftchat.models.manifest import Manifest, find_manifest
from sftchat.task import Task

OpenLate = Callable[[str], CachedEngine]
Watch = Callable[[str, int, Callable[[], int]], AbstractContextManager[Progress]]
"""Called with a title, the number of items and a function that returns how many replies were cached; yields a callback for every outcome."""


@dataclass(frozen=True)
class Answered:
    """Replies of a model to one evalset.

    Attributes:
        items: Scored items in the evalset's order.
        seconds: Generation time; None when any reply was stored.
        remembered: Number of replies from the reply cache.
        self_check: Result of the repeatability check; None when it was not requested.
    """

    items: ScoredItems
    seconds: float | None = None
    remembered: int = 0
    self_check: SelfCheck | None = None


def carry_out(plans: Sequence[Plan], opener: Callable[[Task], OpenLate], watch: Watch) -> Report:
    """Evaluate, compare and decide; write ``report.json`` and the replies into the plans' folder, if there is one.

    Models are opened one at a time, the baseline first, and closed before the next. A model whose replies are all cached is not opened. Replies
    that were generated before an error or an interrupt are in the cache, so the same evaluation can be resumed. Replies that cannot be cached
    are kept in ``replies.partial.jsonl`` until the report is written and every item is answered.

    Args:
        plans: One plan per task; all with the same folder, sampling seed and models.
        opener: For a task, returns a function that opens a model by the name the user typed, as an engine with cached replies.
        watch: Shows progress.

    Raises:
        UsageError: When the folder cannot be created.
        ModelError: When a model cannot be loaded.
        EngineError: When a model cannot generate any more.
        NotComparableError: When a baseline was counted by another scorer.
        PluginError: When the task's scorer or a metric breaks its contract.
    """
    output = plans[0].output
    with ExitStack() as keeping:
        if output is not None:
            keeping.enter_context(_made(output))
        return _carry_out(plans, opener, watch, keeping)


def _carry_out(plans: Sequence[Plan], opener: Callable[[Task], OpenLate], watch: Watch, keeping: ExitStack) -> Report:
    """Implement ``carry_out``; the contexts in ``keeping`` stay open until the report is written."""
    output = plans[0].output
    parts = [_measure(plan, opener(plan.task), watch, keeping) for plan in plans]
    comparisons = tuple(comparison for part in parts for comparison in part.comparisons)
    demanded = {plan.task.name: plan.demanded for plan in plans}
    comparisons, gates = gate(comparisons, lambda comparison: demanded[comparison.candidate.task].gated)
    report = Report(
        ", ".join(part.task for part in parts),
        tuple(result for part in parts for result in part.results),
        tuple(result for part in parts for result in part.baselines),
        comparisons,
        plans[0].sampling,
        plans[0].seed,
        versions(),
        gates,
        tuple(remark for plan in plans for remark in plan.remarks),
        tuple(ranking for part in parts for ranking in part.rankings),
    )
    report = replace(report, verdict=decide(report, demanded))
    if output is not None:
        before = _replies_of(output / REPORT)
        write_atomically(output / REPORT, report.to_json())
        for name in before - {result.replies for result in (*report.results, *report.baselines)}:
            (output / name).unlink(missing_ok=True)  # belongs to the replaced report
    return report


def _replies_of(report: Path) -> set[str]:
    """Return the names of the reply files of a report; none when the report cannot be read."""
    try:
        found = load_json(read_text(report))
        names = {result.get("replies") for kind in ("results", "baselines") for result in found[kind]}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return set()
    return {name for name in names if isinstance(name, str) and re.fullmatch(r"replies[\w.-]*\.jsonl", name)}


def _measure(plan: Plan, open_late: OpenLate, watch: Watch, keeping: ExitStack) -> Report:
    """Evaluate and compare the models of one task, without a verdict."""
    asking = _Asking(open_late, watch, Scorer(plan.task, remembers=plan.baseline is not None and bool(plan.models)), keeping)
    stored = _stored(plan)
    baselines = _results(plan, plan.baseline, asking, stored) if plan.baseline else ()
    by_source = [_results(plan, source, asking, stored) for source in plan.sources]
    comparisons = tuple(
        compare(old, new, plan.task, seed=plan.seed, removed=() if place else plan.removed)
        for results in by_source
        for place, (old, new) in enumerate(zip(baselines, results, strict=False))
    )
    results = tuple(result for found in by_source for result in found)
    return Report(plan.task.name, results, baselines, comparisons, rankings=_rankings(plan, by_source))


def _stored(plan: Plan) -> dict[str, tuple[ScoredItems, ...]]:
    """Score the stored replies on every evalset in one pass, by name of the output file."""
    stored = {source.file: source.stored for source in (plan.baseline, *plan.sources) if source is not None and source.stored is not None}
    baseline = plan.baseline.baseline if plan.baseline is not None else None
    by_set = [score_stored(plan.task, one.examples, list(stored.values()), baseline, plan.cluster) for one in plan.evalsets]
    return dict(zip(stored, zip(*by_set, strict=True), strict=True))


def _rankings(plan: Plan, by_source: Sequence[Sequence[ModelResult]]) -> tuple[tuple[Ranked, ...], ...]:
    """Rank the models on each evalset that all of them answered completely."""
    if len(by_source) < 2:
        return ()
    sets = [results for results in zip(*by_source, strict=True) if all(result.metrics and not result.failures for result in results)]
    return tuple(rank(results, plan.task, seed=plan.seed) for results in sets)


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """Create the output folder before any work is done."""
    with ExitStack() as stack:
        try:
            stack.enter_context(create_folder(folder))
        except OSError as error:
            raise UsageError(f"cannot make output folder '{folder}': {error.strerror}") from error
        yield


@dataclass(frozen=True)
class _Asking:
    """What is needed to run the models of one task; the contexts in ``keeping`` stay open until the report is written."""

    open_late: OpenLate
    watch: Watch
    scorer: Scorer
    keeping: ExitStack


def _results(plan: Plan, source: Source, asking: _Asking, stored: Mapping[str, Sequence[ScoredItems]]) -> tuple[ModelResult, ...]:
    """Evaluate one source on every evalset and write its replies."""
    answered = _ask(plan, source, asking) if source.stored is None else [Answered(items) for items in stored[source.file]]
    file = ""
    if plan.output is not None:
        file = source.file
        write_atomically(plan.output / file, (line for answers in answered for line in map(reply_line, answers.items.outcomes.values())))
    manifest = find_manifest(source.name) if source.stored is None and source is not plan.baseline else None
    return tuple(_result(plan, source, evalset, answers, file, manifest) for evalset, answers in zip(plan.evalsets, answered, strict=True))


def _result(plan: Plan, source: Source, evalset: Evalset, answers: Answered, file: str, manifest: Manifest | None) -> ModelResult:
    """Summarise one source on one evalset, with leak check and self check."""
    result = summarise(
        source.name,
        plan.task,
        answers.items,
        evalset.identity,
        seed=plan.seed,
        seconds=answers.seconds,
        replies=file,
        remembered=answers.remembered,
    )
    leaks = check_leaks(result, manifest, plan.task, plan.tasks, seed=plan.seed) if manifest is not None else None
    return replace(result, leak_check=leaks, self_check=answers.self_check)


def _ask(plan: Plan, source: Source, asking: _Asking) -> list[Answered]:
    """Generate a model's replies to every evalset."""
    answered: list[Answered] = []
    path = None if plan.output is None else partial_of(plan.output / source.file)
    with closing(asking.open_late(source.name)) as engine:
        wanted = (request for evalset in plan.evalsets for request in requests_of(evalset.examples, plan.sampling))
        kept = asking.keeping.enter_context(PartialReplies(engine, path, wanted))
        for evalset in plan.evalsets:
            found, opening, start = engine.found + kept.found, engine.opening_seconds, time.perf_counter()

            def remembered(before: int = found) -> int:
                return engine.found + kept.found - before

            with asking.watch(f"{source.name} on {evalset.name}", len(evalset.examples), remembered) as advance:
                outcomes = list(run(kept, plan.task, evalset.examples, advance, sampling=plan.sampling, scorer=asking.scorer))
            seconds = time.perf_counter() - start - (engine.opening_seconds - opening)
            items = scored_items(outcomes, plan.cluster)
            again = _again(plan, engine, items) if plan.self_check else None
            answered.append(Answered(items, None if remembered() else seconds, remembered(), again))
    return answered


def _again(plan: Plan, engine: CachedEngine, items: ScoredItems) -> SelfCheck:
    """Repeat some items with the model itself, bypassing the cache."""
    return self_check(engine.opened(), plan.task, items, sampling=plan.sampling, seed=plan.seed)
