"""The local engine: generation with transformers' causal language models, and the probabilities of given replies."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sftchat.engine import Chunk, Request, answer_requests
from sftchat.errors import EngineError, SftchatError, SftchatWarning
from sftchat.inference.adapters import Adapters
from sftchat.inference.batch import Batch
from sftchat.inference.continuations import ScoredRequest, tokenize_request
from sftchat.inference.kv_cache import PromptCache
from sftchat.inference.likelihood import LikelihoodScorer, Sharing
from sftchat.inference.rendering import RendersPrompts, make_tokens, opens_thoughts_at_end
from sftchat.inference.scheduler import Scheduler
from sftchat.inference.sequence import Detokenizer, RunningRequest, Sampler
from sftchat.models.loading import Loaded, unwrapped
from sftchat.models.reference import ModelReference, resolve
from sftchat.templates.renderer import Renderer
from sftchat.types import Choice

WINDOW = 2048
"""Number of requests taken from the iterable and sorted by length at a time; bounds memory for evalsets of any size."""
MAX_CHAT_REQUESTS = 8
"""A call with at most this many requests counts as a chat: its keys and values go into the prompt cache."""
POSITIONS_AT_ONCE = 64
"""Number of reply positions whose probabilities over the vocabulary are computed at a time; bounds memory."""


class TransformersEngine(RendersPrompts):
    """Generates replies with a loaded model; implements ``Engine``, ``Renders``, ``Counts``, ``Adapts``, ``Inspects`` and ``Templated``.

    Args:
        name: Name of the model, as the user gave it.
        loaded: Weights, renderer and stop tokens.
        batch_size: Maximum number of requests decoded together.
        merges: Whether requests may join a running batch, as returned by ``optimize_for_inference``.
        quantized: Type of the rounded weights, ``int8`` or ``nf4``; empty when they are not rounded.
    """

    def __init__(self, name: str, loaded: Loaded, batch_size: int = 128, *, merges: bool = True, quantized: str = "") -> None:
        self.name = name
        self.loaded = loaded
        self.batch_size = batch_size
        self._quantized = quantized
        self._merges = merges
        self.prompt_cache = PromptCache()
        self._adapters = Adapters(name, loaded)
        self._sharing = Sharing()

    @property
    def context_length(self) -> int:
        """Maximum number of tokens, prompt and reply together; 2048 if the model's configuration has no limit."""
        config = self.loaded.model.config.get_text_config()
        return int(getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None) or 2048)

    @property
    def precision(self) -> str:
        """Dtype of the weights, or the type to which they are rounded."""
        return self._quantized or str(self.loaded.model.dtype).removeprefix("torch.")

    @property
    def summary(self) -> str:
        """Number of parameters, precision and device."""
        model = unwrapped(self.loaded.model)
        return f"{model.num_parameters() / 1e6:,.1f} M parameters, {self.precision}, {model.device.type}"

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names allowed in ``Request.adapter``; if the model was loaded with an adapter, its name is the first."""
        return self._adapters.names

    def add_adapter(self, name: str, model: str | ModelReference) -> None:
        """Load an adapter of this base model; see ``Adapters.add``."""
        self._adapters.add(name, resolve(model) if isinstance(model, str) else model)

    def mix_adapters(self, name: str, parts: Mapping[str, float]) -> None:
        """Create an adapter that is the weighted sum of others; see ``Adapters.mix``."""
        self._adapters.mix(name, parts)

    def choices(self, request: Request, reply: str | Sequence[int], *, ended: bool = True, alternatives: int = 0) -> tuple[Choice, ...]:
        """Return the log-probability of each token of a given reply; sampling parameters, such as the temperature, are ignored.

        Raises:
            UsageError: When prompt or reply is empty.
            EngineError: When they exceed the context length, or the model's logits are not finite.
        """
        profile = self._adapters.profile(request.adapter)
        prompt, scored_ids = self.fit_reply(request, reply, ended)
        self._adapters.select([profile.key])
        return score_reply(self._adapters.model, profile.renderer, prompt, scored_ids, alternatives)

    def close(self) -> None:
        """Clear the prompt cache; garbage collection frees the rest."""
        self.prompt_cache.clear()

    def generate(self, requests: Iterable[Request]) -> Iterator[Chunk]:
        """Generate replies with continuous batching; the longest prompts of each window of requests start first.

        Requests with continuations are answered with likelihoods.

        Raises:
            EngineError: When the model fails.
        """
        return answer_requests(requests, self._generate, self._score)

    def _score(self, requests: Iterable[Request]) -> Iterator[Chunk]:
        """Answer requests with continuations."""

        def prepare(request: Request) -> ScoredRequest:
            profile = self._adapters.profile(request.adapter)
            return tokenize_request(profile.renderer, request, self.context_length, profile.key)

        vocabulary = unwrapped(self.loaded.model).get_input_embeddings().weight.shape[0]
        new_batch = lambda: Batch(self._adapters.model, self._adapters.select, None, self._merges)  # noqa: E731
        yield from LikelihoodScorer(self.name, new_batch, self.batch_size, vocabulary, self._sharing).answer(requests, prepare)

    def _generate(self, requests: Iterable[Request]) -> Iterator[Chunk]:
        """Generate replies."""
        source = iter(requests)
        window_size = WINDOW if self.batch_size > 1 else 1
        window = list(islice(source, window_size))
        prompt_cache = self.prompt_cache if len(window) <= MAX_CHAT_REQUESTS else None
        scheduler = Scheduler(
            self.name, self._adapters.model, self.batch_size, select_adapters=self._adapters.select,
            mixes_adapters=self._adapters.mixes, prompt_cache=prompt_cache, merges=self._merges,
        )  # fmt: skip
        try:
            while True:
                if len(window) > self.batch_size and not scheduler.mergeable:
                    message = (
                        f"model '{self.name}' has layers whose state cannot be merged: its replies are made in batches that no other joins"
                    )
                    warnings.warn(message, SftchatWarning, stacklevel=2)
                for request in window:
                    try:
                        scheduler.add(self._prepare(request))
                    except SftchatError as error:
                        yield Chunk(request.id, finish_reason="error", error=str(error))
                if not (window or scheduler.waiting or scheduler.running):
                    return
                yield from scheduler.advance()
                window = [] if scheduler.waiting else list(islice(source, window_size))
        finally:
            scheduler.save_prompts()

    def renderer(self, adapter: str) -> Renderer:
        """Return tokenizer and chat template of an adapter; ``""`` for the model as it was loaded."""
        return self._adapters.profile(adapter).renderer

    def _prepare(self, request: Request) -> RunningRequest:
        """Render a request; raise ``EngineError`` if it exceeds the context length."""
        profile, (ids, reply_limit) = self._adapters.profile(request.adapter), self.fit_prompt(request)
        tokenizer, sampling = profile.renderer.tokenizer, request.sampling
        detokenizer = Detokenizer(tokenizer, sampling.stop)
        detokenizer.begin(request.reply_ids or tokenizer.encode(request.reply_prefix, add_special_tokens=False))
        return RunningRequest(
            request=request,
            tokens=ids,
            prompt_tokens=len(ids),
            limit=len(ids) + reply_limit,
            sampler=Sampler(sampling, ids),
            detokenizer=detokenizer,
            stop_ids=frozenset(profile.stop_ids),
            adapter=profile.key,
            thoughts_opened=opens_thoughts_at_end(tokenizer, ids),
        )


class _PositionScore(NamedTuple):
    """Log-probability and rank of the reply's token at one position, and the ids and log-probabilities of the most likely tokens there."""

    logprob: float
    rank: int
    alternatives: list[tuple[int, float]]


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
    scores: list[_PositionScore] = []
    takes_logits_to_keep = "logits_to_keep" in inspect.signature(unwrapped(model).forward).parameters
    arguments = {"logits_to_keep": len(reply)} if takes_logits_to_keep else {}
    with torch.inference_mode():
        ids = torch.tensor([[*prompt, *reply[:-1]]], device=model.device)
        logits = model(input_ids=ids, use_cache=False, **arguments).logits[0, -len(reply) :]
        for start in range(0, len(reply), POSITIONS_AT_ONCE):
            positions = slice(start, start + POSITIONS_AT_ONCE)
            scores += _score_positions(logits[positions], reply[positions], alternatives)
    for number, score in enumerate(scores, start=1):
        if math.isnan(score.logprob):
            raise EngineError(f"the model's logits are not finite at token {number} of the reply")
    all_ids = {*reply, *(id for score in scores for id, _ in score.alternatives)}
    tokens = {token.id: token for token in make_tokens(renderer, sorted(all_ids))}
    return tuple(
        Choice(tokens[id], score.logprob, score.rank, tuple((tokens[other], logprob) for other, logprob in score.alternatives))
        for id, score in zip(reply, scores, strict=True)
    )


def _score_positions(logits: Tensor, reply: Sequence[int], alternatives: int) -> list[_PositionScore]:
    """Score tokens at consecutive positions; ``logits`` has the shape ``(tokens, vocabulary)``."""
    logprobs = logits.float().log_softmax(-1)
    reply_logprobs = logprobs.gather(1, torch.tensor(list(reply), device=logprobs.device)[:, None])
    ranks = (logprobs > reply_logprobs).sum(-1)
    best = logprobs.topk(min(alternatives, logprobs.shape[-1]))
    rows = zip(reply_logprobs[:, 0].tolist(), ranks.tolist(), best.indices.tolist(), best.values.tolist(), strict=True)
    return [_PositionScore(logprob, rank, list(zip(ids, values, strict=True))) for logprob, rank, ids, values in rows]
