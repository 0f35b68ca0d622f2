"""Requests that are answered in threads, several at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

from sftchat.engine import Chunk

T = TypeVar("T")
IDLE_SECONDS = 0.1
"""Seconds after which the caller gets an empty chunk, so that it can cancel."""


def answer_in_threads(
    items: Iterable[tuple[str, T]], answer: Callable[[T, threading.Event], Chunk], fits: Callable[[T, Sequence[T]], bool]
) -> Iterator[Chunk]:
    """Yield the answers to requests, in the order of completion.

    Args:
        items: Id and content of each request; taken from the iterable as threads become free.
        answer: Called in a thread with a request and an event, which is set when its answer is not needed any more. An exception ends the call.
        fits: Whether a request can start beside the running ones, of which there is at least one.
    """
    source = iter(items)
    cancelled = threading.Event()
    running: dict[Future[Chunk], tuple[str, T]] = {}
    following = next(source, None)
    pool = ThreadPoolExecutor(max_workers=1024)  # ``fits`` limits the threads, which are started when they are needed
    try:
        while running or following is not None:
            while following is not None and (not running or fits(following[1], [item for _, item in running.values()])):
                running[pool.submit(answer, following[1], cancelled)] = following
                following = next(source, None)
            done, _ = wait(running, IDLE_SECONDS, FIRST_COMPLETED)
            if not done:
                yield Chunk(next(iter(running.values()))[0])
            for future in done:
                del running[future]
                yield future.result()
    finally:
        cancelled.set()
        pool.shutdown(cancel_futures=True)
