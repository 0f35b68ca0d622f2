"""Checks of a result: leaks from the training data, repeatability, and the ranking of checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

from sftchat.data.formats import read_examples
from sftchat.data.generate import generate_examples
from sftchat.data.leakage import find_leaks
from sftchat.data.row_options import recorded_options
from sftchat.engine import Engine
from sftchat.errors import SftchatError
from sftchat.evaluation import statistics
from sftchat.evaluation.comparison import Ranked
from sftchat.evaluation.evaluate import compare, summarise
from sftchat.evaluation.results import LeakCheck, ModelResult, SelfCheck
from sftchat.evaluation.run import Item, Outcome, run
from sftchat.evaluation.scored import scored_items
from sftchat.models.fingerprint import file_hash
from sftchat.models.manifest import Manifest
from sftchat.models.reference import step_of
from sftchat.task import Task
from sftchat.types import Example, SamplingParams

MOST_ROWS = 200_000
"""Maximum size of a training set that is compared by default; a larger one would take longer than ten seconds."""


def check_leaks(result: ModelResult, manifest: Manifest, task: Task, tasks: Mapping[str, Task], *, seed: int = 0) -> LeakCheck:
    """Compare the items of a result with the rows its checkpoint was trained on.

    Args:
        result: Result of the checkpoint.
        manifest: Training sources of the checkpoint: files with their hashes, or calls of a task's generator.
        task: Task of the result.
        tasks: All tasks by name; a generator's rows are reproduced from its seed.
        seed: Seed of the resampling.

    Raises:
        PluginError: When a metric cannot be computed.
    """
    if manifest.rows > MOST_ROWS:
        return LeakCheck(
            (), (), (f"{manifest.rows:,} rows are too many to compare unasked; 'sftchat data check EVALSET --against FILE' does",)
        )
    unchecked: list[str] = []
    outcomes: tuple[Outcome, ...] = (*result.items, *result.failures)
    leaks = find_leaks([outcome.example for outcome in outcomes], _rows(manifest.data, tasks, unchecked))
    seen = {leak.id for leak in leaks}
    rest = [outcome for outcome in outcomes if outcome.example.id not in seen]
    clean = summarise(result.model, task, scored_items(rest), result.evalset, seed=seed).metrics if leaks and rest else ()
    return LeakCheck(leaks, clean, tuple(unchecked))


def _rows(sources: Iterable[Mapping[str, Any]], tasks: Mapping[str, Task], unchecked: list[str]) -> Iterator[Example]:
    """Yield the training rows of every source; a changed or missing source is added to ``unchecked``."""
    for source in sources:
        try:
            yield from _source(source, tasks)
        except (SftchatError, OSError, KeyError) as error:
            words = error.args[0] if isinstance(error, SftchatError) and error.args else type(error).__name__
            unchecked.append(f"{source.get('file') or source.get('generator') or source}: {words}")


def _source(source: Mapping[str, Any], tasks: Mapping[str, Task]) -> Iterator[Example]:
    """Yield the rows of one source.

    Raises:
        SftchatError: When they are not what the checkpoint was trained on.
    """
    if "generator" in source:
        if source["generator"] not in tasks:
            raise SftchatError(f"task '{source['generator']}' is not installed")
        yield from generate_examples(tasks[source["generator"]], source["n"], source["seed"], source["options"])
        return
    if source["file"].startswith("hf://"):
        raise SftchatError("data of the Hub is not fetched again for this")
    path = Path(source["file"])
    if not path.is_file():
        raise SftchatError("no such file any more")
    if file_hash(path) != source["sha256"]:
        raise SftchatError("the file was changed after the training")
    yield from read_examples(path, recorded_options(source))


ITEMS = 50
"""Number of items to repeat: detects that one reply in twenty changes, with 92 % probability."""
SHUFFLES = 2


def self_check(
    engine: Engine, task: Task, items: Sequence[Item], *, sampling: SamplingParams | None = None, most: int = ITEMS, seed: int = 0
) -> SelfCheck:
    """Repeat some items, each alone and then all of them in shuffled batches, and compare with the original replies.

    Args:
        engine: Engine of the model that generated the replies.
        task: Task with the scorer.
        items: Scored items; a sample of them is repeated.
        sampling: Sampling parameters of the original replies.
        most: Maximum sample size.
        seed: Seed of the sample and of the shuffles.

    Raises:
        EngineError: When the engine cannot generate any more.
        PluginError: When the task's scorer breaks its contract.
    """
    rng = Random(seed)
    chosen = rng.sample(list(items), min(most, len(items)))
    examples = [item.example for item in chosen]
    again = [_alone(engine, task, examples, sampling), *(_shuffled(engine, task, examples, sampling, rng) for _ in range(SHUFFLES))]
    changed = _differing(chosen, again, lambda item: item.reply.text)
    rescored = _differing(chosen, again, lambda item: item.score.stats)
    return SelfCheck(len(chosen), len(again), changed, rescored, _floors(task, chosen, again))


def _alone(engine: Engine, task: Task, examples: Sequence[Example], sampling: SamplingParams | None) -> dict[str, Item]:
    """Generate replies to examples one at a time."""
    return _items(outcome for example in examples for outcome in run(engine, task, [example], sampling=sampling))


def _shuffled(engine: Engine, task: Task, examples: Sequence[Example], sampling: SamplingParams | None, rng: Random) -> dict[str, Item]:
    """Generate replies to examples in another order, and so in other batches."""
    return _items(run(engine, task, rng.sample(list(examples), len(examples)), sampling=sampling))


def _items(outcomes: Iterator[Outcome]) -> dict[str, Item]:
    """Return the answered items by id."""
    return {outcome.example.id: outcome for outcome in outcomes if isinstance(outcome, Item)}


def _differing(first: Sequence[Item], again: Sequence[Mapping[str, Item]], what: Callable[[Item], object]) -> int:
    """Count the items that differed at least once; an unanswered repetition counts as unchanged."""
    return sum(any(what(answers.get(item.example.id, item)) != what(item) for answers in again) for item in first)


def _floors(task: Task, first: Sequence[Item], again: Sequence[Mapping[str, Item]]) -> dict[str, float]:
    """Return the largest change of each metric; an unanswered repetition counts as unchanged."""
    if not first:
        return {}
    tables = [
        statistics.counts(item.score for item in items)
        for items in (first, *([answers.get(item.example.id, item) for item in first] for answers in again))
    ]
    return {
        metric.name: max(abs(statistics.value(metric, table) - statistics.value(metric, tables[0])) for table in tables[1:])
        for metric in task.metrics
    }


def rank(results: Sequence[ModelResult], task: Task, *, seed: int = 0) -> tuple[Ranked, ...]:
    """Order checkpoints by step and mark those that cannot be distinguished from the best.

    A checkpoint is tied with the best when the paired comparison of the primary metric does not call it worse; with few items many are tied.
    The best is chosen on the same items that it is compared on, so its value is optimistic (winner's curse): estimating it without bias needs
    other items.

    Args:
        results: Results on one evalset, at least one with a metric.
        task: Task with the primary metric.
        seed: Seed of the resampling.

    Returns:
        Sorted by step; those without a step come first, in the given order.

    Raises:
        NotComparableError: When two were not scored on the same items.
        ValueError: When no result has a metric.
    """
    scored = [result for result in results if result.metrics]
    if not scored:
        raise ValueError("no result has a metric to be ranked by")
    sign = 1.0 if task.metric.higher_is_better else -1.0
    ordered = sorted(results, key=lambda result: -1 if (step := step_of(result.model)) is None else step)
    best = max((result for result in ordered if result.metrics), key=lambda result: sign * result.metric(task.metric.name).value)
    return tuple(_ranked(result, best, task, seed) for result in ordered)


def _ranked(result: ModelResult, best: ModelResult, task: Task, seed: int) -> Ranked:
    """Compare one checkpoint with the best."""
    step = step_of(result.model)
    if result is best:
        return Ranked(result, step, best=True, tied=True)
    metrics = compare(best, result, task, seed=seed).metrics
    difference = next((metric for metric in metrics if metric.name == task.metric.name), None)
    return Ranked(result, step, best=False, tied=difference is not None and difference.judgement != "worse", difference=difference)
