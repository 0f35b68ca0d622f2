"""Errors that sftchat raises deliberately, with their exit codes.

    SftchatError                 3  the operation failed
    ├── UsageError               2  unknown name, contradictory options, an output folder that is taken
    ├── DataError                2  a file of rows that is missing, empty or malformed; names file and line
    ├── ModelError               3  a model that cannot be found or loaded
    ├── MissingExtraError        3  a missing package that an extra of sftchat installs
    ├── PluginError              3  a plugin that breaks its contract; ``sftchat._util.plugin_calls`` converts exceptions of plugins to it
    ├── EngineError              3  a model or a server that failed while generating
    └── NotComparableError       4  two results that measured different things

Messages are one line in lower case: the problem, the value, what is allowed, what to type. Only ``cli`` catches them.
Conditions that do not stop the program are reported as ``SftchatWarning`` by ``warnings.warn``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import ClassVar

_OWN_CODE = os.path.dirname(__file__) + os.sep  # noqa: PTH120 - compared with the text of a code object's file name


class SftchatError(Exception):
    """Base of every error whose message is meant for the user.

    Attributes:
        exit_code: Exit code of the command line.
    """

    exit_code: ClassVar[int] = 3


class UsageError(SftchatError):
    """The request is invalid, whatever the state of the machine."""

    exit_code = 2


class DataError(SftchatError):
    """A file of rows cannot be used as it is.

    Args:
        message: Description of the problem.
        source: Position, as ``file`` or ``file:line``.

    Attributes:
        message: Description of the problem.
        source: Position; empty when unknown.
    """

    exit_code = 2

    def __init__(self, message: str, source: str = "") -> None:
        super().__init__(f"{source}: {message}" if source else message)
        self.message = message
        self.source = source


class ModelError(SftchatError):
    """A model cannot be found or loaded."""


class TemplateError(ModelError):
    """A chat template that is unusable for training or fails to render a conversation."""


class RewrittenHistoryError(TemplateError):
    """A chat template that renders a reply differently in history, so that one row cannot train every reply of a conversation."""


class MissingExtraError(SftchatError):
    """An optional dependency is not installed.

    Args:
        what: The feature that needs it.
        extra: The extra that installs it.
    """

    def __init__(self, what: str, extra: str = "local") -> None:
        super().__init__(f"{what} needs packages that are not installed: pip install 'sftchat[{extra}]'")


class PluginError(SftchatError):
    """A plugin cannot be loaded or registers something invalid."""


class NameTakenError(PluginError):
    """A plugin registers a name that is already in use.

    Args:
        message: Message for the user.
        task: The name, if it is a task's.
    """

    def __init__(self, message: str, task: str) -> None:
        super().__init__(message)
        self.task = task


class EngineError(SftchatError):
    """Generation failed after the model was loaded."""


class NotComparableError(SftchatError):
    """Two results measured different things and must not be compared."""

    exit_code = 4


MAX_LIBRARY_MESSAGE = 400
"""Maximum length, in characters, of a library's error whose first line only announces the next ones."""


class SftchatWarning(UserWarning):
    """A condition worth reporting that stops nothing; the command line shows it once, on one line."""


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Format the message for an unknown name: the name, the nearest match, and the known names.

    Args:
        kind: Kind of the name, such as ``"task"``.
        name: Name as typed by the user.
        known: All known names.
    """
    names = sorted(known)
    similar = get_close_matches(name, names, n=1)
    hint = f"; did you mean '{similar[0]}'?" if similar else ""
    listed = ", ".join(names) if names else "none"
    return f"unknown {kind} '{name}'{hint} (available: {listed})"


def listed(ids: Sequence[str], limit: int = 5) -> str:
    """Format the first few ids in quotes, and the number of further ones."""
    suffix = f" and {len(ids) - limit} more" if len(ids) > limit else ""
    return ", ".join(f"'{identity}'" for identity in ids[:limit]) + suffix


def message_of(error: BaseException) -> str:
    """Return the message of an error; a note instead when ``str``, which runs a plugin's code, fails."""
    try:
        return str(error)
    except KeyboardInterrupt:
        raise
    except BaseException:
        return "(its message cannot be read)"


def class_and_message(error: BaseException) -> str:
    """Format an error on one line with its class name, like the last line of a traceback."""
    return " ".join(f"{type(error).__name__}: {message_of(error)}".split())


def in_one_line(error: BaseException) -> str:
    """Format an error on one line for the user: an sftchat error as it is, any other with its class name."""
    return " ".join(message_of(error).split()) if isinstance(error, SftchatError) else class_and_message(error)


def raised_at(error: BaseException, *, own: bool = False) -> str:
    """Return where an error was raised, as ``, in FILE:LINE``; empty when unknown.

    Args:
        error: The error.
        own: Whether to include positions in sftchat; for a plugin's error they would only show that the call failed.
    """
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    if frame is None or (not own and frame.tb_frame.f_code.co_filename.startswith(_OWN_CODE)):
        return ""
    return f", in {frame.tb_frame.f_code.co_filename}:{frame.tb_lineno}"


def first_line(error: BaseException) -> str:
    """Return the first informative line of a library's error, or its class name.

    A line that ends with a colon is joined with the following lines, up to ``MAX_LIBRARY_MESSAGE`` characters.
    """
    lines = [" ".join(line.split()) for line in message_of(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    if not lines[0].endswith(":") or len(lines) == 1:
        return lines[0]
    joined = " ".join(lines)
    return joined if len(joined) <= MAX_LIBRARY_MESSAGE else joined[: MAX_LIBRARY_MESSAGE - 1] + "…"


def os_reason(error: OSError) -> str:
    """Return the operating system's message, in lower case."""
    return (error.strerror or str(error)).lower()
