"""Resource limits for chat templates, which are untrusted code: size of single operations, processor time and memory of a rendering.

A single operation, such as repeating a text a billion times, cannot be interrupted, so its size is checked before it runs: transformers' sandbox is
replaced by a subclass with these checks. Loops can be interrupted: a watchdog thread stops renderings that take too long.
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
"""Maximum processor time of one rendering in seconds; a conversation of a thousand turns takes 1% of it."""
MAX_MEMORY_GROWTH = 256 << 20
"""Maximum growth of the process in bytes during one long rendering."""
SECONDS_BEFORE_WATCHING = 0.25
"""Processor time in seconds after which the memory of a rendering is checked too."""
POLL_SECONDS = 0.05
"""Polling interval of the watchdog thread in seconds."""
IDLE_SECONDS = 5.0
"""Seconds without a rendering after which the watchdog thread sleeps until the next one."""
MAX_CHARACTERS = 16 << 20
"""Maximum characters of a value converted to text."""
MAX_WIDTH = 100_000
"""Maximum width or count as argument of a filter or method."""
MAX_BITS = 100_000
"""Maximum bits of an integer product or power."""
WIDTH_FILTERS = frozenset({"center", "indent", "batch", "slice", "wordwrap", "truncate", "round", "tojson"})
"""Filters whose arguments are widths or counts."""
WIDE_PERCENT_FIELD = r"%[^%a-zA-Z]*(\d{6,}|\*)"
"""A field of a %-format such as ``%1000000d`` or ``%*d``: with six digits or more, or a width from the arguments."""
WIDE_BRACE_FIELD = r"\{[^{}]*:[^{}]*(\d{6,}|\{)"
"""The same for ``str.format``, such as ``{:1000000}`` or ``{:{width}}``."""
STATM = Path("/proc/self/statm")
"""Linux's file with the sizes of this process in pages: all, then resident."""
PAGE_BYTES = 4096


class StoppedError(BaseException):
    """Raised in an interrupted rendering; a BaseException, so that no ``except Exception`` of a library catches it."""


class TooMuchError(Exception):
    """An operation of a template would exceed a size limit."""


@dataclass
class _Rendering:
    """A running rendering.

    Attributes:
        thread: Identifier of its thread.
        clock: Returns the processor time of its thread, or the wall-clock time, in seconds.
        started_at: Value of ``clock`` at the start.
        initial_memory: Memory of the process in bytes at the first measurement during this rendering; 0 before.
        stop_reason: The limit that it exceeded, for which it is stopped; empty before.
        interrupted_at: Value of ``time.monotonic`` at the last interruption; 0 before.
    """

    thread: int
    clock: Callable[[], float]
    started_at: float
    initial_memory: int = 0
    stop_reason: str = ""
    interrupted_at: float = 0.0


