"""The baseline file: what the last good model said, and what it was asked, in one JSONL that reads well in a git diff.

The first line is a header, every further line an item, sorted by id. There is no clock in it: the same model gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sftchat.errors import DataError, NotComparableError, listed
from sftchat.evaluation.evalset import EvalsetIdentity
from sftchat.evaluation.items import Item
from sftchat.evaluation.replies import BLANK, HEADER, numbered_lines, parse_reply
from sftchat.parsing import LARGEST, made, parsed
from sftchat.task import Task
from sftchat.types import Example, Reply, SamplingParams

SCHEMA_VERSION = 1
_ENCODER = json.JSONEncoder(sort_keys=True)


@dataclass(frozen=True)
class Header:
    """Under which conditions a baseline was made.

    Attributes:
        task: Name of the task.
        metrics: Names of its metrics, the primary one first.
        model: What the user called the model.
        identity: Hash of its weights; empty where nobody knows, as with replies from elsewhere.
        template_hash: Hash of its chat template, where it is known.
        evalsets: What it was asked.
        sampling: How replies were generated; None where nobody knows.
    """

    task: str
    metrics: tuple[str, ...]
    model: str
    identity: str
    template_hash: str
    evalsets: tuple[EvalsetIdentity, ...]
    sampling: Mapping[str, Any] | None


@dataclass(frozen=True)
class StoredItem:
    """One item of a baseline.

    Attributes:
        reply: What was said.
        stats: How it was counted.
        right: Whether it was without a fault.
        content: Hash of what was asked and of the gold reply.
    """

    reply: Reply
    stats: Mapping[str, float]
    right: bool
    content: str


@dataclass(frozen=True)
class Baseline:
    """A baseline file.

    Attributes:
        path: Where it was read.
        header: Its first line.
        items: By id.
    """

    path: Path
    header: Header
    items: Mapping[str, StoredItem]


def content_hash(example: Example) -> str:
    """Hash of what is asked and of the gold reply: two items of one id are the same item only if it is equal."""
    return hashlib.sha256(_ENCODER.encode([list(example.messages), example.gold]).encode()).hexdigest()[:16]


def known_sampling(sampling: SamplingParams) -> dict[str, Any]:
    """Sampling as the header holds it; greedy decoding has no seed."""
    values = asdict(sampling) | {"stop": list(sampling.stop)}
    return {key: value for key, value in values.items() if key != "seed" or sampling.temperature > 0}


def is_baseline(path: Path) -> bool:
    """Whether a file begins with a baseline's header."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            row = parsed(file.readline(LARGEST))
    except (OSError, ValueError):
        return False
    return isinstance(row, dict) and HEADER in row


def read_baseline(path: Path) -> Baseline:
    """Read a baseline.

    Raises:
        DataError: When it is malformed.
        NotComparableError: When a later version wrote it.
    """
    lines = numbered_lines(path, "baseline")
    header = parse_header(next(lines, (1, ""))[1], path)
    items: dict[str, StoredItem] = {}
    for number, line in lines:
        if not line.strip(BLANK):
            continue
        identity, item = parse_item(line, f"{path}:{number}")
        if identity in items:
            raise DataError(f"id '{identity}' stands twice", f"{path}:{number}")
        items[identity] = item
    return Baseline(path, header, items)


