"""The matrix products of a model that only answers: layers that read the same states are one product, and how it is computed can be replaced."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

FUSED_LAYERS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""What transformers calls linear layers of one module that are given the same states, one after the other in this order."""

Compute = Callable[[Tensor], Tensor]
"""From states, shape ``(…, inputs)``, to the outputs of all layers of a product, shape ``(…, outputs)``."""


@dataclass
class FusedLinear:
    """Linear layers that are computed together.

    Attributes:
        layers: One or several, of the same inputs and dtype.
        weight: Their weights, shape ``(outputs, inputs)``, of which each layer's own is a part.
        bias: Their biases; None when they have none.
    """

    layers: Sequence[nn.Linear]
    weight: Tensor
    bias: Tensor | None

    def plain(self, states: Tensor) -> Tensor:
        """What torch computes."""
        return nn.functional.linear(states, self.weight, self.bias)

    def replace_weight(self, weight: Tensor) -> None:
        """Give the layers other weights; what shares the old ones keeps those."""
        self.weight = weight
        parts = torch.split(weight, [layer.out_features for layer in self.layers])
        for layer, part in zip(self.layers, parts, strict=True):
            layer.weight = nn.Parameter(part, requires_grad=layer.weight.requires_grad)

    def compute_by(self, compute: Compute) -> None:
        """Make the layers compute so from now on, where no gradient is asked for."""
        sizes = [layer.out_features for layer in self.layers]
        parts = [compute] if len(sizes) == 1 else _Shared(compute, sizes).parts()
        for layer, part in zip(self.layers, parts, strict=True):
            layer.forward = _answering(layer, part)  # type: ignore[method-assign, assignment]

    def compute_separately(self) -> None:
        """Let each layer compute its own outputs again, as torch does it."""
        for layer in self.layers:
            layer.__dict__.pop("forward", None)


def fused_linears(model: Any) -> Iterator[FusedLinear]:
    """The linear layers of a model, those of ``FUSED_LAYERS`` as one product; layers of other types, such as those with adapters, are left out."""
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
    """The layers of a module that can be one product."""
    for names in FUSED_LAYERS:
        layers = [layer for name in names if type(layer := getattr(module, name, None)) is nn.Linear]
        kinds = {(layer.in_features, layer.weight.dtype, layer.bias is None) for layer in layers}
        if len(layers) == len(names) and len(kinds) == 1:
            yield layers


def _answering(layer: nn.Linear, compute: Compute) -> Compute:
    """The forward of a layer that is computed so, but where a gradient is asked for."""

    def forward(states: Tensor) -> Tensor:
        return nn.functional.linear(states, layer.weight, layer.bias) if torch.is_grad_enabled() else compute(states)

    return forward


class _Shared:
    """The outputs of several layers, computed when the first is asked and handed out as each is; threads that share a model do not mix theirs up."""

    def __init__(self, compute: Compute, sizes: list[int]) -> None:
        self._compute = compute
        self._sizes = sizes
        self._held: tuple[Tensor, tuple[Tensor, ...]] | None = None

    def parts(self) -> list[Compute]:
        """What computes the outputs of each layer."""
        return [self._part(index) for index in range(len(self._sizes))]

    def _part(self, index: int) -> Compute:
        """What computes those of one."""
        last = len(self._sizes) - 1

        def compute(states: Tensor) -> Tensor:
            held = self._held
            if index == 0 or held is None or held[0] is not states:
                held = (states, torch.split(self._compute(states), self._sizes, -1))
            self._held = None if index == last else held
            return held[1][index].contiguous()

        return compute


PACKED_ROWS = 128
"""Rows of the products that the order is chosen for; others are computed as well."""
MIN_PACKED_WEIGHTS = 1 << 20
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


def packed_weight(product: FusedLinear) -> Compute:
    """What computes a product from a packed copy of its weight, which is as large; a change of the weight would not be seen.

    Args:
        product: On a CPU, of a dtype that ``can_pack``.
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
