"""Linear layers for inference: layers with the same input are fused into one product, whose implementation can be replaced."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

FUSED_LAYERS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Names in transformers of linear layers in one module that receive the same input, one after the other in this order."""

Compute = Callable[[Tensor], Tensor]
"""Maps inputs, shape ``(…, inputs)``, to the outputs of all fused layers, shape ``(…, outputs)``."""


@dataclass
class FusedLinear:
    """Linear layers that are computed as one matrix product.

    Attributes:
        layers: One or more, with the same inputs and dtype.
        weight: Concatenated weights, shape ``(outputs, inputs)``; each layer's own weight is a view of it.
        bias: Concatenated biases, or None.
    """

    layers: Sequence[nn.Linear]
    weight: Tensor
    bias: Tensor | None

    def plain(self, states: Tensor) -> Tensor:
        """Compute the product with torch."""
        return nn.functional.linear(states, self.weight, self.bias)

    def replace_weight(self, weight: Tensor) -> None:
        """Replace the weights of the layers; tensors that share the old weights keep them."""
        self.weight = weight
        parts = torch.split(weight, [layer.out_features for layer in self.layers])
        for layer, part in zip(self.layers, parts, strict=True):
            layer.weight = nn.Parameter(part, requires_grad=layer.weight.requires_grad)

    def compute_by(self, compute: Compute) -> None:
        """Use ``compute`` as the layers' forward pass when gradients are disabled."""
        sizes = [layer.out_features for layer in self.layers]
        parts = [compute] if len(sizes) == 1 else _Shared(compute, sizes).parts()
        for layer, part in zip(self.layers, parts, strict=True):
            layer.forward = _answering(layer, part)  # type: ignore[method-assign, assignment]

    def compute_separately(self) -> None:
        """Restore the layers' own forward passes."""
        for layer in self.layers:
            layer.__dict__.pop("forward", None)


def fused_linears(model: Any) -> Iterator[FusedLinear]:
    """Yield the linear layers of a model, those of ``FUSED_LAYERS`` fused; layers of other types, such as adapted ones, are skipped."""
    taken: set[nn.Linear] = set()
    for layers in (layers for module in model.modules() for layers in _together(module)):
        taken.update(layers)
        biases = [layer.bias.detach() for layer in layers if layer.bias is not None]
        weight = torch.cat([layer.weight.detach() for layer in layers])
        product = FusedLinear(layers, weight, torch.cat(biases) if biases else None)
        product.replace_weight(weight)
        yield product
    for module in model.modules():
        if type(module) is nn.Linear and module not in taken:
            yield FusedLinear([module], module.weight.detach(), module.bias)


def _together(module: nn.Module) -> Iterator[list[nn.Linear]]:
    """Yield the groups of layers of a module that can be fused."""
    for names in FUSED_LAYERS:
        layers = [layer for name in names if type(layer := getattr(module, name, None)) is nn.Linear]
        kinds = {(layer.in_features, layer.weight.dtype, layer.bias is None) for layer in layers}
        if len(layers) == len(names) and len(kinds) == 1:
            yield layers


def _answering(layer: nn.Linear, compute: Compute) -> Compute:
    """Return a forward function that uses ``compute`` when gradients are disabled."""

    def forward(states: Tensor) -> Tensor:
        return nn.functional.linear(states, layer.weight, layer.bias) if torch.is_grad_enabled() else compute(states)

    return forward


class _Shared:
    """Outputs of fused layers, computed when the first layer is called and returned by each; safe when threads share a model."""

    def __init__(self, compute: Compute, sizes: list[int]) -> None:
        self._compute = compute
        self._sizes = sizes
        self._held: tuple[Tensor, tuple[Tensor, ...]] | None = None

    def parts(self) -> list[Compute]:
        """Return one compute function per layer."""
        return [self._part(index) for index in range(len(self._sizes))]

    def _part(self, index: int) -> Compute:
        last = len(self._sizes) - 1

        def compute(states: Tensor) -> Tensor:
            held = self._held
            if index == 0 or held is None or held[0] is not states:
                held = (states, torch.split(self._compute(states), self._sizes, -1))
            self._held = None if index == last else held
            return held[1][index].contiguous()

        return compute


PACKED_ROWS = 128
"""Number of rows for which the weight layout is optimized; other numbers work too."""
MIN_PACKED_WEIGHTS = 1 << 20
"""Minimum number of weights for which a single float32 row uses the packed copy; below it a plain matrix-vector product is as fast."""


def can_pack(dtype: torch.dtype) -> bool:
    """Whether packed weights of a dtype are faster on this CPU.

    In bfloat16, on CPUs with bfloat16 units, oneDNN behind ``torch.nn.functional.linear`` otherwise packs the weights in every call, which takes a
    third of a decoding step. In float32 torch otherwise calls another library, which supports fewer CPUs and takes twice as long for a few rows as
    for one.
    """
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and computes_in_bfloat16())


def computes_in_bfloat16() -> bool:
    """Whether oneDNN has bfloat16 products for this CPU; False also if torch no longer reports it."""
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return supported is not None and bool(supported())


def packed_weight(product: FusedLinear) -> Compute:
    """Return a function that computes a product from a packed copy of its weights; later changes of the weights have no effect on it.

    Args:
        product: Linear layers on a CPU, of a dtype that ``can_pack`` accepts.
    """
    weight = torch.ops.mkldnn._reorder_linear_weight(product.weight, PACKED_ROWS)
    bias, inputs, plain = product.bias, product.weight.shape[1], product.plain
    plain_single = product.weight.dtype == torch.float32 and product.weight.numel() < MIN_PACKED_WEIGHTS

    def compute(states: Tensor) -> Tensor:
        if plain_single and states.numel() == inputs:
            return plain(states)
        found: Tensor = torch.ops.mkldnn._linear_pointwise(states, weight, bias, "none", [], "")
        return found

    return compute
