"""Inference optimizations: mergeable KV cache, fused linear layers, packed or int8 weights, single-token attention.

These use parts of torch and transformers that a newer release may change. Therefore each is tested when a model is opened: the logits of three tokens
must agree with those of the plain model. An optimization that fails is skipped with a warning.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sftchat._util.fallback import reason_of, report_fallback
from sftchat.inference.batch import Batch
from sftchat.inference.fused_linear import Compute, FusedLinear, can_pack, fused_linears, packed_weight
from sftchat.inference.int8 import int8_linear, quantize
from sftchat.inference.memory import free_bytes
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
        what: Name used in warnings.
        apply: Applies it to the model.
        undo: Restores the model, also after ``apply`` has failed half-way.
    """

    what: str
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
    optimizations = _on_cpu(model, int8) if model.device.type == "cpu" else []
    try:
        expected = _plain_logits(model)
    except Exception:  # a model that cannot compute three tokens: the first request reports the reason
        return True
    merges = True

    def merge(wanted: bool) -> None:
        nonlocal merges
        merges = wanted

    cache = Optimization("the cache whose rows are merged", lambda: merge(True), lambda: merge(False))
    _apply_those_that_agree([*optimizations, cache], expected, lambda: _decoded_logits(model, merges))
    return merges


def _on_cpu(model: Any, int8: bool) -> list[Optimization]:
    """Return the optimizations for a CPU. With ``int8`` the weights are rounded here, so that the plain model uses rounded weights too."""
    size = sum(parameter.nbytes for parameter in model.parameters())
    roomy = 2 * size <= free_bytes(model.device)
    shared = list(fused_linears(model))
    rounded = {id(product): quantize(product) for product in shared if int8 and product.weight.dtype == torch.bfloat16}
    computed: dict[int, Compute] = {id(product): product.plain for product in shared}

    def pack() -> None:
        for product in shared:
            if roomy and can_pack(product.weight.dtype):
                computed[id(product)] = packed_weight(product)
            product.compute_by(computed[id(product)])

    def unpack() -> None:
        for product in shared:
            computed[id(product)] = product.plain
            product.compute_separately()

    def compute_in_eight_bits() -> None:
        for product in shared:
            if id(product) in rounded:
                product.compute_by(int8_linear(product, *rounded[id(product)], computed[id(product)]))

    found = [
        Optimization("the attention of one token", lambda: use_decoding_attention(model), lambda: use_plain_attention(model)),
        Optimization("the packed copy of the weights", pack, unpack),
    ]
    if rounded:
        found.append(Optimization("the product of eight-bit weights", compute_in_eight_bits, lambda: _restore(shared, computed)))
    return found


def _restore(shared: Sequence[FusedLinear], computed: dict[int, Compute]) -> None:
    """Restore the computation that was used before int8."""
    for product in shared:
        product.compute_by(computed[id(product)])


def _apply_those_that_agree(optimizations: Sequence[Optimization], expected: Tensor, logits: Callable[[], Tensor]) -> None:
    """Apply all and compare once; on failure apply them one by one, and undo with a warning each that fails or changes the logits."""
    if _agrees(optimizations, expected, logits)[0]:
        return
    for each in reversed(optimizations):
        each.undo()
    for each in optimizations:
        agrees, error = _agrees([each], expected, logits)
        if not agrees:
            each.undo()
            report_fallback(each.what, reason_of(error))


def _agrees(optimizations: Sequence[Optimization], expected: Tensor, logits: Callable[[], Tensor]) -> tuple[bool, Exception | None]:
    """Apply optimizations; returns whether the logits agree, and the exception raised."""
    try:
        for each in optimizations:
            each.apply()
        found = logits()
    except Exception as error:  # a changed library may raise anything; reported as a warning
        return False, error
    tolerance = TOLERANCE.get(expected.dtype, LOW_PRECISION_TOLERANCE)
    before, after = expected.double(), found.double()
    same = torch.isfinite(before) == torch.isfinite(after)
    distance = torch.linalg.vector_norm((before - after).nan_to_num())
    return bool(same.all()) and bool(distance <= tolerance * torch.linalg.vector_norm(before.nan_to_num())), None


@torch.inference_mode()
def _plain_logits(model: Any) -> Tensor:
    """Return the logits after ``PROBE_TOKENS`` from a forward pass without a cache, shape ``(vocabulary,)``."""
    logits: Tensor = model(input_ids=torch.tensor([PROBE_TOKENS], device=model.device), use_cache=False).logits
    return logits[0, -1]


def _decoded_logits(model: Any, merges: bool) -> Tensor:
    """Return the same logits as the engine computes them: prefill, join a batch, one decoding step."""
    batch = Batch(model, merges=merges)
    reading = batch.begin([list(PROBE_TOKENS[:-1])], [""])
    batch.read(reading)
    batch.join(reading)
    return batch.step(PROBE_TOKENS[-1:])[0]


NAME = "sftchat_decoding"
PLAIN = "sdpa"
"""transformers' name for attention by torch's kernel."""


def use_decoding_attention(model: Any) -> bool:
    """Switch a CPU model from torch's attention kernel to ``decoding_attention``; returns whether it was switched.

    Args:
        model: A causal language model, possibly with adapters.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    inner = unwrapped(model)
    if inner.device.type != "cpu" or implementation(inner) != PLAIN:
        return False
    AttentionInterface.register(NAME, decoding_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    inner.set_attn_implementation(NAME)
    return True


def use_plain_attention(model: Any) -> None:
    """Undo ``use_decoding_attention``."""
    inner = unwrapped(model)
    if implementation(inner) == NAME:
        inner.set_attn_implementation(PLAIN)


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
    found = torch.nn.functional.scaled_dot_product_attention(rows, key, value, attn_mask=attention_mask, scale=scaling)
    if alone:
        found = found[:, :, :1]
    return found.reshape(batch, 1, heads, value.shape[-1]), None
