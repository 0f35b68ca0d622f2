"""ModelScope: downloads from it and its cache on this machine; the only module that uses the package ``modelscope_hub``."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import redirect_stderr
from fnmatch import fnmatch
from functools import cache
from importlib.util import find_spec
from io import StringIO
from pathlib import Path, PurePosixPath
from typing import Any

from sftchat.errors import MissingExtraError, ModelError

MODEL = "model"
"""Kind of repository, in contrast to data sets and others."""


def require_modelscope(what: str) -> None:
    """Raise an error with the install command if the package is not installed.

    Raises:
        MissingExtraError: When the extra ``modelscope`` is missing.
    """
    if find_spec("modelscope_hub") is None:
        raise MissingExtraError(what, "modelscope")


def _open_api() -> Any:
    """Return the package's client, set up by the environment as it is now; its log would repeat the errors that are raised."""
    from modelscope_hub import HubApi, HubConfig

    logging.getLogger("modelscope_hub").setLevel(logging.CRITICAL)  # after the import, which sets another level
    return HubApi(HubConfig())


def download_file(name: str, revision: str, file: str) -> Path:
    """Download a file of a model, unless it is cached, and return its path; arguments and errors as in ``Hub.download_file``."""
    return download_folder(name, revision, (file,)) / file


def cached_file(name: str, revision: str, file: str) -> Path | None:
    """Return the path of a file in the local cache, or None; arguments as in ``Hub.cached_file``."""
    folder = cached_folder(name, revision)
    return folder / file if folder is not None and (folder / file).is_file() else None


@cache
def download_folder(name: str, revision: str, patterns: Sequence[str]) -> Path:
    """Download the files of a model whose hashes differ from those in the cache, once in a process; arguments and errors as in ``Hub.download_folder``."""
    api = _open_api()
    listed = [entry for entry in api.list_repo_files(name, MODEL, revision=revision or None) if not entry.is_dir]
    wanted = [entry for entry in listed if any(fnmatch(entry.path, pattern) for pattern in patterns)]
    for path in (PurePosixPath(entry.path) for entry in wanted):
        if path.is_absolute() or ".." in path.parts or "\\" in str(path):
            raise ModelError(f"it lists the file '{path}', which is outside the folder of the model")
    if not wanted:
        raise ModelError(f"it has no file {' or '.join(patterns)}")
    files = [{"Path": entry.path, "Size": entry.size, "Sha256": entry.sha256} for entry in wanted]
    with redirect_stderr(StringIO()):  # progress bars
        folder = Path(api.download_repo(name, MODEL, revision=revision or None, file_list=files))
    names = {entry.path for entry in listed}
    present = (path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file())
    stale = next((path for path in present if path not in names and any(fnmatch(path, pattern) for pattern in patterns)), None)
    if stale is not None:  # such as the single file of weights that are now in several
        raise ModelError(f"the cache holds '{stale}' of an earlier version of the model; delete {folder}")
    return folder


def cached_folder(name: str, revision: str) -> Path | None:
    """Return the folder of a model in the local cache, or None; arguments as in ``Hub.cached_folder``."""
    if find_spec("modelscope_hub") is None:
        return None
    api = _open_api()
    from modelscope_hub import CacheNotFound

    try:
        return Path(api.download_repo(name, MODEL, revision=revision or None, local_files_only=True))
    except CacheNotFound:
        return None
