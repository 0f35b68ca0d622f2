"""Linear layers in eight bits on a CPU: a step of decoding is spent reading weights, and these are half as many bytes as bfloat16's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

ROWS = 32
"""Rows up to which the eight bits are read; more are computed from the same weights in bfloat16 where the CPU has units for that."""


def quantize_linear(model: Any) -> int:
    """Round the weights of a model's linear layers to int8, one scale an output, and compute with them.

    The rounded weights take the place of the others, so that a reply does not depend on which of the two ways computed it but for rounding. Only for
    models that answer, in bfloat16 on a CPU.

    Args:
        model: A transformers model; adapters that it has stay as they are.

    Returns:
        Layers that are quantised now.
    """
    layers = [module for module in model.modules() if type(module) is nn.Linear and module.weight.dtype == torch.bfloat16]
    for layer in layers:
        weight = layer.weight.detach().float()
        scales = (weight.abs().amax(1).clamp(min=1e-8) / 127).bfloat16()
        rounded = (weight / scales.float()[:, None]).round().clamp(-127, 127)
        # a parameter of its own: the last layer often shares the embedding's, which stays as it is
        layer.weight = nn.Parameter((rounded * scales.float()[:, None]).bfloat16(), requires_grad=False)
        layer.register_buffer("int8", rounded.to(torch.int8), persistent=False)
        layer.register_buffer("int8_scales", scales, persistent=False)
    return len(layers)


def use_int8(model: Any) -> None:
    """Let quantised layers compute with eight bits where that is faster; called when their weights have been packed, if they are."""
    wide = not torch.ops.mkldnn._is_mkldnn_bf16_supported()
    for layer in model.modules():
        if "int8" in getattr(layer, "_buffers", {}):
            layer.forward = _forward(layer, layer.forward, wide)


def _forward(layer: nn.Linear, other: Any, wide: bool) -> Any:
    """What the layer computes, from eight bits for few rows and else as before."""
    weight, scales = layer.get_buffer("int8"), layer.get_buffer("int8_scales")

    def forward(states: Tensor) -> Tensor:
        rows = states.reshape(-1, states.shape[-1])
        if states.dtype != torch.bfloat16 or not (wide or len(rows) <= ROWS):
            product: Tensor = other(states)
            return product
        product = torch.ops.aten._weight_int8pack_mm(rows.contiguous(), weight, scales)
        product = product.reshape(*states.shape[:-1], -1)
        return product if layer.bias is None else product + layer.bias

    return forward
