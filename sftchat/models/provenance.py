"""Provenance of a model: the manifests of the model, its base model and so on, compared with the present files and with another run's."""

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
        model: The model, as the manifest of the next one names it.
        manifest: Its manifest; None if it has none.
        note: Change since then: ``is gone``, ``has changed since``; empty if unchanged or unknown.
        data: Change of each training file, by name; empty if unchanged.
    """

    model: str
    manifest: Manifest | None
    note: str
    data: Mapping[str, str]


def lineage(model: str) -> tuple[Provenance, ...]:
    """Return the chain of models, beginning with the model itself.

    Args:
        model: A local model, or any other MODEL, which has no manifest.

    Raises:
        ModelError: When the model's own manifest cannot be read.
    """
    steps: list[Provenance] = []
    name, expected = model, ""
    while len(steps) < 1 or (name and name not in {step.model for step in steps}):
        note, manifest = _compare_with_files(name, expected)
        steps.append(Provenance(name, manifest, note, _data_changes(manifest)))
        name, expected = (manifest.base, manifest.base_identity) if manifest is not None else ("", "")
    return tuple(steps)


def scores_by_step(scores: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the scores of a manifest as ``(step, words)``, in order of steps."""

    def place(step: str) -> tuple[int, str]:
        return (int(step), "") if step.isdecimal() else (0, step)

    return [(step, _words(scores[step])) for step in sorted(scores, key=place)]


def _compare_with_files(name: str, expected: str) -> tuple[str, Manifest | None]:
    """Return the change of a model since training, and its manifest."""
    if not expected:
        return "", find_manifest(name)
    try:
        unchanged = identity(resolve(name)) == expected
    except SftchatError:
        return "is gone", None
    if not unchanged:
        return "has changed since", None
    return "", find_manifest(name) if expand_user(name).is_dir() else None


def _data_changes(manifest: Manifest | None) -> dict[str, str]:
    notes = {}
    for source in manifest.data if manifest is not None else ():
        if "file" in source:
            path = Path(source["file"])
            notes[str(source["file"])] = "" if not path.is_file() or file_hash(path) == source.get("sha256") else "has changed since"
    return notes


def _words(value: Any) -> str:
    """Format a score, or several by name."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_words(inner)}" for name, inner in value.items())
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
    left_entries, right_entries = dict(_entries(left)), dict(_entries(right))
    keys = sorted(dict.fromkeys((*left_entries, *right_entries)), key=lambda key: SECTIONS.index(key[0]))
    return tuple(
        Difference(*key, left_entries.get(key), right_entries.get(key)) for key in keys if left_entries.get(key) != right_entries.get(key)
    )


def same_sections(differences: tuple[Difference, ...]) -> tuple[str, ...]:
    """Return the sections without a difference."""
    return tuple(section for section in SECTIONS if section not in {difference.section for difference in differences})


def format_value(value: Any) -> str:
    """Format a value for a table cell: text unchanged, None as a dash, others as JSON."""
    if value is None:
        return "–"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _entries(manifest: Manifest) -> Iterator[tuple[tuple[str, str], Any]]:
    """Yield the entries of a manifest that are compared: section and name, and the value."""
    yield ("task", "task"), manifest.task
    yield ("base", "model"), manifest.base
    yield ("base", "weights"), manifest.base_identity[:12]
    for number, source in enumerate(manifest.data, 1):
        yield from _source(number if len(manifest.data) > 1 else 0, source)
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
    for step, words in scores_by_step(manifest.scores):
        yield ("scores", f"step {step}"), words


def _source(number: int, source: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str], Any]]:
    place = f" {number}" if number else ""
    for name, value in source.items():
        short = str(value)[:12] if name == "sha256" else value
        yield ("data", f"{name}{place}"), short
