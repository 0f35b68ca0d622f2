"""The Hugging Face Hub: what of it lies on this machine, and when it may be asked. The one place that knows huggingface_hub."""

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
"""What some libraries read from the environment instead of asking huggingface_hub."""

_REACH = threading.RLock()
"""Held while a library loads something, since offline is a switch of the whole process."""


@contextmanager
def reach(*, local: bool) -> Iterator[None]:
    """Let libraries load something in this block: what is local without the Hub, whatever its files name.

    Args:
        local: Whether the files lie in a local folder; then huggingface_hub is offline, for every library that asks through it.
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
    """The commit of a Hub id that the local cache has for a revision; empty when it has none.

    Args:
        name: ``org/name``.
        revision: A branch, a tag or a commit; empty for ``main``.
    """
    if COMMIT.fullmatch(revision):
        return revision
    home = _home(name)
    try:
        return (home / "refs" / (revision or "main")).read_text(encoding="utf-8").strip() if home else ""
    except (OSError, UnicodeDecodeError):  # it has none, or the name is one that no system takes
        return ""


def cached_folder(name: str, revision: str) -> Path | None:
    """The folder in the local cache that holds a Hub id at a revision, or None; nothing is asked of the Hub.

    Args:
        name: ``org/name``.
        revision: A branch, a tag or a commit; empty for ``main``.
    """
    home, commit = _home(name), cached_commit(name, revision)
    folder = home / "snapshots" / commit if home and COMMIT.fullmatch(commit) else None
    return folder if folder is not None and folder.is_dir() else None


def fetched_configs(name: str, revision: str) -> Path:
    """The folder in the local cache after the small files that name others were fetched into it: configs and the index of weights.

    Args:
        name: ``org/name``.
        revision: A branch, a tag or a commit; empty for ``main``.

    Raises:
        OSError: When they are neither in the cache nor to be had from the Hub.
    """
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(name, revision=revision or None, allow_patterns=[CONFIG, ADAPTER_CONFIG, f"*{INDEX}"]))


def is_offline() -> bool:
    """Whether the user has told huggingface_hub to stay offline."""
    try:
        from huggingface_hub import constants
    except ImportError:  # without the extra there is nothing that could fetch a model
        return False
    return bool(constants.HF_HUB_OFFLINE)


def _home(name: str) -> Path | None:
    """Where the cache keeps a Hub id, whether or not it does; None without huggingface_hub."""
    try:
        from huggingface_hub.constants import HF_HUB_CACHE
    except ImportError:
        return None
    return Path(HF_HUB_CACHE, f"models--{name.replace('/', '--')}")
