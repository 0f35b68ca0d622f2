"""Scored items, wherever they are: what every item counts is held as numbers, the item itself is handed out when it is asked for."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sftchat.evaluation import statistics
from sftchat.evaluation.baseline import Baseline
from sftchat.evaluation.comparable import check_counts
from sftchat.evaluation.evalset import cluster_of
from sftchat.evaluation.items import Failure, Item, Outcome, Scorer, score_each
from sftchat.evaluation.lazy import Lazy
from sftchat.evaluation.tally import Tally
from sftchat.task import Task
from sftchat.types import Example, Reply

Ints = NDArray[np.int64]
Replies = Mapping[str, Reply | str]
Spread = Callable[[Callable[[range], list[str]], Sequence[range]], Iterable[list[str]]]
"""Does the same with every part of some work and gives the results in the parts' order, as ``map`` does."""

SIZE = 500
"""Items that are worked on at once."""


@dataclass
class Figures:
    """What is held of some scored items, in their order.

    Attributes:
        table: Their counts; None where nothing was answered.
        faults: How many faults each has.
        said: A hash of what was said.
        clusters: Which cluster each belongs to; empty where they stand alone.
        failed: Ids of what was not answered.
        tally: What they add up to.
        first: Id of the first item; empty where nothing was answered.
    """

    table: statistics.Counts | None
    faults: Ints
    said: NDArray[np.uint64]
    clusters: list[str]
    failed: list[str]
    tally: Tally
    first: str = ""


def figures_of(outcomes: Sequence[Outcome | None], cluster: str = "") -> Figures:
    """The figures of some outcomes.

    Args:
        outcomes: None where nobody asked.
        cluster: Metadata key of items that belong together; empty where they stand alone.

    Raises:
        UsageError: When an item lacks the key.
        PluginError: When two items have different counts.
    """
    items = [outcome for outcome in outcomes if isinstance(outcome, Item)]
    tally = Tally()
    for item in items:
        tally.add(item)
    return Figures(
        statistics.counts(item.score for item in items) if items else None,
        np.array([len(item.score.errors) for item in items], dtype=np.int64),
        np.array([text_hash(item.reply.text) for item in items], dtype=np.uint64),
        [cluster_of(item.example, cluster) for item in items] if cluster else [],
        [outcome.example.id for outcome in outcomes if isinstance(outcome, Failure)],
        tally,
        items[0].example.id if items else "",
    )


@dataclass(frozen=True, eq=False)
class Scored(Lazy[Item]):
    """Scored items in the gold set's order.

    Attributes:
        asked: The ids of everything that was asked, in that order.
        figures: Of what was answered.
        outcome_of: What was answered to an id, or why nothing was; None where nobody asked.
        cluster: Metadata key of items that belong together; empty where they stand alone.
        spread: How work on very many of them is done.
    """

    asked: Sequence[str]
    figures: Figures
    outcome_of: Callable[[str], Outcome | None]
    cluster: str = ""
    spread: Spread = map

    @cached_property
    def ids(self) -> Sequence[str]:
        """The ids of what was answered."""
        failed = frozenset(self.figures.failed)
        return [identity for identity in self.asked if identity not in failed] if failed else self.asked

    def __deepcopy__(self, memo: dict[int, Any]) -> Scored:
        """A copy whose items are copied when they are asked for: plugins that are told of a report get one."""
        outcome_of = self.outcome_of
        figures = copy.deepcopy(self.figures, memo)
        return Scored(list(self.asked), figures, lambda identity: copy.deepcopy(outcome_of(identity)), self.cluster, self.spread)

    def __len__(self) -> int:
        """How many were answered."""
        return len(self.ids)

    def at(self, place: int) -> Item:
        """One item."""
        outcome = self.outcome_of(self.ids[place])
        assert isinstance(outcome, Item)
        return outcome

    @cached_property
    def failures(self) -> tuple[Failure, ...]:
        """What was not answered."""
        return tuple(outcome for outcome in map(self.outcome_of, self.figures.failed) if isinstance(outcome, Failure))

    @property
    def table(self) -> statistics.Counts:
        """Their counts.

        Raises:
            PluginError: When nothing was answered.
        """
        return self.figures.table or statistics.counts(())

    def rendered(self, render: Callable[[Outcome], str], ids: Sequence[str] | None = None) -> Iterator[str]:
        """A text for every outcome.

        Args:
            render: Makes it.
            ids: Which outcomes, and in which order; None is every one in the gold set's order, those not answered among them.
        """
        wanted = self.asked if ids is None else ids

        def texts(part: range) -> list[str]:
            return [render(outcome) for place in part if (outcome := self.outcome_of(wanted[place])) is not None]

        return chain.from_iterable(self.spread(texts, parts(len(wanted))))


def held(outcomes: Iterable[Outcome], cluster: str = "") -> Scored:
    """Outcomes that are in memory.

    Args:
        outcomes: In the gold set's order, each of another id.
        cluster: Metadata key of items that belong together; empty where they stand alone.

    Raises:
        UsageError: When an item lacks the key.
        PluginError: When the items have different counts.
    """
    by_id = {outcome.example.id: outcome for outcome in outcomes}
    return Scored(list(by_id), figures_of([*by_id.values()], cluster), by_id.get, cluster)


def rescored(
    task: Task, examples: Iterable[Example], stored: Sequence[Replies], baseline: Baseline | None = None, cluster: str = ""
) -> list[Scored]:
    """Score files of replies that are in memory to one gold set.

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
    scored = [held(outcomes, cluster) for outcomes in found]
    if baseline is not None:
        check_counts(baseline, scored[0])
    return scored


def parts(n: int) -> list[range]:
    """Places, some at a time."""
    return [range(start, min(n, start + SIZE)) for start in range(0, n, SIZE)]


def text_hash(text: str) -> int:
    """A number that two texts share only by a chance of one in 2⁶⁴.

    Args:
        text: Any; halves of surrogate pairs too.
    """
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def joined(figures: Sequence[Figures]) -> Figures:
    """The figures of several parts, at least one."""
    tally = Tally()
    for part in figures:
        tally.join(part.tally)
    tables = [part.table for part in figures if part.table is not None]
    return Figures(
        statistics.stacked(tables) if tables else None,
        np.concatenate([part.faults for part in figures]),
        np.concatenate([part.said for part in figures]),
        [name for part in figures for name in part.clusters],
        [identity for part in figures for identity in part.failed],
        tally,
        next((part.first for part in figures if part.first), ""),
    )
