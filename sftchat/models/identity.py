"""Which weights these are: a hash of their bytes, so that two models are the same only if they are."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

from sftchat.models.references import ModelReference

WEIGHTS = frozenset({".safetensors", ".bin"})
CONFIGS = frozenset({"config.json", "adapter_config.json"})
READ = WEIGHTS | {".json", ".jinja", ".txt", ".model", ".tiktoken", ".py"}
"""What transformers and peft read of a checkpoint: weights, configs, tokenizer, chat template, code."""
WRITTEN = frozenset({"sftchat.json", "report.json", "trainer_state.json", "training_args.bin"})
"""What lies beside weights with such a suffix and has no part in a reply: it may change while the model stays what it is."""
COMMIT = re.compile(r"[0-9a-f]{40}")

Hashed = Callable[[Path], str]


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_identity(folder: Path) -> str:
    """Hash of the weights and the config in a folder: names and bytes, in name order."""
    return _digest(folder, lambda path: path.suffix in WEIGHTS or path.name in CONFIGS, file_hash)


def identity(reference: ModelReference) -> str:
    """Hash of a model's weights and of its base's, or its Hub id and revision when it is not local."""
    own = folder_identity(reference.folder) if reference.folder else f"hub:{reference.source}@{reference.revision or 'main'}"
    return own if reference.base is None else _joined(own, identity(reference.base))


def reply_identity(reference: ModelReference, hashed: Hashed = file_hash) -> str:
    """Hash of every file that has a part in a reply: weights, configs, tokenizer, chat template, stop tokens; of the base too.

    Args:
        reference: A model; nothing of it is loaded.
        hashed: Hashes a file; one that remembers saves reading large weights again.

    Returns:
        Empty when it cannot be known, as for a branch on the Hub, which may move between two calls.

    Raises:
        OSError: When a file cannot be read.
    """
    if reference.folder:
        own = _digest(reference.folder, lambda path: path.suffix in READ and path.name not in WRITTEN and path.name[0] != ".", hashed)
    else:
        commit = _commit(reference)
        own = f"hub:{reference.source}@{commit}" if commit else ""
    if reference.base is None or not own:
        return own
    base = reply_identity(reference.base, hashed)
    return _joined(own, base) if base else ""


def _digest(folder: Path, wanted: Callable[[Path], bool], hashed: Hashed) -> str:
    """Hash of names and bytes of the files wanted, in name order."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if wanted(path) and path.is_file():
            digest.update(f"{path.name}\0{hashed(path)}\0".encode())
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
    try:
        from huggingface_hub.constants import HF_HUB_CACHE, HF_HUB_OFFLINE
    except ImportError:  # without the extra there is nothing that could fetch a model
        return ""
    branch = Path(HF_HUB_CACHE, f"models--{reference.source.replace('/', '--')}", "refs", reference.revision or "main")
    return branch.read_text(encoding="utf-8").strip() if HF_HUB_OFFLINE and branch.is_file() else ""
