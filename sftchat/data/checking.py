"""Look at every row before anything is trained on it, and report all that is wrong at once."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import chain
from typing import TypeVar

from sftchat.data.formats import format_of, read_examples, to_example
from sftchat.data.leakage import find_leaks
from sftchat.data.reading import line_of, scan_rows
from sftchat.data.turns import shown
from sftchat.errors import DataError, PluginError
from sftchat.task import Task
from sftchat.types import Example

K = TypeVar("K", str, bytes)


@dataclass(frozen=True)
class Findings:
    """What a check found in one file.

    Attributes:
        path: The file, as given.
        rows: Rows in the file, malformed ones and a broken end of an array included.
        replies: Rows that hold a reply to learn from or to be scored against.
        formats: Rows by shape; malformed ones are missing.
        problems: Everything wrong, in the order of the file, each ``file:line: what``.
    """

    path: str
    rows: int
    replies: int
    formats: Mapping[str, int] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


def check(
    path: str | os.PathLike[str], task: Task | None = None, *, against: Sequence[str] = (), role_map: Mapping[str, str] | None = None
) -> Findings:
    """Read every row of a file and collect what is wrong, going on after a malformed one.

    Wrong are malformed rows, ids that stand twice, exact duplicates, one prompt with different replies, what ``task.problems`` says, and
    prompts that a model trained on other files has seen.

    Args:
        path: JSONL or a JSON array; ``-`` reads standard input.
        task: A task whose own check is run on every row as well.
        against: Files of training rows in which no prompt of this one may stand, nor nearly.
        role_map: Further names of roles, such as ``{"narrator": "user"}``.

    Raises:
        DataError: The file is missing, a folder, empty, or of another format; or a row of ``against`` cannot be read.
        PluginError: The task's check itself failed.
    """
    rows = replies = 0
    formats: Counter[str] = Counter()
    problems: list[str] = []
    compared: list[Example] = []
    seen = _Seen()
    for item in scan_rows(path):
        rows += 1
        if isinstance(item, DataError):
            problems.append(str(item))
            continue
        source, row = item
        try:
            example = to_example(row, source, role_map=role_map)
        except DataError as error:
            problems.append(str(error))
            continue
        formats[format_of(row)] += 1
        replies += example.conversation[-1]["role"] == "assistant"
        problems += [f"{source}: {what}" for what in (*seen.problems(example), *_task_problems(task, example))]
        if against:
            compared.append(example)
    problems += _leaks(compared, against, role_map)
    return Findings(os.fspath(path), rows, replies, dict(formats), tuple(problems))


def _leaks(examples: Sequence[Example], against: Sequence[str], role_map: Mapping[str, str] | None) -> Iterator[str]:
    """The rows that a model trained on other files has seen."""
    training = chain.from_iterable(read_examples(path, role_map=role_map) for path in against)
    for leak in find_leaks(examples, training):
        same, how = ("the same", "") if leak.similarity == 1.0 else ("nearly the same", f" (similarity {leak.similarity:.2f})")
        yield f"{leak.item}: {same} prompt as {leak.row}{how}"


def _task_problems(task: Task | None, example: Example) -> Iterator[str]:
    """What the task finds wrong; a check that raises is the plugin's fault and names it."""
    if task is None:
        return
    try:
        yield from (" ".join(problem.split()) for problem in task.problems(example))
    except Exception as error:
        raise PluginError(f"the check of task '{task.name}' failed on {example.source}: {type(error).__name__}: {error}") from error


class _Seen:
    """Where prompts, rows and ids stood first; hashes, so that a file larger than memory can be checked."""

    def __init__(self) -> None:
        self.ids: dict[str, str] = {}
        self.prompts: dict[bytes, str] = {}
        self.rows: dict[bytes, str] = {}

    def problems(self, example: Example) -> Iterator[str]:
        """Compare an example with all before it."""
        line = line_of(example.source)
        if example.id and (first := _before(self.ids, example.id, line)):
            yield f"id {shown(example.id)} is taken by line {first}; give every row its own"
        turns = example.conversation
        first_row = _before(self.rows, _digest(turns), line)
        # a text without a prompt, or a prompt without a reply, can only be the same as a whole
        replied = len(turns) > 1 and turns[-1]["role"] == "assistant"
        first_prompt = _before(self.prompts, _digest(turns[:-1]), line) if replied else ""
        if first_row:
            yield f"the same row as line {first_row}; remove one"
        elif first_prompt:
            yield f"the same prompt as line {first_prompt} with another reply; keep one of them"


def _before(table: dict[K, str], key: K, line: str) -> str:
    """The line where a key stood first; empty, and noted, when that is now."""
    if key in table:
        return table[key]
    table[key] = line
    return ""


def _digest(value: object) -> bytes:
    """A short hash of a value's JSON."""
    return blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=16).digest()
