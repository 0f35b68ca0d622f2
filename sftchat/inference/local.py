"""The local engine: transformers causal language models with continuous batching, streaming, and the probabilities of given replies."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from sftchat.engine import Chunk, Request
from sftchat.errors import EngineError, SftchatError, SftchatWarning, UsageError
from sftchat.inference.adapters import Adapters
from sftchat.inference.kv_cache import PromptCache
from sftchat.inference.scheduler import Scheduler
from sftchat.inference.sequence import Detokenizer, RunningRequest, Sampler, decode
from sftchat.models.loading import Loaded, unwrapped
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
POSITIONS_AT_ONCE = 64
"""Number of positions whose probabilities over the vocabulary are computed at a time."""


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
        self.prompt_cache = PromptCache()
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
        return len(prompt_ids(self._renderer(request.adapter), request))

    def prompt_tokens(self, request: Request) -> tuple[Token, ...]:
        """Return the tokens of the prompt."""
        renderer = self._renderer(request.adapter)
        return _tokens(renderer, prompt_ids(renderer, request))

    def trained_tokens(self, messages: Sequence[Message], adapter: str = "") -> tuple[Token, ...]:
        """Return the tokens of a conversation as in training; ``trained`` marks those that contribute to the loss."""
        renderer = self._renderer(adapter)
        rendered = renderer.training_ids(messages)
        return _tokens(renderer, rendered.ids, [label >= 0 for label in rendered.labels])

    def decode(self, token_ids: Sequence[int], adapter: str = "") -> str:
        """Decode token ids without special tokens."""
        return decode(self._renderer(adapter).tokenizer, token_ids)

    def choices(self, request: Request, reply: str | Sequence[int], *, ended: bool = True, alternatives: int = 0) -> tuple[Choice, ...]:
        """Return the log-probability of each token of a given reply, before sampling parameters.

        Raises:
            UsageError: When prompt or reply is empty.
            EngineError: When they exceed the context length, or the model's logits are not finite.
        """
        profile = self._adapters.profile(request.adapter)
        ids = reply_ids(profile.renderer, request, reply, ended)
        self._adapters.route([profile.key])
        prompt = prompt_ids(profile.renderer, request)
        if not prompt or not ids:
            raise UsageError("there is nothing to score: the prompt or the reply is empty")
        if len(prompt) + len(ids) > self.context_length:
            raise EngineError(f"prompt and reply have {len(prompt) + len(ids)} tokens; the model's context holds {self.context_length}")
        return score_reply(self._adapters.model, profile.renderer, prompt, ids, alternatives)

    def close(self) -> None:
        """Clear the prompt cache; garbage collection frees the rest."""
        self.prompt_cache.clear()

    def generate(self, requests: Iterable[Request]) -> Iterator[Chunk]:
        """Generate replies, longest prompts of each window first; a request joins the running batch as soon as a slot is free.

        Keys and values of calls with few requests go into the prompt cache, also when a request is cancelled.

        Raises:
            EngineError: When the model fails.
        """
        source = iter(requests)
        size = WINDOW if self.batch_size > 1 else 1
        window = list(islice(source, size))
        scheduler = Scheduler(
            self.name,
            self._adapters.model,
            self.batch_size,
            route=self._adapters.route,
            mixes=self._adapters.mixes,
            prompt_cache=self.prompt_cache if len(window) <= MAX_CHAT_REQUESTS else None,
            merges=self._merges,
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
            scheduler.save_prompts()

    def _renderer(self, adapter: str) -> Renderer:
        return self._adapters.profile(adapter).renderer

    def _prepare(self, request: Request) -> RunningRequest:
        """Render a request; raise ``EngineError`` if it exceeds the context length."""
        profile = self._adapters.profile(request.adapter)
        tokenizer, ids = profile.renderer.tokenizer, prompt_ids(profile.renderer, request)
        if not ids:
            raise EngineError("the prompt is empty")
        tokens_left = self.context_length - len(ids)
        if tokens_left < 1:
            raise EngineError(
                f"the prompt has {len(ids)} tokens; the model's context holds {self.context_length}, prompt and reply together"
            )
        sampling = request.sampling
        detokenizer = Detokenizer(tokenizer, sampling.stop)
        detokenizer.begin(request.reply_ids)
        return RunningRequest(
            request=request,
            tokens=ids,
            prompt_tokens=len(ids),
            limit=len(ids) + min(sampling.max_new_tokens, tokens_left),
            sampler=Sampler(sampling, ids),
            detokenizer=detokenizer,
            stop_ids=frozenset(profile.stop_ids),
            adapter=profile.key,
            thoughts_opened=opens_thoughts(tokenizer.decode(ids[-TAG_TOKENS:])),
        )


def _with_arguments(renderer: Renderer, request: Request) -> Renderer:
    return replace(renderer, arguments={**renderer.arguments, **request.template_arguments}) if request.template_arguments else renderer


def prompt_ids(renderer: Renderer, request: Request) -> list[int]:
    """Return the token ids of the prompt, the beginning of the reply included.

    Args:
        renderer: Renderer of the adapter.
        request: The request.

    Raises:
        TemplateError: When the template refuses the messages.
    """
    if request.prompt is not None:
        ids = list(renderer.tokenizer.encode(request.prompt + request.reply_prefix))
    else:
        ids = _with_arguments(renderer, request).prompt_ids(request.messages, request.reply_prefix, request.tools)
    return [*ids, *request.reply_ids]


def reply_ids(renderer: Renderer, request: Request, reply: str | Sequence[int], ended: bool) -> list[int]:
    """Return a reply as token ids, as in training.

    Args:
        renderer: Renderer of the adapter.
        request: The prompt.
        reply: Text, or token ids.
        ended: Whether to append the end-of-reply token.
    """
    if not isinstance(reply, str):
        ids = list(reply)
    elif request.prompt is not None:
        ids = list(renderer.tokenizer.encode(reply, add_special_tokens=False))
    else:
        used, prefix = _with_arguments(renderer, request), request.reply_prefix
        before = used.prompt_ids(request.messages, prefix, request.tools)
        ids = used.prompt_ids(request.messages, prefix + reply, request.tools)[len(before) :]
    stop = renderer.for_tools(request.tools).stop_token if request.prompt is None else renderer.tokenizer.eos_token_id
    return [*ids, stop] if ended and stop is not None and ids[-1:] != [stop] else ids


def _tokens(renderer: Renderer, ids: Sequence[int], trained: Sequence[bool] = ()) -> tuple[Token, ...]:
    """Return tokens with their text.

    Args:
        renderer: Has the tokenizer.
        ids: Token ids.
        trained: Whether each token contributes to the training loss; False for all by default.
    """
    tokenizer = renderer.tokenizer
    special = frozenset(tokenizer.added_tokens_decoder)
    texts = {token: tokenizer.convert_ids_to_tokens(token) if token in special else tokenizer.decode([token]) for token in set(ids)}
    flags = trained or [False] * len(ids)
    return tuple(Token(token, texts[token], token in special, flag) for token, flag in zip(ids, flags, strict=True))


def score_reply(model: Any, renderer: Renderer, prompt: Sequence[int], reply: Sequence[int], alternatives: int) -> tuple[Choice, ...]:
    """Return log-probability, rank and top alternatives of each token of a reply, from one forward pass.

    Args:
        model: A causal language model in eval mode.
        renderer: Renderer of the adapter.
        prompt: Token ids of the prompt, not empty.
        reply: Token ids of the reply, not empty.
        alternatives: Number of top alternatives per token.

    Raises:
        EngineError: When the model's logits are not finite.
    """
    scores: list[tuple[float, int, list[tuple[int, float]]]] = []
    takes_logits_to_keep = "logits_to_keep" in inspect.signature(unwrapped(model).forward).parameters
    with torch.inference_mode():
        ids = torch.tensor([[*prompt, *reply[:-1]]], device=model.device)
        logits = model(input_ids=ids, use_cache=False, **({"logits_to_keep": len(reply)} if takes_logits_to_keep else {})).logits
        for start in range(0, len(reply), POSITIONS_AT_ONCE):
            part = slice(start, start + POSITIONS_AT_ONCE)
            scores += _score_positions(logits[0, -len(reply) :][part], reply[part], alternatives)
    if broken := next((number for number, (value, _, _) in enumerate(scores, start=1) if math.isnan(value)), None):
        raise EngineError(f"the model's logits are not finite at token {broken} of the reply")
    named = {token.id: token for token in _tokens(renderer, sorted({*reply, *(token for _, _, others in scores for token, _ in others)}))}
    return tuple(
        Choice(named[token], logprob, rank, tuple((named[other], value) for other, value in others))
        for token, (logprob, rank, others) in zip(reply, scores, strict=True)
    )


def _score_positions(logits: Tensor, reply: Sequence[int], alternatives: int) -> list[tuple[float, int, list[tuple[int, float]]]]:
    """Return log-probability, rank and top alternatives of tokens at consecutive positions."""
    logprobs = logits.float().log_softmax(-1)
    chosen = logprobs.gather(1, torch.tensor(list(reply), device=logprobs.device)[:, None])
    ranks = (logprobs > chosen).sum(-1).tolist()
    best = logprobs.topk(min(alternatives, logprobs.shape[-1]))
    others = [list(zip(*row, strict=True)) for row in zip(best.indices.tolist(), best.values.tolist(), strict=True)]
    return list(zip(chosen[:, 0].tolist(), ranks, others, strict=True))
