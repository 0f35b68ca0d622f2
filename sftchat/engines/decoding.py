"""What makes a loaded model answer faster on a CPU: packed weights, eight bits, the attention of one token."""

from __future__ import annotations

from typing import Any

from sftchat.engines.attention import use_decoding_attention
from sftchat.engines.packing import pack_linear
from sftchat.engines.quantizing import quantize_linear, use_int8


def prepare_for_decoding(model: Any, *, int8: bool = False) -> None:
    """Arrange a model that will only answer; what is of no use on its device or for its dtype is left out.

    Args:
        model: A causal language model in eval mode, perhaps with adapters.
        int8: Whether its linear layers are rounded to eight bits.
    """
    if int8:
        quantize_linear(model)
    pack_linear(model)
    if int8:
        use_int8(model)
    use_decoding_attention(model)
