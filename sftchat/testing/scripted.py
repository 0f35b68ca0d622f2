"""An engine that says what it is told to say: for tests of chats, evaluations, data generators and plugins."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

from sftchat.engines.base import Chunk, Request
from sftchat.errors import unknown
from sftchat.types import Message, Reply

Script: TypeAlias = str | Reply | Exception | Sequence[str | Exception]
"""One scripted reply: its text; a ``Reply``, whose ``finish_reason`` is kept; an error, which is raised; or the very pieces of
the reply, among which an error is raised when its turn comes."""

Replies: TypeAlias = Mapping[str, Script] | Callable[[Request], Script] | Sequence[Script]
"""Where replies come from: by the last user message, by a function of the request, or in order."""

PAUSE_SECONDS = 60.0
"""How long a paused engine waits before it decides that the test forgot it."""


class ScriptedEngine:
    """An ``Engine`` (and ``Renders``) without a model; every character is one token.

    It honours what a real engine honours: ``max_new_tokens`` (the reply ends with ``"length"``), ``stop`` strings, and the closing of
    the iterator.

        engine = ScriptedEngine({"hello": "hi there", "crash": EngineError("out of memory")})
        engine = ScriptedEngine(lambda request: request.messages[-1]["content"].upper())
        engine = ScriptedEngine(["first", Reply("sec", finish_reason="length"), ["thi", "rd"]])

    Args:
        replies: A mapping from the last user message (or the ``prompt``) to what is said, a function of the request, or a list that is
            used up in order.
        chunks: How a reply is cut into chunks: a number of characters, or a function from the text to its pieces.
        pause: When given, the engine waits for this event after each chunk, so that a test can look, press a key, and set it.
        context_length: What ``Renders.context_length`` reports; never enforced.
        name: What the user would have called the model.

    Attributes:
        requests: Every request it was given, in order.
        cancelled: Ids of the requests whose iterator was closed before their end.
        closed: ``close`` was called.
    """

    def __init__(
        self,
        replies: Replies,
        *,
        chunks: int | Callable[[str], Iterable[str]] = 1,
        pause: threading.Event | None = None,
        context_length: int = 2048,
        name: str = "scripted",
    ) -> None:
        self._replies = replies
        self._chunks = chunks
        self._pause = pause
        self._context_length = context_length
        self._name = name
        self._used = 0
        self.requests: list[Request] = []
        self.cancelled: list[str] = []
        self.closed = False

    @property
    def name(self) -> str:
        """What the user called the model."""
        return self._name

    @property
    def context_length(self) -> int:
        """The most tokens that prompt and reply may have together."""
        return self._context_length

    def render(self, messages: Sequence[Message]) -> str:
        """The conversation as ``role: content`` lines, ready for the reply."""
        return "".join(f"{message['role']}: {message['content']}\n" for message in messages) + "assistant: "

    def generate(self, requests: Iterable[Request]) -> Iterator[Chunk]:
        """Answer requests one after the other, each as its script says.

        Raises:
            LookupError: When nothing is scripted for a request.
            Exception: Whatever error the script holds.
        """
        for request in requests:
            self.requests.append(request)
            for chunk in self._answer(request):
                try:
                    yield chunk
                except GeneratorExit:
                    if chunk.finish_reason is None:
                        self.cancelled.append(request.id)
                    raise

    def close(self) -> None:
        """Remember that it was closed."""
        self.closed = True

    def _answer(self, request: Request) -> Iterator[Chunk]:
        """The chunks of one reply; the last one is empty but for why it ended."""
        script = self._script(request)
        if isinstance(script, Exception):
            raise script
        finish_reason = script.finish_reason if isinstance(script, Reply) else "stop"
        room, said = request.sampling.max_new_tokens, ""
        for piece in self._pieces(script.text if isinstance(script, Reply) else script):
            if isinstance(piece, Exception):
                raise piece
            end = _stop_position(said + piece, request.sampling.stop)
            kept = piece if end is None else piece[: max(0, end - len(said))]
            if len(kept) > room:
                kept, finish_reason, end = kept[:room], "length", len(said) + room
            room, said = room - len(kept), said + kept
            yield Chunk(request.id, kept, tuple(map(ord, kept)))
            if end is not None:
                break
            self._wait()
        prompt = request.prompt if request.prompt is not None else self.render(request.messages)
        error = "scripted" if finish_reason == "error" else ""
        yield Chunk(request.id, finish_reason=finish_reason, prompt_tokens=len(prompt), error=error)

    def _script(self, request: Request) -> Script:
        """What is to be said to a request."""
        if callable(self._replies):
            return self._replies(request)
        if isinstance(self._replies, Mapping):
            said = [message["content"] for message in request.messages if message["role"] == "user"]
            key = request.prompt if request.prompt is not None else said[-1] if said else ""
            if key not in self._replies:
                raise LookupError(unknown("scripted message", key, self._replies))
            return self._replies[key]
        if self._used == len(self._replies):
            raise LookupError(f"the scripted engine has used up its {self._used} replies")
        self._used += 1
        return self._replies[self._used - 1]

    def _pieces(self, script: str | Sequence[str | Exception]) -> Iterable[str | Exception]:
        """A reply cut as the author wants it; pieces that are given stay as they are."""
        if not isinstance(script, str):
            return script
        if isinstance(self._chunks, int):
            size = self._chunks
            return [script[at : at + size] for at in range(0, len(script), size)]
        return self._chunks(script)

    def _wait(self) -> None:
        """Hold until the test sets the event."""
        if self._pause is not None and not self._pause.wait(PAUSE_SECONDS):
            raise TimeoutError(f"the scripted engine was paused for {PAUSE_SECONDS:g} s; the test never set its event")


def _stop_position(text: str, stops: Iterable[str]) -> int | None:
    """Where the first stop string begins; None when there is none."""
    found = [at for at in (text.find(stop) for stop in stops) if at >= 0]
    return min(found) if found else None
