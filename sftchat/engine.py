"""The one seam to every model: requests go in, chunks come out.

A chat turn is one request; an eval is thousands; a side-by-side is one prompt under several adapters; best-of-k is one prompt with k seeds.
Tests pass ``sftchat.testing.ScriptedEngine``; nothing is patched.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from sftchat.errors import EngineError
from sftchat.thinking import with_opening_tag
from sftchat.types import Choice, FinishReason, Message, Reply, SamplingParams, Token


@dataclass(frozen=True)
class Request:
    """One prompt to be continued.

    Attributes:
        id: Comes back on every chunk; unique among the requests of one call.
        messages: The conversation; rendered by the engine's chat template.
        prompt: Text to be continued as it is, without a template, instead of messages.
        sampling: How tokens are chosen.
        adapter: Name of the adapter to answer with, ``OFF`` for the base without any; empty for what was loaded.
        reply_prefix: The beginning of the reply, to be continued; not repeated in the chunks.
        reply_ids: The same as token ids, for an engine that was heard to say them; ``reply_prefix`` is empty then.
        template_arguments: Arguments of the chat template, over those the model has of its own; engines that render elsewhere refuse them.
        tools: Functions that the model may call, as JSON schemas.
        logprobs: Ask for ``Chunk.choices``, with this many of the likeliest tokens at each place, from 0; None does not ask. Engines that are
            ``Inspects`` compute them afterwards and may ignore it.
    """

    id: str
    messages: tuple[Message, ...] = ()
    prompt: str | None = None
    sampling: SamplingParams = field(default_factory=SamplingParams)
    adapter: str = ""
    reply_prefix: str = ""
    reply_ids: tuple[int, ...] = ()
    template_arguments: Mapping[str, Any] = field(default_factory=dict)
    tools: tuple[Mapping[str, Any], ...] = ()
    logprobs: int | None = None


Revision = Literal["", "thought", "again"]


@dataclass(frozen=True)
class Chunk:
    """A piece of one reply.

    Attributes:
        request_id: Whose reply it is.
        text: New text, always whole characters; may be empty.
        token_ids: The tokens since the last chunk, the stop token not among them.
        finish_reason: Set on the last chunk of the request, exactly once.
        prompt_tokens: Length of the rendered prompt; set on the last chunk.
        cached_tokens: How many of those the engine still knew from an earlier request and did not read again; set on the last chunk.
        logprobs: Log-probability of each of ``token_ids``, where the engine gives them; or of each of ``choices``, where a server does.
        error: What went wrong, when ``finish_reason`` is ``"error"``: that request failed, the others go on.
        unlisted_tokens: How many more tokens there are than ``token_ids`` lists, from engines that know only the number.
        thoughts: New text that is kept apart from the reply because the server or its tags say that it is reasoning.
        refused: The reply is a refusal by the server's own word.
        revises: What of the chunks before is something else: with ``thought`` their text was thoughts, with ``again`` their thoughts are void
            because the request was sent once more.
        choices: The tokens of the reply's text whose whole text has been handed out since the last ones, where ``Request.logprobs`` asked for
            them and the engine gives them; those of thoughts are not among them.
        opened: The template opened the thoughts of this reply: its text begins within ``<think>``, without that tag. On every chunk of it.
    """

    request_id: str
    text: str = ""
    token_ids: tuple[int, ...] = ()
    finish_reason: FinishReason | None = None
    prompt_tokens: int = 0
    logprobs: tuple[float, ...] | None = None
    error: str = ""
    unlisted_tokens: int = 0
    cached_tokens: int = 0
    thoughts: str = ""
    refused: bool = False
    revises: Revision = ""
    choices: tuple[Choice, ...] = ()
    opened: bool = False

    @property
    def tokens(self) -> int:
        """How many tokens the chunk adds to the reply."""
        return len(self.token_ids) + self.unlisted_tokens


@runtime_checkable
class Engine(Protocol):
    """Whatever answers requests."""

    @property
    def name(self) -> str:
        """What the user called the model."""

    def generate(self, requests: Iterable[Request]) -> Iterator[Chunk]:
        """Answer requests, in any order and interleaved; each ends with one chunk that has a ``finish_reason``.

        Closing the iterator cancels what is under way. Requests are taken as places get free.

        Raises:
            EngineError: When nothing more can be generated.
        """

    def close(self) -> None:
        """Free what the engine holds; it answers no more."""


@runtime_checkable
class Renders(Protocol):
    """An engine that can show the exact prompt it would feed."""

    def render(self, messages: Sequence[Message]) -> str:
        """The templated text of a conversation, ready for the reply."""

    @property
    def context_length(self) -> int:
        """The most tokens that prompt and reply may have together."""


@runtime_checkable
class Counts(Protocol):
    """An engine that knows how long a prompt is before it reads it."""

    def count_tokens(self, request: Request) -> int:
        """How many tokens a request renders to, its ``reply_prefix`` included.

        Raises:
            ModelError: When its messages cannot be rendered.
        """


@runtime_checkable
class Templated(Protocol):
    """An engine that renders prompts itself and says with what."""

    @property
    def template_hash(self) -> str:
        """SHA-256 of the chat template's source and arguments."""

    @property
    def template_arguments(self) -> Mapping[str, Any]:
        """The arguments in force where a request has none of its own, as training used them."""

    @property
    def template_variables(self) -> tuple[str, ...]:
        """What the template can be told beside the messages: names for ``Request.template_arguments``, sorted."""


