"""Degrade a checkpoint, to test whether a gate detects it."""

from __future__ import annotations

import shutil
from pathlib import Path

from sftchat.models.model_files import WEIGHTS

LEVELS = 47


def write_damaged(source: Path, target: Path, levels: int = LEVELS) -> None:
    """Copy a checkpoint with the values of each matrix rounded to a few levels, like a careless quantisation.

    The result loads and generates, with worse replies.

    Args:
        source: Checkpoint with its weights in one file.
        target: Folder that does not exist yet.
        levels: Number of different values per matrix, odd, at least 3.
    """
    from safetensors.torch import load_file, save_file

    shutil.copytree(source, target, ignore=shutil.ignore_patterns("checkpoint-*", "runs"))
    path = target / WEIGHTS[0]
    tensors = load_file(path)
    for name, tensor in tensors.items():
        if tensor.ndim == 2:
            step = 2 * tensor.abs().max() / (levels - 1)
            tensors[name] = (tensor / step).round() * step
    save_file(tensors, path, metadata={"format": "pt"})
