"""The recipes of ``examples/configs``, each run at reduced size: a tiny random model of its kind, a few rows, two steps."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sftchat.cli import main
from sftchat.models.loading import quiet_libraries
from sftchat.models.manifest import read_manifest
from tests.conftest import make_checkpoint, make_tokenizer
from tests.templates.shipped import SHIPPED, tokenizer_for

FOLDER = Path(__file__).parent.parent / "examples" / "configs"
SMALL = ["--max-steps", "2", "--device", "cpu", "--precision", "float32", "--logging-steps", "1", "-q"]

DOLLY = [
    {"instruction": "When did it begin?", "context": "It began in 2000.", "response": "In 2000.", "category": "closed_qa"},
    {"instruction": "Name a colour.", "context": "", "response": "Red.", "category": "open_qa"},
]
ALPACA = [
    {"instruction": "翻译成英文", "input": "你好", "output": "Hello"},
    {"instruction": "Count to two.", "input": "", "output": "1 2"},
]
SHAREGPT = [
    {
        "conversations": [
            {"from": "human", "value": "hi"},
            {"from": "gpt", "value": "hello"},
            {"from": "human", "value": "再见"},
            {"from": "gpt", "value": "bye"},
        ]
    }
]
LOOK = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {"at": {"type": "string"}}}}}
CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": "天"}'}}
TOOLS = [
    {
        "messages": [
            {"role": "user", "content": "look up"},
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "content": "blue", "tool_call_id": "c1"},
            {"role": "assistant", "content": "It is blue."},
        ],
        "tools": [LOOK],
    }
]


def llama(folder: Path, tokenizer: Any, template: str | None) -> Path:
    """A tiny random Llama with this tokenizer and template."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=4096,
        pad_token_id=0, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    if template is not None:
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return folder


def with_template(source: str) -> Callable[[Path], Path]:
    """Return a maker of tiny models with a template and its tokens."""
    return lambda folder: llama(folder, tokenizer_for(source), source)


def without_template(source: str) -> Callable[[Path], Path]:
    """Return a maker of tiny base models with the tokens of a template but without the template."""
    return lambda folder: llama(folder, tokenizer_for(source), None)


def gpt2(folder: Path) -> Path:
    """A tiny random GPT-2 without a chat template."""
    from transformers import GPT2Config, GPT2LMHeadModel

    tokenizer: Any = make_tokenizer()
    config = GPT2Config(
        vocab_size=len(tokenizer), n_embd=16, n_layer=1, n_head=2, n_positions=512, bos_token_id=0, eos_token_id=0, pad_token_id=0
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@dataclass(frozen=True)
class Recipe:
    """Replacements of the model and rows of a recipe, and the expected result.

    Attributes:
        model: Makes the model.
        rows: Rows of the file; None generates them with the task.
        template: Expected template in the manifest.
        more: Additional flags, which override the file.
    """

    model: Callable[[Path], Path]
    rows: list[dict[str, Any]] | None
    template: str
    more: list[str] = field(default_factory=list)


RECIPES = {
    "relation-lora": Recipe(with_template(SHIPPED["qwen3"]), None, "model's own", ["--rows", "8", "--max-length", "2048"]),
    "instruction-full": Recipe(make_checkpoint, ALPACA, "alpaca", ["--max-length", "256"]),
    # as in the recipe's comment for a machine without CUDA
    "dolly-qlora": Recipe(gpt2, DOLLY, "instruction", ["--method", "lora", "--optimizer", "adamw_torch_fused"]),
    "sharegpt-llama3": Recipe(without_template(SHIPPED["llama3"]), SHAREGPT, "llama3"),
    "tool-calls": Recipe(with_template(SHIPPED["qwen2_5"]), TOOLS, "model's own"),
}


def test_every_recipe_is_run_and_every_run_is_a_recipe() -> None:
    assert sorted(path.stem for path in FOLDER.iterdir()) == sorted(RECIPES)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False:UserWarning")
@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_recipe_trains_at_tiny_scale(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quiet_libraries()
    recipe = RECIPES[name]
    model, output = recipe.model(tmp_path / "model"), tmp_path / "run"
    more = ["--model", str(model), "-o", str(output), *SMALL, *recipe.more]
    if recipe.rows is not None:
        data = tmp_path / "rows.jsonl"
        data.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in recipe.rows * 8), encoding="utf-8")
        more += ["--data", str(data)]

    code = main(["train", "--config", str(FOLDER / f"{name}.toml"), *more])

    assert (code, capsys.readouterr().err) == (0, "")
    manifest = read_manifest(output)
    assert manifest is not None
    config = tomllib.loads((FOLDER / f"{name}.toml").read_text(encoding="utf-8"))
    assert (manifest.template, manifest.steps) == (recipe.template, 2)
    assert manifest.template_arguments == config.get("template-argument", {})
    for key in ("learning-rate", "batch-size", "accumulation", "warmup", "schedule"):
        if key in config:
            assert manifest.config[key.replace("-", "_")] == config[key]
