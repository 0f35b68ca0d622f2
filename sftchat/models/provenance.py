"""Provenance of a model: its manifest, its base model's and so on; compared with the present files, and with another run's manifest."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sftchat._util.parsing import expand_user
from sftchat.errors import SftchatError
from sftchat.models.fingerprint import file_hash, identity
from sftchat.models.manifest import Manifest, find_manifest
from sftchat.models.reference import resolve


@dataclass(frozen=True)
class Provenance:
    """One model in a chain of provenance.

    Attributes:
        model: The MODEL argument, or for a base model its name in the manifest of the model trained from it.
        manifest: Its manifest; None if it has none.
        note: What happened to a base model since the training: ``is gone`` or ``has changed since``; empty if unchanged or unknown.
        data: The same for each file of its training data, by name.
    """

    model: str
    manifest: Manifest | None
    note: str
    data: Mapping[str, str]


def trace_lineage(model: str) -> tuple[Provenance, ...]:
    """Return a model, its base model, the base model of that, and so on.

    Args:
        model: A MODEL argument; only a local model has a manifest.

    Raises:
        ModelError: When the model's own manifest cannot be read.
    """
    steps: list[Provenance] = []
    name, recorded_identity = model, ""
    while not steps or (name and name not in {step.model for step in steps}):
        note, manifest = _find_change(name, recorded_identity)
        steps.append(Provenance(name, manifest, note, _data_changes(manifest)))
        name, recorded_identity = (manifest.base, manifest.base_identity) if manifest is not None else ("", "")
    return tuple(steps)


def scores_by_step(scores: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the scores of a manifest as ``(step, formatted scores)``, in order of steps."""

    def sort_key(step: str) -> tuple[int, str]:
        return (int(step), "") if step.isdecimal() else (0, step)

    return [(step, _format_score(scores[step])) for step in sorted(scores, key=sort_key)]


def _find_change(name: str, recorded_identity: str) -> tuple[str, Manifest | None]:
    """Return the ``note`` of a model, and its manifest; None for a changed model, whose manifest may describe another training."""
    if not recorded_identity:
        return "", find_manifest(name)
    try:
        is_unchanged = identity(resolve(name)) in ("", recorded_identity)  # unknown without the files
    except SftchatError:
        return "is gone", None
    if not is_unchanged:
        return "has changed since", None
    return "", find_manifest(name) if expand_user(name).is_dir() else None


def _data_changes(manifest: Manifest | None) -> dict[str, str]:
    notes = {}
    for source in manifest.data if manifest is not None else ():
        if "file" in source:
            path = Path(source["file"])
            has_changed = path.is_file() and file_hash(path) != source.get("sha256")
            notes[str(source["file"])] = "has changed since" if has_changed else ""
    return notes


def _format_score(value: Any) -> str:
    """Format a score, or several by name."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_format_score(inner)}" for name, inner in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)


SECTIONS = ("task", "base", "data", "template", "hyper-parameters", "versions", "outcome", "scores")
"""Sections of a comparison, in the order of training."""


@dataclass(frozen=True)
class Difference:
    """One difference.

    Attributes:
        section: One of ``SECTIONS``.
        name: Name of the value.
        left: Value in the first run, as in JSON; None if absent.
        right: Value in the second run.
    """

    section: str
    name: str
    left: Any
    right: Any


def compare_manifests(left: Manifest, right: Manifest) -> tuple[Difference, ...]:
    """Return all differences of two manifests, in the order of ``SECTIONS``."""
    left_entries, right_entries = dict(_list_entries(left)), dict(_list_entries(right))
    keys = sorted({**left_entries, **right_entries}, key=lambda key: SECTIONS.index(key[0]))
    differences = (Difference(*key, left_entries.get(key), right_entries.get(key)) for key in keys)
    return tuple(difference for difference in differences if difference.left != difference.right)


def same_sections(differences: tuple[Difference, ...]) -> tuple[str, ...]:
    """Return the sections without a difference."""
    different = {difference.section for difference in differences}
    return tuple(section for section in SECTIONS if section not in different)


def format_value(value: Any) -> str:
    """Format a value for a table cell: text unchanged, None as a dash, others as JSON."""
    if value is None:
        return "–"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _list_entries(manifest: Manifest) -> Iterator[tuple[tuple[str, str], Any]]:
    """Yield the entries of a manifest that are compared, as ``((section, name), value)``."""
    yield ("task", "task"), manifest.task
    yield ("base", "model"), manifest.base
    yield ("base", "weights"), manifest.base_identity[:12]
    for name, value in manifest.base_file.items():
        yield ("base", f"dequantized from {name}"), str(value)[:12] if name == "sha256" else value
    for number, source in enumerate(manifest.data, 1):
        suffix = f" {number}" if len(manifest.data) > 1 else ""
        for name, value in source.items():
            yield ("data", f"{name}{suffix}"), str(value)[:12] if name == "sha256" else value
    yield ("data", "rows"), manifest.rows
    yield ("data", "rendered tokens"), manifest.tokens_hash[:12]
    yield ("template", "name"), manifest.template
    yield ("template", "source and arguments"), manifest.template_hash[:12]
    if manifest.template_name:
        yield ("template", "of several"), manifest.template_name
    for name, value in manifest.template_arguments.items():
        yield ("template", name), value
    for name, value in {"method": manifest.method, **manifest.config}.items():
        yield ("hyper-parameters", name), value
    for name, value in manifest.versions.items():
        yield ("versions", name), value
    yield ("outcome", "steps"), manifest.steps
    yield ("outcome", "final loss"), manifest.final_loss
    yield ("outcome", "chosen step"), manifest.chosen_step or None
    for name, value in manifest.validation.items():
        yield ("scores", name.replace("_", " ")), value
    for step, scores in scores_by_step(manifest.scores):
        yield ("scores", f"step {step}"), scores
