"""Standard output and standard error: untrusted text is displayed literally, and write errors are handled in one place.

``guard_streams`` replaces both by a ``GuardedStream``. There are three kinds of output:

- Messages (``print``, ``click.echo``, warnings, tracebacks, libraries) go to the guarded stream, which replaces control characters.
- Renderers that emit escape sequences (``sftchat._util.consoles``, prompt_toolkit) sanitize their text and write to ``for_renderer``.
- Data (replies, rows) goes to ``data_stream``: a file or a pipe gets it unchanged, a terminal like a message.

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

EXIT_USAGE, EXIT_WRITE_FAILED, EXIT_INTERRUPTED, EXIT_PIPE_CLOSED = 2, 3, 130, 141
"""Exit codes: usage error, write error, interrupted, and closed pipe (128 + SIGPIPE, as a shell reports it)."""

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# matches the start of a workflow command: `::` at the start of a line, also after blanks, and `##[` anywhere, see
# https://github.com/actions/runner/blob/main/src/Runner.Common/ActionCommand.cs
_WORKFLOW_COMMAND = re.compile(r"(^|[\n\r])([^\S\n\r]*:):|(##)\[")
_CURSOR_UP = "\x1b[A"


class _StreamWrapper(io.TextIOBase):
    """A text stream that delegates to another one; None stands for a closed stream."""

    def __init__(self, stream: TextIO | None) -> None:
        super().__init__()
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        """Return any other attribute of the stream, except its buffer, which would bypass the guard."""
        if name == "buffer" or name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._stream, name)

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return getattr(self._stream, "encoding", None) or "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        return getattr(self._stream, "errors", None) or "strict"

    @property
    def _is_closed(self) -> bool:
        """Whether the stream is closed; an object that replaces ``sys.stdout`` may lack the attribute ``closed``."""
        return self._stream is None or getattr(self._stream, "closed", False)

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return not self._is_closed and bool(getattr(self._stream, "isatty", bool)())

    def fileno(self) -> int:
        if self._stream is None:
            raise io.UnsupportedOperation("fileno")
        return self._stream.fileno()


class RawStream(_StreamWrapper):
    """A standard stream of the process, written without changes.

    Args:
        stream: The stream; None if it is closed.
        required: Whether a write error raises ``SftchatError`` or, for a closed pipe, ``BrokenPipeError``; otherwise it is ignored.

    Attributes:
        failed: Whether a write has failed; nothing is written afterwards.
        pipe_closed: Whether it failed because the reader of a pipe closed it.
    """

    def __init__(self, stream: TextIO | None, *, required: bool) -> None:
        super().__init__(stream)
        self._required = required
        self.failed = False
        self.pipe_closed = False

    def write(self, text: str) -> int:
        """Write text and return its length.

        Raises:
            SftchatError: When the stream is required and cannot be written.
            BrokenPipeError: When the reader of a pipe closed it.
        """
        if not isinstance(text, str):
            raise TypeError(f"a text is written, not {type(text).__name__}")
        if text:
            self._attempt(lambda stream: stream.write(text))
        return len(text)

    def write_utf8(self, line: bytes) -> None:
        """Write UTF-8 regardless of the encoding of the stream; call ``flush`` before the first line. Raises the errors of ``write``."""

        def write(stream: TextIO) -> None:
            if hasattr(stream, "buffer"):
                stream.buffer.write(line)
            else:
                stream.write(line.decode())

        self._attempt(write)

    def flush(self) -> None:
        """Flush the stream; raises the errors of ``write``."""
        if not self._is_closed:
            self._attempt(lambda stream: stream.flush())

    def _attempt(self, write_or_flush: Callable[[TextIO], object]) -> None:
        """Write or flush, and record a failure; does nothing after the first one."""
        if self.failed:
            return
        try:
            if self._stream is None or self._is_closed:
                raise OSError(errno.EBADF, "it is closed")
            write_or_flush(self._stream)
        except BrokenPipeError:
            self._stop_writing()
            self.pipe_closed = True
            if self._required:
                raise
        except OSError as error:
            self._stop_writing()
            if self._required:
                raise SftchatError(f"standard output cannot be written: {os_reason(error)}") from error

    def _stop_writing(self) -> None:
        """Redirect the stream to the null device: Python flushes it again at exit, which must not fail again."""
        self.failed = True
        with suppress(OSError, ValueError):  # a stream in memory has no file descriptor
            devnull = os.open(os.devnull, os.O_WRONLY)
            os.dup2(devnull, self.fileno())
            os.close(devnull)


class WorkflowSafeStream(_StreamWrapper):
    """A standard stream that passes escape sequences on, and neutralizes workflow commands on GitHub Actions.

    Args:
        raw: The underlying stream.
        in_workflow: Whether GitHub Actions reads the stream.

    Attributes:
        raw: The underlying stream.
    """

    def __init__(self, raw: RawStream, *, in_workflow: bool) -> None:
        super().__init__(cast("TextIO", raw))
        self.raw = raw
        self._in_workflow = in_workflow
        self._line_start = ""  # as much of the current line as may become a workflow command with the next text

    def flush(self) -> None:
        """Flush the stream."""
        self.raw.flush()

    def write(self, text: str) -> int:
        """Write text and return its length."""
        self.raw.write(self._neutralize(text) if self._in_workflow else text)
        return len(text)

    def _neutralize(self, text: str) -> str:
        """Replace the last character of ``::`` and ``##[`` by ``�``, also when it comes in a later write than the others."""
        line = self._line_start + text
        neutralized = _WORKFLOW_COMMAND.sub(lambda match: f"{match[0][:-1]}{_REPLACEMENT}", line)
        last_line = re.split("[\n\r]", neutralized)[-1]
        if last_line.lstrip() in ("", ":"):
            self._line_start = last_line.lstrip()
        else:  # only `#` at its end may still become a command; `x` stands for the text before it
            self._line_start = "x" + last_line[len(last_line.rstrip("#")) :][:2]
        return neutralized[len(line) - len(text) :]  # as long as `line`; without what earlier calls returned


