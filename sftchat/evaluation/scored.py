"""Scored items, and their counts in arrays."""

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
    """What is held of some scored items, in their order.

    Attributes:
        table: Their counts; None where nothing was answered.
        faults: How many faults each has.
        said: A hash of what was said.
        clusters: Which cluster each belongs to; empty where they stand alone.
        tally: What they add up to.
    """

    table: statistics.Counts | None
    faults: Ints
    said: NDArray[np.uint64]
    clusters: list[str]
    tally: Totals


def item_arrays(outcomes: Sequence[Outcome | None], cluster: str = "") -> ItemArrays:
    """The figures of some outcomes.

    Args:
        outcomes: None where nobody asked.
        cluster: Metadata key of items that belong together; empty where they stand alone.

    Raises:
        UsageError: When an item lacks the key.
        PluginError: When two items have different counts.
    """
    items = [outcome for outcome in outcomes if isinstance(outcome, Item)]
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
    """Scored items in the evalset's order.

    Attributes:
        outcomes: What was answered to each id that was asked, or why nothing was.
        figures: Of what was answered.
        cluster: Metadata key of items that belong together; empty where they stand alone.
    """

    outcomes: Mapping[str, Outcome]
    figures: ItemArrays
    cluster: str = ""

    @cached_property
    def items(self) -> tuple[Item, ...]:
        """What was answered."""
        return tuple(outcome for outcome in self.outcomes.values() if isinstance(outcome, Item))

    @cached_property
    def failures(self) -> tuple[Failure, ...]:
        """What was not answered."""
        return tuple(outcome for outcome in self.outcomes.values() if isinstance(outcome, Failure))

    @cached_property
    def asked(self) -> list[str]:
        """The ids of everything that was asked."""
        return list(self.outcomes)

    @cached_property
    def ids(self) -> list[str]:
        """The ids of what was answered."""
        return [item.example.id for item in self.items]

    def __len__(self) -> int:
        """How many were answered."""
        return len(self.items)

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Item, ...]: ...
    def __getitem__(self, index: int | slice) -> Item | tuple[Item, ...]:
        """One item, or some of them."""
        return self.items[index]

    @property
    def table(self) -> statistics.Counts:
        """Their counts.

        Raises:
            PluginError: When nothing was answered.
        """
        return self.figures.table or statistics.counts(())


def scored_items(outcomes: Iterable[Outcome], cluster: str = "") -> ScoredItems:
    """Outcomes with their counts.

    Args:
        outcomes: In the gold set's order, each of another id.
        cluster: Metadata key of items that belong together; empty where they stand alone.

    Raises:
        UsageError: When an item lacks the key.
        PluginError: When the items have different counts.
    """
    by_id = {outcome.example.id: outcome for outcome in outcomes}
    return ScoredItems(by_id, item_arrays([*by_id.values()], cluster), cluster)


def score_stored(
    task: Task, examples: Iterable[Example], stored: Sequence[Replies], baseline: Baseline | None = None, cluster: str = ""
) -> list[ScoredItems]:
    """Score files of replies to one evalset.

    Args:
        task: Scores.
        examples: The gold set.
        stored: The files, by id; an example that one lacks is left out of its items. The first is the baseline's, where there is one.
        baseline: Must have counted alike.
        cluster: Metadata key of items that belong together; empty where they stand alone.

    Raises:
        NotComparableError: When the baseline was counted by another scorer.
        UsageError: When an item lacks the key.
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
    """A number that two texts share only by a chance of one in 2⁶⁴.

    Args:
        text: Any; halves of surrogate pairs too.
    """
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
