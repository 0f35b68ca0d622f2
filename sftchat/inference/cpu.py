"""Faster inference: mergeable KV cache, fused linear layers, packed or int8 weights, single-token attention.

These use parts of torch and transformers that a newer release may change. Therefore each is tested when a model is opened: the logits of three tokens
must agree with those of the plain model. An optimization that fails is skipped with a warning.

Layers that read the same states, such as queries, keys and values, become one matrix product. Weights are kept in a second, packed copy where memory
allows: otherwise oneDNN packs bfloat16 weights again at every call, and float32 products of two to a hundred rows take up to twice as long.
Attention is transformers' ``sdpa``, except for a single new token without padding: there torch's kernel is four to ten times slower in bfloat16 than
the one for several rows, so the queries that share keys become the rows. ``scripts/bench_eval.py`` compares the engine with other ways to generate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from sftchat._util.fallback import reason_of, report_fallback
from sftchat.inference.batch import Batch
from sftchat.inference.int8 import Compute, computes_in_bfloat16, int8_linear, quantize
from sftchat.inference.kv_cache import free_bytes
from sftchat.models.loading import unwrapped

PROBE_TOKENS = (1, 2, 3)
"""Token ids of the test prompt."""
TOLERANCE = {torch.float32: 1e-3}
"""Maximum relative difference of two logit vectors due to rounding, by dtype; ``LOW_PRECISION_TOLERANCE`` for dtypes of lower precision."""
LOW_PRECISION_TOLERANCE = 0.1


@dataclass(frozen=True)
class Optimization:
    """An optimization that can be applied and undone.

    Attributes:
        name: Name used in warnings.
        apply: Applies it to the model.
        undo: Restores the model, also after ``apply`` has failed half-way.
    """

    name: str
    apply: Callable[[], object]
    undo: Callable[[], None]


def optimize_for_inference(model: Any, *, int8: bool = False) -> bool:
    """Optimize a model for inference; optimizations that do not suit its device or dtype are skipped.

    Packed copies are as large as the weights, so they are made only if they take less than half of the free memory.

    Args:
        model: A causal language model in eval mode; adapters are left unchanged.
        int8: Whether to round its linear layers to eight bits.

    Returns:
        Whether rows can be merged in ``BatchCache``; passed on to the engine.
    """
    optimizations = _cpu_optimizations(model, int8) if model.device.type == "cpu" else []
    try:
        expected = _plain_logits(model)
    except Exception:  # a model that cannot compute three tokens: the first request reports the reason
        return True
    merges = True

    def set_merges(value: bool) -> None:
        nonlocal merges
        merges = value

    cache = Optimization("the cache whose rows are merged", lambda: set_merges(True), lambda: set_merges(False))
    _apply_those_that_agree([*optimizations, cache], expected, lambda: _decoded_logits(model, merges))
    return merges


def _cpu_optimizations(model: Any, int8: bool) -> list[Optimization]:
    """Return the optimizations for a CPU. With ``int8`` the weights are rounded here, so that the plain model uses rounded weights too."""
    packs = 2 * sum(parameter.nbytes for parameter in model.parameters()) <= free_bytes(model.device)
    products = list(fused_linears(model))
    rounded = {id(product): _quantize(product) for product in products if int8 and product.weight.dtype == torch.bfloat16}
    computed: dict[int, Compute] = {id(product): product.plain for product in products}

    def pack() -> None:
        for product in products:
            if packs and can_pack(product.weight.dtype):
                computed[id(product)] = packed_weight(product)
        use_computed()

    def unpack() -> None:
        for product in products:
            computed[id(product)] = product.plain
            product.compute_separately()

    def use_computed() -> None:
        for product in products:
            product.compute_by(computed[id(product)])

    def compute_in_eight_bits() -> None:
        for product in products:
            if id(product) in rounded:
                product.compute_by(int8_linear(*rounded[id(product)], product.bias, computed[id(product)]))

    optimizations = [
        Optimization("the attention of one token", lambda: use_decoding_attention(model), lambda: use_plain_attention(model)),
        Optimization("the packed copy of the weights", pack, unpack),
    ]
    if rounded:
        optimizations.append(Optimization("the product of eight-bit weights", compute_in_eight_bits, use_computed))
    return optimizations


def _quantize(product: FusedLinear) -> tuple[Tensor, Tensor]:
    """Round the weights of a product to int8; returns them and their scales.

    The rounded weights replace the original ones, so that both ways to compute a reply differ only by rounding.
    """
    rounded, scales = quantize(product.weight)
    product.replace_weight((rounded.float() * scales.float()[:, None]).bfloat16())
    return rounded, scales


def _apply_those_that_agree(optimizations: Sequence[Optimization], expected: Tensor, logits: Callable[[], Tensor]) -> None:
    """Apply all and compare once; on failure apply them one by one, and undo with a warning each that fails or changes the logits."""
    if _agrees(optimizations, expected, logits)[0]:
        return
    for optimization in reversed(optimizations):
        optimization.undo()
    for optimization in optimizations:
        agrees, error = _agrees([optimization], expected, logits)
        if not agrees:
            optimization.undo()
            report_fallback(optimization.name, reason_of(error))


def _agrees(optimizations: Sequence[Optimization], expected: Tensor, logits: Callable[[], Tensor]) -> tuple[bool, Exception | None]:
    """Apply optimizations; returns whether the logits agree, and the exception raised."""
    try:
        for optimization in optimizations:
            optimization.apply()
        before, after = expected.double(), logits().double()
    except Exception as error:  # a changed library may raise anything; reported as a warning
        return False, error
    tolerance = TOLERANCE.get(expected.dtype, LOW_PRECISION_TOLERANCE)
    same = torch.isfinite(before) == torch.isfinite(after)
    distance = torch.linalg.vector_norm((before - after).nan_to_num())
    return bool(same.all()) and bool(distance <= tolerance * torch.linalg.vector_norm(before.nan_to_num())), None


@torch.inference_mode()
def _plain_logits(model: Any) -> Tensor:
    """Return the logits after ``PROBE_TOKENS`` from a forward pass without a cache, shape ``(vocabulary,)``."""
    logits: Tensor = model(input_ids=torch.tensor([PROBE_TOKENS], device=model.device), use_cache=False).logits
    return logits[0, -1]


def _decoded_logits(model: Any, merges: bool) -> Tensor:
    """Return the same logits as the engine computes them: prefill, insertion into a batch, one decoding step."""
    batch = Batch(model, merges=merges)
    prefill = batch.prepare([list(PROBE_TOKENS[:-1])], [""])
    batch.prefill(prefill)
    batch.insert(prefill)
    return batch.step(PROBE_TOKENS[-1:])[0]


FUSED_LAYERS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Names in transformers of linear layers in one module that receive the same input, one after the other in this order."""


