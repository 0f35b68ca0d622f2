"""Writes transformers models as GGUF files: tensors under llama.cpp's names, hyper-parameters, tokenizer and chat template as metadata.

Nothing here is trusted: ``sftchat.evaluation.gguf_export`` runs the file and compares it with the model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from sftchat.errors import ModelError
from sftchat.models.gguf import GgufHeader, GgufTensor, read_header, size_in_bytes
from sftchat.models.gguf_tokenizer import tokenizer_metadata
from sftchat.models.gguf_types import FileType, round_weights, tensor_type
from sftchat.templates.renderer import Renderer

CONVERTER = "convert_hf_to_gguf.py of llama.cpp converts many more"


@dataclass(frozen=True)
class Architecture:
    """How the models of a transformers architecture are written.

    Attributes:
        name: llama.cpp's name of the architecture.
        hyperparameters: Returns further metadata from the config, by key without the architecture's name.
        convert: Returns the array to be written for a tensor, called with its name in transformers, the array and the config.
        skipped: Suffixes of tensors that llama.cpp does not need.
    """

    name: str
    hyperparameters: Callable[[Any], Mapping[str, Any]] = field(default=lambda config: {})
    convert: Callable[[str, Any, Any], Any] = field(default=lambda name, array, config: array)
    skipped: tuple[str, ...] = ("rotary_emb.inv_freq",)


def _permute_rotary(name: str, array: Any, config: Any) -> Any:
    """Reorder the rows of query and key matrices: transformers rotates the two halves of a head, llama.cpp neighbouring pairs."""
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(name.split(".")[-2])
    if heads is None:
        return array
    return array.reshape(heads, 2, array.shape[0] // heads // 2, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)


def _add_one_to_norms(name: str, array: Any, config: Any) -> Any:
    """Gemma multiplies by one plus the weight of a norm, llama.cpp by the weight."""
    return array + 1 if name.endswith("norm.weight") else array


def _transpose_convolutions(name: str, array: Any, config: Any) -> Any:
    """GPT-2 stores the matrices of its layers with inputs first."""
    return array.T if name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")) else array


def _gemma2(config: Any) -> dict[str, Any]:
    return {
        "attention.sliding_window": config.sliding_window,
        "attn_logit_softcapping": float(config.attn_logit_softcapping),
        "final_logit_softcapping": float(config.final_logit_softcapping),
    }


def _phi3(config: Any) -> dict[str, Any]:
    return {
        "rope.dimension_count": int(_head_length(config) * float(_rope(config).get("partial_rotary_factor", 1.0))),
        "attention.sliding_window": config.sliding_window or 0,
    }


def _gpt2(config: Any) -> dict[str, Any]:
    return {"attention.layer_norm_epsilon": float(config.layer_norm_epsilon), "feed_forward_length": config.n_inner or 4 * config.n_embd}


ARCHITECTURES = {
    "LlamaForCausalLM": Architecture("llama", convert=_permute_rotary),
    "MistralForCausalLM": Architecture("llama", convert=_permute_rotary),
    "Qwen2ForCausalLM": Architecture("qwen2"),
    "Qwen3ForCausalLM": Architecture("qwen3"),
    "Gemma2ForCausalLM": Architecture("gemma2", _gemma2, _add_one_to_norms),
    "Gemma3ForCausalLM": Architecture("gemma3", lambda config: {"attention.sliding_window": config.sliding_window}, _add_one_to_norms),
    "Phi3ForCausalLM": Architecture("phi3", _phi3),
    "GPT2LMHeadModel": Architecture("gpt2", _gpt2, _transpose_convolutions, (".attn.bias", ".attn.masked_bias")),
}
"""Architectures that can be written, by the class in transformers; SmolLM and SmolLM2 are Llama."""


def architecture_of(model_class: str) -> Architecture:
    """Return how the models of a class are written.

    Raises:
        ModelError: When they cannot be.
    """
    if model_class not in ARCHITECTURES:
        known = ", ".join(name.removesuffix("ForCausalLM").removesuffix("LMHeadModel") for name in ARCHITECTURES)
        raise ModelError(f"models of class {model_class} cannot be written as GGUF; those of {known} can ({CONVERTER})")
    return ARCHITECTURES[model_class]


def write_gguf(
    model: Any, renderer: Renderer, path: Path, file_type: FileType, *, name: str, pre_tokenizer: str, earlier: Sequence[Path] = ()
) -> None:
    """Write a model to a GGUF file, one tensor at a time.

    Args:
        model: A transformers causal language model without adapters.
        renderer: Its tokenizer and chat template.
        path: The file.
        file_type: Types of the weights.
        name: Name of the model in the file.
        pre_tokenizer: llama.cpp's name of the tokenizer's splitting rules; see ``sftchat.models.gguf_tokenizer.find_pre_tokenizer``.
        earlier: Files written from the same model. A tensor that one of them has in the same type is copied from there, since rounding to some
            types takes long.

    Raises:
        ModelError: When the model's architecture, positions or tokenizer cannot be written.
        OSError: When the file cannot be written.
    """
    from gguf import GGUFWriter
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    config = model.config.get_text_config()
    architecture = architecture_of(type(model).__name__)
    writer = GGUFWriter(path, architecture.name)
    try:
        metadata = {
            "general.name": name,
            "general.file_type": file_type.number,
            "general.quantization_version": 2,
            **{f"{architecture.name}.{key}": value for key, value in _hyperparameters(config, architecture).items()},
            **tokenizer_metadata(renderer, pre_tokenizer, _vocabulary_size(config)),
        }
        for key, value in metadata.items():
            add_metadata(writer, key, value)
        tensors = [*_rope_tensors(config), *_named_tensors(model, config, architecture)]
        has_output = any(tensor.name == "output.weight" for tensor in tensors)
        types = []
        for tensor in tensors:
            is_output = tensor.name == ("output.weight" if has_output else "token_embd.weight")
            kind = GGMLQuantizationType[tensor_type(tensor.name, tensor.shape, file_type, config.num_hidden_layers, is_output=is_output)]
            types.append(kind)
            block, size = GGML_QUANT_SIZES[kind]
            shape = (*tensor.shape[:-1], tensor.shape[-1] // block * size) if kind.name not in ("F32", "F16") else tensor.shape
            writer.add_tensor_info(tensor.name, shape, _numpy_type(kind.name), math.prod(tensor.shape) // block * size, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        rounded = {(entry.name, entry.type): (header, entry) for header in map(read_header, earlier) for entry in header.tensors}
        for tensor, kind in zip(tensors, types, strict=True):
            copy = rounded.get((tensor.name, kind))
            writer.write_tensor_data(_read_bytes(*copy) if copy is not None else round_weights(tensor.read(), kind.name))
    finally:
        writer.close()


def add_metadata(writer: Any, key: str, value: Any) -> None:
    """Add a metadata entry with the type that llama.cpp expects for a Python value."""
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)


def _read_bytes(header: GgufHeader, tensor: GgufTensor) -> Any:
    """Return the data of a tensor in a file as an array of uint8."""
    import numpy as np

    return np.fromfile(header.path, np.uint8, size_in_bytes(tensor), offset=header.data_start + tensor.offset)


def _numpy_type(type_name: str) -> Any:
    import numpy as np

    return {"F32": np.dtype(np.float32), "F16": np.dtype(np.float16)}.get(type_name, np.dtype(np.uint8))


@dataclass(frozen=True)
class _Tensor:
    """A tensor to be written.

    Attributes:
        name: Name in llama.cpp.
        shape: Shape, rows first.
        read: Returns its float32 array.
    """

    name: str
    shape: tuple[int, ...]
    read: Callable[[], Any]


def _named_tensors(model: Any, config: Any, architecture: Architecture) -> Iterator[_Tensor]:
    """Yield the weights of a model under llama.cpp's names; raise ``ModelError`` for one that llama.cpp has no name for."""
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

    number = next(kind for kind, name in MODEL_ARCH_NAMES.items() if name == architecture.name)
    names = get_tensor_name_map(number, config.num_hidden_layers)
    tied = bool(getattr(config, "tie_word_embeddings", False))
    for name, weights in model.state_dict().items():
        if name.endswith(architecture.skipped) or (tied and name == "lm_head.weight"):
            continue
        new_name = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if new_name is None:
            raise ModelError(f"tensor '{name}' has no name in llama.cpp's architecture '{architecture.name}'; {CONVERTER}")
        shape = tuple(architecture.convert(name, weights.to("meta"), config).shape)
        yield _Tensor(new_name, shape, partial(_read_array, architecture, name, weights, config))


