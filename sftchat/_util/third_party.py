"""Call third-party code: the one way in which a function of a plugin is run, so that whatever it raises is an error of that plugin."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from sftchat.errors import PluginError, SftchatError, class_and_message, raised_at

T = TypeVar("T")
Doing = str | Callable[[], str]

LONGEST_MESSAGE = 500
"""Characters of a plugin's own message that are shown."""
_END: Any = object()


class Malformed(ValueError):
    """A plugin returned something else than its contract says; the message is a predicate, such as ``counts None as 'n'; …``."""


def call_plugin(what: str, function: Callable[..., T], *args: Any, doing: Doing = "", may_refuse: bool = False) -> T:
    """Call a function of a plugin.

    ``SystemExit``, ``GeneratorExit`` and every other exception become a ``PluginError``, so that no plugin ends the process or chooses its
    exit code. Only ``KeyboardInterrupt`` passes, because it is the user's. ``sys.stdout`` and ``sys.stderr`` are put back.

    Args:
        what: The part of the plugin that is called, such as ``the scorer of task 'sql'``.
        function: What to call. It should also make plain values of what the plugin returns, because reading those can raise too.
        args: Its arguments.
        doing: What it is called for, such as ``on item 'i7'``; a function is asked only when something went wrong.
        may_refuse: Whether a ``SftchatError`` that the plugin raises passes as it is: it may refuse an option or a model with one.

    Raises:
        PluginError: Names the plugin's part, what it was called for, where it raised, and the class of what was raised.
        SftchatError: What the plugin raised on purpose, with ``may_refuse``.
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
        sys.stdout, sys.stderr = streams  # a verdict must be shown where the user looks, whatever a plugin puts in their place


def iterate_plugin(what: str, iterable: Iterable[T], *, doing: Doing = "", may_refuse: bool = False) -> Iterator[T]:
    """Go through what a plugin returned, each step called as ``call_plugin`` does; closing the iterator closes the plugin's.

    Args:
        what: As of ``call_plugin``.
        iterable: What the plugin returned.
        doing: As of ``call_plugin``.
        may_refuse: As of ``call_plugin``.

    Raises:
        PluginError: As of ``call_plugin``.
    """
    iterator: Iterator[T] = call_plugin(what, iter, iterable, doing=doing)
    try:
        while (item := call_plugin(what, next, iterator, _END, doing=doing, may_refuse=may_refuse)) is not _END:
            yield item
    finally:
        call_plugin(what, _close, iterator, doing=doing)


def _close(iterator: object) -> None:
    """Close an iterator that can be closed."""
    close = getattr(iterator, "close", None)
    if close is not None:
        close()
