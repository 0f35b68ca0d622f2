"""What is known about the metadata of GGUF files: which files become the same model in transformers, and what its config needs besides.

transformers derives a config from the metadata and leaves some values at a default without an error, which gives another model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sftchat.errors import ModelError
from sftchat.models.gguf import GgufHeader
from sftchat.models.gguf_write import llama3_factors

ROPE_TENSORS = "rope_"
"""Beginning of the names of tensors that hold no weights, but factors for rotary positions."""


@dataclass(frozen=True)
class Conversion:
    """What is known about the files of an architecture.

    Attributes:
        title: Names of the models, for messages.
        settings: Keys of the metadata that the conversion takes into account, without the architecture's name, besides ``COMMON_SETTINGS``.
        complete: Returns values of the config by name that transformers does not derive from the metadata; called with the file's header.
    """

    title: str
    settings: frozenset[str] = frozenset()
    complete: Callable[[GgufHeader], Mapping[str, Any]] = field(default=lambda header: {})


COMMON_SETTINGS = frozenset(
    {
        "block_count", "context_length", "embedding_length", "feed_forward_length", "vocab_size", "attention.head_count", "attention.head_count_kv",
        "attention.layer_norm_rms_epsilon", "attention.key_length", "attention.value_length", "rope.dimension_count", "rope.freq_base",
        "rope.scaling.type", "rope.scaling.factor", "rope.scaling.original_context_length", "rope.scaling.finetuned",
    }
)  # fmt: skip


def _setting(header: GgufHeader, key: str, default: Any = None) -> Any:
    """Return a metadata entry of the architecture."""
    return header.metadata.get(f"{header.architecture}.{key}", default)


def _head_length(header: GgufHeader) -> int:
    """Return the number of dimensions of a head."""
    heads = _setting(header, "attention.head_count")
    return int(_setting(header, "attention.key_length") or _setting(header, "embedding_length") // heads)


def _gemma(header: GgufHeader, layers_of_27b: int) -> dict[str, Any]:
    """Return what divides the attention scores; not in the metadata, llama.cpp knows the exception by the number of layers too."""
    heads = _setting(header, "attention.head_count")
    is_27b = _setting(header, "block_count") == layers_of_27b
    return {"query_pre_attn_scalar": _setting(header, "embedding_length") // heads if is_27b else _head_length(header)}


def _gemma2(header: GgufHeader) -> dict[str, Any]:
    caps = {name: _setting(header, name) for name in ("attn_logit_softcapping", "final_logit_softcapping")}
    return {**_gemma(header, 46), **{name: value for name, value in caps.items() if value}}


def _phi3(header: GgufHeader) -> dict[str, Any]:
    return {
        "sliding_window": _setting(header, "attention.sliding_window") or None,
        "original_max_position_embeddings": _setting(header, "rope.scaling.original_context_length") or header.context_length,
    }


def _gpt2(header: GgufHeader) -> dict[str, Any]:
    return {"n_positions": header.context_length, "n_inner": _setting(header, "feed_forward_length")}


CONVERSIONS: Mapping[str, Conversion] = {
    "llama": Conversion("Llama, Mistral, SmolLM"),
    "qwen2": Conversion("Qwen2"),
    "qwen3": Conversion("Qwen3", complete=lambda header: {"head_dim": _head_length(header)}),
    "gemma2": Conversion("Gemma 2", frozenset({"attention.sliding_window", "attn_logit_softcapping", "final_logit_softcapping"}), _gemma2),
    "gemma3": Conversion("Gemma 3", frozenset({"attention.sliding_window"}), lambda header: _gemma(header, 62)),
    "phi3": Conversion("Phi-3", frozenset({"attention.sliding_window"}), _phi3),
    "gpt2": Conversion("GPT-2", frozenset({"attention.layer_norm_epsilon"}), _gpt2),
}
"""Architectures whose files become checkpoint folders with the same probabilities, by llama.cpp's names."""


