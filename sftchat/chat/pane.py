"""A column of a talk: one model, or one adapter of a model that several columns share, and what it is doing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from sftchat.chat.conversation import Mark
from sftchat.chat.engine_thread import EngineThread
from sftchat.chat.reply import PendingReply
from sftchat.engine import Engine, Renders


@dataclass(frozen=True)
class Opening:
    """Models that one engine will answer for, before it is loaded.

    Attributes:
        load: Opens the engine; slow, called in a worker.
        models: What the user called them, one a column.
        adapters: The name of each as the engine knows it (``Request.adapter``); empty for what was loaded.
    """

    load: Callable[[], Engine]
    models: tuple[str, ...]
    adapters: tuple[str, ...] = ("",)


class ModelPane:
    """One model of a talk, as its view may show it; changed by the talk alone.

    Args:
        name: MODEL as the user wrote it.
        worker: Has the engine.
        adapter: Which of the engine's adapters answers.

    Attributes:
        generation: The reply under way; None when there is none.
        context_used: Tokens of prompt and reply of the last reply; 0 before.
        first_token_seconds: Time to the first token of the last reply; 0 when unknown.
        mark: What the task thinks of the last reply; None while unknown.
    """

    def __init__(self, name: str, worker: EngineThread, adapter: str = "") -> None:
        self.name = name
        self.adapter = adapter
        self.worker = worker
        self.generation: PendingReply | None = None
        self.context_used = 0
        self.first_token_seconds = 0.0
        self.mark: Mark | None = None
        self._rate = 0.0

    @property
    def engine(self) -> Engine | None:
        """The loaded engine; None while it loads."""
        return self.worker.engine

    @property
    def state(self) -> Literal["loading", "generating", "ready"]:
        """What the model is doing."""
        if self.engine is None:
            return "loading"
        return "ready" if self.generation is None else "generating"

    @property
    def context_length(self) -> int:
        """The most tokens that prompt and reply may have together; 0 when unknown."""
        return self.engine.context_length if isinstance(self.engine, Renders) else 0

    @property
    def tokens_per_second(self) -> float:
        """Speed of the reply under way, or of the last one; 0 when unknown."""
        return self.generation.tokens_per_second if self.generation is not None else self._rate

    def replace(self, name: str, worker: EngineThread) -> None:
        """Another model stands here now."""
        self.name, self.worker, self.adapter = name, worker, ""
        self.context_used, self.first_token_seconds, self.mark, self._rate = 0, 0.0, None, 0.0

    def ended(self, generation: PendingReply, prompt_tokens: int) -> None:
        """Remember the figures of a reply that is over."""
        self.generation = None
        self._rate = generation.tokens_per_second
        self.first_token_seconds = generation.first_token_seconds
        if prompt_tokens:
            self.context_used = prompt_tokens + generation.tokens
