"""The thread in which one engine is loaded and used; everything that comes out of it goes through ``post``."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from sftchat._util.third_party import call_plugin
from sftchat.chat.view import View
from sftchat.engine import Engine
from sftchat.errors import SftchatError, UsageError, in_one_line

Post = Callable[[Callable[[], None]], None]


class JobHandle:
    """What a job in a worker knows of the talk.

    Args:
        say: Shows lines to the user; called in any thread.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self.stop = threading.Event()

    @property
    def stopped(self) -> bool:
        """The user wants no more of it: return soon."""
        return self.stop.is_set()


class EngineThread:
    """Loads an engine and uses it, one job after the other.

    Args:
        load: Opens the engine; runs in the worker.
        post: Has a function run on the thread of the talk.

    Attributes:
        engine: The loaded engine; None before. Set on the thread of the talk.
    """

    def __init__(self, load: Callable[[], Engine], post: Post) -> None:
        self.engine: Engine | None = None
        self._load = load
        self._post = post
        self._jobs: queue.SimpleQueue[Callable[[Engine], None] | None] = queue.SimpleQueue()
        # a daemon, because a model that is being read cannot be interrupted and must not keep the user from leaving
        self._thread = threading.Thread(target=self._work, name="sftchat-engine", daemon=True)

    def start(self, loaded: Callable[[], None], failed: Callable[[Exception], None]) -> None:
        """Begin to load; one of the two functions is posted."""
        self._loaded, self._failed = loaded, failed
        self._thread.start()

    def do(self, job: Callable[[Engine], None]) -> None:
        """Have a job done when its turn comes; it must not raise."""
        self._jobs.put(job)

    def end(self) -> None:
        """Free the engine after the jobs that wait; returns at once."""
        self._jobs.put(None)

    def join(self, timeout: float) -> None:
        """Wait for the engine to be freed, no longer than some seconds, and not at all while it loads."""
        if self._thread.is_alive():
            self._thread.join(0 if self.engine is None else timeout)

    def _work(self) -> None:
        """Load the engine, then do jobs until told to end."""
        try:
            engine = self._load()
        except Exception as error:
            self._post(partial(self._failed, error))
            return
        self._post(partial(self._arrived, engine))
        while (job := self._jobs.get()) is not None:
            job(engine)
        engine.close()

    def _arrived(self, engine: Engine) -> None:
        """The engine is there."""
        self.engine = engine
        self._loaded()


T = TypeVar("T")


class Jobs:
    """The jobs of a talk. Its methods run on the view's thread.

    Args:
        view: Shows what went wrong.
        next: Called when a job is over.

    Attributes:
        doing: Title of the job under way; empty when there is none.
    """

    def __init__(self, view: View, next: Callable[[], None]) -> None:
        self.doing = ""
        self._view = view
        self._next = next
        self._work: JobHandle | None = None

    def start(self, title: str, job: Callable[[Engine, JobHandle], T], done: Callable[[T], None], worker: EngineThread) -> None:
        """Have a job done; see ``ChatContext.work``.

        Raises:
            UsageError: When another one is under way.
        """
        if self._work is not None:
            raise UsageError(f"the conversation is busy: {self.doing}")
        self._work = work = JobHandle(lambda text: self._view.post(partial(self._view.say, text)))
        self.doing = title

        def run(engine: Engine) -> None:
            try:
                result = job(engine, work)
            except (
                BaseException
            ) as error:  # whatever a model library or a plugin raises, SystemExit too, ends the job, not the conversation
                self._view.post(partial(self._end, work, problem=in_one_line(error)))
            else:
                self._view.post(partial(self._end, work, partial(done, result)))

        worker.do(run)

    def stop(self) -> bool:
        """End the job under way at once for the user, and soon for the worker; False when there is none."""
        if self._work is None:
            return False
        self._view.say(f"{self.doing}: stopped")
        self.cancel()
        self._end(self._work)
        return True

    def cancel(self) -> None:
        """Have the worker stop; nobody waits for it."""
        if self._work is not None:
            self._work.stop.set()

    def _end(self, work: JobHandle, done: Callable[[], None] | None = None, problem: str = "") -> None:
        """A job is over; of one that was stopped, it is too late."""
        if work is not self._work:
            return
        title, self._work, self.doing = self.doing, None, ""
        if problem:
            self._view.complain(problem)
        elif done is not None:
            try:
                call_plugin(title, done, may_refuse=True)
            except SftchatError as error:
                self._view.complain(in_one_line(error))
        self._next()
