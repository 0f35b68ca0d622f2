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
    GENERATION_SETTINGS,
    SCHEMA_VERSION,
    Baseline,
    Header,
    content_hash,
    is_baseline,
    read_baseline,
    read_schema_version,
    sampling_to_json,
    settings_of,
)
from sftchat.evaluation.plan import Plan
from sftchat.evaluation.replies import BASELINE_KEY, stored_reply_row
from sftchat.evaluation.report.view import Report
from sftchat.evaluation.scored import Item, ScoredItems, collect_outcomes
from sftchat.models import fingerprint
from sftchat.models.manifest import read_manifest
from sftchat.models.reference import ModelReference
from sftchat.text import pluralize

BaselineFiles = Mapping[str, str | None]
"""The baseline file to write, by name of the task; None for a task without one."""


def check_updates(files: BaselineFiles, plans: Sequence[Plan], limit: int | None) -> None:
    """Check, before anything is evaluated, that complete baselines can be written and that nothing else is overwritten.

    Args:
        files: The files to write.
        plans: Plans of the evaluation.
        limit: Maximum number of rows of each evalset; None for all.

    Raises:
        UsageError: When a baseline cannot be written; names the file and the reason.
    """
    task_by_path: dict[Path, str] = {}
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
        if (other := task_by_path.setdefault(path.resolve(), plan.task.name)) != plan.task.name:
            raise UsageError(f"--update-baseline: '{path}' cannot hold both {other} and {plan.task.name}; give each a file of its own")
        if not path.parent.is_dir():
            raise UsageError(f"no folder '{path.parent}' for the baseline")
        if not os.access(path.resolve().parent, os.W_OK):
            raise UsageError(f"baseline '{path}' may not be written; give another file")


def update_baselines(
    files: BaselineFiles, plans: Sequence[Plan], report: Report, resolve: Callable[[str], ModelReference]
) -> Iterator[str]:
    """Write the replies as new baselines, unless the gate fails or items are unanswered.

    Args:
        files: The files to write.
        plans: Plans of the evaluation.
        report: Report of the evaluation, with a verdict.
        resolve: Resolves the name of a model.

    Yields:
        Lines for the user: what changed in each file, or why it was not written.
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
        is_model = source.stored is None
        identity, template_hash = _model_hashes(resolve(source.name)) if is_model else ("", "")
        header = Header(
            task=plan.task.name,
            metrics=tuple(metric.name for metric in plan.task.metrics),
            model=source.name,
            identity=identity,
            template_hash=template_hash,
            evalsets=tuple(result.evalset for result in results),
            sampling=sampling_to_json(plan.sampling) if is_model else None,
            settings={key: value for key, value in settings_of(plan.task).items() if is_model or key not in GENERATION_SETTINGS},
        )
        items = results[0].items if len(results) == 1 else collect_outcomes(item for result in results for item in result.items)
        yield write_baseline(Path(file), header, items)


def _model_hashes(reference: ModelReference) -> tuple[str, str]:
    """Return the hashes of a model's weights and of its chat template; empty when unknown."""
    if reference.scheme and not reference.is_gguf:
        return "", ""
    try:
        manifest = read_manifest(reference.folder) if reference.folder else None
    except SftchatError:
        manifest = None
    return fingerprint.identity(reference), manifest.template_hash if manifest else ""


def write_baseline(path: Path, header: Header, items: ScoredItems) -> str:
    """Write a baseline atomically.

    Args:
        path: Path of the file; an existing baseline is replaced.
        header: First line of the file.
        items: Scored items of the whole evalsets.

    Returns:
        A line for the user on what changed.
    """
    parts = [f"written, {pluralize(len(items), 'item')} of {header.model}"]
    try:
        if is_baseline(path):
            parts = [pluralize(len(items), "item"), *(_describe_changes(read_baseline(path), items) or ["nothing changed"])]
    except (DataError, NotComparableError) as error:  # an unreadable baseline may be the reason for the update
        parts.append(f"in place of one that could not be read ({error})")
    write_atomically(path, _baseline_lines(header, items))
    return f"baseline {path}: {', '.join(parts)}"


def _baseline_lines(header: Header, items: ScoredItems) -> Iterator[str]:
    members = {name: value for name, value in asdict(header).items() if name != "settings" or value}
    yield json.dumps({BASELINE_KEY: SCHEMA_VERSION, **members}, ensure_ascii=False) + "\n"
    yield from map(_item_line, sorted(items, key=lambda item: item.example.id))


def _item_line(item: Item) -> str:
    row = {**stored_reply_row(item), "right": item.right, "content": content_hash(item.example)}
    return json.dumps(row, ensure_ascii=False) + "\n"


def _describe_changes(old: Baseline, items: ScoredItems) -> list[str]:
    new = {item.example.id: item for item in items}
    counts = {"added": len(new.keys() - old.items.keys()), "removed": len(old.items.keys() - new.keys())}
    pairs = [(old.items[item_id], item) for item_id, item in new.items() if item_id in old.items]
    counts["with another reply"] = sum(stored.reply.text != item.reply.text for stored, item in pairs)
    counts["newly broken"] = sum(stored.right and not item.right for stored, item in pairs)
    counts["newly fixed"] = sum(item.right and not stored.right for stored, item in pairs)
    return [f"{count} {change}" for change, count in counts.items() if count]