@dataclass
class _Watchdog:
    """The running renderings of this process, and the thread that stops them when they exceed a limit.

    Attributes:
        lock: Held while ``running`` or ``thread`` is read or changed.
        is_needed: Wakes the thread; set at each start of a rendering.
        running: The running renderings by ``id``.
        thread: The thread; None before the first rendering.
        last_start: Value of ``time.monotonic`` at the last start of a rendering.
    """

    lock: threading.RLock = field(default_factory=threading.RLock)
    is_needed: threading.Event = field(default_factory=threading.Event)
    running: dict[int, _Rendering] = field(default_factory=dict)
    thread: threading.Thread | None = None
    last_start: float = 0.0

    def start(self) -> _Rendering:
        """Register a rendering of the calling thread."""
        clock = _thread_clock()
        rendering = _Rendering(threading.get_ident(), clock, clock())
        with self.lock:
            self.running[id(rendering)] = rendering
            self.last_start = time.monotonic()
            if self.thread is None or not self.thread.is_alive():  # e.g. after a fork
                self.thread = threading.Thread(target=self._poll, name="sftchat-templates", daemon=True)
                self.thread.start()
        self.is_needed.set()
        return rendering

    def stop(self, rendering: _Rendering) -> None:
        """Unregister a rendering; an interruption not yet delivered is cancelled."""
        with self.lock:
            self.running.pop(id(rendering), None)
            if rendering.stop_reason:
                _interrupt(rendering.thread, None)

    def _poll(self) -> None:
        """Check the running renderings periodically, and interrupt those that exceed a limit."""
        while True:
            self._sleep_while_idle()
            time.sleep(POLL_SECONDS)
            with self.lock:
                for rendering in self.running.values():
                    now = time.monotonic()
                    if exceeded_limit := _find_exceeded_limit(rendering):
                        rendering.stop_reason = rendering.stop_reason or exceeded_limit
                        if now - rendering.interrupted_at > 1:  # again after a second, in case a template caught the last interruption
                            rendering.interrupted_at = now
                            _interrupt(rendering.thread, StoppedError)

    def _sleep_while_idle(self) -> None:
        """Sleep until the next start of a rendering if none is running and none has started for ``IDLE_SECONDS``."""
        self.is_needed.clear()  # before the check: otherwise a rendering that starts between the two would not wake the thread
        with self.lock:
            is_idle = not self.running and time.monotonic() - self.last_start > IDLE_SECONDS
        if is_idle:
            self.is_needed.wait()


_WATCHDOG = _Watchdog()
_REFUSED: dict[str, str] = {}
"""Why templates were stopped, by source; these are not run again."""


def run_bounded(source: str, render: Callable[[], T]) -> T:
    """Call a function that runs a chat template, with limits on processor time, memory and single operations.

    Args:
        source: The template's Jinja source.
        render: Runs the template.

    Raises:
        TooMuchError: When it exceeds a limit, now or in an earlier call.
    """
    _bound_operations()
    if source in _REFUSED:
        raise TooMuchError(_REFUSED[source])
    rendering = _WATCHDOG.start()
    try:
        try:
            return render()
        finally:
            _WATCHDOG.stop(rendering)
    except StoppedError:
        with suppress(StoppedError):  # the first call of ``stop`` may itself have been interrupted
            _WATCHDOG.stop(rendering)
        _REFUSED[source] = rendering.stop_reason
        raise TooMuchError(rendering.stop_reason) from None


def _find_exceeded_limit(rendering: _Rendering) -> str:
    """Describe the limit that a rendering exceeds; empty if none.

    Memory is first measured when a rendering has run for ``SECONDS_BEFORE_WATCHING``; its growth since then is limited.
    """
    seconds = 0.0
    with suppress(OSError):  # the thread has ended
        seconds = rendering.clock() - rendering.started_at
    if seconds > MAX_SECONDS:
        return f"it runs for more than {MAX_SECONDS:g} seconds"
    if seconds > SECONDS_BEFORE_WATCHING:
        memory = _measure_memory()
        rendering.initial_memory = rendering.initial_memory or memory
        if memory - rendering.initial_memory > MAX_MEMORY_GROWTH:
            return f"it takes more than {MAX_MEMORY_GROWTH >> 20} MiB of memory"
    return ""


def _thread_clock() -> Callable[[], float]:
    """Return a clock for the processor time of the calling thread, readable from other threads; the wall clock if the system has none."""
    get_clock_id = getattr(time, "pthread_getcpuclockid", None)
    if get_clock_id is None:
        return time.monotonic
    return functools.partial(time.clock_gettime, get_clock_id(threading.get_ident()))


