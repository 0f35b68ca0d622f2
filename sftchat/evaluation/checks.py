"""Checks of a result: leaks from the training data, repeatability, and the ranking of checkpoints."""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from inspect import isfunction
from pathlib import Path
from random import Random
from typing import Any

from sftchat._util.parsing import from_json, load_json
from sftchat.data.duplicates import prompt_text
from sftchat.data.formats import read_examples
from sftchat.data.generate import generate_examples
from sftchat.data.leakage import Leak, find_leaks
from sftchat.data.row_options import recorded_options
from sftchat.engine import Engine
from sftchat.errors import SftchatError
from sftchat.evaluation import statistics
from sftchat.evaluation.evaluate import compare, generate_outcomes, summarise
from sftchat.evaluation.reply_cache import ReplyCache
from sftchat.evaluation.results import LeakCheck, ModelResult, Ranked, SelfCheck
from sftchat.evaluation.scored import Item, Outcome, collect_outcomes
from sftchat.models.fingerprint import FileHasher, file_hash, files_digest
from sftchat.models.manifest import Manifest
from sftchat.models.reference import step_of
from sftchat.task import Task
from sftchat.text import pluralize
from sftchat.types import Example, SamplingParams

MAX_TRAINING_ROWS = 1_000_000
"""Maximum size of a training set that is compared; a larger one takes minutes."""
SLOW_ROWS = 100_000
"""Number of training rows from which on the check takes so long that a line announces it."""
CHECK_SOURCES = ("data/*.py", "text.py", "thinking.py")
"""Source files of sftchat that decide which leaks are found; their hash is part of the cache key."""


