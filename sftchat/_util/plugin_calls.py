"""Calls of plugin code: any exception becomes a ``PluginError``, and arguments and results are copied as built-in types.

So a plugin cannot end the process, modify objects of the core, or return objects whose methods run the plugin's code later.
"""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import Decimal
from numbers import Integral, Real
from typing import Any, TypeVar, cast

from sftchat.errors import PluginError, SftchatError, class_and_message, format_position
from sftchat.types import Example, Message, Reply, Score

T = TypeVar("T")
Occasion = str | Callable[[], str]

MAX_MESSAGE_LENGTH = 500
"""Maximum number of characters shown of a plugin's message."""
_END: Any = object()


class Malformed(ValueError):
    """A plugin's result violates its contract; the message continues a sentence about the plugin's part, such as ``counts None as 'n'``."""


def call_plugin(what: str, function: Callable[..., T], *args: Any, doing: Occasion = "", may_refuse: bool = False) -> T:
    """Call a function of a plugin.

    All exceptions, ``SystemExit`` included, become a ``PluginError``, so that no plugin ends the process or sets its exit code. Only
    ``KeyboardInterrupt`` is passed on, because it comes from the user. ``sys.stdout`` and ``sys.stderr`` are restored.

    Args:
        what: The called part of the plugin, such as ``the scorer of task 'sql'``.
        function: The function. It should also copy the plugin's result as built-in types, because access to the result can raise too.
        args: Its arguments.
        doing: Purpose of the call, such as ``on item 'i7'``, or a function that returns it, called only on failure.
        may_refuse: Whether a ``SftchatError`` from the plugin is passed on unchanged: the plugin may use one to refuse an option or a model.

    Raises:
        PluginError: When the function raises; the message has ``what``, the purpose, and the position and class of the exception.
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
        message = class_and_message(error)
        message = message if len(message) <= MAX_MESSAGE_LENGTH else f"{message[:MAX_MESSAGE_LENGTH]}…"
        raise PluginError(f"{what} failed{f' {occasion}' if occasion else ''}{format_position(error)}: {message}") from error
    finally:
        sys.stdout, sys.stderr = streams  # later messages must reach the user although a plugin replaced the streams


def iterate_plugin(what: str, iterable: Iterable[T], *, doing: Occasion = "", may_refuse: bool = False) -> Iterator[T]:
    """Iterate over ``iterable``, a plugin's result; closing this iterator closes the plugin's.

    Each step runs as in ``call_plugin``, whose docstring describes the other arguments and the errors.
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


MAX_COUNT = 10**308
"""Largest count: sums are computed as 64-bit floats, and a baseline with a larger number would be unreadable."""
_IMMUTABLE = frozenset({str, int, float, bool, type(None)})


def to_number(value: object) -> int | float:
    """Return a count as a built-in number: integers and booleans as ``int``, all others as ``float``.

    Args:
        value: A number, a boolean, a ``Decimal``, a ``Fraction``, or a scalar of numpy or a similar library.

    Raises:
        Malformed: When it is not a number, not finite, or larger than ``MAX_COUNT``.
    """
    if (type(value) is int or type(value) is float) and -MAX_COUNT <= value <= MAX_COUNT:  # nearly every count; False for NaN
        return value
    if getattr(value, "ndim", None) == 0 and callable(item := getattr(value, "item", None)):
        value = item()
    number: int | float
    if isinstance(value, Integral):  # includes bool
        number = int(value)
    elif isinstance(value, Real | Decimal) and math.isfinite(value):
        number = float(value)
    else:
        raise Malformed(short_repr(value))
    if not -MAX_COUNT <= number <= MAX_COUNT:
        raise Malformed(short_repr(value))
    return number


def to_str(value: str) -> str:
    """Return a string of a subclass as a plain ``str``."""
    return value if type(value) is str else str.__str__(value)


