"""Writing GGUF files: for every architecture llama.cpp computes the probabilities of transformers, and every kind of weights has the type it should."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sftchat.engine import Request
from sftchat.errors import ModelError
from sftchat.inference.llama_cpp import open_gguf
from sftchat.inference.llama_server import load_server
from sftchat.inference.local import score_reply
from sftchat.inference.rendering import prompt_ids
from sftchat.models.gguf import read_header
from sftchat.models.gguf_tokenizer import find_pre_tokenizer
from sftchat.models.gguf_types import FILE_TYPES, SMALLER_TYPES, tensor_type
from sftchat.models.gguf_write import ARCHITECTURES, write_gguf
from sftchat.models.reference import resolve
from sftchat.templates.renderer import Renderer, choose_renderer
from tests.conftest import make_tokenizer

SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
    "eos_token_id": 0,
    "bos_token_id": None,
    "pad_token_id": 0,
}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "Llama": ("LlamaForCausalLM", {}),
    "Llama with an own output matrix and biases": ("LlamaForCausalLM", {"tie_word_embeddings": False}),
    "Llama 3 with stretched positions": (
        "LlamaForCausalLM",
        {
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 10000.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            }
        },
    ),
    "Llama with linear positions": ("LlamaForCausalLM", {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}}),
    "Mistral": ("MistralForCausalLM", {"sliding_window": None}),
    "Qwen2": ("Qwen2ForCausalLM", {}),
    "Qwen3": ("Qwen3ForCausalLM", {}),
    "Gemma 2": ("Gemma2ForCausalLM", {"query_pre_attn_scalar": 16, "sliding_window": 64}),
    "Gemma 3": ("Gemma3ForCausalLM", {"query_pre_attn_scalar": 16, "sliding_window": 64, "num_hidden_layers": 6}),
    "Phi-3": ("Phi3ForCausalLM", {}),
    "GPT-2": ("GPT2LMHeadModel", {}),
}


def tiny(model_class: str, **changes: Any) -> tuple[Any, Renderer]:
    """A random model of a class, and its renderer."""
    import torch
    import transformers

    tokenizer: Any = make_tokenizer()
    sizes = SIZES | {"vocab_size": len(tokenizer)} | changes
    if model_class == "GPT2LMHeadModel":
        sizes = {
            "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256, "vocab_size": len(tokenizer), "initializer_range": 0.2,
            "bos_token_id": None, "eos_token_id": 0, "pad_token_id": 0,
        }  # fmt: skip
    torch.manual_seed(1)
    kind = getattr(transformers, model_class)
    model = kind(kind.config_class(**sizes)).eval()
    return model, choose_renderer(tokenizer, "chatml")


@pytest.mark.parametrize("name", MODELS)
def test_llama_cpp_computes_the_probabilities_of_transformers(name: str, tmp_path: Path) -> None:
    model_class, changes = MODELS[name]
    model, renderer = tiny(model_class, **changes)
    path = tmp_path / "model.gguf"
    write_gguf(model, renderer, path, FILE_TYPES["f32"], name="test", pre_tokenizer="gpt-2")

    request = Request("r", ({"role": "user", "content": "the user 你好 12"},))
    engine = open_gguf(name, resolve(str(path)))
    try:
        given = engine.choices(request, "talk 用户 and", alternatives=3)
    finally:
        engine.close()
    expected = score_reply(model, renderer, prompt_ids(renderer, request), [choice.token.id for choice in given], 3)

    assert [choice.token for choice in given] == [choice.token for choice in expected]
    assert [choice.logprob for choice in given] == pytest.approx([choice.logprob for choice in expected], abs=0.02)


def test_the_tested_models_are_of_all_architectures() -> None:
    assert {model_class for model_class, _ in MODELS.values()} == set(ARCHITECTURES)


def test_an_architecture_that_cannot_be_written_is_refused_with_those_that_can(tmp_path: Path) -> None:
    model, renderer = tiny("OPTForCausalLM", word_embed_proj_dim=64, ffn_dim=64)

    with pytest.raises(ModelError, match="OPTForCausalLM cannot be written as GGUF; those of Llama, .*GPT2 can"):
        write_gguf(model, renderer, tmp_path / "model.gguf", FILE_TYPES["f16"], name="", pre_tokenizer="gpt-2")


def test_positions_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    rope = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
    model, renderer = tiny("LlamaForCausalLM", rope_parameters=rope)

    with pytest.raises(ModelError, match="rotary positions of type 'dynamic' cannot be written"):
        write_gguf(model, renderer, tmp_path / "model.gguf", FILE_TYPES["f16"], name="", pre_tokenizer="gpt-2")


@pytest.mark.parametrize("name", FILE_TYPES)
def test_a_file_of_every_type_is_loaded_and_answers(name: str, tmp_path: Path) -> None:
    model, renderer = tiny("LlamaForCausalLM", hidden_size=256, intermediate_size=256, num_hidden_layers=3, head_dim=64)
    path = tmp_path / "model.gguf"
    write_gguf(model, renderer, path, FILE_TYPES[name], name=name, pre_tokenizer="gpt-2")

    engine = open_gguf(name, resolve(str(path)))
    try:
        assert [chunk.finish_reason for chunk in engine.generate([Request("r", ({"role": "user", "content": "hi"},))])][-1] in (
            "stop",
            "length",
        )
    finally:
        engine.close()
    assert read_header(path).file_type == FILE_TYPES[name].default


@pytest.mark.parametrize("width", [64, 256])
def test_a_file_has_the_same_bytes_whether_tensors_were_rounded_or_copied_from_earlier_files(width: int, tmp_path: Path) -> None:
    model, renderer = tiny("LlamaForCausalLM", hidden_size=width, intermediate_size=256, num_hidden_layers=3, head_dim=width // 4)
    settings: dict[str, Any] = {"name": "test", "pre_tokenizer": "gpt-2"}
    written: list[Path] = []
    for name in SMALLER_TYPES:
        alone, path = tmp_path / f"{name}-alone.gguf", tmp_path / f"{name}.gguf"
        write_gguf(model, renderer, alone, FILE_TYPES[name], **settings)
        write_gguf(model, renderer, path, FILE_TYPES[name], **settings, earlier=written)
        written.append(path)

        assert path.read_bytes() == alone.read_bytes()


def test_a_tensor_that_an_earlier_file_has_in_the_same_type_is_not_rounded_again(tmp_path: Path) -> None:
    model, renderer = tiny("LlamaForCausalLM")
    first, second = tmp_path / "first.gguf", tmp_path / "second.gguf"
    write_gguf(model, renderer, first, FILE_TYPES["q3_k_m"], name="test", pre_tokenizer="gpt-2")
    for weights in model.parameters():
        weights.data.zero_()
    write_gguf(model, renderer, second, FILE_TYPES["q3_k_m"], name="test", pre_tokenizer="gpt-2", earlier=[first])

    assert second.read_bytes() == first.read_bytes()


def type_of(name: str, file_type: str, *, width: int = 256, layers: int = 32, is_output: bool = False) -> str:
    return tensor_type(name, (width, width), FILE_TYPES[file_type], layers, is_output=is_output)


def test_tensors_have_the_types_of_llama_cpps_mixtures() -> None:
    assert type_of("blk.0.attn_v.weight", "q4_k_m") == "Q6_K"  # of the first eighth
    assert type_of("blk.4.attn_v.weight", "q4_k_m") == "Q4_K"
    assert type_of("blk.6.ffn_down.weight", "q5_k_m") == "Q6_K"  # every third
    assert type_of("blk.5.ffn_up.weight", "q4_k_m") == "Q4_K"
    assert type_of("token_embd.weight", "q4_k_m", is_output=True) == "Q6_K"
    assert type_of("token_embd.weight", "q4_k_m") == "Q4_K"
    assert type_of("output.weight", "q8_0", is_output=True) == "Q8_0"
    assert type_of("blk.5.attn_output.weight", "q3_k_m") == "Q4_K"
    assert tensor_type("blk.0.attn_norm.weight", (256,), FILE_TYPES["q2_k"], 32, is_output=False) == "F32"


def test_rows_that_are_no_multiple_of_a_block_get_a_type_that_fits() -> None:
    assert type_of("blk.5.ffn_up.weight", "q4_k_m", width=576) == "Q5_0"
    assert type_of("blk.5.ffn_up.weight", "q2_k", width=576) == "IQ4_NL"
    assert type_of("blk.5.ffn_up.weight", "q6_k", width=100) == "F16"


def open_vocabulary(path: Path) -> Any:
    return load_server(path).tokenize


def test_the_rules_of_a_tokenizer_are_found_by_trying_them(tmp_path: Path) -> None:
    from tokenizers import pre_tokenizers

    tokenizer: Any = make_tokenizer()
    assert find_pre_tokenizer(tokenizer, tmp_path, open_vocabulary) == "gpt-2"

    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, tokenizer.backend_tokenizer.pre_tokenizer])
    tokenizer.add_tokens(["\u010a\u010a"])
    assert find_pre_tokenizer(tokenizer, tmp_path, open_vocabulary) in ("gpt-2", "smollm")
    assert list(tmp_path.iterdir()) == []


def test_the_rules_of_the_embedded_model_have_an_equivalent(tmp_path: Path) -> None:
    from sftchat.models.loading import load_tokenizer

    # it splits off every Han character and punctuation mark, and has no token in which one stands beside another character
    assert find_pre_tokenizer(load_tokenizer(resolve("sftchat:nano")), tmp_path, open_vocabulary) == "gpt-2"


def test_a_tokenizer_without_an_equivalent_is_refused_with_the_difference(tmp_path: Path) -> None:
    from tokenizers import pre_tokenizers

    tokenizer: Any = make_tokenizer()
    letter = pre_tokenizers.Split("e", "isolated")
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([letter, tokenizer.backend_tokenizer.pre_tokenizer])

    with pytest.raises(
        ModelError, match="no tokenizer that agrees with this model's: at token .* transformers gives '.*' and llama.cpp '.*'"
    ):
        find_pre_tokenizer(tokenizer, tmp_path, open_vocabulary)
