"""Scored items, with their counts in arrays and their totals."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import overload

import numpy as np
from numpy.typing import NDArray

from sftchat.evaluation import statistics
from sftchat.evaluation.evalset import cluster_of
from sftchat.likelihood import START, describe_likelihoods
from sftchat.thinking import has_only_thoughts
from sftchat.types import Example, Reply, Score

Ints = NDArray[np.int64]
COLLECTION_THRESHOLD = 200_000
"""Number of new objects after which the garbage collector runs."""


@contextmanager
def rare_garbage_collection() -> Iterator[None]:
    """Run the garbage collector rarely in a block or a decorated function.

    A hundred thousand items are millions of objects without cycles; at the usual threshold, searching them for cycles takes a fifth of the time.
    """
    before = gc.get_threshold()
    youngest, *older = before
    if youngest:  # 0 means that collection is disabled
        gc.set_threshold(max(COLLECTION_THRESHOLD, youngest), *older)
    try:
        yield
    finally:
        gc.set_threshold(*before)


@dataclass(frozen=True)
class Item:
    """One example with the model's reply and the task's score."""

    example: Example
    reply: Reply
    score: Score

    @property
    def right(self) -> bool:
        """Whether the scorer found no error."""
        return not self.score.errors

    @property
    def shown(self) -> str:
        """The reply as reports show it."""
        text = self.reply.text
        return describe_likelihoods(text, self.score.answer) if text.startswith(START) else text


@dataclass(frozen=True)
class Failure:
    """One example without a reply or without a judge's verdict on it, in no metric: a dead server is not a bad model.

    Attributes:
        example: The example of the request.
        error: Error message of the engine, or why the reply was not judged.
        reply: The reply that was not judged; None when there is no reply.
    """

    example: Example
    error: str
    reply: Reply | None = None

    @property
    def lack(self) -> str:
        """What is missing: ``not answered``, or ``not judged`` when there is a reply."""
        return "not answered" if self.reply is None else "not judged"

    @property
    def shown(self) -> str:
        """The error in brackets, followed by the reply if there is one."""
        return f"[not answered: {self.error}]" if self.reply is None else f"[{self.error}] {self.reply.text}"


Outcome = Item | Failure
Pair = tuple[Item, Item]
"""One example with the baseline's reply, then with the candidate's."""


@dataclass(frozen=True)
class Totals:
    """Sums over items.

    Attributes:
        right: Number of items without an error.
        truncated: Number of replies that reached the token limit.
        cut_thinking: Number of replies with thoughts but no answer, because the token limit was reached first.
        prompt_tokens: Number of tokens of all prompts.
        completion_tokens: Number of tokens of all replies.
        errors: Number of errors per error class.
        slices: Summed counts by count key, per slice.
        occurrences: Number of items per slice.
    """

    right: int
    truncated: int
    cut_thinking: int
    prompt_tokens: int
    completion_tokens: int
    errors: Mapping[str, int]
    slices: Mapping[str, Mapping[str, float]]
    occurrences: Mapping[str, int]


def compute_totals(items: Sequence[Item]) -> Totals:
    """Sum the errors, tokens and slices of items."""
    slices: dict[str, dict[str, float]] = {}
    occurrences: Counter[str] = Counter()
    for item in items:
        for name, stats in item.score.groups.items():
            occurrences[name] += 1
            sums = slices.setdefault(name, {})
            for key, count in stats.items():
                sums[key] = sums.get(key, 0) + count
    replies = [reply for item in items for reply in item.reply.samples]
    return Totals(
        right=sum(item.right for item in items),
        truncated=sum(reply.finish_reason == "length" for reply in replies),
        cut_thinking=sum(map(has_only_thoughts, replies)),
        prompt_tokens=sum(reply.prompt_tokens for reply in replies),
        completion_tokens=sum(reply.completion_tokens for reply in replies),
        errors=Counter(chain.from_iterable(item.score.errors for item in items)),
        slices=slices,
        occurrences=occurrences,
    )


@dataclass(frozen=True, eq=False)
class ItemArrays:
    """Counts of scored items, in item order.

    Attributes:
        table: Counts of each item; None when no item was answered.
        error_counts: Number of errors per item.
        clusters: Cluster of each item; empty when items are not clustered.
    """

    table: statistics.Counts | None
    error_counts: Ints
    clusters: list[str]


@dataclass(frozen=True, eq=False)
class ScoredItems(Sequence[Item]):
    """Scored items in the evalset's order; as a sequence, the answered ones.

    Attributes:
        outcomes: Item or failure by id, for every requested id.
        arrays: Counts of the answered items.
        cluster: Metadata key that groups items into clusters; empty for independent items.
    """

    outcomes: Mapping[str, Outcome]
    arrays: ItemArrays
    cluster: str = ""

    @cached_property
    def items(self) -> tuple[Item, ...]:
        """The answered items."""
        return tuple(outcome for outcome in self.outcomes.values() if isinstance(outcome, Item))

    @cached_property
    def failures(self) -> tuple[Failure, ...]:
        """The requests without a reply."""
        return tuple(outcome for outcome in self.outcomes.values() if isinstance(outcome, Failure))

    @cached_property
    def requested_ids(self) -> list[str]:
        """Ids of all requested items."""
        return list(self.outcomes)

    @cached_property
    def ids(self) -> list[str]:
        """Ids of the answered items."""
        return [item.example.id for item in self.items]

    @cached_property
    def totals(self) -> Totals:
        """Totals over the answered items."""
        return compute_totals(self.items)

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Item, ...]: ...
    def __getitem__(self, index: int | slice) -> Item | tuple[Item, ...]:
        return self.items[index]

    @property
    def table(self) -> statistics.Counts:
        """Counts of the answered items.

        Raises:
            PluginError: When no item was answered.
        """
        return self.arrays.table or statistics.build_counts(())


def collect_outcomes(outcomes: Iterable[Outcome], cluster: str = "") -> ScoredItems:
    """Collect outcomes into ``ScoredItems``.

    Args:
        outcomes: In the evalset's order, with unique ids.
        cluster: Metadata key that groups items into clusters; empty for independent items.

    Raises:
        UsageError: When an item lacks the metadata key.
        PluginError: When the items have different count keys.
    """
    by_id = {outcome.example.id: outcome for outcome in outcomes}
    items = [outcome for outcome in by_id.values() if isinstance(outcome, Item)]
    arrays = ItemArrays(
        statistics.build_counts(item.score for item in items) if items else None,
        np.array([len(item.score.errors) for item in items], dtype=np.int64),
        [cluster_of(item.example, cluster) for item in items] if cluster else [],
    )
    return ScoredItems(by_id, arrays, cluster)