def _measure_memory() -> int:
    """Return the resident memory of the process in bytes; its peak if the system reports only that."""
    if STATM.exists():
        return int(STATM.read_text(encoding="ascii").split()[1]) * PAGE_BYTES
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _interrupt(thread: int, error: type[BaseException] | None) -> None:
    """Raise an error in another thread at its next instruction; with None, cancel an error that has not been raised yet."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(error) if error is not None else None)


@functools.cache
def _bound_operations() -> None:
    """Make transformers render chat templates in a sandbox with bounded operations."""
    from transformers.utils import chat_template_utils

    name = "ImmutableSandboxedEnvironment"
    if hasattr(chat_template_utils, name):
        setattr(chat_template_utils, name, _bounded_sandbox(getattr(chat_template_utils, name)))
    else:
        message = "single operations of chat templates are not bounded: this version of transformers is unknown"
        warnings.warn(message, SftchatWarning, stacklevel=2)


def _bounded_sandbox(sandbox: Any) -> Any:
    """Return a subclass of a Jinja environment that refuses operations with too large a result."""
    from jinja2.compiler import CodeGenerator

    class SizeCheckingGenerator(CodeGenerator):
        """Generates code that checks the size of lists, tuples, dicts and concatenated texts."""

        def visit_Concat(self, node: Any, frame: Any) -> None:  # noqa: N802 - as Jinja names them
            self.write("environment.join_texts((")
            for part in node.nodes:
                self.visit(part, frame)
                self.write(", ")
            self.write("))")

        def visit_List(self, node: Any, frame: Any) -> None:  # noqa: N802
            self._write_checked(super().visit_List, node, frame)

        def visit_Dict(self, node: Any, frame: Any) -> None:  # noqa: N802
            self._write_checked(super().visit_Dict, node, frame)

        def visit_Tuple(self, node: Any, frame: Any) -> None:  # noqa: N802
            visit = super().visit_Tuple
            self._write_checked(visit, node, frame) if node.ctx == "load" else visit(node, frame)

        def _write_checked(self, write: Callable[[Any, Any], None], node: Any, frame: Any) -> None:
            self.write("environment.check_size(")
            write(node, frame)
            self.write(")")

    class BoundedSandbox(sandbox):  # type: ignore[misc]
        code_generator_class = SizeCheckingGenerator
        intercepted_binops = frozenset({"*", "**", "%", "+"})
        check_size = staticmethod(check_size)
        join_texts = staticmethod(lambda values: "".join(map(str, check_size(values))))
        concat = staticmethod(_concatenate)

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            filters: dict[str, Any] = vars(self)["filters"]
            self.filters = _Filters()
            for name, function in filters.items():
                self.filters[name] = function

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            _check_operator(operator, left, right)
            return super().call_binop(context, operator, left, right)

        def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805 - as Jinja names them
            _check_method(getattr(__obj, "__self__", None), getattr(__obj, "__name__", ""), args)
            if hasattr(__obj, "__wrapped__"):  # ``str.format``, as wrapped by the sandbox
                _check_method(getattr(__obj.__wrapped__, "__self__", None), __obj.__wrapped__.__name__, args)
            return check_size(super().call(__context, __obj, *args, **kwargs))

    return BoundedSandbox


class _Filters(dict[str, Any]):
    """Filters by name; each is bounded when added."""

    def __setitem__(self, name: str, function: Callable[..., Any]) -> None:
        @functools.wraps(function)  # keeps the attributes by which Jinja passes its context
        def bounded_filter(*args: Any, **kwargs: Any) -> Any:
            return check_size(function(*_check_filter(name, args, kwargs), **kwargs))

        super().__setitem__(name, bounded_filter)


def check_size(value: T) -> T:
    """Return a value unchanged if it would not be too large as text; nested lists may be small in memory but large as text.

    Raises:
        TooMuchError: When it would be too large.
    """
    if isinstance(value, str | list | tuple | dict) and (size := _estimate_size(value, {})) > MAX_CHARACTERS:
        raise TooMuchError(f"a value would have {size} characters, more than {MAX_CHARACTERS}")
    return value


def _estimate_size(value: Any, size_by_id: dict[int, int]) -> int:
    """Estimate the characters of a value as text. ``size_by_id`` caches the sizes of containers, which may occur many times in one value."""
    if isinstance(value, str | bytes):
        return len(value) + 1
    if not isinstance(value, list | tuple | dict):
        return 1
    if id(value) not in size_by_id:
        size_by_id[id(value)] = 0  # for a list that contains itself, although Jinja cannot create one
        parts = (*value, *value.values()) if isinstance(value, dict) else value
        size_by_id[id(value)] = 1 + sum(_estimate_size(part, size_by_id) for part in parts)
    return size_by_id[id(value)]


def _concatenate(texts: Iterable[str]) -> str:
    parts, size = [], 0
    for text in texts:
        parts.append(text)
        size += len(text)
        _check_characters(size, "the text")
    return "".join(parts)


def _check_operator(operator: str, left: Any, right: Any) -> None:
    """Check the size of the result of ``*``, ``**``, ``%`` or ``+``."""
    if operator == "+":
        if isinstance(left, str):
            _check_characters(len(left) + len(right) if isinstance(right, str) else 0, "operator '+'")
        elif isinstance(left, list | tuple):
            check_size((left, right))
    elif operator == "%":
        if isinstance(left, str):
            _check_widths(left, WIDE_PERCENT_FIELD)
    elif isinstance(left, int) and isinstance(right, int):
        bits = left.bit_length() * max(right, 0) if operator == "**" else left.bit_length() + right.bit_length()
        if abs(left) > 1 and bits > MAX_BITS:
            raise TooMuchError(f"operator '{operator}' would make a number of {bits} bits, more than {MAX_BITS}")
    elif operator == "*":
        for items, times in ((left, right), (right, left)):
            if isinstance(items, str | bytes | list | tuple) and isinstance(times, int):
                _check_characters(_estimate_size(items, {}) * times, "operator '*'")


def _check_filter(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
    """Check the size of a filter's result, and return the positional arguments, with an iterable to be joined converted to a list.

    The arguments are those of the Python function: for some filters Jinja's context, then the filtered value, then those in the template.
    """
    if name in WIDTH_FILTERS:
        _check_numbers((*args[1:], *kwargs.values()), f"filter '{name}'")
    elif name == "format" and args:
        _check_widths(str(args[0]), WIDE_PERCENT_FIELD)
    elif name == "replace" and len(args) > 3:
        _check_method(str(args[1]), "replace", tuple(map(str, args[2:4])))
    elif name == "join" and len(args) > 1 and not kwargs:
        pieces = list(args[1])
        _check_method(str(args[2]) if len(args) > 2 else "", "join", (pieces,))
        return (args[0], pieces, *args[2:])
    return args


def _check_method(owner: Any, name: str, args: tuple[Any, ...]) -> None:
    """Check the size of the result of a method of a text or number."""
    if not isinstance(owner, str | bytes | int):
        return
    _check_numbers(args, f"method '{name}'")
    if not isinstance(owner, str):
        return
    if name in ("format", "format_map"):
        _check_widths(owner, WIDE_BRACE_FIELD)
    elif name == "replace" and len(args) > 1 and all(isinstance(part, str) for part in args[:2]):
        old, new = args[:2]
        _check_characters(len(owner) + (owner.count(old) * len(new) if new else 0), "method 'replace'")
    elif name == "join" and args and isinstance(args[0], list | tuple):
        _check_characters(len(owner) * len(args[0]) + sum(len(piece) for piece in args[0] if isinstance(piece, str)), "method 'join'")


def _check_numbers(values: tuple[Any, ...], operation: str) -> None:
    for value in values:
        if isinstance(value, int) and abs(value) > MAX_WIDTH:
            raise TooMuchError(f"{operation} is given {value:.3e}, more than {MAX_WIDTH}")


def _check_widths(text: str, pattern: str) -> None:
    """Check a format string for fields of a large or variable width, by one of the patterns for them."""
    if match := re.search(pattern, text):
        raise TooMuchError(f"the width of a field is {match[1]}, must be a number under {MAX_WIDTH}")


def _check_characters(size: int, operation: str) -> None:
    if size > MAX_CHARACTERS:
        raise TooMuchError(f"{operation} would make {size} characters, more than {MAX_CHARACTERS}")
