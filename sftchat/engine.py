"""The ``Engine`` protocol, through which all of sftchat reaches a model: requests go in, chunks of replies come out.

A chat turn is one request, an eval is thousands, a side-by-side is one prompt under several adapters, best-of-k is one prompt with k seeds. Tests
pass ``sftchat.testing.ScriptedEngine`` instead of patching.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from sftchat.errors import EngineError
from sftchat.thinking import begun_suffix, with_opening_tag
from sftchat.types import Choice, FinishReason, Message, Reply, SamplingParams, Token


@dataclass(frozen=True)
class Request:
    """One prompt for a model to continue.

    Attributes:
        id: Repeated in every chunk of the reply; unique among the requests of one call.
        messages: The conversation; rendered by the engine's chat template.
        prompt: Raw text to continue, without a template, instead of messages.
        sampling: Sampling parameters.
        adapter: Name of the adapter to use, ``OFF`` for the base model without adapters; empty for the model as it was loaded.
        reply_prefix: The beginning of the reply, which the model continues; not repeated in the chunks.
        reply_ids: The same as token ids, if the engine generated them earlier; ``reply_prefix`` is empty then.
        template_arguments: Arguments of the chat template; they override the model's own. Engines that do not render the template themselves refuse
            them.
        tools: Functions that the model may call, as JSON schemas.
        logprobs: Number of top alternatives per token in ``Chunk.choices``, at least 0; None requests no log-probabilities. Engines that implement
            ``Inspects`` compute them afterwards and may ignore this.
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
    """A part of one reply, as it is streamed.

    Attributes:
        request_id: ``Request.id`` of the request.
        text: New text; never ends within a character; may be empty.
        token_ids: The tokens since the last chunk, without the stop token.
        finish_reason: Set on the last chunk of the request only.
        prompt_tokens: Length of the rendered prompt; set on the last chunk.
        cached_tokens: Prompt tokens taken from the prompt cache instead of being prefilled; set on the last chunk.
        logprobs: Log-probability of each of ``token_ids``, if the engine provides them; for a server, of each of ``choices``.
        error: Error message if ``finish_reason`` is ``"error"``: this request failed, the others continue.
        unlisted_tokens: Tokens of this chunk that are missing from ``token_ids``, for engines that report only a count.
        thoughts: New reasoning text, separated from the reply by the server or by its tags.
        refused: Whether the server marked the reply as a refusal.
        revises: How to reinterpret earlier chunks: ``thought`` means that their text was reasoning, ``again`` that their thoughts are void because
            the request was sent again.
        choices: Tokens whose text has been emitted completely since the last chunk, if ``Request.logprobs`` requested them and the engine provides
            them; tokens of thoughts are excluded.
        thoughts_opened: Whether the template opened the reasoning: the text begins within ``<think>``, without that tag. Set on every chunk of the reply.
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
    thoughts_opened: bool = False

    @property
    def tokens(self) -> int:
        """Number of tokens that the chunk adds to the reply."""
        return len(self.token_ids) + self.unlisted_tokens


@runtime_checkable
class Engine(Protocol):
    """The interface of everything that generates replies."""

    @property
    def name(self) -> str:
        """Name of the model, as the user gave it."""

    def generate(self, requests: Iterable[Request]) -> Iterator[Chunk]:
        """Generate replies, in any order and interleaved; each ends with one chunk that has a ``finish_reason``.

        Closing the iterator cancels running requests. Requests are taken from the iterable as batch slots become free.

        Raises:
            EngineError: When the engine as a whole fails.
        """

    def close(self) -> None:
        """Free all resources; the engine is unusable afterwards."""


@runtime_checkable
class Renders(Protocol):
    """An engine that can show the exact prompt text."""

    def render(self, messages: Sequence[Message]) -> str:
        """Return the templated text of a conversation, ready for the reply."""

    @property
    def context_length(self) -> int:
        """Maximum number of tokens, prompt and reply together."""


@runtime_checkable
class Counts(Protocol):
    """An engine that can count the tokens of a prompt before prefill."""

    def count_tokens(self, request: Request) -> int:
        """Count the tokens of a rendered request, ``reply_prefix`` included.

        Raises:
            ModelError: When the messages cannot be rendered.
        """


@runtime_checkable
class Templated(Protocol):
    """An engine that renders prompts itself and reports its chat template."""

    @property
    def template_hash(self) -> str:
        """SHA-256 of the chat template's source and arguments."""

    @property
    def template_arguments(self) -> Mapping[str, Any]:
        """Default template arguments, as they were used in training; those of a request override them."""

    @property
    def template_variables(self) -> tuple[str, ...]:
        """Names allowed in ``Request.template_arguments``, sorted."""


@runtime_checkable
class Scores(Protocol):
    """An engine that computes the likelihood of a given reply; raises ``SftchatError`` for what it does not support."""

    def choices(self, request: Request, reply: str | Sequence[int], *, ended: bool = True, alternatives: int = 0) -> tuple[Choice, ...]:
        """Return the log-probability of each token of a given reply; their sum is the log-likelihood.

        Args:
            request: The prompt; its sampling parameters are ignored.
            reply: Text, or token ids where they are known.
            ended: Whether to score the end-of-reply token too; servers score only the text.
            alternatives: Number of most likely tokens to return at each position.
        """


