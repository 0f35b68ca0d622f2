"""Attention of one new token on a CPU: the queries that share keys are rows of one product, for which torch has a much faster kernel than for one row."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sftchat.models.weights import unwrapped

NAME = "sftchat_decoding"
PLAIN = "sdpa"
"""What transformers calls attention by torch's kernel."""


def use_decoding_attention(model: Any) -> bool:
    """Make a model on a CPU that attends by torch's kernel do so by ``decoding_attention``; returns whether it does.

    Args:
        model: A causal language model, perhaps with adapters.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    inner = unwrapped(model)
    if inner.device.type != "cpu" or implementation(inner) != PLAIN:
        return False
    AttentionInterface.register(NAME, decoding_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    inner.set_attn_implementation(NAME)
    return True


def use_plain_attention(model: Any) -> None:
    """Make a model attend by torch's kernel again, where ``use_decoding_attention`` changed that."""
    inner = unwrapped(model)
    if implementation(inner) == NAME:
        inner.set_attn_implementation(PLAIN)


def implementation(inner: Any) -> str:
    """What transformers calls the attention of a model without its adapters; empty where the installed version does not say."""
    return str(getattr(inner.config, "_attn_implementation", ""))


def decoding_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, scaling: float | None = None, **arguments: Any
) -> tuple[Tensor, None]:
    """What transformers' attention by torch's kernel computes; for one token a row, several times faster in bfloat16 without padding.

    Args:
        module: The attention layer.
        query: Shape ``(batch, heads, tokens, size)``.
        key: Shape ``(batch, groups, columns, size)``.
        value: As ``key``.
        attention_mask: Where to look, shape ``(batch, 1, tokens, columns)``; None where everything before may be looked at.
        scaling: Factor of the scores; one over the root of the size by default.
        arguments: Others that transformers passes on.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    batch, heads, tokens, size = query.shape
    shared = attention_mask is None or attention_mask.shape[1] == 1
    if tokens > 1 or not shared or arguments.get("position_bias") is not None or arguments.get("softcap") is not None:
        attended: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **arguments)
        return attended
    rows = query.reshape(batch, key.shape[1], -1, size)
    alone = rows.shape[2] == 1 and query.dtype == torch.bfloat16
    if alone:
        rows = rows.expand(-1, -1, 2, -1)
    found = torch.nn.functional.scaled_dot_product_attention(rows, key, value, attn_mask=attention_mask, scale=scaling)
    if alone:
        found = found[:, :, :1]
    return found.reshape(batch, 1, heads, value.shape[-1]), None
