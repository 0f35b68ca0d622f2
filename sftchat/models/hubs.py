"""Model hubs, as one idea: which there are, and how files and folders are downloaded from each or found in its cache on this machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sftchat.errors import ModelError, first_line
from sftchat.models import hub, modelscope

HUGGING_FACE, MODELSCOPE = "hf", "ms"
"""Schemes of the hubs, as in ``ms://org/name``; a model of the first is also written without."""
MODEL_FILES = ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.model", "*.py")
"""Files of a model with weights in safetensors; code is run with ``--trust-remote-code`` only."""


@dataclass(frozen=True)
class Hub:
    """A model hub.

    Attributes:
        title: Its name in messages.
        download_file: Returns the local path of a file, downloaded unless cached; called with ``org/name``, the revision (empty for the default)
            and the file's name. May raise any exception.
        cached_file: Likewise without network access; None if the file is not cached.
        download_folder: Returns the local folder of a model whose files that match one of the patterns are downloaded; called with ``org/name``, the
            revision and the patterns. May raise any exception.
        cached_folder: Returns the folder of a model in the cache, without network access, or None; called with ``org/name`` and the revision.
    """

    title: str
    download_file: Callable[[str, str, str], Path]
    cached_file: Callable[[str, str, str], Path | None]
    download_folder: Callable[[str, str, tuple[str, ...]], Path]
    cached_folder: Callable[[str, str], Path | None]


HUBS = {
    HUGGING_FACE: Hub("the Hub", hub.download_file, hub.cached_file, hub.download_folder, hub.cached_folder),
    MODELSCOPE: Hub("ModelScope", modelscope.download_file, modelscope.cached_file, modelscope.download_folder, modelscope.cached_folder),
}
"""All hubs by scheme."""


def fetch_file(scheme: str, text: str, name: str, revision: str, file: str) -> Path:
    """Return the local path of a file of a hub, downloaded unless cached; in offline mode only a cached one.

    Args:
        scheme: Key of ``HUBS``.
        text: MODEL argument, for messages.
        name: ``org/name``.
        revision: Branch, tag or commit; empty for the default.
        file: Path of the file in the repository.

    Raises:
        ModelError: When it cannot be downloaded.
    """
    source = HUBS[scheme]
    if scheme == MODELSCOPE and hub.is_offline():
        return _require_cached(source.cached_file(name, revision, file), text, source)
    try:
        return source.download_file(name, revision, file)
    except Exception as error:  # the libraries raise many kinds
        raise _fetch_error(text, source, error) from error


def fetch_folder(scheme: str, text: str, name: str, revision: str) -> Path:
    """Return the local folder of a model of a hub, downloaded unless cached; arguments and errors as in ``fetch_file``."""
    source = HUBS[scheme]
    if scheme == MODELSCOPE and hub.is_offline():
        return _require_cached(source.cached_folder(name, revision), text, source)
    try:
        return source.download_folder(name, revision, MODEL_FILES)
    except Exception as error:  # the libraries raise many kinds
        raise _fetch_error(text, source, error) from error


def _require_cached(path: Path | None, text: str, source: Hub) -> Path:
    """Return the path in the cache; huggingface_hub itself checks for its offline mode."""
    if path is None:
        raise ModelError(f"'{text}' is not in the cache of {source.title} on this machine, and {hub.OFFLINE_VARIABLE} is set")
    return path


def _fetch_error(text: str, source: Hub, error: Exception) -> ModelError:
    return ModelError(f"'{text}' could not be fetched from {source.title}: {first_line(error)}; check the name and the network")
