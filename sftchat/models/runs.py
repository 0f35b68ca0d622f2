"""Finds runs and checkpoints in a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sftchat._util.parsing import expand_user
from sftchat.errors import ModelError
from sftchat.models.manifest import CHECKPOINT, MANIFEST, checkpoints_of, find_manifest, read_manifest
from sftchat.models.model_files import ADAPTER_CONFIG, CONFIG
from sftchat.models.reference import resolve, step_of

MAX_DEPTH = 3
"""Maximum depth of the search for runs."""


@dataclass(frozen=True)
class RunSummary:
    """A model trained with sftchat.

    Attributes:
        model: Its folder, relative to the searched one; a MODEL argument.
        changed: Modification time, in seconds since 1970.
        about: Short description: task, base and method, if it has a manifest.
    """

    model: str
    changed: float
    about: str = ""


def find_runs(folder: Path, most: int = 20) -> tuple[RunSummary, ...]:
    """Return the runs, adapters and checkpoints below a folder, newest first; folders within one are not listed separately.

    Args:
        folder: The folder to search.
        most: Maximum number of results.
    """
    return tuple(sorted(_runs(folder, folder, MAX_DEPTH), key=lambda run: (-run.changed, run.model))[:most])


def checkpoints(model: str) -> tuple[str, ...]:
    """Return the checkpoints of a MODEL's run, in order of steps, then the finished run itself.

    Returns:
        Folders as MODEL arguments; empty if the model belongs to no run.
    """
    folder = expand_user(model)
    run = folder.parent if folder.name.startswith(CHECKPOINT) else folder
    paths = checkpoints_of(run)
    finished = (run / CONFIG).is_file() or (run / ADAPTER_CONFIG).is_file()
    return tuple(map(str, [*paths, run] if paths and finished else paths))


def current(model: str, among: tuple[str, ...]) -> int | None:
    """Return which of several checkpoints a MODEL refers to; for an unfinished run its best or last one.

    Raises:
        ModelError: When the model does not exist any more.
    """
    folder = Path(resolve(model).source).resolve()
    return next((index for index, checkpoint in enumerate(among) if Path(checkpoint).resolve() == folder), None)


def describe_checkpoint(model: str) -> str:
    """Describe a checkpoint without opening it: its step, and its scores if training computed them."""
    step, manifest = step_of(model), find_manifest(model)
    scores = manifest.scores.get(str(step)) if manifest is not None and step is not None else None
    values = scores.items() if isinstance(scores, dict) else ()
    described = [f"{name} {value:.3g}" for name, value in values if isinstance(value, int | float)]
    return ", ".join([f"step {step}" if step is not None else model, *described])


def _runs(root: Path, folder: Path, depth: int) -> Iterator[RunSummary]:
    try:
        inside = [Path(entry.path) for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False) and entry.name[0] != "."]
    except OSError:
        return
    for path in inside:
        marks = [path / name for name in (MANIFEST, ADAPTER_CONFIG, CONFIG) if (path / name).is_file()]
        steps = [file for name in (CONFIG, ADAPTER_CONFIG) for file in path.glob(f"{CHECKPOINT}*/{name}")]
        if (marks and _usable(path)) or steps:
            yield RunSummary(str(path.relative_to(root)), max(mark.stat().st_mtime for mark in marks + steps), _about(path))
        elif depth > 1:
            yield from _runs(root, path, depth - 1)


def _usable(path: Path) -> bool:
    try:
        resolve(str(path))
    except Exception:  # for any error, the folder is not offered
        return False
    return True


def _about(path: Path) -> str:
    try:
        manifest = read_manifest(path)
    except ModelError:
        return ""
    return f"{manifest.task}, {manifest.method} of {manifest.base}" if manifest is not None else ""
