"""One reply: the engine driven through it, and what a talk keeps of it meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable

from sftchat.engines.base import Chunk, Engine, Request
from sftchat.errors import EngineError
from sftchat.types import FinishReason, Reply


class Generation:
    """A reply under way.

    Attributes:
        stop: Set to end it at the next chunk.
        text: What was said so far.
        tokens: How many tokens that is.
    """

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.text = ""
        self.tokens = 0
        self._first = 0.0
        self._last = 0.0

    def add(self, chunk: Chunk, now: float) -> None:
        """Take a chunk that came at a time in seconds."""
        if not (chunk.text or chunk.tokens):
            return  # an engine may say nothing so that it can be stopped; that is not the first token
        self._first, self._last = self._first or now, now
        self.text += chunk.text
        self.tokens += chunk.tokens

    @property
    def tokens_per_second(self) -> float:
        """Speed after the first token, whose time is the prompt's; 0 when unknown."""
        seconds = self._last - self._first
        return (self.tokens - 1) / seconds if seconds > 0 and self.tokens > 1 else 0.0


def stream_reply(engine: Engine, request: Request, show: Callable[[Chunk], None], stop: threading.Event | None = None) -> Reply:
    """Generate one reply and pass its chunks on as they come.

    Args:
        engine: Who answers.
        request: What to answer.
        show: Called with each chunk, in this thread.
        stop: Ends the reply at the next chunk once it is set; the reply so far is returned as ``"cancelled"``.

    Raises:
        EngineError: When the engine fails, or ends without saying why.
    """
    text: list[str] = []
    tokens = prompt_tokens = 0
    finish_reason: FinishReason | None = None
    chunks = engine.generate([request])
    try:
        for chunk in chunks:
            if stop is not None and stop.is_set():
                finish_reason = "cancelled"
                break
            if chunk.finish_reason == "error":
                raise EngineError(chunk.error or "the engine failed and gave no reason")
            text.append(chunk.text)
            tokens += chunk.tokens
            prompt_tokens = chunk.prompt_tokens or prompt_tokens
            show(chunk)
            if chunk.finish_reason is not None:
                finish_reason = chunk.finish_reason
                break
    finally:
        close = getattr(chunks, "close", None)  # an iterator that is no generator may have nothing to close
        if close is not None:
            close()
    if finish_reason is None:
        raise EngineError("the engine ended in mid-reply and gave no reason")
    return Reply("".join(text), finish_reason, prompt_tokens, tokens)
