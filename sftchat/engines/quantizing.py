"""Linear layers in eight bits on a CPU: a step of decoding is spent reading weights, and these are half as many bytes as bfloat16's."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

ROWS = 4
"""Rows up to which the eight bits are read; more are computed from the same weights in bfloat16 where the CPU has units for that."""
HIGH = 127
"""The largest absolute value of the eight bits."""
LOW = 254
"""What half a step of the high eight bits is in steps of the low: 127 of them."""


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
        scales = (weight.abs().amax(1).clamp(min=1e-8) / HIGH).bfloat16()
        rounded = (weight / scales.float()[:, None]).round().clamp(-HIGH, HIGH)
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
    product_of = _integer_product(layer) if _has_integer_products() else _mixed_product(layer)

    def forward(states: Tensor) -> Tensor:
        rows = states.reshape(-1, states.shape[-1])
        if torch.is_grad_enabled() or states.dtype != torch.bfloat16 or not (wide or len(rows) <= ROWS):
            product: Tensor = other(states)
            return product
        product = product_of(rows).reshape(*states.shape[:-1], -1)
        return product if layer.bias is None else product + layer.bias

    return forward


def _has_integer_products() -> bool:
    """Whether the CPU multiplies eight bits by eight without overflow, and torch still lets it."""
    return bool(torch.cpu._is_vnni_supported()) and hasattr(torch, "fbgemm_pack_quantized_matrix")


def _mixed_product(layer: nn.Linear) -> Any:
    """Eight bits of weights, each made a float where it is used."""
    weight, scales = layer.get_buffer("int8"), layer.get_buffer("int8_scales")
    return lambda rows: torch.ops.aten._weight_int8pack_mm(rows.contiguous(), weight, scales)


def _integer_product(layer: nn.Linear) -> Any:
    """Eight bits of weights by sixteen of each state, whose high and low eight are two rows of one product of integers.

    Reading the weights is what takes the time, so the second row costs next to nothing, and sixteen bits are more than bfloat16 keeps: with eight
    alone, one large state would erase the others of its row (Dettmers et al. 2022, arXiv:2208.07339).
    """
    weight, scales = layer.get_buffer("int8"), layer.get_buffer("int8_scales").float()
    # fbgemm takes its step from the least and the largest value: where -128 and 127 are among them it is one, and integers stay what they are
    bounds = torch.zeros(1, weight.shape[1])
    bounds[0, :2] = torch.tensor([-HIGH - 1, HIGH])
    sums, zeros = weight.sum(1, dtype=torch.int32), torch.zeros(len(weight))

    def integers(split: Tensor) -> Tensor:
        product: Tensor = torch.fbgemm_linear_int8_weight_fp32_activation(split, weight, packed, sums, 1.0, 0, zeros)
        return product

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # deprecated, said at the first call of each; twice as fast as what is to replace it
        packed = torch.fbgemm_pack_quantized_matrix(weight)
        integers(bounds)

    def product_of(rows: Tensor) -> Tensor:
        count = len(rows)
        split = torch.cat([bounds, bounds.new_empty(2 * count, bounds.shape[1])])
        high, low = split[1 : count + 1], split[count + 1 :]
        states = rows.float()
        steps = states.abs().amax(1, keepdim=True).clamp_(min=1e-30).div_(HIGH)
        states.div_(steps)
        torch.round(states, out=high)
        torch.sub(states, high, out=low).mul_(LOW)
        found = integers(split)
        product = torch.add(found[1 : count + 1], found[count + 1 :], alpha=1 / LOW)
        return product.mul_(steps).mul_(scales).bfloat16()

    return product_of