@runtime_checkable
class Scores(Protocol):
    """An engine that can tell how likely a given reply is. What it cannot do it says with a ``SftchatError``."""

    def choices(self, request: Request, reply: str | Sequence[int], *, ended: bool = True, alternatives: int = 0) -> tuple[Choice, ...]:
        """How likely a given reply was, token by token; the sum of the log-probabilities is its log-likelihood.

        Args:
            request: What was asked; its sampling parameters have no part in it.
            reply: Text, or the very token ids where they are known.
            ended: Whether the token that ends a reply is judged as well; a server judges the text alone.
            alternatives: How many of the likeliest tokens to name at each place.
        """


@runtime_checkable
class Inspects(Scores, Protocol):
    """An engine that can be looked into. What it cannot do it says with a ``SftchatError``."""

    def prompt_tokens(self, request: Request) -> tuple[Token, ...]:
        """The prompt as the model reads it."""

    def trained_tokens(self, messages: Sequence[Message], adapter: str = "") -> tuple[Token, ...]:
        """A conversation as training reads it, ``trained`` where the model would learn."""

    def decode(self, token_ids: Sequence[int], adapter: str = "") -> str:
        """The text of token ids, special tokens left out; half a character at the end is U+FFFD."""


OFF = "off"
"""The ``Request.adapter`` that answers with the base model alone."""


@runtime_checkable
class Adapts(Protocol):
    """An engine that answers with several adapters of one base, those of one call in one batch."""

    @property
    def adapters(self) -> tuple[str, ...]:
        """What ``Request.adapter`` may be beside ``""`` (what was loaded) and ``OFF`` (the base alone)."""

    def add_adapter(self, name: str, model: str) -> None:
        """Load an adapter folder under a name; slow.

        Raises:
            UsageError: When the name is taken.
            ModelError: When the folder has no adapter of this base.
        """

    def mix_adapters(self, name: str, parts: Mapping[str, float]) -> None:
        """Make a new adapter that is the weighted sum of others.

        Raises:
            UsageError: When the name is taken, or a part is not loaded.
            ModelError: When the adapters cannot be mixed.
        """


