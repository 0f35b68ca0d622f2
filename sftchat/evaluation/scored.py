"""Scored items, with their counts in arrays and their totals."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from sftchat.evaluation import statistics
from sftchat.evaluation.evalset import cluster_of
from sftchat.thinking import only_thoughts
from sftchat.types import Example, Reply, Score

T = TypeVar("T", int, float)
Ints = NDArray[np.int64]


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


@dataclass(frozen=True)
class Failure:
    """One example without a reply. It is not scored, so that a dead server is not mistaken for a bad model.

    Attributes:
        example: The example of the request.
        error: Error message of the engine.
    """

    example: Example
    error: str


Outcome = Item | Failure


Pair = tuple[Item, Item]
"""The same item twice: with the baseline's reply and with the candidate's."""


@dataclass
class Totals:
    """Sums over items, updated item by item.

    Attributes:
        right: Number of items without an error.
        truncated: Number of replies that reached the token limit.
        cut_thinking: Number of replies that were cut while the model thought: thoughts without an answer.
        prompt_tokens: Number of tokens of all prompts.
        completion_tokens: Number of tokens of all replies.
        errors: Number of errors per error class.
        groups: Summed counts per slice.
        occurrences: Number of items per slice.
    """

    right: int = 0
    truncated: int = 0
    cut_thinking: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    groups: dict[str, dict[str, float]] = field(default_factory=dict)
    occurrences: dict[str, int] = field(default_factory=dict)

    def add(self, item: Item) -> None:
        """Add one item."""
        reply, score = item.reply, item.score
        self.right += not score.errors
        self.truncated += reply.finish_reason == "length"
        self.cut_thinking += only_thoughts(reply)
        self.prompt_tokens += reply.prompt_tokens
        self.completion_tokens += reply.completion_tokens
        for name in score.errors:
            self.errors[name] = self.errors.get(name, 0) + 1
        for name, stats in score.groups.items():
            self.occurrences[name] = self.occurrences.get(name, 0) + 1
            _add(self.groups.setdefault(name, {}), stats)


def _add(total: dict[str, T], more: Mapping[str, T]) -> None:
    """Add values by key, in place."""
    for name, count in more.items():
        total[name] = total.get(name, 0) + count


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


def text_hash(text: str) -> int:
    """64-bit hash of a text; two different texts collide with probability 2⁻⁶⁴.

    Args:
        text: Any text, including unpaired surrogates.
    """
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
