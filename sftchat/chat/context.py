"""Interfaces between a chat, its commands (built-in and of plugins) and its views, and the settings that they share."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, get_args

from sftchat._util.renamed import former_names
from sftchat.types import SamplingParams

if TYPE_CHECKING:
    from sftchat.chat.controller import ChatServices
    from sftchat.chat.conversation import Answer, Conversation
    from sftchat.chat.pane import JobHandle, ModelPane
    from sftchat.engine import Engine
    from sftchat.task import ReplyScore

T = TypeVar("T")

Style = Literal["", "note", "special", "good", "bad", "trained", "likely", "unlikely", "rare"]
"""Emphasis of a piece of text; a view without colours ignores it."""
Fragments = Sequence[tuple[Style, str]]
"""Styled text: consecutive pieces, line breaks included."""

ALTERNATIVES_PER_TOKEN = 10
"""Number of most likely tokens per position that ``/why`` lists and that are requested from servers."""

_COMMAND_NAME = re.compile(r"[a-z][a-z0-9_-]*")


class ChatContext(Protocol):
    """Interface of the chat for commands; all calls on the UI thread.

    Attributes:
        conversation: The conversation of the focused pane (``Conversation.pane``); assign a new one to change it.
        settings: Generation settings of the next reply; assign new ones to change them.
        display: Display options.
    """

    display: Display
    conversation: Conversation
    settings: Settings

    @property
    def sampling(self) -> SamplingParams:
        """Sampling parameters of the next reply."""

    @property
    def panes(self) -> Sequence[ModelPane]:
        """The panes, at least one."""

    @property
    def focus(self) -> ModelPane:
        """The pane that commands about one reply apply to: the first, unless ``/focus`` selected another."""

    @property
    def engine(self) -> Engine | None:
        """The loaded engine of the focused pane; None while it loads (only possible in commands with ``allowed_while_busy``)."""

    @property
    def commands(self) -> Mapping[str, ChatCommand]:
        """All commands by name."""

    @property
    def services(self) -> ChatServices:
        """Further services: task, evalset, session, loading other models, writing rows."""

    def info(self, text: str | Fragments) -> None:
        """Show lines to the user; they are not part of the conversation."""

    def error(self, text: str) -> None:
        """Show a one-line error."""

    def prefill_input(self, text: str) -> bool:
        """Put text into the input line for the user to edit and send; False when there is no input line."""

    def send(self, message: str) -> None:
        """Send a message to the model as if the user had typed it."""

    def generate(self, conversation: Conversation, partial_answers: Mapping[int, Answer] | None = None) -> None:
        """Generate replies to the last message of ``conversation``, which becomes the current conversation.

        Args:
            conversation: Ends with a user message, for example ``context.conversation.unanswered()``.
            partial_answers: Existing answers by pane: a partial one is continued, a complete one is kept.
        """

    def work(self, title: str, job: Callable[[Engine, JobHandle], T], done: Callable[[T], None], pane: int | None = None) -> None:
        """Run a slow job on the engine thread of a pane; the chat is busy meanwhile, and Ctrl-C sets ``JobHandle.stopped``.

        Args:
            title: Title for the status line.
            job: Called with the engine on the engine thread; must not use the context. Its exceptions are shown as a one-line error.
            done: Called with the result on the UI thread, unless the job was stopped or failed.
            pane: Index of the pane; the focused one by default.
        """

    def switch(self, model: str, then: Callable[[], None] | None = None) -> None:
        """Replace the model of the focused pane; the old model stays until the new one is loaded, and when loading fails.

        Args:
            model: MODEL to load.
            then: Called after the new model is loaded.

        Raises:
            SftchatError: When MODEL is invalid; nothing is loaded.
        """

    def exit(self) -> None:
        """Leave the chat."""


def no_completions(context: ChatContext, argument: str) -> Iterable[str]:
    """Return no completions: for commands with a free-text argument."""
    return ()


def always_available(context: ChatContext) -> str:
    """Return an empty reason: for commands that are always available."""
    return ""


@former_names(while_generating="allowed_while_busy", impossible="unavailable_reason")
@dataclass(frozen=True)
class ChatCommand:
    """A slash command of the chat.

    Attributes:
        name: Name typed after the slash: lower-case letters, digits, ``-`` and ``_``.
        summary: One line for ``/help``.
        run: Called with the context and the rest of the line. Any exception, such as a ``UsageError``, is shown as a one-line error.
        usage: Arguments as shown by ``/help``: ``[TEXT]``.
        complete: Returns possible arguments; the chat filters them by the typed prefix.
        allowed_while_busy: True when the command may run while the model loads or generates; otherwise it is queued, as messages are.
        unavailable_reason: Returns why the command is unavailable, such as ``"there is no reply yet"``; empty when it is available.
            Called before the command runs; unavailable commands are not run and not offered as completions.
        topic: Heading in ``/help``.
        aliases: Further names of the command, such as one of an earlier release; they are not listed.
    """

    name: str
    summary: str
    run: Callable[[ChatContext, str], None]
    usage: str = ""
    complete: Callable[[ChatContext, str], Iterable[str]] = no_completions
    allowed_while_busy: bool = False
    unavailable_reason: Callable[[ChatContext], str] = always_available
    topic: str = "plugins"
    aliases: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in (self.name, *self.aliases):
            if not _COMMAND_NAME.fullmatch(name):
                raise ValueError(f"command name '{name}' must be lower-case letters, digits, '-' and '_', starting with a letter")


@dataclass
class Display:
    """Display options for replies.

    Attributes:
        markdown: Render Markdown; otherwise show replies as written.
        thoughts: Show thoughts; otherwise one line says that the model had some.
    """

    markdown: bool = True
    thoughts: bool = False


Overflow = Literal["stop", "refuse", "drop-oldest"]
"""Action when the conversation exceeds the model's context; each is reported. ``stop``: the reply ends where the context ends. ``refuse``:
no reply is generated if it might not fit. ``drop-oldest``: the oldest turns are left out of the prompt.
"""
OVERFLOWS: tuple[Overflow, ...] = get_args(Overflow)


@dataclass(frozen=True)
class Settings:
    """Generation settings of a chat.

    Attributes:
        sampling: Sampling parameters.
        overflow: What to do when the context is full.
        template_arguments: Chat template arguments that override the model's own.
        logprobs: Request log-probabilities from servers; for local models they are computed on demand.
    """

    sampling: SamplingParams = field(default_factory=SamplingParams)
    overflow: Overflow = "stop"
    template_arguments: Mapping[str, Any] = field(default_factory=dict)
    logprobs: bool = False


class View(Protocol):
    """A view: shows a chat on a terminal or writes it to a pipe. All methods except ``post`` run on the UI thread."""

    def post(self, action: Callable[[], None]) -> None:
        """Run an action on the UI thread; callable from any thread, does nothing after the view has ended."""

    def show_typed(self, text: str) -> None:
        """Show a typed line when it is processed."""

    def begin_reply(self, pane: int, text: str) -> None:
        """Begin the reply of a pane; ``text`` is the existing text of a continued reply, which ``show_piece`` does not repeat."""

    def show_piece(self, text: str, pane: int) -> None:
        """Show more text of a pane's reply."""

    def show_thoughts(self, text: str, pane: int) -> None:
        """Show thoughts of a pane's model; they are not part of the reply, and may be hidden."""

    def text_was_thoughts(self, pane: int, more_thoughts: str) -> None:
        """Treat the reply shown so far as thoughts: a closing tag came without an opening one; ``more_thoughts`` follow what was shown."""

    def end_reply(self, pane: int) -> None:
        """End the reply of a pane, for any reason; called once for each ``begin_reply``."""

    def show_score(self, score: ReplyScore, pane: int) -> None:
        """Show the score of a pane's last reply, after its end."""

    def info(self, text: str | Fragments) -> None:
        """Show lines that are not from a model."""

    def error(self, text: str) -> None:
        """Show a one-line error."""

    def prefill_input(self, text: str) -> bool:
        """Put text into the input line for the user to edit and send; False when there is no input line."""

    def leave(self, error: Exception | None) -> None:
        """End the view.

        Args:
            error: Why a model could not be loaded; None when the user leaves.
        """
