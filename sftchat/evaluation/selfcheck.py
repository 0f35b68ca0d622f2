"""Does a model answer the same when it is asked again, alone or in other company?

Sums of floating-point numbers depend on their order, so the batch that a request happens to be in can change its logits in the last bits and,
where two tokens are nearly equal, its reply. A difference between two checkpoints that is no larger than what one checkpoint differs from itself
means nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from random import Random

from sftchat.engines.base import Engine
from sftchat.evaluation import statistics
from sftchat.evaluation.items import Item, Outcome, run
from sftchat.evaluation.results import SelfCheck
from sftchat.task import Task
from sftchat.types import Example, SamplingParams

ITEMS = 50
"""How many items are asked again: enough to notice that one reply in twenty changes, with 92 % probability."""
SHUFFLES = 2


def self_check(
    engine: Engine, task: Task, items: Sequence[Item], *, sampling: SamplingParams | None = None, most: int = ITEMS, seed: int = 0
) -> SelfCheck:
    """Ask some items again, each alone and then all of them in shuffled batches, and compare with the first answers.

    Args:
        engine: The model that gave the answers.
        task: Scores the replies.
        items: Answered and scored; a sample of them is asked again.
        sampling: As for the first answers.
        most: The largest sample.
        seed: Of the sample and of the shuffles.

    Raises:
        EngineError: When the engine can generate nothing more.
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
    """The answers to examples that are asked one at a time."""
    return _items(outcome for example in examples for outcome in run(engine, task, [example], sampling=sampling))


def _shuffled(engine: Engine, task: Task, examples: Sequence[Example], sampling: SamplingParams | None, rng: Random) -> dict[str, Item]:
    """The answers to examples in another order, so in other batches."""
    return _items(run(engine, task, rng.sample(list(examples), len(examples)), sampling=sampling))


def _items(outcomes: Iterator[Outcome]) -> dict[str, Item]:
    """What was answered, by id."""
    return {outcome.example.id: outcome for outcome in outcomes if isinstance(outcome, Item)}


def _differing(first: Sequence[Item], again: Sequence[Mapping[str, Item]], what: Callable[[Item], object]) -> int:
    """How many items came out otherwise at least once; one that was not answered again counts as before."""
    return sum(any(what(answers.get(item.example.id, item)) != what(item) for answers in again) for item in first)


def _floors(task: Task, first: Sequence[Item], again: Sequence[Mapping[str, Item]]) -> dict[str, float]:
    """The largest change of each metric; an item that was not answered again counts as before."""
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
