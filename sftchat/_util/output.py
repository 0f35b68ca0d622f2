"""Standard output and standard error: untrusted text is displayed literally, and write errors are handled in one place.

``guard_streams`` replaces each by a ``Guarded`` stream. There are three kinds of output:

- Messages (``print``, ``click.echo``, warnings, tracebacks, libraries) go to the guarded stream, which replaces control characters.
- Renderers with escape sequences of their own (``sftchat._util.consoles``, prompt_toolkit) sanitize their text and write to ``for_renderer``.
- Data (replies, rows) goes to ``data_stream``: unchanged to a file or a pipe, like a message to a terminal.

On GitHub Actions, messages and rendered text contain no workflow commands; only ``write_workflow_command`` writes them.
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

from sftchat.errors import SftchatError, os_reason
from sftchat.text import sanitize_lines

P = ParamSpec("P")

USAGE, LOST, INTERRUPTED, READER_LEFT = 2, 3, 130, 141
"""Exit codes: usage error, write error, interrupted, and closed pipe (128 + SIGPIPE, as a shell reports it)."""

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# the runner interprets `::` at the start of a line, also after blanks, and `##[` anywhere as a command:
# https://github.com/actions/runner/blob/main/src/Runner.Common/ActionCommand.cs
_WORKFLOW_COMMAND = re.compile(r"(^|[\n\r])([^\S\n\r]*:):|(##)\[")
_CURSOR_UP = "\x1b[A"


class _Over(io.TextIOBase):
    """A text stream that writes to another one and delegates everything else.

    Args:
        below: The other stream; None if it is closed.
    """

    def __init__(self, below: TextIO | None) -> None:
        super().__init__()
        self._below = below

    def __getattr__(self, name: str) -> Any:
        """Other attributes of the stream, except its buffer, which would bypass the guard."""
        if name == "buffer" or name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._below, name)

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Encoding of the stream."""
        return getattr(self._below, "encoding", None) or "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        """Error handler of the stream's encoding."""
        return getattr(self._below, "errors", None) or "strict"

    @property
    def _gone(self) -> bool:
        """Whether the stream is closed; replacements of streams may lack the attribute ``closed``."""
        return self._below is None or getattr(self._below, "closed", False)

    def writable(self) -> bool:
        """Return True."""
        return True

    def isatty(self) -> bool:
        """Whether the stream is a terminal."""
        return not self._gone and bool(getattr(self._below, "isatty", bool)())

    def fileno(self) -> int:
        """Return the file descriptor of the stream.

        Raises:
            OSError: When it has none.
        """
        if self._below is None:
            raise io.UnsupportedOperation("fileno")
        return self._below.fileno()


class Handle(_Over):
    """A standard stream of the process, written without changes.

    Args:
        raw: The stream; None if it is closed.
        required: Whether a write error raises ``SftchatError`` (``BrokenPipeError`` is passed on); otherwise the text is dropped.

    Attributes:
        lost: Whether a write has failed; nothing is written afterwards.
        reader_left: Whether it failed because the reader of a pipe closed it.
    """

    def __init__(self, raw: TextIO | None, *, required: bool) -> None:
        super().__init__(raw)
        self._required = required
        self.lost = False
        self.reader_left = False

    def write(self, text: str) -> int:
        """Write text and return its length.

        Raises:
            SftchatError: When the stream is required and cannot be written.
            BrokenPipeError: When the reader of a pipe closed it.
        """
        if not isinstance(text, str):
            raise TypeError(f"a text is written, not {type(text).__name__}")
        if text:
            self._attempt(lambda raw: raw.write(text))
        return len(text)

    def write_utf8(self, line: bytes) -> None:
        """Write UTF-8 regardless of the encoding of the stream; call ``flush`` before the first line.

        Raises:
            SftchatError: See ``write``.
            BrokenPipeError: See ``write``.
        """

        def write(raw: TextIO) -> None:
            if hasattr(raw, "buffer"):
                raw.buffer.write(line)
            else:
                raw.write(line.decode())

        self._attempt(write)

    def flush(self) -> None:
        """Flush the stream.

        Raises:
            SftchatError: See ``write``.
            BrokenPipeError: See ``write``.
        """
        if not self._gone:
            self._attempt(lambda raw: raw.flush())

    def _attempt(self, action: Callable[[TextIO], object]) -> None:
        """Run an action on the stream and record the first failure."""
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
                raise SftchatError(f"standard output cannot be written: {os_reason(error)}") from error

    def _give_up(self) -> None:
        """Stop writing; Python flushes the stream again at exit, which must not fail again."""
        self.lost = True
        with suppress(OSError, ValueError):  # a stream in memory has no file descriptor
            devnull = os.open(os.devnull, os.O_WRONLY)
            os.dup2(devnull, self.fileno())
            os.close(devnull)


