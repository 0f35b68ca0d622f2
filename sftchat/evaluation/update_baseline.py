"""``--update-baseline``: check the files beforehand, and write a model's replies as the new baseline."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from sftchat._util.files import write_atomically
from sftchat.errors import DataError, NotComparableError, SftchatError, UsageError
from sftchat.evaluation.baseline import (
    SCHEMA_VERSION,
    Baseline,
    Header,
    content_hash,
    is_baseline,
    read_baseline,
    read_schema_version,
    sampling_to_json,
)
from sftchat.evaluation.plan import Plan
from sftchat.evaluation.replies import BASELINE_KEY, stored_reply_row
from sftchat.evaluation.report.view import Report
from sftchat.evaluation.scored import Item, ScoredItems, collect_outcomes
from sftchat.models.fingerprint import identity
from sftchat.models.manifest import read_manifest
from sftchat.models.reference import ModelReference
from sftchat.text import pluralize

BaselineFiles = Mapping[str, str | None]
"""The file to write by name of the task; None for a task without one."""


def check_updates(files: BaselineFiles, plans: Sequence[Plan], limit: int | None) -> None:
    """Refuse to write a baseline that would be partial, ambiguous or in the place of something else, before anything is evaluated.

    Raises:
        UsageError: Names the file and the reason.
    """
    taken: dict[Path, str] = {}
    for plan in plans:
        file = files[plan.task.name]
        if file is None:
            continue
        path = Path(file)
        if plan.selected or limit is not None:
            raise UsageError("--update-baseline needs every item; leave out --limit, --ids and --only")
        if len(plan.sources) > 1:
            raise UsageError(f"--update-baseline takes one MODEL, not {len(plan.sources)}")
        version = read_schema_version(path)
        if path.exists() and version is None:
            raise UsageError(f"'{path}' is no baseline, and is not overwritten; give another file")
        if type(version) is int and version > SCHEMA_VERSION:
            raise UsageError(f"'{path}' is a baseline of schema version {version}; this sftchat writes {SCHEMA_VERSION}; give another file")
        if (other := taken.setdefault(path.resolve(), plan.task.name)) != plan.task.name:
            raise UsageError(f"--update-baseline: '{path}' cannot hold both {other} and {plan.task.name}; give each a file of its own")
        if not path.parent.is_dir():
            raise UsageError(f"no folder '{path.parent}' for the baseline")
        if not os.access(path.resolve().parent, os.W_OK):
            raise UsageError(f"baseline '{path}' may not be written; give another file")


def update_baselines(
    files: BaselineFiles, plans: Sequence[Plan], report: Report, resolve: Callable[[str], ModelReference]
) -> Iterator[str]:
    """Write the replies as new baselines, unless the gate fails or items are unanswered; yields lines for the user on what changed.

    Args:
        files: The files to write.
        plans: Plans of the evaluation.
        report: Its report, with a verdict.
        resolve: Resolves the name of a model.
    """
    for plan in plans:
        file = files[plan.task.name]
        if file is None:
            continue
        results = [result for result in report.results if result.task == plan.task.name]
        if any(result.failures for result in results):
            yield f"baseline {file}: not written, because some items were not answered"
            continue
        if report.verdict is not None and report.verdict.outcome == "fail":
            yield f"baseline {file}: not written, because the verdict is fail; without --baseline and --min it is"
            continue
        source = plan.sources[0]
        weights, template = _model_hashes(resolve(source.name)) if source.stored is None else ("", "")
        header = Header(
            task=plan.task.name,
            metrics=tuple(metric.name for metric in plan.task.metrics),
            model=source.name,
            identity=weights,
            template_hash=template,
            evalsets=tuple(result.evalset for result in results),
            sampling=sampling_to_json(plan.sampling) if source.stored is None else None,
        )
        items = results[0].items if len(results) == 1 else collect_outcomes(item for result in results for item in result.items)
        yield from write_baseline(Path(file), header, items)


def _model_hashes(reference: ModelReference) -> tuple[str, str]:
    """Return the hashes of a model's weights and of its chat template; empty when unknown."""
    if reference.scheme:
        return "", ""
    try:
        manifest = read_manifest(reference.folder) if reference.folder else None
    except SftchatError:
        manifest = None
    return identity(reference), manifest.template_hash if manifest else ""


def write_baseline(path: Path, header: Header, items: ScoredItems) -> tuple[str, ...]:
    """Write a baseline atomically.

    Args:
        path: Path of the file; an existing baseline is replaced.
        header: First line of the file.
        items: Scored items of the whole evalsets.

    Returns:
        Lines for the user that describe what changed.
    """
    changes = [f"written, {pluralize(len(items), 'item')} of {header.model}"]
    try:
        old = read_baseline(path) if is_baseline(path) else None
    except (DataError, NotComparableError) as error:  # an unreadable baseline may be the reason for the update
        old = None
        changes.append(f"in place of one that could not be read ({error})")
    if old is not None:
        changes = [pluralize(len(items), "item"), *(list(_describe_changes(old, items)) or ["nothing changed"])]
    write_atomically(path, _baseline_lines(header, items))
    return (f"baseline {path}: {', '.join(changes)}",)


def _baseline_lines(header: Header, items: ScoredItems) -> Iterator[str]:
    """Yield the lines of the file; the items are sorted by id."""
    yield json.dumps({BASELINE_KEY: SCHEMA_VERSION, **asdict(header)}, ensure_ascii=False) + "\n"
    yield from map(_item_line, sorted(items, key=lambda item: item.example.id))


def _item_line(item: Item) -> str:
    row = {**stored_reply_row(item), "right": item.right, "content": content_hash(item.example)}
    return json.dumps(row, ensure_ascii=False) + "\n"


def _describe_changes(old: Baseline, items: ScoredItems) -> Iterator[str]:
    """Yield the lines that describe the changes from the old baseline."""
    new = {item.example.id: item for item in items}
    counts = {"added": len(new.keys() - old.items.keys()), "removed": len(old.items.keys() - new.keys())}
    pairs = [(old.items[item_id], item) for item_id, item in new.items() if item_id in old.items]
    counts["with another reply"] = sum(stored.reply.text != item.reply.text for stored, item in pairs)
    counts["newly broken"] = sum(stored.right and not item.right for stored, item in pairs)
    counts["newly fixed"] = sum(item.right and not stored.right for stored, item in pairs)
    return (f"{count} {what}" for what, count in counts.items() if count)
