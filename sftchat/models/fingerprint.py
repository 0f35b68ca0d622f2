"""Hashes that identify weights by their bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

from sftchat.models.model_files import files_of, weights_of
from sftchat.models.reference import COMMIT, ModelReference, cached_commit, is_offline

WEIGHTS = frozenset({".safetensors", ".bin"})
CONFIGS = frozenset({"config.json", "adapter_config.json"})

Hashed = Callable[[Path], str]


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_identity(folder: Path) -> str:
    """Return a hash of the weights, also those in subfolders, and the config: names and bytes, in order of names.

    Raises:
        ModelError: When weights are missing, or outside the folder.
    """
    here = (path.name for path in folder.iterdir() if (path.suffix in WEIGHTS or path.name in CONFIGS) and path.is_file())
    named = (name for name in weights_of(folder, allow_pickle=True) if Path(name).suffix in WEIGHTS)
    return files_digest(folder, {*here, *named})


def identity(reference: ModelReference) -> str:
    """Return a hash of a model's weights and its base model's, or its Hub id and revision if it is not local."""
    own = folder_identity(reference.folder) if reference.folder else f"hub:{reference.source}@{reference.revision or 'main'}"
    return own if reference.base is None else _joined(own, identity(reference.base))


def reply_identity(reference: ModelReference, hashed: Hashed = file_hash) -> str:
    """Return a hash of every file that affects replies, as listed by ``files_of``; including those of the base model.

    Args:
        reference: A model; it is not loaded.
        hashed: Hashes a file; a caching function avoids rereading large weights.

    Returns:
        Empty if unknown, as for a branch on the Hub, which may change between two calls.

    Raises:
        OSError: When a file cannot be read.
        ModelError: When weights are missing, or outside the folder.
    """
    if reference.folder:
        own = files_digest(reference.folder, files_of(reference.folder), hashed)
    else:
        commit = _commit(reference)
        own = f"hub:{reference.source}@{commit}" if commit else ""
    if reference.base is None or not own:
        return own
    base = reply_identity(reference.base, hashed)
    return _joined(own, base) if base else ""


def files_digest(folder: Path, names: Iterable[str], hashed: Hashed = file_hash) -> str:
    """Return a hash of names and bytes of some files of a folder, in order of names.

    Args:
        folder: The folder.
        names: Names of the files, relative to it.
        hashed: Hashes a file.

    Raises:
        OSError: When a file cannot be read.
    """
    digest = hashlib.sha256()
    for name in sorted(names):
        digest.update(f"{name}\0{hashed(folder / name)}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _joined(adapter: str, base: str) -> str:
    """Return the identity of an adapter on a base model."""
    return hashlib.sha256(f"{adapter}\0{base}".encode()).hexdigest()


def _commit(reference: ModelReference) -> str:
    """Return the commit of a model on the Hub if it is certain offline: the user gave it, or no newer one can be downloaded."""
    if reference.scheme:
        return ""
    if COMMIT.fullmatch(reference.revision):
        return reference.revision
    return cached_commit(reference.source, reference.revision) if is_offline() else ""
