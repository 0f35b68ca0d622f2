"""Calls third-party code: every function of a plugin runs through this module, so that any exception is an error of that plugin."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from sftchat.errors import PluginError, SftchatError, class_and_message, raised_at

T = TypeVar("T")
Doing = str | Callable[[], str]

LONGEST_MESSAGE = 500
"""Maximum number of characters shown of a plugin's message."""
_END: Any = object()


class Malformed(ValueError):
    """A plugin's result violates its contract; the message is a predicate, such as ``counts None as 'n'; …``."""


def call_plugin(what: str, function: Callable[..., T], *args: Any, doing: Doing = "", may_refuse: bool = False) -> T:
    """Call a function of a plugin.

    ``SystemExit``, ``GeneratorExit`` and all other exceptions become a ``PluginError``, so that no plugin ends the process or sets its exit code.
    Only ``KeyboardInterrupt`` is passed on, because it comes from the user. ``sys.stdout`` and ``sys.stderr`` are restored.

    Args:
        what: The called part of the plugin, such as ``the scorer of task 'sql'``.
        function: The function. It should also convert the plugin's result to built-in types, because access to it can raise too.
        args: Its arguments.
        doing: Purpose of the call, such as ``on item 'i7'``; a function is called only on failure.
        may_refuse: Whether a ``SftchatError`` from the plugin is passed on unchanged: the plugin may use one to refuse an option or a model.

    Raises:
        PluginError: Names the plugin's part, the purpose, and the location and class of the exception.
        SftchatError: Raised by the plugin on purpose, with ``may_refuse``.
    """
    streams = sys.stdout, sys.stderr
    try:
        return function(*args)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        if may_refuse and isinstance(error, SftchatError):
            raise
        occasion = doing if isinstance(doing, str) else doing()
        if isinstance(error, Malformed):
            raise PluginError(f"{what} {error}{f' ({occasion})' if occasion else ''}") from error
        said = class_and_message(error)
        said = said if len(said) <= LONGEST_MESSAGE else f"{said[:LONGEST_MESSAGE]}…"
        raise PluginError(f"{what} failed{f' {occasion}' if occasion else ''}{raised_at(error)}: {said}") from error
    finally:
        sys.stdout, sys.stderr = streams  # later messages must reach the user although a plugin replaced the streams


def iterate_plugin(what: str, iterable: Iterable[T], *, doing: Doing = "", may_refuse: bool = False) -> Iterator[T]:
    """Iterate over a plugin's result, each step run as by ``call_plugin``; closing this iterator closes the plugin's.

    Args:
        what: See ``call_plugin``.
        iterable: The plugin's result.
        doing: See ``call_plugin``.
        may_refuse: See ``call_plugin``.

    Raises:
        PluginError: See ``call_plugin``.
    """
    iterator: Iterator[T] = call_plugin(what, iter, iterable, doing=doing)
    try:
        while (item := call_plugin(what, next, iterator, _END, doing=doing, may_refuse=may_refuse)) is not _END:
            yield item
    finally:
        call_plugin(what, _close, iterator, doing=doing)


def _close(iterator: object) -> None:
    close = getattr(iterator, "close", None)
    if close is not None:
        close()
