"""The ``Engine`` protocol, the interface of sftchat to all models: it takes requests and yields chunks of replies.

A chat turn is one request, an eval is thousands, best-of-k is one prompt with k seeds. Tests pass ``sftchat.testing.ScriptedEngine``.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Literal, Protocol, runtime_checkable

from sftchat.errors import EngineError
from sftchat.thinking import partial_match_length, with_opening_tag
from sftchat.types import Choice, FinishReason, Message, Reply, SamplingParams, Token


@dataclass(frozen=True)
class Request:
    """One prompt for a model to continue.

    Attributes:
        id: Unique among the requests of one call; each chunk of the reply has it as ``request_id``.
        messages: The conversation; rendered by the engine's chat template.
        prompt: Raw text to continue, without a template, instead of messages.
        sampling: Sampling parameters.
        adapter: Name of the adapter to use; ``OFF`` for the base model without adapters; empty for the model as it was loaded.
        reply_prefix: The beginning of the reply, which the model continues; not repeated in the chunks.
        reply_ids: Token ids to use instead of ``reply_prefix``, if the engine generated that beginning earlier; ``reply_prefix`` is then empty.
        template_arguments: Arguments of the chat template; they override the model's own. Engines that do not render the template themselves refuse
            them.
        tools: Functions that the model may call, as JSON schemas.
        logprobs: Number of top alternatives per token in ``Chunk.choices``, at least 0; None requests no log-probabilities. Engines that implement
            ``Inspects`` may ignore this, because ``Inspects.choices`` computes the log-probabilities of a finished reply.
        continuations: Texts whose likelihood after the prompt is computed instead of generating a reply; none is empty. The reply is then one line
            of JSON (``sftchat.likelihood``), and the sampling parameters have no effect.
        ended: Whether the likelihood of a continuation includes that of the end-of-reply token.
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
    continuations: tuple[str, ...] = ()
    ended: bool = False


Revision = Literal["", "thought", "again"]