def check_comparable(
    baseline: Baseline, task: Task, asked: Iterable[str], examples: Iterable[Example], sampling: SamplingParams | None
) -> None:
    """Refuse a comparison with what was measured differently.

    Items may have been added or removed since; an item that both have must be the same, and must be counted as it was then: counting again
    shows a changed scorer, whatever its version number says.

    Args:
        baseline: What was stored.
        task: What scores today.
        asked: Ids of what is asked today.
        examples: The same, as far as it is known before anything is scored.
        sampling: How replies are generated today; None where nobody knows.

    Raises:
        NotComparableError: When something differs; says what.
    """
    header, path = baseline.header, baseline.path
    if header.task != task.name:
        raise NotComparableError(f"baseline {path} is of task '{header.task}', not of '{task.name}'")
    today = None if sampling is None else known_sampling(sampling)
    if today is not None and header.sampling is not None:
        for key in sorted({*today, *header.sampling}):
            then, now = header.sampling.get(key), today.get(key)
            if then != now:
                raise NotComparableError(f"baseline {path} was made with other sampling: {key} {then} then, {now} now")
    if not any(identity in baseline.items for identity in asked):
        names = ", ".join(evalset.name for evalset in header.evalsets)
        raise NotComparableError(f"baseline {path} is of another evalset ({names}): no item in common")
    other = [example.id for example in examples if example.id in baseline.items and not is_same(example, baseline.items[example.id])]
    if other:
        raise of_another_evalset(baseline, other)


def is_same(example: Example, item: StoredItem) -> bool:
    """Whether an example is what was asked then."""
    return content_hash(example) == item.content


def of_another_evalset(baseline: Baseline, ids: Sequence[str]) -> NotComparableError:
    """The error for items that are no longer what was asked then."""
    return NotComparableError(f"baseline {baseline.path} is of another evalset: prompt or gold reply of {listed(ids)} has changed")


def check_counts(baseline: Baseline, items: Iterable[Item]) -> None:
    """Refuse a comparison with what another scorer counted.

    Args:
        baseline: What was stored.
        items: The stored replies, scored today.

    Raises:
        NotComparableError: When an item is counted differently; says which, and how.
    """
    for item in items:
        if error := recounted(baseline, item, baseline.items[item.example.id]):
            raise error


def recounted(baseline: Baseline, item: Item, stored: StoredItem) -> NotComparableError | None:
    """The error for an item that is counted otherwise than it was; None where it is not.

    Args:
        baseline: What was stored.
        item: The stored reply, scored today.
        stored: The item as it was.
    """
    then, now = stored.stats, item.score.stats
    if now == then:
        return None
    key = next((key for key in sorted({*then, *now}) if then.get(key) != now.get(key)), None)
    return (
        None
        if key is None
        else NotComparableError(
            f"baseline {baseline.path} was counted by another scorer: "
            f"'{key}' of item '{item.example.id}' was {_plain(then.get(key))} and is {_plain(now.get(key))}; "
            "write it anew with --update-baseline"
        )
    )


def _plain(count: float | None) -> str:
    """A count, or that there is none."""
    return "not counted" if count is None else f"{count:g}"


def parse_header(line: str, path: Path) -> Header:
    """The first line.

    Args:
        line: One JSON object.
        path: Of the file.

    Raises:
        DataError: When it is not the header of a baseline.
        NotComparableError: When a later version wrote it.
    """
    try:
        row = parsed(line)
        version = row.pop(HEADER)
        if version != SCHEMA_VERSION:
            raise NotComparableError(f"baseline {path} has schema version {version}; this sftchat reads {SCHEMA_VERSION}")
        return made(Header, row)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"not the header of a baseline: {error}", f"{path}:1") from error


def parse_item(line: str, source: str) -> tuple[str, StoredItem]:
    """One further line: its id and the item.

    Args:
        line: One JSON object.
        source: Where it stands, as ``file:line``.

    Raises:
        DataError: When it is malformed.
    """
    identity, reply, row = parse_reply(line, source)
    stats, right, content = row.get("stats"), row.get("right"), row.get("content")
    if isinstance(reply, str):
        raise DataError(f"item '{identity}' was not answered", source)
    if not isinstance(stats, dict) or not isinstance(right, bool) or not isinstance(content, str):
        raise DataError(f"item '{identity}' must have 'stats', 'right' and 'content'", source)
    try:
        counts = {key: float(made(float, count)) for key, count in stats.items()}
    except ValueError as error:
        raise DataError(f"'stats' of item '{identity}' are no counts: {error}", source) from error
    return identity, StoredItem(reply, counts, right, content)
