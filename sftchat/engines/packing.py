"""Weights in the order in which a CPU's vector units take them, arranged once instead of at every matrix product."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sftchat.engines.memory import free_bytes

ROWS = 128
"""Rows of the products that the order is chosen for; others are computed as well."""
SINGLE = 1 << 20
"""Weights from which on a single row in float32 is computed from the packed copy too; with fewer a plain product of a matrix and a vector is as fast."""


def pack_linear(model: Any) -> int:
    """Make the linear layers of a model use packed copies of their weights, where that is of use.

    In bfloat16, on CPUs that compute in it, oneDNN behind ``torch.nn.functional.linear`` otherwise packs anew in every call, a third of a decoding
    step. In float32 torch otherwise calls another library, which knows fewer CPUs and takes twice as long for a few rows as for one. A copy is as large
    as the weight, so a model is left alone when they would take more than half of the memory that is free. Only for models that answer: a change of
    the weights would not be seen.

    Args:
        model: A transformers model, perhaps with adapters, which stay as they are.

    Returns:
        Layers that are packed now.
    """
    if model.device.type != "cpu" or not torch._C._has_mkldnn:
        return 0
    dtypes = {torch.float32} | ({torch.bfloat16} if torch.ops.mkldnn._is_mkldnn_bf16_supported() else set())
    layers = [module for module in model.modules() if type(module) is nn.Linear and module.weight.dtype in dtypes]
    if 2 * sum(layer.weight.nbytes for layer in layers) > free_bytes(model.device):
        return 0
    for layer in layers:
        layer.forward = _packed(layer)  # type: ignore[method-assign]
    return len(layers)


def _packed(layer: nn.Linear) -> Any:
    """What the layer computes, from a packed copy of its weight."""
    weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), ROWS)
    bias, size = layer.bias, layer.in_features
    plain_single = layer.weight.dtype == torch.float32 and layer.weight.numel() < SINGLE

    def forward(states: Tensor) -> Tensor:
        if torch.is_grad_enabled() or (plain_single and states.numel() == size):
            return nn.functional.linear(states, layer.weight, bias)
        product: Tensor = torch.ops.mkldnn._linear_pointwise(states, weight, bias, "none", [], "")
        return product

    return forward
