"""Faster inference: mergeable KV cache, fused linear layers, packed or int8 weights, single-token attention.

These use parts of torch and transformers that a newer release may change. Therefore each is tested when a model is opened: the logits of three tokens
must agree with those of the plain model. An optimization that fails is skipped with a warning.

Layers with the same input, such as those of queries, keys and values, become one matrix product. Weights are kept in a second, packed copy if memory
allows: otherwise oneDNN packs bfloat16 weights again at every call, and float32 products of two to a hundred rows take up to twice as long.
``scripts/bench_eval.py`` compares the engine with other ways to generate.
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

PROBE_SHARES = (0.25, 0.5, 0.75)
"""Where the token ids of the test prompt stand in the vocabulary: special tokens stand at its ends, and an untrained one makes logits of noise."""
FLOAT32_TOLERANCE, LOW_PRECISION_TOLERANCE = 1e-3, 0.1
"""Maximum relative difference of two logit vectors due to rounding, in float32 and in other dtypes."""


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
    _apply_verified([*optimizations, cache], expected, lambda: _decoded_logits(model, merges))
    return merges


def _cpu_optimizations(model: Any, int8: bool) -> list[Optimization]:
    """Return the optimizations for a CPU. With ``int8`` the weights are rounded here, so that the plain model uses rounded weights too."""
    fits_packed_copy = 2 * sum(parameter.nbytes for parameter in model.parameters()) <= free_bytes(model.device)
    linears = list(fused_linears(model))
    int8_weights = {id(linear): _quantize(linear) for linear in linears if int8 and linear.weight.dtype == torch.bfloat16}
    implementations: dict[int, Compute] = {id(linear): linear.compute_plain for linear in linears}  # plain or packed, never int8

    def pack() -> None:
        for linear in linears:
            if fits_packed_copy and can_pack(linear.weight.dtype):
                implementations[id(linear)] = packed_weight(linear)
        use_implementations()

    def unpack() -> None:
        for linear in linears:
            implementations[id(linear)] = linear.compute_plain
            linear.restore_layers()

    def use_implementations() -> None:
        for linear in linears:
            linear.compute_with(implementations[id(linear)])

    def use_int8() -> None:
        for linear in linears:
            if id(linear) in int8_weights:
                linear.compute_with(int8_linear(*int8_weights[id(linear)], linear.bias, implementations[id(linear)]))

    optimizations = [
        Optimization("the attention of one token", lambda: use_decoding_attention(model), lambda: use_plain_attention(model)),
        Optimization("the packed copy of the weights", pack, unpack),
    ]
    if int8_weights:
        optimizations.append(Optimization("the product of eight-bit weights", use_int8, use_implementations))
    return optimizations


def _quantize(linear: FusedLinear) -> tuple[Tensor, Tensor]:
    """Return the weights in int8 and their scales; the rounded weights replace the original ones.

    So the int8 and the bfloat16 implementation compute the same product, up to rounding.
    """
    int8_weight, scales = quantize(linear.weight)
    linear.replace_weight((int8_weight.float() * scales.float()[:, None]).bfloat16())
    return int8_weight, scales


def _apply_verified(optimizations: Sequence[Optimization], expected: Tensor, compute_logits: Callable[[], Tensor]) -> None:
    """Apply all and compare once; on failure apply them one by one, and undo with a warning each that fails or changes the logits."""
    if not _apply_and_compare(optimizations, expected, compute_logits):
        return
    for optimization in reversed(optimizations):
        optimization.undo()
    for optimization in optimizations:
        if reason := _apply_and_compare([optimization], expected, compute_logits):
            optimization.undo()
            report_fallback(optimization.name, reason)


def _apply_and_compare(optimizations: Sequence[Optimization], expected: Tensor, compute_logits: Callable[[], Tensor]) -> str:
    """Apply optimizations; return the reason why they cannot be used, empty if the logits agree with the expected ones."""
    try:
        for optimization in optimizations:
            optimization.apply()
        before, after = expected.double(), compute_logits().double()
    except Exception as error:  # a changed library may raise anything; reported as a warning
        return reason_of(error)
    tolerance = FLOAT32_TOLERANCE if expected.dtype == torch.float32 else LOW_PRECISION_TOLERANCE
    distance = torch.linalg.vector_norm((before - after).nan_to_num())
    is_close = distance <= tolerance * torch.linalg.vector_norm(before.nan_to_num())
    agrees = bool(is_close) and torch.equal(torch.isfinite(before), torch.isfinite(after))
    return "" if agrees else reason_of(None)


@torch.inference_mode()
def _plain_logits(model: Any) -> Tensor:
    """Return the logits after the test prompt from a forward pass without a cache, shape ``(vocabulary,)``."""
    logits: Tensor = model(input_ids=torch.tensor([_probe_tokens(model)], device=model.device), use_cache=False).logits
    return logits[0, -1]


def _decoded_logits(model: Any, merges: bool) -> Tensor:
    """Return the logits after the test prompt as the engine computes them: prefill, insertion into a batch, one decoding step."""
    *prompt, last = _probe_tokens(model)
    batch = Batch(model, lambda adapters: None, None, merges)
    prefill = batch.prepare([prompt], [""])
    batch.prefill(prefill)
    batch.insert(prefill)
    return batch.step([last])[0]


def _probe_tokens(model: Any) -> list[int]:
    """Return the token ids of the test prompt."""
    vocabulary_size = model.get_input_embeddings().weight.shape[0]
    return [int(share * vocabulary_size) for share in PROBE_SHARES]


FUSED_LAYERS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Groups of transformers' linear layers with the same input, by name in their module, in the order in which the module calls them."""


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
        sizes = [layer.out_features for layer in self.layers]
        layer_functions = [compute] if len(sizes) == 1 else _split_outputs(compute, sizes)
        for layer, layer_function in zip(self.layers, layer_functions, strict=True):
            layer.forward = _without_gradients(layer, layer_function)  # type: ignore[method-assign, assignment]

    def restore_layers(self) -> None:
        """Restore the layers' own forward passes."""
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
MIN_PACKED_WEIGHTS = 1 << 20
"""Minimum number of weights for which a single float32 row uses the packed copy; with fewer, a plain matrix-vector product is as fast."""


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
    single_row_is_plain = linear.weight.dtype == torch.float32 and linear.weight.numel() < MIN_PACKED_WEIGHTS

    def compute(states: Tensor) -> Tensor:
        if single_row_is_plain and states.numel() == inputs:
            return linear.compute_plain(states)
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
    if inner.device.type != "cpu" or attention_implementation(inner) != PLAIN_ATTENTION:
        return False
    AttentionInterface.register(DECODING_ATTENTION, decoding_attention)
    AttentionMaskInterface.register(DECODING_ATTENTION, sdpa_mask)
    inner.set_attn_implementation(DECODING_ATTENTION)
    return True


