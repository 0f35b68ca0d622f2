"""Pane: state of one model of the chat, or of one adapter when several panes share an engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from sftchat.chat.conversation import ReplyScore
from sftchat.chat.engine_thread import EngineThread
from sftchat.chat.reply import PendingReply
from sftchat.engine import Engine, Renders


@dataclass(frozen=True)
class Opening:
    """Models served by one engine that is not loaded yet.

    Attributes:
        load: Opens the engine; slow, called on the engine thread.
        models: MODEL arguments as typed, one for each pane.
        adapters: Adapter name of each pane for the engine (``Request.adapter``); empty for the model as loaded.
    """

    load: Callable[[], Engine]
    models: tuple[str, ...]
    adapters: tuple[str, ...] = ("",)


class ModelPane:
    """State of one model of the chat, for the view; changed by the chat only.

    Args:
        name: MODEL as typed.
        engine_thread: The engine thread.
        adapter: Adapter that replies.

    Attributes:
        generation: The reply that is being generated; None when there is none.
        context_used: Prompt and reply tokens of the last reply; 0 before the first.
        first_token_seconds: Time to first token of the last reply; 0 when unknown.
        score: Score of the last reply; None when unknown.
    """

    def __init__(self, name: str, engine_thread: EngineThread, adapter: str = "") -> None:
        self.name = name
        self.adapter = adapter
        self.engine_thread = engine_thread
        self.generation: PendingReply | None = None
        self.context_used = 0
        self.first_token_seconds = 0.0
        self.score: ReplyScore | None = None
        self._rate = 0.0

    @property
    def engine(self) -> Engine | None:
        """The loaded engine; None while it loads."""
        return self.engine_thread.engine

    @property
    def state(self) -> Literal["loading", "generating", "ready"]:
        """Current state of the model."""
        if self.engine is None:
            return "loading"
        return "ready" if self.generation is None else "generating"

    @property
    def context_length(self) -> int:
        """Context length in tokens, prompt and reply together; 0 when unknown."""
        return self.engine.context_length if isinstance(self.engine, Renders) else 0

    @property
    def tokens_per_second(self) -> float:
        """Speed of the current or last reply; 0 when unknown."""
        return self.generation.tokens_per_second if self.generation is not None else self._rate

    def replace(self, name: str, engine_thread: EngineThread) -> None:
        """Replace the model of the pane."""
        self.name, self.engine_thread, self.adapter = name, engine_thread, ""
        self.context_used, self.first_token_seconds, self.score, self._rate = 0, 0.0, None, 0.0

    def ended(self, generation: PendingReply, prompt_tokens: int) -> None:
        """Store the statistics of a finished reply."""
        self.generation = None
        self._rate = generation.tokens_per_second
        self.first_token_seconds = generation.first_token_seconds
        if prompt_tokens:
            self.context_used = prompt_tokens + generation.tokens
