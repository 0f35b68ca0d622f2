"""Carry a plan out: ask one model after the other, keep what they say, compare, report."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, closing
from pathlib import Path

from sftchat.engines.base import Engine
from sftchat.errors import UsageError
from sftchat.evaluation.evaluate import compare, identity, summarise, versions
from sftchat.evaluation.items import Outcome, Progress, run
from sftchat.evaluation.plan import REPORT, Plan, Source
from sftchat.evaluation.replies import PartialReplies, rescore, write_atomically, write_replies
from sftchat.evaluation.report import ModelResult, Report

OpenEngine = Callable[[str], Engine]
Watch = Callable[[str, int], AbstractContextManager[Progress]]
"""Called with a title and a number of items; what it yields is told of every outcome."""


def carry_out(plan: Plan, open_engine: OpenEngine, watch: Watch) -> Report:
    """Evaluate, compare, and write ``report.json`` and the replies into the plan's folder, if it has one.

    Models are opened one at a time, the baseline first, and closed before the next. What a model answered before it failed, or before the
    user interrupted, stays in ``replies.partial.jsonl``.

    Args:
        plan: What to do.
        open_engine: Opens a model by the name the user typed.
        watch: Shows progress.

    Raises:
        UsageError: When the folder cannot be made.
        ModelError: When a model cannot be loaded.
        EngineError: When one can generate nothing more.
        PluginError: When the task's scorer or a metric breaks its contract.
    """
    if plan.output is not None:
        _make(plan.output)
    baselines = _results(plan, plan.baseline, open_engine, watch) if plan.baseline else ()
    by_source = [_results(plan, source, open_engine, watch) for source in plan.sources]
    comparisons = [
        compare(old, new, plan.task, seed=plan.seed) for results in by_source for old, new in zip(baselines, results, strict=False)
    ]
    results = tuple(result for found in by_source for result in found)
    report = Report(plan.task.name, results, baselines, tuple(comparisons), plan.sampling, plan.seed, versions())
    if plan.output is not None:
        write_atomically(plan.output / REPORT, report.to_json())
    return report


def _make(folder: Path) -> None:
    """Make the output folder while failing is still cheap."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make output folder '{folder}': {error.strerror}") from error


def _results(plan: Plan, source: Source, open_engine: OpenEngine, watch: Watch) -> tuple[ModelResult, ...]:
    """One source on every gold set, its replies written."""
    if source.stored is None:
        answered = _ask(plan, source, open_engine, watch)
    else:
        answered = [(rescore(plan.task, evalset.examples, source.stored), None) for evalset in plan.evalsets]
    file = ""
    if plan.output is not None:
        file = source.file
        write_replies(plan.output / file, (outcome for outcomes, _ in answered for outcome in outcomes))
    return tuple(
        summarise(source.name, plan.task, outcomes, identity(evalset), seed=plan.seed, seconds=seconds, replies=file)
        for evalset, (outcomes, seconds) in zip(plan.evalsets, answered, strict=True)
    )


def _partial(plan: Plan, source: Source) -> Path | None:
    """Where replies go while there are not all of them."""
    return None if plan.output is None else plan.output / source.file.replace(".jsonl", ".partial.jsonl")


def _ask(plan: Plan, source: Source, open_engine: OpenEngine, watch: Watch) -> list[tuple[list[Outcome], float | None]]:
    """What a model answers to every gold set, and how many seconds it took."""
    answered: list[tuple[list[Outcome], float | None]] = []
    with ExitStack() as stack:
        engine = stack.enter_context(closing(open_engine(source.name)))
        partial = stack.enter_context(PartialReplies(_partial(plan, source)))
        for evalset in plan.evalsets:
            with watch(f"{source.name} on {evalset.name}", len(evalset.examples)) as advance:

                def told(outcome: Outcome, advance: Progress = advance) -> None:
                    partial.add(outcome)
                    advance(outcome)

                start = time.perf_counter()
                outcomes = list(run(engine, plan.task, evalset.examples, told, sampling=plan.sampling))
                answered.append((outcomes, time.perf_counter() - start))
    return answered
