"""The local engine: transformers causal language models with continuous batching and streaming."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from sftchat.engine import Chunk, Request
from sftchat.errors import EngineError, SftchatError, SftchatWarning
from sftchat.inference.adapters import Adapters
from sftchat.inference.detokenizer import Detokenizer
from sftchat.inference.inspect import decoded, judge, prompt_ids, reply_ids, tokens_of, trained_tokens
from sftchat.inference.prompt_cache import PromptCache
from sftchat.inference.sampling import Sampler
from sftchat.inference.scheduler import Scheduler
from sftchat.inference.sequence import RunningRequest
from sftchat.models.loading import Loaded
from sftchat.models.reference import ModelReference, resolve
from sftchat.templates.renderer import Renderer, argument_names
from sftchat.thinking import opens_thoughts
from sftchat.types import Choice, Message, Token

WINDOW = 2048
"""Number of requests sorted by length at a time; bounds memory for evalsets of any size."""
MAX_CHAT_REQUESTS = 8
"""Maximum number of requests per call that count as a chat, whose keys and values go into the prompt cache."""

TAG_TOKENS = 8
"""Number of prompt tokens decoded to look for ``<think>`` and a line break, for any tokenization."""


class TransformersEngine:
    """Generates replies with a loaded model; implements ``Engine``, ``Renders``, ``Counts``, ``Adapts``, ``Inspects`` and ``Templated``.

    Args:
        name: Name of the model, as the user gave it.
        loaded: Weights, renderer and stop tokens.
        batch_size: Maximum number of requests decoded together.
        merges: Whether requests may join a running batch, as returned by ``optimize_for_inference``.
    """

    def __init__(self, name: str, loaded: Loaded, batch_size: int = 128, *, merges: bool = True) -> None:
        self.name = name
        self.loaded = loaded
        self.batch_size = batch_size
        self._merges = merges
        self.kept = PromptCache()
        self._adapters = Adapters(name, loaded)

    @property
    def context_length(self) -> int:
        """Maximum number of tokens, prompt and reply together."""
        config = self.loaded.model.config.get_text_config()
        return int(getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None) or 2048)

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names allowed in ``Request.adapter``; the first is the model's own adapter, if it was loaded with one."""
        return self._adapters.names

    def add_adapter(self, name: str, model: str | ModelReference) -> None:
        """Load an adapter of this base model and register it under a name.

        Raises:
            UsageError: When the name is taken.
            ModelError: When the folder contains no adapter of this base model, or it cannot be loaded.
        """
        self._adapters.add(name, resolve(model) if isinstance(model, str) else model)

    def mix_adapters(self, name: str, parts: Mapping[str, float]) -> None:
        """Create an adapter that is the weighted sum of others.

        Raises:
            UsageError: When the name is taken, or a part is not loaded.
            ModelError: When the adapters cannot be mixed.
        """
        self._adapters.mix(name, parts)

    @property
    def template_hash(self) -> str:
        """SHA-256 of the chat template's source and arguments."""
        return self.loaded.renderer.template_hash

    @property
    def template_arguments(self) -> Mapping[str, Any]:
        """Default template arguments, as they were used in training; those of a request override them."""
        return self.loaded.renderer.arguments

    @property
    def template_variables(self) -> tuple[str, ...]:
        """Names allowed in ``Request.template_arguments``, sorted."""
        return argument_names(self.loaded.renderer)

    def render(self, messages: Sequence[Message]) -> str:
        """Return the templated text of a conversation, ready for the reply."""
        return self.loaded.renderer.prompt_text(messages)

    def count_tokens(self, request: Request) -> int:
        """Count the tokens of the rendered prompt, ``reply_prefix`` included."""
        return len(prompt_ids(self._adapters.voice(request.adapter).renderer, request))

    def prompt_tokens(self, request: Request) -> tuple[Token, ...]:
        """Return the tokens of the prompt."""
        renderer = self._adapters.voice(request.adapter).renderer
        return tokens_of(renderer, prompt_ids(renderer, request))

    def trained_tokens(self, messages: Sequence[Message], adapter: str = "") -> tuple[Token, ...]:
        """Return the tokens of a conversation as in training; ``trained`` marks those that contribute to the loss."""
        return trained_tokens(self._adapters.voice(adapter).renderer, messages)

    def decode(self, token_ids: Sequence[int], adapter: str = "") -> str:
        """Decode token ids without special tokens."""
        return decoded(self._adapters.voice(adapter).renderer, token_ids)

    def choices(self, request: Request, reply: str | Sequence[int], *, ended: bool = True, alternatives: int = 0) -> tuple[Choice, ...]:
        """Return the log-probability of each token of a given reply, before sampling parameters.

        Raises:
            UsageError: When prompt or reply is empty.
            EngineError: When they exceed the context length.
        """
        voice = self._adapters.voice(request.adapter)
        ids = reply_ids(voice.renderer, request, reply, ended)
        self._adapters.route([voice.key])
        return judge(self._adapters.model, voice.renderer, request, ids, alternatives, self.context_length)

    def close(self) -> None:
        """Clear the prompt cache; garbage collection frees the rest."""
        self.kept.clear()

    def generate(self, requests: Iterable[Request]) -> Iterator[Chunk]:
        """Generate replies, longest prompts of each window first; a request joins the running batch as soon as a slot is free.

        Keys and values of calls with few requests go into the prompt cache, also when a request is cancelled.

        Raises:
            EngineError: When the model fails.
        """
        source = iter(requests)
        size = WINDOW if self.batch_size > 1 else 1
        window = list(islice(source, size))
        kept = self.kept if len(window) <= MAX_CHAT_REQUESTS else None
        adapters = self._adapters
        scheduler = Scheduler(
            self.name, adapters.model, self.batch_size, route=adapters.route, mixes=adapters.mixes, kept=kept, merges=self._merges
        )
        try:
            while True:
                if len(window) > self.batch_size and not scheduler.mergeable:
                    warnings.warn(
                        f"model '{self.name}' has layers whose state cannot be merged: its replies are made in batches that no other joins",
                        SftchatWarning,
                        stacklevel=2,
                    )
                for request in window:
                    try:
                        scheduler.add(self._prepare(request))
                    except SftchatError as error:
                        yield Chunk(request.id, finish_reason="error", error=str(error))
                if not (window or scheduler.waiting or scheduler.running):
                    return
                yield from scheduler.advance()
                window = [] if scheduler.waiting else list(islice(source, size))
        finally:
            scheduler.keep()

    def _prepare(self, request: Request) -> RunningRequest:
        """Render a request; raise ``EngineError`` if it exceeds the context length."""
        voice = self._adapters.voice(request.adapter)
        ids = prompt_ids(voice.renderer, request)
        if not ids:
            raise EngineError("the prompt is empty")
        room = self.context_length - len(ids)
        if room < 1:
            raise EngineError(
                f"the prompt has {len(ids)} tokens; the model's context holds {self.context_length}, prompt and reply together"
            )
        sampling = request.sampling
        limit = len(ids) + min(sampling.max_new_tokens, room)
        detokenizer = Detokenizer(voice.renderer.tokenizer, sampling.stop)
        detokenizer.begin(request.reply_ids)
        return RunningRequest(
            request,
            ids,
            len(ids),
            limit,
            Sampler(sampling, ids),
            detokenizer,
            frozenset(voice.stop_ids),
            voice.key,
            opened=_opens_thoughts(voice.renderer, ids),
        )


def _opens_thoughts(renderer: Renderer, ids: Sequence[int]) -> bool:
    """Whether the last tokens of a prompt end within ``<think>``."""
    return opens_thoughts(renderer.tokenizer.decode(list(ids[-TAG_TOKENS:])))
