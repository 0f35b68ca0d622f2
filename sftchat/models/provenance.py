"""Provenance of a model: its manifest, that of its base model, and so on, each compared with the present files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sftchat._util.parsing import path_of
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
        note, manifest = _look(name, expected)
        steps.append(Provenance(name, manifest, note, _data(manifest)))
        name, expected = (manifest.base, manifest.base_identity) if manifest is not None else ("", "")
    return tuple(steps)


def scores_by_step(scores: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the scores of a manifest as ``(step, words)``, in order of steps."""

    def place(step: str) -> tuple[int, str]:
        return (int(step), "") if step.isdecimal() else (0, step)

    return [(step, _words(scores[step])) for step in sorted(scores, key=place)]


def _look(name: str, expected: str) -> tuple[str, Manifest | None]:
    """Return the change of a model since training, and its manifest."""
    if not expected:
        return "", find_manifest(name)
    try:
        found = identity(resolve(name))
    except SftchatError:
        return "is gone", None
    if found != expected:
        return "has changed since", None
    return "", find_manifest(name) if path_of(name).is_dir() else None


def _data(manifest: Manifest | None) -> dict[str, str]:
    """Return the changes of a model's training files."""
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
