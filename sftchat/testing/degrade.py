"""A checkpoint made worse on purpose, to see whether a gate notices."""

from __future__ import annotations

import shutil
from pathlib import Path

from sftchat.models.model_files import WEIGHTS

LEVELS = 47


def write_damaged(source: Path, target: Path, levels: int = LEVELS) -> None:
    """Copy a checkpoint with the values of every matrix rounded to a few levels, as a careless quantisation does.

    It loads, talks and is worse: what a regression looks like from outside.

    Args:
        source: A checkpoint whose weights are in one file.
        target: A folder that is not there yet.
        levels: Values that are left for each matrix, an odd number from 3.
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
