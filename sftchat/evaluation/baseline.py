"""The baseline file: what the last good model said, and what it was asked, in one JSONL that reads well in a git diff.

The first line is a header, every further line an item, sorted by id. There is no clock in it: the same model gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from sftchat._util.parsing import MAX_BYTES, from_json, load_json
from sftchat.errors import DataError, NotComparableError, listed
from sftchat.evaluation.evalset import Evalset, EvalsetIdentity
from sftchat.evaluation.replies import BLANK, HEADER, numbered_lines, parse_reply
from sftchat.evaluation.run import Item
from sftchat.task import Task
from sftchat.text import counted
from sftchat.types import Example, Reply, SamplingParams

SCHEMA_VERSION = 2
"""Version 1 had no hash of the items' metadata."""
FILES = frozenset((".jsonl", ".json", ".jsonlines", ".ndjson", ".txt", ".gz", ".bak"))
"""What the name of a file of replies ends with; the name of a MODEL does not."""
_ENCODER = json.JSONEncoder(sort_keys=True, default=str)


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

    @property
    def size(self) -> int:
        """How many items the file must have: a baseline is only ever written of whole gold sets."""
        return sum(evalset.size for evalset in self.evalsets)


@dataclass(frozen=True)
class StoredItem:
    """One item of a baseline.

    Attributes:
        reply: What was said.
        stats: How it was counted.
        right: Whether it was without a fault.
        content: Hash of the example: everything that a scorer is given.
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
    """Hash of everything that a scorer is given of an example: id, messages, gold reply and metadata.

    Two items of one id are the same item only if it is equal.
    """
    given = [example.id, list(example.messages), example.gold, dict(example.metadata)]
    return hashlib.sha256(_ENCODER.encode(given).encode()).hexdigest()[:16]


def known_sampling(sampling: SamplingParams) -> dict[str, Any]:
    """Sampling as the header holds it; greedy decoding has no seed."""
    values = asdict(sampling) | {"stop": list(sampling.stop)}
    return {key: value for key, value in values.items() if key != "seed" or sampling.temperature > 0}


def version_of(path: Path) -> Any:
    """The schema version that the first line of a file states, of whatever type; None where the file is no baseline."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            row = load_json(file.readline(MAX_BYTES))
    except (OSError, ValueError):
        return None
    return (row[HEADER] or 0) if isinstance(row, dict) and HEADER in row else None


def is_baseline(path: Path) -> bool:
    """Whether a file begins with a baseline's header."""
    return version_of(path) is not None


def is_missing(text: str) -> bool:
    """Whether the word after ``--baseline`` names a file that is not there, rather than a MODEL.

    Args:
        text: As typed.
    """
    path = Path(text)
    return path.suffix.lower() in FILES and "://" not in text and not path.exists()


def nearest_file(text: str) -> str:
    """For the message about a file that is not there: the file of nearly that name, in parentheses after a space; empty where there is none."""
    path = Path(text)
    if not path.parent.is_dir():
        return f" (there is no folder '{path.parent}')"
    there = {other.stem: other.name for other in path.parent.iterdir() if other.is_file()}
    near = get_close_matches(path.stem, there, n=1, cutoff=0.7)
    return f" (there is '{path.with_name(there[near[0]])}')" if near else ""


def read_baseline(path: Path) -> Baseline:
    """Read a baseline.

    Raises:
        DataError: When it is malformed, or lacks items that its header counts.
        NotComparableError: When another version wrote it.
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
    check_size(path, header, len(items))
    return Baseline(path, header, items)


def check_size(path: Path, header: Header, count: int) -> None:
    """Refuse a baseline that was cut or filled up.

    Args:
        path: The file.
        header: Its first line.
        count: How many items follow it.

    Raises:
        DataError: When the header counts others.
    """
    if count != header.size:
        raise DataError(
            f"the header counts {counted(header.size, 'item')} and the file has {count}; restore it, or write it again with --update-baseline",
            str(path),
        )


def parse_header(line: str, path: Path) -> Header:
    """The first line.

    Args:
        line: One JSON object.
        path: Of the file.

    Raises:
        DataError: When it is not the header of a baseline.
        NotComparableError: When another version wrote it.
    """
    try:
        row = load_json(line)
        version = row.pop(HEADER)
        if type(version) is int and version < SCHEMA_VERSION:
            raise NotComparableError(
                f"baseline {path} has schema version {version}, which has no hash of the items' metadata; write it again with --update-baseline {path}"
            )
        if version != SCHEMA_VERSION:
            raise NotComparableError(f"baseline {path} has schema version {version}; this sftchat reads {SCHEMA_VERSION}")
        return from_json(Header, row)
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
        counts = {key: count if type(count) is float else float(from_json(float, count)) for key, count in stats.items()}
    except ValueError as error:
        raise DataError(f"'stats' of item '{identity}' are no counts: {error}", source) from error
    return identity, StoredItem(reply, counts, right, content)


def check_whole(baseline: Baseline, evalsets: Iterable[Evalset]) -> None:
    """Refuse a baseline that lacks items of a gold set which is, byte for byte, the one it was made from.

    Args:
        baseline: What was stored.
        evalsets: What is asked today.

    Raises:
        NotComparableError: When it does; names the items.
    """
    sizes = {evalset.sha256: evalset.size for evalset in baseline.header.evalsets if evalset.sha256}
    for evalset in evalsets:
        if evalset.sha256 not in sizes:
            continue
        if lacking := sorted(evalset.ids - baseline.items.keys()):
            raise NotComparableError(
                f"baseline {baseline.path} lacks {len(lacking)} of the {evalset.size} items of {evalset.name}, which has not changed since: "
                f"{listed(lacking)}; restore it, or write it again with --update-baseline"
            )
        if sizes[evalset.sha256] != evalset.size:
            raise NotComparableError(
                f"baseline {baseline.path} counts {counted(sizes[evalset.sha256], 'item')} of {evalset.name}, which has {evalset.size} and "
                "has not changed since; restore it, or write it again with --update-baseline"
            )


def check_comparable(baseline: Baseline, task: Task, examples: Sequence[Example], sampling: SamplingParams | None) -> None:
    """Refuse a comparison with what was measured differently.

    Items may have been added or removed since; an item that both have must be the same, and must be counted as it was then: counting again
    shows a changed scorer, whatever its version number says.

    Args:
        baseline: What was stored.
        task: What scores today.
        examples: What is asked today.
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
    if not any(example.id in baseline.items for example in examples):
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
    return NotComparableError(
        f"baseline {baseline.path} is of another evalset: prompt, gold reply or metadata of {listed(ids)} has changed"
    )


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
    key = None if now == then else next((key for key in sorted({*then, *now}) if then.get(key) != now.get(key)), None)
    if key is not None:
        what = f"'{key}' of item '{item.example.id}' was {_plain(then.get(key))} and is {_plain(now.get(key))}"
    elif item.right != stored.right:
        what = f"item '{item.example.id}' was {_verdict(stored.right)} and is {_verdict(item.right)}"
    else:
        return None
    return NotComparableError(f"baseline {baseline.path} was counted by another scorer: {what}; write it again with --update-baseline")


def _verdict(right: bool) -> str:
    """Whether an item was without a fault, in a word."""
    return "right" if right else "wrong"


def _plain(count: float | None) -> str:
    """A count, or that there is none."""
    return "not counted" if count is None else f"{count:g}"