@runtime_checkable
class Inspects(Scores, Protocol):
    """An engine that exposes its tokens; raises ``SftchatError`` for what it does not support."""

    def prompt_tokens(self, request: Request) -> tuple[Token, ...]:
        """Return the tokens of the prompt."""

    def trained_tokens(self, messages: Sequence[Message], adapter: str = "") -> tuple[Token, ...]:
        """Return the tokens of a conversation as in training; ``trained`` marks those that contribute to the loss."""

    def decode(self, token_ids: Sequence[int], adapter: str = "") -> str:
        """Decode token ids without special tokens; an incomplete character at the end becomes U+FFFD."""


OFF = "off"
"""``Request.adapter`` of the base model without adapters."""


@runtime_checkable
class Adapts(Protocol):
    """An engine that serves several adapters of one base model, also within one batch."""

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names allowed in ``Request.adapter`` besides ``""`` (as loaded) and ``OFF`` (base model only)."""

    def add_adapter(self, name: str, model: str) -> None:
        """Load an adapter from a folder and register it under a name; slow.

        Raises:
            UsageError: When the name is taken.
            ModelError: When the folder contains no adapter of this base model.
        """

    def mix_adapters(self, name: str, parts: Mapping[str, float]) -> None:
        """Create an adapter that is the weighted sum of others.

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
        identify: Called with the same arguments, without loading the model; returns a hash of everything besides the request that affects a reply,
            such as weights, tokenizer, template and versions, or an empty string if unknown. An evaluation caches replies of models with an identity;
            without one, as for a server that may change its model, every request is sent.
    """

    scheme: str
    description: str
    open: Callable[[str, Mapping[str, Any]], Engine]
    identify: Callable[[str, Mapping[str, Any]], str] | None = None


def collect(
    engine: Engine,
    requests: Iterable[Request],
    *,
    on_chunk: Callable[[Chunk], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> Generator[tuple[str, Reply | EngineError], None, None]:
    """Assemble chunks into replies, yielded as ``(request id, reply)`` in order of completion.

    A request that failed, was cancelled or got no end yields an ``EngineError`` instead of raising it. Closing this iterator closes the engine's.

    Args:
        engine: Receives all requests at once.
        requests: Requests with unique ids.
        on_chunk: Called with every chunk as it arrives, except the last one of a request that failed.
        stop: Whether to stop, checked at every chunk; every unfinished reply then ends as ``"cancelled"`` with the text it has.

    Raises:
        EngineError: When the engine as a whole fails, or yields a chunk for an unknown request id.
    """
    unfinished: dict[str, list[Chunk]] = {}

    def noted() -> Iterator[Request]:
        for request in requests:
            unfinished[request.id] = []
            yield request

    sent, stopped = noted(), False
    with cancelling(engine.generate(sent)) as chunks:
        for chunk in chunks:
            stopped = stop is not None and stop()
            if stopped:
                break
            if chunk.request_id not in unfinished:
                raise EngineError(f"engine '{engine.name}' answered request '{chunk.request_id}', which is not waiting for an answer")
            unfinished[chunk.request_id].append(chunk)
            if on_chunk is not None and chunk.finish_reason != "error":
                on_chunk(chunk)
            if chunk.finish_reason in ("error", "cancelled"):
                del unfinished[chunk.request_id]
                words = " ".join(chunk.error.split())
                yield chunk.request_id, EngineError(words or f"the request ended as '{chunk.finish_reason}'")
            elif chunk.finish_reason is not None:
                yield chunk.request_id, reply_of(unfinished.pop(chunk.request_id), chunk.finish_reason)
    for _ in sent:  # those that the engine has not taken
        pass
    for id, parts in unfinished.items():
        yield id, reply_of(parts, "cancelled") if stopped else EngineError("the engine stopped without answering")


def releasable(text: str, sent: int, stops: Sequence[str], *, final: bool) -> tuple[int, bool]:
    """Return how much of a streamed text can no longer become part of a stop string.

    Args:
        text: The reply so far.
        sent: Number of characters already emitted.
        stops: Strings that end the reply and are not part of it; none is empty.
        final: Whether the text is complete.

    Returns:
        The total number of characters that can be emitted, and whether a stop string follows them.
    """
    ends = [position for position in (text.find(stop, max(0, sent - len(stop) + 1)) for stop in stops) if position >= 0]
    if ends:
        return max(sent, min(ends)), True
    return len(text) - (0 if final else begun_suffix(text, stops)), False


def text_and_thoughts(text: str, thoughts: str, chunk: Chunk) -> tuple[str, str]:
    """Return text and thoughts of a reply after the next chunk.

    Args:
        text: Text of the reply so far.
        thoughts: Thoughts so far.
        chunk: The next chunk.
    """
    if chunk.revises == "thought":
        text, thoughts = "", thoughts + text
    elif chunk.revises == "again":
        thoughts = ""
    return text + chunk.text, thoughts + chunk.thoughts


def reply_of(chunks: Sequence[Chunk], finish_reason: FinishReason) -> Reply:
    """Assemble the reply from its chunks; the result is that of ``text_and_thoughts``, but in linear time.

    If the template opened the thoughts, the missing opening tag is added (``with_opening_tag``).

    Args:
        chunks: All chunks of one request, in order.
        finish_reason: Why the reply ended.
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
    if any(chunk.thoughts_opened for chunk in chunks):
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
    """Close an engine's iterator when the block ends, if it has a ``close`` method."""
    try:
        yield chunks
    finally:
        close = getattr(chunks, "close", None)
        if close is not None:
            close()