@dataclass
class FusedLinear:
    """Linear layers that are computed as one matrix product, whose implementation can be replaced.

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
        parts = [compute] if len(sizes) == 1 else _split(compute, sizes)
        for layer, part in zip(self.layers, parts, strict=True):
            layer.forward = _without_gradients(layer, part)  # type: ignore[method-assign, assignment]

    def compute_separately(self) -> None:
        """Restore the layers' own forward passes."""
        for layer in self.layers:
            layer.__dict__.pop("forward", None)


def fused_linears(model: Any) -> Iterator[FusedLinear]:
    """Yield the linear layers of a model, those of ``FUSED_LAYERS`` fused; layers of other types, such as adapted ones, are skipped."""
    fused: set[nn.Linear] = set()
    for layers in (layers for module in model.modules() for layers in _fusible(module)):
        fused.update(layers)
        biases = [layer.bias.detach() for layer in layers if layer.bias is not None]
        weight = torch.cat([layer.weight.detach() for layer in layers])
        product = FusedLinear(layers, weight, torch.cat(biases) if biases else None)
        product.replace_weight(weight)
        yield product
    for module in model.modules():
        if type(module) is nn.Linear and module not in fused:
            yield FusedLinear([module], module.weight.detach(), module.bias)


def _fusible(module: nn.Module) -> Iterator[list[nn.Linear]]:
    for names in FUSED_LAYERS:
        layers = [layer for name in names if type(layer := getattr(module, name, None)) is nn.Linear]
        kinds = {(layer.in_features, layer.weight.dtype, layer.bias is None) for layer in layers}
        if len(layers) == len(names) and len(kinds) == 1:
            yield layers


