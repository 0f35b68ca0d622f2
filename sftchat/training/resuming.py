"""Whether a run may be continued: only with the same rows, template, base and hyper-parameters; otherwise what changed is said."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sftchat.errors import UsageError
from sftchat.models.manifest import Manifest, as_read, read_manifest
from sftchat.training.config import TrainingConfig

FREE = ("save_steps", "save_limit", "report_to", "device", "logging_steps")
"""Hyper-parameters that may change between two parts of a run: no weight depends on them."""


def earlier(run: Path) -> Manifest:
    """The manifest of the run to be continued.

    Raises:
        UsageError: When there is none.
        ModelError: When it cannot be read.
    """
    manifest = read_manifest(run)
    if manifest is None:
        raise UsageError(f"'{run}' has no manifest; it cannot be resumed")
    return manifest


def refuse_changed(run: Path, before: Manifest, now: Manifest) -> None:
    """Stop a resumption that would continue something else.

    Raises:
        UsageError: Naming everything that changed.
    """
    changes = list(_changes(before, as_read(now)))
    if changes:
        raise UsageError(f"cannot resume '{run}': {'; '.join(changes)}; undo that, or train into another folder")


def _changes(before: Manifest, now: Manifest) -> Iterator[str]:
    """What is not as it was, in words."""
    for name, words in (("task", "the task"), ("method", "the method")):
        if getattr(before, name) != getattr(now, name):
            yield f"{words} was {getattr(before, name)}, is now {getattr(now, name)}"
    if before.base_identity != now.base_identity:
        yield f"the base model has other weights ({before.base}, now {now.base})"
    if before.template_hash != now.template_hash:
        yield f"the chat template changed ({before.template}, now {now.template})"
    data = list(_data_changes(before.data, now.data))
    yield from data
    if before.tokens_hash != now.tokens_hash and not data and before.template_hash == now.template_hash:
        yield f"the rows render to other tokens (tokens hash was {before.tokens_hash[:12]}, is now {now.tokens_hash[:12]})"
    if before.validation != now.validation:
        yield "the validation items changed"
    for name in sorted({*before.config, *now.config} - {*FREE, "method"}):
        # what an earlier version did not know had its default
        old, new = (manifest.config.get(name, getattr(TrainingConfig(), name, None)) for manifest in (before, now))
        if old != new:
            yield f"--{name.replace('_', '-')} was {old}, is now {new}"


def _data_changes(before: tuple[Mapping[str, Any], ...], now: tuple[Mapping[str, Any], ...]) -> Iterator[str]:
    """Files with other bytes, and other sources."""
    old = {str(entry.get("file")): entry for entry in before}
    for entry in now:
        name = str(entry.get("file"))
        if "file" in entry and name in old and old[name].get("sha256") != entry.get("sha256"):
            yield f"{name} changed (sha256 was {str(old[name].get('sha256'))[:12]}, is now {str(entry.get('sha256'))[:12]})"
    places = [[entry.get("file") or dict(entry) for entry in data] for data in (before, now)]
    if places[0] != places[1]:
        yield f"the rows come from {_shown(places[1])}, came from {_shown(places[0])}"


def _shown(places: list[Any]) -> str:
    """Sources of rows in a few words."""
    words = [
        place if isinstance(place, str) else ", ".join(f"{key} {value}" for key, value in place.items() if value not in ({}, None))
        for place in places
    ]
    return " and ".join(words) or "nowhere"
