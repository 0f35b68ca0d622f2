"""Models on hubs as files on this machine: downloaded where they are needed, not where MODEL is resolved."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from sftchat.errors import ModelError
from sftchat.models.hubs import HUBS, MODELSCOPE, fetch_file, fetch_folder
from sftchat.models.model_files import ADAPTER_CONFIG, check_sizes
from sftchat.models.reference import HUB_FILE, ModelReference


def gguf_file(reference: ModelReference) -> Path:
    """Return the local path of a GGUF file, downloaded if it is on a hub.

    Raises:
        ModelError: When it cannot be downloaded.
    """
    match = HUB_FILE.fullmatch(reference.source)
    if match is None:
        return Path(reference.source)
    return fetch_file(match["hub"], reference.text, match["id"], match["revision"] or "", match["file"])


def cached_gguf_file(reference: ModelReference) -> Path | None:
    """Return the local path of a GGUF file, without network access; None for one on a hub that is not in the local cache."""
    match = HUB_FILE.fullmatch(reference.source)
    if match is None:
        return Path(reference.source)
    return HUBS[match["hub"]].cached_file(match["id"], match["revision"] or "", match["file"])


def fetched(reference: ModelReference) -> ModelReference:
    """Return a reference to the local folder of a model on ModelScope, downloaded unless cached; other models unchanged, as transformers fetches them.

    Raises:
        ModelError: When it cannot be downloaded, or is an adapter.
    """
    if reference.hub != MODELSCOPE or reference.is_gguf:
        return reference
    folder = fetch_folder(MODELSCOPE, reference.text, reference.hub_id, reference.revision)
    check_sizes(folder)
    if (folder / ADAPTER_CONFIG).is_file():
        raise ModelError(f"'{reference.text}' is an adapter on ModelScope; give its folder, {folder}")
    return replace(reference, source=str(folder), revision="")