@dataclass(frozen=True)
class EngineType:
    """A way to open models, registered by a plugin.

    Attributes:
        scheme: The part of MODEL before the first colon that selects it: ``scheme:rest``.
        description: One line.
        open: Called with ``rest`` and the options of the command line; returns a ready engine.
        identify: Called with the same, opens nothing; returns a hash of everything but the request that decides a reply, such as weights,
            tokenizer, template and versions, or an empty text where that cannot be known. An evaluation asks a model with an identity nothing
            twice; without one, as for a server that may change its model, every request is asked.
    """

    scheme: str
    description: str
    open: Callable[[str, Mapping[str, Any]], Engine]
    identify: Callable[[str, Mapping[str, Any]], str] | None = None


def collect(engine: Engine, requests: Iterable[Request]) -> Generator[tuple[str, Reply | EngineError], None, None]:
    """Gather chunks into whole replies, yielded as ``(request id, reply)`` in the order in which they end.

    A request that failed or was cancelled alone comes as the error it ended with; nothing is raised for it. Closing the iterator closes the engine's.

    Raises:
        EngineError: When the engine fails as a whole, or answers what nobody asked.
    """
    waiting: dict[str, list[Chunk]] = {}
    known: set[str] = set()

    def watched() -> Iterator[Request]:
        for request in requests:
            known.add(request.id)
            yield request

    with cancelling(engine.generate(watched())) as chunks:
        for chunk in chunks:
            if chunk.request_id not in known:
                raise EngineError(f"engine '{engine.name}' answered request '{chunk.request_id}', which is not waiting for an answer")
            parts = waiting.setdefault(chunk.request_id, [])
            parts.append(chunk)
            if chunk.finish_reason is None:
                continue
            known.remove(chunk.request_id)
            del waiting[chunk.request_id]
            if chunk.finish_reason in ("error", "cancelled"):
                words = " ".join(chunk.error.split())
                yield chunk.request_id, EngineError(words or f"the request ended as '{chunk.finish_reason}'")
                continue
            yield chunk.request_id, reply_of(parts, chunk.finish_reason)


def text_and_thoughts(text: str, thoughts: str, chunk: Chunk) -> tuple[str, str]:
    """What a reply and its thoughts become with the next chunk.

    Args:
        text: Of the reply so far.
        thoughts: So far.
        chunk: The next one.
    """
    if chunk.revises == "thought":
        text, thoughts = "", thoughts + text
    elif chunk.revises == "again":
        thoughts = ""
    return text + chunk.text, thoughts + chunk.thoughts


def reply_of(chunks: Sequence[Chunk], finish_reason: FinishReason) -> Reply:
    """The reply that chunks make, in lists: adding to a text piece by piece takes 10 s for 100,000 chunks. ``text_and_thoughts`` is the same rule.

    Where the template opened the thoughts, the text gets the opening tag that it lacks (``with_opening_tag``).

    Args:
        chunks: All of one request, in order.
        finish_reason: Why it ended.
    """
    texts: list[str] = []
    thoughts: list[str] = []
    for chunk in chunks:
        if chunk.revises == "thought":
            texts, thoughts = [], thoughts + texts
        elif chunk.revises == "again":
            thoughts = []
        texts.append(chunk.text)
        thoughts.append(chunk.thoughts)
    text = "".join(texts)
    if any(chunk.opened for chunk in chunks):
        text = with_opening_tag(text, finish_reason)
    return Reply(
        text,
        finish_reason,
        max((chunk.prompt_tokens for chunk in chunks), default=0),
        sum(chunk.tokens for chunk in chunks),
        "".join(thoughts).strip("\n"),
        any(chunk.refused for chunk in chunks),
    )


@contextmanager
def cancelling(chunks: Iterator[Chunk]) -> Iterator[Iterator[Chunk]]:
    """Close what an engine yields from when the block ends; any iterator will do for an engine, generators can be cancelled."""
    try:
        yield chunks
    finally:
        close = getattr(chunks, "close", None)
        if close is not None:
            close()
