"""A gold set: examples whose right replies are known, and the hash that says which ones they were."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from sftchat.data.formats import read_examples, with_ids
from sftchat.errors import DataError, UsageError
from sftchat.types import Example


@dataclass(frozen=True)
class EvalsetIdentity:
    """Which gold set was scored.

    Attributes:
        name: File name without its folder.
        sha256: Hash of the file's bytes, in hexadecimal; empty for examples that came from no file.
        size: Rows in the file; more than the items scored where the user limited them.
    """

    name: str
    sha256: str = ""
    size: int = 0


@dataclass(frozen=True)
class Evalset:
    """One gold set as it will be scored.

    Attributes:
        name: Name of the file, without its folder: the same set elsewhere is the same set.
        sha256: Hash of the file's bytes, in hexadecimal; empty for examples that came from no file.
        examples: Those to be scored, in the file's order.
        size: How many the file has; more than ``examples`` where the user limited them.
        ids: Ids of all of them, the limited ones included.
    """

    name: str
    sha256: str
    examples: Sequence[Example]
    size: int
    ids: Set[str]

    @property
    def identity(self) -> EvalsetIdentity:
        """What a report says of it."""
        return EvalsetIdentity(self.name, self.sha256, self.size)


def read_evalset(path: Path, limit: int | None = None) -> Evalset:
    """Read a gold set and check that every row can be scored.

    Args:
        path: Any of the formats that ``sftchat.data`` reads.
        limit: Score only this many rows from the start, at least 1; None scores all.

    Raises:
        DataError: When the file is missing, empty or malformed, when two rows share an id, or when a row has no gold reply.
    """
    if not path.is_file():
        raise DataError("is a folder; give the evalset's file" if path.is_dir() else "no such evalset", str(path))
    examples = tuple(with_ids(read_examples(path)))
    if not examples:
        raise DataError("the evalset has no rows", str(path))
    check_examples(examples)
    return Evalset(path.name, file_hash(path), examples[:limit], len(examples), frozenset(example.id for example in examples))


def file_hash(path: Path) -> str:
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


def check_example(example: Example, where: str) -> None:
    """Refuse an example that cannot be asked or scored.

    Args:
        example: Any.
        where: It stands, for the message.

    Raises:
        DataError: When it has no id, no messages or no gold reply.
    """
    if not example.id:
        raise DataError("the row has no id; give every row an 'id' of its own", where)
    if not example.messages:
        raise DataError(f"row '{example.id}' has no messages to be answered", where)
    if example.gold is None:
        raise DataError(f'row \'{example.id}\' has no gold reply to be scored against; add "gold": "…" or leave the row out', where)


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
