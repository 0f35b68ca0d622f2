"""The local engine: any causal language model of transformers, many requests at once, text as it comes."""

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
"""Requests looked at together to be sorted by length; bounds memory for evalsets of any size."""
MAX_CHAT_REQUESTS = 8
"""Requests of one call up to which it is a talk, and what was read is kept for the next call."""

TAG_TOKENS = 8
"""Tokens at the end of a prompt that hold ``<think>`` and a line break, however they are cut."""


class TransformersEngine:
    """Answers requests with a loaded model; an ``Engine`` that also ``Renders``, ``Counts``, ``Adapts``, ``Inspects`` and is ``Templated``.

    Args:
        name: What the user called the model.
        loaded: Weights, renderer and stop tokens.
        batch_size: The most requests decoded together.
        merges: Whether rows may join while others run, as ``prepare_for_decoding`` found it.
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
        """The most tokens that prompt and reply may have together."""
        config = self.loaded.model.config.get_text_config()
        return int(getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None) or 2048)

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names that ``Request.adapter`` may have; the first is the model's own, where it was loaded with one."""
        return self._adapters.names

    def add_adapter(self, name: str, model: str | ModelReference) -> None:
        """Load an adapter of this base under a name.

        Raises:
            UsageError: When the name is taken.
            ModelError: When it is no adapter of this base, or cannot be loaded.
        """
        self._adapters.add(name, resolve(model) if isinstance(model, str) else model)

    def mix_adapters(self, name: str, parts: Mapping[str, float]) -> None:
        """Make a new adapter that is the weighted sum of others.

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
        """The arguments in force where a request has none of its own, as training used them."""
        return self.loaded.renderer.arguments

    @property
    def template_variables(self) -> tuple[str, ...]:
        """What the template can be told beside the messages, sorted."""
        return argument_names(self.loaded.renderer)

    def render(self, messages: Sequence[Message]) -> str:
        """The templated text of a conversation, ready for the reply."""
        return self.loaded.renderer.prompt_text(messages)

    def count_tokens(self, request: Request) -> int:
        """Tokens of the rendered prompt, the beginning of the reply included."""
        return len(prompt_ids(self._adapters.voice(request.adapter).renderer, request))

    def prompt_tokens(self, request: Request) -> tuple[Token, ...]:
        """The prompt as the model reads it."""
        renderer = self._adapters.voice(request.adapter).renderer
        return tokens_of(renderer, prompt_ids(renderer, request))

    def trained_tokens(self, messages: Sequence[Message], adapter: str = "") -> tuple[Token, ...]:
        """A conversation as training reads it, ``trained`` where the model would learn."""
        return trained_tokens(self._adapters.voice(adapter).renderer, messages)

    def decode(self, token_ids: Sequence[int], adapter: str = "") -> str:
        """The text of token ids, special tokens left out."""
        return decoded(self._adapters.voice(adapter).renderer, token_ids)

    def choices(self, request: Request, reply: str | Sequence[int], *, ended: bool = True, alternatives: int = 0) -> tuple[Choice, ...]:
        """How likely a given reply was, token by token, before sampling parameters.

        Raises:
            UsageError: When prompt or reply is empty.
            EngineError: When they do not fit into the context.
        """
        voice = self._adapters.voice(request.adapter)
        ids = reply_ids(voice.renderer, request, reply, ended)
        self._adapters.route([voice.key])
        return judge(self._adapters.model, voice.renderer, request, ids, alternatives, self.context_length)

    def close(self) -> None:
        """Forget what was read; garbage collection frees the rest."""
        self.kept.clear()

    def generate(self, requests: Iterable[Request]) -> Iterator[Chunk]:
        """Answer requests, the longest prompts of each window first; a request joins the running batch as soon as another has left it.

        What was read for a few requests is kept, however they end, so that the next call reads only what it adds.

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
        """Render a request and refuse one that cannot fit."""
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
    """Whether a prompt ends within ``<think>``, told from its last tokens."""
    return opens_thoughts(renderer.tokenizer.decode(list(ids[-TAG_TOKENS:])))