def check_convertible(header: GgufHeader) -> None:
    """Refuse a file that does not become the same model in transformers.

    Raises:
        ModelError: When the architecture is unknown, or the metadata has a setting that the conversion would lose.
    """
    conversion = CONVERSIONS.get(header.architecture)
    if conversion is None:
        known = ", ".join(conversion.title for conversion in CONVERSIONS.values())
        raise ModelError(f"'{header.path}' has the architecture '{header.architecture}', which cannot be dequantized; files of {known} can")
    prefix = f"{header.architecture}."
    known_settings = COMMON_SETTINGS | conversion.settings
    for key, value in header.metadata.items():
        if key.startswith(prefix) and key.removeprefix(prefix) not in known_settings and value:
            raise ModelError(
                f"'{header.path}' sets {key} to {value!r:.40}, which a checkpoint folder converted from it would lose; train its original"
            )
    scaling = _setting(header, "rope.scaling.type", "none")
    lost = [tensor.name for tensor in header.tensors if tensor.name.startswith(ROPE_TENSORS) and tensor.name != "rope_freqs.weight"]
    if lost or scaling not in ("none", "linear", "yarn"):
        raise ModelError(
            f"'{header.path}' stretches rotary positions by '{scaling}', which cannot be converted; none, linear, yarn and llama3 can"
        )


def complete_config(header: GgufHeader, tokens: Mapping[str, Any]) -> Any:
    """Return the config that transformers derives from the metadata, with what it leaves at a default.

    Args:
        header: Header of a file that ``check_convertible`` accepts.
        tokens: Special tokens, by their names in the config.

    Raises:
        ModelError: When a tensor stretches rotary positions in another way than Llama 3.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(header.path.parent, gguf_file=header.path.name)
    for name, value in {**CONVERSIONS[header.architecture].complete(header), **tokens}.items():
        setattr(config, name, value)
    if getattr(config, "rope_parameters", None):
        # of Gemma 3, whose layers differ, only those with full attention are stretched
        config.rope_parameters.get("full_attention", config.rope_parameters).update(_rope_parameters(header))
    return config


def _rope_parameters(header: GgufHeader) -> dict[str, Any]:
    """Return the parameters of rotary positions by their names in transformers.

    Raises:
        ModelError: When a tensor stretches them in another way than Llama 3.
    """
    theta = float(_setting(header, "rope.freq_base", 10000.0))
    parameters: dict[str, Any] = {"rope_theta": theta}
    length, rotated = _head_length(header), _setting(header, "rope.dimension_count")
    if rotated and rotated != length:
        parameters["partial_rotary_factor"] = rotated / length
    if any(tensor.name == "rope_freqs.weight" for tensor in header.tensors):
        return parameters | _llama3(header, length, theta)
    kind = _setting(header, "rope.scaling.type", "none")
    if kind == "none":
        return parameters
    parameters |= {"rope_type": kind, "factor": float(_setting(header, "rope.scaling.factor", 1.0))}
    original = _setting(header, "rope.scaling.original_context_length")
    return parameters | ({"original_max_position_embeddings": original} if kind == "yarn" and original else {})


def _llama3(header: GgufHeader, length: int, theta: float) -> dict[str, Any]:
    """Return the parameters that give the factors of a file, found by trying context lengths; Meta's files have the other two always the same."""
    import numpy as np
    from gguf import GGUFReader

    given = next(tensor.data for tensor in GGUFReader(header.path).tensors if tensor.name == "rope_freqs.weight")
    low, high, factor = 1.0, 4.0, float(np.max(given))
    for original in (1 << power for power in range(5, 21)):
        if np.allclose(llama3_factors(length, theta, factor, low, high, original), given, rtol=1e-4, atol=0):
            return {
                "rope_type": "llama3", "factor": factor, "low_freq_factor": low, "high_freq_factor": high,
                "original_max_position_embeddings": original,
            }  # fmt: skip
    raise ModelError(f"'{header.path}' stretches rotary positions by factors other than those of Llama 3, which cannot be converted")
