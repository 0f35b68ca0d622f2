"""Weights in the order in which a CPU's vector units take them, arranged once instead of at every matrix product."""

from __future__ import annotations

import torch
from torch import Tensor

from sftchat.engines.products import Compute, Product

ROWS = 128
"""Rows of the products that the order is chosen for; others are computed as well."""
SINGLE = 1 << 20
"""Weights from which on a single row in float32 is computed from the packed copy too; with fewer a plain product of a matrix and a vector is as fast."""


def can_pack(dtype: torch.dtype) -> bool:
    """Whether packing weights of that dtype is of use on this CPU.

    In bfloat16, on CPUs that compute in it, oneDNN behind ``torch.nn.functional.linear`` otherwise packs anew in every call, a third of a decoding
    step. In float32 torch otherwise calls another library, which knows fewer CPUs and takes twice as long for a few rows as for one.
    """
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and computes_in_bfloat16())


def computes_in_bfloat16() -> bool:
    """Whether oneDNN has products of bfloat16 for this CPU; False also where torch no longer says so."""
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return supported is not None and bool(supported())


def packed(product: Product) -> Compute:
    """What computes a product from a packed copy of its weight, which is as large; a change of the weight would not be seen.

    Args:
        product: On a CPU, of a dtype that ``can_pack``.
    """
    weight = torch.ops.mkldnn._reorder_linear_weight(product.weight, ROWS)
    bias, inputs, plain = product.bias, product.weight.shape[1], product.plain
    plain_single = product.weight.dtype == torch.float32 and product.weight.numel() < SINGLE

    def compute(states: Tensor) -> Tensor:
        if plain_single and states.numel() == inputs:
            return plain(states)
        found: Tensor = torch.ops.mkldnn._linear_pointwise(states, weight, bias, "none", [], "")
        return found

    return compute
