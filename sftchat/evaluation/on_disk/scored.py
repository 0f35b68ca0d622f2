"""A million stored replies scored in one pass: what every item counts is kept as numbers, its texts stay on disk and are read again when shown."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import overload

import numpy as np
from numpy.typing import NDArray

from sftchat.errors import NotComparableError
from sftchat.evaluation import statistics
from sftchat.evaluation.baseline import Baseline, is_same, of_another_evalset, recounted
from sftchat.evaluation.evalset import cluster_of
from sftchat.evaluation.items import Failure, Item, Outcome, score
from sftchat.evaluation.on_disk.examples import StoredExamples
from sftchat.evaluation.on_disk.spreading import spread
from sftchat.evaluation.tally import Tally
from sftchat.task import Task
from sftchat.types import Reply, Score

Ints = NDArray[np.int64]
Replies = Mapping[str, Reply | str]

SIZE = 2000
"""Items that a process scores before it reports."""


@dataclass
class Figures:
    """What is kept of some scored items.

    Attributes:
        places: Where their examples stand in the gold set.
        table: Their counts; None where nothing was answered.
        faults: How many faults each has.
        said: A hash of what was said.
        clusters: Which cluster each belongs to; empty where they stand alone.
        failed: Where the examples stand that were not answered.
        tally: What they add up to.
    """

    places: Ints
    table: statistics.Counts | None
    faults: Ints
    said: NDArray[np.uint64]
    clusters: list[str]
    failed: Ints
    tally: Tally


class Scored(Sequence[Item]):
    """Scored items in the gold set's order; each is read and scored again when it is asked for.

    Args:
        task: Scores.
        examples: On disk.
        replies: On disk, by id.
        figures: Of all items.

    Attributes:
        examples: The same.
        figures: The same.
    """

    def __init__(self, task: Task, examples: StoredExamples, replies: Replies, figures: Figures) -> None:
        self.examples, self.figures = examples, figures
        self._task, self._replies = task, replies

    def __len__(self) -> int:
        """How many were answered."""
        return len(self.figures.places)

    @overload
    def __getitem__(self, place: int) -> Item: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[Item, ...]: ...
    def __getitem__(self, place: int | slice) -> Item | tuple[Item, ...]:
        """One item, or some of them."""
        if isinstance(place, slice):
            return tuple(self[one] for one in range(len(self))[place])
        outcome = self._outcome(int(self.figures.places[place]))
        assert isinstance(outcome, Item)
        return outcome

    @property
    def failures(self) -> tuple[Failure, ...]:
        """What was not answered."""
        found = (self._outcome(int(place)) for place in self.figures.failed)
        return tuple(outcome for outcome in found if isinstance(outcome, Failure))

    @property
    def ids(self) -> list[str]:
        """The ids of the items."""
        return [self.examples.ids[place] for place in self.figures.places]

    def outcome_of(self, identity: str) -> Outcome | None:
        """What was answered to an example, or why nothing was; None where nobody asked."""
        return self._outcome(self.examples.places[identity]) if identity in self._replies else None

    def rendered(self, render: Callable[[Outcome], str], order: Sequence[int] | None = None) -> Iterator[str]:
        """A text for every outcome, made in several processes.

        Args:
            render: Makes it.
            order: Which items, and in which order; None is every outcome in the gold set's order, those not answered among them.
        """
        places = np.sort(np.append(self.figures.places, self.figures.failed)) if order is None else self.figures.places[list(order)]

        def texts(part: range) -> list[str]:
            return [render(self._outcome(int(place))) for place in places[part.start : part.stop]]

        return chain.from_iterable(spread(texts, _parts(len(places))))

    def _outcome(self, place: int) -> Outcome:
        """The outcome of an example."""
        example = self.examples[place]
        reply = self._replies[example.id]
        return Failure(example, reply) if isinstance(reply, str) else score(self._task, example, reply)


class _Sums:
    """Figures in the making; holds no item, which is faster than to sum up thousands that have left the processor's memory."""

    def __init__(self) -> None:
        self.tally = Tally()
        self.failed: list[int] = []
        self.clusters: list[str] = []
        self._places: list[int] = []
        self._scores: list[Score] = []
        self._faults: list[int] = []
        self._said: list[int] = []

    def add(self, place: int, item: Item) -> None:
        """Count an item."""
        self._places.append(place)
        self._scores.append(item.score)
        self._faults.append(len(item.score.errors))
        self._said.append(text_hash(item.reply.text))
        self.tally.add(item)

    def figures(self) -> Figures:
        """What has been counted."""
        return Figures(
            np.array(self._places, dtype=np.int64),
            statistics.counts(self._scores) if self._scores else None,
            np.array(self._faults, dtype=np.int64),
            np.array(self._said, dtype=np.uint64),
            self.clusters,
            np.array(self.failed, dtype=np.int64),
            self.tally,
        )


