"""Check rows for problems; each class of problems has a policy."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Literal, get_args

from sftchat.data.duplicates import THRESHOLD, DuplicateFinder, NearDuplicate, NearDuplicateFinder, conversation_text
from sftchat.data.formats import format_with_options, read_examples, to_example
from sftchat.data.leakage import find_leaks
from sftchat.data.read import Row, iter_rows, line_of
from sftchat.data.row_options import DEFAULT_ROW_OPTIONS, ReadingNotes, RowOptions, UnwantedReplyError
from sftchat.errors import DataError, UsageError, unknown_name_message
from sftchat.task import Task, row_problems
from sftchat.text import abbreviate
from sftchat.types import Example, is_learned

Policy = Literal["fail", "drop", "keep"]
"""``fail`` makes the check fail, ``drop`` leaves the row out of the cleaned file, ``keep`` only reports it."""

POLICIES: tuple[Policy, ...] = get_args(Policy)


PROBLEM_CLASSES: Mapping[str, Policy] = {
    "malformed": "fail",
    "invalid": "fail",
    "unwanted": "fail",
    "no-reply": "fail",
    "unanswered": "keep",
    "cut-off": "fail",
    "special-token": "fail",
    "template-token": "keep",
    "control-character": "keep",
    "duplicate-id": "fail",
    "duplicate": "fail",
    "near-duplicate": "keep",
    "conflict": "fail",
    "length": "fail",
    "template": "fail",
    "leak": "fail",
    "task": "fail",
}
"""Default policy by class of problems; docs/data.md describes the classes."""

UNREADABLE_CLASSES = ("malformed", "invalid", "unwanted")
"""Rows with these problems cannot be read, so they cannot be kept."""


@dataclass(frozen=True)
class Problem:
    """A problem of a row or a file.

    Attributes:
        kind: A key of ``PROBLEM_CLASSES``.
        source: ``file:line``, or ``file`` for the whole file.
        message: Description, one line.
    """

    kind: str
    source: str
    message: str

    def __str__(self) -> str:
        """Format the problem as printed in reports."""
        return f"{self.source}: {self.message}"


def parse_policies(pairs: Iterable[str]) -> dict[str, Policy]:
    """Return the policy of each class: the defaults, updated by the user's ``CLASS=POLICY``.

    Raises:
        UsageError: When a pair has no ``=``, a class or policy is unknown, a class is given twice, or its rows cannot be kept.
    """
    policies = dict(PROBLEM_CLASSES)
    names_with_policy: set[str] = set()
    for pair in pairs:
        name, equals, value = (part.strip() for part in pair.partition("="))
        if not equals:
            raise UsageError(f"policy '{pair}' must be CLASS=fail, CLASS=drop or CLASS=keep, such as near-duplicate=drop")
        if name not in PROBLEM_CLASSES:
            raise UsageError(unknown_name_message("class of problems", name, PROBLEM_CLASSES))
        if value not in POLICIES:
            raise UsageError(unknown_name_message("policy", value, POLICIES))
        if name in names_with_policy:
            raise UsageError(f"policy of {name} is given twice; give it once")
        if value == "keep" and name in UNREADABLE_CLASSES:
            raise UsageError(f"rows that are {name} cannot be read, so not kept; give {name}=fail or {name}=drop")
        names_with_policy.add(name)
        policies[name] = value
    return policies


TokenCheck = Callable[[Example], Iterable[tuple[str, str]]]
"""Returns problems of the tokenized row: pairs of class and message."""

MARKERS = re.compile(
    r"<\|(?:im_start|im_end|endoftext|eot_id|start_header_id|end_header_id|begin_of_text|assistant|user|system|end)\|>|<(?:start|end)_of_turn>"
)
"""Markers of chat templates in a turn; without ``</s>`` and ``[INST]``, which may be HTML or plain text there."""
TEMPLATE_TOKENS = re.compile(r"<\|\w{1,40}\|>|<(?:start|end)_of_turn>|</?s>|<[be]os>|\[/?INST\]|\[gMASK\]|<｜[^｜<>]{1,40}｜>")
"""Markers of chat templates in a text row, where ``</s>`` and ``[INST]`` are markers too."""
CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f]")
"""Control characters except tab and line ends (including U+0085)."""


@dataclass(frozen=True)
class Findings:
    """Results of checking one file.

    Attributes:
        path: The file, as given.
        rows: Number of rows, including malformed ones and a truncated end of an array.
        replies: Number of rows with a reply to train on or to score against.
        formats: Number of rows by format, without malformed ones.
        first_lines: Line of the first row of each format.
        problems: All problems, in file order.
        notes: Changes made while reading, and unused columns, one line each.
    """

    path: str
    rows: int
    replies: int
    formats: Mapping[str, int] = field(default_factory=dict)
    first_lines: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def counts(self) -> dict[str, int]:
        """Return the number of problems by class, most frequent first."""
        return dict(Counter(problem.kind for problem in self.problems).most_common())

    def sources(self, policies: Mapping[str, Policy], policy: Policy) -> frozenset[str]:
        """Return the sources of rows that have a problem of a class with this policy."""
        return frozenset(problem.source for problem in self.problems if policies[problem.kind] == policy)


def check(
    path: str | os.PathLike[str],
    task: Task | None = None,
    *,
    against: Sequence[str] = (),
    options: RowOptions = DEFAULT_ROW_OPTIONS,
    near_threshold: float = THRESHOLD,
    check_tokens: TokenCheck | None = None,
) -> Findings:
    """Check all rows of a file and collect problems of every class; continues after malformed rows.

    Only hashes of rows are kept in memory, so the file may be larger than memory; with ``against`` its prompts are kept too.

    Args:
        path: JSONL, a JSON array, or another input of ``iter_rows``; ``-`` reads standard input.
        task: Task whose own row check runs as well.
        against: Training files that must not contain a prompt of this file, nor a near duplicate of one.
        options: Options for reading rows.
        near_threshold: Similarity, at most 1, from which a row is a near duplicate; 0 turns the check off.
        check_tokens: Returns problems of the tokenized row.

    Raises:
        DataError: When the file is missing or a folder, or a row of ``against`` is malformed.
        PluginError: When the task's check raises.
    """
    rows = replies = 0
    formats: Counter[str] = Counter()
    first_lines: dict[str, str] = {}
    problems: list[Problem] = []
    row_numbers: dict[str, int] = {}
    examples: list[Example] = []
    duplicates, notes = DuplicateFinder(), ReadingNotes()
    near_duplicates = NearDuplicateFinder(near_threshold) if near_threshold else None
    for item in _iter_rows_or_errors(path):
        rows += 1
        if isinstance(item, DataError):
            row_numbers.setdefault(item.source, rows)
            problems.append(Problem("malformed", item.source, item.message))
            continue
        source, row = item
        row_numbers[source] = rows
        try:
            example = to_example(row, source, options, notes)
        except DataError as error:
            problems.append(Problem("unwanted" if isinstance(error, UnwantedReplyError) else "invalid", source, error.message))
            continue
        row_format = format_with_options(row, options)
        formats[row_format] += 1
        first_lines.setdefault(row_format, line_of(source))
        replies += example.conversation[-1]["role"] == "assistant"
        kinds_and_messages = [*_find_row_problems(example), *duplicates.find(example)]
        if near_duplicates is not None and not any(kind in ("duplicate", "conflict") for kind, _ in kinds_and_messages):
            problems += map(_to_problem, near_duplicates.add(source, conversation_text(example)))
        if check_tokens is not None:
            kinds_and_messages += check_tokens(example)
        kinds_and_messages += task_problems(task, example)
        problems += (Problem(kind, source, message) for kind, message in kinds_and_messages)
        if against:
            examples.append(example)
    if near_duplicates is not None:
        problems += map(_to_problem, near_duplicates.flush())
    problems += _find_leak_problems(examples, against, options)
    problems.sort(key=lambda problem: row_numbers[problem.source])  # stable sort: problems of one row stay in the order of detection
    return Findings(os.fspath(path), rows, replies, dict(formats), first_lines, tuple(problems), tuple(notes.lines()))


def _to_problem(duplicate: NearDuplicate) -> Problem:
    return Problem("near-duplicate", duplicate.source, duplicate.message)


def remaining_rows(path: str | os.PathLike[str], dropped: frozenset[str]) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file unchanged, without malformed ones and those to drop.

    Args:
        path: As for ``check``, but not standard input: the file is read again.
        dropped: Sources of the rows to drop, from ``Findings.sources``.
    """
    for item in _iter_rows_or_errors(path):
        if isinstance(item, DataError):
            continue
        source, row = item
        if source not in dropped:
            yield row


