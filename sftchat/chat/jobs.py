"""What commands have done in the worker of a model: one job at a time, which the user can stop."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from sftchat.chat.view import View
from sftchat.chat.worker import Work, Worker
from sftchat.engines.base import Engine
from sftchat.errors import SftchatError, UsageError, in_one_line
from sftchat.third_party import call_plugin

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
        self._work: Work | None = None

    def start(self, title: str, job: Callable[[Engine, Work], T], done: Callable[[T], None], worker: Worker) -> None:
        """Have a job done; see ``ChatContext.work``.

        Raises:
            UsageError: When another one is under way.
        """
        if self._work is not None:
            raise UsageError(f"the talk is busy: {self.doing}")
        self._work = work = Work(lambda text: self._view.post(partial(self._view.say, text)))
        self.doing = title

        def run(engine: Engine) -> None:
            try:
                result = job(engine, work)
            except BaseException as error:  # whatever a model library or a plugin raises, SystemExit too, ends the job, not the talk
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

    def _end(self, work: Work, done: Callable[[], None] | None = None, problem: str = "") -> None:
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
