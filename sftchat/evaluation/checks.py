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
"""Maximum size of a training set that is compared by default; a larger one takes minutes."""
SLOW_ROWS = 100_000
"""Number of training rows from which a line reports the check, which then takes long."""
CHECK_SOURCES = ("data/*.py", "text.py", "thinking.py")
"""The source files of sftchat that read training rows and compare them."""


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
        manifest: Training sources of the checkpoint: files with their hashes, or calls of a task's generator.
        task: Task of the result.
        tasks: All tasks by name; a generator's rows are reproduced from its seed.
        seed: Seed of the resampling.
        cache: Keeps the leaks of the same items in the same training rows; None compares them again.
        say: Called with a line for the user before a comparison that takes long.

    Raises:
        PluginError: When a metric cannot be computed.
    """
    if manifest.rows > MAX_TRAINING_ROWS:
        return LeakCheck(
            (), (), (f"{manifest.rows:,} rows are too many to compare unasked; 'sftchat data check EVALSET --against FILE' does",)
        )
    outcomes: tuple[Outcome, ...] = (*result.items, *result.failures)
    examples = [outcome.example for outcome in outcomes]
    unchecked: list[str] = []
    hashed = file_hash if cache is None else cache.file_hash
    available = [source for source in manifest.data if _is_available(source, tasks, hashed, unchecked)]
    key = _leak_key(examples, available, tasks, hashed) if cache is not None and available else None
    leaks = _cached_leaks(cache, key, examples) if cache is not None and key is not None else None
    if leaks is None:
        if manifest.rows >= SLOW_ROWS:
            say(f"comparing {pluralize(len(examples), 'item')} with {manifest.rows:,} training rows, once for these rows")
        failed: list[str] = []
        leaks = find_leaks(examples, _read_training_rows(available, tasks, failed))
        unchecked += failed
        if cache is not None and key is not None and not failed and all(_is_available(source, tasks, hashed, []) for source in available):
            index_by_id = {example.id: index for index, example in enumerate(examples)}
            cache.put_leaks(key, json.dumps([[index_by_id[leak.id], leak.row, leak.similarity] for leak in leaks]))
    leaking = {leak.id for leak in leaks}
    rest = [outcome for outcome in outcomes if outcome.example.id not in leaking]
    clean = summarise(result.model, task, collect_outcomes(rest), result.evalset, seed=seed).metrics if leaks and rest else ()
    return LeakCheck(leaks, clean, tuple(unchecked))


def _leak_key(
    examples: Sequence[Example], sources: Sequence[Mapping[str, Any]], tasks: Mapping[str, Task], hashed: FileHasher
) -> bytes | None:
    """Return a hash of everything that affects the leaks; None when the code of a generator is unknown."""
    package = Path(__file__).parent.parent
    code = files_digest(package, [path.relative_to(package).as_posix() for pattern in CHECK_SOURCES for path in package.glob(pattern)])
    digest = hashlib.sha256(f"{code} {platform.python_version()}".encode())
    for source in sources:
        generator = _hash_code(tasks[source["generator"]].generate, hashed) if "generator" in source else "file"
        if not generator:
            return None
        digest.update(f"\0{generator} {json.dumps(source, sort_keys=True, default=str)}".encode())
    for example in examples:
        digest.update(b"\0\0" + prompt_text(example).encode("utf-8", "surrogatepass"))
    return digest.digest()


def _hash_code(function: Callable[..., object], hashed: FileHasher) -> str:
    """Return a hash of all files of the package that defines a function; empty for what may read other values, such as a closure."""
    if not isfunction(function) or function.__closure__:
        return ""
    file = getattr(sys.modules.get(function.__module__.partition(".")[0]), "__file__", None)
    if file is None or function.__module__ == "__main__":
        return ""
    path = Path(file)
    try:
        if path.name != "__init__.py":
            return hashed(path)
        names = [other.relative_to(path.parent).as_posix() for other in path.parent.rglob("*") if other.is_file()]
        return files_digest(path.parent, [name for name in names if "__pycache__" not in name], hashed)
    except OSError:
        return ""


def _cached_leaks(cache: ReplyCache, key: bytes, examples: Sequence[Example]) -> tuple[Leak, ...] | None:
    """Return the leaks of an earlier check, or None."""
    text = cache.get_leaks(key)
    try:
        rows = () if text is None else from_json(tuple[tuple[int, str, float], ...], load_json(text))
        leaks = tuple(Leak(examples[index].id, examples[index].source, row, similarity) for index, row, similarity in rows)
    except (ValueError, IndexError):
        return None  # damaged: checked again, and replaced
    return None if text is None else leaks


def _is_available(source: Mapping[str, Any], tasks: Mapping[str, Task], hashed: FileHasher, unchecked: list[str]) -> bool:
    """Return whether a source still has the rows of the training; a changed or missing one is added to ``unchecked``."""
    try:
        if "generator" in source:
            if source["generator"] not in tasks:
                raise SftchatError(f"task '{source['generator']}' is not installed")
        elif source["file"].startswith("hf://"):
            raise SftchatError("data of the Hub is not fetched again for this")
        elif not Path(source["file"]).is_file():
            raise SftchatError("no such file any more")
        elif hashed(Path(source["file"])) != source["sha256"]:
            raise SftchatError("the file was changed after the training")
        return True
    except (SftchatError, OSError, KeyError) as error:
        unchecked.append(_unchecked_line(source, error))
        return False


def _read_training_rows(sources: Iterable[Mapping[str, Any]], tasks: Mapping[str, Task], unchecked: list[str]) -> Iterator[Example]:
    """Yield the training rows of every source; one that cannot be read is added to ``unchecked``."""
    for source in sources:
        try:
            if "generator" in source:
                yield from generate_examples(tasks[source["generator"]], source["n"], source["seed"], source["options"])
            else:
                yield from read_examples(Path(source["file"]), recorded_options(source))
        except (SftchatError, OSError, KeyError) as error:
            unchecked.append(_unchecked_line(source, error))


def _unchecked_line(source: Mapping[str, Any], error: Exception) -> str:
    """Return the line on a source that cannot be compared."""
    words = error.args[0] if isinstance(error, SftchatError) and error.args else type(error).__name__
    return f"{source.get('file') or source.get('generator') or source}: {words}"


REPEATED_ITEMS = 50
"""Number of items to repeat: detects that one reply in twenty changes, with 92 % probability."""
SHUFFLES = 2


def check_repeatability(
    engine: Engine, task: Task, items: Sequence[Item], *, sampling: SamplingParams | None = None, most: int = REPEATED_ITEMS, seed: int = 0
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
    again = [
        _repeat_alone(engine, task, examples, sampling),
        *(_repeat_shuffled(engine, task, examples, sampling, rng) for _ in range(SHUFFLES)),
    ]
    changed = _count_differing(chosen, again, lambda item: item.reply.text)
    rescored = _count_differing(chosen, again, lambda item: item.score.stats)
    return SelfCheck(len(chosen), len(again), changed, rescored, _largest_changes(task, chosen, again))


def _repeat_alone(engine: Engine, task: Task, examples: Sequence[Example], sampling: SamplingParams | None) -> dict[str, Item]:
    """Generate replies to examples one at a time."""
    return _items_by_id(outcome for example in examples for outcome in generate_outcomes(engine, task, [example], sampling=sampling))


def _repeat_shuffled(
    engine: Engine, task: Task, examples: Sequence[Example], sampling: SamplingParams | None, rng: Random
) -> dict[str, Item]:
    """Generate replies to examples in another order, and so in other batches."""
    return _items_by_id(generate_outcomes(engine, task, rng.sample(list(examples), len(examples)), sampling=sampling))


def _items_by_id(outcomes: Iterator[Outcome]) -> dict[str, Item]:
    """Return the answered items by id."""
    return {outcome.example.id: outcome for outcome in outcomes if isinstance(outcome, Item)}


def _count_differing(first: Sequence[Item], again: Sequence[Mapping[str, Item]], what: Callable[[Item], object]) -> int:
    """Count the items that differed at least once; an unanswered repetition counts as unchanged."""
    return sum(any(what(answers.get(item.example.id, item)) != what(item) for answers in again) for item in first)


def _largest_changes(task: Task, first: Sequence[Item], again: Sequence[Mapping[str, Item]]) -> dict[str, float]:
    """Return the largest change of each metric; an unanswered repetition counts as unchanged."""
    if not first:
        return {}
    tables = [
        statistics.build_counts(item.score for item in items)
        for items in (first, *([answers.get(item.example.id, item) for item in first] for answers in again))
    ]
    return {
        metric.name: max(
            abs(statistics.compute_metric(metric, table) - statistics.compute_metric(metric, tables[0])) for table in tables[1:]
        )
        for metric in task.metrics
    }


def rank_checkpoints(results: Sequence[ModelResult], task: Task, *, seed: int = 0) -> tuple[Ranked, ...]:
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
    return tuple(_compare_with_best(result, best, task, seed) for result in ordered)


def _compare_with_best(result: ModelResult, best: ModelResult, task: Task, seed: int) -> Ranked:
    """Compare one checkpoint with the best."""
    step = step_of(result.model)
    if result is best:
        return Ranked(result, step, best=True, tied=True)
    metrics = compare(best, result, task, seed=seed).metrics
    difference = next((metric for metric in metrics if metric.name == task.metric.name), None)
    return Ranked(result, step, best=False, tied=difference is not None and difference.judgement != "worse", difference=difference)
