"""The check that an adapter has an effect."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sftchat.errors import ModelError
from sftchat.models.loading import load_model
from sftchat.models.reference import resolve
from tests.conftest import make_checkpoint


def make_adapter(tmp_path: Path, *, trained: bool) -> Any:
    """LoRA adapter on a tiny base; PEFT initialises its second matrix with zeros."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = make_checkpoint(tmp_path / "base")
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base), LoraConfig(r=2, target_modules=["q_proj"], base_model_name_or_path=str(base))
    )
    if trained:
        torch.manual_seed(0)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter)
    model.save_pretrained(tmp_path / "adapter")
    return resolve(str(tmp_path / "adapter"), base=str(base))


def test_an_adapter_that_changes_no_logit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="adapter '.*/adapter' changes nothing: all logits equal those of its base"):
        load_model(make_adapter(tmp_path, trained=False))


def test_an_adapter_that_changes_something_is_loaded(tmp_path: Path) -> None:
    assert load_model(make_adapter(tmp_path, trained=True)).active_adapters == ["default"]


def test_a_pickle_named_safetensors_is_one_line_and_is_not_run(tmp_path: Path) -> None:
    import torch

    reference, trap = make_adapter(tmp_path, trained=True), tmp_path / "run"

    class Trap:
        def __reduce__(self) -> Any:
            return Path.touch, (trap,)

    torch.save({"a": Trap()}, tmp_path / "adapter" / "adapter_model.safetensors")
    with pytest.raises(ModelError, match=r"^adapter of '.*/adapter' could not be loaded: .*header") as error:
        load_model(reference)

    assert len(str(error.value).splitlines()) == 1
    assert not trap.exists()
