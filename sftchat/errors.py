"""Everything sftchat raises on purpose, and the exit code each one becomes.

    SftchatError                 3  could not do it
    ├── UsageError               2  unknown name, contradictory options, an output folder that is taken
    ├── DataError                2  a file of rows that is missing, empty or malformed; says file and line
    ├── ModelError               3  a model that cannot be found or loaded
    ├── MissingExtraError        3  a package that an extra of sftchat would bring
    ├── PluginError              3  a plugin that breaks the rules; ``sftchat._util.third_party`` makes one of whatever a plugin raises
    ├── EngineError              3  a model or a server that failed while generating
    └── NotComparableError       4  two results that measured different things

Messages are one line in lower case: what was wrong, which value, what is allowed, what to type. ``cli`` catches them, once.
What stops nothing is a ``SftchatWarning``, given to ``warnings.warn``.
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
        exit_code: What the command line exits with.
    """

    exit_code: ClassVar[int] = 3


class UsageError(SftchatError):
    """What was asked cannot be right, whatever the state of the machine."""

    exit_code = 2


class DataError(SftchatError):
    """A file of rows cannot be used as it is.

    Args:
        message: What is wrong.
        source: Where, as ``file`` or ``file:line``.

    Attributes:
        message: The same.
        source: The same; empty where it is not known.
    """

    exit_code = 2

    def __init__(self, message: str, source: str = "") -> None:
        super().__init__(f"{source}: {message}" if source else message)
        self.message = message
        self.source = source


class ModelError(SftchatError):
    """A model cannot be found or loaded."""


class MissingExtraError(SftchatError):
    """An optional dependency is not installed.

    Args:
        what: What needs it.
        extra: The extra that brings it.
    """

    def __init__(self, what: str, extra: str = "local") -> None:
        super().__init__(f"{what} needs packages that are not installed: pip install 'sftchat[{extra}]'")


class PluginError(SftchatError):
    """A plugin cannot be loaded or registers something invalid."""


class NameTakenError(PluginError):
    """A plugin registers a name that another one has.

    Args:
        message: What the user reads.
        task: The name, where it is a task's.
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
"""Characters of a library's error that are shown where its first line says nothing by itself."""


class SftchatWarning(UserWarning):
    """Something worth knowing that stops nothing; the command line shows it as one line, once."""


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Word the message for a name that is not in a list: what was asked, the nearest match, what there is.

    Args:
        kind: What the name is of, such as ``"task"``.
        name: What the user wrote.
        known: The names there are.
    """
    names = sorted(known)
    near = get_close_matches(name, names, n=1)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    listed = ", ".join(names) if names else "none"
    return f"unknown {kind} '{name}'{hint} (available: {listed})"


def listed(ids: Sequence[str], most: int = 5) -> str:
    """The first few ids in quotes and how many more there are."""
    rest = f" and {len(ids) - most} more" if len(ids) > most else ""
    return ", ".join(f"'{identity}'" for identity in ids[:most]) + rest


def message_of(error: BaseException) -> str:
    """The message of an error; a note instead where a class of a plugin cannot give one, since ``str`` runs that plugin's code."""
    try:
        return str(error)
    except KeyboardInterrupt:
        raise
    except BaseException:
        return "(its message cannot be read)"


def class_and_message(error: BaseException) -> str:
    """An error in one line with the name of its class, as the last line of a traceback has it."""
    return " ".join(f"{type(error).__name__}: {message_of(error)}".split())


def in_one_line(error: BaseException) -> str:
    """An error in one line for the user: one of ours as it is, any other with the name of its class."""
    return " ".join(message_of(error).split()) if isinstance(error, SftchatError) else class_and_message(error)


def raised_at(error: BaseException, *, own: bool = False) -> str:
    """Where an error was raised, as ``, in FILE:LINE``; empty where nothing says so.

    Args:
        error: The error.
        own: Whether a place in sftchat is meant too; of a plugin's error it would say only that the call itself failed.
    """
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    if place is None or (not own and place.tb_frame.f_code.co_filename.startswith(_OWN_CODE)):
        return ""
    return f", in {place.tb_frame.f_code.co_filename}:{place.tb_lineno}"


def first_line(error: BaseException) -> str:
    """The first line of a library's error that says anything, or the name of its class.

    A line that ends with a colon only announces what follows, so the lines after it are joined to it, up to ``MAX_LIBRARY_MESSAGE`` characters.
    """
    lines = [" ".join(line.split()) for line in message_of(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    if not lines[0].endswith(":") or len(lines) == 1:
        return lines[0]
    joined = " ".join(lines)
    return joined if len(joined) <= MAX_LIBRARY_MESSAGE else joined[: MAX_LIBRARY_MESSAGE - 1] + "…"
