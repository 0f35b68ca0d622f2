"""Random adapters for the tiny checkpoint, different enough to give different replies."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def make_adapter(folder: Path, base: Path, seed: int, rank: int = 4, **options: Any) -> Path:
    """Write a random LoRA adapter of a checkpoint, with the tokenizer beside it as training leaves it."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(base)
    torch.manual_seed(seed)
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM", **options)
    adapted = get_peft_model(model, config)
    adapted.peft_config["default"].base_model_name_or_path = str(base)
    adapted.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder
