"""Where a gold set and what was said to it are while they are evaluated: in memory, or, when they are large, on disk. The choice is made here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sftchat.evaluation.baseline import Baseline, read_baseline
from sftchat.evaluation.evalset import Evalset, file_hash, read_evalset
from sftchat.evaluation.on_disk.examples import StoredExamples, read_stored
from sftchat.evaluation.on_disk.scoring import score_stored
from sftchat.evaluation.on_disk.stored import stored_baseline, stored_replies
from sftchat.evaluation.replies import read_replies
from sftchat.evaluation.scored import Replies, Scored, rescored
from sftchat.types import Example

LARGE = 8 * 1024 * 1024
"""Bytes from which on a gold set stays on disk: ten or twenty thousand items."""


@dataclass(frozen=True)
class Storage:
    """How examples, replies and baselines are read and scored.

    Attributes:
        ids: The ids of examples, without reading any.
        known: The examples that can be checked before anything is scored: all, or none where each is checked when it is scored.
        replies: Reads a file of replies, by id; an item that was not answered has the words of its error.
        baseline: Reads a baseline, and its replies alone.
        score: Scores files of replies: a task, examples, files, what the first file is as a baseline, the key of clusters.
    """

    ids: Callable[[Any], Sequence[str]]
    known: Callable[[Any], Iterable[Example]]
    replies: Callable[[Path], Replies]
    baseline: Callable[[Path], tuple[Baseline, Replies]]
    score: Callable[..., list[Scored]]


def _held_baseline(path: Path) -> tuple[Baseline, Replies]:
    """A baseline in memory, and its replies alone."""
    baseline = read_baseline(path)
    return baseline, {identity: item.reply for identity, item in baseline.items.items()}


IN_MEMORY = Storage(
    lambda examples: [example.id for example in examples], lambda examples: examples, read_replies, _held_baseline, rescored
)
ON_DISK = Storage(lambda examples: examples.ids, lambda examples: (), stored_replies, stored_baseline, score_stored)


def storage_of(examples: Sequence[Example]) -> Storage:
    """What fits these examples."""
    return ON_DISK if isinstance(examples, StoredExamples) else IN_MEMORY


def open_evalset(path: Path, limit: int | None, large: int | None) -> Evalset:
    """Read a gold set, or leave it where it is.

    Args:
        path: Any of the formats that ``sftchat.data`` reads.
        limit: Score only this many rows from the start, at least 1; None scores all.
        large: From so many bytes on, rows of a JSONL file stay on disk, and a malformed one is noticed when it is asked for; None never.

    Raises:
        DataError: When the file is missing, empty or malformed, when two rows share an id, or when a row has no gold reply.
    """
    if large is None or not path.is_file() or (stored := read_stored(path, large)) is None:
        return read_evalset(path, limit)
    return Evalset(path.name, file_hash(path), stored if limit is None else stored[:limit], len(stored), stored.places.keys())
