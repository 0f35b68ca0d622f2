"""Chat controller: sends messages to one or more models and handles commands while engines load and generate on their own threads.

Independent of the terminal: ``sftchat.chat.ui`` has the views. All methods of the controller and of its view run on the UI thread; engine
threads call back through ``post`` only.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Literal, TypeVar

from sftchat._util.plugin_calls import call_plugin
from sftchat.chat.command_line import Commands
from sftchat.chat.context import ChatCommand, Fragments
from sftchat.chat.conversation import Answer, Conversation
from sftchat.chat.engine_thread import EngineThread, JobHandle, Jobs
from sftchat.chat.pane import ModelPane, Opening
from sftchat.chat.scorer import ReplyScoring
from sftchat.chat.services import ChatServices
from sftchat.chat.settings import Display, Settings
from sftchat.chat.turn import TurnRunner
from sftchat.chat.view import View
from sftchat.engine import Engine
from sftchat.errors import ModelError, SftchatError, UsageError, in_one_line
from sftchat.types import SamplingParams

T = TypeVar("T")


class ChatController:
    """State machine of a chat; implements the ``ChatContext`` that commands receive.

    Args:
        openings: How to open the models; each has one pane or more. Openings with the same ``load`` share an engine.
        view: Displays the chat.
        commands: The slash commands.
        desk: Services other than the models.
        conversation: Earlier conversation to continue.
        settings: Initial generation settings.
        remarks: Messages to show at the start.
        clock: Monotonic clock in seconds.

    Attributes:
        columns: The panes, one for each model.
        pending: Lines typed while the chat was busy; processed in order.
        display: Display options; read by the view.
    """

    def __init__(
        self,
        openings: Sequence[Opening],
        view: View,
        *,
        commands: Commands,
        desk: ChatServices | None = None,
        conversation: Conversation | None = None,
        settings: Settings | None = None,
        remarks: Sequence[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._conversation = conversation or Conversation()
        self._settings = settings or Settings()
        self.desk = desk or ChatServices()
        self.pending: deque[str] = deque()
        self._take_pending()
        self.display = Display()
        self.columns: list[ModelPane] = []
        workers: dict[Callable[[], Engine], EngineThread] = {}
        for opening in openings:
            worker = workers.setdefault(opening.load, EngineThread(opening.load, view.post))
            self.columns += [ModelPane(name, worker, adapter) for name, adapter in zip(opening.models, opening.adapters, strict=True)]
        self._view = view
        self._commands = commands
        self._remarks = remarks
        self._clock = clock
        self._pass: TurnRunner | None = None
        self._jobs = Jobs(view, self.next)
        self._marking = ReplyScoring(self, view)
        self._coming: EngineThread | None = None

    @property
    def conversation(self) -> Conversation:
        """The current conversation."""
        return self._conversation

    @conversation.setter
    def conversation(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self._keep()

    @property
    def settings(self) -> Settings:
        """Generation settings of the next reply."""
        return self._settings

    @settings.setter
    def settings(self, settings: Settings) -> None:
        self._settings = settings
        self._keep()

    @property
    def sampling(self) -> SamplingParams:
        """Sampling parameters of the next reply."""
        return self.settings.sampling

    @property
    def focus(self) -> ModelPane:
        """The pane that commands about one reply apply to."""
        return self.columns[self.conversation.column]

    @property
    def engine(self) -> Engine | None:
        """The loaded engine of the focused pane; None while it loads."""
        return self.focus.engine

    @property
    def commands(self) -> Commands:
        """The slash commands."""
        return self._commands

    @property
    def state(self) -> Literal["loading", "generating", "working", "ready"]:
        """Current state of the chat."""
        if self._coming is not None or any(column.engine is None for column in self.columns):
            return "loading"
        if self._pass is not None:
            return "generating"
        return "working" if self.doing else "ready"

    @property
    def doing(self) -> str:
        """Title of the running job; empty when there is none."""
        return self._jobs.doing

    @property
    def settled(self) -> bool:
        """True when nothing is running, including the scoring of replies."""
        return self.state == "ready" and not self._marking.under_way

    @property
    def tokens_per_second(self) -> float:
        """Speed of the current or last reply in the focused pane; 0 when unknown."""
        return self.focus.tokens_per_second

    def start(self) -> None:
        """Start to load the models."""
        for remark in self._remarks:
            self._view.say(remark)
        for command in self._commands.shadowed:
            self._view.complain(f"a plugin's command '/{command.name}' is ignored: the name is taken")
        for worker in self._workers():
            worker.start(self.next, partial(self._not_loaded, worker))

    def close(self, timeout: float = 2.0) -> None:
        """Cancel running work and free the engines; wait at most ``timeout`` seconds for each."""
        if self._pass is not None:
            self._pass.cancel()
        self._jobs.cancel()
        for worker in self._workers():
            worker.end()
        for worker in self._workers():
            worker.join(timeout)

    def submit(self, line: str) -> None:
        """Process a typed line: now if possible, otherwise when the chat is ready."""
        if not line.strip():
            return
        try:
            command = self._commands.parse(line).command
        except SftchatError as error:
            self._view.show_typed(line)
            self._view.complain(str(error))
            return
        if self.state == "ready" or (command is not None and command.allowed_while_busy):
            self._handle(line)
            self.next()
        else:
            self.pending.append(line)
            self._keep()

    def stop(self) -> bool:
        """Stop the running replies or job and keep partial replies; False when nothing is running.

        The engine stops at its next token; the method returns at once.
        """
        if self._pass is not None:
            self._pass.stop()
            return True
        return self._jobs.stop()

    def say(self, text: str | Fragments) -> None:
        """Show lines to the user; they are not part of the conversation."""
        self._view.say(text)

    def complain(self, text: str) -> None:
        """Show a one-line error."""
        self._view.complain(text)

    def propose(self, text: str) -> bool:
        """Put text into the input line; False when there is no input line."""
        return self._view.propose(text)

    def send(self, message: str) -> None:
        """Send a message as if the user had typed it; a leading slash does not start a command."""
        self.submit(f"/{message}" if message.startswith("/") else message)

    def generate(self, conversation: Conversation, begun: Mapping[int, Answer] | None = None) -> None:
        """Generate replies to the last message of ``conversation``, which becomes the current conversation.

        Raises:
            ValueError: When no message waits for a reply.
        """
        if not conversation.waiting:
            raise ValueError("no message waits for a reply")
        if self._pass is not None:
            raise UsageError("the models reply already")
        self.conversation = conversation
        self._pass = TurnRunner(self, conversation, begun or {}, self._view, self._clock, answered=self._answers, over=self.next)
        self._pass.start()

    def work(self, title: str, job: Callable[[Engine, JobHandle], T], done: Callable[[T], None], column: int | None = None) -> None:
        """Run a slow job on the engine thread of a pane; see ``ChatContext.work``."""
        worker = (self.columns[column] if column is not None else self.focus).worker
        self._jobs.start(title, job, done, worker)

    def switch(self, model: str, then: Callable[[], None] | None = None) -> None:
        """Replace the model of the focused pane; the old model stays until the new one is loaded."""
        self.desk.models.check(model)
        column, coming = self.focus, EngineThread(partial(self.desk.models.load, model), self._view.post)
        self._coming = coming

        def arrived() -> None:
            old = column.worker
            column.replace(model, coming)
            self._coming = None
            if all(other.worker is not old for other in self.columns):
                old.end()
            self._keep()
            if then is not None:
                then()
            self.next()

        def failed(error: Exception) -> None:
            self._coming = None
            self._view.complain(f"{in_one_line(error)}; {column.name} stays")
            self.next()

        coming.start(arrived, failed)

    def exit(self) -> None:
        """Leave the chat."""
        self._view.leave(None)

    # UI thread

    def _not_loaded(self, worker: EngineThread, error: Exception) -> None:
        """Leave the chat with an error: a model that was requested at the start could not be loaded."""
        if not isinstance(error, SftchatError):
            names = " and ".join(f"'{column.name}'" for column in self.columns if column.worker is worker)
            unforeseen = ModelError(f"model {names} could not be loaded: {in_one_line(error)}; --traceback shows where")
            unforeseen.__cause__ = error
            error = unforeseen
        self._view.leave(error)

    def _keep(self) -> None:
        """Save the session."""
        self.desk.session.save(self._conversation, self._settings, [column.name for column in self.columns], self.pending)

    def _workers(self) -> list[EngineThread]:
        """The distinct engine threads, including that of a model that is being loaded."""
        return list(dict.fromkeys([column.worker for column in self.columns] + ([self._coming] if self._coming is not None else [])))

    def _handle(self, line: str) -> None:
        """Run a command or send a message; requires that the chat can process it now."""
        parsed = self._commands.parse(line)
        self._view.show_typed(line)
        if parsed.command is not None:
            self._run(parsed.command, parsed.text)
        else:
            self.generate(self.conversation.ask(parsed.text))

    def _run(self, command: ChatCommand, argument: str) -> None:
        """Run a command; every exception is shown as a one-line error."""

        def run() -> None:
            if reason := command.unavailable_reason(self):
                self._view.complain(f"/{command.name}: {reason}")
            else:
                command.run(self, argument)

        try:
            call_plugin(f"/{command.name}", run, may_refuse=True)
        except SftchatError as error:
            self._view.complain(in_one_line(error))

    def next(self) -> None:
        """Process what waits, while the chat is ready: first a message without a reply (from a killed process), then pending lines."""
        self._take_pending()
        if self.conversation.waiting and self.state == "ready":
            self._view.show_typed(self.conversation.path[-1].question)
            self.generate(self.conversation)
        while self.pending and self.state == "ready":
            self._handle(self.pending.popleft())
            self._keep()

    def _take_pending(self) -> None:
        """Take over the pending lines of a resumed session."""
        self.pending.extendleft(reversed(self.desk.session.pending))
        self.desk.session.pending = ()

    def _answers(self, answers: tuple[Answer, ...]) -> None:
        """Append the replies of the finished turn."""
        self._pass = None
        self.conversation = self.conversation.answer(*answers)
        self._marking.judge_all()
