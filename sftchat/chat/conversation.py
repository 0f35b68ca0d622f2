"""A conversation as pure, immutable state; every operation returns a new one."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sftchat.engines.base import Request
from sftchat.types import Message, Reply, SamplingParams


@dataclass(frozen=True)
class Turn:
    """A message and what the model said to it.

    Attributes:
        question: The user's message, as typed.
        reply: The model's reply, as generated; None while it is awaited.
    """

    question: str
    reply: Reply | None = None

    @property
    def partial(self) -> bool:
        """The reply was cut before the model ended it: by the user, by the token limit or by an error."""
        return self.reply is not None and self.reply.finish_reason != "stop"


@dataclass(frozen=True)
class Conversation:
    """What the model is shown with the next message. Turns are pairs, so that user and assistant alternate whatever happens.

    Attributes:
        system: The system prompt; empty for none.
        turns: What was said; only the last may lack a reply.
        last_request: What was last sent to the engine.
    """

    system: str = ""
    turns: tuple[Turn, ...] = ()
    last_request: Request | None = None

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation as engines and templates take it."""
        found = [Message(role="system", content=self.system)] if self.system else []
        for turn in self.turns:
            found.append(Message(role="user", content=turn.question))
            if turn.reply is not None:
                found.append(Message(role="assistant", content=turn.reply.text))
        return tuple(found)

    @property
    def waiting(self) -> bool:
        """The last message has no reply yet."""
        return bool(self.turns) and self.turns[-1].reply is None

    def ask(self, question: str, sampling: SamplingParams) -> Conversation:
        """Append a user message; ``last_request`` of the result is what to send.

        Raises:
            ValueError: When the message before still waits for its reply.
        """
        if self.waiting:
            raise ValueError("the last message still waits for its reply")
        asked = replace(self, turns=(*self.turns, Turn(question)))
        return replace(asked, last_request=Request(f"turn-{len(asked.turns)}", asked.messages, sampling=sampling))

    def answer(self, reply: Reply) -> Conversation:
        """Append the reply to the message that waits.

        Raises:
            ValueError: When none does.
        """
        if not self.waiting:
            raise ValueError("no message waits for a reply")
        return replace(self, turns=(*self.turns[:-1], replace(self.turns[-1], reply=reply)))

    def withdraw(self) -> Conversation:
        """Take the waiting message back, as if it had not been sent; without one, nothing changes."""
        return replace(self, turns=self.turns[:-1]) if self.waiting else self

    def reset(self) -> Conversation:
        """Forget what was said and keep the system prompt."""
        return Conversation(self.system)

    def with_system(self, system: str) -> Conversation:
        """Change the system prompt; what was said stays."""
        return replace(self, system=system)
