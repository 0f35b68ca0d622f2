"""Int8 linear layers on a CPU: decoding is limited by memory bandwidth, and int8 weights have half the bytes of bfloat16."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

Compute = Callable[[Tensor], Tensor]
"""Maps inputs, shape ``(…, inputs)``, to the outputs of one or more linear layers, shape ``(…, outputs)``."""

MAX_INT8_ROWS = 4
"""Maximum number of input rows for int8 weights; for more, the same weights are faster in bfloat16 if the CPU has units for that."""
MAX_INT8 = 127
"""Largest absolute value of an int8, without -128."""
LOW_SCALE = 2 * MAX_INT8
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


def int8_linear(weight: Tensor, scales: Tensor, bias: Tensor | None, bfloat16_linear: Compute) -> Compute:
    """Return a function that computes linear layers from int8 weights for few rows, and by ``bfloat16_linear`` for more.

    Args:
        weight: The int8 weights, shape ``(outputs, inputs)``.
        scales: Scale of each output.
        bias: Bias of each output.
        bfloat16_linear: Computes the layers in bfloat16; not used on a CPU without bfloat16 units.
    """
    has_bfloat16 = computes_in_bfloat16()
    multiply = _w8a16_int(weight, scales) if _has_integer_products() else _weight_only_int8(weight, scales)

    def compute(states: Tensor) -> Tensor:
        rows = states.reshape(-1, states.shape[-1])
        if has_bfloat16 and len(rows) > MAX_INT8_ROWS:
            return bfloat16_linear(states)
        outputs = multiply(rows).view(*states.shape[:-1], -1)
        return outputs if bias is None else outputs + bias

    return compute


def computes_in_bfloat16() -> bool:
    """Whether oneDNN can multiply matrices in bfloat16 on this CPU; False also if torch no longer tells."""
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return supported is not None and bool(supported())


def _has_integer_products() -> bool:
    """Whether the CPU multiplies int8 by int8 without overflow (VNNI) and torch has the functions for it."""
    supported = getattr(torch.cpu, "_is_vnni_supported", None)
    return supported is not None and bool(supported()) and hasattr(torch, "fbgemm_pack_quantized_matrix")


def _weight_only_int8(weight: Tensor, scales: Tensor) -> Compute:
    """Return a function that multiplies with int8 weights, which are converted to floats at each call."""
    return lambda rows: torch.ops.aten._weight_int8pack_mm(rows.contiguous(), weight, scales)


def _w8a16_int(weight: Tensor, scales: Tensor) -> Compute:
    """Return a function that multiplies int8 weights with states rounded to 16 bits, whose high and low bytes are two rows of one integer product.

    Memory bandwidth limits the speed, so the second row costs almost nothing. With eight bits alone, one large state would erase the others of its
    row (Dettmers et al. 2022, arXiv:2208.07339); 16 bits are more precise than bfloat16.
    """
    # fbgemm derives its step from the smallest and the largest value: with -128 and 127 among them the step is 1, and integers stay exact
    bounds = torch.zeros(1, weight.shape[1])
    bounds[0, :2] = torch.tensor([-MAX_INT8 - 1, MAX_INT8])
    weight_sums, no_bias = weight.sum(1, dtype=torch.int32), torch.zeros(len(weight))
    factors = scales.float() / MAX_INT8

    def multiply_integers(rows: Tensor) -> Tensor:
        products: Tensor = torch.fbgemm_linear_int8_weight_fp32_activation(rows, weight, packed, weight_sums, 1.0, 0, no_bias)
        return products

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # deprecated, with a warning at each first call, but twice as fast as its replacement
        packed = torch.fbgemm_pack_quantized_matrix(weight)
        multiply_integers(bounds)

    def multiply(rows: Tensor) -> Tensor:
        states = rows.float()
        largest = torch.linalg.vector_norm(states, float("inf"), 1, keepdim=True).clamp_(min=1e-30)
        states.div_(largest).mul_(MAX_INT8)
        high = states.round()
        low = states.sub_(high).mul_(LOW_SCALE)
        products = multiply_integers(torch.cat([high, low, bounds]))
        high_products, low_products = products[: len(rows)], products[len(rows) : -1]
        return torch.add(high_products, low_products, alpha=1 / LOW_SCALE).mul_(largest).mul_(factors).to(rows.dtype)

    return multiply
