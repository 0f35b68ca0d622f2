"""Faster linear layers on a CPU: fused, packed, or with int8 weights.

Layers with the same input, such as those of queries, keys and values, become one matrix product. Weights are kept in a second, packed copy if memory
allows: otherwise oneDNN packs bfloat16 weights again at every call, and float32 products of two to a hundred rows take up to twice as long. Int8
weights have half the bytes of bfloat16, and memory bandwidth limits decoding.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

Compute = Callable[[Tensor], Tensor]
"""Maps inputs, shape ``(…, inputs)``, to the outputs of one or more linear layers, shape ``(…, outputs)``."""

FUSED_LAYERS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Groups of transformers' linear layers with the same input, by name in their module, in the order in which the module calls them."""


@dataclass
class FusedLinear:
    """Linear layers that are computed as one matrix product, whose implementation can be replaced.

    Attributes:
        layers: One or more, with the same inputs and dtype.
        weight: Concatenated weights, shape ``(outputs, inputs)``; each layer's own weight is a view of it.
        bias: Concatenated biases, or None.
        compute: Present implementation: computes the outputs of all layers.
    """

    layers: Sequence[nn.Linear]
    weight: Tensor
    bias: Tensor | None

    def __post_init__(self) -> None:
        self.compute: Compute = self.compute_plain

    def compute_plain(self, states: Tensor) -> Tensor:
        """Compute the product with torch."""
        return nn.functional.linear(states, self.weight, self.bias)

    def replace_weight(self, weight: Tensor) -> None:
        """Replace the weights of the layers; tensors that share the old weights keep them."""
        self.weight = weight
        layer_weights = torch.split(weight, [layer.out_features for layer in self.layers])
        for layer, layer_weight in zip(self.layers, layer_weights, strict=True):
            layer.weight = nn.Parameter(layer_weight, requires_grad=layer.weight.requires_grad)

    def compute_with(self, compute: Compute) -> None:
        """Use ``compute`` as the layers' forward pass when gradients are disabled."""
        self.compute = compute
        sizes = [layer.out_features for layer in self.layers]
        layer_functions = [compute] if len(sizes) == 1 else _split_outputs(compute, sizes)
        for layer, layer_function in zip(self.layers, layer_functions, strict=True):
            layer.forward = _without_gradients(layer, layer_function)  # type: ignore[method-assign, assignment]

    def restore_layers(self) -> None:
        """Restore the layers' own forward passes."""
        self.compute = self.compute_plain
        for layer in self.layers:
            layer.__dict__.pop("forward", None)


def fused_linears(model: Any) -> Iterator[FusedLinear]:
    """Yield the linear layers of a model, each group of ``FUSED_LAYERS`` as one; layers of other types, such as those with adapters, are skipped."""
    fused: set[nn.Linear] = set()
    groups = [layers for module in model.modules() for layers in _fusible_groups(module)]
    for layers in groups:
        fused.update(layers)
        biases = [layer.bias.detach() for layer in layers if layer.bias is not None]
        weight = torch.cat([layer.weight.detach() for layer in layers])
        linear = FusedLinear(layers, weight, torch.cat(biases) if biases else None)
        linear.replace_weight(weight)
        yield linear
    for module in model.modules():
        if type(module) is nn.Linear and module not in fused:
            yield FusedLinear([module], module.weight.detach(), module.bias)


def _fusible_groups(module: nn.Module) -> Iterator[list[nn.Linear]]:
    for names in FUSED_LAYERS:
        members = [getattr(module, name, None) for name in names]
        layers = [member for member in members if type(member) is nn.Linear]
        formats = {(layer.in_features, layer.weight.dtype, layer.bias is None) for layer in layers}
        if len(layers) == len(names) and len(formats) == 1:
            yield layers


def _without_gradients(layer: nn.Linear, compute: Compute) -> Compute:
    """Return a forward function that uses ``compute`` when gradients are disabled."""

    def forward(states: Tensor) -> Tensor:
        return nn.functional.linear(states, layer.weight, layer.bias) if torch.is_grad_enabled() else compute(states)

    return forward


def _split_outputs(compute: Compute, sizes: list[int]) -> list[Compute]:
    """Return one function per fused layer: the first one computes the outputs of all layers, and each returns its own.

    Threads may share a model: a function whose input is not that of the last call computes the outputs again.
    """
    last_call: tuple[Tensor, tuple[Tensor, ...]] | None = None  # inputs, and the outputs of each layer

    def compute_layer(index: int, states: Tensor) -> Tensor:
        nonlocal last_call
        call = last_call  # read once, since another thread may replace it
        if index == 0 or call is None or call[0] is not states:
            call = (states, torch.split(compute(states), sizes, -1))
        _, outputs = call
        last_call = None if index == len(sizes) - 1 else call
        return outputs[index].contiguous()

    return [partial(compute_layer, index) for index in range(len(sizes))]


PACKED_ROWS = 128
"""Number of input rows for which the weight layout is optimized; other numbers work too."""


def can_pack(dtype: torch.dtype) -> bool:
    """Whether packed weights of a dtype are faster on this CPU.

    Without them, ``torch.nn.functional.linear`` packs bfloat16 weights in every call on CPUs with bfloat16 units, which takes a third of a decoding
    step; for float32 it uses another library than oneDNN, which supports fewer CPUs and takes twice as long for a few rows as for one.
    """
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and computes_in_bfloat16())


def packed_weight(linear: FusedLinear) -> Compute:
    """Return a function that computes linear layers on a CPU from a packed copy of their weights; later changes of the weights have no effect on it.

    The dtype of the weights must be one that ``can_pack`` accepts.
    """
    weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight, PACKED_ROWS)
    bias, inputs = linear.bias, linear.weight.shape[1]
    single_row_is_plain = linear.weight.dtype == torch.float32  # torch's matrix-vector product takes three quarters of the time

    def compute(states: Tensor) -> Tensor:
        if single_row_is_plain and states.numel() == inputs:
            return linear.compute_plain(states)
        outputs: Tensor = torch.ops.mkldnn._linear_pointwise(states, weight, bias, "none", [], "")
        return outputs

    return compute


MAX_INT8_ROWS = 4
"""Maximum number of input rows for int8 weights; for more, the same weights are faster in bfloat16 if the CPU has units for that."""
MAX_INT8 = 127
"""Largest absolute value of an int8, without -128."""
MIN_INTEGER_WEIGHTS = 1 << 21
"""Minimum number of weights for products of integers; with fewer, rounding the states takes longer than it saves."""
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
    uses_integers = weight.numel() >= MIN_INTEGER_WEIGHTS and _has_integer_products()
    multiply = _w8a16_int(weight, scales) if uses_integers else _weight_only_int8(weight, scales)

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
