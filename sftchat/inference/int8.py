"""Int8 linear layers on a CPU: decoding is limited by memory bandwidth, and int8 weights have half the bytes of bfloat16."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

Compute = Callable[[Tensor], Tensor]
"""Maps inputs, shape ``(…, inputs)``, to the outputs of one or more linear layers, shape ``(…, outputs)``."""

MAX_INT8_ROWS = 4
"""Maximum number of rows computed from int8 weights; more use the same weights in bfloat16 if the CPU has units for that."""
MAX_INT8 = 127
"""Largest absolute value of an int8."""
LOW_SCALE = 254
"""Scale of the low eight bits: maps the rounding error of the high ones, at most 1/2, to at most 127."""


def quantize(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Round weights to int8, with one scale per output.

    Args:
        weight: Weights in bfloat16, shape ``(outputs, inputs)``.

    Returns:
        The weights in int8, of the same shape, and their scales in bfloat16, shape ``(outputs,)``.
    """
    weight = weight.float()
    scales = (weight.abs().amax(1).clamp(min=1e-8) / MAX_INT8).bfloat16()
    return (weight / scales.float()[:, None]).round().clamp(-MAX_INT8, MAX_INT8).to(torch.int8), scales


def int8_linear(weight: Tensor, scales: Tensor, bias: Tensor | None, other: Compute) -> Compute:
    """Return a function that computes linear layers from int8 weights for few rows, and by ``other`` for more.

    Args:
        weight: The int8 weights, shape ``(outputs, inputs)``.
        scales: Scale of each output.
        bias: Bias of each output.
        other: Computes the layers in bfloat16.
    """
    always = not computes_in_bfloat16()
    outputs_of = _w8a16_int(weight, scales) if _has_integer_products() else _weight_only_int8(weight, scales)

    def compute(states: Tensor) -> Tensor:
        rows = states.reshape(-1, states.shape[-1])
        if not (always or len(rows) <= MAX_INT8_ROWS):
            return other(states)
        outputs = outputs_of(rows).view(*states.shape[:-1], -1)
        return outputs if bias is None else outputs + bias

    return compute


def computes_in_bfloat16() -> bool:
    """Whether oneDNN has bfloat16 products for this CPU; False also if torch no longer reports it."""
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return supported is not None and bool(supported())


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
    bounds[0, :2] = torch.tensor([-MAX_INT8 - 1, MAX_INT8])
    sums, zeros = weight.sum(1, dtype=torch.int32), torch.zeros(len(weight))
    factors = scales.float() / MAX_INT8

    def integers(rows: Tensor) -> Tensor:
        products: Tensor = torch.fbgemm_linear_int8_weight_fp32_activation(rows, weight, packed, sums, 1.0, 0, zeros)
        return products

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # deprecated, with a warning at each first call, but twice as fast as its replacement
        packed = torch.fbgemm_pack_quantized_matrix(weight)
        integers(bounds)

    def outputs_of(rows: Tensor) -> Tensor:
        states = rows.float()
        largest = torch.linalg.vector_norm(states, float("inf"), 1, keepdim=True).clamp_(min=1e-30)
        states.div_(largest).mul_(MAX_INT8)
        high = states.round()
        products = integers(torch.cat([high, states.sub_(high).mul_(LOW_SCALE), bounds]))
        return torch.add(products[: len(rows)], products[len(rows) : -1], alpha=1 / LOW_SCALE).mul_(largest).mul_(factors).to(rows.dtype)

    return outputs_of
