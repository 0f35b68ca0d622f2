"""Decoder layers of the Llama family on a CPU in a third of the operations.

With one token per row, an operation on a small tensor costs more to start than to compute, and transformers' layers start 60. Here queries and keys are
rotated together, linear layers with the same input are one product, norms and activations work in place, and no module is called in between.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from sftchat.inference.linears import FUSED_LAYERS, FusedLinear

FAMILY = ("LlamaDecoderLayer", "MistralDecoderLayer", "Qwen2DecoderLayer", "Qwen3DecoderLayer")
"""transformers' decoder layers that differ in nothing but biases and norms of queries and keys."""
Attention = Callable[..., tuple[Tensor, Tensor | None]]
"""An attention function with the arguments of transformers' attention interface."""
Rotation = tuple[Tensor, Tensor]
"""Cosine and sine of each position, shape ``(rows, tokens, 1, size)``; the first half of the sine is negated."""


def fuse_decoder_layers(model: Any, linears: Sequence[FusedLinear], attention: Attention) -> None:
    """Replace the forward pass of each decoder layer of the Llama family; other layers are left unchanged.

    A replaced layer computes with transformers' own forward pass when gradients are enabled, in training mode, and after one of its linear layers has
    been replaced, such as by an adapter.

    Args:
        model: A causal language model.
        linears: Its fused linear layers.
        attention: Computes the attention of a layer.

    Raises:
        AttributeError: When a layer lacks a part, because transformers has changed it.
    """
    fused = {layer: linear for linear in linears for layer in linear.layers}
    rotate = _SharedRotation()
    for module in model.modules():
        if (
            type(module).__name__ in FAMILY
            and type(module).__module__.startswith("transformers.")
            and (parts := _linear_parts(module, fused))
        ):
            module.forward = _fused_forward(module, parts, attention, rotate)


def restore_decoder_layers(model: Any) -> None:
    """Undo ``fuse_decoder_layers``."""
    for module in model.modules():
        if type(module).__name__ in FAMILY:
            module.__dict__.pop("forward", None)


QUERY_KEY_VALUE, GATE_UP = FUSED_LAYERS
GROUPS = (("self_attn", QUERY_KEY_VALUE), ("self_attn", ("o_proj",)), ("mlp", GATE_UP), ("mlp", ("down_proj",)))
"""Linear layers of a decoder layer, in the order in which they are computed; those of a group have the same input."""


def _linear_parts(layer: Any, fused: Mapping[nn.Linear, FusedLinear]) -> list[FusedLinear]:
    """Return the fused linear layers of a decoder layer, in the order of ``GROUPS``; empty if they are of other types or do not form these groups."""
    parts = []
    for owner, names in GROUPS:
        members = [getattr(getattr(layer, owner), name) for name in names]
        linear = fused.get(members[0])
        if linear is None or list(linear.layers) != members:
            return []
        parts.append(linear)
    return parts if layer.self_attn.config.hidden_act in ("silu", "swish") else []


class _SharedRotation:
    """Prepares the rotary embedding of a forward pass once for all layers; threads may share it."""

    def __init__(self) -> None:
        self._last: tuple[Tensor | None, Rotation | None] = (None, None)

    def __call__(self, position_embeddings: tuple[Tensor, Tensor]) -> Rotation:
        """Return the rotation of transformers' cosine and sine, shape ``(rows, tokens, size)``."""
        cosine, sine = position_embeddings
        of_cosine, rotation = self._last  # read once, since another thread may replace it
        if rotation is None or of_cosine is not cosine:
            half = sine.shape[-1] // 2
            rotation = (cosine.unsqueeze(2), torch.cat([-sine[..., :half], sine[..., half:]], -1).unsqueeze(2))
            self._last = (cosine, rotation)
        return rotation


def _fused_forward(layer: Any, parts: Sequence[FusedLinear], attention: Attention, rotate: _SharedRotation) -> Callable[..., Tensor]:
    """Return a forward pass with the arguments and the result of the layer's own."""
    plain_forward, self_attention = type(layer).forward.__get__(layer), layer.self_attn
    qkv, output, gate_up, down = parts
    index, size, scaling = self_attention.layer_idx, self_attention.head_dim, self_attention.scaling
    heads, groups, width = qkv.layers[0].out_features // size, qkv.layers[1].out_features // size, gate_up.layers[0].out_features
    rotated = (heads + groups) * size  # number of outputs of queries and keys
    input_norm, mlp_norm = _norm_weight(layer.input_layernorm), _norm_weight(layer.post_attention_layernorm)
    head_norm = None  # of queries and keys, weight of shape (heads + groups, size)
    if hasattr(self_attention, "q_norm"):
        (query_weight, epsilon), (key_weight, _) = _norm_weight(self_attention.q_norm), _norm_weight(self_attention.k_norm)
        head_norm = (torch.cat([query_weight.expand(heads, size), key_weight.expand(groups, size)]), epsilon)
    members = [(getattr(layer, owner)._modules, name) for owner, names in GROUPS for name in names]
    originals = [original for linear in parts for original in linear.layers]

    def is_unchanged() -> bool:
        return not layer.training and all(modules[name] is original for (modules, name), original in zip(members, originals, strict=True))

    def forward(
        hidden_states: Tensor, attention_mask: Tensor | None = None, position_ids: Tensor | None = None, past_key_values: Any = None,
        use_cache: bool | None = False, position_embeddings: tuple[Tensor, Tensor] | None = None, **arguments: Any,
    ) -> Tensor:  # fmt: skip
        if torch.is_grad_enabled() or position_embeddings is None or not is_unchanged():
            result: Tensor = plain_forward(
                hidden_states, attention_mask=attention_mask, position_ids=position_ids, past_key_values=past_key_values, use_cache=use_cache,
                position_embeddings=position_embeddings, **arguments,
            )  # fmt: skip
            return result
        rows, tokens, _ = hidden_states.shape
        outputs = qkv.compute(_rms_norm(hidden_states, *input_norm))
        states = outputs[..., :rotated].view(rows, tokens, heads + groups, size)
        if head_norm is not None:
            states = _rms_norm(states, *head_norm)
        cosine, sine = rotate(position_embeddings)
        states = (states * cosine).add_(states.roll(size // 2, -1).mul_(sine)).transpose(1, 2)  # rounded as in transformers
        queries, keys = states[:, :heads], states[:, heads:]
        values = outputs[..., rotated:].view(rows, tokens, groups, size).transpose(1, 2)
        if past_key_values is not None:
            keys, values = past_key_values.update(keys, values, index)
        attended, _weights = attention(self_attention, queries, keys, values, attention_mask, scaling=scaling, **arguments)
        hidden_states = output.compute(attended.reshape(rows, tokens, heads * size)).add_(hidden_states)
        outputs = gate_up.compute(_rms_norm(hidden_states, *mlp_norm))
        return down.compute(silu(outputs[..., :width]).mul_(outputs[..., width:])).add_(hidden_states)

    return forward


def _norm_weight(norm: Any) -> tuple[Tensor, float]:
    """Return weight and epsilon of a norm of transformers."""
    return norm.weight.detach(), float(norm.variance_epsilon)


def _rms_norm(states: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """Divide states by their root mean square (Zhang and Sennrich 2019, arXiv:1910.07467), computed in float32."""
    squared_norm = torch.linalg.vector_norm(states, 2, -1, keepdim=True, dtype=torch.float32).square_()
    factor = squared_norm.mul_(1 / states.shape[-1]).add_(epsilon).rsqrt_()
    normalised: Tensor = (states * factor).to(states.dtype)
    return normalised.mul_(weight)
