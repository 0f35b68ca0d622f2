"""Work on many items, spread over processes where the system can copy this one, and handed over in order."""

from __future__ import annotations

import gc
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any, TypeVar

from sftchat.errors import SftchatError

P = TypeVar("P")
R = TypeVar("R")

_work: Callable[[Any], Any] | None = None
"""What a process does; set in the copies alone."""


def processors() -> int:
    """How many processes are worth while: as many as there are processors that this one may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


def spread(work: Callable[[P], R], parts: Sequence[P], processes: int | None = None) -> Iterator[R]:
    """Do the same with every part, and yield the results in the parts' order.

    Processes are copies of this one (``fork``), because what tasks are made of, functions without a name among it, cannot be sent to another;
    where that is not to be had, this process does it all.

    Args:
        work: Uses nothing but Python and numpy's arithmetic, no thread, no lock.
        parts: What can be sent to a process, as what comes of it.
        processes: At most so many; as many as there are processors by default.

    Raises:
        SftchatError: When a process was killed; else whatever ``work`` raises, of the first part that does.
    """
    count = min(processes or processors(), len(parts))
    if count < 2 or not sys.platform.startswith("linux"):
        yield from map(work, parts)
        return
    with ProcessPoolExecutor(count, get_context("fork"), _begin, (work,)) as pool:
        with warnings.catch_warnings():
            # numpy's library of matrix products has threads waiting, which the copies neither have nor need
            warnings.simplefilter("ignore", DeprecationWarning)
            results = pool.map(_do, parts)
        try:
            yield from results
        except BrokenProcessPool as error:
            raise SftchatError("a process that scored items was killed; is there too little memory?") from error


def _begin(work: Callable[[Any], Any]) -> None:
    """Take note of what is to be done; the interrupt key is the first process's business."""
    global _work
    _work = work
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.freeze()  # what was copied is there to stay; to look through it again and again would copy it in fact
    gc.disable()  # a part makes many objects and hardly a cycle: once at its end is enough, and a seventh faster


def _do(part: Any) -> Any:
    """One part."""
    assert _work is not None
    try:
        return _work(part)
    finally:
        gc.collect()
