"""One training a folder: a lock beside the run that goes with its process, however that ends."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from sftchat.errors import SftchatError, UsageError
from sftchat.locking import take_lock


def lock_of(run: Path) -> Path:
    """The lock of a run: a hidden file beside its folder, the same for every link that leads there."""
    real = Path(os.path.realpath(run))
    return real.with_name(f".{real.name}.lock")


def refuse_running(run: Path) -> None:
    """Stop when another process is training into a folder.

    Raises:
        UsageError: Naming the process and its machine.
    """
    with suppress(OSError), lock_of(run).open("r", encoding="utf-8") as file:
        if not take_lock(file):
            raise UsageError(f"{_who(file)} is training into '{run}'; wait for it, or give another -o")


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Hold the lock of a run while the block runs.

    The lock is the system's, which ends with the process, so that a killed training blocks nobody; what the file says is for people. Folders that were
    made for it go again when nothing else was put there.

    Raises:
        UsageError: When another process holds it.
        SftchatError: When the folder of the run cannot be written to.
    """
    path = lock_of(run)
    made = [parent for parent in path.parents if not parent.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _open(path)
    except OSError as error:
        raise SftchatError(f"output folder '{run}' cannot be written: {(error.strerror or str(error)).lower()}") from error
    try:
        if not take_lock(file):
            raise UsageError(f"{_who(file)} is training into '{run}'; wait for it, or give another -o")
        try:
            with suppress(OSError):  # a full disk: the lock holds without its words
                file.truncate(0)
                file.write(f"process {os.getpid()} on {socket.gethostname()}")
                file.flush()
            yield
        finally:
            with suppress(OSError):
                path.unlink()
    finally:
        with suppress(OSError):
            file.close()
        for parent in made:
            with suppress(OSError):  # it holds the run
                parent.rmdir()


def _open(path: Path) -> IO[str]:
    """The lock file, made where there is none, and opened anew when whoever held it has deleted it meanwhile."""
    while True:
        file = path.open("a+", encoding="utf-8")
        if not take_lock(file):
            return file  # held by another
        with suppress(OSError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()


def _who(file: IO[str]) -> str:
    """Who holds a lock, as the file says."""
    file.seek(0)
    return file.read(200).strip() or "another process"
