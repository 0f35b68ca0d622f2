"""Whether an adapter does anything."""

from __future__ import annotations

from typing import Any

from sftchat.errors import ModelError

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
