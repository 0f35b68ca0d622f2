"""The type of a fuzz target, and what must hold for any bytes."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from hypothesis import strategies as st

from sftchat.errors import SftchatError

SECONDS = 10
"""Time limit in seconds for an input of some hundred bytes."""


class TooSlow(BaseException):
    """Raised when a target exceeds its time; a BaseException, so that no ``except Exception`` hides it."""


class Room:
    """An empty folder for the files of a target.

    Attributes:
        folder: Where it is.
        given: The content that each file must still have after the target.
    """

    def __init__(self) -> None:
        memory = "/dev/shm" if Path("/dev/shm").is_dir() else None  # SQLite waits for the disk
        self.folder = Path(tempfile.mkdtemp(prefix="sftchat-fuzz-", dir=memory))
        self.given: dict[str, bytes] = {}

    def file(self, content: bytes, name: str = "file.jsonl") -> Path:
        """A file that no target may change."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        self.given[name] = content
        return path

    def scratch(self, name: str) -> Path:
        """Write a file that the target may change, such as a database, and return its path."""
        return self.folder / "scratch" / name

    def clear(self) -> None:
        """Compare the files with their expected contents, and empty the folder."""
        try:
            found = {path.relative_to(self.folder).as_posix(): path for path in self.folder.rglob("*") if path.is_file()}
            kept = {name: path.read_bytes() for name, path in found.items() if not name.startswith("scratch/")}
            assert kept == self.given, "files changed"
        finally:
            self.given = {}
            for entry in self.folder.iterdir():
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


@dataclass(frozen=True)
class Target:
    """A function that reads outside data.

    Attributes:
        run: Called with the bytes and a room; raises ``SftchatError`` to refuse them; any other exception is a bug.
        inputs: Hypothesis strategy of its inputs.
        tokens: Words that coverage-guided fuzzing puts together.
    """

    run: Callable[[bytes, Room], object]
    inputs: st.SearchStrategy[bytes]
    tokens: tuple[str, ...] = field(default=())


ROOM: list[Room] = []
"""Created on first use."""


def attempt(target: Target, content: bytes, seconds: int = SECONDS) -> str:
    """Run a target on bytes; returns its message when it refuses them, else an empty text.

    Args:
        target: The target.
        content: The bytes.
        seconds: Time limit after which ``TooSlow`` is raised; 0 for none.
    """
    if not ROOM:
        ROOM.append(Room())
    (room,) = ROOM
    before = Path.cwd()
    os.chdir(room.folder)
    try:
        with _ending_within(seconds):
            target.run(content, room)
    except SftchatError as error:
        said = " ".join(str(error).split())
        assert said, "an error without words"
        return said
    finally:
        os.chdir(before)
        room.clear()
    return ""


@contextmanager
def _ending_within(seconds: int) -> Iterator[None]:
    """Stop a block that takes longer."""

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise TooSlow(f"not over after {seconds} s")

    if not seconds:
        yield
        return
    former = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, former)


@contextmanager
def refused() -> Iterator[None]:
    """Suppress a named error."""
    with suppress(SftchatError):
        yield


def text_of(content: bytes) -> str:
    """Decode bytes; halves of surrogate pairs are kept, because models may write them."""
    try:
        return content.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return content.decode("utf-8", "replace")
