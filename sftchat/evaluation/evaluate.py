"""Evaluate one model or compare two: generate replies, score them, compute the metrics."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import chain

from sftchat._util.versions import installed_version
from sftchat.data.formats import assign_ids
from sftchat.engine import Engine, collect
from sftchat.errors import DataError, EngineError, NotComparableError, PluginError
from sftchat.evaluation import statistics
from sftchat.evaluation.baseline import Baseline, check_counts
from sftchat.evaluation.comparison import item_changes, pair_items, paired_difference
from sftchat.evaluation.evalset import EvalsetIdentity, check_examples, scores_texts
from sftchat.evaluation.results import Comparison, MetricResult, ModelResult, SliceResult
from sftchat.evaluation.samples import item_requests, join_samples, join_scores, with_sample_metrics
from sftchat.evaluation.scored import Failure, Item, Outcome, ScoredItems, Totals, collect_outcomes, rare_garbage_collection
from sftchat.task import Metric, Task, metric_value, score_reply
from sftchat.text import pluralize
from sftchat.types import Example, Reply, SamplingParams

OnOutcome = Callable[[Outcome], None]
"""Called with every outcome as soon as it is available, in order of completion."""


def generate_outcomes(
    engine: Engine,
    task: Task,
    examples: Sequence[Example],
    on_outcome: OnOutcome | None = None,
    *,
    sampling: SamplingParams | None = None,
    scorer: Scorer | None = None,
) -> Iterator[Outcome]:
    """Generate and score replies, yielded in example order whatever the order of completion.

    Closing the iterator cancels the running requests.

    Args:
        engine: Receives all requests at once and batches them itself.
        task: Task whose scorer is used.
        examples: Examples with unique ids and gold replies.
        on_outcome: Called with every outcome.
        sampling: Sampling parameters; the task's own by default.
        scorer: Scorer of the task, to share count keys or scores between runs; a new one by default.

    Raises:
        DataError: When ids are not unique or a gold reply is missing.
        EngineError: When the engine cannot generate any more.
        PluginError: When the task's scorer breaks its contract.
    """
    check_examples(examples, texts=scores_texts(task), gold=task.needs_gold)
    score = scorer or Scorer(task)
    requests = {example.id: item_requests(task, example, task.sampling if sampling is None else sampling) for example in examples}
    example_of = {request.id: example for example in examples for request in requests[example.id]}
    received: dict[str, dict[str, Reply | EngineError]] = {}  # samples of incomplete items, by item and request
    completed: dict[str, Outcome] = {}
    position = 0
    with closing(collect(engine, chain.from_iterable(requests.values()))) as replies:
        for request_id, reply in replies:
            example = example_of[request_id]
            samples = received.setdefault(example.id, {})
            samples[request_id] = reply
            if len(samples) < len(requests[example.id]):
                continue
            outcome = _outcome(score, example, [samples[request.id] for request in requests[example.id]])
            del received[example.id]
            if on_outcome is not None:
                on_outcome(outcome)
            completed[example.id] = outcome
            while position < len(examples) and examples[position].id in completed:
                yield completed.pop(examples[position].id)
                position += 1


def _outcome(score: Scorer, example: Example, replies: Sequence[Reply | EngineError]) -> Outcome:
    """Score the samples of an item; one that was not answered makes the item a failure, because its counts would be incomplete."""
    answered = [reply for reply in replies if isinstance(reply, Reply)]
    if len(answered) < len(replies):
        return Failure(example, next(str(reply) for reply in replies if isinstance(reply, EngineError)))
    return score(example, join_samples(answered))


class Scorer:
    """Scorer of a task for one run; enforces the same count keys for every item.

    Args:
        task: Task whose scorer is called.
        caches: Whether to cache scores by example and reply; worthwhile for two models, which give the same reply to most items.
    """

    def __init__(self, task: Task, *, caches: bool = False) -> None:
        self.task = task
        self._cache: dict[tuple[str, Reply], Item] | None = {} if caches else None
        self._keys: frozenset[str] | None = None
        self._first_id = ""  # the example that ``_keys`` was counted on

    def __call__(self, example: Example, reply: Reply) -> Item:
        """Score one reply.

        Raises:
            PluginError: When the scorer breaks its contract.
        """
        key = (example.id, reply)
        if self._cache is not None and key in self._cache:
            return self._cache[key]
        scores = [score_reply(self.task, example, sample) for sample in reply.samples]
        for score in scores[1:]:
            if score.stats.keys() != scores[0].stats.keys():
                raise different_keys_error(self.task, example.id, scores[0].stats, example.id, score.stats)
        if len(scores) != self.task.samples:
            raise DataError(
                f"item '{example.id}' has {pluralize(len(scores), 'reply', 'replies')}, and the evaluation scores {self.task.samples} an item; "
                f"give -k {len(scores)}"
            )
        item = Item(example, reply, join_scores(scores) if len(scores) > 1 else scores[0])
        if self._keys is None:
            self._keys, self._first_id = frozenset(item.score.stats), example.id
        elif item.score.stats.keys() != self._keys:
            raise different_keys_error(self.task, example.id, item.score.stats, self._first_id, self._keys)
        if self._cache is not None:
            self._cache[key] = item
        return item


def different_keys_error(task: Task, first_id: str, first_keys: Iterable[str], second_id: str, second_keys: Iterable[str]) -> PluginError:
    """Build the error for a scorer that counts different keys for two items."""
    first, second = ", ".join(sorted(first_keys)), ", ".join(sorted(second_keys))
    return PluginError(
        f"the scorer of task '{task.name}' counts {first} on item '{first_id}' and {second} on item '{second_id}'; "
        "it must count the same for every item"
    )


def score_each(scorer: Scorer, example: Example, replies: Iterable[Reply | str | None]) -> list[Outcome | None]:
    """Score several models' replies to one example, in the order of ``replies``; equal replies are scored once.

    Args:
        scorer: Scorer of the task.
        example: The example of the requests.
        replies: One per model: the reply, an error message for a failed request, or None without either, which gives None.

    Raises:
        PluginError: When the scorer breaks its contract.
    """
    items: dict[Reply, Item] = {}
    outcomes: list[Outcome | None] = []
    for reply in replies:
        if isinstance(reply, Reply):
            if reply not in items:
                items[reply] = scorer(example, reply)
            outcomes.append(items[reply])
        else:
            outcomes.append(None if reply is None else Failure(example, reply))
    return outcomes


def evaluate(
    engine: Engine,
    task: Task,
    examples: Sequence[Example],
    *,
    evalset: EvalsetIdentity | None = None,
    sampling: SamplingParams | None = None,
    seed: int = 0,
    on_outcome: OnOutcome | None = None,
) -> ModelResult:
    """Generate replies to examples, score them and compute the metrics.

    Args:
        engine: Engine of the model.
        task: Task with the scorer and the metrics.
        examples: Examples with gold replies; those without an id are numbered.
        evalset: Identity of the evalset in the report.
        sampling: Sampling parameters; the task's own by default.
        seed: Seed of the resampling.
        on_outcome: Called with every outcome.

    Raises:
        DataError: When two examples share an id or a gold reply is missing.
        EngineError: When the engine cannot generate any more.
        PluginError: When the task's scorer or a metric breaks its contract.
    """
    task = with_sample_metrics(task)
    start = time.perf_counter()
    outcomes = list(generate_outcomes(engine, task, tuple(assign_ids(examples)), on_outcome, sampling=sampling))
    seconds = time.perf_counter() - start
    identity = evalset or EvalsetIdentity("examples", size=len(examples))
    return summarise(engine.name, task, collect_outcomes(outcomes), identity, seed=seed, seconds=seconds)


def summarise(
    model: str,
    task: Task,
    items: ScoredItems,
    evalset: EvalsetIdentity,
    *,
    seed: int = 0,
    seconds: float | None = None,
    replies: str = "",
    cached: int = 0,
) -> ModelResult:
    """Compute the metrics of scored items, with intervals, as the result of one model.

    Args:
        model: Name of the model in the report.
        task: Task with the metrics.
        items: Scored items in the evalset's order.
        evalset: Identity of the evalset.
        seed: Seed of the resampling.
        seconds: Generation time; None when replies were stored.
        replies: Name of the file that will hold the replies.
        cached: Number of replies from the reply cache.

    Raises:
        PluginError: When a metric cannot be computed from the scorer's counts.
    """
    metrics = []
    if items:
        table = counts_per_unit(items)
        for metric in _unit_metrics(task, items.cluster):
            interval = statistics.metric_interval(metric, table, seed=seed)
            metrics.append(
                MetricResult(metric.name, statistics.compute_metric(metric, table), interval.low, interval.high, interval.method)
            )
    return ModelResult(
        model=model,
        evalset=evalset,
        items=items,
        metrics=tuple(metrics),
        slices=_summarise_slices(task, items.totals),
        seconds=seconds,
        replies=replies,
        cached=cached,
        task=task.name,
    )


def compare(baseline: ModelResult, candidate: ModelResult, task: Task, *, seed: int = 0, removed: Sequence[str] = ()) -> Comparison:
    """Compare two models on the items that both answered.

    Args:
        baseline: Result of the reference model.
        candidate: Result of the model under test.
        task: Task with the metrics.
        seed: Seed of the resampling.
        removed: Ids of further removed items: of the baseline file, but in no evalset.

    Raises:
        NotComparableError: When they were scored on different evalsets, or have no item in common although the baseline has items.
        PluginError: When the scorer counted different keys for the two models.
    """
    baseline_ids, candidate_ids = baseline.items.requested_ids, candidate.items.requested_ids
    baseline_id_set, candidate_id_set = frozenset(baseline_ids), frozenset(candidate_ids)
    added = tuple(item_id for item_id in candidate_ids if item_id not in baseline_id_set)
    removed = (*(item_id for item_id in baseline_ids if item_id not in candidate_id_set), *removed)
    nothing_in_common = len(added) == len(candidate_ids)
    if baseline.evalset != candidate.evalset or (baseline_ids and nothing_in_common):
        raise NotComparableError(
            f"'{baseline.model}' and '{candidate.model}' were not scored on the same items of the same evalset "
            f"({baseline.evalset.name} and {candidate.evalset.name}); score both again on one"
        )
    cluster = candidate.items.cluster
    pairs = pair_items(baseline.items, candidate.items)
    if not pairs:
        return Comparison(baseline, candidate, 0, added=added, removed=removed, cluster=cluster)
    before, after = pairs.tables
    if before.keys != after.keys:
        raise different_keys_error(task, candidate.items[0].example.id, after.keys, baseline.items[0].example.id, before.keys)
    if cluster:
        before, after = (statistics.sum_clusters(table, pairs.clusters) for table in (before, after))
    changes = item_changes(pairs, task.metric)
    return Comparison(
        baseline=baseline,
        candidate=candidate,
        n=len(pairs),
        metrics=tuple(paired_difference(before, after, metric, seed=seed) for metric in _unit_metrics(task, cluster)),
        differing=int(pairs.text_changed.sum()),
        added=added,
        removed=removed,
        units=len(before.rows),
        cluster=cluster,
        **vars(changes),
    )


def counts_per_unit(items: ScoredItems) -> statistics.Counts:
    """Return the counts per resampling unit: per item, or per cluster when the items are clustered; requires at least one item."""
    return statistics.sum_clusters(items.table, items.arrays.clusters) if items.cluster else items.table


def _unit_metrics(task: Task, cluster: str) -> tuple[Metric, ...]:
    """Return the task's metrics as they apply to resampling units: a rate of items is not a rate of clusters."""
    return tuple(replace(metric, per_item_rate=False) for metric in task.metrics) if cluster else task.metrics