def check_leaks(
    result: ModelResult,
    manifest: Manifest,
    task: Task,
    tasks: Mapping[str, Task],
    *,
    seed: int = 0,
    cache: ReplyCache | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> LeakCheck:
    """Compare the items of a result with the rows its checkpoint was trained on.

    Args:
        result: Result of the checkpoint.
        manifest: Manifest of the checkpoint; lists the files, with their hashes, and the generator calls that it was trained on.
        task: Task of the result.
        tasks: All tasks by name; their generators reproduce the rows from the recorded seeds.
        seed: Seed of the resampling.
        cache: Stores the leaks, for a later check of the same items against the same rows; None for no storing.
        say: Called with a line for the user before a comparison that takes long.

    Raises:
        PluginError: When a metric cannot be computed.
    """
    if manifest.rows > MAX_TRAINING_ROWS:
        reason = f"{manifest.rows:,} rows are too many to compare unasked; 'sftchat data check EVALSET --against FILE' does"
        return LeakCheck(leaks=(), unchecked=(reason,))
    outcomes: tuple[Outcome, ...] = (*result.items, *result.failures)
    examples = [outcome.example for outcome in outcomes]
    hash_file = file_hash if cache is None else cache.file_hash
    reasons = [(source, _unavailable_reason(source, tasks, hash_file)) for source in manifest.data]
    available = [source for source, reason in reasons if not reason]
    unchecked = [_source_line(source, reason) for source, reason in reasons if reason]
    key = _leak_key(examples, available, tasks, hash_file) if cache is not None and available else None
    leaks = _cached_leaks(cache, key, examples) if cache is not None and key is not None else None
    if leaks is None:
        if manifest.rows >= SLOW_ROWS:
            say(f"comparing {pluralize(len(examples), 'item')} with {manifest.rows:,} training rows, once for these rows")
        unreadable: list[str] = []
        leaks = find_leaks(examples, _read_training_rows(available, tasks, unreadable))
        unchecked += unreadable
        unchanged = not unreadable and not any(_unavailable_reason(source, tasks, hash_file) for source in available)
        if cache is not None and key is not None and unchanged:
            index_by_id = {example.id: index for index, example in enumerate(examples)}
            cache.put_leaks(key, json.dumps([[index_by_id[leak.id], leak.row, leak.similarity] for leak in leaks]))
    leaked_ids = {leak.id for leak in leaks}
    clean = [outcome for outcome in outcomes if outcome.example.id not in leaked_ids]
    clean_metrics = summarise(result.model, task, collect_outcomes(clean), result.evalset, seed=seed).metrics if leaks and clean else ()
    return LeakCheck(leaks, clean_metrics, tuple(unchecked))


def _leak_key(
    examples: Sequence[Example], sources: Sequence[Mapping[str, Any]], tasks: Mapping[str, Task], hash_file: FileHasher
) -> bytes | None:
    """Return the cache key: a hash of everything that affects the leaks; None when the code of a generator is unknown."""
    package = Path(__file__).parent.parent
    code = files_digest(package, [path.relative_to(package).as_posix() for pattern in CHECK_SOURCES for path in package.glob(pattern)])
    digest = hashlib.sha256(f"{code} {platform.python_version()}".encode())
    for source in sources:
        code_hash = _hash_code(tasks[source["generator"]].generate, hash_file) if "generator" in source else "file"
        if not code_hash:
            return None
        digest.update(f"\0{code_hash} {json.dumps(source, sort_keys=True, default=str)}".encode())
    for example in examples:
        digest.update(b"\0\0" + prompt_text(example).encode("utf-8", "surrogatepass"))
    return digest.digest()


def _hash_code(function: Callable[..., object], hash_file: FileHasher) -> str:
    """Return a hash of all files of the package that defines a function; empty when the function may depend on more, such as a closure."""
    if not isfunction(function) or function.__closure__:
        return ""
    top_module = sys.modules.get(function.__module__.partition(".")[0])
    module_file = getattr(top_module, "__file__", None)
    if module_file is None or function.__module__ == "__main__":
        return ""
    path = Path(module_file)
    try:
        if path.name != "__init__.py":
            return hash_file(path)
        names = [file.relative_to(path.parent).as_posix() for file in path.parent.rglob("*") if file.is_file()]
        return files_digest(path.parent, [name for name in names if "__pycache__" not in name], hash_file)
    except OSError:
        return ""


def _cached_leaks(cache: ReplyCache, key: bytes, examples: Sequence[Example]) -> tuple[Leak, ...] | None:
    """Return the leaks of an earlier check; None when there are none or they are damaged."""
    text = cache.get_leaks(key)
    if text is None:
        return None
    try:
        rows = from_json(tuple[tuple[int, str, float], ...], load_json(text))
        return tuple(Leak(examples[index].id, examples[index].source, row, similarity) for index, row, similarity in rows)
    except (ValueError, IndexError):
        return None


def _unavailable_reason(source: Mapping[str, Any], tasks: Mapping[str, Task], hash_file: FileHasher) -> str:
    """Return why a source no longer has the rows of the training; empty when it has them."""
    try:
        if "generator" in source:
            return "" if source["generator"] in tasks else f"task '{source['generator']}' is not installed"
        if source["file"].startswith("hf://"):
            return "data of the Hub is not fetched again for this"
        path = Path(source["file"])
        if not path.is_file():
            return "no such file any more"
        return "" if hash_file(path) == source["sha256"] else "the file was changed after the training"
    except (SftchatError, OSError, KeyError) as error:
        return _error_text(error)


def _read_training_rows(sources: Iterable[Mapping[str, Any]], tasks: Mapping[str, Task], unreadable: list[str]) -> Iterator[Example]:
    """Yield the training rows of every source; for a source that cannot be read, add a line to ``unreadable``."""
    for source in sources:
        try:
            if "generator" in source:
                yield from generate_examples(tasks[source["generator"]], source["n"], source["seed"], source["options"])
            else:
                yield from read_examples(Path(source["file"]), recorded_options(source))
        except (SftchatError, OSError, KeyError) as error:
            unreadable.append(_source_line(source, _error_text(error)))


def _source_line(source: Mapping[str, Any], reason: str) -> str:
    return f"{source.get('file') or source.get('generator') or source}: {reason}"


def _error_text(error: Exception) -> str:
    """Return the message of an error of this program, without its location; for other errors, their type."""
    return str(error.args[0]) if isinstance(error, SftchatError) and error.args else type(error).__name__


REPEATED_ITEMS = 50
"""Number of repeated items: if one reply in twenty changes, at least one of these does with 92 % probability."""
SHUFFLES = 2


def check_repeatability(
    engine: Engine,
    task: Task,
    items: Sequence[Item],
    *,
    sampling: SamplingParams | None = None,
    max_items: int = REPEATED_ITEMS,
    seed: int = 0,
) -> SelfCheck:
    """Repeat some items, each alone and then all of them in shuffled batches, and compare with the original replies.

    Args:
        engine: Engine of the model that generated the replies.
        task: Task with the scorer.
        items: Scored items; a sample of them is repeated.
        sampling: Sampling parameters of the original replies.
        max_items: Maximum size of the sample.
        seed: Seed of the sample and of the shuffles.

    Raises:
        EngineError: When the engine cannot generate any more.
        PluginError: When the task's scorer breaks its contract.
    """
    rng = Random(seed)
    sample = rng.sample(list(items), min(max_items, len(items)))
    examples = [item.example for item in sample]
    repetitions = [_repeat_alone(engine, task, examples, sampling)]
    repetitions += [_repeat_shuffled(engine, task, examples, sampling, rng) for _ in range(SHUFFLES)]
    changed = _count_differing(sample, repetitions, lambda item: item.reply.text)
    rescored = _count_differing(sample, repetitions, lambda item: item.score.stats)
    return SelfCheck(len(sample), len(repetitions), changed, rescored, _largest_changes(task, sample, repetitions))


def _repeat_alone(engine: Engine, task: Task, examples: Sequence[Example], sampling: SamplingParams | None) -> dict[str, Item]:
    return _items_by_id(outcome for example in examples for outcome in generate_outcomes(engine, task, [example], sampling=sampling))


def _repeat_shuffled(
    engine: Engine, task: Task, examples: Sequence[Example], sampling: SamplingParams | None, rng: Random
) -> dict[str, Item]:
    """Generate replies to the examples in another order, which gives other batches."""
    return _items_by_id(generate_outcomes(engine, task, rng.sample(list(examples), len(examples)), sampling=sampling))


def _items_by_id(outcomes: Iterator[Outcome]) -> dict[str, Item]:
    return {outcome.example.id: outcome for outcome in outcomes if isinstance(outcome, Item)}


def _count_differing(sample: Sequence[Item], repetitions: Sequence[Mapping[str, Item]], attribute: Callable[[Item], object]) -> int:
    """Count the items whose attribute differed at least once; an unanswered repetition counts as unchanged."""
    return sum(any(attribute(items.get(item.example.id, item)) != attribute(item) for items in repetitions) for item in sample)


def _largest_changes(task: Task, sample: Sequence[Item], repetitions: Sequence[Mapping[str, Item]]) -> dict[str, float]:
    """Return the largest change of each metric, by name; an unanswered repetition counts as unchanged."""
    if not sample:
        return {}
    original = statistics.build_counts(item.score for item in sample)
    repeated = [statistics.build_counts(items.get(item.example.id, item).score for item in sample) for items in repetitions]
    changes = {}
    for metric in task.metrics:
        value = statistics.compute_metric(metric, original)
        changes[metric.name] = max(abs(statistics.compute_metric(metric, table) - value) for table in repeated)
    return changes


def rank_checkpoints(results: Sequence[ModelResult], task: Task, *, seed: int = 0) -> tuple[Ranked, ...]:
    """Order checkpoints by step and mark those that cannot be distinguished from the best.

    A checkpoint is tied with the best when its primary metric is not judged worse in the paired comparison; with few items many are tied. The
    best is chosen on the same items that it is compared on, so its value is too good on average (winner's curse). An unbiased estimate needs other
    items.

    Args:
        results: Results on one evalset, at least one with a metric.
        task: Task with the primary metric.
        seed: Seed of the resampling.

    Returns:
        Sorted by step; those without a step come first, in the order of ``results``.

    Raises:
        NotComparableError: When two were not scored on the same items.
        ValueError: When no result has a metric.
    """
    ordered = sorted(results, key=_step_or_minus_one)
    scored = [result for result in ordered if result.metrics]
    if not scored:
        raise ValueError("no result has a metric to be ranked by")
    sign = 1.0 if task.metric.higher_is_better else -1.0
    best = max(scored, key=lambda result: sign * result.metric(task.metric.name).value)
    return tuple(_compare_with_best(result, best, task, seed) for result in ordered)


def _step_or_minus_one(result: ModelResult) -> int:
    step = step_of(result.model)
    return -1 if step is None else step


def _compare_with_best(result: ModelResult, best: ModelResult, task: Task, seed: int) -> Ranked:
    step = step_of(result.model)
    if result is best:
        return Ranked(result, step, best=True, tied=True)
    metrics = compare(best, result, task, seed=seed).metrics
    difference = next((metric for metric in metrics if metric.name == task.metric.name), None)
    return Ranked(result, step, best=False, tied=difference is not None and difference.judgement != "worse", difference=difference)
