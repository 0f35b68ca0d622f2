"""Access to the Hugging Face Hub and its local cache; the only module that uses huggingface_hub."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sftchat.models.model_files import ADAPTER_CONFIG, CONFIG, INDEX

COMMIT = re.compile(r"[0-9a-f]{40}")
VARIABLE = "HF_HUB_OFFLINE"
"""Environment variable that some libraries read directly."""

_REACH = threading.RLock()
"""Held while a library loads something, because offline mode is a setting of the whole process."""


@contextmanager
def reach(*, local: bool) -> Iterator[None]:
    """Context manager around loading by libraries; local files are loaded without the Hub, whatever they refer to.

    Args:
        local: Whether the files are in a local folder; huggingface_hub is then offline for all libraries.
    """
    with _REACH:
        if not local:
            yield
            return
        from huggingface_hub import constants

        before, variable = constants.HF_HUB_OFFLINE, os.environ.get(VARIABLE)
        constants.HF_HUB_OFFLINE, os.environ[VARIABLE] = True, "1"
        try:
            yield
        finally:
            constants.HF_HUB_OFFLINE = before
            if variable is None:
                del os.environ[VARIABLE]
            else:
                os.environ[VARIABLE] = variable


def cached_commit(name: str, revision: str) -> str:
    """Return the commit that the local cache has for a revision of a Hub id; empty if none.

    Args:
        name: ``org/name``.
        revision: A branch, a tag or a commit; empty for ``main``.
    """
    if COMMIT.fullmatch(revision):
        return revision
    home = _home(name)
    try:
        return (home / "refs" / (revision or "main")).read_text(encoding="utf-8").strip() if home else ""
    except (OSError, UnicodeDecodeError):  # no such file, or an invalid file name
        return ""


def cached_folder(name: str, revision: str) -> Path | None:
    """Return the folder in the local cache for a revision of a Hub id, or None; does not access the Hub.

    Args:
        name: ``org/name``.
        revision: A branch, a tag or a commit; empty for ``main``.
    """
    home, commit = _home(name), cached_commit(name, revision)
    folder = home / "snapshots" / commit if home and COMMIT.fullmatch(commit) else None
    return folder if folder is not None and folder.is_dir() else None


def fetched_configs(name: str, revision: str) -> Path:
    """Download the small files that refer to others, i.e. configs and the weight index; returns the folder in the local cache.

    Args:
        name: ``org/name``.
        revision: A branch, a tag or a commit; empty for ``main``.

    Raises:
        OSError: When they are neither cached nor available from the Hub.
    """
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(name, revision=revision or None, allow_patterns=[CONFIG, ADAPTER_CONFIG, f"*{INDEX}"]))


def is_offline() -> bool:
    """Whether the user has set huggingface_hub to offline mode."""
    try:
        from huggingface_hub import constants
    except ImportError:  # without the extra nothing could download a model
        return False
    return bool(constants.HF_HUB_OFFLINE)


def _home(name: str) -> Path | None:
    """Return the cache folder for a Hub id, existing or not; None without huggingface_hub."""
    try:
        from huggingface_hub.constants import HF_HUB_CACHE
    except ImportError:
        return None
    return Path(HF_HUB_CACHE, f"models--{name.replace('/', '--')}")
