"""A talk with one or more models: what is typed reaches them in order, and what they say comes back, while workers load and generate.

No terminal here: ``terminal`` and ``plain`` are two views of a talk. Every method of a talk and of its view runs on one thread, the view's;
workers reach it through ``post`` only.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal, Protocol, TypeVar

from sftchat.chat.column import Column, Opening
from sftchat.chat.commands import Commands
from sftchat.chat.conversation import Answer, Conversation, Mark
from sftchat.chat.desk import Desk
from sftchat.chat.display import Display
from sftchat.chat.judging import Judge
from sftchat.chat.passing import Pass
from sftchat.chat.settings import Settings
from sftchat.chat.worker import Work, Worker
from sftchat.commands import ChatCommand, Fragments
from sftchat.engines.base import Engine
from sftchat.errors import SftchatError, UsageError, in_one_line
from sftchat.types import SamplingParams

T = TypeVar("T")


class View(Protocol):
    """What shows a talk to a person or to a pipe."""

    def post(self, action: Callable[[], None]) -> None:
        """Have an action run on the view's thread; called from any thread, harmless after the view is gone."""

    def show_typed(self, text: str) -> None:
        """A line the user typed has its turn."""

    def begin_reply(self, column: int, said: str) -> None:
        """A column begins to reply; what it has said already is not empty when a reply is continued, and not among the pieces."""

    def show_piece(self, text: str, column: int) -> None:
        """The reply of a column goes on."""

    def end_reply(self, column: int) -> None:
        """The reply of a column is over, for whatever reason; every ``begin_reply`` has one."""

    def show_mark(self, mark: Mark, column: int) -> None:
        """What the task thinks of a column's last reply became known, after its end."""

    def say(self, text: str | Fragments) -> None:
        """Show lines that are not the model's."""

    def complain(self, text: str) -> None:
        """Show that something went wrong, in one line."""

    def propose(self, text: str) -> bool:
        """Put text into the input line for the user to change and send; False where there is no input line."""

    def leave(self, error: Exception | None) -> None:
        """End the view; with an error, a model could not be loaded."""


