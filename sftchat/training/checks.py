"""Checks of a training that need only option values and file names, before rows are read and model libraries are imported."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from sftchat.data.row_options import AS_WRITTEN, RowOptions
from sftchat.data.tables import HUB
from sftchat.errors import UsageError
from sftchat.models.reference import ModelReference, resolve
from sftchat.task import Task
from sftchat.training.config import configure
from sftchat.training.validation import from_file


def check_words(
    task: Task,
    model: str,
    given: Mapping[str, Any],
    validation: str | None,
    schemes: Collection[str] = (),
    rows_read: RowOptions = AS_WRITTEN,
) -> ModelReference:
    """Refuse a model that cannot be trained, hyper-parameters out of range, and a missing validation file.

    Args:
        task: The task.
        model: The base model as MODEL.
        given: Hyper-parameters set by the user.
        validation: As in ``TrainingJob``.
        schemes: Schemes of the engine types of plugins.
        rows_read: Options for reading its rows.

    Returns:
        Reference to the weights of the base model.

    Raises:
        UsageError: When the model cannot be trained, or an option is out of range or contradicts another.
        DataError: When the validation file is missing.
    """
    reference = resolve(model, schemes=schemes)
    if reference.scheme:
        raise UsageError(f"model '{model}' is served by engine '{reference.scheme}' and cannot be trained here")
    if reference.base is not None:
        raise UsageError(f"model '{model}' is an adapter; merge it into its base before training on")
    config = configure(task, 0, given)
    if validation is not None:
        if not config.eval_steps:
            raise UsageError("--validation is scored every --eval-steps steps; give --eval-steps N")
        if validation != "-" and not validation.startswith(HUB):
            from_file(validation, config.validation_items, rows_read)
    return reference
