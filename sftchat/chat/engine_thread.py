"""Thread that loads and runs one engine; results go to the UI thread through ``post``."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from sftchat._util.plugin_calls import call_plugin
from sftchat.chat.view import View
from sftchat.engine import Engine
from sftchat.errors import SftchatError, UsageError, in_one_line

Post = Callable[[Callable[[], None]], None]


class JobHandle:
    """Handle of a job that runs on an engine thread.

    Args:
        say: Shows lines to the user; may be called on any thread.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self.stop = threading.Event()

    @property
    def stopped(self) -> bool:
        """True when the user has cancelled the job: return soon."""
        return self.stop.is_set()


class EngineThread:
    """Loads an engine and runs jobs on it, one at a time.

    Args:
        load: Opens the engine; runs on the engine thread.
        post: Runs a function on the UI thread.

    Attributes:
        engine: The loaded engine; None before. Set on the UI thread.
    """

    def __init__(self, load: Callable[[], Engine], post: Post) -> None:
        self.engine: Engine | None = None
        self._load = load
        self._post = post
        self._jobs: queue.SimpleQueue[Callable[[Engine], None] | None] = queue.SimpleQueue()
        # a daemon thread: loading weights cannot be interrupted and must not delay the exit of the process
        self._thread = threading.Thread(target=self._work, name="sftchat-engine", daemon=True)

    def start(self, loaded: Callable[[], None], failed: Callable[[Exception], None]) -> None:
        """Start to load the engine; ``loaded`` or ``failed`` is called on the UI thread."""
        self._loaded, self._failed = loaded, failed
        self._thread.start()

    def do(self, job: Callable[[Engine], None]) -> None:
        """Queue a job; it must not raise."""
        self._jobs.put(job)

    def end(self) -> None:
        """Free the engine after the queued jobs; returns at once."""
        self._jobs.put(None)

    def join(self, timeout: float) -> None:
        """Wait at most ``timeout`` seconds until the engine is freed; do not wait while it loads."""
        if self._thread.is_alive():
            self._thread.join(0 if self.engine is None else timeout)

    def _work(self) -> None:
        """Load the engine, then run jobs until ``end``."""
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
        """Publish the loaded engine on the UI thread."""
        self.engine = engine
        self._loaded()


T = TypeVar("T")


class Jobs:
    """Runs the slow jobs of commands, one at a time. Thread: UI.

    Args:
        view: Shows errors.
        next: Called when a job has ended.

    Attributes:
        doing: Title of the running job; empty when there is none.
    """

    def __init__(self, view: View, next: Callable[[], None]) -> None:
        self.doing = ""
        self._view = view
        self._next = next
        self._work: JobHandle | None = None

    def start(self, title: str, job: Callable[[Engine, JobHandle], T], done: Callable[[T], None], worker: EngineThread) -> None:
        """Run a job on an engine thread; see ``ChatContext.work``.

        Raises:
            UsageError: When another job is running.
        """
        if self._work is not None:
            raise UsageError(f"the conversation is busy: {self.doing}")
        self._work = work = JobHandle(lambda text: self._view.post(partial(self._view.say, text)))
        self.doing = title

        def run(engine: Engine) -> None:
            try:
                result = job(engine, work)
            except BaseException as error:  # any exception of a model library or plugin, SystemExit included, ends the job, not the chat
                self._view.post(partial(self._end, work, problem=in_one_line(error)))
            else:
                self._view.post(partial(self._end, work, partial(done, result)))

        worker.do(run)

    def stop(self) -> bool:
        """Stop the running job: at once for the user, soon on the engine thread. False when there is none."""
        if self._work is None:
            return False
        self._view.say(f"{self.doing}: stopped")
        self.cancel()
        self._end(self._work)
        return True

    def cancel(self) -> None:
        """Stop the running job and discard its result."""
        if self._work is not None:
            self._work.stop.set()

    def _end(self, work: JobHandle, done: Callable[[], None] | None = None, problem: str = "") -> None:
        """End a job; ignored when the job was stopped before."""
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
