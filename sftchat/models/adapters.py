"""Adapters put on a base, and whether they do anything."""

from __future__ import annotations

from typing import Any

from sftchat.errors import ModelError, first_line
from sftchat.models.hub import reach

BASE = "__base__"
"""What peft calls a model without any adapter."""
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


def add_adapter(model: Any, folder: str, key: str, name: str) -> Any:
    """Put an adapter on a model, beside those that it has.

    Args:
        model: A transformers model, or a ``PeftModel`` over one; in eval mode.
        folder: Where the adapter is.
        key: What peft is to call it; no dots.
        name: What the user calls it.

    Returns:
        A ``PeftModel``, the same one where the model was one; the adapter is active.

    Raises:
        ModelError: When it cannot be loaded or changes nothing; the model is as it was.
    """
    import torch
    from peft import PeftModel
    from peft.utils import load_peft_weights
    from safetensors import SafetensorError

    if torch.distributed.is_available():
        import torch.distributed.tensor  # peft asks it for a class and trusts that transformers has imported it
    adapted = None
    try:
        with reach(local=True):
            load_peft_weights(folder, device="cpu")  # what cannot be read is found before the model is changed
            if isinstance(model, PeftModel):
                model.base_model.enable_adapter_layers()
                model.load_adapter(folder, adapter_name=key)
                adapted = model
            else:
                adapted = PeftModel.from_pretrained(model, folder, adapter_name=key)
        adapted = adapted.to(model.device).eval()
        adapted.set_adapter(key, inference_mode=True)
        refuse_idle(adapted, name)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError, ModelError) as error:
        if isinstance(model, PeftModel):
            if key in model.peft_config:
                model.set_adapter(next(other for other in model.peft_config if other != key), inference_mode=True)
                model.delete_adapter(key)
        elif adapted is not None:
            adapted.unload()
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"adapter of '{name}' could not be loaded: {first_line(error)}") from error
    return adapted
