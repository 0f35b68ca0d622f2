"""Chat templates are programs from outside: what one operation of theirs may make, and for how long and in how much memory a rendering may run.

A single operation, such as a text times a billion, cannot be interrupted, so it is looked at before it runs: ``Bounds`` is put into the sandbox of
transformers. Loops can be interrupted: a thread watches renderings that take long and stops them.
"""

from __future__ import annotations

import ctypes
import functools
import re
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from sftchat.errors import SftchatWarning

T = TypeVar("T")

MAX_SECONDS = 3.0
"""Processor time of one rendering; a conversation of a thousand turns takes a hundredth of it."""
MAX_MEMORY_GROWTH = 256 << 20
"""Bytes by which the process may grow during one rendering that takes long."""
SECONDS_BEFORE_WATCHING = 0.25
"""Seconds of processor time after which a rendering is watched for its memory too."""
POLL = 0.05
"""Seconds between two looks of the watching thread."""
IDLE = 5.0
"""Seconds without a rendering after which the watching thread sleeps until there is one."""
MAX_CHARACTERS = 16 << 20
"""Characters that a value may have once it is written out."""
MAX_WIDTH = 100_000
"""The largest number that an operation takes as a width or a count."""
MAX_BITS = 100_000
"""Bits of the largest whole number that a product or a power may make."""
WIDTHS = frozenset({"center", "indent", "batch", "slice", "wordwrap", "truncate", "round", "tojson"})
"""Filters that take widths or counts."""
STATM = Path("/proc/self/statm")
PAGE = 4096


class StoppedError(BaseException):
    """A rendering was interrupted; no ``except Exception`` of a library may keep it."""


class TooMuchError(Exception):
    """An operation of a template would make more than it may."""


@dataclass
class _Rendering:
    """One rendering under way.

    Attributes:
        thread: Identifier of its thread.
        clock: Reads the processor time of its thread, or the wall clock.
        began: What the clock said then.
        memory: Bytes of the process when it was first seen to take long; 0 before.
        why: Why it was stopped; empty while it was not.
        fired: When it was last interrupted.
    """

    thread: int
    clock: Callable[[], float]
    began: float
    memory: int = 0
    why: str = ""
    fired: float = 0.0


@dataclass
class _Watch:
    """The renderings of this process, and the thread that watches them."""

    lock: threading.RLock = field(default_factory=threading.RLock)
    wanted: threading.Event = field(default_factory=threading.Event)
    running: dict[int, _Rendering] = field(default_factory=dict)
    thread: threading.Thread | None = None
    last: float = 0.0

    def enter(self) -> _Rendering:
        """Watch a rendering of the calling thread."""
        clock = _thread_clock()
        one = _Rendering(threading.get_ident(), clock, clock())
        with self.lock:
            self.running[id(one)] = one
            self.last = time.monotonic()
            if self.thread is None or not self.thread.is_alive():  # as after a fork
                self.thread = threading.Thread(target=self._look, name="sftchat-templates", daemon=True)
                self.thread.start()
        self.wanted.set()
        return one

    def leave(self, one: _Rendering) -> None:
        """Watch it no longer; an interruption that has not arrived yet is taken back."""
        with self.lock:
            self.running.pop(id(one), None)
            if one.why:
                _interrupt(one.thread, None)

    def _look(self) -> None:
        """Look at every rendering again and again."""
        while True:
            if time.monotonic() - self.last > IDLE:
                self.wanted.clear()
                self.wanted.wait()
            time.sleep(POLL)
            with self.lock:
                for one in self.running.values():
                    self.last = time.monotonic()
                    if why := _excess(one):
                        one.why = one.why or why
                        if self.last - one.fired > 1:  # again, should something have kept the last
                            one.fired = self.last
                            _interrupt(one.thread, StoppedError)


_WATCH = _Watch()
_REFUSED: dict[str, str] = {}
"""Why templates were stopped, by their source: they are not tried again."""


def bounded(source: str, render: Callable[[], T]) -> T:
    """What a call returns that runs a chat template, bounded in processor time and memory and in what single operations make.

    Args:
        source: The template's Jinja source.
        render: Runs it.

    Raises:
        TooMuchError: When it took more, now or before.
    """
    _bound_operations()
    if source in _REFUSED:
        raise TooMuchError(_REFUSED[source])
    one = _WATCH.enter()
    try:
        try:
            return render()
        finally:
            _WATCH.leave(one)
    except StoppedError:
        with suppress(StoppedError):
            _WATCH.leave(one)
        _REFUSED[source] = one.why
        raise TooMuchError(one.why) from None


