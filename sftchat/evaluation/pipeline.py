"""Carry a plan out: ask one model after the other, keep what they say, compare, report."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from sftchat.engines.base import Engine
from sftchat.errors import UsageError
from sftchat.evaluation.evaluate import compare, identity, summarise, versions
from sftchat.evaluation.items import Outcome, Progress, run
from sftchat.evaluation.plan import REPORT, Plan, Source
from sftchat.evaluation.remembering import Memory, RememberingEngine
from sftchat.evaluation.replies import PartialReplies, rescore, write_atomically, write_replies
from sftchat.evaluation.report import ModelResult, Report

OpenEngine = Callable[[str], Engine]
OpenLate = Callable[[str], RememberingEngine]
Watch = Callable[[str, int, Callable[[], int]], AbstractContextManager[Progress]]
"""Called with a title, a number of items, and what says how many of them were remembered; what it yields is told of every outcome."""


@dataclass(frozen=True)
class Answered:
    """What a model said to one gold set.

    Attributes:
        outcomes: In the evalset's order.
        seconds: How long generating took; None where any reply was stored.
        remembered: How many came from the reply store.
    """

    outcomes: list[Outcome]
    seconds: float | None = None
    remembered: int = 0


def carry_out(plan: Plan, open_engine: OpenEngine, watch: Watch, memory: Memory | None = None) -> Report:
    """Evaluate, compare, and write ``report.json`` and the replies into the plan's folder, if it has one.

    Models are opened one at a time, the baseline first, and closed before the next; one whose replies are all remembered is not opened. What
    a model answered before it failed, or before the user interrupted, is in the memory, so that the same evaluation goes on from there;
    where its replies cannot be remembered, it stays in ``replies.partial.jsonl``.

    Args:
        plan: What to do.
        open_engine: Opens a model by the name the user typed.
        watch: Shows progress.
        memory: What was answered before; by default every model is asked everything.

    Raises:
        UsageError: When the folder cannot be made.
        ModelError: When a model cannot be loaded.
        EngineError: When one can generate nothing more.
        PluginError: When the task's scorer or a metric breaks its contract.
    """
    if plan.output is not None:
        _make(plan.output)

    def open_late(name: str) -> RememberingEngine:
        return RememberingEngine(name, open_engine, memory)

    baselines = _results(plan, plan.baseline, open_late, watch) if plan.baseline else ()
    by_source = [_results(plan, source, open_late, watch) for source in plan.sources]
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


def _results(plan: Plan, source: Source, open_late: OpenLate, watch: Watch) -> tuple[ModelResult, ...]:
    """One source on every gold set, its replies written."""
    if source.stored is None:
        answered = _ask(plan, source, open_late, watch)
    else:
        answered = [Answered(rescore(plan.task, evalset.examples, source.stored)) for evalset in plan.evalsets]
    file = ""
    if plan.output is not None:
        file = source.file
        write_replies(plan.output / file, (outcome for answers in answered for outcome in answers.outcomes))
    return tuple(
        summarise(
            source.name,
            plan.task,
            answers.outcomes,
            identity(evalset),
            seed=plan.seed,
            seconds=answers.seconds,
            replies=file,
            remembered=answers.remembered,
        )
        for evalset, answers in zip(plan.evalsets, answered, strict=True)
    )


def _partial(plan: Plan, source: Source) -> Path | None:
    """Where replies that cannot be remembered go while there are not all of them."""
    return None if plan.output is None else plan.output / source.file.replace(".jsonl", ".partial.jsonl")


def _ask(plan: Plan, source: Source, open_late: OpenLate, watch: Watch) -> list[Answered]:
    """What a model answers to every gold set."""
    answered: list[Answered] = []
    with ExitStack() as stack:
        engine = stack.enter_context(closing(open_late(source.name)))
        partial = stack.enter_context(PartialReplies(_partial(plan, source)))
        for evalset in plan.evalsets:
            found, opening, start = engine.found, engine.opening_seconds, time.perf_counter()

            def remembered(before: int = found) -> int:
                return engine.found - before

            with watch(f"{source.name} on {evalset.name}", len(evalset.examples), remembered) as advance:

                def told(outcome: Outcome, advance: Progress = advance) -> None:
                    if not engine.remembers:
                        partial.add(outcome)
                    advance(outcome)

                outcomes = list(run(engine, plan.task, evalset.examples, told, sampling=plan.sampling))
            seconds = time.perf_counter() - start - (engine.opening_seconds - opening)
            answered.append(Answered(outcomes, None if remembered() else seconds, remembered()))
    return answered