def copy_score(score: object) -> Score:
    """Copy the result of a scorer, with counts and texts as built-in types.

    Raises:
        Malformed: When it is not a ``Score``, has no counts, or a field has another type.
    """
    if not isinstance(score, Score):
        raise Malformed(f"returns {type(score).__name__}, must return sftchat.Score")
    stats = _copy_counts("stats", score.stats)
    if not stats:
        raise Malformed("counts nothing; a metric needs stats")
    for name, text in (("answer", score.answer), ("expected answer", score.expected)):
        if not isinstance(text, str):
            raise Malformed(f"gives the {name} {short_repr(text)}, must be text")
    if not isinstance(score.errors, tuple | list) or not all(isinstance(error, str) for error in score.errors):
        raise Malformed(f"gives the errors {short_repr(score.errors)}, must be a tuple of names")
    if not isinstance(score.groups, Mapping) or not all(isinstance(name, str) for name in score.groups):
        raise Malformed(f"gives the groups {short_repr(score.groups)}, must be counts by name")
    groups = {to_str(name): _copy_counts(f"group {name!r}", group_stats) for name, group_stats in score.groups.items()}
    return Score(stats, to_str(score.answer), tuple(map(to_str, score.errors)), groups, to_str(score.expected))


def _copy_counts(name: str, stats: object) -> dict[str, float]:
    if not isinstance(stats, Mapping):
        raise Malformed(f"gives {short_repr(stats)} as {name}, must be counts by name")
    counts: dict[str, float] = {}
    for key, count in stats.items():
        if type(key) is str and type(count) is int and -MAX_COUNT <= count <= MAX_COUNT:  # five times as fast as the general conversion
            counts[key] = count
            continue
        if not isinstance(key, str):
            raise Malformed(f"counts under the name {short_repr(key)} in {name}; names are text")
        try:
            counts[to_str(key)] = to_number(count)
        except Malformed as error:
            raise Malformed(f"counts {error} as '{key}' of {name}; counts are finite numbers") from None
    return counts


def copy_example(example: object) -> Example:
    """Copy an example that a plugin returned or is going to get; nothing is shared with the original.

    Raises:
        Malformed: When it is not an example, or a field has another type.
    """
    if not isinstance(example, Example):
        raise Malformed(f"gives a {type(example).__name__}, must give sftchat.Example")
    messages = copy_messages(example.messages)
    if example.gold is not None and not isinstance(example.gold, str):
        raise Malformed(f"gives the gold reply {short_repr(example.gold)}, must be text")
    if not isinstance(example.id, str) or not isinstance(example.source, str):
        raise Malformed(f"gives the id {short_repr(example.id)} and the source {short_repr(example.source)}, must be text")
    if not isinstance(example.metadata, Mapping):
        raise Malformed(f"gives the metadata {short_repr(example.metadata)}, must be a mapping")
    return Example(messages, example.gold, example.id, copy_json(dict(example.metadata)), example.source)


def copy_messages(messages: Iterable[object]) -> tuple[Message, ...]:
    """Copy the turns of a conversation.

    Raises:
        Malformed: When one is not a turn.
    """
    return tuple(_copy_message(message) for message in messages)


def _copy_message(message: Any) -> Message:
    if not isinstance(message, Mapping) or not all(isinstance(message.get(key), str) for key in ("role", "content")):
        raise Malformed(f"gives the turn {short_repr(message)}, must have a role and a content that are text")
    turn: Any = copy_json(dict(message))
    return cast(Message, turn)


def copy_reply(reply: Reply) -> Reply:
    """Copy a reply."""
    return Reply(reply.text, reply.finish_reason, reply.prompt_tokens, reply.completion_tokens, reply.thoughts, reply.refused)


def copy_json(value: T) -> T:
    """Deep-copy a JSON value, many times faster than ``copy.deepcopy``; objects of other types in it are copied by ``copy.deepcopy``."""
    result: T = _copy_json(value)
    return result


def _copy_json(value: Any) -> Any:
    kind = type(value)
    if kind in _IMMUTABLE:
        return value
    if kind is dict:
        return {_copy_json(key): _copy_json(member) for key, member in value.items()}
    if kind is list or kind is tuple:
        return kind(map(_copy_json, value))
    return copy.deepcopy(value)


def copy_texts(values: Iterable[object], what: str) -> tuple[str, ...]:
    """Copy texts that a plugin yields.

    Args:
        values: The texts, such as the problems of a row.
        what: Noun for the texts, used in errors.

    Raises:
        Malformed: When an item is not text, or ``values`` is a single text.
    """
    if isinstance(values, str):
        raise Malformed(f"gives {short_repr(values)}, must give a list of {what}")
    texts = []
    for value in values:
        if not isinstance(value, str):
            raise Malformed(f"gives {short_repr(value)} among {what}, must be text")
        texts.append(to_str(value))
    return tuple(texts)


def short_repr(value: object) -> str:
    """Return the ``repr`` of a value, cut to 60 characters."""
    return f"{value!r:.60}"