class Rendered(_Over):
    """A standard stream for text with our own escape sequences; workflow commands are neutralized on GitHub Actions.

    Args:
        handle: The underlying stream.
        in_workflow: Whether GitHub Actions reads the stream.

    Attributes:
        handle: The underlying stream.
    """

    def __init__(self, handle: Handle, *, in_workflow: bool) -> None:
        super().__init__(cast("TextIO", handle))
        self.handle = handle
        self._in_workflow = in_workflow
        self._line = ""  # relevant part of the current line's start

    def flush(self) -> None:
        """Flush the stream."""
        self.handle.flush()

    def write(self, text: str) -> int:
        """Write text and return its length."""
        self.handle.write(self._neutralize(text) if self._in_workflow else text)
        return len(text)

    def _neutralize(self, text: str) -> str:
        """Neutralize workflow commands, including those split over several writes."""
        line = self._line + text
        neutralized = _WORKFLOW_COMMAND.sub(lambda match: f"{match[0][:-1]}{_REPLACEMENT}", line)
        last_line = re.split("[\n\r]", neutralized)[-1]
        self._line = last_line.lstrip() if last_line.lstrip() in ("", ":") else "x" + last_line[len(last_line.rstrip("#")) :][:2]
        return neutralized[len(line) - len(text) :]


class Guarded(Rendered):
    """A standard stream that displays untrusted text literally: control characters are replaced by ``�``.

    Line breaks and tabs are kept. So is a carriage return on a line that begins with one, such as a progress bar: it can overwrite nothing else.
    """

    def __init__(self, handle: Handle, *, in_workflow: bool) -> None:
        super().__init__(handle, in_workflow=in_workflow)
        self.rendered = Rendered(handle, in_workflow=in_workflow)
        self.buffer = _Bytes(self)
        self._line_start = ""  # first character of the current line

    def write(self, text: str) -> int:
        """Write text with control characters replaced, and return its length."""
        if _CURSOR_UP in text and not text.replace(_CURSOR_UP, "").strip("\n") and _by_tqdm():
            self.rendered.write(text)
        else:
            self.rendered.write(self._replace_controls(text))
        return len(text)

    def _replace_controls(self, text: str) -> str:
        """Replace control characters."""
        lines = sanitize_lines(text, allowed="\t\r").split("\n")
        for place, line in enumerate(lines):
            line_start = line if place else self._line_start + line
            if not line_start.startswith("\r"):
                lines[place] = line.replace("\r", _REPLACEMENT)
        self._line_start = line_start[:1]
        return "\n".join(lines)


class _Bytes(io.BufferedIOBase):
    """Byte buffer of a guarded stream: bytes are decoded as UTF-8 and pass the guard.

    Args:
        guard: The stream.
    """

    def __init__(self, guard: Guarded) -> None:
        super().__init__()
        self._guard = guard
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, data: Any) -> int:
        """Write bytes and return their number; an incomplete character is held back."""
        self._guard.write(self._decode(bytes(data)))
        return len(data)

    def flush(self) -> None:
        """Flush the stream."""
        if not self.closed:
            self._guard.flush()


