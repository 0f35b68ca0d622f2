"""The requests of an item, one per sample, and the score of all its samples together.

The item is the unit of every mean, interval and test: the counts of its samples are averaged. pass@k is the unbiased estimator of Chen et al. 2021
(arXiv 2107.03374), and maj@k asks whether the most frequent answer is right (Wang et al. 2022, arXiv 2203.11171).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import comb
from typing import Any

from sftchat.data.turns import tools_of
from sftchat.engine import Request
from sftchat.errors import UsageError
from sftchat.likelihood import continuations_of
from sftchat.task import Metric, Task, prompt_messages, ratio
from sftchat.types import Example, Reply, SamplingParams, Score

ITEMS = "items"
"""Count of every item with several samples: 1."""


def item_requests(task: Task, example: Example, sampling: SamplingParams) -> tuple[Request, ...]:
    """Build the requests of one item: one per sample, each with its own seed.

    The seed of a sample depends on the seed of the evaluation, the item and the number of the sample alone, so that more samples leave the first
    ones as they are.

    Args:
        task: Task with the system prompt, the few-shot turns and the number of samples.
        example: The item.
        sampling: Sampling parameters with the seed of the evaluation.

    Raises:
        PluginError: When the task's ``few_shot`` or ``continuations`` fails.
    """
    messages, tools = prompt_messages(task, example), tools_of(example)
    prompt = raw_prompt(messages) if task.raw_prompt else None
    if task.continuations is not None:  # the sampling parameters have no effect, so the cache should not tell them apart
        fields: dict[str, Any] = {"tools": tools, "continuations": continuations_of(task, example), "ended": task.ended_continuations}
        return (Request(example.id, () if task.raw_prompt else messages, prompt, **fields),)
    requests = []
    for sample in range(task.samples):
        id = example.id if task.samples == 1 else f"{sample}#{example.id}"
        own_sampling = sampling if sampling.temperature == 0 else replace(sampling, seed=sample_seed(sampling.seed, example.id, sample))
        requests.append(Request(id, () if task.raw_prompt else messages, prompt, own_sampling, tools=tools))
    return tuple(requests)


def requests_of(task: Task, examples: Iterable[Example], sampling: SamplingParams) -> Iterator[Request]:
    """Yield the requests of several items, see ``item_requests``."""
    for example in examples:
        yield from item_requests(task, example, sampling)


def raw_prompt(messages: Iterable[Mapping[str, object]]) -> str:
    """Return the text of a prompt without a template: the contents of the turns, separated by blank lines; few-shot replies follow their question."""
    parts: list[str] = []
    for message in messages:
        text = str(message["content"])
        if message["role"] == "assistant" and parts:
            parts[-1] += text if parts[-1].endswith((" ", "\n")) else f" {text}"
        else:
            parts.append(text)
    return "\n\n".join(parts)


def sample_seed(seed: int, item_id: str, sample: int) -> int:
    """Return the seed of one sample, from 0 to 2³¹ − 1.

    Args:
        seed: Seed of the evaluation.
        item_id: Id of the item.
        sample: Number of the sample, from 0.
    """
    digest = hashlib.sha256(f"{seed}\0{sample}\0{item_id}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def check_samples(task: Task, sampling: SamplingParams) -> None:
    """Refuse several samples that would be equal.

    Raises:
        UsageError: When there are several samples, and the temperature is 0 or the task computes likelihoods.
    """
    if task.samples > 1 and task.continuations is not None:
        raise UsageError(f"{task.samples} samples would have equal likelihoods: leave -k out, since the scorer generates no replies")
    if task.samples > 1 and sampling.temperature == 0:
        raise UsageError(f"{task.samples} samples would be {task.samples} equal replies: give a --temperature above 0, or -k 1")


def join_samples(replies: Sequence[Reply]) -> Reply:
    """Join the samples of an item, in the order of their numbers, to one reply."""
    return replace(replies[0], other_samples=tuple(replies[1:]))


def pass_at_k(samples: int, right: int, k: int) -> float:
    """Estimate the probability that at least one of ``k`` samples is right: ``1 - C(n - c, k) / C(n, k)`` (Chen et al. 2021).

    Args:
        samples: Number of samples drawn, n.
        right: Number of right ones, c.
        k: From 1 to n.
    """
    return 1.0 - comb(samples - right, k) / comb(samples, k)


def pass_sizes(samples: int) -> tuple[int, ...]:
    """Return the k for which pass@k is reported: the powers of two up to the number of samples, and that number."""
    return tuple(sorted({1 << power for power in range(samples.bit_length())} | {samples}))


def majority(scores: Sequence[Score]) -> int:
    """Return the index of the first score with the most frequent answer; empty answers count only if there is no other."""
    answers = [score.answer for score in scores]
    votes = Counter(answer for answer in answers if answer) or Counter(answers)
    return answers.index(max(votes, key=lambda answer: (votes[answer], -answers.index(answer))))


def join_scores(scores: Sequence[Score]) -> Score:
    """Join the scores of an item's samples to the score of the item.

    Counts, and counts of slices, are means over the samples. The answer is the most frequent one. The item is right, that is without error
    classes, when more than half of its samples are; otherwise it has the error classes of the wrong ones.

    Args:
        scores: Scores of the samples, at least one, all with the same count keys.
    """
    count = len(scores)
    right = sum(not score.errors for score in scores)
    voted = scores[majority(scores)]
    stats = {key: sum(score.stats[key] for score in scores) / count for key in scores[0].stats}
    stats |= {ITEMS: 1, f"maj@{count}": int(not voted.errors)}
    stats |= {f"pass@{k}": pass_at_k(count, right, k) for k in pass_sizes(count)}
    groups: dict[str, dict[str, float]] = {}
    for score in scores:
        for name, counts in score.groups.items():
            sums = groups.setdefault(name, {})
            for key, value in counts.items():
                sums[key] = sums.get(key, 0) + value / count
    wrong_classes = tuple(dict.fromkeys(error for score in scores for error in score.errors))
    return Score(stats, voted.answer, () if 2 * right > count else wrong_classes, groups, voted.expected)


def with_sample_metrics(task: Task) -> Task:
    """Return the task with the metrics of several samples, pass@k and maj@k, after its own; unchanged with one sample.

    The task's metrics are then means over samples with the item as the unit, so that rates have no Wilson interval.
    """
    if task.samples == 1:
        return task
    own = tuple(replace(metric, per_item_rate=False) for metric in task.metrics)
    names = {metric.name for metric in own}
    added = [_item_mean(f"pass@{k}", f"share of items with a right one among {k} samples, estimated") for k in pass_sizes(task.samples)]
    added.append(_item_mean(f"maj@{task.samples}", f"share of items whose most frequent answer of {task.samples} samples is right"))
    return replace(task, metrics=(*own, *(metric for metric in added if metric.name not in names)))


def _item_mean(key: str, description: str) -> Metric:
    return Metric(key, lambda sums: ratio(sums[key], sums[ITEMS]), description, stats=(key, ITEMS))
