"""What is trained: all weights, or an adapter over a base in full or four-bit precision."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from sftchat.errors import MissingExtraError, UsageError
from sftchat.models.references import ModelReference
from sftchat.models.weights import load_model, quiet_libraries
from sftchat.training.config import METHODS, TrainingConfig


def check_method(method: str, device: str, optimizer: str = "") -> None:
    """Refuse what this machine cannot do, before anything is loaded.

    Args:
        method: As of ``TrainingConfig``.
        device: Where it is to run, decided.
        optimizer: As of ``TrainingConfig``; those in eight bits are bitsandbytes' too.

    Raises:
        UsageError: An unknown method, or a device that it cannot run on.
        MissingExtraError: When bitsandbytes is needed and not installed.
    """
    if method not in METHODS:
        raise UsageError(f"--method is {method}, must be one of {', '.join(METHODS)}")
    eight = "8bit" in optimizer or optimizer.startswith("paged_")
    if (method == "qlora" or eight) and find_spec("bitsandbytes") is None:
        raise MissingExtraError("--method qlora" if method == "qlora" else f"--optimizer {optimizer}", "quant")
    if method == "qlora" and device.startswith("mps"):
        raise UsageError("--method qlora needs four-bit products, which this device has not; use --device cpu, or --method lora")
    if eight and device == "cpu":
        raise UsageError(f"--optimizer {optimizer} keeps its state on a CUDA device; on a CPU use adamw_torch_fused")


def load_base(reference: ModelReference, method: str, device: str, trust_remote_code: bool) -> Any:
    """The base model: in float32 to train all of it, in the precision that ``eval`` loads under an adapter, in four bits for ``qlora``.

    Raises:
        ModelError: When it cannot be loaded.
    """
    if method == "qlora":
        quiet_libraries()
        from peft import prepare_model_for_kbit_training

        model = load_model(reference, dtype="bfloat16", device=device, trust_remote_code=trust_remote_code, four_bit=True)
        return prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    dtype = "float32" if method == "full" else "auto"
    return load_model(reference, dtype=dtype, device=device, trust_remote_code=trust_remote_code)


def with_adapter(model: Any, config: TrainingConfig, name: str) -> Any:
    """The model, or an adapter over all its linear layers but the head.

    Args:
        model: The base model.
        config: Method, rank, scale and dropout.
        name: The base as the user named it, for the adapter's config.
    """
    if config.method == "full":
        return model
    from peft import LoraConfig, get_peft_model

    peft_config = LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        use_dora=config.method == "dora",
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    adapted = get_peft_model(model, peft_config)
    adapted.peft_config["default"].base_model_name_or_path = name
    return adapted
