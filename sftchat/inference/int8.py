"""Int8 linear layers on a CPU: decoding is limited by memory bandwidth, and int8 weights have half the bytes of bfloat16."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from sftchat.inference.fused_linear import Compute, FusedLinear, computes_in_bfloat16

MAX_INT8_ROWS = 4
"""Maximum number of rows computed from int8 weights; more use the same weights in bfloat16 if the CPU has units for that."""
HIGH = 127
"""Largest absolute value of an int8."""
LOW = 254
"""Scale of the low eight bits: maps the rounding error of the high ones, at most 1/2, to at most 127."""


def quantize(product: FusedLinear) -> tuple[Tensor, Tensor]:
    """Round the weights of a product to int8, with one scale per output.

    The rounded weights replace the original ones, so that both ways to compute a reply differ only by rounding.

    Args:
        product: In bfloat16, of a model used only for inference.

    Returns:
        The weights in int8, shape ``(outputs, inputs)``, and their scales in bfloat16, shape ``(outputs,)``.
    """
    weight = product.weight.float()
    scales = (weight.abs().amax(1).clamp(min=1e-8) / HIGH).bfloat16()
    rounded = (weight / scales.float()[:, None]).round().clamp(-HIGH, HIGH)
    product.replace_weight((rounded * scales.float()[:, None]).bfloat16())
    return rounded.to(torch.int8), scales


def int8_linear(product: FusedLinear, weight: Tensor, scales: Tensor, other: Compute) -> Compute:
    """Return a function that computes a product from int8 weights for few rows, and by ``other`` for more.

    Args:
        product: The quantized product.
        weight: Its int8 weights.
        scales: Scale of each output.
        other: Computes the product in bfloat16.
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
    """Whether the CPU multiplies int8 by int8 without overflow and torch supports it."""
    supported = getattr(torch.cpu, "_is_vnni_supported", None)
    return supported is not None and bool(supported()) and hasattr(torch, "fbgemm_pack_quantized_matrix")


def _weight_only_int8(weight: Tensor, scales: Tensor) -> Compute:
    """Return a product of int8 weights that are converted to floats when used."""
    return lambda rows: torch.ops.aten._weight_int8pack_mm(rows.contiguous(), weight, scales)


def _w8a16_int(weight: Tensor, scales: Tensor) -> Compute:
    """Return a product of int8 weights and 16-bit states, whose high and low bytes are two rows of one integer product.

    Memory bandwidth limits the speed, so the second row costs almost nothing, and 16 bits are more than bfloat16's precision: with eight bits alone,
    one large state would erase the others of its row (Dettmers et al. 2022, arXiv:2208.07339).
    """
    # fbgemm derives its step from the smallest and the largest value: with -128 and 127 among them the step is 1, and integers stay exact
    bounds = torch.zeros(1, weight.shape[1])
    bounds[0, :2] = torch.tensor([-HIGH - 1, HIGH])
    sums, zeros = weight.sum(1, dtype=torch.int32), torch.zeros(len(weight))
    factors = scales.float() / HIGH

    def integers(rows: Tensor) -> Tensor:
        found: Tensor = torch.fbgemm_linear_int8_weight_fp32_activation(rows, weight, packed, sums, 1.0, 0, zeros)
        return found

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # deprecated, with a warning at each first call, but twice as fast as its replacement
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
