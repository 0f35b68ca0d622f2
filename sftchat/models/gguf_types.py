"""The types of the weights in a GGUF file: which tensor gets which type, as llama.cpp's ``quantize`` chooses them, and the rounding itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

BLOCK, SUPER_BLOCK = 32, 256
"""Number of weights that share a scale, and of those that a K type rounds together; a row must be a multiple."""

FALLBACKS = {"Q2_K": "IQ4_NL", "Q3_K": "IQ4_NL", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}
"""Type instead of a K type for rows that are no multiple of ``SUPER_BLOCK``."""
LAYER = re.compile(r"blk\.(\d+)\.(\w+)\.weight")


@dataclass(frozen=True)
class FileType:
    """A mixture of types.

    Attributes:
        name: As the user types it.
        number: llama.cpp's number of the mixture, the metadata entry ``general.file_type``.
        default: Type of a matrix that no other field names.
        output: Type of the matrix that computes the logits; empty for ``default``.
        more_bits: Types of matrices, such as ``attn_v``, in the layers to which llama.cpp gives more bits: the first and last eighth, and every
            third between.
        always: Types of matrices in all layers.
    """

    name: str
    number: int
    default: str
    output: str = ""
    more_bits: Mapping[str, str] | None = None
    always: Mapping[str, str] | None = None


FILE_TYPES = {
    file_type.name: file_type
    for file_type in (
        FileType("f32", 0, "F32"),
        FileType("f16", 1, "F16"),
        FileType("bf16", 32, "BF16"),
        FileType("q8_0", 7, "Q8_0"),
        FileType("q6_k", 18, "Q6_K"),
        FileType("q5_k_m", 17, "Q5_K", output="Q6_K", more_bits={"attn_v": "Q6_K", "ffn_down": "Q6_K"}, always={"attn_qkv": "Q6_K"}),
        FileType("q4_k_m", 15, "Q4_K", output="Q6_K", more_bits={"attn_v": "Q6_K", "ffn_down": "Q6_K"}, always={"attn_qkv": "Q5_K"}),
        FileType(
            "q3_k_m", 12, "Q3_K", output="Q6_K", always={"attn_v": "Q4_K", "attn_output": "Q4_K", "ffn_down": "Q4_K", "attn_qkv": "Q4_K"}
        ),
        FileType("q2_k", 10, "Q2_K", output="Q6_K", always={"attn_v": "Q3_K", "attn_output": "Q3_K", "ffn_down": "Q3_K"}),
    )
}  # fmt: skip
"""All mixtures, largest first. The rules: https://github.com/ggml-org/llama.cpp/blob/master/src/llama-quant.cpp"""
SMALLER_TYPES = ("q8_0", "q6_k", "q5_k_m", "q4_k_m", "q3_k_m", "q2_k")
"""The mixtures that a search for the smallest file tries, largest first."""


def tensor_type(name: str, shape: tuple[int, ...], file_type: FileType, layers: int, *, is_output: bool) -> str:
    """Return the type of a tensor, such as ``Q4_K``.

    Args:
        name: llama.cpp's name, such as ``blk.0.attn_v.weight``.
        shape: Its shape, rows first.
        file_type: The mixture.
        layers: Number of layers of the model.
        is_output: Whether it computes the logits: the output matrix, or the embedding where both are one.
    """
    if len(shape) < 2 or "norm" in name or name == "position_embd.weight" or not name.endswith(".weight"):
        return "F32"
    chosen = file_type.default
    if is_output and file_type.output:
        chosen = file_type.output
    if match := LAYER.fullmatch(name):
        layer, matrix = int(match[1]), match[2]
        chosen = (file_type.always or {}).get(matrix, chosen)
        if _gets_more_bits(layer, layers):
            chosen = (file_type.more_bits or {}).get(matrix, chosen)
    if chosen.endswith("_K") and shape[-1] % SUPER_BLOCK:
        chosen = FALLBACKS[chosen]
    return "F16" if chosen.startswith(("Q", "IQ")) and shape[-1] % BLOCK else chosen


def _gets_more_bits(layer: int, layers: int) -> bool:
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2


def round_weights(weights: Any, type_name: str) -> Any:
    """Round a matrix to a type.

    Args:
        weights: A float32 numpy array.
        type_name: The type, such as ``Q4_K``.

    Returns:
        A numpy array whose bytes are those of the file: of float32 for ``F32``, of float16 for ``F16``, and of uint8 for all others.
    """
    import numpy as np
    from gguf.constants import GGMLQuantizationType
    from gguf.quants import quantize

    weights = np.ascontiguousarray(weights, dtype=np.float32)
    kind = GGMLQuantizationType[type_name]
    if type_name in ("F32", "F16", "BF16", "Q8_0"):
        return quantize(weights, kind)
    import libgguf  # gguf cannot round to K types and IQ4_NL

    return libgguf.quantize_rows(weights, kind)
