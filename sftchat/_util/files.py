"""Output files and folders: checked before slow work, written atomically, locked against other processes."""

from __future__ import annotations

import glob
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, BinaryIO

from sftchat._util.output import require_stdout
from sftchat._util.parsing import expand_user
from sftchat.errors import SftchatError, UsageError, os_reason

CACHE_VARIABLE = "SFTCHAT_CACHE_DIR"
"""Environment variable with the folder for cached replies and fetched models."""


def cache_folder() -> Path:
    """Return the folder for cached replies and fetched models: ``$SFTCHAT_CACHE_DIR``, else the user's cache folder; it may not exist."""
    if folder := os.environ.get(CACHE_VARIABLE):
        return expand_user(folder)
    from platformdirs import user_cache_path

    return user_cache_path("sftchat", appauthor=False)


def check_output_file(path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Check that a path can be written to, before any work is done.

    Args:
        path: The file; ``-`` is standard output.
        overwrite: Allow an existing file.

    Raises:
        UsageError: When the file exists, is a folder, or its folder does not exist.
        SftchatError: When standard output is closed.
    """
    if os.fspath(path) == "-":
        require_stdout()
        return
    target = Path(path)
    try:
        if target.is_dir():
            raise UsageError(f"output '{path}' is a folder; give a file, such as '{target / 'rows.jsonl'}'")
        if target.is_file() and not overwrite:
            raise UsageError(f"output '{path}' exists; give --overwrite to replace it, or another name")
        if not target.parent.is_dir():
            raise UsageError(f"output '{path}' is in a folder that does not exist; make it: mkdir -p '{target.parent}'")
    except OSError as error:  # a name that is too long, or a folder without permission
        raise UsageError(f"output '{path}' cannot be written: {os_reason(error)}") from None


def check_output_folder(folder: Path, *, must_be_new: bool = False) -> None:
    """Check that a folder can be created, or written to if it exists, before any work is done.

    Args:
        folder: The folder; its parents may be missing.
        must_be_new: Refuse an existing folder.

    Raises:
        UsageError: When it exists (with ``must_be_new``), is a file or a broken link, has a file as a parent, or is not writable.
    """
    if must_be_new and (folder.exists() or folder.is_symlink()):
        raise UsageError(f"output folder '{folder}' exists already; give another -o")
    if folder.is_symlink() and not folder.exists():
        raise UsageError(f"output '{folder}' is a link that leads nowhere; make the folder that it names, or give another -o")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"output '{folder}' is a file; give a folder")
    parent = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not parent.is_dir():
        raise UsageError(f"output folder '{folder}' cannot be made: '{parent}' is a file")
    if not os.access(parent, os.W_OK):
        raise UsageError(f"output folder '{folder}' cannot be made: '{parent}' is not writable")


def write_error(path: str | os.PathLike[str], error: OSError) -> SftchatError:
    """Return the error for a file that cannot be written."""
    return SftchatError(f"{os.fspath(path)}: cannot be written: {os_reason(error)}")


def write_atomically(path: Path, text: str | Iterable[str], errors: str = "backslashreplace") -> None:
    """Write a text file atomically: readers never see an incomplete file, and a full disk leaves none.

    Args:
        path: The file.
        text: Its content, as one string or in pieces.
        errors: Error handler for lone surrogates, as of ``str.encode``.

    Raises:
        OSError: When writing fails.
    """
    parts = (text,) if isinstance(text, str) else text
    with atomic_file(path) as stream:  # bytes, for the same line breaks on every platform
        stream.writelines(part.encode("utf-8", errors) for part in parts)


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Yield a temporary file that replaces ``path`` when the block succeeds and is removed when it fails.

    First removes temporary files that killed processes left. If ``path`` is a symbolic link, its target is replaced. A pipe or device such as
    ``/dev/null`` is written to directly.

    Raises:
        OSError: When writing fails.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        with target.open("wb") as stream:
            yield stream
        return
    _remove_abandoned(target)
    temporary_file = target.with_name(f".{target.name}.{os.getpid()}.part")
    while (locked_file := open_locked(temporary_file)) is None:
        time.sleep(0.01)  # another process tests in `_remove_abandoned` whether the file is locked, and unlocks it at once
    try:
        with locked_file as stream:
            stream.truncate()
            yield stream
            stream.flush()
            if os.name != "nt":  # while the lock is held, so that no other process removes it as abandoned
                temporary_file.replace(target)
        if os.name == "nt":  # Windows cannot move an open file
            temporary_file.replace(target)
    finally:
        with suppress(OSError):
            temporary_file.unlink()


def _remove_abandoned(target: Path) -> None:
    """Remove temporary files of killed processes: those that no process has locked."""
    for path in target.parent.glob(f".{glob.escape(target.name)}.*.part"):
        if path.name.removeprefix(f".{target.name}.").removesuffix(".part").isdecimal() and path.is_file():
            with suppress(OSError), path.open("rb") as file:
                if try_lock(file):
                    path.unlink()


@contextmanager
def create_folder(folder: Path, *, remove_if_empty: bool = False) -> Iterator[None]:
    """Create a folder and its parents; after the block remove those of them that are empty, so that a failure leaves nothing behind.

    Args:
        folder: The folder; if it exists, it is kept.
        remove_if_empty: Whether to remove an empty folder that existed before, too.

    Raises:
        OSError: When a folder cannot be created.
    """
    to_remove = [path for path in (folder, *folder.parents) if not path.exists()] or ([folder] if remove_if_empty else [])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        for path in to_remove:
            with suppress(OSError):  # not empty
                path.rmdir()


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty temporary folder; it is renamed to ``folder`` if the block succeeds, and removed otherwise.

    First removes the temporary folder that a killed process left.

    Raises:
        OSError: When a folder cannot be created or renamed.
    """
    temporary_folder = folder.with_name(f".{folder.name}.partial")
    with create_folder(folder.parent):
        shutil.rmtree(temporary_folder, ignore_errors=True)
        temporary_folder.mkdir()
        try:
            yield temporary_folder
            temporary_folder.rename(folder)
        finally:
            shutil.rmtree(temporary_folder, ignore_errors=True)


def try_lock(file: IO[Any] | int) -> bool:
    """Lock a file until it is closed; return False if another process holds the lock. Without support for locks, as on Windows, return True."""
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def open_locked(path: Path) -> BinaryIO | None:
    """Open a file for reading and appending, creating it if missing, and lock it; return None if another process holds the lock.

    Raises:
        OSError: When it cannot be opened.
    """
    while True:
        file = path.open("a+b")
        if not try_lock(file):
            file.close()
            return None
        with suppress(OSError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()  # the previous holder of the lock deleted or moved the file before this lock was taken; try the new file