def package_versions() -> dict[str, str]:
    """Return the versions of the packages that affect the numbers of a report."""
    return {name: installed_version(name) or "unknown" for name in ("numpy", "sftchat")}


def _summarise_slices(task: Task, totals: Totals) -> tuple[SliceResult, ...]:
    """Compute, for each slice, the metrics whose counts the scorer reports per slice; the largest slice first."""
    slices = []
    for name, sums in totals.slices.items():
        metrics = {metric.name: metric_value(metric, sums) for metric in task.metrics if metric.stats and set(metric.stats) <= set(sums)}
        slices.append(SliceResult(name, sums.get("gold", totals.occurrences[name]), metrics))
    return tuple(sorted(slices, key=lambda entry: (-entry.support, entry.name)))


@rare_garbage_collection()
def score_stored(
    task: Task,
    examples: Iterable[Example],
    stored: Sequence[Mapping[str, Reply | str]],
    baseline: Baseline | None = None,
    cluster: str = "",
) -> list[ScoredItems]:
    """Score several sets of stored replies to one evalset in a single pass.

    Args:
        task: Task whose scorer is used.
        examples: Examples of the evalset.
        stored: Replies, or error messages of failed requests, by id: one mapping per file, the first for the baseline if there is one. An
            example without an entry is left out.
        baseline: Baseline whose stored counts must match today's.
        cluster: Metadata key that groups items into clusters; empty for independent items.

    Raises:
        NotComparableError: When the baseline was counted by another scorer.
        UsageError: When an item lacks the metadata key.
        PluginError: When the task's scorer breaks its contract.
    """
    outcomes_of: list[list[Outcome]] = [[] for _ in stored]
    scorer = Scorer(task)
    for example in examples:
        outcomes = score_each(scorer, example, [replies.get(example.id) for replies in stored])
        for of_file, outcome in zip(outcomes_of, outcomes, strict=True):
            if outcome is not None:
                of_file.append(outcome)
    scored = [collect_outcomes(outcomes, cluster) for outcomes in outcomes_of]
    if baseline is not None:
        check_counts(baseline, scored[0])
    return scored
