"""Which weights these are: a hash of their bytes, so that two models are the same only if they are."""

from __future__ import annotations

import hashlib
from pathlib import Path

from sftchat.models.references import ModelReference


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_identity(folder: Path) -> str:
    """Hash of the weights and the config in a folder: names and bytes, in name order."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in {".safetensors", ".bin"} or path.name in {"config.json", "adapter_config.json"}:
            digest.update(f"{path.name}\0{file_hash(path)}\0".encode())
    return digest.hexdigest()


def identity(reference: ModelReference) -> str:
    """Hash of a model's weights and of its base's, or its Hub id and revision when it is not local."""
    own = folder_identity(reference.folder) if reference.folder else f"hub:{reference.source}@{reference.revision or 'main'}"
    if reference.base is None:
        return own
    return hashlib.sha256(f"{own}\0{identity(reference.base)}".encode()).hexdigest()