class GuardedStream(WorkflowSafeStream):
    """A standard stream that displays untrusted text literally: control characters are replaced by ``�``.

    Line breaks and tabs are kept. A carriage return is kept on a line that begins with one, such as a progress bar, because it overwrites only this
    line.
    """

    def __init__(self, raw: RawStream, *, in_workflow: bool) -> None:
        super().__init__(raw, in_workflow=in_workflow)
        self.workflow_safe = WorkflowSafeStream(raw, in_workflow=in_workflow)
        self.buffer = _GuardedBytes(self)
        self._first_character = ""  # first character of the current line

    def write(self, text: str) -> int:
        """Write text with control characters replaced, and return its length."""
        only_cursor_moves = _CURSOR_UP in text and not text.replace(_CURSOR_UP, "").strip("\n")
        allowed = only_cursor_moves and _called_by_tqdm()
        self.workflow_safe.write(text if allowed else self._replace_controls(text))
        return len(text)

    def _replace_controls(self, text: str) -> str:
        lines = sanitize_lines(text, allowed="\t\r").split("\n")
        for index, line in enumerate(lines):
            line_start = line if index else self._first_character + line
            if not line_start.startswith("\r"):
                lines[index] = line.replace("\r", _REPLACEMENT)
        self._first_character = line_start[:1]
        return "\n".join(lines)


class _GuardedBytes(io.BufferedIOBase):
    """Byte buffer of a guarded stream: bytes are decoded as UTF-8 and written to the stream."""

    def __init__(self, guard: GuardedStream) -> None:
        super().__init__()
        self._guard = guard
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        """Write bytes and return their number; an incomplete character is held back."""
        self._guard.write(self._decode(bytes(data)))
        return len(data)

    def flush(self) -> None:
        """Flush the stream."""
        if not self.closed:
            self._guard.flush()


