"""The attention kernel for one token gives the same replies, and models with other attention are left unchanged."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from sftchat.inference.cpu import DECODING_ATTENTION, decoding_attention, use_decoding_attention


class Layer:
    """Arguments of an attention layer in transformers."""

    def __init__(self, groups: int) -> None:
        self.num_key_value_groups = groups
        self.is_causal = True


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("tokens", [1, 3])
@pytest.mark.parametrize(("heads", "groups"), [(4, 4), (6, 2), (3, 1)])
def test_the_kernel_computes_what_transformers_computes(heads: int, groups: int, tokens: int, masked: bool, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    query = torch.randn(2, heads, tokens, 16).to(dtype)
    key, value = (torch.randn(2, groups, tokens + 20, 16).to(dtype) for _ in range(2))
    mask = None
    if masked or tokens > 1:
        mask = torch.ones(2, 1, tokens, tokens + 20, dtype=torch.bool).tril(20)
        mask[1, ..., :7] = False
    arguments: dict[str, Any] = {"attention_mask": mask, "scaling": 0.3, "dropout": 0.0}

    found, none = decoding_attention(Layer(heads // groups), query, key, value, **arguments)
    expected, _ = sdpa_attention_forward(Layer(heads // groups), query, key, value, **arguments)

    assert none is None
    assert found.shape == expected.shape == (2, tokens, heads, 16)
    torch.testing.assert_close(found, expected)


def test_a_mask_per_head_is_applied() -> None:
    torch.manual_seed(0)
    query, key = torch.randn(1, 4, 1, 16), torch.randn(1, 2, 9, 16)
    mask = torch.rand(1, 4, 1, 9) > 0.4
    mask[..., 0] = True

    found, _ = decoding_attention(Layer(2), query, key, key, mask)
    expected, _ = sdpa_attention_forward(Layer(2), query, key, key, mask)

    torch.testing.assert_close(found, expected)


def small_model(**arguments: Any) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, num_hidden_layers=2, intermediate_size=64, num_attention_heads=4, num_key_value_heads=2
    )
    return LlamaForCausalLM._from_config(config, **arguments).eval()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_gives_the_same_replies_with_the_kernel(dtype: torch.dtype) -> None:
    model = small_model().to(dtype)
    ids, mask = torch.arange(12).reshape(2, 6), torch.tensor([[1] * 6, [0] * 2 + [1] * 4])
    options: dict[str, Any] = {"attention_mask": mask, "max_new_tokens": 12, "do_sample": False, "pad_token_id": 0, "eos_token_id": -1}
    before = model.generate(ids, **options)

    assert use_decoding_attention(model)
    assert model.config._attn_implementation == DECODING_ATTENTION
    assert torch.equal(model.generate(ids, **options), before)


def test_models_with_other_attention_are_left_unchanged() -> None:
    model = small_model(attn_implementation="eager")

    assert not use_decoding_attention(model)
    assert model.config._attn_implementation == "eager"
    assert not use_decoding_attention(small_model().to("meta"))
