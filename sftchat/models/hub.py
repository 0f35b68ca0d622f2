"""Hugging Face's Hub and its cache on this machine: the only module that uses them, except for ``sftchat fetch``."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sftchat.models.model_files import ADAPTER_CONFIG, CONFIG, INDEX_SUFFIX

COMMIT = re.compile(r"[0-9a-f]{40}")
OFFLINE_VARIABLE = "HF_HUB_OFFLINE"
"""Environment variable that some libraries read directly."""

_HUB_LOCK = threading.RLock()
"""Held while a library loads something, because offline mode is a setting of the whole process."""


@contextmanager
def hub_access(*, local: bool) -> Iterator[None]:
    """Allow libraries to access the Hub within the block, or prevent it for local files, whatever they refer to.

    Args:
        local: Whether the files to load are in a local folder; huggingface_hub is then offline for all libraries.
    """
    with _HUB_LOCK:
        if not local:
            yield
            return
        from huggingface_hub import constants

        earlier_constant, earlier_variable = constants.HF_HUB_OFFLINE, os.environ.get(OFFLINE_VARIABLE)
        constants.HF_HUB_OFFLINE, os.environ[OFFLINE_VARIABLE] = True, "1"
        try:
            yield
        finally:
            constants.HF_HUB_OFFLINE = earlier_constant
            if earlier_variable is None:
                del os.environ[OFFLINE_VARIABLE]
            else:
                os.environ[OFFLINE_VARIABLE] = earlier_variable


def cached_commit(name: str, revision: str) -> str:
    """Look up, without network access, the commit that a revision of a Hub model had at its last download; empty if unknown.

    Args:
        name: ``org/name``.
        revision: A branch, a tag or a commit; empty for ``main``.
    """
    if COMMIT.fullmatch(revision):
        return revision
    cache = _cache_folder(name)
    if cache is None:
        return ""
    try:
        return (cache / "refs" / (revision or "main")).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):  # no such file, or an invalid file name
        return ""


def cached_folder(name: str, revision: str) -> Path | None:
    """Return the folder in the local cache for a revision of a Hub id, or None; does not access the Hub.

    Args:
        name: ``org/name``.
        revision: A branch, a tag or a commit; empty for ``main``.
    """
    cache, commit = _cache_folder(name), cached_commit(name, revision)
    if cache is None or not COMMIT.fullmatch(commit):
        return None
    folder = cache / "snapshots" / commit
    return folder if folder.is_dir() else None


def download_folder(name: str, revision: str, patterns: Sequence[str]) -> Path:
    """Download the files of a model that match a pattern, unless cached; arguments and errors as in ``sftchat.models.hubs.Hub``."""
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(name, revision=revision or None, allow_patterns=list(patterns)))


def download_file(name: str, revision: str, file: str) -> Path:
    """Download a file, unless it is cached, and return its path; arguments and errors as in ``sftchat.models.hubs.Hub``."""
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(name, file, revision=revision or None))


def cached_file(name: str, revision: str, file: str) -> Path | None:
    """Return the path of a file in the local cache, or None; arguments as in ``sftchat.models.hubs.Hub``."""
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(name, file, revision=revision or None)
    return Path(cached) if isinstance(cached, str) else None


def fetch_configs(name: str, revision: str) -> Path:
    """Download the files that name the weights, i.e. configs and the weight index, and return their folder in the local cache.

    Args:
        name: ``org/name``.
        revision: A branch, a tag or a commit; empty for ``main``.

    Raises:
        OSError: When the files are neither cached nor available from the Hub.
    """
    return download_folder(name, revision, (CONFIG, ADAPTER_CONFIG, f"*{INDEX_SUFFIX}"))


def is_offline() -> bool:
    """Whether the user has set huggingface_hub to offline mode."""
    try:
        from huggingface_hub import constants
    except ImportError:  # without the extra nothing could download a model
        return False
    return bool(constants.HF_HUB_OFFLINE)


def _cache_folder(name: str) -> Path | None:
    """Return the cache folder for a Hub id, existing or not; None without huggingface_hub."""
    try:
        from huggingface_hub.constants import HF_HUB_CACHE
    except ImportError:
        return None
    return Path(HF_HUB_CACHE, f"models--{name.replace('/', '--')}")
