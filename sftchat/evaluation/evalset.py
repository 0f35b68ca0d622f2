"""A gold set: examples whose right replies are known, and the hash that says which ones they were."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from sftchat.data.formats import read_examples, with_ids
from sftchat.errors import DataError, UsageError
from sftchat.evaluation.on_disk.examples import StoredExamples, check_example, read_stored
from sftchat.types import Example


@dataclass(frozen=True)
class Evalset:
    """One gold set as it will be scored.

    Attributes:
        name: Name of the file, without its folder: the same set elsewhere is the same set.
        sha256: Hash of the file's bytes, in hexadecimal; empty for examples that came from no file.
        examples: Those to be scored, in the file's order; of a large file they may stay on disk.
        size: How many the file has; more than ``examples`` where the user limited them.
        ids: Ids of all of them, the limited ones included.
    """

    name: str
    sha256: str
    examples: Sequence[Example]
    size: int
    ids: Set[str]


def read_evalset(path: Path, limit: int | None = None, large: int | None = None) -> Evalset:
    """Read a gold set and check that every row can be scored.

    Args:
        path: Any of the formats that ``sftchat.data`` reads.
        limit: Score only this many rows from the start, at least 1; None scores all.
        large: From so many bytes on, rows of a JSONL file stay on disk, and a malformed one is noticed when it is asked for; None never.

    Raises:
        DataError: When the file is missing, empty or malformed, when two rows share an id, or when a row has no gold reply.
    """
    if not path.is_file():
        raise DataError("no such evalset", str(path))
    if large is not None and (stored := read_stored(path, large)) is not None:
        return Evalset(path.name, _sha256(path), stored if limit is None else stored[:limit], len(stored), stored.places.keys())
    examples = tuple(with_ids(read_examples(path)))
    if not examples:
        raise DataError("the evalset has no rows", str(path))
    check_examples(examples)
    return Evalset(path.name, _sha256(path), examples[:limit], len(examples), frozenset(example.id for example in examples))


def _sha256(path: Path) -> str:
    """Hash of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_examples(examples: Iterable[Example]) -> None:
    """Refuse examples that cannot be told apart, asked or scored.

    Raises:
        DataError: When an example has no id, no messages or no gold reply, or when two share an id; says where it stands.
    """
    seen: dict[str, Example] = {}
    for number, example in enumerate(examples, start=1):
        where = example.source or f"example {number}"
        check_example(example, where)
        if example.id in seen:
            first = seen[example.id].source or "an earlier example"
            raise DataError(f"id '{example.id}' already stands at {first}; ids must be unique among all evalsets", where)
        seen[example.id] = example


def cluster_of(example: Example, key: str) -> str:
    """Which cluster an example belongs to.

    Args:
        example: With the key in its metadata.
        key: Such as ``"document"``.

    Raises:
        UsageError: When it has no such key.
    """
    if key not in example.metadata:
        there = ", ".join(sorted(example.metadata)) or "none"
        raise UsageError(f"item '{example.id}' has no metadata key '{key}' to cluster by (it has: {there})")
    return str(example.metadata[key])


def ids_of(examples: Sequence[Example]) -> Iterable[str]:
    """The ids of examples, without reading those that are on disk."""
    return examples.ids if isinstance(examples, StoredExamples) else (example.id for example in examples)


def all_examples(evalsets: Sequence[Evalset]) -> Sequence[Example]:
    """The examples of several sets in one row, for one pass of the engine.

    Raises:
        DataError: When two sets share an id.
    """
    if len(evalsets) == 1:
        return evalsets[0].examples  # checked when they were read
    examples = tuple(example for evalset in evalsets for example in evalset.examples)
    check_examples(examples)
    return examples
