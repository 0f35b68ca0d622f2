"""Fused decoder layers compute what transformers' own layers compute, in every family, with masks, caches and adapters."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    DynamicCache,
    GemmaConfig,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from sftchat.inference.cpu import optimize_for_inference

FAMILY = {
    "llama": LlamaConfig,
    "llama with biases": lambda **sizes: LlamaConfig(**sizes, attention_bias=True, mlp_bias=True),
    "mistral with a window": lambda **sizes: MistralConfig(**sizes, sliding_window=4),
    "qwen2": Qwen2Config,
    "qwen3": lambda **sizes: Qwen3Config(**sizes, head_dim=16),
}


def make_model(make_config: Any) -> Any:
    """Return a model with random weights, norms included, which transformers initializes to one."""
    torch.manual_seed(0)
    config: PretrainedConfig = make_config(
        vocab_size=64, hidden_size=32, num_hidden_layers=2, intermediate_size=48, num_attention_heads=4, num_key_value_heads=2
    )
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or "bias" in name:
                parameter.copy_(1 + 0.3 * torch.randn_like(parameter))
    return model


def is_fused(model: Any) -> list[bool]:
    """Return whether the forward pass of each decoder layer is replaced."""
    return ["forward" in vars(layer) for layer in model.model.layers]


@pytest.fixture(scope="module", params=FAMILY)
def pair(request: Any) -> tuple[Any, Any]:
    """Return the same model with its own and with fused layers."""
    plain, fused = make_model(FAMILY[request.param]), make_model(FAMILY[request.param])
    optimize_for_inference(fused)
    assert is_fused(fused) == [True, True]
    return plain, fused


@settings(max_examples=30, deadline=None)
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4), steps=st.integers(0, 3), seed=st.integers(0, 99))
def test_rows_of_any_length_have_the_logits_of_transformers(pair: tuple[Any, Any], lengths: list[int], steps: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    longest = max(lengths)
    ids = torch.randint(0, 64, (len(lengths), longest + steps), generator=generator)
    mask = torch.tensor([[0] * (longest - length) + [1] * (length + steps) for length in lengths])
    is_token = mask.bool()

    def compute_logits(model: Any) -> torch.Tensor:
        cache, logits = DynamicCache(config=model.config), []
        with torch.inference_mode():
            for start, end in [(0, longest), *((longest + step, longest + step + 1) for step in range(steps))]:
                positions = (mask.cumsum(1) - 1).clamp(min=0)[:, start:end]
                output = model(input_ids=ids[:, start:end], attention_mask=mask[:, :end], position_ids=positions, past_key_values=cache)
                logits.append(output.logits)
        return torch.cat(logits, 1)

    plain, fused = map(compute_logits, pair)
    torch.testing.assert_close(fused[is_token], plain[is_token], rtol=1e-4, atol=1e-4)


def test_logits_without_a_cache_are_the_same(pair: tuple[Any, Any]) -> None:
    ids = torch.arange(21).reshape(3, 7)

    with torch.inference_mode():
        plain, fused = (model(ids, use_cache=False).logits for model in pair)

    torch.testing.assert_close(fused, plain, rtol=1e-4, atol=1e-4)


def test_gradients_are_those_of_transformers(pair: tuple[Any, Any]) -> None:
    gradients = []
    for model in pair:
        model(torch.arange(5)[None]).logits.sum().backward()
        gradients.append(model.model.layers[0].input_layernorm.weight.grad)

    torch.testing.assert_close(*gradients)


def test_an_adapter_that_is_added_later_counts() -> None:
    config = LoraConfig(r=2, target_modules=["k_proj", "down_proj"], init_lora_weights=False)
    plain, fused = make_model(LlamaConfig), make_model(LlamaConfig)
    optimize_for_inference(fused)
    ids = torch.arange(6)[None]
    with torch.inference_mode():
        without = fused(ids).logits
        logits = []
        for model in (plain, fused):
            torch.manual_seed(1)
            logits.append(get_peft_model(model, config).eval()(ids).logits)

    torch.testing.assert_close(*logits, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(without, logits[1], atol=1e-2)


def test_dropout_of_a_model_in_training_mode_is_kept() -> None:
    model = make_model(lambda **sizes: LlamaConfig(**sizes, attention_dropout=0.9))
    optimize_for_inference(model)
    model.train()

    with torch.inference_mode():
        one, other = (model(torch.arange(6)[None]).logits for _ in range(2))

    assert not torch.allclose(one, other)


@pytest.mark.parametrize("make_config", [GemmaConfig, lambda **sizes: LlamaConfig(**sizes, hidden_act="gelu")])
def test_layers_that_compute_something_else_are_left_alone(make_config: Any) -> None:
    model = make_model(make_config)

    optimize_for_inference(model)

    assert is_fused(model) == [False, False]


@pytest.mark.filterwarnings("ignore:.*decoder layers")
def test_layers_that_transformers_has_changed_keep_their_own_forward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    model, ids = make_model(LlamaConfig), torch.arange(5)[None]
    kind = type(model.model.layers[0])
    own = kind.forward
    monkeypatch.setattr(kind, "forward", lambda self, *inputs, **arguments: 2 * own(self, *inputs, **arguments))
    with torch.inference_mode():
        expected = model(ids).logits

        optimize_for_inference(model)

        torch.testing.assert_close(model(ids).logits, expected)
    assert is_fused(model) == [False, False]
    assert "forward" in vars(model.lm_head)  # the other optimizations stay
