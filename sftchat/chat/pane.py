"""The models of a chat: a pane for each, and the threads that load their engines and run jobs on them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from sftchat._util.plugin_calls import call_plugin
from sftchat._util.renamed import former_names
from sftchat.chat.context import View
from sftchat.chat.turn import PendingReply
from sftchat.engine import Describes, Engine, Inspects, Renders, Request
from sftchat.errors import SftchatError, UsageError, in_one_line
from sftchat.task import ReplyScore
from sftchat.thinking import opens_thoughts
from sftchat.types import Message

T = TypeVar("T")
PROBE = Message(role="user", content="?")
"""Any message, to look at what the chat template writes before a reply."""


@former_names(say="info")
class JobHandle:
    """Handle of a job that runs on an engine thread.

    Args:
        info: Shows lines to the user; may be called on any thread.
    """

    def __init__(self, info: Callable[[str], None]) -> None:
        self.info = info
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

    def __init__(self, load: Callable[[], Engine], post: Callable[[Callable[[], None]], None]) -> None:
        self.engine: Engine | None = None
        self._load = load
        self._post = post
        self._jobs: queue.SimpleQueue[Callable[[Engine], None] | None] = queue.SimpleQueue()  # None ends the thread
        # a daemon thread: loading weights cannot be interrupted and must not delay the exit of the process
        self._thread = threading.Thread(target=self._load_and_run_jobs, name="sftchat-engine", daemon=True)

    def start(self, on_loaded: Callable[[], None], on_failed: Callable[[Exception], None]) -> None:
        """Start to load the engine; ``on_loaded`` or ``on_failed`` is called on the UI thread."""
        self._on_loaded, self._on_failed = on_loaded, on_failed
        self._thread.start()

    def submit(self, job: Callable[[Engine], None]) -> None:
        """Queue a job; it must not raise."""
        self._jobs.put(job)

    def end(self) -> None:
        """Free the engine after the queued jobs; returns at once."""
        self._jobs.put(None)

    def join(self, timeout: float) -> None:
        """Wait at most ``timeout`` seconds until the engine is freed; return at once while it loads."""
        if self._thread.is_alive():
            self._thread.join(0 if self.engine is None else timeout)

    def _load_and_run_jobs(self) -> None:
        try:
            engine = self._load()
        except Exception as error:
            self._post(partial(self._on_failed, error))
            return
        self._post(partial(self._publish, engine))
        while (job := self._jobs.get()) is not None:
            job(engine)
        engine.close()

    def _publish(self, engine: Engine) -> None:
        self.engine = engine
        self._on_loaded()


class JobRunner:
    """Runs the slow jobs of commands, one at a time. Thread: UI.

    Args:
        view: Shows errors.
        on_end: Called when a job has ended.

    Attributes:
        job_title: Title of the running job; empty when there is none.
    """

    def __init__(self, view: View, on_end: Callable[[], None]) -> None:
        self.job_title = ""
        self._view = view
        self._on_end = on_end
        self._job: JobHandle | None = None

    def start(self, title: str, job: Callable[[Engine, JobHandle], T], done: Callable[[T], None], engine_thread: EngineThread) -> None:
        """Run a job on an engine thread; see ``ChatContext.work``.

        Raises:
            UsageError: When another job is running.
        """
        if self._job is not None:
            raise UsageError(f"the conversation is busy: {self.job_title}")
        self._job = handle = JobHandle(lambda text: self._view.post(partial(self._view.info, text)))
        self.job_title = title

        def run(engine: Engine) -> None:
            try:
                result = job(engine, handle)
            except BaseException as error:  # any exception of a model library or plugin, SystemExit included, ends the job, not the chat
                self._view.post(partial(self._end, handle, problem=in_one_line(error)))
            else:
                self._view.post(partial(self._end, handle, partial(done, result)))

        engine_thread.submit(run)

    def stop(self) -> bool:
        """Stop the running job; False when there is none. The chat is ready at once, the engine thread when the job has returned."""
        if self._job is None:
            return False
        self._view.info(f"{self.job_title}: stopped")
        self.cancel()
        self._end(self._job)
        return True

    def cancel(self) -> None:
        """Tell the running job to return soon."""
        if self._job is not None:
            self._job.stop.set()

    def _end(self, handle: JobHandle, done: Callable[[], None] | None = None, problem: str = "") -> None:
        """End a job: show the error message ``problem``, or call ``done``; neither when the user has stopped the job."""
        if handle is not self._job:  # the user stopped the job before
            return
        title, self._job, self.job_title = self.job_title, None, ""
        if problem:
            self._view.error(problem)
        elif done is not None:
            try:
                call_plugin(title, done, may_refuse=True)
            except SftchatError as error:
                self._view.error(in_one_line(error))
        self._on_end()


@dataclass(frozen=True)
class Opening:
    """Models served by one engine that is not loaded yet.

    Attributes:
        load: Opens the engine; slow, called on the engine thread.
        models: MODEL arguments as typed, one for each pane.
        adapters: Adapter name of each pane for the engine (``Request.adapter``); empty for the model as loaded.
    """

    load: Callable[[], Engine]
    models: tuple[str, ...]
    adapters: tuple[str, ...] = ("",)


class ModelPane:
    """State of one model of the chat; a view reads it, the chat changes it.

    Args:
        name: MODEL as typed.
        engine_thread: The engine thread.
        adapter: Adapter that replies.

    Attributes:
        generation: The reply that is being generated; None when there is none.
        context_used: Prompt and reply tokens of the last reply; 0 before the first.
        first_token_seconds: Time to first token of the last reply; 0 when unknown.
        score: Score of the last reply; None when unknown.
    """

    def __init__(self, name: str, engine_thread: EngineThread, adapter: str = "") -> None:
        self.name = name
        self.adapter = adapter
        self.engine_thread = engine_thread
        self.generation: PendingReply | None = None
        self.context_used = 0
        self.first_token_seconds = 0.0
        self.score: ReplyScore | None = None
        self._last_tokens_per_second = 0.0

    @property
    def engine(self) -> Engine | None:
        """The loaded engine; None while it loads."""
        return self.engine_thread.engine

    @property
    def summary(self) -> str:
        """Parameters, precision and device of the loaded model; empty when unknown."""
        return self.engine.summary if isinstance(self.engine, Describes) else ""

    @property
    def context_length(self) -> int:
        """Context length in tokens, prompt and reply together; 0 when unknown."""
        return self.engine.context_length if isinstance(self.engine, Renders) else 0

    @property
    def tokens_per_second(self) -> float:
        """Speed of the current or last reply; 0 when unknown."""
        return self.generation.tokens_per_second if self.generation is not None else self._last_tokens_per_second

    def template_opens_thoughts(self, template_arguments: Mapping[str, Any]) -> bool:
        """Return whether the chat template opens the thoughts of a reply; False when unknown, for example behind a server.

        Args:
            template_arguments: Chat template arguments that override the engine's own.
        """
        engine = self.engine
        try:
            if (template_arguments or self.adapter) and isinstance(engine, Inspects):  # render takes neither
                tokens = engine.prompt_tokens(Request("look", (PROBE,), adapter=self.adapter, template_arguments=template_arguments))
                return opens_thoughts("".join(token.text for token in tokens))
            return isinstance(engine, Renders) and opens_thoughts(engine.render([PROBE]))
        except SftchatError:
            return False  # the template rejects the message or the arguments; the request itself reports the error

    def replace_model(self, name: str, engine_thread: EngineThread) -> None:
        """Replace the model of the pane and clear the statistics of its last reply."""
        self.name, self.engine_thread, self.adapter = name, engine_thread, ""
        self.context_used, self.first_token_seconds, self.score, self._last_tokens_per_second = 0, 0.0, None, 0.0

    def finish_reply(self, generation: PendingReply, prompt_tokens: int) -> None:
        """Store the statistics of a finished reply; ``prompt_tokens`` is 0 when unknown."""
        self.generation = None
        self._last_tokens_per_second = generation.tokens_per_second
        self.first_token_seconds = generation.first_token_seconds
        if prompt_tokens:
            self.context_used = prompt_tokens + generation.tokens
