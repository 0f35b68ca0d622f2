"""Scored items with their counts in arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import overload

import numpy as np
from numpy.typing import NDArray

from sftchat.evaluation import statistics
from sftchat.evaluation.baseline import Baseline, check_counts
from sftchat.evaluation.evalset import cluster_of
from sftchat.evaluation.run import Failure, Item, Outcome, Scorer, score_each
from sftchat.evaluation.totals import Totals
from sftchat.task import Task
from sftchat.types import Example, Reply

Ints = NDArray[np.int64]
Replies = Mapping[str, Reply | str]


@dataclass
class ItemArrays:
    """Counts of scored items, in item order.

    Attributes:
        table: Counts of each item; None when no item was answered.
        faults: Number of error classes per item.
        said: Hash of each reply's text.
        clusters: Cluster of each item; empty when items are not clustered.
        tally: Totals over all items.
    """

    table: statistics.Counts | None
    faults: Ints
    said: NDArray[np.uint64]
    clusters: list[str]
    tally: Totals


def item_arrays(items: Sequence[Item], cluster: str = "") -> ItemArrays:
    """Compute the arrays of answered items.

    Args:
        items: In item order.
        cluster: Metadata key that groups items into clusters; empty for independent items.

    Raises:
        UsageError: When an item lacks the metadata key.
        PluginError: When two items have different count keys.
    """
    tally = Totals()
    for item in items:
        tally.add(item)
    return ItemArrays(
        statistics.counts(item.score for item in items) if items else None,
        np.array([len(item.score.errors) for item in items], dtype=np.int64),
        np.array([text_hash(item.reply.text) for item in items], dtype=np.uint64),
        [cluster_of(item.example, cluster) for item in items] if cluster else [],
        tally,
    )


@dataclass(frozen=True, eq=False)
class ScoredItems(Sequence[Item]):
    """Scored items in the evalset's order; as a sequence, the answered ones.

    Attributes:
        outcomes: Item or failure by id, for every requested id.
        figures: Arrays over the answered items.
        cluster: Metadata key that groups items into clusters; empty for independent items.
    """

    outcomes: Mapping[str, Outcome]
    figures: ItemArrays
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
    def asked(self) -> list[str]:
        """Ids of all requested items."""
        return list(self.outcomes)

    @cached_property
    def ids(self) -> list[str]:
        """Ids of the answered items."""
        return [item.example.id for item in self.items]

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
        return self.figures.table or statistics.counts(())


def scored_items(outcomes: Iterable[Outcome], cluster: str = "") -> ScoredItems:
    """Collect outcomes into ``ScoredItems``.

    Args:
        outcomes: In the evalset's order, with unique ids.
        cluster: Metadata key that groups items into clusters; empty for independent items.

    Raises:
        UsageError: When an item lacks the metadata key.
        PluginError: When the items have different count keys.
    """
    by_id = {outcome.example.id: outcome for outcome in outcomes}
    return ScoredItems(by_id, item_arrays([outcome for outcome in by_id.values() if isinstance(outcome, Item)], cluster), cluster)


def score_stored(
    task: Task, examples: Iterable[Example], stored: Sequence[Replies], baseline: Baseline | None = None, cluster: str = ""
) -> list[ScoredItems]:
    """Score several sets of stored replies to one evalset in a single pass.

    Args:
        task: Task whose scorer is used.
        examples: Examples of the evalset.
        stored: Replies by id, one mapping per file; an example without a reply is left out. The first is the baseline's, if there is a baseline.
        baseline: Baseline whose stored counts must match today's.
        cluster: Metadata key that groups items into clusters; empty for independent items.

    Raises:
        NotComparableError: When the baseline was counted by another scorer.
        UsageError: When an item lacks the metadata key.
        PluginError: When the task's scorer breaks its contract.
    """
    found: list[list[Outcome]] = [[] for _ in stored]
    scorer = Scorer(task)
    for example in examples:
        outcomes = score_each(scorer, example, [replies.get(example.id) for replies in stored])
        for mine, outcome in zip(found, outcomes, strict=True):
            mine += () if outcome is None else (outcome,)
    scored = [scored_items(outcomes, cluster) for outcomes in found]
    if baseline is not None:
        check_counts(baseline, scored[0])
    return scored


def text_hash(text: str) -> int:
    """64-bit hash of a text; two different texts collide with probability 2⁻⁶⁴.

    Args:
        text: Any text, including unpaired surrogates.
    """
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
