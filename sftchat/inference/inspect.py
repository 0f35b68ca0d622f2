"""Token ids of requests, and the probabilities of tokens in a given reply."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sftchat.engine import Request
from sftchat.errors import EngineError, UsageError
from sftchat.models.loading import unwrapped
from sftchat.templates.renderer import Renderer
from sftchat.types import Choice, Token


def with_arguments(renderer: Renderer, request: Request) -> Renderer:
    """Return the renderer with the template arguments of a request."""
    given = dict(request.template_arguments)
    return replace(renderer, arguments={**renderer.arguments, **given}) if given else renderer


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
        ids = with_arguments(renderer, request).prompt_ids(request.messages, request.reply_prefix, request.tools)
    return [*ids, *request.reply_ids]


POSITIONS_AT_ONCE = 64
"""Number of positions whose probabilities over the vocabulary are computed at a time."""


def tokens_of(renderer: Renderer, ids: Sequence[int], trained: Sequence[bool] = ()) -> tuple[Token, ...]:
    """Return tokens with their text.

    Args:
        renderer: Has the tokenizer.
        ids: Token ids.
        trained: Whether each token contributes to the training loss; False for all by default.
    """
    tokenizer = renderer.tokenizer
    special = frozenset(tokenizer.added_tokens_decoder)
    flags = trained or [False] * len(ids)
    texts = {token: tokenizer.convert_ids_to_tokens(token) if token in special else tokenizer.decode([token]) for token in set(ids)}
    return tuple(Token(token, texts[token], token in special, flag) for token, flag in zip(ids, flags, strict=True))


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
        given, prefix = with_arguments(renderer, request), request.reply_prefix
        before = given.prompt_ids(request.messages, prefix, request.tools)
        ids = given.prompt_ids(request.messages, prefix + reply, request.tools)[len(before) :]
    stop = renderer.for_tools(request.tools).stop_token if request.prompt is None else renderer.tokenizer.eos_token_id
    return [*ids, stop] if ended and stop is not None and ids[-1:] != [stop] else ids


def judge(
    model: Any, renderer: Renderer, request: Request, reply: Sequence[int], alternatives: int, context_length: int
) -> tuple[Choice, ...]:
    """Return log-probability, rank and top alternatives of each token of a reply, from one forward pass.

    Args:
        model: A causal language model in eval mode.
        renderer: Renderer of the adapter.
        request: The prompt.
        reply: Its token ids.
        alternatives: Number of top alternatives per token.
        context_length: Maximum number of tokens, prompt and reply together.

    Raises:
        UsageError: When the reply or the prompt is empty.
        EngineError: When the two exceed the context length, or the model's logits are not finite.
    """
    before = prompt_ids(renderer, request)
    if not before or not reply:
        raise UsageError("there is nothing to judge: the prompt or the reply is empty")
    if len(before) + len(reply) > context_length:
        raise EngineError(f"prompt and reply have {len(before) + len(reply)} tokens; the model's context holds {context_length}")
    found: list[tuple[float, int, list[tuple[int, float]]]] = []
    with torch.inference_mode():
        logits = _logits(model, [*before, *reply[:-1]], len(reply))
        for start in range(0, len(reply), POSITIONS_AT_ONCE):
            found += _judged(logits[start : start + POSITIONS_AT_ONCE], reply[start : start + POSITIONS_AT_ONCE], alternatives)
    if broken := next((place for place, (value, _, _) in enumerate(found, start=1) if math.isnan(value)), None):
        raise EngineError(f"the model's logits are not finite at token {broken} of the reply")
    named = {token.id: token for token in tokens_of(renderer, sorted({*reply, *(token for _, _, others in found for token, _ in others)}))}
    return tuple(
        Choice(named[token], logprob, rank, tuple((named[other], value) for other, value in others))
        for token, (logprob, rank, others) in zip(reply, found, strict=True)
    )


def _logits(model: Any, ids: Sequence[int], count: int) -> Tensor:
    """Return the logits of the last positions, shape ``(count, vocabulary)``."""
    keeps = "logits_to_keep" in inspect.signature(unwrapped(model).forward).parameters
    whole = torch.tensor([list(ids)], device=model.device)
    logits: Tensor = model(input_ids=whole, use_cache=False, **({"logits_to_keep": count} if keeps else {})).logits
    return logits[0, -count:]


def _judged(logits: Tensor, reply: Sequence[int], alternatives: int) -> list[tuple[float, int, list[tuple[int, float]]]]:
    """Return log-probability, rank and top alternatives of tokens at consecutive positions."""
    logprobs = logits.float().log_softmax(-1)
    chosen = logprobs.gather(1, torch.tensor(list(reply), device=logprobs.device)[:, None])
    ranks = (logprobs > chosen).sum(-1).tolist()
    best = logprobs.topk(min(alternatives, logprobs.shape[-1])) if alternatives else None
    others = (
        [list(zip(ids, values, strict=True)) for ids, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)]
        if best
        else []
    )
    return [
        (float(value), int(rank), others[place] if others else [])
        for place, (value, rank) in enumerate(zip(chosen[:, 0].tolist(), ranks, strict=True))
    ]


def trained_tokens(renderer: Renderer, messages: Sequence[Any]) -> tuple[Token, ...]:
    """Return the tokens of a conversation as in training."""
    rendered = renderer.training_ids(messages)
    return tokens_of(renderer, rendered.ids, [label >= 0 for label in rendered.labels])


def decoded(renderer: Renderer, ids: Sequence[int]) -> str:
    """Decode token ids without special tokens."""
    text: str = renderer.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text
