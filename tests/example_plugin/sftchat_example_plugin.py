"""The task ``shout``: say it again in capitals.

A row: ``shout: sea`` → ``SEA``. The engine ``echo:`` answers it perfectly, so that the task can be tried without a model. In a chat,
``/again`` asks the last message once more.
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
    """Right or wrong, white space aside."""
    right = reply.text.strip() == example.gold
    return Score({"n": 1, "right": float(right)}, answer=reply.text.strip(), errors=() if right else ("wrong",))


class Echo:
    """An engine that shouts back."""

    def __init__(self, name: str) -> None:
        self.name = name

    def generate(self, requests: Iterable[Request]) -> Iterator[Chunk]:
        """Answer each request with its last message in capitals."""
        for request in requests:
            yield Chunk(request.id, request.messages[-1]["content"].removeprefix("shout: ").upper(), (0,), "stop", 1)

    def close(self) -> None:
        """Nothing is held."""


def open_echo(rest: str, options: Mapping[str, Any]) -> Echo:
    """Open ``echo:anything``."""
    return Echo(f"echo:{rest}")


def again(context: ChatContext, argument: str) -> None:
    """Ask the last message once more, with a word before it."""
    context.send(f"{argument or 'please'}: {context.conversation.turns[-1].question}")


def nothing_said(context: ChatContext) -> str:
    """Why there is nothing to ask again."""
    return "" if context.conversation.turns else "nothing was said yet"


def manners(context: ChatContext, argument: str) -> Iterable[str]:
    """Words that may stand before it."""
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
    return [ChatCommand("again", "ask once more, politely", again, "[WORD]", manners, unavailable_reason=nothing_said)]
