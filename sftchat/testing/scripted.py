"""Engine with scripted replies, for tests of chats, evaluations, data generators and plugins."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import log
from typing import TypeAlias

from sftchat.engine import Chunk, Request
from sftchat.errors import unknown_name_message
from sftchat.likelihood import score_with_choices
from sftchat.thinking import opens_thoughts
from sftchat.types import Choice, Message, Reply, Token

Script: TypeAlias = str | Reply | Exception | Sequence[str | Exception]
"""One scripted reply: its text; a ``Reply`` with text, ``finish_reason``, ``thoughts`` and ``refused``; an error to raise; or a list of the pieces of
the text, in which an error is raised after the pieces before it."""

Replies: TypeAlias = Mapping[str, Script] | Callable[[Request], Script] | Sequence[Script]
"""Replies by the last user message, a function from the request to the reply, or a list of replies in order."""

PAUSE_SECONDS = 60.0
"""Maximum wait for the test to set ``pause``."""


class ScriptedEngine:
    """An ``Engine`` (and ``Renders``, ``Counts`` and ``Inspects``) without a model; every character is one token, its code point the id.

    It applies ``max_new_tokens`` (the reply then ends with ``"length"``) and ``stop`` strings, and supports closing the iterator.

        engine = ScriptedEngine({"hello": "hi there", "crash": EngineError("out of memory")})
        engine = ScriptedEngine(lambda request: request.messages[-1]["content"].upper())
        engine = ScriptedEngine(["first", Reply("sec", finish_reason="length"), ["thi", "rd"]])

    Args:
        replies: A mapping from the last user message (or the ``prompt``) to the reply, a function of the request, or a list of replies used
            in order.
        chunks: How a reply is split into chunks: a number of characters, or a function from the text to its pieces.
        pause: Event for which the engine waits after each chunk, so that a test can inspect the state; None for no pause.
        context_length: Value of ``Renders.context_length``; not enforced.
        name: MODEL as the user would type it.
        likeliest: For ``Inspects``, probabilities of characters at each position of any reply, such as ``[{"a": 0.9, "b": 0.1}]``. The
            probability of all other characters, and of those at later positions, is 0.001.

    Attributes:
        requests: All requests, in order.
        cancelled: Ids of requests whose iterator was closed early.
        closed: Whether ``close`` was called.
    """

    def __init__(
        self,
        replies: Replies,
        *,
        chunks: int | Callable[[str], Iterable[str]] = 1,
        pause: threading.Event | None = None,
        context_length: int = 2048,
        name: str = "scripted",
        likeliest: Sequence[Mapping[str, float]] = (),
    ) -> None:
        self._replies = replies
        self._chunks = chunks
        self._pause = pause
        self._context_length = context_length
        self._name = name
        self._likeliest = likeliest
        self._used_replies = 0
        self.requests: list[Request] = []
        self.cancelled: list[str] = []
        self.closed = False

    @property
    def name(self) -> str:
        """MODEL as typed."""
        return self._name

    @property
    def context_length(self) -> int:
        """Context length in tokens, prompt and reply together."""
        return self._context_length

    def render(self, messages: Sequence[Message]) -> str:
        """Return the conversation as lines ``role: content``, and ``assistant: `` for the reply."""
        return "".join(f"{message['role']}: {message['content']}\n" for message in messages) + "assistant: "

    def count_tokens(self, request: Request) -> int:
        """Return the number of characters of the prompt and of the partial reply."""
        return len(self._prompt(request))

    def prompt_tokens(self, request: Request) -> tuple[Token, ...]:
        """Return the characters of the prompt; those of role names and line ends are special."""
        if request.prompt is not None:
            return tuple(_to_token(character) for character in self._prompt(request))
        tokens: list[Token] = []
        for message in request.messages:
            tokens += (_to_token(character, special=True) for character in f"{message['role']}: ")
            tokens += (*map(_to_token, message["content"]), _to_token("\n", special=True))
        tokens += (_to_token(character, special=True) for character in "assistant: ")
        return (*tokens, *map(_to_token, request.reply_prefix), *(_to_token(chr(token)) for token in request.reply_ids))

    def trained_tokens(self, messages: Sequence[Message], adapter: str = "") -> tuple[Token, ...]:
        """Return the characters of the conversation; those of assistant turns are trained."""
        tokens: list[Token] = []
        for message in messages:
            trained = message["role"] == "assistant"
            tokens += (_to_token(character, special=True) for character in f"{message['role']}: ")
            tokens += (_to_token(character, trained=trained) for character in message["content"])
            tokens.append(_to_token("\n", special=True, trained=trained))
        return tuple(tokens)

    def decode(self, token_ids: Sequence[int], adapter: str = "") -> str:
        """Return the characters of the token ids."""
        return "".join(map(chr, token_ids))

    def choices(self, request: Request, reply: str | Sequence[int], *, ended: bool = True, alternatives: int = 0) -> tuple[Choice, ...]:
        """Return each character of a reply with its probability from ``likeliest``; a newline ends the reply."""
        text = (reply if isinstance(reply, str) else self.decode(reply)) + ("\n" if ended else "")
        tokens = []
        for index, character in enumerate(text):
            likely = dict(self._likeliest[index]) if index < len(self._likeliest) else {}
            probability = likely.get(character, 0.001)
            best = sorted(likely.items(), key=lambda item: -item[1])[:alternatives]
            special = ended and index == len(text) - 1
            tokens.append(
                Choice(
                    _to_token(character, special=special),
                    log(probability),
                    sum(value > probability for value in likely.values()),
                    tuple((_to_token(other), log(value)) for other, value in best),
                )
            )
        return tuple(tokens)

    def _prompt(self, request: Request) -> str:
        prompt = request.prompt if request.prompt is not None else self.render(request.messages)
        return prompt + request.reply_prefix + self.decode(request.reply_ids)

    def generate(self, requests: Iterable[Request]) -> Iterator[Chunk]:
        """Generate the scripted replies, one request at a time; the likelihoods of continuations are those of ``choices``.

        Raises:
            LookupError: When no reply is scripted for a request.
            Exception: An error from the script.
        """
        for request in requests:
            self.requests.append(request)
            for chunk in score_with_choices(self, [request]) if request.continuations else self._generate_reply(request):
                try:
                    yield chunk
                except GeneratorExit:
                    if chunk.finish_reason is None:
                        self.cancelled.append(request.id)
                    raise

    def close(self) -> None:
        """Set ``closed``."""
        self.closed = True

    def _generate_reply(self, request: Request) -> Iterator[Chunk]:
        """Yield the chunks of one reply; the last one has only the finish reason."""
        script = self._next_script(request)
        if isinstance(script, Exception):
            raise script
        finish_reason = script.finish_reason if isinstance(script, Reply) else "stop"
        if isinstance(script, Reply) and script.thoughts:
            yield Chunk(request.id, thoughts=script.thoughts)
        tokens_left, generated = request.sampling.max_new_tokens, ""  # a character is a token
        thoughts_opened = opens_thoughts(self._prompt(request))
        for piece in self._pieces(script.text if isinstance(script, Reply) else script):
            if isinstance(piece, Exception):
                raise piece
            stop_position = _stop_position(generated + piece, request.sampling.stop)
            text = piece if stop_position is None else piece[: max(0, stop_position - len(generated))]
            if len(text) > tokens_left:
                text, finish_reason, stop_position = text[:tokens_left], "length", len(generated) + tokens_left
            tokens_left, generated = tokens_left - len(text), generated + text
            yield Chunk(request.id, text, tuple(map(ord, text)), thoughts_opened=thoughts_opened)
            if stop_position is not None:
                break
            self._wait()
        prompt = self._prompt(request)
        error = "scripted" if finish_reason == "error" else ""
        refused = isinstance(script, Reply) and script.refused
        yield Chunk(
            request.id,
            finish_reason=finish_reason,
            prompt_tokens=len(prompt),
            error=error,
            refused=refused,
            thoughts_opened=thoughts_opened,
        )

    def _next_script(self, request: Request) -> Script:
        if callable(self._replies):
            return self._replies(request)
        if isinstance(self._replies, Mapping):
            user_messages = [message["content"] for message in request.messages if message["role"] == "user"]
            key = request.prompt if request.prompt is not None else (user_messages or [""])[-1]
            if key not in self._replies:
                raise LookupError(unknown_name_message("scripted message", key, self._replies))
            return self._replies[key]
        if self._used_replies == len(self._replies):
            raise LookupError(f"the scripted engine has used up its {self._used_replies} replies")
        self._used_replies += 1
        return self._replies[self._used_replies - 1]

    def _pieces(self, script: str | Sequence[str | Exception]) -> Iterable[str | Exception]:
        """Split a reply into chunks; a list of pieces is used unchanged."""
        if not isinstance(script, str):
            return script
        if isinstance(self._chunks, int):
            size = self._chunks
            return [script[start : start + size] for start in range(0, len(script), size)]
        return self._chunks(script)

    def _wait(self) -> None:
        """Wait until the test sets the event."""
        if self._pause is not None and not self._pause.wait(PAUSE_SECONDS):
            raise TimeoutError(f"the scripted engine was paused for {PAUSE_SECONDS:g} s; the test never set its event")


def _to_token(character: str, special: bool = False, trained: bool = False) -> Token:
    return Token(ord(character), character, special, trained)


def _stop_position(text: str, stops: Iterable[str]) -> int | None:
    """Return the position of the first stop string; None when there is none."""
    positions = [position for position in (text.find(stop) for stop in stops) if position >= 0]
    return min(positions) if positions else None
