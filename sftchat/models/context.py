"""How many tokens a model has positions for, from its config alone."""

from __future__ import annotations

import warnings

from sftchat._util.parsing import load_json, read_text
from sftchat.errors import SftchatWarning
from sftchat.models.reference import ModelReference


def context_length(reference: ModelReference) -> int | None:
    """The most tokens that a prompt and its reply may have together; None where no local config says.

    Args:
        reference: A model; of an adapter, its base is asked.
    """
    if reference.base is not None:
        return context_length(reference.base)
    if reference.folder is None:
        return None
    try:
        config = load_json(read_text(reference.folder / "config.json"))
    except (OSError, ValueError):  # loading the model names what is wrong with it
        return None
    parts = [config, config.get("text_config")] if isinstance(config, dict) else []
    found = [part.get(key) for part in parts if isinstance(part, dict) for key in ("max_position_embeddings", "n_positions")]
    return next((value for value in found if type(value) is int and value > 0), None)


def within_context(length: int, context: int | None, given: int | None) -> int:
    """The most tokens that a row may have: never more than the model has positions for.

    Args:
        length: As the settings say.
        context: The model's positions; None where it has no limit.
        given: What the user asked for; a warning says that it is more. None where the user said nothing.
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