def _excess(one: _Rendering) -> str:
    """What a rendering takes too much of; empty while it does not."""
    try:
        seconds = one.clock() - one.began
    except OSError:  # its thread has ended
        return ""
    if seconds > MAX_SECONDS:
        return f"it runs for more than {MAX_SECONDS:g} seconds"
    if seconds > SECONDS_BEFORE_WATCHING:
        now = _memory()
        one.memory = one.memory or now
        if now - one.memory > MAX_MEMORY_GROWTH:
            return f"it takes more than {MAX_MEMORY_GROWTH >> 20} MiB of memory"
    return ""


def _thread_clock() -> Callable[[], float]:
    """Processor time of the calling thread, where other threads may ask for it; elsewhere the wall clock."""
    find = getattr(time, "pthread_getcpuclockid", None)
    return functools.partial(time.clock_gettime, find(threading.get_ident())) if find is not None else time.monotonic


def _memory() -> int:
    """Bytes that the process has in memory; the most that it had where that alone is known."""
    if STATM.exists():
        return int(STATM.read_text(encoding="ascii").split()[1]) * PAGE
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _interrupt(thread: int, error: type[BaseException] | None) -> None:
    """Raise an error in another thread at its next instruction; None takes back one that has not been raised yet."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(error) if error is not None else None)


@functools.cache
def _bound_operations() -> None:
    """Have transformers render chat templates in a sandbox whose single operations are bounded."""
    from transformers.utils import chat_template_utils

    name = "ImmutableSandboxedEnvironment"
    if not hasattr(chat_template_utils, name):
        warnings.warn(
            "single operations of chat templates are not bounded: this version of transformers is unknown", SftchatWarning, stacklevel=2
        )
        return
    setattr(chat_template_utils, name, _bounded_sandbox(getattr(chat_template_utils, name)))


def _bounded_sandbox(sandbox: Any) -> Any:
    """A class of Jinja environments that refuse operations which make too much."""

    from jinja2.compiler import CodeGenerator

    class Weighing(CodeGenerator):
        """Writes code that weighs the lists, tuples, objects and joined texts that a template makes."""

        def visit_Concat(self, node: Any, frame: Any) -> None:  # noqa: N802 - as Jinja names them
            self.write("environment.joined((")
            for part in node.nodes:
                self.visit(part, frame)
                self.write(", ")
            self.write("))")

        def visit_List(self, node: Any, frame: Any) -> None:  # noqa: N802
            self._weighed(super().visit_List, node, frame)

        def visit_Dict(self, node: Any, frame: Any) -> None:  # noqa: N802
            self._weighed(super().visit_Dict, node, frame)

        def visit_Tuple(self, node: Any, frame: Any) -> None:  # noqa: N802
            if node.ctx == "load":
                self._weighed(super().visit_Tuple, node, frame)
            else:
                super().visit_Tuple(node, frame)

        def _weighed(self, write: Callable[[Any, Any], None], node: Any, frame: Any) -> None:
            self.write("environment.weighed(")
            write(node, frame)
            self.write(")")

    class Bounds(sandbox):  # type: ignore[misc]
        """The sandbox with bounded operations."""

        code_generator_class = Weighing
        intercepted_binops = frozenset({"*", "**", "%", "+"})
        weighed = staticmethod(weighed)
        joined = staticmethod(_joined)
        concat = staticmethod(_concatenated)

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            known: dict[str, Any] = dict(vars(self)["filters"])
            self.filters = _Filters()
            for name, function in known.items():
                self.filters[name] = function

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            check_operator(operator, left, right)
            return super().call_binop(context, operator, left, right)

        def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805 - as Jinja names them
            check_method(getattr(__obj, "__self__", None), getattr(__obj, "__name__", ""), args)
            if hasattr(__obj, "__wrapped__"):  # a text's ``format``, as the sandbox wraps it
                check_method(getattr(__obj.__wrapped__, "__self__", None), __obj.__wrapped__.__name__, args)
            return weighed(super().call(__context, __obj, *args, **kwargs))

    return Bounds


class _Filters(dict[str, Any]):
    """Filters by name, each bounded as it is put in."""

    def __setitem__(self, name: str, function: Callable[..., Any]) -> None:
        @functools.wraps(function)  # with what tells Jinja to pass its context
        def bounded_filter(*args: Any, **kwargs: Any) -> Any:
            return weighed(function(*check_filter(name, args, kwargs), **kwargs))

        super().__setitem__(name, bounded_filter)


def weighed(value: T) -> T:
    """A value as it is, unless writing it out would take too much: lists may hold one another many times, and be small in memory.

    Raises:
        TooMuchError: When it would.
    """
    if isinstance(value, str | list | tuple | dict) and (weight := _weight(value, {})) > MAX_CHARACTERS:
        raise TooMuchError(f"a value would have {weight} characters, more than {MAX_CHARACTERS}")
    return value


def _weight(value: Any, known: dict[int, int]) -> int:
    """About how many characters a value is when it is written out; what stands in several places is weighed once."""
    if isinstance(value, str | bytes):
        return len(value) + 1
    if not isinstance(value, list | tuple | dict):
        return 1
    if (found := known.get(id(value))) is None:
        known[id(value)] = 0  # of a list in itself; Jinja can make none
        parts = (*value, *value.values()) if isinstance(value, dict) else value
        found = known[id(value)] = 1 + sum(_weight(part, known) for part in parts)
    return found


def _joined(parts: tuple[Any, ...]) -> str:
    """The texts of values, joined, as ``~`` does it."""
    return "".join(map(str, weighed(parts)))


def _concatenated(parts: Iterable[str]) -> str:
    """What a template has written, whole."""
    pieces, size = [], 0
    for part in parts:
        pieces.append(part)
        size += len(part)
        _within(size, "the text")
    return "".join(pieces)


def check_operator(operator: str, left: Any, right: Any) -> None:
    """Refuse an operation whose result would be too large.

    Args:
        operator: ``*``, ``**``, ``%`` or ``+``.
        left: What stands before it.
        right: What stands behind it.

    Raises:
        TooMuchError: When it would be.
    """
    if operator == "+":
        if isinstance(left, str):
            _within(len(left) + len(right) if isinstance(right, str) else 0, "operator '+'")
        elif isinstance(left, list | tuple):
            weighed((left, right))
    elif operator == "%":
        if isinstance(left, str):
            _check_widths(left, r"%[^%a-zA-Z]*(\d{6,}|\*)")
    elif isinstance(left, int) and isinstance(right, int):
        bits = left.bit_length() * max(right, 0) if operator == "**" else left.bit_length() + right.bit_length()
        if abs(left) > 1 and bits > MAX_BITS:
            raise TooMuchError(f"operator '{operator}' would make a number of {bits} bits, more than {MAX_BITS}")
    elif operator == "*":
        for items, times in ((left, right), (right, left)):
            if isinstance(items, str | bytes | list | tuple) and isinstance(times, int):
                _within(_weight(items, {}) * times, "operator '*'")


def check_filter(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
    """Refuse a filter whose result would be too large.

    Args:
        name: The filter.
        args: Its arguments, what it is applied to among them.
        kwargs: Those by name.

    Returns:
        The arguments; what a filter joins is a list after that.

    Raises:
        TooMuchError: When it would be.
    """
    if name in WIDTHS:
        _check_numbers((*args[1:], *kwargs.values()), f"filter '{name}'")
    elif name == "format" and args:
        _check_widths(str(args[0]), r"%[^%a-zA-Z]*(\d{6,}|\*)")
    elif name == "replace" and len(args) > 3:
        check_method(str(args[1]), "replace", tuple(map(str, args[2:4])))
    elif name == "join" and len(args) > 1 and not kwargs:
        pieces = list(args[1])
        check_method(str(args[2]) if len(args) > 2 else "", "join", (pieces,))
        return (args[0], pieces, *args[2:])
    return args


def check_method(owner: Any, name: str, args: tuple[Any, ...]) -> None:
    """Refuse a method of a text or a number whose result would be too large.

    Args:
        owner: Whose method it is.
        name: The method.
        args: Its arguments.

    Raises:
        TooMuchError: When it would be.
    """
    if not isinstance(owner, str | bytes | int):
        return
    _check_numbers(args, f"method '{name}'")
    if not isinstance(owner, str):
        return
    if name in ("format", "format_map"):
        _check_widths(owner, r"\{[^{}]*:[^{}]*(\d{6,}|\{)")
    elif name == "replace" and len(args) > 1 and all(isinstance(part, str) for part in args[:2]):
        _within(len(owner) + (owner.count(args[0]) * len(args[1]) if args[1] else 0), "method 'replace'")
    elif name == "join" and args and isinstance(args[0], list | tuple):
        _within(len(owner) * len(args[0]) + sum(len(piece) for piece in args[0] if isinstance(piece, str)), "method 'join'")


def _check_numbers(values: tuple[Any, ...], where: str) -> None:
    """Refuse widths and counts that are too large."""
    for value in values:
        if isinstance(value, int) and abs(value) > MAX_WIDTH:
            raise TooMuchError(f"{where} is given {value:.3e}, more than {MAX_WIDTH}")


def _check_widths(text: str, pattern: str) -> None:
    """Refuse a format that asks for a wide field, or for one whose width it is told."""
    if found := re.search(pattern, text):
        raise TooMuchError(f"the width of a field is {found[1]}, must be a number under {MAX_WIDTH}")


def _within(size: int, where: str) -> None:
    """Refuse a size that is too large."""
    if size > MAX_CHARACTERS:
        raise TooMuchError(f"{where} would make {size} characters, more than {MAX_CHARACTERS}")
