"""What a chat command is: ``/name``, what it does, and what it may touch. Built-in commands are objects like those of plugins."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar

from sftchat.types import SamplingParams

if TYPE_CHECKING:
    from sftchat.chat.conversation import Answer, Conversation
    from sftchat.chat.engine_thread import JobHandle
    from sftchat.chat.pane import ModelPane
    from sftchat.chat.services import ChatServices
    from sftchat.chat.settings import Display, Settings
    from sftchat.engine import Engine

T = TypeVar("T")

Style = Literal["", "note", "special", "good", "bad", "trained", "likely", "unlikely", "rare"]
"""How a view may emphasise a piece of text; one without colours shows the text alone."""
Fragments = Sequence[tuple[Style, str]]
"""Text with emphasis: pieces that follow each other, line breaks included."""

_NAME = re.compile(r"[a-z][a-z0-9_-]*")


class ChatContext(Protocol):
    """What a command may see and do; all of it on the thread that runs the command.

    Attributes:
        conversation: What was said; assign a new one to change it. It is about the column in focus (``Conversation.column``).
        settings: How the next reply is generated; assign a new one to change it.
        display: How replies are shown.
    """

    display: Display
    conversation: Conversation
    settings: Settings

    @property
    def sampling(self) -> SamplingParams:
        """The sampling parameters among the settings."""

    @property
    def columns(self) -> Sequence[ModelPane]:
        """The models of the talk, at least one."""

    @property
    def focus(self) -> ModelPane:
        """The column that commands about one reply mean: the first, unless ``/focus`` chose another."""

    @property
    def engine(self) -> Engine | None:
        """The loaded model in focus; None while it loads, which only commands with ``while_generating`` can meet."""

    @property
    def commands(self) -> Mapping[str, ChatCommand]:
        """Every command by name."""

    @property
    def desk(self) -> ChatServices:
        """What the talk has beside the models: the task, its evalset, the session, ways to open models and to keep rows."""

    def say(self, text: str | Fragments) -> None:
        """Show lines to the user; the model does not see them."""

    def complain(self, text: str) -> None:
        """Show one line that says what went wrong."""

    def propose(self, text: str) -> bool:
        """Put text into the input line for the user to change and send; False where there is no input line."""

    def send(self, message: str) -> None:
        """Send a message to the model as if the user had typed it."""

    def generate(self, conversation: Conversation, begun: Mapping[int, Answer] | None = None) -> None:
        """Have the models answer the message that waits at the end of a conversation, which becomes the talk's.

        Args:
            conversation: Ends with a question: ``context.conversation.unanswered()``, or one that was asked.
            begun: Answers by column that there are already: a partial one is continued, one that ended is taken over as it is.
        """

    def work(self, title: str, job: Callable[[Engine, JobHandle], T], done: Callable[[T], None], column: int | None = None) -> None:
        """Do something slow with a model, in its worker; the talk is busy meanwhile, and Ctrl-C sets ``Work.stopped``.

        Args:
            title: What is being done, for the status line.
            job: Called with the engine in the worker; it must not touch the context, and what it raises becomes one line to the user.
            done: Called with the result on the thread of the command, unless the job was stopped or failed.
            column: Whose model; that in focus by default.
        """

    def switch(self, model: str, then: Callable[[], None] | None = None) -> None:
        """Load another model in place of that in focus, which stays until the other is there, and for good when that fails.

        Args:
            model: MODEL.
            then: Called when it is there.

        Raises:
            SftchatError: When it cannot name a model; nothing is loaded then.
        """

    def exit(self) -> None:
        """Leave the chat."""


def no_completions(context: ChatContext, argument: str) -> Iterable[str]:
    """The completions of a command whose argument is free text."""
    return ()


def always(context: ChatContext) -> str:
    """The condition of a command that makes sense at any time."""
    return ""


@dataclass(frozen=True)
class ChatCommand:
    """A command of the chat.

    Attributes:
        name: What is typed after the slash: lower-case letters, digits, ``-`` and ``_``.
        summary: One line for ``/help``.
        run: Called with the context and the rest of the line. A ``UsageError`` becomes one line to the user; so does any other error.
        usage: The arguments as shown by ``/help``: ``[TEXT]``.
        complete: Words that could stand where the argument is; the chat keeps those that begin with what is typed.
        while_generating: It may run while the model loads or replies; otherwise it waits for its turn, as messages do.
        impossible: Why the command makes no sense now, such as ``"there is no reply yet"``; empty when it does. It is asked when the
            command's turn has come, and one that makes no sense is neither run nor offered.
        topic: Under which heading ``/help`` lists it.
        aliases: Further names under which it is found, such as one of an earlier release; they are not listed.
    """

    name: str
    summary: str
    run: Callable[[ChatContext, str], None]
    usage: str = ""
    complete: Callable[[ChatContext, str], Iterable[str]] = no_completions
    while_generating: bool = False
    impossible: Callable[[ChatContext], str] = always
    topic: str = "plugins"
    aliases: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a name that could not be typed."""
        for name in (self.name, *self.aliases):
            if not _NAME.fullmatch(name):
                raise ValueError(f"command name '{name}' must be lower-case letters, digits, '-' and '_', starting with a letter")
