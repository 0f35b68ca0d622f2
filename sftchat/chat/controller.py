"""Chat controller: sends messages to one or more models and handles commands while engines load and generate on their own threads.

Independent of the terminal: ``sftchat.chat.ui`` has the views. All methods of the controller and of its view run on the UI thread; engine
threads call back through ``post`` only.

Lines typed while a reply is generated are queued. A chunk of a reply or a job that was stopped is recognised by its object and ignored. The
pieces of an unfinished reply are saved as rows of their own until the reply is complete (``chat.sessions``).
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
from sftchat.chat.pane import EngineThread, JobHandle, Jobs, ModelPane, Opening
from sftchat.chat.rows import Rows
from sftchat.chat.scorer import GoldScorer, ReplyScoring
from sftchat.chat.sessions import Session
from sftchat.chat.turn import TurnRunner
from sftchat.engine import Engine
from sftchat.errors import ModelError, SftchatError, UsageError, in_one_line
from sftchat.task import Task
from sftchat.types import SamplingParams


def _closed(model: str) -> Engine:
    """Default ``load``: no more models can be opened."""
    raise UsageError(f"this conversation cannot open '{model}': it keeps the models it began with")


def _unknown(model: str) -> str:
    """Default ``identify``: the identity is unknown."""
    return ""


@dataclass(frozen=True)
class Models:
    """Functions that open more models during a chat.

    Attributes:
        check: Validates MODEL from names and files alone, without loading; raises ``SftchatError``.
        load: Opens a model; slow, called on an engine thread.
        identify: Returns a hash of everything that decides the model's replies, empty when unknown. May read all weights: call it on an
            engine thread.
    """

    check: Callable[[str], object] = _closed
    load: Callable[[str], Engine] = _closed
    identify: Callable[[str], str] = _unknown


@dataclass(frozen=True)
class ChatServices:
    """Services that commands can use, other than the models.

    Attributes:
        scorer: Scores replies; None when the chat has no task.
        session: Saves the conversation.
        models: Opens more models.
        rows: Appends replies to data files.
    """

    scorer: GoldScorer | None = None
    session: Session = field(default_factory=Session)
    models: Models = field(default_factory=Models)
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
        services: Services other than the models.
        conversation: Earlier conversation to continue.
        settings: Initial generation settings.
        remarks: Messages to show at the start.
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
        remarks: Sequence[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._conversation = conversation or Conversation()
        self._settings = settings or Settings()
        self.services = services or ChatServices()
        self.pending: deque[str] = deque()
        self._take_pending()
        self.display = Display()
        self.panes: list[ModelPane] = []
        engine_threads: dict[Callable[[], Engine], EngineThread] = {}
        for opening in openings:
            engine_thread = engine_threads.setdefault(opening.load, EngineThread(opening.load, view.post))
            self.panes += [ModelPane(name, engine_thread, adapter) for name, adapter in zip(opening.models, opening.adapters, strict=True)]
        self._view = view
        self.commands = commands
        self._remarks = remarks
        self._clock = clock
        self._turn: TurnRunner | None = None
        self._jobs = Jobs(view, self.next)
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
        return "working" if self.doing else "ready"

    @property
    def doing(self) -> str:
        """Title of the running job; empty when there is none."""
        return self._jobs.doing

    @property
    def settled(self) -> bool:
        """True when nothing is running, including the scoring of replies."""
        return self.state == "ready" and not self._scoring.under_way

    def start(self) -> None:
        """Start to load the models."""
        for remark in self._remarks:
            self._view.info(remark)
        for command in self.commands.shadowed:
            self._view.error(f"a plugin's command '/{command.name}' is ignored: the name is taken")
        for engine_thread in self._engine_threads():
            engine_thread.start(self.next, partial(self._not_loaded, engine_thread))

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
            self.next()
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
        self._turn = TurnRunner(self, conversation, partial_answers or {}, self._view, self._clock, answered=self._answers, over=self.next)
        self._turn.start()

    @former_arguments("ChatContext.work", column="pane")
    def work(self, title: str, job: Callable[[Engine, JobHandle], T], done: Callable[[T], None], pane: int | None = None) -> None:
        """Run a slow job on the engine thread of a pane; see ``ChatContext.work``."""
        engine_thread = (self.panes[pane] if pane is not None else self.focus).engine_thread
        self._jobs.start(title, job, done, engine_thread)

    def switch(self, model: str, then: Callable[[], None] | None = None) -> None:
        """Replace the model of the focused pane; the old model stays until the new one is loaded."""
        self.services.models.check(model)
        pane, loading = self.focus, EngineThread(partial(self.services.models.load, model), self._view.post)
        self._loading = loading

        def arrived() -> None:
            old = pane.engine_thread
            pane.replace(model, loading)
            self._loading = None
            if all(other.engine_thread is not old for other in self.panes):
                old.end()
            self._save()
            if then is not None:
                then()
            self.next()

        def failed(error: Exception) -> None:
            self._loading = None
            self._view.error(f"{in_one_line(error)}; {pane.name} stays")
            self.next()

        loading.start(arrived, failed)

    def exit(self) -> None:
        """Leave the chat."""
        self._view.leave(None)

    # UI thread

    def _not_loaded(self, engine_thread: EngineThread, error: Exception) -> None:
        """Leave the chat with an error: a model that was requested at the start could not be loaded."""
        if not isinstance(error, SftchatError):
            names = " and ".join(f"'{pane.name}'" for pane in self.panes if pane.engine_thread is engine_thread)
            unforeseen = ModelError(f"model {names} could not be loaded: {in_one_line(error)}; --traceback shows where")
            unforeseen.__cause__ = error
            error = unforeseen
        self._view.leave(error)

    def _save(self) -> None:
        self.services.session.save(self._conversation, self._settings, [pane.name for pane in self.panes], self.pending)

    def _engine_threads(self) -> list[EngineThread]:
        """The distinct engine threads, including that of a model that is being loaded."""
        return list(dict.fromkeys([pane.engine_thread for pane in self.panes] + ([self._loading] if self._loading is not None else [])))

    def _handle(self, line: str) -> None:
        """Run a command or send a message; requires that the chat can process it now."""
        parsed = self.commands.parse(line)
        self._view.show_typed(line)
        if parsed.command is not None:
            self._run(parsed.command, parsed.text)
        else:
            self.generate(self.conversation.ask(parsed.text))

    def _run(self, command: ChatCommand, argument: str) -> None:
        """Run a command; every exception is shown as a one-line error."""

        def run() -> None:
            if reason := command.unavailable_reason(self):
                self._view.error(f"/{command.name}: {reason}")
            else:
                command.run(self, argument)

        try:
            call_plugin(f"/{command.name}", run, may_refuse=True)
        except SftchatError as error:
            self._view.error(in_one_line(error))

    def next(self) -> None:
        """Process what waits, while the chat is ready: first a message without a reply (from a killed process), then pending lines."""
        self._take_pending()
        if self.conversation.waiting and self.state == "ready":
            self._view.show_typed(self.conversation.path[-1].question)
            self.generate(self.conversation)
        while self.pending and self.state == "ready":
            self._handle(self.pending.popleft())
            self._save()

    def _take_pending(self) -> None:
        self.pending.extendleft(reversed(self.services.session.pending))
        self.services.session.pending = ()

    def _answers(self, answers: tuple[Answer, ...]) -> None:
        self._turn = None
        self.conversation = self.conversation.answer(*answers)
        self._scoring.score_all()
