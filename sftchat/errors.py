"""Errors that sftchat raises deliberately, with their exit codes.

    SftchatError                 3  the operation failed
    ├── UsageError               2  unknown name, contradictory options, an output folder that is taken
    ├── DataError                2  a file of rows that is missing, empty or malformed; names file and line
    ├── ModelError               3  a model that cannot be found or loaded
    ├── MissingExtraError        3  a missing package that an extra of sftchat installs
    ├── PluginError              3  a plugin that breaks its contract or raises an exception
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

_SFTCHAT_FOLDER = os.path.dirname(__file__) + os.sep  # noqa: PTH120 - compared with the text of a code object's file name


class SftchatError(Exception):
    """Base of every error whose message is meant for the user.

    Attributes:
        exit_code: Exit code of the command line.
    """

    exit_code: ClassVar[int] = 3


class UsageError(SftchatError):
    """The command or call is invalid: an unknown name, contradictory options, or an output that exists."""

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
    """A chat template cannot be used for training, or fails to render a conversation."""


class RewrittenHistoryError(TemplateError):
    """A chat template renders a reply differently once it is history, so that one row cannot train every reply of a conversation."""


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
        task: The name if it is a task's, else empty.
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
"""Maximum length, in characters, of a library's error of several lines."""


class SftchatWarning(UserWarning):
    """A condition that does not stop the program; the command line shows its message on one line."""


def unknown_name_message(kind: str, name: str, known_names: Iterable[str]) -> str:
    """Format the message for an unknown name: the name, the most similar valid name if any, and all valid names.

    Args:
        kind: Kind of the name, such as ``"task"``.
        name: Name as typed by the user.
        known_names: The valid names.
    """
    names = sorted(known_names)
    similar = get_close_matches(name, names, n=1)
    hint = f"; did you mean '{similar[0]}'?" if similar else ""
    return f"unknown {kind} '{name}'{hint} (available: {', '.join(names) or 'none'})"


def list_quoted(ids: Sequence[str], limit: int = 5) -> str:
    """Format at most ``limit`` ids in quotes, and the number of further ones."""
    suffix = f" and {len(ids) - limit} more" if len(ids) > limit else ""
    return ", ".join(f"'{id}'" for id in ids[:limit]) + suffix


def message_of(error: BaseException) -> str:
    """Return the message of an error; a note instead when ``str(error)`` fails, which may run a plugin's code."""
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


def format_position(error: BaseException, *, include_sftchat: bool = False) -> str:
    """Return where an error was raised, as ``, in FILE:LINE``; empty when unknown.

    Args:
        error: The error.
        include_sftchat: Whether to return a position in sftchat too. For a plugin's error it would only show where the plugin was called.
    """
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    if frame is None or (not include_sftchat and frame.tb_frame.f_code.co_filename.startswith(_SFTCHAT_FOLDER)):
        return ""
    return f", in {frame.tb_frame.f_code.co_filename}:{frame.tb_lineno}"


def first_line(error: BaseException) -> str:
    """Return the first line of a library's error, or its class name if it has no message.

    If the first line ends with a colon, all lines are joined and cut to ``MAX_LIBRARY_MESSAGE`` characters.
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
