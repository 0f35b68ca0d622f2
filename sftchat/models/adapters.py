"""Adds adapters to a base model and checks that they have an effect."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from sftchat.errors import ModelError, first_line
from sftchat.models.claims import check_adapter
from sftchat.models.hub import reach
from sftchat.models.weight_check import check_adapter_keys, refuse_not_finite

BASE = "__base__"
"""Name of a model without any adapter, in peft's style."""
SHARED = ("vblora_vector_bank", "prompt_encoder", ".tinylora_v.", ".unilora_theta_d.")
"""Parts of names of tensors that peft stores once for all layers, and reports as missing in each."""
MISSHAPED = re.compile(r"size mismatch for (\S+): .*?torch\.Size\(\[([^]]*)\]\).*?torch\.Size\(\[([^]]*)\]\)", re.DOTALL)
"""torch's message about a tensor of another shape."""
PROBE = 8
"""Number of tokens tested; an effective adapter changes the logits of any token."""


def refuse_idle(model: Any, name: str) -> None:
    """Compare the logits of an adapted model with those of its base model on a few tokens.

    An adapter whose weights were never trained, or whose names match nothing in the base model, is loaded without an error and replies like the base:
    a comparison then finds "no difference" with great confidence (oumi #389, verl #7285).

    Args:
        model: A ``PeftModel`` in eval mode.
        name: Name of the model, as the user gave it.

    Raises:
        ModelError: When all logits are equal.
    """
    import torch

    size = model.get_input_embeddings().weight.shape[0]
    ids = torch.arange(PROBE, device=model.device).remainder(size)[None]
    with torch.inference_mode():
        adapted = model(input_ids=ids, use_cache=False).logits
        with model.disable_adapter():
            plain = model(input_ids=ids, use_cache=False).logits
    if torch.equal(adapted, plain):
        raise ModelError(
            f"adapter '{name}' changes nothing: every logit is its base's; it was not trained, or its weights' names do not fit this base "
            "(look at adapter_config.json, or give another base with --base)"
        )


def add_adapter(model: Any, folder: str, key: str, name: str) -> tuple[Any, int]:
    """Add an adapter to a model, and compare the tensors in its file with those that its config requires.

    Its tensors are created on the meta device and then loaded from the file, so that a config that requires more than the file holds costs no memory.

    Args:
        model: A transformers model, or a ``PeftModel`` around one; in eval mode.
        folder: Folder of the adapter.
        key: peft's name for the adapter; without dots.
        name: Name of the adapter, as the user gave it.

    Returns:
        A ``PeftModel``, the same object if the model was one, with the adapter active; and the number of tensors of the adapter.

    Raises:
        ModelError: When it cannot be loaded, has missing, unused or non-finite tensors, or has no effect; the model is then unchanged.
    """
    import torch
    from peft import PeftConfig, PeftModel, PeftModelForCausalLM

    if torch.distributed.is_available():
        import torch.distributed.tensor  # peft uses this module and relies on transformers to have imported it
    adapted = model if isinstance(model, PeftModel) else None
    check_adapter(Path(folder), [module for module, _ in model.named_modules()])
    try:
        with reach(local=True):
            if adapted is None:
                config = PeftConfig.from_pretrained(folder)
                config.inference_mode = True
                adapted = PeftModelForCausalLM(model, config, adapter_name=key, low_cpu_mem_usage=True)
            else:
                adapted.base_model.enable_adapter_layers()
            tensors = _fill(adapted, folder, key, name)
        adapted = adapted.to(model.device).eval()
        adapted.set_adapter(key, inference_mode=True)
        refuse_idle(adapted, name)
    except Exception as error:  # the files are untrusted, and the libraries raise any exception
        _take_off(model, adapted, key)
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"adapter of '{name}' could not be loaded: {first_line(error)}") from error
    return adapted, tensors


def _fill(adapted: Any, folder: str, key: str, name: str) -> int:
    """Load an adapter's tensors from its file into a model with meta tensors; returns their number."""
    try:
        found = adapted.load_adapter(folder, adapter_name=key, torch_device=str(adapted.device), low_cpu_mem_usage=True)
    except KeyError as error:  # a tensor of a whole layer that the config names under modules_to_save
        raise ModelError(f"adapter '{name}' is incomplete: {error.args[0]} is not in its file; copy or download it again") from error
    except RuntimeError as error:
        raise ModelError(_misshaped(name, error)) from error
    own = {parameter: value for parameter, value in adapted.named_parameters() if key in parameter.split(".")}
    check_adapter_keys(
        name, len(own), [one for one in found.missing_keys if not any(part in one for part in SHARED)], found.unexpected_keys
    )
    refuse_not_finite(name, own)
    return len(own)


def _take_off(model: Any, adapted: Any, key: str) -> None:
    """Undo the addition of an adapter."""
    if adapted is None:
        return
    if adapted is not model:
        adapted.unload()
    elif key in model.peft_config:
        model.set_adapter(next(other for other in model.peft_config if other != key), inference_mode=True)
        model.delete_adapter(key)


def _misshaped(name: str, error: RuntimeError) -> str:
    """Return which tensor of an adapter has a wrong shape, from torch's message, or the first line of that message."""
    found = MISSHAPED.search(str(error))
    if found is None:
        return f"adapter of '{name}' could not be loaded: {first_line(error)}"
    key, held, wanted = found.groups()
    shapes = (" × ".join(part.strip() for part in sizes.split(",")) for sizes in (held, wanted))
    return "adapter '{}' does not fit this base: {} is {} and must be {}; give the base that it was trained on with --base".format(
        name, key, *shapes
    )
