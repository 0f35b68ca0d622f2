"""Evalsets: examples with gold replies, identified by the hash of their file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sftchat._util.parsing import read_text
from sftchat.data.formats import assign_ids, examples_hash, read_examples, to_example, with_guessed_columns
from sftchat.data.read import read_rows
from sftchat.data.row_options import DEFAULT_ROW_OPTIONS, RowOptions, guess_columns
from sftchat.errors import DataError, UsageError
from sftchat.models.fingerprint import file_hash
from sftchat.task import Task
from sftchat.types import Example


@dataclass(frozen=True)
class EvalsetIdentity:
    """What a report records of an evalset; equal for equal files.

    Attributes:
        name: File name without its folder.
        sha256: Hash of the file's bytes, in hexadecimal; empty for examples without a file.
        size: Number of rows in the file; more than the scored items when the user limited them; 0 for examples without a file.
    """

    name: str
    sha256: str = ""
    size: int = 0


@dataclass(frozen=True)
class Evalset:
    """An evalset with the examples to score.

    Attributes:
        name: File name without its folder, so that a copy elsewhere is the same evalset.
        sha256: Hash of the file's bytes, in hexadecimal.
        examples: Examples to score, in file order.
        size: Number of rows in the file; more than ``examples`` when the user limited them.
        ids: Ids of all rows, including those beyond the limit.
        notes: Lines for the user on how the rows were read.
    """

    name: str
    sha256: str
    examples: Sequence[Example]
    size: int
    ids: Set[str]
    notes: tuple[str, ...] = ()

    def first(self, limit: int | None) -> Evalset:
        """Return the evalset with its first ``limit`` examples only; None keeps all."""
        return replace(self, examples=self.examples[:limit])

    @property
    def identity(self) -> EvalsetIdentity:
        """Identity of the evalset for a report."""
        return EvalsetIdentity(self.name, self.sha256, self.size)


def evalset_path(task: Task, word: str) -> Path:
    """Return the file of an evalset that is given as a file or by name.

    Args:
        task: Task whose ``evalsets`` have names.
        word: A file, which takes precedence, or the name of one of the task's evalsets.

    Raises:
        UsageError: When a bare word is neither.
    """
    path = Path(word)
    if path.exists() or path.name != word or path.suffix:
        return path
    if word not in task.evalsets:
        names = ", ".join(task.evalsets) or "none"
        raise UsageError(f"--evalset {word}: no such file, and task '{task.name}' has no evalset of that name (it has: {names})")
    return task.evalsets[word]


def read_evalset(
    path: Path, limit: int | None = None, row_options: RowOptions = DEFAULT_ROW_OPTIONS, *, texts: bool = False, gold: bool = True
) -> Evalset:
    """Read an evalset and check that every row can be scored.

    Rows of a table without a known format, such as a CSV file with the columns ``text`` and ``label``, are read with the columns that are probably
    prompt and gold reply; ``notes`` then names them.

    Args:
        path: File in any format that ``sftchat.data`` reads.
        limit: Maximum number of rows to score, from the start, at least 1; None scores all.
        row_options: Options for reading the rows.
        texts: See ``check_examples``.
        gold: See ``check_examples``.

    Raises:
        DataError: When the file is missing, empty or malformed, when two rows share an id, or when a row has no gold reply.
    """
    if not path.is_file():
        raise DataError("is a folder; give the evalset's file" if path.is_dir() else "no such evalset", str(path))
    _, first_row = next(read_rows(path), ("", None))
    row_options, notes = _with_guessed_columns(path.name, first_row, row_options)
    examples = tuple(assign_ids(read_examples(path, row_options)))
    if not examples:
        raise DataError("the evalset has no rows", str(path))
    check_examples(examples, texts=texts, gold=gold)
    return Evalset(path.name, file_hash(path), examples[:limit], len(examples), frozenset(example.id for example in examples), notes)


def evalset_from_rows(
    rows: Iterable[Mapping[str, Any] | Example], name: str = "rows", row_options: RowOptions = DEFAULT_ROW_OPTIONS, *, texts: bool = False
) -> Evalset:
    """Return the evalset of rows in memory, read like those of a file; its hash is that of prompts and gold replies.

    Args:
        rows: Rows in any format of ``sftchat.data``, or examples.
        name: Name of the evalset in reports.
        row_options: Options for reading the rows.
        texts: See ``check_examples``.

    Raises:
        DataError: When there are no rows, one is malformed or has no gold reply, or two share an id.
    """
    given = list(rows)
    if not given:
        raise DataError("the evalset has no rows", name)
    first = next((row for row in given if not isinstance(row, Example)), None)
    notes: tuple[str, ...] = ()
    if first is not None:
        row_options, notes = _with_guessed_columns(name, first, row_options)
    examples = tuple(
        assign_ids(
            row if isinstance(row, Example) else to_example(row, f"{name}:{number}", row_options) for number, row in enumerate(given, 1)
        )
    )
    check_examples(examples, texts=texts)
    return Evalset(name, examples_hash(examples), examples, len(examples), frozenset(example.id for example in examples), notes)


def _with_guessed_columns(name: str, row: Mapping[str, Any] | None, row_options: RowOptions) -> tuple[RowOptions, tuple[str, ...]]:
    """Return the options with the probable columns of prompt and gold reply, if the first row has no known format, and a note of them."""
    guessed = row_options if row is None else with_guessed_columns(row, row_options)
    if row is None or guessed is row_options:
        return row_options, ()
    columns = guess_columns(row)
    note = f"{name}: prompt from the column '{columns['prompt']}', gold reply from '{columns['gold']}'; --map NAME=COLUMN reads others"
    return guessed, (note,)


def scores_texts(task: Task) -> bool:
    """Whether a task computes likelihoods after raw prompts, so that a row may be a text without turns: it follows an empty prompt."""
    return task.continuations is not None and task.raw_prompt


def check_examples(examples: Iterable[Example], *, texts: bool = False, gold: bool = True) -> None:
    """Refuse examples that cannot be identified, rendered or scored.

    Args:
        examples: The examples.
        texts: Whether an example may have no messages: a text whose likelihood is computed after an empty prompt.
        gold: Whether every example must have a gold reply.

    Raises:
        DataError: When an example has no id, no messages or no gold reply, or when two share an id; names its position.
    """
    by_id: dict[str, Example] = {}
    for number, example in enumerate(examples, start=1):
        position = example.source or f"example {number}"
        if not example.id:
            raise DataError("the row has no id; give every row an 'id' of its own", position)
        if not example.messages and not texts:
            raise DataError(f"row '{example.id}' has no messages to be answered", position)
        if example.gold is None and gold:
            raise DataError(f'row \'{example.id}\' has no gold reply to be scored against; add "gold": "…" or leave the row out', position)
        if example.id in by_id:
            first = by_id[example.id].source or "an earlier example"
            raise DataError(f"id '{example.id}' already stands at {first}; ids must be unique among all evalsets", position)
        by_id[example.id] = example


def cluster_of(example: Example, key: str) -> str:
    """Return the cluster of an example.

    Args:
        example: Example with the key in its metadata.
        key: Metadata key, such as ``"document"``.

    Raises:
        UsageError: When the example lacks the key.
    """
    if key not in example.metadata:
        keys = ", ".join(sorted(example.metadata)) or "none"
        raise UsageError(f"item '{example.id}' has no metadata key '{key}' to cluster by (it has: {keys})")
    return str(example.metadata[key])


def concatenate_examples(evalsets: Sequence[Evalset]) -> Sequence[Example]:
    """Concatenate the examples of several evalsets.

    Raises:
        DataError: When two evalsets share an id.
    """
    if len(evalsets) == 1:
        return evalsets[0].examples  # already checked by read_evalset
    examples = tuple(example for evalset in evalsets for example in evalset.examples)
    check_examples(examples, texts=True, gold=False)
    return examples


def parse_ids(words: Sequence[str], all_ids: Iterable[str], option: str) -> frozenset[str]:
    """Parse ids, or files with one id per line.

    Args:
        words: Ids and files as typed; an id of the evalsets takes precedence over a file of that name.
        all_ids: All ids of the evalsets.
        option: Name of the option, for error messages.

    Raises:
        DataError: When a file cannot be read or is empty.
        UsageError: When an id is unknown.
    """
    valid_ids = frozenset(all_ids)
    selected: set[str] = set()
    for word in words:
        ids = [word] if word in valid_ids or not Path(word).is_file() else _read_ids(Path(word))
        for item_id in ids:
            if item_id not in valid_ids:
                raise UsageError(f"{option}: no item '{item_id}' in the evalset, and no such file")
        selected.update(ids)
    return frozenset(selected)


def _read_ids(path: Path) -> list[str]:
    try:
        ids = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read ids: {getattr(error, 'strerror', None) or error}", str(path)) from error
    if not ids:
        raise DataError("the file has no ids; write one a line", str(path))
    return ids
