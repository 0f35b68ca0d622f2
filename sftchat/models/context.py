"""Context length of a model, from its config only."""

from __future__ import annotations

import warnings

from sftchat._util.parsing import load_json, read_text
from sftchat.errors import SftchatWarning
from sftchat.models.reference import ModelReference


def context_length(reference: ModelReference) -> int | None:
    """Return the maximum number of tokens, prompt and reply together; None if no local config specifies it.

    Args:
        reference: A model; for an adapter, its base model is used.
    """
    if reference.base is not None:
        return context_length(reference.base)
    if reference.folder is None:
        return None
    try:
        config = load_json(read_text(reference.folder / "config.json"))
    except (OSError, ValueError):  # loading the model reports the problem
        return None
    parts = [config, config.get("text_config")] if isinstance(config, dict) else []
    found = [part.get(key) for part in parts if isinstance(part, dict) for key in ("max_position_embeddings", "n_positions")]
    return next((value for value in found if type(value) is int and value > 0), None)


def within_context(length: int, context: int | None, given: int | None) -> int:
    """Limit the maximum length of a training row to the model's context length.

    Args:
        length: Maximum length from the settings.
        context: Context length of the model; None for no limit.
        given: Length given by the user; a warning is issued if it exceeds the context length. None if not given.
    """
    if not context or length <= context:
        return length
    if given is not None:
        warnings.warn(
            f"--max-length {given} is more than the {context} tokens of the model's context; rows of up to {context} tokens are used",
            SftchatWarning,
            stacklevel=3,
        )
    return context