def _called_by_tqdm() -> bool:
    """Return whether tqdm called ``GuardedStream.write``; it moves between nested bars by writing only cursor movements."""
    caller_of_write = sys._getframe(2)  # 0 is this function, 1 is `write`
    return str(caller_of_write.f_globals.get("__name__", "")).split(".")[0] == "tqdm"


def guard_streams() -> None:
    """Guard standard output and standard error, unless they are guarded."""
    in_workflow = os.environ.get("GITHUB_ACTIONS") == "true"
    if not isinstance(sys.stdout, GuardedStream):
        sys.stdout = cast("TextIO", GuardedStream(RawStream(sys.stdout, required=True), in_workflow=in_workflow))
    if not isinstance(sys.stderr, GuardedStream):
        sys.stderr = cast("TextIO", GuardedStream(RawStream(sys.stderr, required=False), in_workflow=in_workflow))


def prepare_process() -> None:
    """Prepare the standard streams when a program starts: reopen closed ones, make them accept any text, and guard them."""
    # open the closed ones of descriptors 0 to 2 on the null device: libraries write to 1 and 2, which must not be a file opened later
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # text that cannot be encoded, such as a lone surrogate, must not abort an evaluation; ASCII means that no encoding is configured
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

    After a write error on either stream the exit code becomes 3, after a closed pipe 141, unless it is that of a usage error or an interruption.
    """

    @wraps(run)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> int:
        with guarded_streams() as (out, err):
            code = run(*args, **kwargs)
            try:  # not `sys.stdout` and `sys.stderr`, which a plugin may have replaced or removed
                out.flush()
            except BrokenPipeError:
                return EXIT_PIPE_CLOSED
            except SftchatError as error:
                err.write(f"sftchat: error: {error}\n")
            err.flush()
            streams: tuple[object, ...] = (out, err)
            raw_streams = [stream.raw for stream in streams if isinstance(stream, GuardedStream)]
        if code in (EXIT_USAGE, EXIT_INTERRUPTED, EXIT_PIPE_CLOSED) or not any(raw_stream.failed for raw_stream in raw_streams):
            return code
        return EXIT_PIPE_CLOSED if any(raw_stream.pipe_closed for raw_stream in raw_streams) else EXIT_WRITE_FAILED

    return guarded


def for_renderer(stream: TextIO) -> TextIO:
    """Return a stream that passes escape sequences on, for a renderer such as rich that sanitizes its text.

    Args:
        stream: ``sys.stdout``, ``sys.stderr`` or another stream.
    """
    return cast("TextIO", stream.workflow_safe) if isinstance(stream, GuardedStream) else stream


def data_stream() -> TextIO:
    """Return standard output for data: a file or a pipe gets it unchanged, a terminal like a message."""
    if isinstance(sys.stdout, GuardedStream):
        return cast("TextIO", sys.stdout if sys.stdout.isatty() else sys.stdout.raw)
    return sys.stdout


def raw_stdout() -> RawStream:
    """Return standard output without sanitizing, for rows in UTF-8; the caller escapes rows for a terminal."""
    return sys.stdout.raw if isinstance(sys.stdout, GuardedStream) else RawStream(sys.stdout, required=True)


def require_stdout() -> None:
    """Check that standard output is open, before any expensive work.

    Raises:
        SftchatError: When it is closed.
    """
    raw_stdout().write_utf8(b"")  # raises when the stream is closed


def write_workflow_command(line: str) -> None:
    """Write a GitHub Actions workflow command to standard error.

    Args:
        line: One command with escaped parts; see ``sftchat.evaluation.report.github``.
    """
    stream = sys.stderr.raw if isinstance(sys.stderr, GuardedStream) else sys.stderr
    stream.write(f"{line}\n")
    stream.flush()
