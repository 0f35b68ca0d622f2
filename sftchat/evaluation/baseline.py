"""Baseline files: the replies of a reference model with their counts and the conditions of the run, as JSONL with readable git diffs.

The first line is a header, and every further line is an item, sorted by id. The file has no timestamps, so equal replies give equal bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from sftchat._util.parsing import MAX_BYTES, from_json, load_json
from sftchat.errors import DataError, NotComparableError, list_quoted
from sftchat.evaluation.evalset import Evalset, EvalsetIdentity
from sftchat.evaluation.replies import BASELINE_KEY, JSON_WHITESPACE, numbered_lines, parse_reply
from sftchat.evaluation.scored import Item
from sftchat.task import Task
from sftchat.text import abbreviate, pluralize
from sftchat.types import Example, Reply, SamplingParams

SCHEMA_VERSION = 2
"""Version 1 had no hash of the items' metadata."""
REPLY_FILE_SUFFIXES = frozenset((".jsonl", ".json", ".jsonlines", ".ndjson", ".txt", ".gz", ".bak"))
"""File name suffixes of reply files; no name of a model ends with one."""
_ENCODER = json.JSONEncoder(sort_keys=True, default=str)


@dataclass(frozen=True)
class Header:
    """Conditions under which a baseline was generated.

    Attributes:
        task: Name of the task.
        metrics: Names of its metrics, the primary one first.
        model: Model name as typed by the user.
        identity: Hash of the model's weights; empty when unknown, as for replies of another program.
        template_hash: Hash of the model's chat template; empty when unknown.
        evalsets: Evalsets of the run.
        sampling: Sampling parameters; None when unknown.
        settings: Other settings that affect the replies or the scores, see ``settings_of``.
    """

    task: str
    metrics: tuple[str, ...]
    model: str
    identity: str
    template_hash: str
    evalsets: tuple[EvalsetIdentity, ...]
    sampling: Mapping[str, Any] | None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Number of items in the file, because a baseline covers whole evalsets."""
        return sum(evalset.size for evalset in self.evalsets)


@dataclass(frozen=True)
class StoredItem:
    """One item of a baseline.

    Attributes:
        reply: Stored reply.
        stats: Its counts.
        right: Whether the scorer found no error.
        content: ``content_hash`` of the example.
    """

    reply: Reply
    stats: Mapping[str, float]
    right: bool
    content: str


@dataclass(frozen=True)
class Baseline:
    """A baseline file.

    Attributes:
        path: Path of the file.
        header: Its first line.
        items: Items by id.
    """

    path: Path
    header: Header
    items: Mapping[str, StoredItem]


def content_hash(example: Example) -> str:
    """Hash everything of an example that a scorer receives: id, messages, gold reply and metadata.

    Two items with the same id are the same item only when their hashes are equal.
    """
    content = [example.id, list(example.messages), example.gold, dict(example.metadata)]
    return hashlib.sha256(_ENCODER.encode(content).encode()).hexdigest()[:16]


def sampling_to_json(sampling: SamplingParams) -> dict[str, Any]:
    """Return the sampling parameters as the header stores them; greedy decoding uses no seed, so it is left out then."""
    values = asdict(sampling) | {"stop": list(sampling.stop)}
    return {key: value for key, value in values.items() if key != "seed" or sampling.temperature > 0}


GENERATION_SETTINGS = ("system", "few_shot", "raw_prompt", "samples", "thinking")
"""Members of ``settings_of`` that affect replies; stored replies may have been generated with others, which are unknown."""


def settings_of(task: Task) -> dict[str, Any]:
    """Return the settings of a task that affect replies or scores and are not sampling parameters; those with their default value are left out."""
    settings: dict[str, Any] = {"system": task.system, "raw_prompt": task.raw_prompt, "samples": task.samples, "thinking": task.thinking}
    defaults = {"system": "", "raw_prompt": False, "samples": 1, "thinking": "drop"}
    return {key: value for key, value in settings.items() if value != defaults[key]} | dict(task.settings)


def differing_settings(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return the settings that differ, each with its two values as text; a member of a nested setting is named with a dot.

    Args:
        before: Earlier settings, as JSON values.
        after: Later settings.
    """
    old, new = _flatten(before), _flatten(after)
    return [
        (key, abbreviate(old[key], 60) if key in old else "unset", abbreviate(new[key], 60) if key in new else "unset")
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key)
    ]