class Talk:
    """The state machine of a chat; it is the ``ChatContext`` that commands get.

    Args:
        openings: How to open the models; each has one column or more, and those with the same ``load`` share an engine.
        view: Who shows the talk.
        commands: What may be typed after a slash.
        desk: What the talk has beside its models.
        conversation: What was said before.
        settings: How replies are generated to begin with.
        clock: Seconds that never run backwards.

    Attributes:
        columns: The models.
        pending: Lines typed while the talk was busy; each gets its turn.
        doing: Title of the job under way; empty when there is none.
        display: How replies are shown; the view reads it.
    """

    def __init__(
        self,
        openings: Sequence[Opening],
        view: View,
        *,
        commands: Commands,
        desk: Desk | None = None,
        conversation: Conversation | None = None,
        settings: Settings | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._conversation = conversation or Conversation()
        self._settings = settings or Settings()
        self.desk = desk or Desk()
        self.pending: deque[str] = deque()
        self.doing = ""
        self.display = Display()
        self.columns: list[Column] = []
        workers: dict[Callable[[], Engine], Worker] = {}
        for opening in openings:
            worker = workers.setdefault(opening.load, Worker(opening.load, view.post))
            self.columns += [Column(name, worker, adapter) for name, adapter in zip(opening.models, opening.adapters, strict=True)]
        self._view = view
        self._commands = commands
        self._clock = clock
        self._pass: Pass | None = None
        self._work: Work | None = None
        self._judging = 0
        self._coming: Worker | None = None

    @property
    def conversation(self) -> Conversation:
        """What was said."""
        return self._conversation

    @conversation.setter
    def conversation(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self._keep()

    @property
    def settings(self) -> Settings:
        """How the next reply is generated."""
        return self._settings

    @settings.setter
    def settings(self, settings: Settings) -> None:
        self._settings = settings
        self._keep()

    @property
    def sampling(self) -> SamplingParams:
        """How tokens of the next reply are chosen."""
        return self.settings.sampling

    @property
    def focus(self) -> Column:
        """The column that commands about one reply mean."""
        return self.columns[self.conversation.column]

    @property
    def engine(self) -> Engine | None:
        """The loaded model in focus; None while it loads."""
        return self.focus.engine

    @property
    def commands(self) -> Commands:
        """What may be typed after a slash."""
        return self._commands

    @property
    def state(self) -> Literal["loading", "generating", "working", "ready"]:
        """What the talk is doing."""
        if self._coming is not None or any(column.engine is None for column in self.columns):
            return "loading"
        if self._pass is not None:
            return "generating"
        return "working" if self._work is not None else "ready"

    @property
    def settled(self) -> bool:
        """Nothing is under way, not even the judging of a reply."""
        return self.state == "ready" and not self._judging

    @property
    def tokens_per_second(self) -> float:
        """Speed of the reply in focus, or of the last one; 0 when unknown."""
        return self.focus.tokens_per_second

    def start(self) -> None:
        """Begin to load the models."""
        for command in self._commands.shadowed:
            self._view.complain(f"a plugin's command '/{command.name}' is ignored: the name is taken")
        for worker in self._workers():
            worker.start(self.next, self._view.leave)

    def close(self, timeout: float = 2.0) -> None:
        """Stop what is under way and free the engines; waits no longer than ``timeout`` seconds for each."""
        if self._pass is not None:
            self._pass.cancel()
        if self._work is not None:
            self._work.stop.set()
        for worker in self._workers():
            worker.end()
        for worker in self._workers():
            worker.join(timeout)

    def submit(self, line: str) -> None:
        """Take a typed line: run it now, or when its turn comes."""
        if not line.strip():
            return
        try:
            command = self._commands.parse(line).command
        except SftchatError as error:
            self._view.show_typed(line)
            self._view.complain(str(error))
            return
        if self.state == "ready" or (command is not None and command.while_generating):
            self._handle(line)
        else:
            self.pending.append(line)

    def stop(self) -> bool:
        """End the replies or the job under way and keep their parts; False when there is nothing to stop.

        An engine notices at its next token; the user need not wait for it.
        """
        if self._pass is not None:
            self._pass.stop()
            return True
        if self._work is not None:
            self._work.stop.set()
            self._view.say(f"{self.doing}: stopped")
            self._worked(self._work)
            return True
        return False

    def say(self, text: str | Fragments) -> None:
        """Show lines to the user; the model does not see them."""
        self._view.say(text)

    def complain(self, text: str) -> None:
        """Show one line that says what went wrong."""
        self._view.complain(text)

    def propose(self, text: str) -> bool:
        """Put text into the input line; False where there is none."""
        return self._view.propose(text)

    def send(self, message: str) -> None:
        """Send a message as if the user had typed it, a leading slash included."""
        self.submit(f"/{message}" if message.startswith("/") else message)

    def generate(self, conversation: Conversation, begun: Mapping[int, Answer] | None = None) -> None:
        """Have the models answer the message that waits at the end of a conversation, which becomes the talk's.

        Raises:
            ValueError: When no message waits.
        """
        if not conversation.waiting:
            raise ValueError("no message waits for a reply")
        if self._pass is not None:
            raise UsageError("the models reply already")
        self.conversation = conversation
        self._pass = Pass(self, conversation, begun or {}, self._view, self._clock)
        self._pass.start()

    def work(self, title: str, job: Callable[[Engine, Work], T], done: Callable[[T], None], column: int | None = None) -> None:
        """Do something slow with a model, in its worker."""
        if self._work is not None:
            raise UsageError(f"the talk is busy: {self.doing}")
        work = Work(lambda text: self._view.post(partial(self._view.say, text)))
        self._work, self.doing = work, title

        def run(engine: Engine) -> None:
            try:
                result = job(engine, work)
            except Exception as error:  # whatever breaks inside a model library ends the job, not the talk
                self._view.post(partial(self._worked, work, problem=in_one_line(error)))
            else:
                self._view.post(partial(self._worked, work, partial(done, result)))

        (self.columns[column] if column is not None else self.focus).worker.do(run)

    def switch(self, model: str, then: Callable[[], None] | None = None) -> None:
        """Load another model in place of that in focus, which stays until the other is there."""
        self.desk.models.check(model)
        column, coming = self.focus, Worker(partial(self.desk.models.load, model), self._view.post)
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

    # on the view's thread

    def _keep(self) -> None:
        """Keep the talk as it is now."""
        self.desk.session.save(self._conversation, self._settings, [column.name for column in self.columns])

    def _workers(self) -> list[Worker]:
        """The workers of the columns, each once."""
        return list(dict.fromkeys([column.worker for column in self.columns] + ([self._coming] if self._coming is not None else [])))

    def _handle(self, line: str) -> None:
        """Run a command or send a message; the talk is ready for it."""
        parsed = self._commands.parse(line)
        self._view.show_typed(line)
        if parsed.command is not None:
            self._run(parsed.command, parsed.text)
        else:
            self.generate(self.conversation.ask(parsed.text))

    def _run(self, command: ChatCommand, argument: str) -> None:
        """Run a command; whatever it raises is one line to the user."""
        try:
            if reason := command.impossible(self):
                self._view.complain(f"/{command.name}: {reason}")
            else:
                command.run(self, argument)
        except SftchatError as error:
            self._view.complain(str(error))
        except Exception as error:  # a plugin's command may fail in any way; the talk goes on
            self._view.complain(f"/{command.name} failed: {in_one_line(error)}")

    def next(self) -> None:
        """Give the lines that wait their turn, as far as possible."""
        while self.pending and self.state == "ready":
            self._handle(self.pending.popleft())

    def answered(self, answers: tuple[Answer, ...]) -> None:
        """The replies of a pass are over."""
        self._pass = None
        self.conversation = self.conversation.answer(*answers)
        if self.desk.judge is not None:
            for column, answer in enumerate(answers):
                self.columns[column].mark = None
                if not answer.silent:
                    self._judge(self.desk.judge, column, answer)

    def _judge(self, judge: Judge, column: int, answer: Answer) -> None:
        """Have a reply judged in the worker of its model, so that a slow scorer is in nobody's way."""
        id, messages = self.conversation.head, self.conversation.unanswered().seen_by(column).messages

        def job(engine: Engine) -> None:
            try:
                mark = judge.mark(messages, answer.reply)
            except Exception as error:  # a scorer that fails costs a mark, never the talk
                self._view.post(partial(self._judged, id, column, answer, None, in_one_line(error)))
            else:
                self._view.post(partial(self._judged, id, column, answer, mark))

        self._judging += 1
        self.columns[column].worker.do(job)

    def _judged(self, id: int, column: int, answer: Answer, mark: Mark | None, problem: str = "") -> None:
        """A mark came; the talk may be another by now."""
        self._judging -= 1
        if problem:
            self._view.complain(problem)
        nodes = self.conversation.nodes
        if mark is None or id > len(nodes) or column >= len(nodes[id - 1].answers) or nodes[id - 1].answers[column].reply != answer.reply:
            return
        now = nodes[id - 1].answers[column]
        self.conversation = self.conversation.changed(id, column, replace(now, mark=mark))
        if self.conversation.head == id:
            self.columns[column].mark = mark
            self._view.show_mark(mark, column)

    def _worked(self, work: Work, done: Callable[[], None] | None = None, problem: str = "") -> None:
        """A job is over; of one that was stopped, it is too late."""
        if work is not self._work:
            return
        self._work, self.doing = None, ""
        if problem:
            self._view.complain(problem)
        elif done is not None:
            try:
                done()
            except Exception as error:  # a plugin's function may fail in any way; the talk goes on
                self._view.complain(in_one_line(error))
        self.next()
