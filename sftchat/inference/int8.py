"""Linear layers in eight bits on a CPU: a step of decoding is spent reading weights, and these are half as many bytes as bfloat16's."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from sftchat.inference.fused_linear import Compute, FusedLinear, computes_in_bfloat16

MAX_INT8_ROWS = 4
"""Rows up to which the eight bits are read; more are computed from the same weights in bfloat16 where the CPU has units for that."""
HIGH = 127
"""The largest absolute value of the eight bits."""
LOW = 254
"""What half a step of the high eight bits is in steps of the low: 127 of them."""


def quantize(product: FusedLinear) -> tuple[Tensor, Tensor]:
    """Round the weights of a product to int8, one scale an output.

    The rounded weights take the place of the others, so that a reply does not depend on which of the two ways computed it but for rounding.

    Args:
        product: In bfloat16, of a model that only answers.

    Returns:
        The weights in int8, shape ``(outputs, inputs)``, and their scales in bfloat16, shape ``(outputs,)``.
    """
    weight = product.weight.float()
    scales = (weight.abs().amax(1).clamp(min=1e-8) / HIGH).bfloat16()
    rounded = (weight / scales.float()[:, None]).round().clamp(-HIGH, HIGH)
    product.replace_weight((rounded * scales.float()[:, None]).bfloat16())
    return rounded.to(torch.int8), scales


def int8_linear(product: FusedLinear, weight: Tensor, scales: Tensor, other: Compute) -> Compute:
    """What computes a product from eight bits for few rows, and otherwise as another does.

    Args:
        product: What was quantised.
        weight: In int8.
        scales: Of each output.
        other: What computes it in bfloat16.
    """
    wide = not computes_in_bfloat16()
    outputs_of = _w8a16_int(weight, scales) if _has_integer_products() else _weight_only_int8(weight, scales)
    bias = product.bias

    def compute(states: Tensor) -> Tensor:
        rows = states.reshape(-1, states.shape[-1])
        if not (wide or len(rows) <= MAX_INT8_ROWS):
            return other(states)
        outputs = outputs_of(rows).view(*states.shape[:-1], -1)
        return outputs if bias is None else outputs + bias

    return compute


def _has_integer_products() -> bool:
    """Whether the CPU multiplies eight bits by eight without overflow, and torch still lets it."""
    supported = getattr(torch.cpu, "_is_vnni_supported", None)
    return supported is not None and bool(supported()) and hasattr(torch, "fbgemm_pack_quantized_matrix")


def _weight_only_int8(weight: Tensor, scales: Tensor) -> Compute:
    """Eight bits of weights, each made a float where it is used."""
    return lambda rows: torch.ops.aten._weight_int8pack_mm(rows.contiguous(), weight, scales)


def _w8a16_int(weight: Tensor, scales: Tensor) -> Compute:
    """Eight bits of weights by sixteen of each state, whose high and low eight are two rows of one product of integers.

    Reading the weights is what takes the time, so the second row costs next to nothing, and sixteen bits are more than bfloat16 keeps: with eight
    alone, one large state would erase the others of its row (Dettmers et al. 2022, arXiv:2208.07339).
    """
    # fbgemm takes its step from the least and the largest value: where -128 and 127 are among them it is one, and integers stay what they are
    bounds = torch.zeros(1, weight.shape[1])
    bounds[0, :2] = torch.tensor([-HIGH - 1, HIGH])
    sums, zeros = weight.sum(1, dtype=torch.int32), torch.zeros(len(weight))
    factors = scales.float() / HIGH

    def integers(rows: Tensor) -> Tensor:
        found: Tensor = torch.fbgemm_linear_int8_weight_fp32_activation(rows, weight, packed, sums, 1.0, 0, zeros)
        return found

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # deprecated, said at the first call of each; twice as fast as what is to replace it
        packed = torch.fbgemm_pack_quantized_matrix(weight)
        integers(bounds)

    def outputs_of(rows: Tensor) -> Tensor:
        states = rows.float()
        largest = torch.linalg.vector_norm(states, float("inf"), 1, keepdim=True).clamp_(min=1e-30)
        states.div_(largest).mul_(HIGH)
        high = states.round()
        found = integers(torch.cat([high, states.sub_(high).mul_(LOW), bounds]))
        return torch.add(found[: len(rows)], found[len(rows) : -1], alpha=1 / LOW).mul_(largest).mul_(factors).to(rows.dtype)

    return outputs_of
