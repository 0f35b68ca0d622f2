"""Replies: the engine driven through them, and what a talk keeps of each meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence

from sftchat.chat.conversation import Answer
from sftchat.engine import Chunk, Engine, Request, cancelling, reply_of, text_and_thoughts
from sftchat.errors import EngineError
from sftchat.thinking import THOUGHTS_END
from sftchat.types import FinishReason, Reply


class PendingReply:
    """A reply under way.

    Args:
        begun: Seconds, of the clock that ``add`` is given, at which it was asked for.
        draft: The answer as far as it goes already, when one is continued.

    Attributes:
        stop: Set to end it at the next chunk.
        text: What was said so far, the draft included.
        thoughts: What the model thought so far, where that is kept apart from the text.
        late: Text that was shown turned out to be thoughts.
        opened: The template opened the thoughts, so that the text begins with them.
        refused: The reply is a refusal by the server's own word.
        token_ids: The tokens of that, where the engine lists them.
        choices: The tokens of the text with their log-probabilities, where they were asked for and come.
        tokens: How many tokens were generated now.
        all_tokens: How many the reply has.
        dropped: How many of the oldest turns the model is not shown.
    """

    def __init__(self, begun: float, draft: Answer) -> None:
        self.stop = threading.Event()
        self.text = draft.reply.text
        self.thoughts = draft.reply.thoughts
        self.late = False
        self.opened = False
        self.refused = draft.reply.refused
        self.token_ids = list(draft.token_ids)
        self.choices = list(draft.choices)
        self.tokens = 0
        self.all_tokens = draft.reply.completion_tokens
        self.dropped = 0
        self._begun = begun
        self._first = 0.0
        self._last = 0.0

    def add(self, chunk: Chunk, now: float) -> None:
        """Take a chunk that came at a time in seconds."""
        self.refused = self.refused or chunk.refused
        self.opened = self.opened or chunk.opened
        if chunk.revises == "thought":
            self.choices.clear()
        self.choices += chunk.choices
        if not (chunk.text or chunk.tokens or chunk.thoughts or chunk.revises):
            return  # an engine may say nothing so that it can be stopped; that is not the first token
        self._first, self._last = self._first or now, now
        self.text, self.thoughts = text_and_thoughts(self.text, self.thoughts, chunk)
        self.late = self.late or chunk.revises == "thought"
        self.token_ids += chunk.token_ids
        self.tokens += chunk.tokens
        self.all_tokens += chunk.tokens

    @property
    def thinking(self) -> bool:
        """The template opened the thoughts, and they are not over."""
        return self.opened and THOUGHTS_END not in self.text

    @property
    def tokens_per_second(self) -> float:
        """Speed after the first token, whose time is the prompt's; 0 when unknown."""
        seconds = self._last - self._first
        return (self.tokens - 1) / seconds if seconds > 0 and self.tokens > 1 else 0.0

    @property
    def first_token_seconds(self) -> float:
        """Time to the first token; 0 while there is none."""
        return max(0.0, self._first - self._begun) if self._first else 0.0

    @property
    def seconds(self) -> float:
        """Time to the last token; 0 while there is none."""
        return max(0.0, self._last - self._begun) if self._last else 0.0


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
    reply = stream_replies(engine, [request], show, {request.id: stop} if stop is not None else {})[request.id]
    if isinstance(reply, EngineError):
        raise reply
    return reply


def stream_replies(
    engine: Engine, requests: Sequence[Request], show: Callable[[Chunk], None], stops: Mapping[str, threading.Event]
) -> dict[str, Reply | EngineError]:
    """Generate several replies in one pass and pass their chunks on as they come.

    Args:
        engine: Who answers.
        requests: What to answer.
        show: Called with each chunk, in this thread.
        stops: By request id; a reply whose event is set gets no more chunks, and when all are, the engine is stopped.

    Returns:
        By request id, the reply or what went wrong with it.

    Raises:
        Exception: Whatever the engine raises, when it fails as a whole.
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
    """One reply from its chunks."""
    if finish_reason is None:
        return EngineError("the engine ended in mid-reply and gave no reason")
    if finish_reason == "error":
        return EngineError(chunks[-1].error or "the engine failed and gave no reason")
    return reply_of(chunks, finish_reason)