@dataclass
class _Found:
    """What a process found out about some examples: the figures of every file, and what keeps a baseline from being compared with."""

    figures: list[Figures]
    changed: list[str]
    recounted: NotComparableError | None


def score_stored(
    task: Task,
    examples: StoredExamples,
    stored: Sequence[Replies],
    baseline: Baseline | None = None,
    cluster: str = "",
    processes: int | None = None,
) -> list[Scored]:
    """Score files of replies to one gold set, all of them in one pass.

    Args:
        task: Scores.
        examples: The gold set.
        stored: The files, by id; an example that one lacks is left out of its figures. The first is the baseline's, where there is one.
        baseline: Must have asked the same and counted alike.
        cluster: Metadata key of items that belong together; empty where they stand alone.
        processes: As many as there are processors by default.

    Raises:
        DataError: When a row or a reply is malformed.
        NotComparableError: When the baseline is of other items, or was counted by another scorer.
        UsageError: When an item lacks the key.
        PluginError: When the task's scorer breaks its contract.
    """

    def measured(part: range) -> _Found:
        return _measured(task, examples, stored, baseline, cluster, part)

    found = list(spread(measured, _parts(len(examples)), processes))
    if baseline is not None:
        if changed := [identity for one in found for identity in one.changed]:
            raise of_another_evalset(baseline, changed)
        if error := next((one.recounted for one in found if one.recounted), None):
            raise error
    return [Scored(task, examples, replies, _joined([one.figures[number] for one in found])) for number, replies in enumerate(stored)]


def _parts(n: int) -> list[range]:
    """Places, some at a time."""
    return [range(start, min(n, start + SIZE)) for start in range(0, n, SIZE)]


def _measured(
    task: Task, examples: StoredExamples, stored: Sequence[Replies], baseline: Baseline | None, cluster: str, part: range
) -> _Found:
    """Score some examples."""
    sums = [_Sums() for _ in stored]
    changed: list[str] = []
    error: NotComparableError | None = None
    for place in part:
        example, before = examples[place], None
        group = [cluster_of(example, cluster)] if cluster else []
        for number, (replies, mine) in enumerate(zip(stored, sums, strict=True)):
            if example.id not in replies:
                continue
            then = baseline.items[example.id] if baseline is not None and number == 0 else None
            reply = replies[example.id] if then is None else then.reply
            if isinstance(reply, str):
                mine.failed.append(place)
                continue
            # two checkpoints say the same to most items, and a scorer gives the same reply the same score
            before = before if before is not None and before.reply == reply else score(task, example, reply)
            mine.add(place, before)
            mine.clusters += group
            if baseline is not None and then is not None:
                changed += [] if is_same(example, then) else [example.id]
                error = error or recounted(baseline, before, then)
    return _Found([one.figures() for one in sums], changed, error)


def text_hash(text: str) -> int:
    """A number that two texts share only by a chance of one in 2⁶⁴.

    Args:
        text: Any; halves of surrogate pairs too.
    """
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def _joined(parts: Sequence[Figures]) -> Figures:
    """The figures of all parts."""
    tally = Tally()
    for part in parts:
        tally.join(part.tally)
    tables = [part.table for part in parts if part.table is not None]
    return Figures(
        np.concatenate([part.places for part in parts]),
        statistics.stacked(tables) if tables else None,
        np.concatenate([part.faults for part in parts]),
        np.concatenate([part.said for part in parts]),
        [name for part in parts for name in part.clusters],
        np.concatenate([part.failed for part in parts]),
        tally,
    )
