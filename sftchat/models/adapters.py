"""Adapters put on a base, and whether they do anything."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from sftchat.errors import ModelError, first_line
from sftchat.models.claims import check_adapter
from sftchat.models.hub import reach
from sftchat.models.weight_check import check_adapter_keys, refuse_not_finite

BASE = "__base__"
"""What peft calls a model without any adapter."""
SHARED = ("vblora_vector_bank", "prompt_encoder", ".tinylora_v.", ".unilora_theta_d.")
"""Parts of names of tensors that peft keeps once for all layers, and names as missing in each."""
MISSHAPED = re.compile(r"size mismatch for (\S+): .*?torch\.Size\(\[([^]]*)\]\).*?torch\.Size\(\[([^]]*)\]\)", re.DOTALL)
"""What torch says of a tensor of another shape."""
PROBE = 8
"""Tokens that are looked at: an adapter that works changes the logits of any."""


def refuse_idle(model: Any, name: str) -> None:
    """Compare the logits of an adapted model with its base's on a few tokens.

    An adapter whose weights were never trained, or whose names match nothing in the base, is loaded without a complaint and answers as the
    base does: a comparison then says "no difference" with great confidence (oumi #389, verl #7285).

    Args:
        model: A ``PeftModel`` in eval mode.
        name: What the user calls it.

    Raises:
        ModelError: When every logit is the same.
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
    """Put an adapter on a model, beside those that it has, and compare what its file holds with what its config asks for.

    Its tensors are made without memory and given to it from the file, so that a config that asks for more than the file holds costs nothing.

    Args:
        model: A transformers model, or a ``PeftModel`` over one; in eval mode.
        folder: Where the adapter is.
        key: What peft is to call it; no dots.
        name: What the user calls it.

    Returns:
        A ``PeftModel``, the same one where the model was one, with the adapter active; and how many tensors the adapter has.

    Raises:
        ModelError: When it cannot be loaded, lacks tensors, has some left over or some that are not finite, or changes nothing; the model is as it
            was.
    """
    import torch
    from peft import PeftConfig, PeftModel, PeftModelForCausalLM

    if torch.distributed.is_available():
        import torch.distributed.tensor  # peft asks it for a class and trusts that transformers has imported it
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
    except Exception as error:  # its files are from outside, and the libraries raise whatever they run into
        _take_off(model, adapted, key)
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"adapter of '{name}' could not be loaded: {first_line(error)}") from error
    return adapted, tensors


def _fill(adapted: Any, folder: str, key: str, name: str) -> int:
    """Read an adapter's tensors from its file into a model that has a place for each; returns how many."""
    try:
        found = adapted.load_adapter(folder, adapter_name=key, torch_device=str(adapted.device), low_cpu_mem_usage=True)
    except KeyError as error:  # of a whole layer that the config names under modules_to_save
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
    """Leave a model as it was before an adapter was to be added."""
    if adapted is None:
        return
    if adapted is not model:
        adapted.unload()
    elif key in model.peft_config:
        model.set_adapter(next(other for other in model.peft_config if other != key), inference_mode=True)
        model.delete_adapter(key)


def _misshaped(name: str, error: RuntimeError) -> str:
    """Which tensor of an adapter does not fit, in the words of torch's error, or its first line."""
    found = MISSHAPED.search(str(error))
    if found is None:
        return f"adapter of '{name}' could not be loaded: {first_line(error)}"
    key, held, wanted = found.groups()
    shapes = (" × ".join(part.strip() for part in sizes.split(",")) for sizes in (held, wanted))
    return "adapter '{}' does not fit this base: {} is {} and must be {}; give the base that it was trained on with --base".format(
        name, key, *shapes
    )
