"""Finds runs and checkpoints in a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sftchat._util.parsing import path_of
from sftchat.errors import ModelError
from sftchat.models.manifest import MANIFEST, find_manifest, read_manifest
from sftchat.models.model_files import ADAPTER_CONFIG
from sftchat.models.reference import resolve, step_of

DEEPEST = 3
"""Maximum depth of the search for runs."""


@dataclass(frozen=True)
class Run:
    """A model trained with sftchat.

    Attributes:
        model: Its folder, relative to the searched one; a MODEL argument.
        changed: Modification time, in seconds since 1970.
        about: Short description: task, base and method, if it has a manifest.
    """

    model: str
    changed: float
    about: str = ""


def find_runs(folder: Path, most: int = 20) -> tuple[Run, ...]:
    """Return the runs, adapters and checkpoints below a folder, newest first; folders within one are not listed separately.

    Args:
        folder: The folder to search.
        most: Maximum number of results.
    """
    found = sorted(_runs(folder, folder, DEEPEST), key=lambda run: (-run.changed, run.model))
    return tuple(found[:most])


def checkpoints(model: str) -> tuple[str, ...]:
    """Return the checkpoints of a MODEL's run, in order of steps, then the finished run itself.

    Returns:
        Folders as MODEL arguments; empty if the model belongs to no run.
    """
    folder = path_of(model)
    run = folder.parent if folder.name.startswith("checkpoint-") else folder
    if not run.is_dir():
        return ()
    steps = [(step_of(str(path)), path) for path in run.glob("checkpoint-*") if path.is_dir()]
    found = [str(path) for step, path in sorted(steps, key=lambda one: one[0] or 0) if step is not None]
    whole = (run / "config.json").is_file() or (run / ADAPTER_CONFIG).is_file()
    return (*found, str(run)) if found and whole else tuple(found)


def current(model: str, among: tuple[str, ...]) -> int | None:
    """Return which of several checkpoints a MODEL refers to; for an unfinished run its best or last one.

    Raises:
        ModelError: When the model does not exist any more.
    """
    wanted = Path(resolve(model).source).resolve()
    return next((at for at, one in enumerate(among) if Path(one).resolve() == wanted), None)


def describe_checkpoint(model: str) -> str:
    """Describe a checkpoint without opening it: its step, and its scores if training computed them."""
    step, manifest = step_of(model), find_manifest(model)
    scores = manifest.scores.get(str(step)) if manifest is not None and step is not None else None
    figures = (
        [f"{name} {value:.3g}" for name, value in scores.items() if isinstance(value, int | float)] if isinstance(scores, dict) else []
    )
    return ", ".join([f"step {step}" if step is not None else model, *figures])


def _runs(root: Path, folder: Path, depth: int) -> Iterator[Run]:
    """Yield the runs in a folder and its subfolders."""
    try:
        inside = [Path(entry.path) for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False) and entry.name[0] != "."]
    except OSError:
        return
    for path in inside:
        marks = [path / name for name in (MANIFEST, ADAPTER_CONFIG, "config.json") if (path / name).is_file()]
        steps = list(path.glob("checkpoint-*/config.json")) + list(path.glob(f"checkpoint-*/{ADAPTER_CONFIG}"))
        if (marks and _usable(path)) or steps:
            yield Run(str(path.relative_to(root)), max(mark.stat().st_mtime for mark in marks + steps), _about(path))
        elif depth > 1:
            yield from _runs(root, path, depth - 1)


def _usable(path: Path) -> bool:
    """Whether a folder is a model."""
    try:
        resolve(str(path))
    except Exception:  # for any error, the folder is not offered
        return False
    return True


def _about(path: Path) -> str:
    """Return task, base and method of a run."""
    try:
        manifest = read_manifest(path)
    except ModelError:
        return ""
    return f"{manifest.task}, {manifest.method} of {manifest.base}" if manifest is not None else ""
