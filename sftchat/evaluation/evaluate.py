"""Evaluate one model, or compare two: combines generation, scoring and statistics."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from sftchat._util.versions import installed_version
from sftchat.data.formats import assign_ids
from sftchat.errors import NotComparableError
from sftchat.evaluation import statistics
from sftchat.evaluation.comparison import Comparison
from sftchat.evaluation.evalset import EvalsetIdentity
from sftchat.evaluation.paired_test import paired_difference
from sftchat.evaluation.pairing import item_changes, pair_items
from sftchat.evaluation.results import GroupResult, MetricResult, ModelResult
from sftchat.evaluation.run import Progress, other_keys, run
from sftchat.evaluation.scored import ScoredItems, scored_items
from sftchat.evaluation.totals import Totals
from sftchat.task import Metric, Task, metric_value
from sftchat.types import Example, SamplingParams

if TYPE_CHECKING:
    from sftchat.engine import Engine

VERSIONED = ("numpy", "sftchat")


def evaluate(
    engine: Engine,
    task: Task,
    examples: Sequence[Example],
    *,
    evalset: EvalsetIdentity | None = None,
    sampling: SamplingParams | None = None,
    seed: int = 0,
    on_progress: Progress | None = None,
) -> ModelResult:
    """Generate replies to examples, score them and summarise the scores.

    Args:
        engine: Engine of the model.
        task: Task with the scorer and the metrics.
        examples: Examples with gold replies; those without an id are numbered.
        evalset: Identity of the evalset in the report.
        sampling: Sampling parameters; the task's own by default.
        seed: Seed of the resampling.
        on_progress: Called with every outcome as soon as it is available.

    Raises:
        DataError: When two examples share an id or a gold reply is missing.
        EngineError: When the engine cannot generate any more.
        PluginError: When the task's scorer or a metric breaks its contract.
    """
    start = time.perf_counter()
    outcomes = list(run(engine, task, tuple(assign_ids(examples)), on_progress, sampling=sampling))
    seconds = time.perf_counter() - start
    asked = evalset or EvalsetIdentity("examples", size=len(examples))
    return summarise(engine.name, task, scored_items(outcomes), asked, seed=seed, seconds=seconds)


def summarise(
    model: str,
    task: Task,
    items: ScoredItems,
    evalset: EvalsetIdentity,
    *,
    seed: int = 0,
    seconds: float | None = None,
    replies: str = "",
    remembered: int = 0,
) -> ModelResult:
    """Summarise scored items as the result of one model.

    Args:
        model: Name of the model in the report.
        task: Task with the metrics.
        items: Scored items in the evalset's order.
        evalset: Identity of the evalset.
        seed: Seed of the resampling.
        seconds: Generation time; None when replies were stored.
        replies: Name of the file that will hold the replies.
        remembered: Number of replies from the reply cache.

    Raises:
        PluginError: When a metric cannot be computed from the scorer's counts.
    """
    metrics = []
    if items:
        table = units(items)
        for metric in _metrics(task, items.cluster):
            interval = statistics.interval(metric, table, seed=seed)
            metrics.append(MetricResult(metric.name, statistics.value(metric, table), interval.low, interval.high, interval.method))
    result = ModelResult(model, evalset, items, tuple(metrics), (), seconds, replies, remembered, task.name)
    return replace(result, groups=_groups(task, result.tally))


def compare(baseline: ModelResult, candidate: ModelResult, task: Task, *, seed: int = 0, removed: Sequence[str] = ()) -> Comparison:
    """Compare two models on the items that both answered.

    Args:
        baseline: Result of the reference model.
        candidate: Result of the model under test.
        task: Task with the metrics.
        seed: Seed of the resampling.
        removed: Further ids that are in the baseline but were not requested from the candidate.

    Raises:
        NotComparableError: When they were scored on different evalsets, or have no item in common although the baseline has items.
        PluginError: When the scorer counted different keys for the two models.
    """
    asked_before, asked = baseline.items.asked, candidate.items.asked
    added = _missing(candidate.items, asked_before)
    if baseline.evalset != candidate.evalset or (asked_before and len(added) == len(asked)):
        raise NotComparableError(
            f"'{baseline.model}' and '{candidate.model}' were not scored on the same items of the same evalset "
            f"({baseline.evalset.name} and {candidate.evalset.name}); score both again on one"
        )
    gone = (*_missing(baseline.items, asked), *removed)
    cluster = candidate.items.cluster
    both = pair_items(baseline.items, candidate.items)
    if not both:
        return Comparison(baseline, candidate, 0, added=added, removed=gone, cluster=cluster)
    before, after = both.tables
    if before.keys != after.keys:
        raise other_keys(task, (candidate.items[0].example.id, after.keys), (baseline.items[0].example.id, before.keys))
    if cluster:
        clusters = both.clusters
        before, after = (statistics.clustered(table, clusters) for table in (before, after))
    metrics = tuple(paired_difference(before, after, metric, seed=seed) for metric in _metrics(task, cluster))
    changes = item_changes(both, task.metric)
    return Comparison(
        baseline,
        candidate,
        len(both),
        metrics,
        changes.broken,
        changes.fixed,
        int(both.differs.sum()),
        changes.shifted,
        changes.alike,
        changes.losses,
        added,
        gone,
        len(before.rows),
        cluster,
    )


def _missing(items: ScoredItems, asked: Sequence[str]) -> tuple[str, ...]:
    """Return the ids of ``items`` that are not in ``asked``."""
    others = frozenset(asked)
    return tuple(identity for identity in items.asked if identity not in others)


def units(items: ScoredItems) -> statistics.Counts:
    """Return the counts of the resampling units: items (at least one), or clusters of items."""
    return statistics.clustered(items.table, items.figures.clusters) if items.cluster else items.table


def _metrics(task: Task, cluster: str) -> tuple[Metric, ...]:
    """Return the task's metrics; sums over clusters are not 0 or 1, so rates are then resampled like other metrics."""
    return tuple(replace(metric, per_item_rate=False) for metric in task.metrics) if cluster else task.metrics


def versions() -> dict[str, str]:
    """Return the versions of the packages that affect the numbers of a report."""
    return {name: installed_version(name) or "unknown" for name in VERSIONED}


def _groups(task: Task, tally: Totals) -> tuple[GroupResult, ...]:
    """Return the slices of a result, the largest first."""
    found = [
        GroupResult(name, total.get("gold", tally.occurrences[name]), _group_metrics(task, total)) for name, total in tally.groups.items()
    ]
    return tuple(sorted(found, key=lambda group: (-group.support, group.name)))


def _group_metrics(task: Task, total: Mapping[str, float]) -> dict[str, float]:
    """Compute the metrics whose counts the scorer reports per slice."""
    computable = [metric for metric in task.metrics if metric.stats and set(metric.stats) <= set(total)]
    return {metric.name: metric_value(metric, total) for metric in computable}
