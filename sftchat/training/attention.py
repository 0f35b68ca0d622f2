"""Causal attention as two batched matrix products: on a CPU, for rows of a few hundred tokens, faster to train with than the flash kernel."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sftchat.models.weights import unwrapped

NAME = "sftchat_causal"
LONGEST = 512
"""Tokens of the longest row up to which it is used: its memory grows with the square."""


def causal_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, scaling: float | None = None, **_: Any
) -> tuple[Tensor, None]:
    """Attend to everything before, the queries of a group folded into one product with their shared keys.

    Args:
        module: The attention layer; not used.
        query: Shape ``(batch, heads, tokens, size)``.
        key: Shape ``(batch, groups, tokens, size)``.
        value: As ``key``.
        attention_mask: Must be None: training pads on the right, where a causal model never looks.
        scaling: Factor of the scores; one over the root of the size by default.
    """
    if attention_mask is not None:
        raise ValueError("causal_attention takes no mask")
    batch, heads, tokens, size = query.shape
    groups = key.shape[1]
    folded = query.reshape(batch, groups, -1, size)
    scores = torch.matmul(folded, key.transpose(-1, -2)).view(batch, heads, tokens, tokens) * (size**-0.5 if scaling is None else scaling)
    scores = scores + torch.full((tokens, tokens), -torch.inf, dtype=scores.dtype, device=scores.device).triu(1)
    weights = scores.softmax(-1).to(value.dtype).view(batch, groups, -1, tokens)
    return torch.matmul(weights, value).view(batch, heads, tokens, size).transpose(1, 2).contiguous(), None


def choose_attention(model: Any, longest: int) -> str:
    """Make a model on a CPU train with ``causal_attention`` where that gives the same logits; returns the name of what it uses now.

    Tried on a few tokens rather than decided from a list of architectures: one with sinks or capped scores fails the comparison and keeps its own.
    A sliding window does not show on a few tokens and is excluded by name. The choice never depends on a clock: a resumed run must make it again.

    Args:
        model: A causal language model, perhaps with an adapter.
        longest: Tokens of the longest row.
    """
    from transformers import AttentionInterface

    inner = unwrapped(model)
    config = inner.config.get_text_config()
    own = str(inner.config._attn_implementation)
    windowed = getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
    if inner.device.type != "cpu" or own != "sdpa" or windowed or getattr(config, "attention_dropout", 0.0) or longest > LONGEST:
        return own
    AttentionInterface.register(NAME, causal_attention)
    before = _logits(inner)
    inner.set_attn_implementation(NAME)
    after = _logits(inner)
    if after is None or before is None or not torch.allclose(before, after, rtol=1e-3, atol=1e-3):
        inner.set_attn_implementation(own)
        return own
    return NAME


def restore_attention(model: Any) -> None:
    """Give a model its ordinary attention back, for generating."""
    if unwrapped(model).config._attn_implementation == NAME:
        unwrapped(model).set_attn_implementation("sdpa")


@torch.inference_mode()
def _logits(model: Any) -> Tensor | None:
    """Logits for a few tokens; None when the model refuses."""
    ids = torch.arange(48).reshape(2, 24) % model.config.get_text_config().vocab_size
    training = model.training
    try:
        logits: Tensor = model.eval()(input_ids=ids, use_cache=False).logits
    except (ValueError, TypeError, RuntimeError):
        return None
    finally:
        model.train(training)
    return logits
