"""One training a folder: the system's lock on the run's folder itself, which ends with its process, however that ends."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from sftchat.errors import SftchatError, UsageError
from sftchat.folders import made_folder
from sftchat.locking import take_lock

LOCKS = Path("/proc/locks")
"""Where Linux lists the locks that are held."""


def refuse_running(run: Path) -> None:
    """Stop when another process is training into a folder.

    Raises:
        UsageError: Naming the process where the system says which it is.
    """
    with suppress(OSError):
        folder = os.open(run, os.O_RDONLY)
        try:
            if not take_lock(folder):
                raise _running(run, folder)
        finally:
            os.close(folder)


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Hold the lock of a run while the block runs.

    The folder is made when it is missing, and removed when nothing was put into it; so are those above it. No file is written for the lock, so
    that a killed training leaves none behind. Where the system has no locks for folders, as on NFS, nothing is refused.

    Raises:
        UsageError: When another process holds it.
        SftchatError: When the folder of the run cannot be made.
    """
    real = Path(os.path.realpath(run))
    with ExitStack() as stack:
        try:
            stack.enter_context(made_folder(real))
            folder = _opened(real)
        except OSError as error:
            raise SftchatError(f"output folder '{run}' cannot be written: {(error.strerror or str(error)).lower()}") from error
        if folder is not None:
            stack.callback(os.close, folder)
            if not take_lock(folder):
                raise _running(run, folder)
        yield


def _opened(folder: Path) -> int | None:
    """The folder opened, made again where another process has removed it meanwhile; None on Windows, which opens no folders."""
    if os.name == "nt":
        return None
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        opened = os.open(folder, os.O_RDONLY)
        if not take_lock(opened):
            return opened  # held by another
        with suppress(OSError):
            if os.path.samestat(os.fstat(opened), folder.stat()):
                return opened
        os.close(opened)


def _running(run: Path, folder: int) -> UsageError:
    """The error for a folder that another process is training into."""
    return UsageError(f"{_holder(folder)} is training into '{run}'; wait for it, or give another -o")


def _holder(folder: int) -> str:
    """The process that holds the lock of an open folder, as far as the system says."""
    facts = os.fstat(folder)
    place = f"{os.major(facts.st_dev):02x}:{os.minor(facts.st_dev):02x}:{facts.st_ino}"
    with suppress(OSError):
        for line in LOCKS.read_text(encoding="utf-8").splitlines():
            words = line.split()  # "28: FLOCK ADVISORY WRITE 21811 fe:00:2663578 0 EOF"
            if len(words) > 5 and words[1] == "FLOCK" and words[5] == place and words[4] > "0":
                return f"process {words[4]}"
    return "another process"