def _flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def read_schema_version(path: Path) -> Any:
    """Return the schema version in the first line of a file, as any JSON value; None when the file is no baseline."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            row = load_json(file.readline(MAX_BYTES))
    except (OSError, ValueError):
        return None
    if not isinstance(row, dict) or BASELINE_KEY not in row:
        return None
    return row[BASELINE_KEY] or 0  # a malformed ``null`` must not look like a file that is no baseline


def is_baseline(path: Path) -> bool:
    """Return whether a file begins with a baseline header."""
    return read_schema_version(path) is not None


def is_missing_file(text: str) -> bool:
    """Return whether the argument of ``--baseline`` names a file that does not exist; False for models."""
    path = Path(text)
    return path.suffix.lower() in REPLY_FILE_SUFFIXES and "://" not in text and not path.exists()


def similar_file_hint(text: str) -> str:
    """Return `` (there is 'FILE')`` with a similarly named file, to end a message about a missing file; empty when there is none."""
    path = Path(text)
    if not path.parent.is_dir():
        return f" (there is no folder '{path.parent}')"
    names = {file.stem: file.name for file in path.parent.iterdir() if file.is_file()}
    similar = get_close_matches(path.stem, names, n=1, cutoff=0.7)
    return f" (there is '{path.with_name(names[similar[0]])}')" if similar else ""


def read_baseline(path: Path) -> Baseline:
    """Read a baseline.

    Raises:
        DataError: When the file is malformed, or has another number of items than its header states.
        NotComparableError: When the file has another schema version.
    """
    lines = numbered_lines(path, "baseline")
    _, first_line = next(lines, (1, ""))
    header = _parse_header(first_line, path)
    items: dict[str, StoredItem] = {}
    for number, line in lines:
        if not line.strip(JSON_WHITESPACE):
            continue
        item_id, item = _parse_item(line, f"{path}:{number}")
        if item_id in items:
            raise DataError(f"id '{item_id}' stands twice", f"{path}:{number}")
        items[item_id] = item
    if len(items) != header.size:
        counts = f"the header counts {pluralize(header.size, 'item')} and the file has {len(items)}"
        raise DataError(f"{counts}; restore it, or write it again with --update-baseline", str(path))
    return Baseline(path, header, items)


def _parse_header(line: str, path: Path) -> Header:
    try:
        row = load_json(line)
        version = row.pop(BASELINE_KEY)
        if type(version) is int and version < SCHEMA_VERSION:
            raise NotComparableError(
                f"baseline {path} has schema version {version}, which has no hash of the items' metadata; write it again with --update-baseline {path}"
            )
        if version != SCHEMA_VERSION:
            raise NotComparableError(f"baseline {path} has schema version {version}; this sftchat reads {SCHEMA_VERSION}")
        return from_json(Header, row)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"not the header of a baseline: {error}", f"{path}:1") from error


def _parse_item(line: str, source: str) -> tuple[str, StoredItem]:
    """Parse an item line, which is at ``source`` (``file:line``), into the id and the item."""
    item_id, reply, row = parse_reply(line, source)
    stats, is_right, content = row.get("stats"), row.get("right"), row.get("content")
    if isinstance(reply, str):
        raise DataError(f"item '{item_id}' was not answered", source)
    if not isinstance(stats, dict) or not isinstance(is_right, bool) or not isinstance(content, str):
        raise DataError(f"item '{item_id}' must have 'stats', 'right' and 'content'", source)
    try:
        if not {*map(type, stats.values())} <= {int, float}:
            from_json(Mapping[str, float], stats)  # raises an error that names the malformed count
        counts = {key: float(count) for key, count in stats.items()}
    except (ValueError, OverflowError) as error:
        raise DataError(f"'stats' of item '{item_id}' are no counts: {error}", source) from error
    return item_id, StoredItem(reply, counts, is_right, content)


def check_complete(baseline: Baseline, evalsets: Iterable[Evalset]) -> None:
    """Refuse a baseline that lacks items of an evalset, if the evalset's file has not changed since the baseline was written.

    Args:
        baseline: Stored baseline.
        evalsets: Evalsets of this run.

    Raises:
        NotComparableError: When items are missing; names them.
    """
    sizes = {evalset.sha256: evalset.size for evalset in baseline.header.evalsets if evalset.sha256}
    for evalset in evalsets:
        if evalset.sha256 not in sizes:
            continue
        if missing := sorted(evalset.ids - baseline.items.keys()):
            raise NotComparableError(
                f"baseline {baseline.path} lacks {len(missing)} of the {evalset.size} items of {evalset.name}, which has not changed since: "
                f"{list_quoted(missing)}; restore it, or write it again with --update-baseline"
            )
        if sizes[evalset.sha256] != evalset.size:
            raise NotComparableError(
                f"baseline {baseline.path} counts {pluralize(sizes[evalset.sha256], 'item')} of {evalset.name}, which has {evalset.size} and "
                "has not changed since; restore it, or write it again with --update-baseline"
            )


def check_comparable(baseline: Baseline, task: Task, examples: Sequence[Example], sampling: SamplingParams | None) -> None:
    """Refuse a comparison with a baseline that was measured differently.

    Items may have been added or removed since, but an item in both the baseline and this run must be unchanged. A changed scorer is detected by
    ``check_counts``.

    Args:
        baseline: Stored baseline.
        task: Task of this run.
        examples: Examples of this run.
        sampling: Sampling parameters of this run; None for stored replies, of which they are unknown.

    Raises:
        NotComparableError: When something differs; names it.
    """
    header, path = baseline.header, baseline.path
    if header.task != task.name:
        raise NotComparableError(f"baseline {path} is of task '{header.task}', not of '{task.name}'")
    if sampling is not None and header.sampling is not None:
        current_sampling = sampling_to_json(sampling)
        for key in sorted({*current_sampling, *header.sampling}):
            then, now = header.sampling.get(key), current_sampling.get(key)
            if then != now:
                raise NotComparableError(f"baseline {path} was made with other sampling: {key} {then} then, {now} now")
    for key, then, now in differing_settings(header.settings, settings_of(task)):
        if sampling is not None or key.partition(".")[0] not in GENERATION_SETTINGS:
            raise NotComparableError(
                f"baseline {path} was made with other settings: {key} {then} then, {now} now; give the same, "
                f"or write the baseline again with --update-baseline"
            )
    common = [example for example in examples if example.id in baseline.items]
    if not common:
        names = ", ".join(evalset.name for evalset in header.evalsets)
        raise NotComparableError(f"baseline {path} is of another evalset ({names}): no item in common")
    changed = [example.id for example in common if content_hash(example) != baseline.items[example.id].content]
    if changed:
        raise NotComparableError(
            f"baseline {path} is of another evalset: prompt, gold reply or metadata of {list_quoted(changed)} has changed"
        )


def check_counts(baseline: Baseline, items: Iterable[Item]) -> None:
    """Refuse a comparison with a baseline whose counts another scorer made.

    Args:
        baseline: Stored baseline.
        items: The baseline's replies, scored in this run.

    Raises:
        NotComparableError: When the counts of an item differ; names the item and the count.
    """
    for item in items:
        stored = baseline.items[item.example.id]
        before, after = stored.stats, item.score.stats
        if before == after and item.right == stored.right:
            continue
        key = next((key for key in sorted({*before, *after}) if before.get(key) != after.get(key)), None)
        if key is None:  # equal counts, so only ``right`` differs
            change = f"item '{item.example.id}' was {'right and is wrong' if stored.right else 'wrong and is right'}"
        else:
            change = f"'{key}' of item '{item.example.id}' was {_format_count(before.get(key))} and is {_format_count(after.get(key))}"
        raise NotComparableError(f"baseline {baseline.path} was counted by another scorer: {change}; write it again with --update-baseline")


def _format_count(count: float | None) -> str:
    return "not counted" if count is None else f"{count:g}"