def _iter_rows_or_errors(path: str | os.PathLike[str]) -> Iterator[Row | DataError]:
    """Yield every row or its error; errors of an existing file, such as being empty, are yielded too."""
    try:
        yield from iter_rows(path)
    except DataError as error:
        if os.fspath(path) != "-" and not Path(path).is_file():
            raise
        yield error


def _find_row_problems(example: Example) -> Iterator[tuple[str, str]]:
    turns = example.conversation
    if all(turn["role"] != "assistant" for turn in turns):
        yield "no-reply", "no assistant turn, so nothing to learn from; add the reply, or check prompts with --policy no-reply=keep"
    elif not any(map(is_learned, turns)):
        yield "no-reply", "every assistant turn has weight 0, so nothing to learn from; leave the weight of one out"
    elif turns[-1]["role"] != "assistant":
        yield "unanswered", f"the last {turns[-1]['role']} turn has no reply; the row is learned up to the reply before it"
    if example.metadata.get("finish_reason") == "length":
        yield "cut-off", 'finish_reason is "length": the reply was cut off by a token limit; generate it again with a higher one'
    for index, turn in enumerate(turns):
        location = f"messages[{index}]" if example.messages else "text"
        markers = MARKERS if example.messages else TEMPLATE_TOKENS
        if marker := markers.search(turn["content"]):
            description = f"{location} holds the marker {abbreviate(marker[0])} as text, at character {marker.start() + 1}"
            if example.messages:
                yield "special-token", f"{description}; give the turns, not their rendering"
            else:  # a text row is already rendered by its author
                yield "template-token", f"{description}; the text is learned unchanged, so no template is added"
        if control := CONTROL_CHARACTERS.search(turn["content"]):
            yield "control-character", f"{location} holds the control character U+{ord(control[0]):04X} at character {control.start() + 1}"


def _find_leak_problems(examples: Sequence[Example], against: Sequence[str], options: RowOptions) -> Iterator[Problem]:
    training = chain.from_iterable(read_examples(path, options) for path in against)
    for leak in find_leaks(examples, training):
        message = f"the same prompt as {leak.row}"
        if leak.similarity < 1.0:
            message = f"nearly {message} (similarity {leak.similarity:.2f})"
        yield Problem("leak", leak.item, message)


def task_problems(task: Task | None, example: Example) -> Iterator[tuple[str, str]]:
    """Return the problems that the task finds in a row.

    Raises:
        PluginError: When the check raises.
    """
    if task is not None:
        yield from (("task", " ".join(problem.split())) for problem in row_problems(task, example))
