"""A talk with a model: what is typed reaches it in order, and what it says comes back, while loading and generating run in a worker.

No terminal here: ``terminal`` and ``plain`` are two views of a talk. Every method of a talk and of its view runs on one thread, the view's;
the worker reaches it through ``post`` only.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Literal, Protocol

from sftchat.chat.commands import Commands
from sftchat.chat.conversation import Conversation
from sftchat.chat.reply import Generation, stream_reply
from sftchat.commands import ChatCommand
from sftchat.engines.base import Chunk, Engine, Request
from sftchat.errors import SftchatError
from sftchat.types import FinishReason, Reply, SamplingParams


class View(Protocol):
    """What shows a talk to a person or to a pipe."""

    def post(self, action: Callable[[], None]) -> None:
        """Have an action run on the view's thread; called from any thread, harmless after the view is gone."""

    def show_typed(self, text: str) -> None:
        """A line the user typed has its turn."""

    def show_piece(self, text: str) -> None:
        """The reply goes on."""

    def end_reply(self) -> None:
        """The reply is over, for whatever reason."""

    def say(self, text: str) -> None:
        """Show lines that are not the model's."""

    def complain(self, text: str) -> None:
        """Show that something went wrong, in one line."""

    def leave(self, error: Exception | None) -> None:
        """End the view; with an error, the model could not be loaded."""


class Talk:
    """The state machine of a chat; it is the ``ChatContext`` that commands get.

    Args:
        load: Opens the model; runs in the worker.
        view: Who shows the talk.
        commands: What may be typed after a slash.
        system: System prompt to begin with.
        sampling: Sampling parameters to begin with.
        clock: Seconds that never run backwards.

    Attributes:
        conversation: What was said.
        sampling: How the next reply is generated.
        pending: Lines typed while the talk was busy; each gets its turn.
    """

    def __init__(
        self,
        load: Callable[[], Engine],
        view: View,
        *,
        commands: Commands,
        system: str = "",
        sampling: SamplingParams | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.conversation = Conversation(system)
        self.sampling = sampling or SamplingParams()
        self.pending: deque[str] = deque()
        self._load = load
        self._view = view
        self._commands = commands
        self._clock = clock
        self._engine: Engine | None = None
        self._generation: Generation | None = None
        self._rate = 0.0
        self._jobs: queue.SimpleQueue[tuple[Generation, Request] | None] = queue.SimpleQueue()
        # a daemon, because a model that is being read cannot be interrupted and must not keep the user from leaving
        self._worker = threading.Thread(target=self._work, name="sftchat-engine", daemon=True)

    @property
    def engine(self) -> Engine | None:
        """The loaded model; None while it loads."""
        return self._engine

    @property
    def commands(self) -> Commands:
        """What may be typed after a slash."""
        return self._commands

    @property
    def state(self) -> Literal["loading", "generating", "ready"]:
        """What the talk is doing."""
        if self._engine is None:
            return "loading"
        return "ready" if self._generation is None else "generating"

    @property
    def tokens_per_second(self) -> float:
        """Speed of the reply under way, or of the last one; 0 when unknown."""
        return self._generation.tokens_per_second if self._generation is not None else self._rate

    def start(self) -> None:
        """Begin to load the model."""
        for command in self._commands.shadowed:
            self._view.complain(f"a plugin's command '/{command.name}' is ignored: the name is taken")
        self._worker.start()

    def close(self, timeout: float = 2.0) -> None:
        """Stop what is under way and free the engine; waits no longer than ``timeout`` seconds for it."""
        if self._generation is not None:
            self._generation.stop.set()
        self._jobs.put(None)
        if self._worker.is_alive():
            self._worker.join(0 if self._engine is None else timeout)

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
        """End the reply under way and keep its part; False when there is none.

        The engine notices at its next token; the user need not wait for it.
        """
        if self._generation is None:
            return False
        self._generation.stop.set()
        self._finish(self._generation, "cancelled")
        return True

    def say(self, text: str) -> None:
        """Show lines to the user; the model does not see them."""
        self._view.say(text)

    def send(self, message: str) -> None:
        """Send a message as if the user had typed it, a leading slash included."""
        self.submit(f"/{message}" if message.startswith("/") else message)

    def exit(self) -> None:
        """Leave the chat."""
        self._view.leave(None)

    # on the view's thread

    def _handle(self, line: str) -> None:
        """Run a command or send a message; the talk is ready for it."""
        parsed = self._commands.parse(line)
        self._view.show_typed(line)
        if parsed.command is not None:
            self._run(parsed.command, parsed.text)
            return
        self.conversation = self.conversation.ask(parsed.text, self.sampling)
        request = self.conversation.last_request
        assert request is not None
        self._generation = Generation()
        self._jobs.put((self._generation, request))

    def _run(self, command: ChatCommand, argument: str) -> None:
        """Run a command; whatever it raises is one line to the user."""
        try:
            command.run(self, argument)
        except SftchatError as error:
            self._view.complain(str(error))
        except Exception as error:  # a plugin's command may fail in any way; the talk goes on
            self._view.complain(f"/{command.name} failed: {_describe(error)}")

    def _next(self) -> None:
        """Give the lines that wait their turn, as far as possible."""
        while self.pending and self.state == "ready":
            self._handle(self.pending.popleft())

    def _loaded(self, engine: Engine) -> None:
        """The model is there."""
        self._engine = engine
        self._next()

    def _piece(self, generation: Generation, chunk: Chunk) -> None:
        """A piece of a reply came; of one that was stopped, it is too late."""
        if generation is not self._generation:
            return
        generation.add(chunk, self._clock())
        if chunk.text:
            self._view.show_piece(chunk.text)

    def _finish(self, generation: Generation, why: FinishReason, prompt_tokens: int = 0, problem: str = "") -> None:
        """End a reply: keep what was said, or take the message back when nothing was."""
        if generation is not self._generation:
            return
        self._generation, self._rate = None, generation.tokens_per_second
        self._view.end_reply()
        text = generation.text
        if text or why in ("stop", "length"):
            self.conversation = self.conversation.answer(Reply(text, why, prompt_tokens, generation.tokens))
            fate = "what was said is kept"
        else:
            self.conversation = self.conversation.withdraw()
            fate = "the message is taken back"
        if why == "error":
            self._view.complain(f"{problem}; {fate}")
        elif why == "cancelled":
            self._view.say(f"stopped; {fate}")
        elif why == "length":
            self._view.say(f"cut at {generation.tokens} tokens; '/set max_new_tokens N' allows more")
        elif not text:
            self._view.say("the model said nothing")
        self._next()

    # in the worker

    def _work(self) -> None:
        """Load the model, then answer until told to end."""
        try:
            engine = self._load()
        except Exception as error:
            self._view.post(partial(self._view.leave, error))
            return
        self._view.post(partial(self._loaded, engine))
        while (job := self._jobs.get()) is not None:
            self._generate(engine, *job)
        engine.close()

    def _generate(self, engine: Engine, generation: Generation, request: Request) -> None:
        """Generate one reply."""

        def show(chunk: Chunk) -> None:
            self._view.post(partial(self._piece, generation, chunk))

        if generation.stop.is_set():
            return
        try:
            reply = stream_reply(engine, request, show, generation.stop)
        except Exception as error:  # whatever breaks inside a model library ends the reply, not the talk
            problem = str(error) if isinstance(error, SftchatError) else _describe(error)
            self._view.post(partial(self._finish, generation, "error", 0, problem))
        else:
            self._view.post(partial(self._finish, generation, reply.finish_reason, reply.prompt_tokens))


def _describe(error: Exception) -> str:
    """An unexpected error in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())
