"""Faster inference: mergeable KV cache, single-token attention, and on a CPU the layers of ``linears`` and ``decoder_layers``.

These use parts of torch and transformers that a newer release may change. Therefore each is tested when a model is opened: the logits of three tokens
must agree with those of the plain model. An optimization that fails is skipped with a warning.
``scripts/bench_eval.py`` and ``scripts/bench_real.py`` compare the engine with other ways to generate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sftchat._util.fallback import reason_of, report_fallback
from sftchat.inference.batch import Batch
from sftchat.inference.decoder_layers import fuse_decoder_layers, restore_decoder_layers
from sftchat.inference.kv_cache import free_bytes
from sftchat.inference.linears import Compute, FusedLinear, can_pack, fused_linears, int8_linear, packed_weight, quantize
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
    if attention_implementation(unwrapped(model)) in (PLAIN_ATTENTION, DECODING_ATTENTION):
        fuse, restore = lambda: fuse_decoder_layers(model, linears, decoding_attention), lambda: restore_decoder_layers(model)
        optimizations.append(Optimization("decoder layers of few operations", fuse, restore))
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
