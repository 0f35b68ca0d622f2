"""Hashes that identify weights by their bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

from sftchat.models.hub import COMMIT, cached_commit, is_offline
from sftchat.models.hubs import MODELSCOPE
from sftchat.models.local_files import cached_gguf_file, fetched
from sftchat.models.model_files import files_of, weights_of
from sftchat.models.reference import ModelReference

WEIGHTS = frozenset({".safetensors", ".bin"})
CONFIGS = frozenset({"config.json", "adapter_config.json"})

FileHasher = Callable[[Path], str]
"""Returns the hash of a file: ``file_hash``, or a function that caches it, so that large weights are not read again."""


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_identity(folder: Path) -> str:
    """Return a hash of the names and bytes of a model's weights, also those in subfolders, and of its config.

    Raises:
        ModelError: When weights are missing, or outside the folder.
    """
    in_folder = (path.name for path in folder.iterdir() if (path.suffix in WEIGHTS or path.name in CONFIGS) and path.is_file())
    weights = (name for name in weights_of(folder, allow_pickle=True) if Path(name).suffix in WEIGHTS)
    return files_digest(folder, {*in_folder, *weights})


def identity(reference: ModelReference) -> str:
    """Return a hash of a model's weights and its base model's, without network access; a model on the Hub counts by its id and revision, one on ModelScope that is
    not in the local cache is unknown: empty."""
    if reference.is_gguf:
        path = cached_gguf_file(reference)
        return file_hash(path) if path is not None else ""
    if reference.hub == MODELSCOPE:
        folder = reference.cached_folder
        return folder_identity(folder) if folder is not None else ""
    model = folder_identity(reference.folder) if reference.folder else f"hub:{reference.source}@{reference.revision or 'main'}"
    return model if reference.base is None else _combine(model, identity(reference.base))


def reply_identity(reference: ModelReference, hash_file: FileHasher = file_hash) -> str:
    """Return a hash of every file that affects the replies of a model and its base model, as listed by ``files_of``.

    Args:
        reference: A model; it is not loaded, but downloaded if it is on ModelScope.
        hash_file: Returns the hash of a file.

    Returns:
        Empty if unknown, as for a branch on the Hub, which may change between two calls.

    Raises:
        OSError: When a file cannot be read.
        ModelError: When weights are missing, or outside the folder.
    """
    reference = fetched(reference)
    if reference.is_gguf:
        path = cached_gguf_file(reference)
        model = f"gguf:{hash_file(path)}" if path is not None else ""
    elif reference.folder:
        model = files_digest(reference.folder, files_of(reference.folder), hash_file)
    else:
        commit = _find_commit(reference)
        model = f"hub:{reference.source}@{commit}" if commit else ""
    if reference.base is None or not model:
        return model
    base = reply_identity(reference.base, hash_file)
    return _combine(model, base) if base else ""


def files_digest(folder: Path, names: Iterable[str], hash_file: FileHasher = file_hash) -> str:
    """Return a hash of the names and bytes of some files of a folder, in order of names.

    Args:
        folder: The folder.
        names: Names of the files, relative to the folder.
        hash_file: Returns the hash of a file.

    Raises:
        OSError: When a file cannot be read.
    """
    digest = hashlib.sha256()
    for name in sorted(names):
        digest.update(f"{name}\0{hash_file(folder / name)}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _combine(adapter_identity: str, base_identity: str) -> str:
    return hashlib.sha256(f"{adapter_identity}\0{base_identity}".encode()).hexdigest()


def _find_commit(reference: ModelReference) -> str:
    """Return the commit of a model on the Hub, without network access: the one that the user gave, or offline the cached one; empty if unknown."""
    if reference.scheme:
        return ""
    if COMMIT.fullmatch(reference.revision):
        return reference.revision
    return cached_commit(reference.source, reference.revision) if is_offline() else ""
