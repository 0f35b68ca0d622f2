"""Fused layers and packed weights change the speed and not the results."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from sftchat.inference.cpu import optimize_for_inference
from sftchat.inference.linears import can_pack, fused_linears

needs_bfloat16 = pytest.mark.skipif(not can_pack(torch.bfloat16), reason="this CPU does not compute in bfloat16")


def model(dtype: torch.dtype = torch.float32, **sizes: Any) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, num_hidden_layers=1, intermediate_size=64, num_attention_heads=2, num_key_value_heads=1,
        **{"attention_bias": True} | sizes,
    )  # fmt: skip
    return LlamaForCausalLM(config).to(dtype).eval()


@pytest.mark.parametrize("tokens", [1, 5])
@pytest.mark.parametrize("rows", [1, 3, 130])
@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=needs_bfloat16)])
def test_logits_are_the_same_for_any_number_of_rows(dtype: torch.dtype, rows: int, tokens: int) -> None:
    plain, prepared = model(dtype), model(dtype)
    optimize_for_inference(prepared)
    ids = torch.arange(tokens * rows).reshape(rows, tokens) % 64

    with torch.inference_mode():
        torch.testing.assert_close(prepared(ids).logits, plain(ids).logits)


def test_optimizations_are_tested_on_tokens_from_the_middle_of_the_vocabulary() -> None:
    small, seen = model(), set()
    small.get_input_embeddings().register_forward_pre_hook(lambda module, inputs: seen.update(inputs[0].flatten().tolist()))

    optimize_for_inference(small)

    assert seen == {16, 32, 48}


def test_layers_that_read_the_same_states_are_one_product() -> None:
    found = [[layer.out_features for layer in product.layers] for product in fused_linears(model())]

    assert found == [[32, 16, 16], [64, 64], [32], [32], [64]]


def test_layers_of_other_kinds_are_computed_one_by_one() -> None:
    small = model()
    small.model.layers[0].mlp.up_proj = torch.nn.Linear(32, 64, bias=True)

    assert [len(product.layers) for product in fused_linears(small)] == [3, 1, 1, 1, 1, 1]


def test_a_layer_called_out_of_order_still_uses_its_own_input() -> None:
    plain, prepared = model(), model()
    optimize_for_inference(prepared)
    mine, theirs = (each.model.layers[0].self_attn for each in (prepared, plain))
    one, other = torch.randn(2, 3, 32), torch.randn(2, 3, 32)

    with torch.inference_mode():
        for name, states in [("v_proj", one), ("q_proj", one), ("k_proj", other), ("v_proj", one), ("q_proj", other), ("v_proj", other)]:
            torch.testing.assert_close(getattr(mine, name)(states), getattr(theirs, name)(states))
        states = one.clone()
        mine.q_proj(states)
        states.mul_(2)
        torch.testing.assert_close(mine.q_proj(states), theirs.q_proj(states))


def test_threads_that_share_a_model_do_not_mix_their_states() -> None:
    prepared = model()
    optimize_for_inference(prepared)
    asked = [torch.randint(0, 64, (1, 5)) for _ in range(8)]

    def answer(ids: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return torch.stack([prepared(ids).logits for _ in range(40)])

    expected = [answer(ids)[0] for ids in asked]
    with ThreadPoolExecutor(8) as pool:
        for found, logits in zip(pool.map(answer, asked), expected, strict=True):
            torch.testing.assert_close(found, logits.expand_as(found))


def test_the_last_layer_still_shares_the_embedding() -> None:
    small = model(tie_word_embeddings=True)
    optimize_for_inference(small)

    assert small.lm_head.weight is small.model.embed_tokens.weight
    assert small.num_parameters() == model(tie_word_embeddings=True).num_parameters()


def test_gradients_still_flow() -> None:
    prepared, plain = model(), model()
    optimize_for_inference(prepared)

    for each in (prepared, plain):
        each(torch.arange(5)[None]).logits.sum().backward()

    for name in ("q_proj", "k_proj"):
        mine, theirs = (getattr(each.model.layers[0].self_attn, name).weight.grad for each in (prepared, plain))
        torch.testing.assert_close(mine, theirs)


def test_other_models_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    far = model().to("meta")
    optimize_for_inference(far)
    assert "forward" not in vars(far.lm_head)

    assert not can_pack(torch.float16)
    monkeypatch.setattr("sftchat.inference.cpu.free_bytes", lambda _: 1000)
    monkeypatch.setattr("sftchat.inference.cpu.packed_weight", None)  # must not be called
    optimize_for_inference(model())
