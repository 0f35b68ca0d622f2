"""Chat controller: sends messages to one or more models and handles commands while engines load and generate on their own threads.

Independent of the terminal: ``sftchat.chat.ui`` has the views. All methods of the controller and of its view run on the UI thread; engine
threads call back through ``post`` only. Lines typed while a reply is generated are queued. Chunks of a reply, and the result of a job, are
ignored when they arrive after it was stopped.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, TypeVar

from sftchat._util.plugin_calls import call_plugin
from sftchat._util.renamed import former_arguments, former_names
from sftchat.chat.commands import Commands
from sftchat.chat.context import ChatCommand, Display, Fragments, Settings, View
from sftchat.chat.conversation import Answer, Conversation
from sftchat.chat.pane import EngineThread, JobHandle, JobRunner, ModelPane, Opening
from sftchat.chat.rows import Rows
from sftchat.chat.scorer import GoldScorer, ReplyScoring
from sftchat.chat.sessions import Session
from sftchat.chat.turn import TurnRunner
from sftchat.engine import Engine
from sftchat.errors import ModelError, SftchatError, UsageError, in_one_line
from sftchat.task import Task
from sftchat.types import SamplingParams


def _refuse_model(model: str) -> Engine:
    """Default of ``check`` and ``load``: no more models can be opened."""
    raise UsageError(f"this conversation cannot open '{model}': it keeps the models it began with")


def _no_identity(model: str) -> str:
    """Default of ``identify``: the identity is unknown."""
    return ""


@dataclass(frozen=True)
class ModelLoader:
    """How to open more models during a chat; by default they are refused.

    Attributes:
        check: Validates MODEL from names and files alone, without loading; raises ``SftchatError``.
        load: Opens a model; slow, called on an engine thread.
        identify: Returns a hash of everything that decides the model's replies, empty when unknown. May read all weights: call it on an
            engine thread.
    """

    check: Callable[[str], object] = _refuse_model
    load: Callable[[str], Engine] = _refuse_model
    identify: Callable[[str], str] = _no_identity


@dataclass(frozen=True)
class ChatServices:
    """Services that commands can use besides the panes.

    Attributes:
        scorer: Scores replies; None when the chat has no task.
        session: Saves the conversation.
        models: Opens more models.
        rows: Appends replies to data files.
    """

    scorer: GoldScorer | None = None
    session: Session = field(default_factory=Session)
    models: ModelLoader = field(default_factory=ModelLoader)
    rows: Rows = field(default_factory=Rows)

    @property
    def task(self) -> Task | None:
        """The task whose scorer scores replies; None when there is none."""
        return self.scorer.task if self.scorer is not None else None


T = TypeVar("T")


@former_names(say="info", complain="error", propose="prefill_input", columns="panes", desk="services")
class ChatController:
    """State machine of a chat; implements the ``ChatContext`` that commands receive.

    Args:
        openings: How to open the models; each has one pane or more. Openings with the same ``load`` share an engine.
        view: Displays the chat.
        commands: The slash commands.
        services: Services that commands can use.
        conversation: Earlier conversation to continue.
        settings: Initial generation settings.
        start_notes: Notes to show at the start.
        announces_models: Whether each loaded model is described in a note.
        clock: Monotonic clock in seconds.

    Attributes:
        commands: The slash commands.
        panes: The panes, one for each model.
        pending: Lines typed while the chat was busy; processed in order.
        display: Display options; read by the view.
    """

    def __init__(
        self,
        openings: Sequence[Opening],
        view: View,
        *,
        commands: Commands,
        services: ChatServices | None = None,
        conversation: Conversation | None = None,
        settings: Settings | None = None,
        start_notes: Sequence[str] = (),
        announces_models: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._conversation = conversation or Conversation()
        self._settings = settings or Settings()
        self.services = services or ChatServices()
        self.pending: deque[str] = deque()
        self._restore_pending()
        self.display = Display()
        self.panes: list[ModelPane] = []
        engine_threads: dict[Callable[[], Engine], EngineThread] = {}
        for opening in openings:
            engine_thread = engine_threads.setdefault(opening.load, EngineThread(opening.load, view.post))
            self.panes += [ModelPane(name, engine_thread, adapter) for name, adapter in zip(opening.models, opening.adapters, strict=True)]
        self._view = view
        self.commands = commands
        self._start_notes = start_notes
        self._announces_models = announces_models
        self._clock = clock
        self._turn: TurnRunner | None = None
        self._jobs = JobRunner(view, self.process_pending)
        self._scoring = ReplyScoring(self, view)
        self._loading: EngineThread | None = None

    @property
    def conversation(self) -> Conversation:
        """The current conversation."""
        return self._conversation

    @conversation.setter
    def conversation(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self._save()

    @property
    def settings(self) -> Settings:
        """Generation settings of the next reply."""
        return self._settings

    @settings.setter
    def settings(self, settings: Settings) -> None:
        self._settings = settings
        self._save()

    @property
    def sampling(self) -> SamplingParams:
        """Sampling parameters of the next reply."""
        return self.settings.sampling

    @property
    def focus(self) -> ModelPane:
        """The pane that commands about one reply apply to."""
        return self.panes[self.conversation.pane]

    @property
    def engine(self) -> Engine | None:
        """The loaded engine of the focused pane; None while it loads."""
        return self.focus.engine

    @property
    def state(self) -> Literal["loading", "generating", "working", "ready"]:
        """Current state of the chat."""
        if self._loading is not None or any(pane.engine is None for pane in self.panes):
            return "loading"
        if self._turn is not None:
            return "generating"
        return "working" if self.job_title else "ready"

    @property
    def job_title(self) -> str:
        """Title of the running job; empty when there is none."""
        return self._jobs.job_title

    @property
    def settled(self) -> bool:
        """True when nothing is running, including the scoring of replies."""
        return self.state == "ready" and not self._scoring.unfinished_count

    def start(self) -> None:
        """Start to load the models."""
        for note in self._start_notes:
            self._view.info(note)
        for command in self.commands.shadowed:
            self._view.error(f"a plugin's command '/{command.name}' is ignored: the name is taken")
        for engine_thread in self._engine_threads():
            engine_thread.start(partial(self._begin_with, engine_thread), partial(self._leave_with_error, engine_thread))

    def _begin_with(self, engine_thread: EngineThread) -> None:
        """Describe the models of an engine that has just been loaded, then process the pending lines."""
        for pane in self.panes:
            if pane.engine_thread is engine_thread and pane.summary and self._announces_models:
                self._view.info(f"{pane.name}: {pane.summary}")
        self.process_pending()

    def close(self, timeout: float = 2.0) -> None:
        """Cancel running work and free the engines; wait at most ``timeout`` seconds for each."""
        if self._turn is not None:
            self._turn.cancel()
        self._jobs.cancel()
        for engine_thread in self._engine_threads():
            engine_thread.end()
        for engine_thread in self._engine_threads():
            engine_thread.join(timeout)

    def submit(self, line: str) -> None:
        """Process a typed line: now if possible, otherwise when the chat is ready."""
        if not line.strip():
            return
        try:
            command = self.commands.parse(line).command
        except SftchatError as error:
            self._view.show_typed(line)
            self._view.error(str(error))
            return
        if self.state == "ready" or (command is not None and command.allowed_while_busy):
            self._handle(line)
            self.process_pending()
        else:
            self.pending.append(line)
            self._save()

    def stop(self) -> bool:
        """Stop the running replies or job and keep partial replies; False when nothing is running.

        The engine stops at its next token; the method returns at once.
        """
        if self._turn is not None:
            self._turn.stop()
            return True
        return self._jobs.stop()

    def info(self, text: str | Fragments) -> None:
        """Show lines to the user; they are not part of the conversation."""
        self._view.info(text)

    def error(self, text: str) -> None:
        """Show a one-line error."""
        self._view.error(text)

    def prefill_input(self, text: str) -> bool:
        """Put text into the input line; False when there is no input line."""
        return self._view.prefill_input(text)

    def send(self, message: str) -> None:
        """Send a message as if the user had typed it; a leading slash does not start a command."""
        self.submit(f"/{message}" if message.startswith("/") else message)

    @former_arguments("ChatContext.generate", begun="partial_answers")
    def generate(self, conversation: Conversation, partial_answers: Mapping[int, Answer] | None = None) -> None:
        """Generate replies to the last message of ``conversation``, which becomes the current conversation.

        Raises:
            ValueError: When no message waits for a reply.
        """
        if not conversation.waiting:
            raise ValueError("no message waits for a reply")
        if self._turn is not None:
            raise UsageError("the models reply already")
        self.conversation = conversation
        self._turn = TurnRunner(
            self, conversation, partial_answers or {}, self._view, self._clock, on_answers=self._add_answers, on_end=self.process_pending
        )
        self._turn.start()

    @former_arguments("ChatContext.work", column="pane")
    def work(self, title: str, job: Callable[[Engine, JobHandle], T], done: Callable[[T], None], pane: int | None = None) -> None:
        """Run a slow job on the engine thread of a pane; see ``ChatContext.work``."""
        engine_thread = (self.panes[pane] if pane is not None else self.focus).engine_thread
        self._jobs.start(title, job, done, engine_thread)

    def switch(self, model: str, then: Callable[[], None] | None = None) -> None:
        """Replace the model of the focused pane; the old model stays until the new one is loaded."""
        self.services.models.check(model)
        pane, new_thread = self.focus, EngineThread(partial(self.services.models.load, model), self._view.post)
        self._loading = new_thread

        def on_loaded() -> None:
            old_thread = pane.engine_thread
            pane.replace_model(model, new_thread)
            self._loading = None
            if all(other.engine_thread is not old_thread for other in self.panes):
                old_thread.end()
            self._save()
            if then is not None:
                then()
            self.process_pending()

        def on_failed(error: Exception) -> None:
            self._loading = None
            self._view.error(f"{in_one_line(error)}; {pane.name} stays")
            self.process_pending()

        new_thread.start(on_loaded, on_failed)

    def exit(self) -> None:
        """Leave the chat."""
        self._view.leave(None)

    def _leave_with_error(self, engine_thread: EngineThread, error: Exception) -> None:
        """Leave the chat: a model that was requested at the start could not be loaded."""
        if not isinstance(error, SftchatError):
            names = " and ".join(f"'{pane.name}'" for pane in self.panes if pane.engine_thread is engine_thread)
            model_error = ModelError(f"model {names} could not be loaded: {in_one_line(error)}; --traceback shows where")
            model_error.__cause__ = error
            error = model_error
        self._view.leave(error)

    def _save(self) -> None:
        self.services.session.save(self._conversation, self._settings, [pane.name for pane in self.panes], self.pending)

    def _engine_threads(self) -> list[EngineThread]:
        """The distinct engine threads, including that of a model that ``switch`` is loading."""
        threads = [pane.engine_thread for pane in self.panes]
        if self._loading is not None:
            threads.append(self._loading)
        return list(dict.fromkeys(threads))

    def _handle(self, line: str) -> None:
        """Run a command or send a message; the caller has checked that the chat is ready for it."""
        parsed = self.commands.parse(line)
        self._view.show_typed(line)
        if parsed.command is not None:
            self._run_command(parsed.command, parsed.text)
        else:
            self.generate(self.conversation.ask(parsed.text))

    def _run_command(self, command: ChatCommand, argument: str) -> None:
        """Run a command; every exception is shown as a one-line error."""

        def run_if_available() -> None:
            if reason := command.unavailable_reason(self):
                self._view.error(f"/{command.name}: {reason}")
            else:
                command.run(self, argument)

        try:
            call_plugin(f"/{command.name}", run_if_available, may_refuse=True)
        except SftchatError as error:
            self._view.error(in_one_line(error))

    def process_pending(self) -> None:
        """While the chat is ready: reply to a message that a killed process left without a reply, then process the pending lines."""
        self._restore_pending()
        if self.conversation.waiting and self.state == "ready":
            self._view.show_typed(self.conversation.path[-1].question)
            self.generate(self.conversation)
        while self.pending and self.state == "ready":
            self._handle(self.pending.popleft())
            self._save()

    def _restore_pending(self) -> None:
        """Put the unprocessed lines of a resumed session before the lines typed since."""
        self.pending.extendleft(reversed(self.services.session.pending))
        self.services.session.pending = ()

    def _add_answers(self, answers: tuple[Answer, ...]) -> None:
        self._turn = None
        self.conversation = self.conversation.answer(*answers)
        self._scoring.score_all()
