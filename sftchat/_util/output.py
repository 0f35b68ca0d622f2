"""Standard output and standard error: text from outside is shown there and commands nothing, and a stream that cannot be written has one meaning.

``guard_streams`` puts a ``Guarded`` stream in the place of each. Three kinds of text go out:

- Messages (``print``, ``click.echo``, warnings, tracebacks, libraries) are written to the guarded stream, which replaces what could command a terminal.
- Renderers that write escape sequences of their own (``sftchat._util.consoles``, prompt_toolkit) sanitise the text they are given and write to ``rendered``.
- Data (replies, rows) is written to ``data_stream``: as it is into a file or a pipe, as a message on a terminal.

Where GitHub runs the program, messages and rendered text hold no workflow command either; ``write_workflow_command`` alone writes one.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from typing import Any, ParamSpec, TextIO, cast

from sftchat.errors import SftchatError
from sftchat.text import printable_lines

P = ParamSpec("P")

USAGE, LOST, INTERRUPTED, READER_LEFT = 2, 3, 130, 141
"""Exit codes: wrong usage, something could not be written, interrupted, and the reader of a pipe left (128 + SIGPIPE, as a shell reports it)."""

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# the runner takes `::` at the start of a line, after blanks too, and `##[` anywhere for a command:
# https://github.com/actions/runner/blob/main/src/Runner.Common/ActionCommand.cs
_WORKFLOW_COMMAND = re.compile(r"(^|[\n\r])([^\S\n\r]*:):|(##)\[")
_CURSOR_UP = "\x1b[A"


class _Over(io.TextIOBase):
    """A text stream that is written to another one; everything but writing is the other's.

    Args:
        below: The other stream; None for one that is closed.
    """

    def __init__(self, below: TextIO | None) -> None:
        super().__init__()
        self._below = below

    def __getattr__(self, name: str) -> Any:
        """Whatever else the stream has, without its buffer: what is written there would pass no guard."""
        if name == "buffer" or name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._below, name)

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Of the stream."""
        return getattr(self._below, "encoding", None) or "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        """How the stream writes what its encoding lacks."""
        return getattr(self._below, "errors", None) or "strict"

    @property
    def _gone(self) -> bool:
        """Whether there is nothing to write to; what a program puts in the place of a stream need not know whether it is closed."""
        return self._below is None or getattr(self._below, "closed", False)

    def writable(self) -> bool:
        """It is written to."""
        return True

    def isatty(self) -> bool:
        """Whether the stream is a terminal."""
        return not self._gone and bool(getattr(self._below, "isatty", bool)())

    def fileno(self) -> int:
        """Descriptor of the stream.

        Raises:
            OSError: It has none.
        """
        if self._below is None:
            raise io.UnsupportedOperation("fileno")
        return self._below.fileno()


class Handle(_Over):
    """A standard stream as the system gave it, written without changes.

    Args:
        raw: The stream; None when it is closed.
        required: A failure to write raises ``SftchatError`` (``BrokenPipeError`` stays what it is); otherwise the text is dropped.

    Attributes:
        lost: Something could not be written; nothing is written any more.
        reader_left: That was because the reader of a pipe left.
    """

    def __init__(self, raw: TextIO | None, *, required: bool) -> None:
        super().__init__(raw)
        self._required = required
        self.lost = False
        self.reader_left = False

    def write(self, text: str) -> int:
        """Write text and return its length.

        Raises:
            SftchatError: The stream is required and cannot be written.
            BrokenPipeError: Its reader left.
        """
        if not isinstance(text, str):
            raise TypeError(f"a text is written, not {type(text).__name__}")
        if text:
            self._attempt(lambda raw: raw.write(text))
        return len(text)

    def write_utf8(self, line: bytes) -> None:
        """Write UTF-8, whatever the encoding of the stream; call ``flush`` before the first line.

        Raises:
            SftchatError: As for ``write``.
            BrokenPipeError: As for ``write``.
        """

        def write(raw: TextIO) -> None:
            if hasattr(raw, "buffer"):
                raw.buffer.write(line)
            else:
                raw.write(line.decode())

        self._attempt(write)

    def flush(self) -> None:
        """Write what is buffered.

        Raises:
            SftchatError: As for ``write``.
            BrokenPipeError: As for ``write``.
        """
        if not self._gone:
            self._attempt(lambda raw: raw.flush())

    def _attempt(self, action: Callable[[TextIO], object]) -> None:
        """Do something with the stream; the first failure decides."""
        if self.lost:
            return
        try:
            if self._below is None or self._gone:
                raise OSError(errno.EBADF, "it is closed")
            action(self._below)
        except BrokenPipeError:
            self._give_up()
            self.reader_left = True
            if self._required:
                raise
        except OSError as error:
            self._give_up()
            if self._required:
                raise SftchatError(f"standard output cannot be written: {(error.strerror or str(error)).lower()}") from error

    def _give_up(self) -> None:
        """Write nothing any more; Python flushes once more at its end, and that must not fail again."""
        self.lost = True
        with suppress(OSError, ValueError):  # a stream in memory has no descriptor
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)


class Rendered(_Over):
    """A standard stream for text whose escape sequences are ours; workflow commands are defused where GitHub runs the program.

    Args:
        handle: Where text goes.
        in_workflow: GitHub reads the stream.

    Attributes:
        handle: The same.
    """

    def __init__(self, handle: Handle, *, in_workflow: bool) -> None:
        super().__init__(cast("TextIO", handle))
        self.handle = handle
        self._in_workflow = in_workflow
        self._line = ""  # how the line began on which the next text goes on, as far as it matters

    def flush(self) -> None:
        """Write what is buffered."""
        self.handle.flush()

    def write(self, text: str) -> int:
        """Write text and return its length."""
        self.handle.write(self._defused(text) if self._in_workflow else text)
        return len(text)

    def _defused(self, text: str) -> str:
        """The text without workflow commands, wherever it was cut into pieces."""
        line = self._line + text
        whole = _WORKFLOW_COMMAND.sub(lambda found: f"{found[0][:-1]}{_REPLACEMENT}", line)
        last = re.split("[\n\r]", whole)[-1]
        self._line = last.lstrip() if last.lstrip() in ("", ":") else "x" + last[len(last.rstrip("#")) :][:2]
        return whole[len(line) - len(text) :]


class Guarded(Rendered):
    """A standard stream through which text from outside commands nothing: every character is shown, or replaced by ``�``.

    Line breaks and tabs stay. A carriage return stays on a line that begins with one, such as a progress bar: it can write over nothing else.
    """

    def __init__(self, handle: Handle, *, in_workflow: bool) -> None:
        super().__init__(handle, in_workflow=in_workflow)
        self.rendered = Rendered(handle, in_workflow=in_workflow)
        self.buffer = _Bytes(self)
        self._begun = ""  # the first character of the line on which the next text goes on

    def write(self, text: str) -> int:
        """Write text, without what could command a terminal, and return its length."""
        if _CURSOR_UP in text and not text.replace(_CURSOR_UP, "").strip("\n") and _by_tqdm():
            self.rendered.write(text)
        else:
            self.rendered.write(self._shown(text))
        return len(text)

    def _shown(self, text: str) -> str:
        """The text with every character replaced that is not only shown."""
        lines = printable_lines(text, kept="\t\r").split("\n")
        for place, line in enumerate(lines):
            begun = line if place else self._begun + line
            if not begun.startswith("\r"):
                lines[place] = line.replace("\r", _REPLACEMENT)
        self._begun = begun[:1]
        return "\n".join(lines)


class _Bytes(io.BufferedIOBase):
    """What a guarded stream has for programs that write bytes: they are taken for UTF-8 and pass the guard.

    Args:
        guard: The stream.
    """

    def __init__(self, guard: Guarded) -> None:
        super().__init__()
        self._guard = guard
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode

    def writable(self) -> bool:
        """It is written to."""
        return True

    def write(self, data: Any) -> int:
        """Write bytes and return how many; a part of a character waits for the rest of it."""
        self._guard.write(self._decode(bytes(data)))
        return len(data)

    def flush(self) -> None:
        """Write what is buffered."""
        if not self.closed:
            self._guard.flush()


def _by_tqdm() -> bool:
    """Whether tqdm called the function that asks: it moves between nested bars by writes of cursor movements alone."""
    return str(sys._getframe(2).f_globals.get("__name__", "")).split(".")[0] == "tqdm"


def guard_streams() -> None:
    """Put a guard before standard output and standard error, where there is none yet."""
    in_workflow = os.environ.get("GITHUB_ACTIONS") == "true"
    if not isinstance(sys.stdout, Guarded):
        sys.stdout = cast("TextIO", Guarded(Handle(sys.stdout, required=True), in_workflow=in_workflow))
    if not isinstance(sys.stderr, Guarded):
        sys.stderr = cast("TextIO", Guarded(Handle(sys.stderr, required=False), in_workflow=in_workflow))


def prepare_process() -> None:
    """Have the streams of this process write any text, occupy closed descriptors and guard the streams; for the start of a program."""
    # a file that is opened later must not become descriptor 1 or 2, where libraries write
    while (occupied := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(occupied, True)
    os.close(occupied)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # half a surrogate pair, or Chinese where the encoding has none, ends no evaluation; ASCII is no choice that anybody makes
            encoding = "utf-8" if codecs.lookup(stream.encoding).name == "ascii" else None
            stream.reconfigure(encoding=encoding, errors="backslashreplace")
    guard_streams()


@contextmanager
def guarded_streams() -> Iterator[tuple[TextIO, TextIO]]:
    """Guard the streams while the block runs, and give standard output and standard error as they are guarded."""
    before = sys.stdout, sys.stderr
    guard_streams()
    try:
        yield sys.stdout, sys.stderr
    finally:
        sys.stdout, sys.stderr = before


def with_guarded_streams(run: Callable[P, int]) -> Callable[P, int]:
    """Have a function that returns an exit code run with guarded streams.

    Whatever it returns, the exit code is 3 where something could not be written to standard output or standard error, and 141 where a reader left;
    wrong usage and an interruption keep theirs.
    """

    @wraps(run)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> int:
        with guarded_streams() as (out, err):
            code = run(*args, **kwargs)
            # not `sys.stdout` and `sys.stderr`: a plugin may have put something else there, or nothing
            try:
                out.flush()
            except BrokenPipeError:
                return READER_LEFT
            except SftchatError as error:
                err.write(f"sftchat: error: {error}\n")
            err.flush()
            streams: tuple[object, object] = (out, err)
            handles = [stream.handle for stream in streams if isinstance(stream, Guarded)]
        if code in (USAGE, INTERRUPTED, READER_LEFT) or not any(handle.lost for handle in handles):
            return code
        return READER_LEFT if any(handle.reader_left for handle in handles) else LOST

    return guarded


def rendered(stream: TextIO) -> TextIO:
    """The same stream for a renderer that sanitises the text it is given and writes escape sequences of its own.

    Args:
        stream: ``sys.stdout``, ``sys.stderr`` or any other.
    """
    return cast("TextIO", stream.rendered) if isinstance(stream, Guarded) else stream


def data_stream() -> TextIO:
    """Standard output for data: replies and rows reach a file or a pipe as they are, and a terminal as messages do."""
    if isinstance(sys.stdout, Guarded):
        return cast("TextIO", sys.stdout if sys.stdout.isatty() else sys.stdout.handle)
    return sys.stdout


def data_handle() -> Handle:
    """Standard output for rows in UTF-8, guarded or not; rows for a terminal are escaped by the caller."""
    return sys.stdout.handle if isinstance(sys.stdout, Guarded) else Handle(sys.stdout, required=True)


def require_stdout() -> None:
    """Refuse a standard output that is closed, before anything is done that costs.

    Raises:
        SftchatError: It is closed.
    """
    stream = sys.stdout.handle if isinstance(sys.stdout, Guarded) else Handle(sys.stdout, required=True)
    stream.write_utf8(b"")


def write_workflow_command(line: str) -> None:
    """Write a line for GitHub to standard error.

    Args:
        line: One command, its parts escaped; see ``sftchat.evaluation.report.github``.
    """
    stream = sys.stderr.handle if isinstance(sys.stderr, Guarded) else sys.stderr
    stream.write(f"{line}\n")
    stream.flush()