@dataclass(frozen=True)
class Chunk:
    """A part of one reply, as it is streamed.

    Attributes:
        request_id: ``Request.id`` of the request.
        text: New text, in complete characters; may be empty.
        token_ids: The tokens since the last chunk, without the stop token.
        finish_reason: Set on the last chunk of the request only.
        prompt_tokens: Length of the rendered prompt; set on the last chunk.
        cached_tokens: Prompt tokens taken from the prompt cache instead of being prefilled; set on the last chunk.
        logprobs: Log-probability of each token in ``token_ids`` or, from a server, in ``choices``; None if the engine does not provide them.
        error: Error message if ``finish_reason`` is ``"error"``: this request failed, the others continue.
        unlisted_tokens: Number of further tokens of this chunk whose ids the engine does not report.
        thoughts: New reasoning text, separated from the reply by the server or by its tags.
        refused: Whether the server marked the reply as a refusal.
        revises: How to reinterpret earlier chunks: ``thought`` means that their text was reasoning; ``again`` means that their thoughts must be
            discarded because the request was sent again.
        choices: Tokens whose text has been emitted completely since the last chunk, without those of thoughts; empty unless ``Request.logprobs``
            requested them and the engine provides them.
        thoughts_opened: Whether the prompt ended with ``<think>``, so that the reply begins with reasoning without that tag. The same on every chunk.
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
class Describes(Protocol):
    """An engine that describes its loaded model."""

    @property
    def precision(self) -> str:
        """Precision of the weights, such as ``float32``, ``bfloat16``, ``int8`` or ``Q8_0``."""

    @property
    def summary(self) -> str:
        """Number of parameters, precision and where the model runs, such as ``134.5 M parameters, bfloat16, cpu``."""


@runtime_checkable
class Counts(Protocol):
    """An engine that can count the tokens of a prompt before prefill."""

    def count_tokens(self, request: Request) -> int:
        """Return the number of tokens of a rendered request, including ``reply_prefix``.

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
            reply: Text, or token ids if they are known.
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
        identify: Called with the same arguments as ``open``; must not load the model. Returns a hash of everything besides the request that affects
            a reply, such as weights, tokenizer, template and versions, or an empty string if unknown. An evaluation caches the replies of a model
            only if it has this hash: a server, for example, may change its model at any time.
    """

    scheme: str
    description: str
    open: Callable[[str, Mapping[str, Any]], Engine]
    identify: Callable[[str, Mapping[str, Any]], str] | None = None


def collect(
    engine: Engine, requests: Iterable[Request], *, on_chunk: Callable[[Chunk], None] | None = None, stop: Callable[[], bool] | None = None
) -> Generator[tuple[str, Reply | EngineError], None, None]:
    """Assemble chunks into replies, yielded as ``(request id, reply)`` in order of completion.

    For a request that failed, was cancelled or never got a ``finish_reason``, the second item is an ``EngineError``. Closing this iterator closes the
    engine's.

    Args:
        engine: Receives all requests at once.
        requests: Requests with unique ids.
        on_chunk: Called with every chunk as it arrives, except the last one of a request that failed.
        stop: Called at every chunk; when it returns True, each unfinished reply is yielded with the text so far, as ``"cancelled"``.

    Raises:
        EngineError: When the engine as a whole fails, or yields a chunk for an unknown request id.
    """
    chunks_by_id: dict[str, list[Chunk]] = {}  # of the unfinished requests

    def register_requests() -> Iterator[Request]:
        for request in requests:
            chunks_by_id[request.id] = []
            yield request

    registered_requests, stopped = register_requests(), False
    with close_at_end(engine.generate(registered_requests)) as chunks:
        for chunk in chunks:
            stopped = stop is not None and stop()
            if stopped:
                break
            if chunk.request_id not in chunks_by_id:
                raise EngineError(f"engine '{engine.name}' answered request '{chunk.request_id}', which is not waiting for an answer")
            chunks_by_id[chunk.request_id].append(chunk)
            if on_chunk is not None and chunk.finish_reason != "error":
                on_chunk(chunk)
            if chunk.finish_reason in ("error", "cancelled"):
                del chunks_by_id[chunk.request_id]
                message = " ".join(chunk.error.split())
                yield chunk.request_id, EngineError(message or f"the request ended as '{chunk.finish_reason}'")
            elif chunk.finish_reason is not None:
                yield chunk.request_id, assemble_reply(chunks_by_id.pop(chunk.request_id), chunk.finish_reason)
    for _ in registered_requests:  # registers the requests that the engine has not taken
        pass
    for id, received in chunks_by_id.items():
        yield id, assemble_reply(received, "cancelled") if stopped else EngineError("the engine stopped without answering")


Generate = Callable[[Iterable[Request]], Iterator[Chunk]]
"""Replies to requests, in any order; ``Engine.generate``."""


def answer_requests(requests: Iterable[Request], generate: Generate, score: Generate) -> Iterator[Chunk]:
    """Pass requests on, in their order: those with continuations to ``score``, the others to ``generate``.

    Args:
        requests: Taken from the iterable as the two functions take them.
        generate: Generates replies.
        score: Computes likelihoods.
    """
    for has_continuations, group in groupby(requests, lambda request: bool(request.continuations)):
        yield from (score if has_continuations else generate)(group)


def emittable_length(text: str, emitted: int, stops: Sequence[str], *, final: bool) -> tuple[int, bool]:
    """Return how many characters of a streamed text can be emitted: those that cannot become part of a stop string.

    Args:
        text: The reply so far.
        emitted: Number of characters already emitted.
        stops: Strings that end the reply and are not part of it; none is empty.
        final: Whether the text is complete.

    Returns:
        The number of characters from the start of the text, and whether a stop string follows them.
    """
    found_at = [text.find(stop, max(0, emitted - len(stop) + 1)) for stop in stops]
    stop_positions = [position for position in found_at if position >= 0]
    if stop_positions:
        return max(emitted, min(stop_positions)), True
    return len(text) - (0 if final else partial_match_length(text, stops)), False


def append_chunk(text: str, thoughts: str, chunk: Chunk) -> tuple[str, str]:
    """Return the text and the thoughts of a reply, in this order, after the next chunk.

    Args:
        text: Text of the reply before the chunk.
        thoughts: Thoughts before the chunk.
        chunk: The next chunk.
    """
    if chunk.revises == "thought":
        text, thoughts = "", thoughts + text
    elif chunk.revises == "again":
        thoughts = ""
    return text + chunk.text, thoughts + chunk.thoughts


def assemble_reply(chunks: Sequence[Chunk], finish_reason: FinishReason) -> Reply:
    """Assemble a reply from its chunks, with the same result as repeated ``append_chunk``, but in linear time.

    If the prompt opened the thoughts, the missing opening tag is added (``with_opening_tag``).

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
def close_at_end(chunks: Iterator[Chunk]) -> Iterator[Iterator[Chunk]]:
    """Close an engine's iterator when the block ends, if it has a ``close`` method."""
    try:
        yield chunks
    finally:
        close = getattr(chunks, "close", None)
        if close is not None:
            close()
