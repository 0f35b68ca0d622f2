"""Stream replies from an engine and track the state of each pending reply."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence

from sftchat.chat.conversation import Answer
from sftchat.engine import Chunk, Engine, Request, cancelling, reply_of, text_and_thoughts
from sftchat.errors import EngineError
from sftchat.thinking import THOUGHTS_END
from sftchat.types import FinishReason, Reply


class PendingReply:
    """A reply that is being generated.

    Args:
        started: Time of the request in seconds, on the clock used for ``add``.
        draft: The answer to continue, with the text it has already.

    Attributes:
        stop: Set to end the reply at the next chunk.
        text: Text so far, including the draft.
        thoughts: Thoughts so far, when the engine separates them from the text.
        text_was_thoughts: True when text that was shown turned out to be thoughts.
        opened: True when the template opened the thoughts, so that the text starts inside them.
        refused: True when the server reported a refusal.
        token_ids: Token ids of the text, when the engine returns them.
        choices: Tokens of the text with log-probabilities, when requested and returned.
        tokens: Number of tokens generated in this turn.
        all_tokens: Number of tokens of the whole reply.
        dropped: Number of oldest turns left out of the prompt.
    """

    def __init__(self, started: float, draft: Answer) -> None:
        self.stop = threading.Event()
        self.text = draft.reply.text
        self.thoughts = draft.reply.thoughts
        self.text_was_thoughts = False
        self.opened = False
        self.refused = draft.reply.refused
        self.token_ids = list(draft.token_ids)
        self.choices = list(draft.choices)
        self.tokens = 0
        self.all_tokens = draft.reply.completion_tokens
        self.dropped = 0
        self._started = started
        self._first = 0.0
        self._last = 0.0

    def add(self, chunk: Chunk, now: float) -> None:
        """Add a chunk that arrived at time ``now`` in seconds."""
        self.refused = self.refused or chunk.refused
        self.opened = self.opened or chunk.thoughts_opened
        if chunk.revises == "thought":
            self.choices.clear()
        self.choices += chunk.choices
        if not (chunk.text or chunk.tokens or chunk.thoughts or chunk.revises):
            return  # an engine may yield an empty chunk so that it can be stopped; that is not the first token
        self._first, self._last = self._first or now, now
        self.text, self.thoughts = text_and_thoughts(self.text, self.thoughts, chunk)
        self.text_was_thoughts = self.text_was_thoughts or chunk.revises == "thought"
        self.token_ids += chunk.token_ids
        self.tokens += chunk.tokens
        self.all_tokens += chunk.tokens

    @property
    def thinking(self) -> bool:
        """True when the template opened the thoughts and they have not ended."""
        return self.opened and THOUGHTS_END not in self.text

    @property
    def tokens_per_second(self) -> float:
        """Decoding speed after the first token (whose time is prefill); 0 when unknown."""
        seconds = self._last - self._first
        return (self.tokens - 1) / seconds if seconds > 0 and self.tokens > 1 else 0.0

    @property
    def first_token_seconds(self) -> float:
        """Time to first token; 0 before it."""
        return max(0.0, self._first - self._started) if self._first else 0.0

    @property
    def seconds(self) -> float:
        """Time to last token; 0 before the first."""
        return max(0.0, self._last - self._started) if self._last else 0.0


def stream_reply(engine: Engine, request: Request, show: Callable[[Chunk], None], stop: threading.Event | None = None) -> Reply:
    """Generate one reply and pass its chunks to ``show``.

    Args:
        engine: Engine that generates.
        request: The request.
        show: Called with each chunk, on this thread.
        stop: When set, ends the reply at the next chunk; the partial reply is returned as ``"cancelled"``.

    Raises:
        EngineError: When the engine fails, or ends without a finish reason.
    """
    reply = stream_replies(engine, [request], show, {request.id: stop} if stop is not None else {})[request.id]
    if isinstance(reply, EngineError):
        raise reply
    return reply


def stream_replies(
    engine: Engine, requests: Sequence[Request], show: Callable[[Chunk], None], stops: Mapping[str, threading.Event]
) -> dict[str, Reply | EngineError]:
    """Generate several replies in one batch and pass their chunks to ``show``.

    Args:
        engine: Engine that generates.
        requests: The requests.
        show: Called with each chunk, on this thread.
        stops: Events by request id; a reply whose event is set receives no more chunks, and the engine is stopped when all are set.

    Returns:
        By request id, the reply or its error.

    Raises:
        Exception: Any exception of the engine when it fails as a whole.
    """
    parts: dict[str, list[Chunk]] = {request.id: [] for request in requests}
    ended: dict[str, FinishReason] = {}
    with cancelling(engine.generate(requests)) as chunks:
        for chunk in chunks:
            for request in requests:
                if request.id not in ended and request.id in stops and stops[request.id].is_set():
                    ended[request.id] = "cancelled"
            if chunk.request_id in parts and chunk.request_id not in ended:
                parts[chunk.request_id].append(chunk)
                if chunk.finish_reason is not None:
                    ended[chunk.request_id] = chunk.finish_reason
                if chunk.finish_reason != "error":
                    show(chunk)
            if len(ended) == len(requests):
                break
    return {request.id: _reply(parts[request.id], ended.get(request.id)) for request in requests}


def _reply(chunks: Sequence[Chunk], finish_reason: FinishReason | None) -> Reply | EngineError:
    """Build a reply from its chunks."""
    if finish_reason is None:
        return EngineError("the engine ended in mid-reply and gave no reason")
    if finish_reason == "error":
        return EngineError(chunks[-1].error or "the engine failed and gave no reason")
    return reply_of(chunks, finish_reason)