def _by_tqdm() -> bool:
    """Whether the caller of the calling function is tqdm, which moves between nested bars by writing only cursor movements."""
    return str(sys._getframe(2).f_globals.get("__name__", "")).split(".")[0] == "tqdm"


def guard_streams() -> None:
    """Guard standard output and standard error, unless they are guarded."""
    in_workflow = os.environ.get("GITHUB_ACTIONS") == "true"
    if not isinstance(sys.stdout, Guarded):
        sys.stdout = cast("TextIO", Guarded(Handle(sys.stdout, required=True), in_workflow=in_workflow))
    if not isinstance(sys.stderr, Guarded):
        sys.stderr = cast("TextIO", Guarded(Handle(sys.stderr, required=False), in_workflow=in_workflow))


def prepare_process() -> None:
    """Make the standard streams accept any text, open closed descriptors and guard the streams; for the start of a program."""
    # a file opened later must not get descriptor 1 or 2, to which libraries write
    while (occupied := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(occupied, True)
    os.close(occupied)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # unencodable text, such as a lone surrogate, must not abort an evaluation; ASCII is a default and not a choice
            encoding = "utf-8" if codecs.lookup(stream.encoding).name == "ascii" else None
            stream.reconfigure(encoding=encoding, errors="backslashreplace")
    guard_streams()


@contextmanager
def guarded_streams() -> Iterator[tuple[TextIO, TextIO]]:
    """Guard the streams within the block, and yield the guarded standard output and standard error."""
    previous = sys.stdout, sys.stderr
    guard_streams()
    try:
        yield sys.stdout, sys.stderr
    finally:
        sys.stdout, sys.stderr = previous


def with_guarded_streams(run: Callable[P, int]) -> Callable[P, int]:
    """Decorate a function that returns an exit code to run with guarded streams.

    The exit code becomes 3 after a write error on standard output or standard error, and 141 after a closed pipe; those of usage errors and
    interruptions are kept.
    """

    @wraps(run)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> int:
        with guarded_streams() as (out, err):
            code = run(*args, **kwargs)
            # not `sys.stdout` and `sys.stderr`: a plugin may have replaced or removed them
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


def for_renderer(stream: TextIO) -> TextIO:
    """Return a stream that passes escape sequences on, for a renderer such as rich that sanitizes its text itself.

    Args:
        stream: ``sys.stdout``, ``sys.stderr`` or another stream.
    """
    return cast("TextIO", stream.rendered) if isinstance(stream, Guarded) else stream


def data_stream() -> TextIO:
    """Return standard output for data: unchanged to a file or a pipe, like messages to a terminal."""
    if isinstance(sys.stdout, Guarded):
        return cast("TextIO", sys.stdout if sys.stdout.isatty() else sys.stdout.handle)
    return sys.stdout


def data_handle() -> Handle:
    """Return standard output for rows in UTF-8, guarded or not; the caller escapes rows for a terminal."""
    return sys.stdout.handle if isinstance(sys.stdout, Guarded) else Handle(sys.stdout, required=True)


def require_stdout() -> None:
    """Check that standard output is open, before any expensive work.

    Raises:
        SftchatError: When it is closed.
    """
    stream = sys.stdout.handle if isinstance(sys.stdout, Guarded) else Handle(sys.stdout, required=True)
    stream.write_utf8(b"")  # raises when the stream is closed


def write_workflow_command(line: str) -> None:
    """Write a GitHub Actions workflow command to standard error.

    Args:
        line: One command with escaped parts; see ``sftchat.evaluation.report.github``.
    """
    stream = sys.stderr.handle if isinstance(sys.stderr, Guarded) else sys.stderr
    stream.write(f"{line}\n")
    stream.flush()
