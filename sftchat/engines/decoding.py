"""What makes a loaded model answer faster on a CPU: layers computed together, weights packed or in eight bits, the attention of one token."""

from __future__ import annotations

from typing import Any

import torch

from sftchat.engines.attention import use_decoding_attention
from sftchat.engines.memory import free_bytes
from sftchat.engines.packing import can_pack, packed
from sftchat.engines.products import Compute, products
from sftchat.engines.quantizing import eight_bits, quantize


def prepare_for_decoding(model: Any, *, int8: bool = False) -> None:
    """Arrange a model that will only answer; what is of no use on its device or for its dtype is left out.

    Packed copies are as large as the weights, so they are made only where they take less than half of the memory that is free.

    Args:
        model: A causal language model in eval mode, perhaps with adapters, which stay as they are.
        int8: Whether its linear layers are rounded to eight bits.
    """
    if model.device.type != "cpu":
        return
    use_decoding_attention(model)
    size = sum(parameter.nbytes for parameter in model.parameters())
    roomy = 2 * size <= free_bytes(model.device)
    for product in products(model):
        compute: Compute = product.plain
        rounded = quantize(product) if int8 and product.weight.dtype == torch.bfloat16 else None
        if roomy and can_pack(product.weight.dtype):
            compute = packed(product)
        if rounded is not None:
            compute = eight_bits(product, *rounded, compute)
        product.compute_by(compute)
