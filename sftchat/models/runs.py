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
        description: Task, method and base model, if it has a manifest; else empty.
    """

    model: str
    changed: float
    description: str = ""


def find_runs(folder: Path, limit: int = 20) -> tuple[RunSummary, ...]:
    """Return the runs, adapters and checkpoints below a folder, newest first; folders within one are not listed separately.

    Args:
        folder: The folder to search.
        limit: Maximum number of results.
    """
    return tuple(sorted(_search(folder, folder, MAX_DEPTH), key=lambda run: (-run.changed, run.model))[:limit])


def checkpoints_of_model(model: str) -> tuple[str, ...]:
    """Return the checkpoints of a run in order of steps, then the run itself if it is finished.

    Args:
        model: The folder of the run, or of one of its checkpoints.

    Returns:
        Folders as MODEL arguments; empty if the model belongs to no run.
    """
    folder = expand_user(model)
    run = folder.parent if folder.name.startswith(CHECKPOINT) else folder
    paths = checkpoints_of(run)
    finished = (run / CONFIG).is_file() or (run / ADAPTER_CONFIG).is_file()
    return tuple(map(str, [*paths, run] if paths and finished else paths))


def find_current(model: str, folders: tuple[str, ...]) -> int | None:
    """Return the index of the folder to which a MODEL refers, for an unfinished run its best or last checkpoint; None if there is no such folder.

    Args:
        model: The MODEL argument.
        folders: Result of ``checkpoints_of_model``.

    Raises:
        ModelError: When the model does not exist any more.
    """
    folder = Path(resolve(model).source).resolve()
    return next((index for index, checkpoint in enumerate(folders) if Path(checkpoint).resolve() == folder), None)


def describe_checkpoint(model: str) -> str:
    """Describe a checkpoint without opening it: its step, and its scores if training computed them."""
    step, manifest = step_of(model), find_manifest(model)
    scores = manifest.scores.get(str(step)) if manifest is not None and step is not None else None
    values = scores.items() if isinstance(scores, dict) else ()
    formatted = [f"{name} {value:.3g}" for name, value in values if isinstance(value, int | float)]
    return ", ".join([f"step {step}" if step is not None else model, *formatted])


def _search(root: Path, folder: Path, depth: int) -> Iterator[RunSummary]:
    """Yield the models below a folder, at most ``depth`` levels deep, with paths relative to ``root``."""
    try:
        subfolders = [Path(entry.path) for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False) and entry.name[0] != "."]
    except OSError:
        return
    for path in subfolders:
        model_files = [path / name for name in (MANIFEST, ADAPTER_CONFIG, CONFIG) if (path / name).is_file()]
        checkpoint_files = [file for name in (CONFIG, ADAPTER_CONFIG) for file in path.glob(f"{CHECKPOINT}*/{name}")]
        if (model_files and _can_resolve(path)) or checkpoint_files:
            changed = max(file.stat().st_mtime for file in model_files + checkpoint_files)
            yield RunSummary(str(path.relative_to(root)), changed, _describe_training(path))
        elif depth > 1:
            yield from _search(root, path, depth - 1)


def _can_resolve(path: Path) -> bool:
    try:
        resolve(str(path))
    except Exception:  # for any error, the folder is not offered
        return False
    return True


def _describe_training(path: Path) -> str:
    try:
        manifest = read_manifest(path)
    except ModelError:
        return ""
    return f"{manifest.task}, {manifest.method} of {manifest.base}" if manifest is not None else ""