def use_plain_attention(model: Any) -> None:
    """Undo ``use_decoding_attention``."""
    inner = unwrapped(model)
    if attention_implementation(inner) == DECODING_ATTENTION:
        inner.set_attn_implementation(PLAIN_ATTENTION)


def attention_implementation(inner: Any) -> str:
    """Return transformers' name of a model's attention implementation; empty if unknown."""
    return str(getattr(inner.config, "_attn_implementation", ""))


def decoding_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, scaling: float | None = None, **arguments: Any
) -> tuple[Tensor, None]:
    """Compute transformers' ``sdpa`` attention, faster for one new token per row.

    In bfloat16 torch's kernel for one token takes four to ten times as long as that for several. So the queries that share keys are computed like
    the queries of several tokens; if there is only one, it is computed twice.

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
    heads_share_mask = attention_mask is None or attention_mask.shape[1] == 1
    if tokens > 1 or not heads_share_mask or arguments.get("position_bias") is not None or arguments.get("softcap") is not None:
        output_and_weights: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **arguments
        )
        return output_and_weights
    queries = query.reshape(batch, key.shape[1], -1, size)
    is_single = queries.shape[2] == 1
    if is_single and query.dtype == torch.bfloat16:
        queries = queries.expand(-1, -1, 2, -1)
    output = nn.functional.scaled_dot_product_attention(queries, key, value, attn_mask=attention_mask, scale=scaling)
    if is_single:
        output = output[:, :, :1]
    return output.reshape(batch, 1, heads, value.shape[-1]), None