def _read_array(architecture: Architecture, name: str, weights: Any, config: Any) -> Any:
    """Return the float32 array that is written for a tensor."""
    return architecture.convert(name, weights.float().cpu(), config).numpy()


def _hyperparameters(config: Any, architecture: Architecture) -> dict[str, Any]:
    heads = config.num_attention_heads
    epsilon = getattr(config, "rms_norm_eps", None)
    rope = _rope(config)
    head_length = _head_length(config)
    return {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "vocab_size": _vocabulary_size(config),
        "attention.head_count": heads,
        "attention.head_count_kv": getattr(config, "num_key_value_heads", None) or heads,
        **({"feed_forward_length": config.intermediate_size} if hasattr(config, "intermediate_size") else {}),
        **({"attention.layer_norm_rms_epsilon": float(epsilon)} if epsilon is not None else {}),
        **({"attention.key_length": head_length, "attention.value_length": head_length} if rope else {}),
        **({"rope.freq_base": float(rope["rope_theta"]), "rope.dimension_count": head_length} if "rope_theta" in rope else {}),
        **_rope_scaling(config),
        **architecture.hyperparameters(config),
    }


def _head_length(config: Any) -> int:
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def _vocabulary_size(config: Any) -> int:
    return int(config.vocab_size)


def _rope(config: Any) -> dict[str, Any]:
    """Return the parameters of rotary positions; of the layers with full attention, where layers differ; empty for other positions."""
    parameters = getattr(config, "rope_parameters", None) or {}
    return dict(parameters.get("full_attention", parameters))


