"""The task ``shout``: repeat a text in capitals.

A row: ``shout: sea`` → ``SEA``. The engine ``echo:`` always gives the right answer, so the task can be tried without a model. In a chat,
``/again`` sends the last message again.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sftchat import ChatCommand, ChatContext, Chunk, EngineType, Example, Message, Reply, Request, Score, Task, hookimpl, rate

WORDS = ["sea", "sky", "sun", "moon", "star", "tree", "leaf", "bird", "fish", "stone"]


def generate(n: int, seed: int, *, words: int = 1) -> Iterator[Example]:
    """Yield prompts with a fixed number of words."""
    for index in range(n):
        rng = random.Random(f"{seed}-{index}")
        text = " ".join(rng.choice(WORDS) for _ in range(words))
        yield Example((Message(role="user", content=f"shout: {text}"),), text.upper(), id=f"shout-{seed}-{index}")


def score(example: Example, reply: Reply) -> Score:
    """Compare the reply with the gold reply, ignoring white space at both ends."""
    right = reply.text.strip() == example.gold
    return Score({"n": 1, "right": float(right)}, answer=reply.text.strip(), errors=() if right else ("wrong",))


class Echo:
    """Engine that returns the last message in capitals."""

    def __init__(self, name: str) -> None:
        self.name = name

    def generate(self, requests: Iterable[Request]) -> Iterator[Chunk]:
        """Yield one chunk per request."""
        for request in requests:
            yield Chunk(request.id, request.messages[-1]["content"].removeprefix("shout: ").upper(), (0,), "stop", 1)

    def close(self) -> None:
        """Do nothing: no resources are held."""


def open_echo(rest: str, options: Mapping[str, Any]) -> Echo:
    """Open ``echo:anything``."""
    return Echo(f"echo:{rest}")


def again(context: ChatContext, argument: str) -> None:
    """Send the last message again, with a word before it."""
    context.send(f"{argument or 'please'}: {context.conversation.turns[-1].question}")


def reason_without_message(context: ChatContext) -> str:
    """Return why the command is unavailable, or an empty string."""
    return "" if context.conversation.turns else "there is no message yet"


def offer_words(context: ChatContext, argument: str) -> Iterable[str]:
    """Return the words that completion offers."""
    return ["please", "kindly"]


@hookimpl
def sftchat_register_tasks() -> Iterable[Task]:
    """Register the task."""
    return [Task("shout", "say it again in capitals", generate, score, (rate("accuracy", "right"),))]


@hookimpl
def sftchat_register_engines() -> Iterable[EngineType]:
    """Register the engine."""
    return [EngineType("echo", "answers in capitals", open_echo)]


@hookimpl
def sftchat_register_chat_commands() -> Iterable[ChatCommand]:
    """Register the chat command."""
    return [ChatCommand("again", "ask once more, politely", again, "[WORD]", offer_words, unavailable_reason=reason_without_message)]
