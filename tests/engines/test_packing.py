"""Packed weights change the time a product takes and nothing else."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from sftchat.engines.packing import pack_linear

SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "intermediate_size": 64,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}
needs_bfloat16 = pytest.mark.skipif(not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="this CPU does not compute in bfloat16")


def model(dtype: torch.dtype) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SIZES, attention_bias=True)).to(dtype).eval()


@pytest.mark.parametrize("single", [0, 1 << 30])
@pytest.mark.parametrize("tokens", [1, 5])
@pytest.mark.parametrize("rows", [1, 3, 130])
@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=needs_bfloat16)])
def test_logits_are_the_same_for_any_number_of_rows(
    dtype: torch.dtype, rows: int, tokens: int, single: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sftchat.engines.packing.SINGLE", single)
    plain, packed = model(dtype), model(dtype)
    ids = torch.arange(tokens * rows).reshape(rows, tokens) % 64

    assert pack_linear(packed) == 8
    with torch.inference_mode():
        torch.testing.assert_close(packed(ids).logits, plain(ids).logits)


def test_gradients_still_flow() -> None:
    packed = model(torch.float32)
    pack_linear(packed)

    packed(torch.arange(5)[None]).logits.sum().backward()

    assert packed.model.layers[0].self_attn.q_proj.weight.grad is not None


def test_other_models_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pack_linear(model(torch.float16)) == 0
    assert pack_linear(model(torch.float32).to("meta")) == 0
    monkeypatch.setattr("sftchat.engines.packing.free_bytes", lambda _: 1000)
    assert pack_linear(model(torch.float32)) == 0