def _without_gradients(layer: nn.Linear, compute: Compute) -> Compute:
    """Return a forward function that uses ``compute`` when gradients are disabled."""

    def forward(states: Tensor) -> Tensor:
        return nn.functional.linear(states, layer.weight, layer.bias) if torch.is_grad_enabled() else compute(states)

    return forward


def _split(compute: Compute, sizes: list[int]) -> list[Compute]:
    """Return one compute function per fused layer: the first call computes all outputs, each returns its own; safe when threads share a model."""
    last = len(sizes) - 1
    last_call: tuple[Tensor, tuple[Tensor, ...]] | None = None

    def outputs_of(index: int, states: Tensor) -> Tensor:
        nonlocal last_call
        call = last_call
        if index == 0 or call is None or call[0] is not states:
            call = (states, torch.split(compute(states), sizes, -1))
        last_call = None if index == last else call
        return call[1][index].contiguous()

    return [partial(outputs_of, index) for index in range(len(sizes))]


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
        outputs: Tensor = torch.ops.mkldnn._linear_pointwise(states, weight, bias, "none", [], "")
        return outputs

    return compute


DECODING_ATTENTION = "sftchat_decoding"
PLAIN_ATTENTION = "sdpa"
"""transformers' name for attention by torch's kernel."""


def use_decoding_attention(model: Any) -> bool:
    """Switch a CPU model from torch's attention kernel to ``decoding_attention``; returns whether it was switched.

    Args:
        model: A causal language model, possibly with adapters.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    inner = unwrapped(model)
    if inner.device.type != "cpu" or implementation(inner) != PLAIN_ATTENTION:
        return False
    AttentionInterface.register(DECODING_ATTENTION, decoding_attention)
    AttentionMaskInterface.register(DECODING_ATTENTION, sdpa_mask)
    inner.set_attn_implementation(DECODING_ATTENTION)
    return True


def use_plain_attention(model: Any) -> None:
    """Undo ``use_decoding_attention``."""
    inner = unwrapped(model)
    if implementation(inner) == DECODING_ATTENTION:
        inner.set_attn_implementation(PLAIN_ATTENTION)


def implementation(inner: Any) -> str:
    """Return transformers' name of a model's attention implementation; empty if unknown."""
    return str(getattr(inner.config, "_attn_implementation", ""))


def decoding_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, scaling: float | None = None, **arguments: Any
) -> tuple[Tensor, None]:
    """Compute transformers' ``sdpa`` attention; several times faster for one bfloat16 token per row without padding.

    Args:
        module: The attention layer.
        query: Shape ``(batch, heads, tokens, size)``.
        key: Shape ``(batch, groups, columns, size)``.
        value: As ``key``.
        attention_mask: Attention mask, shape ``(batch, 1, tokens, columns)``; None for plain causal attention.
        scaling: Factor of the scores; by default one over the square root of the size.
        arguments: Further arguments from transformers.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    batch, heads, tokens, size = query.shape
    shared = attention_mask is None or attention_mask.shape[1] == 1
    if tokens > 1 or not shared or arguments.get("position_bias") is not None or arguments.get("softcap") is not None:
        attended: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **arguments)
        return attended
    rows = query.reshape(batch, key.shape[1], -1, size)
    alone = rows.shape[2] == 1 and query.dtype == torch.bfloat16
    if alone:
        rows = rows.expand(-1, -1, 2, -1)
    output = nn.functional.scaled_dot_product_attention(rows, key, value, attn_mask=attention_mask, scale=scaling)
    if alone:
        output = output[:, :, :1]
    return output.reshape(batch, 1, heads, value.shape[-1]), None
