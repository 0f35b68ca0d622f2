"""``--dtype auto``: float32 on a CPU, so that replies do not depend on the batch; commands that only show replies keep bfloat16."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from sftchat.engine import Describes
from sftchat.inference.identity import identify
from sftchat.inference.linears import can_pack
from sftchat.inference.open import load_engine
from sftchat.models.loading import FULL_PRECISION_LIMIT, automatic_dtype, load_model
from sftchat.models.reference import resolve
from tests.conftest import make_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint in bfloat16."""
    folder = make_checkpoint(tmp_path_factory.mktemp("bfloat16") / "checkpoint")
    AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    """An adapter of the checkpoint with an effect."""
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(checkpoint), LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    folder = tmp_path_factory.mktemp("adapter") / "adapter"
    model.save_pretrained(folder)
    return folder


BIG = FULL_PRECISION_LIMIT // 2 + 1


@pytest.mark.parametrize(
    ("device", "stored", "size", "keep_bfloat16", "dtype"),
    [
        ("cpu", "bfloat16", 100, False, "float32"),
        ("cpu", "bfloat16", 100, True, "bfloat16"),
        ("cpu", "bfloat16", BIG, False, "auto"),
        ("cpu", "bfloat16", BIG, True, "bfloat16"),
        ("cpu", "float16", 100, True, "float32"),
        ("cpu", "float32", 100, True, "float32"),
        ("cpu", "", 0, True, "float32"),
        ("cuda", "bfloat16", 100, False, "auto"),
        ("cuda:1", "float32", 100, True, "auto"),
    ],
)
def test_auto_is_float32_on_a_cpu_unless_the_model_is_large_or_bfloat16_is_kept(
    device: str, stored: str, size: int, keep_bfloat16: bool, dtype: str
) -> None:
    assert automatic_dtype(device, stored, size, keep_bfloat16) == dtype


@pytest.mark.parametrize(("keep_bfloat16", "expected"), [(False, torch.float32), (True, torch.bfloat16)])
def test_a_checkpoint_in_bfloat16_is_loaded_as_asked(checkpoint: Path, adapter: Path, keep_bfloat16: bool, expected: torch.dtype) -> None:
    model = load_model(resolve(str(checkpoint)), device="cpu", keep_bfloat16=keep_bfloat16)
    adapted = load_model(resolve(str(adapter)), device="cpu", keep_bfloat16=keep_bfloat16)

    assert {parameter.dtype for parameter in model.parameters()} == {expected}
    assert {parameter.dtype for name, parameter in adapted.named_parameters() if "lora" not in name} == {expected}


def test_an_explicit_dtype_and_a_checkpoint_without_one_are_float32(checkpoint: Path, tmp_path: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    unnamed = make_checkpoint(tmp_path / "unnamed")
    (unnamed / "config.json").write_text(json.dumps({key: value for key, value in config.items() if key != "dtype"}), encoding="utf-8")

    assert load_model(resolve(str(checkpoint)), dtype="float32", device="cpu", keep_bfloat16=True).dtype == torch.float32
    assert load_model(resolve(str(unnamed)), device="cpu", keep_bfloat16=True).dtype == torch.float32


def test_an_interactive_engine_keeps_bfloat16_where_the_cpu_multiplies_it(checkpoint: Path) -> None:
    engines = [load_engine(str(checkpoint), {}, device="cpu", interactive=interactive) for interactive in (False, True)]

    kept = "bfloat16" if can_pack(torch.bfloat16) else "float32"
    assert all(isinstance(engine, Describes) for engine in engines)
    assert [engine.summary for engine in engines] == ["0.0 M parameters, float32, cpu", f"0.0 M parameters, {kept}, cpu"]  # type: ignore[attr-defined]


def test_an_interactive_engine_has_an_identity_of_its_own(checkpoint: Path) -> None:
    evaluated, interactive = (identify(str(checkpoint), {}, interactive=interactive) for interactive in (False, True))

    assert len({evaluated, interactive, ""}) == 3
    assert identify(str(checkpoint), {}) == evaluated
