"""Which weights these are: a hash of their bytes, so that two models are the same only if they are."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

from sftchat.models.hub import COMMIT, cached_commit, is_offline
from sftchat.models.model_files import files_of, weights_of
from sftchat.models.reference import ModelReference

WEIGHTS = frozenset({".safetensors", ".bin"})
CONFIGS = frozenset({"config.json", "adapter_config.json"})

Hashed = Callable[[Path], str]


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_identity(folder: Path) -> str:
    """Hash of the weights, wherever in the folder they lie, and of the config: names and bytes, in name order.

    Raises:
        ModelError: When weights are missing, or outside the folder.
    """
    here = (path.name for path in folder.iterdir() if (path.suffix in WEIGHTS or path.name in CONFIGS) and path.is_file())
    named = (name for name in weights_of(folder, allow_pickle=True) if Path(name).suffix in WEIGHTS)
    return _digest(folder, {*here, *named}, file_hash)


def identity(reference: ModelReference) -> str:
    """Hash of a model's weights and of its base's, or its Hub id and revision when it is not local."""
    own = folder_identity(reference.folder) if reference.folder else f"hub:{reference.source}@{reference.revision or 'main'}"
    return own if reference.base is None else _joined(own, identity(reference.base))


def reply_identity(reference: ModelReference, hashed: Hashed = file_hash) -> str:
    """Hash of every file that has a part in a reply, as ``files_of`` lists them; of the base too.

    Args:
        reference: A model; nothing of it is loaded.
        hashed: Hashes a file; one that remembers saves reading large weights again.

    Returns:
        Empty when it cannot be known, as for a branch on the Hub, which may move between two calls.

    Raises:
        OSError: When a file cannot be read.
        ModelError: When weights are missing, or outside the folder.
    """
    if reference.folder:
        own = _digest(reference.folder, files_of(reference.folder), hashed)
    else:
        commit = _commit(reference)
        own = f"hub:{reference.source}@{commit}" if commit else ""
    if reference.base is None or not own:
        return own
    base = reply_identity(reference.base, hashed)
    return _joined(own, base) if base else ""


def _digest(folder: Path, names: Iterable[str], hashed: Hashed) -> str:
    """Hash of names and bytes of some files of a folder, in name order."""
    digest = hashlib.sha256()
    for name in sorted(names):
        digest.update(f"{name}\0{hashed(folder / name)}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _joined(adapter: str, base: str) -> str:
    """Identity of an adapter on a base."""
    return hashlib.sha256(f"{adapter}\0{base}".encode()).hexdigest()


def _commit(reference: ModelReference) -> str:
    """The commit of a model on the Hub, where it is certain without asking: the user gave it, or nothing newer can be fetched."""
    if reference.scheme:
        return ""
    if COMMIT.fullmatch(reference.revision):
        return reference.revision
    return cached_commit(reference.source, reference.revision) if is_offline() else ""