def _rope_scaling(config: Any) -> dict[str, Any]:
    """Return the metadata on stretched rotary positions.

    Raises:
        ModelError: When they are stretched in a way that this module does not write.
    """
    rope = _rope(config)
    kind = rope.get("rope_type", "default")
    if kind in ("default", "llama3"):  # the latter as a tensor
        return {}
    if kind == "linear":
        return {"rope.scaling.type": "linear", "rope.scaling.factor": float(rope["factor"])}
    if kind == "yarn":
        original = int(rope.get("original_max_position_embeddings") or config.max_position_embeddings)
        return {
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": float(rope["factor"]),
            "rope.scaling.original_context_length": original,
        }
    raise ModelError(f"rotary positions of type '{kind}' cannot be written as GGUF; default, linear, llama3 and yarn can ({CONVERTER})")


def _rope_tensors(config: Any) -> Iterator[_Tensor]:
    """Yield the frequency factors of Llama 3, which llama.cpp reads as a tensor."""
    rope = _rope(config)
    if rope.get("rope_type") != "llama3":
        return
    numbers = (rope[name] for name in ("rope_theta", "factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"))
    factors = llama3_factors(_head_length(config), *numbers)

    def read() -> Any:
        import numpy as np

        return np.array(factors, dtype=np.float32)

    yield _Tensor("rope_freqs.weight", (len(factors),), read)


def llama3_factors(length: int, theta: float, factor: float, low: float, high: float, original: int) -> list[float]:
    """Return what the wavelengths of rotary positions are multiplied by in Llama 3.1 and later; arguments by their names in transformers.

    Args:
        length: Dimensions of a head.
        theta: Base of the frequencies.
        factor: Factor of the longest wavelengths.
        low: ``low_freq_factor``.
        high: ``high_freq_factor``.
        original: Context length before stretching, in tokens.
    """
    factors: list[float] = []
    for index in range(0, length, 2):
        wavelength = 2 * math.pi * theta ** (index / length)
        if wavelength < original / high:
            factors.append(1.0)
        elif wavelength > original / low:
            factors.append(float(factor))
        else:
            smooth = (original / wavelength - low) / (high - low)
            factors.append(1 / ((1 - smooth) / factor + smooth))
    return factors
